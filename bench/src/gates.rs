//! Whether a run is valid, or why not.

use crate::{
    build_info::BuildInfo,
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
    let record = &measured.record;
    let planned_s = config.duration.as_secs_f64();
    let measured_s = measured.elapsed.as_secs_f64();
    fail(
        measured_s < planned_s * INTERVAL_SHARE_MIN,
        format!("cut short: {measured_s:.2} s of {planned_s:.2} s were measured"),
    );
    fail(measured.tasks == 0, "no task ended in the measured interval".to_owned());
    let first = record.first_failure.as_deref().unwrap_or("no reason");
    fail(record.failed > 0, format!("{} tasks failed, the first: {first}", record.failed));
    fail(record.wrong > 0, format!("{} outputs were not what was sent", record.wrong));
    fail(record.lost > 0, format!("{} tasks had no result 30 s after the end", record.lost));
    fail(
        record.retries > 0,
        format!("{} starts of tasks ended badly and were repeated", record.retries),
    );
    fail(
        build.debug_assertions,
        "debug build: run `cargo build --release` and target/release/pinmesh-bench".to_owned(),
    );
    if let (Some(workers), cpus) = (config.workers, config.cpus_allowed) {
        fail(
            usize::try_from(workers).is_ok_and(|workers| workers > cpus),
            format!("{workers} workers on {cpus} CPUs: a worker has no CPU of its own"),
        );
    }
    let is_own = config.broker.is_none();
    fail(
        is_own && (measured.cpu.broker.is_none() || measured.cpu.workers.is_none()),
        "the CPU time of broker or workers is not known".to_owned(),
    );
    reasons.extend(measured.problems.iter().cloned());
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
