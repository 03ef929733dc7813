//! Every kind of damage to real processes under load, with short leases: an independent account
//! finds no task lost, none answered twice, no overlap outside the stated exceptions, and work that
//! goes on. `scripts/chaos.sh` is the long campaign, with the shipped configuration.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_tests::chaos::{Fault, Kind, Report, Timing, run_all};
use pinmesh_tests::turn;

/// Does each kind of damage so often, all side by side.
#[track_caller]
fn survive(rounds: usize, is_meant: impl Fn(Kind) -> bool) -> Vec<Report> {
    let _turn = turn();
    let kinds = Kind::all().into_iter().filter(|kind| is_meant(*kind));
    let kinds: Vec<(Kind, usize)> = kinds.map(|kind| (kind, rounds)).collect();
    let folder = tempfile::tempdir().unwrap();
    let reports = run_all(&kinds, &Timing::fast(), folder.path(), |_| ());
    let broken: Vec<&Report> =
        reports.iter().filter(|report| report.verdict.violation_count > 0).collect();
    if !broken.is_empty() {
        panic!("{broken:#?}; the records are in {}", folder.keep().display());
    }
    reports
}

/// What the damage did to this kind's attempts: else it has shown nothing.
#[track_caller]
fn assert_hit(reports: &[Report], kind: &str) {
    let report = reports.iter().find(|report| report.kind.to_string() == kind).unwrap();
    assert!(report.verdict.repeated > 0, "no damage hit a task: {report:?}");
}

#[test]
fn processes_that_are_killed_under_load_lose_no_task_and_answer_none_twice() {
    let reports = survive(3, |kind| matches!(kind, Kind::Signal(Fault::Kill, _)));
    assert_eq!(reports.len(), 5);
    for kind in ["kill-worker", "kill-all-workers", "kill-supervisor", "kill-broker"] {
        assert_hit(&reports, kind);
    }
}

#[test]
fn processes_that_stand_still_under_load_lose_no_task_and_answer_none_twice() {
    let reports = survive(1, |kind| matches!(kind, Kind::Signal(Fault::Stop, _)));
    assert_eq!(reports.len(), 5);
    assert_hit(&reports, "stop-broker");
}

#[test]
fn hosts_that_are_cut_off_or_on_a_slow_link_lose_no_task_and_answer_none_twice() {
    let reports = survive(2, Kind::needs_network);
    assert_eq!(reports.len(), 4);
    assert_hit(&reports, "cut-60");
}
