//! Workers that are killed under load: every task ends once and well, and the workers come back.

use pinmesh_tests::{Load, Mesh, Seen, eventually, turn};
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
        load.progress(300);
        let victims = victims(round, &workers);
        victims.iter().for_each(kill);
        workers = mesh.supervisor.wait_for_workers(&victims);
        assert!(!victims.iter().any(Seen::is_alive));
    }
    load.progress(300);
    let report = load.finish();
    report.assert_all_ok();
    // The new workers are not only there: both take their part.
    let served = || workers.iter().all(|worker| pinmesh_tests::cpu_time(worker.pid) > 0);
    eventually("both workers work", pinmesh_tests::LIMIT, served);
    let ledger = mesh.broker.drain();
    assert_eq!(ledger.count("ok"), report.submitted, "{ledger:?}");
    assert_eq!(ledger.count("accepted"), report.submitted, "{ledger:?}");
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
