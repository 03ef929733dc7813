//! Broker, workers and client on three hosts, with keys.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::Command;

use pinmesh_tests::{Broker, KeyRing, Network, Process, Supervisor, turn};

const FILES: usize = 400;

/// Files of many lengths, some too long for a batch, one for a frame.
fn write_files(folder: &std::path::Path) {
    for number in 0..FILES {
        let length = match number {
            0 => 0,
            1 => 3 << 20,
            _ if number % 40 == 0 => 40_000 + number,
            _ => number * 7,
        };
        let bytes: Vec<u8> = (0..length).map(|at| (at * 31 + number) as u8).collect();
        fs::write(folder.join(format!("{number:03}")), bytes).unwrap();
    }
}

/// What sha256sum says of them, in the order of their names.
fn expected(folder: &std::path::Path) -> Vec<String> {
    let files = (0..FILES).map(|number| folder.join(format!("{number:03}")));
    let output = Command::new("sha256sum").args(files).output().expect("coreutils are there");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn tasks_go_between_three_hosts_with_keys_and_nobody_else_gets_in() {
    let _turn = turn();
    let network = Network::star(&["broker", "farm", "desk"]);
    let ring = KeyRing::new();
    let frontend = format!("tcp://{}:5555", network.hub_address("desk"));
    let backend = format!("tcp://{}:5556", network.hub_address("farm"));
    let mut command = network.command("broker", "pinmesh-broker", ring.broker_flags());
    command.args(["--http", "off", "--frontend", &frontend, "--backend", &backend]);
    let broker = Broker::run(command);
    let mut command = network.command("farm", "pinmesh-worker", ring.peer_flags("farm"));
    command.args(["--backend", &backend]);
    let farm = Supervisor::run(command, 2);

    let files = tempfile::tempdir().unwrap();
    write_files(files.path());
    let folder = files.path().to_str().unwrap();
    let at_desk = |key: &[String], arguments: &[&str]| {
        let mut command = network.command("desk", "pinmesh", arguments);
        command.args(key).args(["--broker", &frontend]);
        Process::start(command).wait()
    };
    let finished = at_desk(&ring.peer_flags("batch"), &["map", "sha256", "--files", folder]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let mut found: Vec<&str> = finished.stdout.lines().collect();
    found.sort_by_key(|line| line.split_once("  ").map(|(_, path)| path));
    assert_eq!(found, expected(files.path()));

    let call = ["call", "echo", "x", "--connect-timeout", "2s"];
    for key in [&[][..], &ring.peer_flags("farm")] {
        let finished = at_desk(key, &call);
        assert_eq!((finished.code, &*finished.stdout), (3, ""), "{}", finished.stderr);
    }
    drop(farm);
    let ledger = broker.drain();
    assert_eq!(ledger.count("submitted"), FILES as u64, "{ledger:?}");
    assert_eq!(ledger.count("ok"), FILES as u64, "{ledger:?}");
}
