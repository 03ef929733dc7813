//! A supervisor that is killed under load: nothing of it is left, and no task is lost.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use pinmesh_tests::{Broker, FAST, Load, Seen, Supervisor, descendants, eventually, marked, turn};

/// Within this nothing of a supervisor that was killed may run any more.
const ORPHAN_LIMIT: Duration = Duration::from_secs(2);

#[test]
fn a_supervisor_that_is_killed_ten_times_under_load_leaves_no_process_and_loses_no_task() {
    let _turn = turn();
    // A host that falls silent is waited for: 1.1 leases and the grace.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.toml");
    std::fs::write(&file, "[sessions]\ngrace = \"300ms\"\n").unwrap();
    let mut arguments = vec!["--config", file.to_str().unwrap()];
    arguments.extend(FAST);
    let broker = Broker::start(&arguments);
    let mut supervisor = Supervisor::start(&broker.backend, 2, &[]);
    let load = Load::start(broker.client(), 600);
    for _ in 0..10 {
        load.progress(300);
        let family = descendants(supervisor.process.pid());
        assert!(family.len() >= 2, "two workers at the least: {family:?}");
        let mark = supervisor.process.mark().to_owned();
        supervisor.process.kill();
        eventually("what the supervisor left is gone", ORPHAN_LIMIT, || {
            !family.iter().any(Seen::is_alive) && marked(&mark).is_empty()
        });
        // As systemd does.
        supervisor = Supervisor::start(&broker.backend, 2, &[]);
    }
    load.progress(300);
    let report = load.finish();
    report.assert_all_ok();
    let ledger = broker.ledger();
    ledger.assert_balanced();
    assert_eq!(ledger.count("ok"), report.submitted, "{ledger:?}");
    assert_eq!(ledger.count("accepted"), report.submitted, "{ledger:?}");
    assert!(ledger.count("requeued") > 0, "no kill hit a host that held tasks: {ledger:?}");
}
