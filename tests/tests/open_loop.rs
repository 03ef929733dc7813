//! The open loop as a user runs it, and its logs as HdrHistogram's own tools read them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::{Path, PathBuf};
use std::process::Command;

use pinmesh_tests::{Broker, Finished, Process, Supervisor, command, marked, run, turn};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// `tests/hlog/check.py` with these arguments.
fn check_logs(arguments: &[&str]) -> Finished {
    let python = std::env::var_os("PINMESH_PYTHON")
        .map_or_else(|| root().join("target/venv/bin/python"), PathBuf::from);
    assert!(
        python.is_file(),
        "{} is missing: `scripts/test.sh test` makes it, or name a Python with hdrhistogram in \
         PINMESH_PYTHON",
        python.display()
    );
    let mut command = Command::new(python);
    command.arg(root().join("tests/hlog/check.py")).args(arguments);
    Process::start(command).wait()
}

/// Whether the report says itself that it is valid; the exit code must say the same. On a busy
/// machine the generator may be late, or the times unsettled, and then it is right that it is not.
#[track_caller]
fn assert_consistent(report: &Value, finished: &Finished) {
    let is_valid = report["valid"].as_bool().unwrap();
    assert_eq!(finished.code, if is_valid { 0 } else { 3 }, "{}", finished.stderr);
    let reasons = report["invalid_because"].as_array().unwrap();
    assert_eq!(reasons.is_empty(), is_valid, "{reasons:?}");
}

#[test]
fn the_logs_of_a_run_read_by_hdrhistogram_for_python_are_what_its_report_says() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    let report_file = folder.path().join("report.json");
    let (logs, report_file) = (logs.to_str().unwrap(), report_file.to_str().unwrap());
    let words = "run --rate 1000 --workers 1 --duration 1s --warmup 200ms --runs 2 --clients 2";
    let arguments = words.split(' ').chain(["--hlog", logs, "--json", report_file]);
    let mut bench = Process::start(command("pinmesh-bench", arguments));
    let finished = bench.wait();
    let left = marked(bench.mark());
    assert!(left.is_empty(), "these were left: {left:?}");

    let text = std::fs::read_to_string(report_file).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_consistent(&report, &finished);
    assert!(finished.stdout.contains("response"), "{}", finished.stdout);
    for run in ["1", "2"] {
        let of_run = format!("{logs}/run-{run}");
        let checked = check_logs(&[report_file, &of_run, "--run", run]);
        assert_eq!(checked.code, 0, "{}\n{}", checked.stdout, checked.stderr);
        for stage in ["response", "round_trip", "send_lag", "service", "client_path"] {
            assert!(checked.stdout.contains(&format!("{stage}: ")), "{}", checked.stdout);
        }
    }
    // The check is one: it finds the logs of the other run different.
    let crossed = check_logs(&[report_file, &format!("{logs}/run-1"), "--run", "2"]);
    assert_eq!(crossed.code, 1, "{}", crossed.stdout);
}

#[test]
fn a_run_sends_what_was_planned_and_tells_stages_and_costs_apart() {
    let _turn = turn();
    let words = "run --rate 500 --arrivals constant --workers 1 --service spin --service-time 20us \
                 --duration 1s --warmup 200ms --json -";
    let finished = Process::start(command("pinmesh-bench", words.split_ascii_whitespace())).wait();
    let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| {
        panic!("standard output is no JSON ({error}): {}\n{}", finished.stdout, finished.stderr)
    });
    assert_consistent(&report, &finished);
    assert_eq!(report["mode"], "open_loop");
    assert_eq!(report["rate_planned"], 500.0);
    let run = &report["runs"][0];
    assert_eq!(run["generator"]["sends_planned"], 500);
    for count in ["failed", "wrong", "lost", "retries"] {
        assert_eq!(run["counts"][count], 0, "{count}: {run:#}");
    }
    let latency = |stage: &str, key: &str| run["latency_us"][stage][key].as_f64().unwrap();
    assert!(latency("service", "p50") >= 19.9, "{run:#}");
    // Of one task the response is no less than the round trip, nor that than the handler; so it is
    // at each rank.
    for key in ["min", "p50", "p99", "max"] {
        let (response, round_trip) = (latency("response", key), latency("round_trip", key));
        assert!(response >= round_trip, "{key}: {response} {round_trip}");
        assert!(round_trip >= latency("service", key), "{key}: {run:#}");
    }
    for side in ["broker", "workers", "clients", "total"] {
        let cost = run["cpu_us_per_task"][side].as_f64();
        assert!(cost.is_some_and(|cost| cost > 0.0), "{side}: {run:#}");
    }
}

#[test]
fn a_run_whose_tasks_fail_is_not_valid_and_says_why() {
    let broker = Broker::start(&["--service-wait", "100ms"]);
    let _supervisor = Supervisor::start(&broker.backend, 1, &[]);
    let words = "run --rate 50 --service nobody --duration 200ms --warmup 0s --json - --broker";
    let finished = run("pinmesh-bench", words.split(' ').chain([broker.frontend.as_str()]));
    assert_eq!(finished.code, 3, "{}", finished.stderr);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let reasons = report["invalid_because"].as_array().unwrap();
    let is_told = |reason: &Value| reason.as_str().unwrap().contains("no worker serves `nobody`");
    assert!(reasons.iter().any(is_told), "{reasons:?}");
    assert!(finished.stderr.contains("FAIL, not valid"), "{}", finished.stderr);
}
