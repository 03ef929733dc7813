//! The configuration, as an operator meets it.

mod common;

use std::fs;

use common::{run, text};

#[test]
fn a_file_that_is_right_is_said_to_be_ok() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    fs::write(&path, "[sessions]\nlease = \"20s\"\n").unwrap();
    let path = path.to_str().unwrap();
    let output = run(&["--config", path, "--check-config"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("{path}: ok\n"));
}

#[test]
fn a_file_that_is_wrong_is_refused_with_every_error_and_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    fs::write(&path, "[sessions]\nleese = \"20s\"\n[limits]\nmemory = \"lots\"\n").unwrap();
    let path = path.to_str().unwrap();
    for args in [&["--config", path, "--check-config"][..], &["--config", path][..]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2));
        let errors = text(&output.stderr);
        assert!(errors.contains(&format!("{path}:2:1: unknown key `leese`")), "{errors}");
        assert!(errors.contains("did you mean `lease`?"), "{errors}");
        assert!(errors.contains(&format!("{path}:4:10: [limits] memory = \"lots\"")), "{errors}");
        assert!(errors.contains("such as \"256MiB\""), "{errors}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = run(&["--config", "/nowhere/broker.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--config /nowhere/broker.toml: No such file"));
}

#[test]
fn the_printed_configuration_is_a_file_that_prints_the_same() {
    let first = run(&["--print-config", "--spin", "20us", "--io-cpu", "0"]);
    assert_eq!(first.status.code(), Some(0));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    fs::write(&path, &first.stdout).unwrap();
    let second = run(&["--print-config", "--config", path.to_str().unwrap()]);
    assert_eq!(text(&second.stdout), text(&first.stdout));
    assert!(text(&first.stdout).contains("spin = \"20us\""));
}

#[test]
fn a_bind_that_other_hosts_can_reach_is_refused_with_the_remedy() {
    let output = run(&["--frontend", "tcp://0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = text(&output.stderr);
    assert!(errors.contains("--frontend \"tcp://0.0.0.0:0\""), "{errors}");
    assert!(errors.contains("--insecure"), "{errors}");
}

#[test]
fn a_cpu_that_cannot_be_had_stops_the_start() {
    let output = run(&["--cpu", "4000", "--frontend", "tcp://127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("[cpu] pin (--cpu)") && errors.contains("4000"), "{errors}");
}
