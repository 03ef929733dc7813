//! Tasks that take their worker down: they end after three crashes, and harm nobody else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_client::Error;
use pinmesh_tests::{Load, Mesh, Seen, turn};

/// Runs a service that kills its worker, beside a load of others.
fn crash(service: &str, how: &str) {
    let _turn = turn();
    let mesh = Mesh::start(2, &[]);
    let client = mesh.client();
    let load = Load::start(mesh.client(), 200);
    load.progress(200);
    let before = mesh.supervisor.workers();
    let error = client.call_raw(service, b"").expect_err("its worker dies each time");
    match &error {
        Error::Crashed { tries: 3, message, .. } => assert!(message.contains(how), "{message}"),
        _ => panic!("{error}"),
    }
    let after = mesh.supervisor.wait_for_workers(&[]);
    assert_ne!(before, after, "no worker was started again");
    load.progress(200);
    let report = load.finish();
    report.assert_all_ok();
    assert_eq!(report.retried, 0, "only the task that was running may be charged");
    let ledger = mesh.broker.drain();
    assert_eq!((ledger.count("crashed"), ledger.count("ok")), (1, report.submitted));
}

#[test]
fn a_task_that_exits_its_worker_each_time_ends_crashed_after_three() {
    crash("exit", "exited with code 7");
}

#[test]
fn a_task_that_aborts_its_worker_each_time_ends_crashed_after_three() {
    crash("abort", "killed by signal 6");
}

#[test]
fn a_handler_that_panics_fails_its_task_and_its_worker_lives_on() {
    let mesh = Mesh::start(1, &[]);
    let client = mesh.client();
    let before = mesh.supervisor.workers();
    let error = client.call_raw("panic", b"oh no").expect_err("it panics");
    assert!(
        matches!(&error, Error::Failed { message, .. } if message.contains("oh no")),
        "{error}"
    );
    assert_eq!(*client.call_raw("echo", b"still here").unwrap(), *b"still here");
    assert!(before.iter().all(Seen::is_alive));
}

#[test]
fn an_at_most_once_task_that_takes_its_worker_down_is_lost_and_never_run_again() {
    let mesh = Mesh::start(1, &[]);
    let client = mesh.client();
    let error = client.task("exit").at_most_once().call_raw(Vec::new()).expect_err("it is lost");
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    let ledger = mesh.broker.ledger();
    assert_eq!((ledger.count("lost"), ledger.count("dispatched")), (1, 1), "{ledger:?}");
}
