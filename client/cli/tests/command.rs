//! The `pinmesh` program as its users run it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use common::{Control, FakeBroker, lines_of};
use pinmesh_protocol::rendezvous::{hash, weight};

fn pinmesh(broker: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinmesh"));
    command.env("PINMESH_BROKER", broker).args(words).stdin(Stdio::null());
    command
}

fn run(broker: &str, words: &[&str]) -> (i32, String, String) {
    said(&pinmesh(broker, words).output().unwrap())
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn call_prints_the_output_as_it_is() {
    let broker = FakeBroker::start();
    let (code, out, err) = run(&broker.endpoint, &["call", "echo", "hello"]);
    assert_eq!((code, &*out, &*err), (0, "hello", ""));
    let json = ["call", "echo", r#"{"b": [1, "x"]}"#, "--format", "json"];
    let (code, out, _) = run(&broker.endpoint, &json);
    assert_eq!((code, &*out), (0, "{\"b\":[1,\"x\"]}\n"));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"from a file").unwrap();
    let at = format!("@{}", file.path().display());
    assert_eq!(run(&broker.endpoint, &["call", "echo", &at]).1, "from a file");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(OsStr::from_bytes(b"\xff"));
    std::fs::write(&path, "no UTF-8").unwrap();
    let mut at = OsString::from("@");
    at.push(&path);
    let mut command = pinmesh(&broker.endpoint, &["call", "echo"]);
    assert_eq!(said(&command.arg(at).output().unwrap()).1, "no UTF-8");
    let mut command = pinmesh(&broker.endpoint, &["call", "echo", "-"]);
    let input = File::open(file.path()).unwrap();
    let (code, out, _) = said(&command.stdin(input).output().unwrap());
    assert_eq!((code, &*out), (0, "from a file"));
}

#[test]
fn a_failed_task_is_exit_code_1_and_its_message() {
    let broker = FakeBroker::start();
    let (code, out, err) = run(&broker.endpoint, &["call", "fail", "x"]);
    assert_eq!((code, &*out, &*err), (1, "", "pinmesh: service `fail` failed: boom\n"));
    let words = ["call", "hold", "x", "--timeout", "10ms"];
    let (code, _, err) = run(&broker.endpoint, &words);
    assert_eq!(code, 1);
    assert!(err.contains("has not ended after 10ms"), "{err}");
}

#[test]
fn an_interrupted_call_cancels_its_task() {
    for signal in ["-INT", "-TERM"] {
        let broker = FakeBroker::start();
        let mut command = pinmesh(&broker.endpoint, &["call", "hold", "x"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        broker.wait_seen("the task", |seen| seen.submits.len() == 1);
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let (code, out, err) = said(&child.wait_with_output().unwrap());
        let cancelled = "pinmesh: interrupted; the task was cancelled\n";
        assert_eq!((code, &*out, &*err), (130, "", cancelled));
        assert_eq!(broker.seen().cancels, [1]);
    }
}

#[test]
fn a_call_that_has_no_result_yet_says_what_it_may_be_waiting_for() {
    let broker = FakeBroker::start();
    let mut command = pinmesh(&broker.endpoint, &["call", "hold", "x"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said_so = lines_of(child.stderr.take().unwrap());
    let line = said_so.recv_timeout(common::GENEROUS).unwrap();
    assert!(line.contains("no result of `hold` yet") && line.contains("service_wait"), "{line}");
    broker.control(Control::Release);
    assert_eq!(said(&child.wait_with_output().unwrap()).1, "x");
    assert_eq!(said_so.iter().count(), 0, "it says so once");
}

#[test]
fn tasks_with_one_affinity_go_to_one_broker() {
    let brokers = [FakeBroker::start(), FakeBroker::start()];
    let list = format!("{},{}", brokers[0].endpoint, brokers[1].endpoint);
    let counts = || brokers.each_ref().map(|broker| broker.seen().submits.len());
    let owner = |key: &str| {
        let weights =
            brokers.each_ref().map(|it| weight(hash(key.as_bytes()), hash(it.endpoint.as_bytes())));
        usize::from(weights[1] > weights[0])
    };
    for key in ["one", "two", "three", "four", "five"] {
        let mut wanted = counts();
        wanted[owner(key)] += 1;
        let (code, _, err) = run(&list, &["call", "echo", "x", "--affinity", key]);
        assert_eq!((code, counts()), (0, wanted), "{key}: {err}");
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut wanted = counts();
    for number in 0..60 {
        writeln!(file, "{number}").unwrap();
        wanted[owner(&format!("{number} of {number}"))] += 1;
    }
    let path = file.path().to_str().unwrap();
    let words = ["map", "echo", "--lines", path, "--affinity", "{input} of {index}"];
    let (code, _, err) = run(&list, &words);
    assert_eq!((code, counts()), (0, wanted), "{err}");
}

/// What a command says to a terminal, and its exit code.
fn on_a_terminal(broker: &str, words: &str) -> (i32, String) {
    let program = env!("CARGO_BIN_EXE_pinmesh");
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{program} {words}"), "/dev/null"]);
    let output = command.env("PINMESH_BROKER", broker).stdin(Stdio::null()).output().unwrap();
    let (code, out, _) = said(&output);
    (code, out)
}

#[test]
fn a_terminal_gets_no_output_that_is_no_text_unless_forced() {
    let broker = FakeBroker::start();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"\x28\xb5\x2f\xfd").unwrap();
    let path = file.path().display();
    for words in [format!("call echo @{path}"), format!("map echo --files {path}")] {
        let (code, said) = on_a_terminal(&broker.endpoint, &words);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("an output of 4 bytes is no text"), "{said}");
        assert!(!said.contains("\u{fffd}"), "{said}");
        let (code, said) = on_a_terminal(&broker.endpoint, &format!("{words} --force"));
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("(\u{fffd}/\u{fffd}"), "{said}");
    }
    let (code, said) = on_a_terminal(&broker.endpoint, "call echo text");
    assert_eq!((code, &*said), (0, "text\r\n"));
}

#[test]
fn map_prints_a_line_for_each_file_and_goes_on_past_unreadable_ones() {
    let broker = FakeBroker::start();
    let folder = tempfile::tempdir().unwrap();
    for bytes in 1..=30_usize {
        std::fs::write(folder.path().join(format!("{bytes:02}")), vec![b'x'; bytes]).unwrap();
    }
    let path = folder.path().to_str().unwrap();
    let missing = format!("{path}/missing");
    let words = ["map", "length", "--window", "7", "--files", path, &missing];
    let (code, out, err) = run(&broker.endpoint, &words);
    assert_eq!(code, 1, "{err}");
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_by_key(|line| line.split("  ").next().unwrap().parse::<u32>().unwrap());
    let want: Vec<String> = (1..=30).map(|bytes| format!("{bytes}  {path}/{bytes:02}")).collect();
    assert_eq!(lines, want);
    assert!(err.contains("missing: cannot open it: No such file"), "{err}");
    assert!(err.contains("pinmesh: 30 done, 1 failed in "), "{err}");
}

#[test]
fn map_runs_a_task_for_each_line() {
    let broker = FakeBroker::start();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"a\nbb\n\n").unwrap();
    let path = file.path().to_str().unwrap();
    let words = ["map", "length", "--lines", path, "--output-format", r"{index}\t{result}={input}"];
    let (code, out, err) = run(&broker.endpoint, &words);
    assert_eq!(code, 0, "{err}");
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0\t1=a", "1\t2=bb", "2\t0="]);
}

#[test]
fn map_that_waits_too_long_cancels_what_is_under_way() {
    let broker = FakeBroker::start();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"a\nb\n").unwrap();
    let path = file.path().to_str().unwrap();
    let words = ["map", "hold", "--lines", path, "--timeout", "10ms"];
    let (code, out, err) = run(&broker.endpoint, &words);
    assert_eq!((code, &*out), (1, ""));
    assert!(err.contains("none of 2 tasks ended within 10ms"), "{err}");
    broker.wait_seen("two cancels", |seen| seen.cancels.len() == 2);
}

#[test]
fn ping_prints_round_trips_and_their_mean() {
    let broker = FakeBroker::start();
    let (code, out, err) = run(&broker.endpoint, &["ping", "-c", "3", "-i", "1ms"]);
    assert_eq!((code, &*err), (0, ""));
    assert_eq!(out.lines().count(), 4, "{out}");
    assert!(out.contains("seq=3 epoch=00000001 time="), "{out}");
    assert!(out.contains("round trip min/mean/max = "), "{out}");
}

#[test]
fn a_broker_that_is_not_there_is_exit_code_3_with_endpoint_and_remedy() {
    let endpoint = FakeBroker::start().endpoint.clone();
    let words = ["call", "echo", "x", "--connect-timeout", "100ms"];
    let (code, out, err) = run(&endpoint, &words);
    assert_eq!((code, &*out), (3, ""));
    assert!(err.contains(&endpoint) && err.contains("start `pinmesh-broker`"), "{err}");
}

#[test]
fn an_output_that_cannot_be_written_is_exit_code_4_and_no_panic() {
    let broker = FakeBroker::start();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = pinmesh(&broker.endpoint, &["call", "echo", "x"]);
    let (code, _, err) = said(&command.stdout(full).output().unwrap());
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("cannot write to standard output"), "{err}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    (0..2000).for_each(|n| writeln!(file, "{n}").unwrap());
    let path = file.path().to_str().unwrap();
    let mut child = pinmesh(&broker.endpoint, &["map", "length", "--lines", path])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (code, _, err) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("its reader has closed it"), "{err}");
}

#[test]
fn mistakes_on_the_command_line_are_exit_code_2_and_say_what_is_right() {
    for (words, want) in [
        (&["call"][..], "<SERVICE>"),
        (&["call", "echo", "x", "--priority", "11"], "1..=10"),
        (&["call", "echo", "x", "--broker", "http://x"], "http://x"),
        (&["call", "echo", "{", "--format", "json"], "no JSON"),
        (&["map", "echo", "--lines", "-", "--affinity", "{result}"], "{input}"),
        (&["map", "echo"], "--files"),
        (&["map", "echo", "--lines", "-", "--output-format", "{x}"], "{result}"),
        (&["ping", "-c", "0"], "1.."),
        (&["frobnicate"], "pinmesh --help"),
    ] {
        let (code, out, err) = run("tcp://127.0.0.1:1", words);
        assert_eq!((code, &*out), (2, ""), "{words:?}: {err}");
        assert!(err.contains(want), "{words:?}: {err}");
    }
    let (code, out, _) = run("tcp://127.0.0.1:1", &["--help"]);
    assert_eq!(code, 0);
    assert!(out.contains("Exit codes:"), "{out}");
}

#[test]
fn another_command_is_the_program_of_that_name() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("pinmesh-hello");
    std::fs::write(&program, "#!/bin/sh\necho \"$@\"\nexit 7\n").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = pinmesh("tcp://127.0.0.1:1", &["hello", "a", "--b"]);
    let path = std::env::join_paths([folder.path(), "/usr/bin".as_ref(), "/bin".as_ref()]);
    let (code, out, err) = said(&command.env("PATH", path.unwrap()).output().unwrap());
    assert_eq!((code, &*out), (7, "a --b\n"), "{err}");
}

#[test]
fn result_prints_the_outcome_of_a_key_or_says_by_its_exit_code_why_not() {
    let broker = FakeBroker::start();
    let (code, out, err) = run(&broker.endpoint, &["result", "report"]);
    assert_eq!((code, &*out, &*err), (0, "report", ""));
    let (code, out, _) = run(&broker.endpoint, &["result", "unended", "--wait"]);
    assert_eq!((code, &*out), (0, "unended"));
    let (code, _, err) = run(&broker.endpoint, &["result", "unended"]);
    assert!(code == 5 && err.contains("has not ended"), "{code} {err}");
    let (code, _, err) = run(&broker.endpoint, &["result", "unknown", "--wait"]);
    assert!(code == 6 && err.contains("no broker knows that key"), "{code} {err}");
}

#[test]
fn a_detached_call_ends_when_the_broker_has_the_task() {
    let broker = FakeBroker::start();
    let words = ["call", "hold", "x", "--idempotency-key", "k", "--detach"];
    assert_eq!(run(&broker.endpoint, &words), (0, String::new(), String::new()));
    assert!(broker.seen().cancels.is_empty());
    assert_eq!(run(&broker.endpoint, &["call", "hold", "x", "--detach"]).0, 2, "it needs a key");
}
