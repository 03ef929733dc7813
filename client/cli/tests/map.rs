//! `pinmesh map` against a broker in the test: where results go, and what a resumed map does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::{Control, FakeBroker, GENEROUS, lines_of};

struct Test {
    broker: FakeBroker,
    folder: tempfile::TempDir,
}

impl Test {
    fn new() -> Self {
        Self { broker: FakeBroker::start(), folder: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    /// `pinmesh map`, in the folder of the test.
    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinmesh"));
        command.env("PINMESH_BROKER", &self.broker.endpoint).current_dir(self.folder.path());
        command.arg("map").args(words.split_whitespace()).stdin(Stdio::null());
        command
    }

    fn map(&self, words: &str) -> (i32, String, String) {
        said(&self.command(words).output().unwrap())
    }

    #[track_caller]
    fn map_well(&self, words: &str) -> String {
        let (code, out, err) = self.map(words);
        assert_eq!(code, 0, "{err}");
        out
    }
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_ordered_map_prints_in_the_order_of_its_inputs() {
    let test = Test::new();
    let lines: String = (0..2_000).map(|number| format!("{number}\n")).collect();
    test.write("lines", &lines);
    let words = "echo --lines lines --ordered --window 50 --output-format {result}";
    assert_eq!(test.map_well(words), lines);
}

#[test]
fn files_come_from_folders_or_from_a_list_with_line_ends_or_nul() {
    let test = Test::new();
    test.write("in/a b", "1");
    test.write("in/c", "22");
    test.write("in/new\nline", "333");
    let words = "length --ordered --output-format {index}:{result}";
    assert_eq!(test.map_well(&format!("{words} --files in")), "0:1\n1:2\n2:3\n");
    test.write("list", "in/c\n\nin/a b\n");
    assert_eq!(test.map_well(&format!("{words} --files-from list")), "0:2\n1:1\n");
    test.write("list", "in/new\nline\0in/c\0");
    assert_eq!(test.map_well(&format!("{words} --files-from list")), "0:3\n1:2\n");
    let mut child = test.command(&format!("{words} --files-from -"));
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"in/c").unwrap();
    assert_eq!(said(&child.wait_with_output().unwrap()).1, "0:2\n");
}

#[test]
fn results_go_to_files_named_like_their_inputs() {
    let test = Test::new();
    test.write("in/a", "one\n");
    test.write("in/deep/er/b", "two");
    test.map_well("echo --files in --output-dir out --suffix .copy");
    assert_eq!(test.read("out/a.copy"), "one\n");
    assert_eq!(test.read("out/deep/er/b.copy"), "two");
    assert_eq!(fs::read_dir(test.at("out")).unwrap().count(), 2, "nothing else is left there");
    test.write("list", "in/deep/er/b\n");
    test.map_well("echo --files-from list --output-dir listed");
    assert_eq!(test.read("listed/in/deep/er/b"), "two");
    test.write("lines", "x\ny\n");
    test.map_well("echo --lines lines --output-dir lined --format text");
    assert_eq!(
        (test.read("lined/00000000"), test.read("lined/00000001")),
        ("x\n".into(), "y\n".into())
    );
}

#[test]
fn a_map_with_nothing_left_to_do_hands_nothing_in() {
    let test = Test::new();
    test.write("lines", "a\nbb\nccc\n");
    for words in [
        "length --lines lines --output out --resume j1 --ordered",
        "length --lines lines --output-dir folder --resume j2",
    ] {
        test.map_well(words);
        let before = test.broker.seen().submits.len();
        let (code, _, err) = test.map(words);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("0 done, 0 failed, 3 done before in "), "{err}");
        assert_eq!(test.broker.seen().submits.len(), before);
    }
    assert_eq!(test.read("out"), "1  a\n2  bb\n3  ccc\n");
    // More inputs may follow; what has gone from the output runs again.
    test.write("lines", "a\nbb\nccc\ndddd\n");
    test.write("out", "1  a\n2  b");
    let words = "length --lines lines --output out --resume j1 --ordered";
    let (code, _, err) = test.map(words);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("`out` lacks 2 results"), "{err}");
    assert_eq!(test.read("out"), "1  a\n2  bb\n3  ccc\n4  dddd\n");
    fs::remove_file(test.at("folder/00000001")).unwrap();
    let (_, _, err) = test.map("length --lines lines --output-dir folder --resume j2");
    assert!(err.contains("2 done, 0 failed, 2 done before in "), "{err}");
    assert_eq!(test.read("folder/00000001"), "2");
}

#[test]
fn a_journal_of_another_map_is_refused_before_anything_is_written() {
    let test = Test::new();
    test.write("lines", "a\nb\nc\n");
    test.map_well("length --lines lines --output out --resume j");
    let output = test.read("out");
    for (content, words, want) in [
        ("a\nx\nc\n", "length --lines lines --output out", "number 1, now `x`, then `b`"),
        ("a\nb\n", "length --lines lines --output out", "there are 2 now, and number 2 was `c`"),
        ("a\nb\nc\n", "echo --lines lines --output out", r#"begun with service "length""#),
        ("a\nb\nc\n", "length --lines lines --output-dir d", r#"begun with output "file""#),
        ("a\nb\nc\n", "length --lines lines --output out --ordered", "begun with ordered false"),
    ] {
        test.write("lines", content);
        let before = test.broker.seen().submits.len();
        let (code, _, err) = test.map(&format!("{words} --resume j"));
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(want), "{words}: {err}");
        assert_eq!(test.broker.seen().submits.len(), before);
        assert_eq!(test.read("out"), output);
    }
}

#[test]
fn mistakes_that_would_cost_results_are_exit_code_2() {
    let test = Test::new();
    test.write("in/a", "");
    test.write("in/b/a", "");
    test.write("list", "../x\n");
    for (words, want) in [
        ("echo --files in --resume j", "--output <FILE>|--output-dir <DIR>"),
        ("echo --files in --output-dir in/out", "it would become an input"),
        ("echo --files in --output in/out", "it would become an input"),
        ("echo --files in/a in/b/a --output-dir out", "would both be `a`"),
        ("echo --files in --output-dir out --suffix a/b", "--suffix `a/b`"),
        ("echo --files in --output-dir out --ordered", "cannot be used with"),
        ("echo --files in --lines in/a", "cannot be used with"),
        ("echo --files in --suffix .x", "--output-dir"),
        ("echo --files in --output /dev/null --resume j", "no regular file"),
    ] {
        let (code, out, err) = test.map(words);
        assert_eq!((code, &*out), (2, ""), "{words}: {err}");
        assert!(err.contains(want), "{words}: {err}");
    }
    let (code, _, err) = test.map("echo --files-from list --output-dir out");
    assert_eq!(code, 1);
    assert!(err.contains("../x: a path with `..`"), "{err}");
}

#[test]
fn an_output_that_is_an_input_or_another_output_is_refused_before_it_is_emptied() {
    let test = Test::new();
    test.write("in", "a\n");
    test.write("list", "other\n./in\n");
    fs::hard_link(test.at("in"), test.at("link")).unwrap();
    for (words, want) in [
        ("--lines in --output in", "--output `in` is `in`, which is read"),
        ("--lines in --output link", "--output `link` is `in`, which is read"),
        ("--files in --errors in", "--errors `in` is `in`, which is read"),
        ("--files-from list --output in", "--output `in` is `./in`, which is read"),
        ("--files-from list --output list", "--output `list` is `list`, which is read"),
        ("--lines in --output new --resume ./new", "--output and --resume are one file, `./new`"),
        ("--lines in --output out --errors out", "--output and --errors are one file, `out`"),
        (
            "--lines in --output out --resume j --errors j",
            "--resume and --errors are one file, `j`",
        ),
    ] {
        let (code, out, err) = test.map(&format!("echo {words}"));
        assert_eq!((code, &*out), (2, ""), "{words}: {err}");
        assert!(err.contains(want), "{words}: {err}");
        assert_eq!((&*test.read("in"), &*test.read("list")), ("a\n", "other\n./in\n"));
    }
    test.map_well("echo --lines in --output /dev/null --errors /dev/null");
}

#[test]
fn a_file_of_another_map_that_was_killed_is_an_input_whose_result_has_no_place() {
    let test = Test::new();
    test.write("in/.pinmesh-parts/0", "half");
    test.write("in/a", "whole");
    let (code, _, err) = test.map("echo --files in --output-dir out");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("in/.pinmesh-parts/0: "), "{err}");
    assert_eq!(test.read("out/a"), "whole");
}

#[test]
fn a_map_whose_inputs_fill_the_memory_can_be_interrupted() {
    let test = Test::new();
    for name in ["1", "2", "3", "4", "5", "6"] {
        test.write(&format!("in/{name}"), "");
        File::options()
            .write(true)
            .open(test.at("in").join(name))
            .unwrap()
            .set_len(60 << 20)
            .unwrap();
    }
    let mut command = test.command("hold --files in");
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    test.broker.wait_seen("four tasks", |seen| seen.submits.len() >= 4);
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let until = std::time::Instant::now() + GENEROUS;
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if std::time::Instant::now() > until {
            child.kill().unwrap();
        }
        std::thread::yield_now();
    };
    assert_eq!(code, Some(130));
}

#[test]
fn failures_go_to_the_error_file_and_too_many_end_the_map() {
    let test = Test::new();
    test.write("list", "missing\nlist\n");
    let (code, out, err) = test.map("fail --files-from list --errors e --format raw");
    assert_eq!((code, &*out), (1, ""));
    assert!(err.starts_with("pinmesh: 0 done, 2 failed in "), "{err}");
    let mut lines: Vec<String> = test.read("e").lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert!(lines[0].starts_with(r#"{"index":0,"input":"missing","message":"cannot open it"#));
    let failed =
        r#"{"index":1,"input":"list","message":"service `fail` failed: boom","status":"FAILED"}"#;
    assert_eq!(lines[1], failed);
    test.write("lines", "x\n".repeat(1_000));
    let (code, _, err) = test.map("fail --lines lines --errors e --max-errors 20 --window 10");
    assert_eq!(code, 1);
    assert!(err.contains("stopped: 21 inputs have failed, --max-errors is 20"), "{err}");
    assert_eq!(test.read("e").lines().count(), 21);
}

#[test]
fn an_output_file_that_is_full_is_exit_code_4_and_counts_nothing() {
    let test = Test::new();
    test.write("lines", "x\n".repeat(1_000));
    let (code, _, err) = test.map("echo --lines lines --output /dev/full");
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("cannot write to `/dev/full`") && err.contains("make room"), "{err}");
    assert!(err.contains("pinmesh: 0 done, 0 failed"), "{err}");
    let (code, _, err) = test.map("echo --lines lines --output out --errors /nowhere/e");
    assert_eq!(code, 4, "{err}");
}

#[test]
fn the_summary_counts_what_the_journal_has_when_the_disk_is_full() {
    let test = Test::new();
    let lines: String = (0..2_000).map(|number| format!("{number}\n")).collect();
    test.write("lines", lines);
    let program = env!("CARGO_BIN_EXE_pinmesh");
    // A limit on the length of files; without its signal a write says that it is too long.
    let script = format!(
        "trap '' XFSZ; ulimit -f 16; exec {program} map echo --lines lines --output out --resume j"
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).env("PINMESH_BROKER", &test.broker.endpoint);
    let (code, _, err) = said(&command.current_dir(test.folder.path()).output().unwrap());
    assert_eq!(code, 4, "{err}");
    let journal = test.read("j");
    let noted = journal.matches('\n').count() - 1;
    assert!((1..2_000).contains(&noted), "{noted}: {err}");
    assert!(err.contains(&format!("pinmesh: {noted} done, 0 failed")), "{noted}: {err}");
    test.map_well("echo --lines lines --output out --resume j");
    assert_eq!(test.read("out").lines().count(), 2_000);
}

#[test]
fn a_slow_pipe_holds_up_neither_results_nor_signals() {
    let test = Test::new();
    let mut command = test.command("echo --lines - --output-format {result}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let results = lines_of(child.stdout.take().unwrap());
    for line in ["a", "b", "c"] {
        writeln!(pipe, "{line}").unwrap();
        assert_eq!(results.recv_timeout(GENEROUS).unwrap(), line);
    }
    drop(pipe);
    let (code, _, err) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("3 done"), "{err}");
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let results = lines_of(child.stdout.take().unwrap());
    writeln!(pipe, "d").unwrap();
    assert_eq!(results.recv_timeout(GENEROUS).unwrap(), "d");
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let (code, _, err) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, 130, "{err}");
    drop(pipe);
    let mut lines = String::new();
    (0..5_000).for_each(|number| lines.push_str(&format!("{number}\n")));
    let mut command = test.command("echo --lines - --ordered --output-format {result} --window 9");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let text = lines.clone();
    std::thread::spawn(move || pipe.write_all(text.as_bytes()).unwrap());
    assert!(said(&child.wait_with_output().unwrap()).1 == lines);
}

#[test]
fn a_timeout_counts_from_the_latest_end_whatever_comes_in() {
    let test = Test::new();
    let mut command = test.command("hold --lines - --timeout 500ms");
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // As fast as the map takes them, until it is gone.
    std::thread::spawn(move || while pipe.write_all(b"x\n").is_ok() {});
    let (code, _, err) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("tasks ended within 500ms"), "{err}");
}

#[test]
fn a_map_of_a_service_that_nobody_serves_stops_at_the_first() {
    let test = Test::new();
    test.write("lines", "x\n".repeat(1_000));
    let (code, out, err) = test.map("nobody --lines lines --window 5 --errors e");
    assert_eq!((code, &*out), (1, ""), "{err}");
    let stopped = "stopped with nothing done: no worker serves `nobody`: check the name";
    assert!(err.contains(stopped), "{err}");
    assert!(err.contains("pinmesh: 0 done, 1 failed"), "{err}");
    assert_eq!(test.read("e").lines().count(), 1);
    assert!(test.broker.seen().submits.len() <= 5);
}

#[test]
fn a_map_that_has_no_result_yet_says_what_it_may_be_waiting_for() {
    let test = Test::new();
    test.write("lines", "x\n");
    let mut command = test.command("hold --lines lines");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = lines_of(child.stderr.take().unwrap());
    let line = lines.recv_timeout(GENEROUS).unwrap();
    assert!(line.contains("no result of `hold` yet"), "{line}");
    test.broker.control(Control::Release);
    assert!(child.wait().unwrap().success());
    let rest: Vec<String> = lines.iter().collect();
    assert!(matches!(&rest[..], [line] if line.contains("1 done")), "{rest:?}");
    let test = Test::new();
    test.write("lines", "x\n");
    let (code, _, err) = test.map("hold --lines lines --progress never --timeout 2500ms");
    assert_eq!(code, 1, "{err}");
    assert!(!err.contains("no result of"), "{err}");
}

#[test]
fn an_interrupted_map_cancels_what_is_under_way_and_can_be_resumed() {
    let test = Test::new();
    test.write("lines", "a\nb\nc\n");
    let words = "hold --lines lines --output out --resume j";
    let child = test.command(words).stderr(Stdio::piped()).spawn().unwrap();
    test.broker.wait_seen("three tasks", |seen| seen.submits.len() == 3);
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let (code, _, err) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, 130, "{err}");
    assert!(err.contains("interrupted; 3 tasks were cancelled; the same command goes on"), "{err}");
    test.broker.wait_seen("three cancels", |seen| seen.cancels.len() == 3);
    test.broker.control(Control::Release);
    test.map_well(words);
    assert_eq!(test.read("out").lines().count(), 3);
}

#[test]
fn progress_can_be_had_without_a_terminal_and_does_not_come_unasked() {
    let test = Test::new();
    test.write("lines", "a\nb\n");
    let (_, _, err) = test.map("echo --lines lines");
    assert_eq!(err.lines().count(), 1, "{err}");
    let mut command = test.command("hold --lines lines --progress always");
    let file = File::create(test.at("said")).unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(file).spawn().unwrap();
    let until = std::time::Instant::now() + GENEROUS;
    while !test.read("said").contains("pinmesh: 0/2 inputs, 0/s, 0 failed, 2 in flight\n") {
        assert!(std::time::Instant::now() < until, "{}", test.read("said"));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    test.broker.control(Control::Release);
    assert!(child.wait().unwrap().success());
}

#[test]
fn formats_say_how_payloads_are_read_and_shown() {
    let test = Test::new();
    test.write("lines", "{\"a\":[1,2]}\n\"text\"\n");
    let words = "echo --lines lines --ordered --output-format {result}";
    assert_eq!(test.map_well(&format!("{words} --format json")), "{\"a\":[1,2]}\n\"text\"\n");
    assert_eq!(test.map_well(&format!("{words} --format text")), test.read("lines"));
    test.write("value", [0x92, 1, 0xc4, 1, 0xff]);
    let file = "echo --files value --output-format {result}";
    assert_eq!(test.map_well(&format!("{file} --format msgpack")), "[1,\"/w==\"]\n");
    let (code, _, err) = test.map(&format!("{words} --format msgpack"));
    assert_eq!(code, 1);
    assert!(err.contains("the input is not one MessagePack value"), "{err}");
    let raw = test.command(file).output().unwrap().stdout;
    assert_eq!(raw, [0x92, 1, 0xc4, 1, 0xff, b'\n']);
}

#[test]
fn each_shell_has_a_script_of_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinmesh"));
        let (code, out, err) = said(&command.args(["completions", shell]).output().unwrap());
        assert_eq!((code, &*err), (0, ""));
        assert!(out.contains("output-dir"), "{shell}");
    }
}
