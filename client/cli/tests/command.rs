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

use common::FakeBroker;

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
