//! A supervisor that is asked to leave: what runs is finished, what waits goes back, nothing is lost.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_client::Error;
use pinmesh_tests::{
    Broker, LIMIT, Load, Mesh, Seen, Supervisor, cpu_time, descendants, eventually, turn,
};
use rustix::process::Signal;

/// Waits until the only worker is well inside a handler that spins.
fn wait_until_busy(supervisor: &Supervisor) {
    let workers = supervisor.workers();
    let before = cpu_time(workers[0].pid);
    // 10 ms each; a worker that waits uses none.
    eventually("the worker spins", LIMIT, || cpu_time(workers[0].pid) >= before + 10);
}

#[test]
fn a_running_task_ends_before_its_worker_leaves() {
    let _turn = turn();
    let mut mesh = Mesh::start(1, &[]);
    let client = mesh.client();
    // At most once: if the drain killed it, it would end LOST; nobody else could finish it.
    let handle = client.task("spin").at_most_once().submit_raw(b"1s".to_vec()).unwrap();
    wait_until_busy(&mesh.supervisor);
    let family = descendants(mesh.supervisor.process.pid());
    mesh.supervisor.process.signal(Signal::TERM);
    let finished = mesh.supervisor.process.wait();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(!family.iter().any(Seen::is_alive), "a drained supervisor leaves nobody behind");
    handle.wait().expect("it was running, and is finished");
    let ledger = mesh.broker.ledger();
    assert_eq!((ledger.count("ok"), ledger.count("dispatched")), (1, 1), "{ledger:?}");
}

#[test]
fn supervisors_that_leave_under_load_one_after_the_other_lose_no_task() {
    let _turn = turn();
    let broker = Broker::start(&[]);
    let mut supervisor = Supervisor::start(&broker.backend, 2, &[]);
    let load = Load::start(broker.client(), 400);
    for _ in 0..3 {
        load.progress(300);
        let mut leaving = supervisor;
        leaving.process.signal(Signal::TERM);
        // A rolling restart: the next one starts while this one still drains.
        supervisor = Supervisor::start(&broker.backend, 2, &[]);
        let finished = leaving.process.wait();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
    }
    load.progress(300);
    let report = load.finish();
    report.assert_all_ok();
    assert_eq!(report.retried, 0, "a drain charges no task");
    let ledger = broker.ledger();
    ledger.assert_balanced();
    assert_eq!(ledger.count("ok"), report.submitted, "{ledger:?}");
}

#[test]
fn a_task_that_outlasts_the_drain_is_asked_to_stop() {
    let _turn = turn();
    let broker = Broker::start(&[]);
    let mut supervisor = Supervisor::start(&broker.backend, 1, &["--drain-time", "100ms"]);
    let client = broker.client();
    let handle = client.task("spin").at_most_once().submit_raw(b"1h".to_vec()).unwrap();
    wait_until_busy(&supervisor);
    supervisor.process.signal(Signal::TERM);
    let finished = supervisor.process.wait();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let error = handle.wait().expect_err("an hour is not over");
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
}
