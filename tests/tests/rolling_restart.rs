//! SIGHUP to a supervisor: its workers are started anew one after the other, from the program that is on
//! disk by then, under load, and no task notices.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use pinmesh_tests::{Broker, LIMIT, Load, Seen, Supervisor, binary, eventually, turn};
use rustix::process::Signal;

/// Which file a process was started from.
fn inode(worker: &Seen) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{}/exe", worker.pid)).ok()?.ino())
}

/// Puts a copy of the worker's program there, as an installation does: beside it, then in its place.
fn install(program: &Path) -> u64 {
    let copy = program.with_extension("new");
    fs::copy(binary("pinmesh-worker"), &copy).unwrap();
    fs::rename(&copy, program).unwrap();
    fs::metadata(program).unwrap().ino()
}

fn supervisor(broker: &Broker, program: &Path, workers: usize) -> Supervisor {
    let mut command = Command::new(program);
    command.args(["--test-services", "--backend", &broker.backend]);
    Supervisor::run(command, workers)
}

#[test]
fn a_rolling_restart_under_load_takes_up_a_new_program_and_loses_no_task() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("pinmesh-worker");
    let first = install(&program);
    let broker = Broker::start(&[]);
    let supervisor = supervisor(&broker, &program, 3);
    let before = supervisor.workers();
    assert!(before.iter().all(|worker| inode(worker) == Some(first)));
    let load = Load::start(broker.client(), 400);
    load.progress(300);
    let second = install(&program);
    assert_ne!(first, second);
    supervisor.process.signal(Signal::HUP);
    let after = supervisor.wait_for_workers(&before);
    eventually("all run the new program", LIMIT, || {
        let workers = supervisor.workers();
        workers.len() == 3 && workers.iter().all(|worker| inode(worker) == Some(second))
    });
    assert_eq!(after.len(), 3);
    load.progress(300);
    let report = load.finish();
    report.assert_all_ok();
    assert_eq!(report.retried, 0, "nothing is charged");
    let ledger = broker.ledger();
    ledger.assert_balanced();
    assert_eq!((ledger.count("ok"), ledger.count("lost")), (report.submitted, 0), "{ledger:?}");
}

#[test]
fn a_program_that_does_not_start_leaves_the_other_workers_at_work() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("pinmesh-worker");
    install(&program);
    let broker = Broker::start(&[]);
    let supervisor = supervisor(&broker, &program, 2);
    let before = supervisor.workers();
    let broken = program.with_extension("new");
    fs::write(&broken, "no program").unwrap();
    fs::rename(&broken, &program).unwrap();
    supervisor.process.signal(Signal::HUP);
    let left = || supervisor.workers().iter().filter(|it| before.contains(it)).count();
    eventually("the first worker leaves", LIMIT, || left() == 1);
    assert_eq!(broker.client().call_raw("echo", b"still there").unwrap().as_ref(), b"still there");
    install(&program);
    supervisor.wait_for_workers(&before);
}
