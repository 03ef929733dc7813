//! The load generator as a user runs it: one command, one report, nothing left running.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_tests::{Process, command, marked, turn};
use serde_json::Value;

#[track_caller]
fn positive(report: &Value, path: &str) {
    let value = report.pointer(path).and_then(Value::as_f64);
    assert!(value.is_some_and(|value| value > 0.0), "{path} is {value:?} in {report:#}");
}

#[test]
fn a_throughput_run_reports_rates_and_cpu_of_each_side_and_leaves_no_process() {
    let _turn = turn();
    let words = "throughput --workers 1 --payload 64 --window 100 --duration 1s --json -";
    let mut bench = Process::start(command("pinmesh-bench", words.split(' ')));
    let finished = bench.wait();
    let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| {
        panic!("standard output is no JSON ({error}): {}", finished.stdout)
    });
    // A debug build says of itself that its numbers do not count; nothing else may be wrong.
    let objections = report["invalid_because"].as_array().unwrap();
    let is_debug = objections.iter().any(|why| why.as_str().unwrap().contains("debug build"));
    assert_eq!(objections.len(), usize::from(is_debug), "{objections:?}");
    assert_eq!(finished.code, if is_debug { 3 } else { 0 }, "{}", finished.stderr);
    assert_eq!(report["valid"], !is_debug);
    positive(&report, "/tasks_per_s");
    for side in ["broker", "workers", "clients", "total"] {
        positive(&report, &format!("/cpu_us_per_task/{side}"));
    }
    for side in ["broker", "workers", "clients", "total"] {
        positive(&report, &format!("/tasks_per_s_per_core/{side}"));
    }
    let environment = report.get("environment").and_then(Value::as_object);
    assert!(environment.is_some_and(|it| !it.is_empty()), "no environment in {report:#}");
    let left = marked(bench.mark());
    assert!(left.is_empty(), "these were left: {left:?}");
}
