//! What users do wrong, and what the programs say to it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pinmesh_client::{Client, Error};
use pinmesh_tests::{Broker, Process, Supervisor, command, free_endpoint, run};
use rustix::process::Signal;

#[test]
fn a_port_that_is_taken_is_told_with_its_flag_and_the_remedy() {
    let broker = Broker::start(&[]);
    let free = free_endpoint();
    for (flag, taken, other) in [
        ("--frontend", &broker.frontend, "--backend"),
        ("--backend", &broker.backend, "--frontend"),
    ] {
        let finished = run("pinmesh-broker", [flag, taken, other, &free]);
        assert_eq!(finished.code, 1);
        let last = finished.stderr.lines().last().unwrap();
        let start = format!("pinmesh-broker: {flag} {taken}: this port is taken");
        assert!(last.starts_with(&start), "{}", finished.stderr);
        assert!(last.contains(&format!("choose another port with {flag}")), "{last}");
    }
}

#[test]
fn a_worker_at_the_frontend_of_a_broker_ends_and_says_where_to_connect() {
    let broker = Broker::start(&[]);
    let finished = run("pinmesh-worker", ["--backend", &broker.frontend, "--workers", "1"]);
    assert_eq!((finished.code, &*finished.stdout), (2, ""), "{}", finished.stderr);
    let ends = |line: &&str| line.contains("this is the frontend of a broker");
    let told: Vec<&str> = finished.stderr.lines().filter(ends).collect();
    assert_eq!(told.len(), 1, "{}", finished.stderr);
    assert!(told[0].contains(&format!("--backend {}", broker.frontend)), "{}", told[0]);
    assert!(!finished.stderr.contains("retry_in=0ns"), "{}", finished.stderr);
}

#[test]
fn a_client_at_the_backend_of_a_broker_ends_and_says_where_to_connect() {
    let broker = Broker::start(&[]);
    let finished = run("pinmesh", ["call", "echo", "x", "--broker", &broker.backend]);
    assert_eq!((finished.code, finished.stderr.lines().count()), (3, 1), "{}", finished.stderr);
    let told = &finished.stderr;
    assert!(told.contains(&broker.backend) && told.contains("clients connect to the frontend"));
}

#[test]
fn a_worker_without_a_broker_asks_whether_one_runs_there_and_goes_on_trying() {
    let endpoint = free_endpoint();
    let flags = ["--backend", &endpoint, "--workers", "1"];
    let mut worker = Process::start(command("pinmesh-worker", flags));
    let asks = format!("no answer from {endpoint}: is a broker running there?");
    worker.log_line(0, "question", |line| line.contains(&asks).then_some(()));
    let broker = Broker::start_at(&free_endpoint(), &endpoint, &[]);
    worker.log_line(0, "connection", |line| line.contains("connected").then_some(()));
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code, 0);
    broker.drain();
}

#[test]
fn a_duration_without_a_unit_is_refused_with_those_that_it_may_have_had() {
    let broker = Broker::start(&[]);
    let supervisor = Supervisor::start(&broker.backend, 1, &["--services", "sleep"]);
    let client = Client::connect(&broker.frontend).unwrap();
    let error = client.call_raw("sleep", b"5").unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error}");
    assert!(error.to_string().contains("`5` has no unit: write `5s`, `5ms`"), "{error}");
    client.call_raw("sleep", b"5ms").unwrap();
    drop(supervisor);
}
