//! A broker that dies or drains under load and is started again: the client sees every task end once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_tests::{Broker, FAST, Load, Supervisor, free_endpoint, turn};
use rustix::process::Signal;

/// Kills the broker under load and starts it again, five times.
fn kill_under_load(frontend: &str, backend: &str) {
    let _turn = turn();
    let mut broker = Broker::start_at(frontend, backend, &FAST);
    let supervisor = Supervisor::start(&broker.backend, 2, &[]);
    let load = Load::start(broker.client(), 400);
    for _ in 0..5 {
        load.progress(300);
        broker.process.kill();
        broker.start_again();
    }
    load.progress(300);
    let report = load.finish();
    report.assert_all_ok();
    // The last broker has seen only its own part, and that is in order too.
    let ledger = broker.drain();
    assert!(ledger.count("ok") >= 300, "{ledger:?}");
    drop(supervisor);
}

#[test]
fn a_broker_that_is_killed_and_started_again_on_its_ports_costs_no_task() {
    kill_under_load(&free_endpoint(), &free_endpoint());
}

#[test]
fn a_broker_that_is_killed_and_started_again_on_its_unix_sockets_costs_no_task() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    kill_under_load(&format!("ipc://{path}/frontend"), &format!("ipc://{path}/backend"));
}

#[test]
fn a_task_that_runs_while_its_broker_is_started_again_runs_once() {
    let _turn = turn();
    let mut broker = Broker::start_at(&free_endpoint(), &free_endpoint(), &FAST);
    let supervisor = Supervisor::start(&broker.backend, 1, &[]);
    let client = broker.client();
    let handle = client.submit_raw("sleep", b"1500ms".to_vec()).unwrap();
    pinmesh_tests::eventually("the task is with the worker", pinmesh_tests::LIMIT, || {
        broker.ledger().count("dispatched") == 1
    });
    broker.process.kill();
    broker.start_again();
    handle.wait().unwrap();
    let ledger = broker.drain();
    assert_eq!((ledger.count("adopted"), ledger.count("dispatched")), (1, 0), "{ledger:?}");
    drop(supervisor);
}

#[test]
fn a_broker_that_drains_under_load_finishes_what_it_holds_and_its_successor_does_the_rest() {
    let _turn = turn();
    let mut broker = Broker::start_at(&free_endpoint(), &free_endpoint(), &FAST);
    let supervisor = Supervisor::start(&broker.backend, 2, &[]);
    let load = Load::start(broker.client(), 400);
    let (mut ended, mut broken_off) = (0, 0);
    for _ in 0..3 {
        load.progress(300);
        let mark = broker.process.log_mark();
        broker.process.signal(Signal::TERM);
        let finished = broker.process.wait();
        assert_eq!(finished.code, 0, "it ended with tasks or results left");
        let ledger = broker.process.log_line(mark, "ledger", pinmesh_tests::Ledger::parse);
        ledger.assert_balanced();
        assert_eq!(ledger.count("held"), 0, "{ledger:?}");
        ended += ledger.count("ok");
        broken_off += ledger.count("accepted") - ledger.count("ok");
        broker.start_again();
    }
    load.progress(300);
    let report = load.finish();
    report.assert_all_ok();
    ended += broker.drain().count("ok");
    // No task ran at two brokers: each was finished where it was accepted.
    assert_eq!((ended, broken_off), (report.submitted, 0));
    drop(supervisor);
}

#[test]
fn a_second_signal_cuts_the_drain_short_and_the_exit_code_says_so() {
    let mut broker = Broker::start(&[]);
    let client = broker.client();
    let handle = client.submit_raw("nobody", b"x".to_vec()).unwrap();
    pinmesh_tests::eventually("the task is accepted", pinmesh_tests::LIMIT, || {
        broker.ledger().count("held") == 1
    });
    let mark = broker.process.log_mark();
    broker.process.signal(Signal::TERM);
    broker
        .process
        .log_line(mark, "word of the drain", |line| line.contains("draining").then_some(()));
    broker.process.signal(Signal::TERM);
    let finished = broker.process.wait();
    assert_eq!(finished.code, 3, "{}", finished.stderr);
    assert!(finished.stderr.contains("tasks=1"), "{}", finished.stderr);
    drop(handle);
}
