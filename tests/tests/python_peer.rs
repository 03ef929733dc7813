//! Peers in another language, written from PROTOCOL.md alone, with ours and with each other.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::{Path, PathBuf};
use std::process::Command;

use pinmesh_tests::{Broker, Process, Supervisor};
use rustix::process::Signal;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// One of the peers in `tests/peers`.
fn python(peer: &str, arguments: &[&str]) -> Process {
    let python = std::env::var_os("PINMESH_PYTHON")
        .map_or_else(|| root().join("target/venv/bin/python"), PathBuf::from);
    assert!(
        python.is_file(),
        "{} is missing: `scripts/test.sh test` makes it, or name a Python with pyzmq and msgpack \
         in PINMESH_PYTHON",
        python.display()
    );
    let mut command = Command::new(python);
    command.arg(root().join("tests/peers").join(peer)).args(arguments);
    Process::start(command)
}

fn python_worker(broker: &Broker) -> Process {
    python("worker.py", &["--backend", &broker.backend, "--service", "reverse"])
}

#[track_caller]
fn run_python_client(broker: &Broker, service: &str, expected: &str) {
    let mut arguments = vec!["--frontend", &broker.frontend, "--service", service];
    arguments.extend(["--expect", expected, "--count", "200"]);
    let finished = python("client.py", &arguments).wait();
    assert_eq!((finished.code, &*finished.stdout), (0, "ok 200"), "{}", finished.stderr);
}

#[track_caller]
fn end(mut worker: Process) {
    assert!(!worker.has_ended(), "it ended by itself");
    worker.signal(Signal::TERM);
    let finished = worker.wait();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
}

#[test]
fn a_python_client_is_served_by_our_worker() {
    let broker = Broker::start(&[]);
    let _supervisor = Supervisor::start(&broker.backend, 1, &[]);
    run_python_client(&broker, "echo", "same");
    let ledger = broker.ledger();
    assert_eq!((ledger.count("ok"), ledger.count("malformed")), (200, 0), "{ledger:?}");
}

#[test]
fn a_python_worker_serves_our_client() {
    let broker = Broker::start(&[]);
    let worker = python_worker(&broker);
    let client = broker.client();
    let inputs: Vec<Vec<u8>> = (0..200_u64)
        .map(|number| number.to_le_bytes().repeat(1 + number as usize % 50))
        // Also some that travel as frames of their own.
        .chain([[1, 2, 3].repeat(20_000), (0..=255).cycle().take(3 << 20).collect()])
        .collect();
    let submit = |input: &Vec<u8>| client.submit_raw("reverse", input.clone()).unwrap();
    let handles: Vec<_> = inputs.iter().map(submit).collect();
    for (input, handle) in inputs.iter().zip(handles) {
        let output = handle.wait().unwrap_or_else(|error| panic!("{error}"));
        assert!(output.iter().eq(input.iter().rev()), "{} bytes are not reversed", input.len());
    }
    end(worker);
    let ledger = broker.ledger();
    let wanted = (inputs.len() as u64, 0);
    assert_eq!((ledger.count("ok"), ledger.count("malformed")), wanted, "{ledger:?}");
}

#[test]
fn a_python_client_is_served_by_a_python_worker() {
    let broker = Broker::start(&[]);
    let worker = python_worker(&broker);
    run_python_client(&broker, "reverse", "reversed");
    end(worker);
    broker.ledger().assert_balanced();
}
