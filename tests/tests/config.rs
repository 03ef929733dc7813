//! Mistakes in files and flags: told before anything starts, with the place and the remedy.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;

use pinmesh_tests::{Broker, run};

#[test]
fn every_mistake_in_a_file_is_told_with_file_line_key_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    let text = "[listen]\nfrontend = \"http://x\"\n\n[sessions]\nleese = \"20s\"\nheartbeat = 5\n";
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    for arguments in [&["--config", path, "--check-config"][..], &["--config", path]] {
        let finished = run("pinmesh-broker", arguments);
        assert_eq!((finished.code, &*finished.stdout), (2, ""));
        let line_with = |word: &str| {
            let line = finished.stderr.lines().find(|line| line.contains(word));
            line.unwrap_or_else(|| panic!("no `{word}` in\n{}", finished.stderr)).to_owned()
        };
        let endpoint = line_with("http://x");
        assert!(endpoint.contains(&format!("{path}:2:")), "{endpoint}");
        assert!(endpoint.contains("frontend") && endpoint.contains("tcp://"), "{endpoint}");
        let misspelt = line_with("leese");
        assert!(misspelt.contains(&format!("{path}:5:")), "{misspelt}");
        assert!(misspelt.contains("did you mean `lease`?"), "{misspelt}");
        let unit = line_with("heartbeat");
        assert!(unit.contains(&format!("{path}:6:")) && unit.contains("unit"), "{unit}");
    }
}

#[test]
fn a_file_that_was_checked_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    fs::write(&path, "[sessions]\nlease = \"20s\"\n").unwrap();
    let path = path.to_str().unwrap();
    let checked = run("pinmesh-broker", ["--config", path, "--check-config"]);
    assert_eq!((checked.code, checked.stdout), (0, format!("{path}: ok")));
    Broker::start(&["--config", path]).drain();
}

#[test]
fn a_bind_that_other_hosts_can_reach_is_refused_with_the_remedy() {
    for flag in ["--frontend", "--backend"] {
        let finished = run("pinmesh-broker", [flag, "tcp://0.0.0.0:0"]);
        assert_eq!((finished.code, &*finished.stdout), (2, ""));
        assert!(finished.stderr.contains(flag), "{}", finished.stderr);
        assert!(finished.stderr.contains("tcp://0.0.0.0:0"), "{}", finished.stderr);
        assert!(finished.stderr.contains("--insecure"), "{}", finished.stderr);
    }
    let broker = Broker::start_at("tcp://0.0.0.0:0", "tcp://127.0.0.1:0", &["--insecure"]);
    assert!(broker.frontend.starts_with("tcp://0.0.0.0:"), "{}", broker.frontend);
    broker.drain();
}

#[test]
fn wrong_flags_of_the_worker_are_told_with_flag_value_and_remedy() {
    for (arguments, wanted) in [
        (&["--cpus", "2-"][..], &["--cpus", "2-"][..]),
        (&["--cpus", "1023"], &["1023"]),
        (&["--backend", "http://x"], &["--backend", "http://x", "tcp://"]),
        (&["--workers", "0"], &["--workers `0`", "1 to 1024"]),
        (&["--services", "nothing"], &["nothing", "echo"]),
        (&["--grace", "5"], &["--grace", "unit"]),
    ] {
        let finished = run("pinmesh-worker", arguments);
        assert_eq!((finished.code, &*finished.stdout), (2, ""), "{arguments:?}: {finished:?}");
        for word in wanted {
            assert!(finished.stderr.contains(word), "{arguments:?}: {}", finished.stderr);
        }
    }
}
