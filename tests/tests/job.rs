//! A job as a user runs it: files and lines in, results out, exit codes that scripts can trust.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::path::Path;
use std::process::Command;

use pinmesh_client::Error;
use pinmesh_protocol::limits::{INLINE_BYTES_MAX, PAYLOAD_BYTES_MAX};
use pinmesh_tests::{Broker, Mesh, free_endpoint, run, turn};

fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect()
}

/// What coreutils says, in the same form: `digest  path`.
fn sha256sum(folder: &Path) -> Vec<String> {
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let output = Command::new("sha256sum").args(files).output().expect("coreutils are installed");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_map_over_hundreds_of_files_gives_the_digests_that_sha256sum_gives() {
    let mesh = Mesh::start(2, &[]);
    let folder = tempfile::tempdir().unwrap();
    for number in 0..300_usize {
        // Empty, inline, at the edge of a frame of its own, and over it.
        let bytes = match number {
            0 => 0,
            1..=3 => INLINE_BYTES_MAX - 2 + number,
            4 => 3 << 20,
            _ => number * number,
        };
        let file = folder.path().join(format!("{number:03}.bin"));
        fs::write(file, pattern(bytes, number as u8)).unwrap();
    }
    let path = folder.path().to_str().unwrap();
    let finished = mesh.pinmesh(["map", "sha256", "--window", "64", "--files", path]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(finished.stderr.contains("300 done, 0 failed"), "{}", finished.stderr);
    let mut lines: Vec<&str> = finished.stdout.lines().collect();
    lines.sort_by_key(|line| line.split_once("  ").unwrap().1);
    assert_eq!(lines, sha256sum(folder.path()));
    assert_eq!(mesh.broker.drain().count("ok"), 300);
}

#[test]
fn a_map_over_lines_gives_one_result_a_line() {
    let mesh = Mesh::start(2, &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines");
    let inputs: Vec<String> = (0..1_000).map(|number| format!("line {number}")).collect();
    fs::write(&file, inputs.join("\n")).unwrap();
    let file = file.to_str().unwrap();
    let words = ["map", "echo", "--lines", file, "--output-format", "{index}:{result}={input}"];
    let finished = mesh.pinmesh(words);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let mut lines: Vec<&str> = finished.stdout.lines().collect();
    lines.sort_by_key(|line| line.split_once(':').unwrap().0.parse::<usize>().unwrap());
    let wanted = inputs.iter().enumerate();
    let wanted: Vec<String> = wanted.map(|(at, line)| format!("{at}:{line}={line}")).collect();
    assert_eq!(lines, wanted);
}

#[test]
fn call_and_ping_print_what_came_back() {
    let mesh = Mesh::start(1, &[]);
    let call = mesh.pinmesh(["call", "echo", "hello"]);
    assert_eq!((call.code, &*call.stdout, &*call.stderr), (0, "hello", ""));
    let json = mesh.pinmesh(["call", "echo", r#"{"a":[1,null]}"#, "--format", "json"]);
    assert_eq!((json.code, &*json.stdout), (0, r#"{"a":[1,null]}"#));
    let ping = mesh.pinmesh(["ping", "-c", "3", "-i", "1ms"]);
    assert_eq!(ping.code, 0, "{}", ping.stderr);
    assert_eq!(ping.stdout.lines().filter(|line| line.contains(" time=")).count(), 3);
}

#[test]
fn every_failure_has_its_exit_code_and_says_what_to_do() {
    let mesh = Mesh::start(1, &["--service-wait", "1s"]);
    // Tries again would take up to 3 s, and after two of them it says that nobody may serve it.
    let failed = mesh.pinmesh(["call", "fail", "boom", "--tries", "1"]);
    assert_eq!((failed.code, &*failed.stderr), (1, "pinmesh: service `fail` failed: boom"));
    let unknown = mesh.pinmesh(["call", "nobody", "x"]);
    assert_eq!(unknown.code, 1);
    let remedy = "no worker serves `nobody`: check the name, or start a worker that serves it";
    assert!(unknown.stderr.contains(remedy), "{}", unknown.stderr);
    let usage = mesh.pinmesh(["call"]);
    assert_eq!(usage.code, 2, "{}", usage.stderr);
    let ledger = mesh.broker.ledger();
    ledger.assert_balanced();
    assert_eq!((ledger.count("failed"), ledger.count("no_service")), (1, 1));

    let endpoint = free_endpoint();
    let words = ["call", "echo", "x", "--broker", &endpoint, "--connect-timeout", "200ms"];
    let unreachable = run("pinmesh", words);
    assert_eq!(unreachable.code, 3);
    assert!(unreachable.stderr.contains(&endpoint), "{}", unreachable.stderr);
    assert!(unreachable.stderr.contains("start `pinmesh-broker`"), "{}", unreachable.stderr);
}

#[test]
fn payloads_of_every_size_come_back_as_they_went() {
    let _turn = turn();
    let mesh = Mesh::start(2, &[]);
    let client = mesh.client();
    let sizes = [
        1,
        4 << 10,
        INLINE_BYTES_MAX - 1,
        INLINE_BYTES_MAX,
        (1 << 20) + 1,
        PAYLOAD_BYTES_MAX as usize,
    ];
    // All at once: the long ones must not hold the short ones up for good.
    let handles: Vec<_> = sizes
        .iter()
        .map(|&bytes| client.submit_raw("echo", pattern(bytes, 7)).expect("within the limits"))
        .collect();
    for (bytes, handle) in sizes.into_iter().zip(handles) {
        let back = handle.wait().unwrap_or_else(|error| panic!("{bytes} bytes: {error}"));
        assert_eq!(back.len(), bytes);
        assert!(*back == *pattern(bytes, 7), "{bytes} bytes came back changed");
    }
    assert_eq!(mesh.broker.ledger().count("ok"), sizes.len() as u64);
}

#[test]
fn a_payload_over_the_limit_never_leaves_the_client() {
    let mesh = Mesh::start(1, &[]);
    let client = mesh.client();
    let too_long = PAYLOAD_BYTES_MAX as usize + 1;
    let error = client.submit_raw("echo", vec![0; too_long]).expect_err("over the limit");
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("67108865") && text.contains("at most 67108864"), "{text}");
    assert_eq!(mesh.broker.ledger().count("submitted"), 0);
    // The session has not suffered.
    assert_eq!(*client.call_raw("echo", b"x").unwrap(), *b"x");
}

#[test]
fn a_limit_that_only_the_broker_has_is_told_by_the_client_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.toml");
    fs::write(&file, "[limits]\npayload = \"64KiB\"\n").unwrap();
    let broker = Broker::start(&["--config", file.to_str().unwrap()]);
    let client = broker.client();
    let error = match client.submit_raw("echo", vec![0; (64 << 10) + 1]) {
        Err(error) => error,
        Ok(handle) => handle.wait().expect_err("over the limit"),
    };
    assert!(matches!(error, Error::TooLarge { bytes_max: 65_536, .. }), "{error}");
    assert_eq!(broker.ledger().count("submitted"), 0);
}
