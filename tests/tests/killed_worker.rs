//! Workers that are killed under load: every task ends once and well, and the workers come back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_tests::{LIMIT, Load, Mesh, Seen, cpu_time, eventually, turn};
use rustix::process::{Pid, Signal, kill_process};

const KILLS: usize = 10;

fn kill(worker: &Seen) {
    let pid = Pid::from_raw(worker.pid).expect("a process's number");
    kill_process(pid, Signal::KILL).expect("the worker is alive");
}

/// Kills under load what `victims` picks of the workers, ten times.
fn kill_under_load(victims: impl Fn(usize, &[Seen]) -> Vec<Seen>) {
    let _turn = turn();
    let mesh = Mesh::start(2, &[]);
    let load = Load::start(mesh.client(), 400);
    let mut workers = mesh.supervisor.workers();
    assert_eq!(workers.len(), 2);
    for round in 0..KILLS {
        // A task that is killed three times ends CRASHED, whoever does it: by now those that were
        // hit before have ended.
        load.settle();
        let victims = victims(round, &workers);
        victims.iter().for_each(kill);
        workers = mesh.supervisor.wait_for_workers(&victims);
        assert!(!victims.iter().any(Seen::is_alive));
    }
    load.settle();
    let report = load.finish();
    report.assert_all_ok();
    // The new workers are not only there: each takes its part, once it is connected.
    let client = mesh.client();
    let before: Vec<u64> = workers.iter().map(|worker| cpu_time(worker.pid)).collect();
    let mut tasks = report.submitted;
    eventually("each new worker has tasks", LIMIT, || {
        let spin = |_| client.submit_raw("spin", b"50ms".to_vec()).expect("the client is open");
        let handles: Vec<_> = workers.iter().map(spin).collect();
        tasks += handles.len() as u64;
        for handle in handles {
            handle.wait().unwrap_or_else(|error| panic!("{error}"));
        }
        // 100 ms of CPU; one that only waits uses none to speak of.
        workers.iter().zip(&before).all(|(worker, before)| cpu_time(worker.pid) > before + 10)
    });
    let ledger = mesh.broker.drain();
    assert_eq!((ledger.count("accepted"), ledger.count("ok")), (tasks, tasks), "{ledger:?}");
    assert!(ledger.count("requeued") > 0, "no kill hit a worker that held tasks: {ledger:?}");
}

#[test]
fn a_worker_that_is_killed_ten_times_under_load_loses_no_task() {
    kill_under_load(|round, workers| vec![workers[round % workers.len()]]);
}

#[test]
fn all_workers_killed_at_once_ten_times_under_load_lose_no_task() {
    kill_under_load(|_, workers| workers.to_vec());
}
