//! Whether a run is valid, or why not.

use crate::{
    build_info::BuildInfo,
    meter::CpuTime,
    record::Record,
    run::{Measured, RunConfig},
};

/// A run whose measured interval was shorter than this share of the planned one is cut short.
const INTERVAL_SHARE_MIN: f64 = 0.99;

/// Everything for which a run's numbers do not count; empty: it is valid.
pub(crate) fn reasons(measured: &Measured, config: &RunConfig, build: &BuildInfo) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut fail = |is_failed: bool, reason: String| {
        if is_failed {
            reasons.push(reason);
        }
    };
    let planned_s = config.duration.as_secs_f64();
    let measured_s = measured.elapsed.as_secs_f64();
    fail(
        measured_s < planned_s * INTERVAL_SHARE_MIN,
        format!("cut short: {measured_s:.2} s of {planned_s:.2} s were measured"),
    );
    fail(measured.tasks == 0, "no task ended in the measured interval".to_owned());
    reasons.extend(of_tasks(&measured.record));
    reasons.extend(of_set_up(config.workers, config.cpus_allowed, &measured.cpu, build));
    reasons.extend(measured.problems.iter().cloned());
    reasons
}

/// What is wrong with how tasks ended, in either mode.
pub(crate) fn of_tasks(record: &Record) -> Vec<String> {
    let first = record.first_failure.as_deref().unwrap_or("no reason");
    let failures = [
        (record.failed, format!("{} tasks failed, the first: {first}", record.failed)),
        (record.wrong, format!("{} outputs were not what was sent", record.wrong)),
        (record.lost, format!("{} tasks had no result 30 s after the end", record.lost)),
        (
            record.retries,
            format!("{} starts of tasks ended badly and were repeated", record.retries),
        ),
    ];
    failures.into_iter().filter(|(count, _)| *count > 0).map(|(_, reason)| reason).collect()
}

/// What is wrong with what was measured with, in either mode. `workers`: of a mesh of one's own.
pub(crate) fn of_set_up(
    workers: Option<u32>,
    cpus_allowed: usize,
    cpu: &CpuTime,
    build: &BuildInfo,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if build.debug_assertions {
        let remedy = "run `cargo build --release` and target/release/pinmesh-bench";
        reasons.push(format!("debug build: {remedy}"));
    }
    if let Some(workers) = workers {
        if workers as usize > cpus_allowed {
            let cpus = cpus_allowed;
            reasons
                .push(format!("{workers} workers on {cpus} CPUs: a worker has no CPU of its own"));
        }
        if cpu.broker.is_none() || cpu.workers.is_none() {
            reasons.push("the CPU time of broker or workers is not known".to_owned());
        }
    }
    reasons
}

/// What a reader of the numbers should know although the run is valid.
pub(crate) fn notes(measured: &Measured, config: &RunConfig) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |is_so: bool, text: String| {
        if is_so {
            notes.push(text);
        }
    };
    let cpus = config.cpus_allowed;
    let busy = config.workers.unwrap_or(0) as usize + config.clients as usize + 1;
    note(
        config.workers.is_some() && busy > cpus,
        format!(
            "broker, workers and clients, {busy} busy processes or threads, share {cpus} CPUs: \
             tasks/s is what this machine carries; compare CPU us a task"
        ),
    );
    note(
        measured.cpu.broker.is_none() || measured.cpu.workers.is_none(),
        "the CPU time of a mesh that was there before is not known: give --broker-pid and \
         --worker-pids on its host"
            .to_owned(),
    );
    note(
        measured.traffic.is_none() && config.broker.is_none(),
        "tasks a message: the broker did not report its traffic (PINMESH_LOG must allow `info`)"
            .to_owned(),
    );
    let overflow: u64 = pinmesh_histogram::Stage::ALL
        .into_iter()
        .filter_map(|stage| measured.record.stages.summary(stage))
        .map(|summary| summary.overflow)
        .sum();
    note(overflow > 0, format!("{overflow} times above 60 s were taken as 60 s"));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::made_up;

    fn release() -> BuildInfo {
        BuildInfo { debug_assertions: false, ..BuildInfo::this() }
    }

    #[test]
    fn a_run_with_nothing_wrong_is_valid() {
        let (measured, config) = made_up();
        assert_eq!(reasons(&measured, &config, &release()), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_wrong_is_a_reason() {
        let debug = BuildInfo { debug_assertions: true, ..BuildInfo::this() };
        let (measured, config) = made_up();
        assert!(reasons(&measured, &config, &debug)[0].contains("debug build"));

        type Spoil = fn(&mut Measured, &mut RunConfig);
        let spoils: [(&str, Spoil); 8] = [
            ("cut short", |measured, _| measured.elapsed /= 2),
            ("no task ended", |measured, _| measured.tasks = 0),
            ("tasks failed, the first: no reason", |measured, _| measured.record.failed = 3),
            ("not what was sent", |measured, _| measured.record.wrong = 1),
            ("had no result", |measured, _| measured.record.lost = 1),
            ("were repeated", |measured, _| measured.record.retries = 1),
            ("no CPU of its own", |_, config| config.workers = Some(9)),
            ("is not known", |measured, _| measured.cpu.workers = None),
        ];
        for (expected, spoil) in spoils {
            let (mut measured, mut config) = made_up();
            spoil(&mut measured, &mut config);
            let reasons = reasons(&measured, &config, &release());
            assert_eq!(reasons.len(), 1, "{reasons:?}");
            assert!(reasons[0].contains(expected), "{reasons:?}");
        }
    }
}
