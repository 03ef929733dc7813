//! Whether an open-loop run is valid, or why not.

use pinmesh_histogram::Stage;

use crate::{
    build_info::BuildInfo,
    gates::{of_set_up, of_tasks},
    open_run::{OpenConfig, OpenMeasured},
    run::ratio,
};

/// Share of the planned sends that must be made.
const SENT_SHARE_MIN: f64 = 0.999;
/// p99 of the send lag as a share of that of the response, at most: beyond it the generator is part
/// of what is measured.
const LAG_SHARE_MAX: f64 = 0.1;
/// The generator's work as a share of its CPU, at most.
const BUSY_SHARE_MAX: f64 = 0.7;
/// Growth of the backlog that is none, as a share of what was sent.
const GROWTH_SHARE_MIN: f64 = 0.005;
/// Growth in tasks that is none, whatever was sent.
const GROWTH_MIN: u64 = 10;
/// Samples below which thirds say nothing.
const SAMPLES_MIN: usize = 9;

/// Everything for which a run's numbers do not count; empty: it is valid.
pub(crate) fn reasons(
    measured: &OpenMeasured,
    config: &OpenConfig,
    build: &BuildInfo,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut fail = |is_failed: bool, reason: String| {
        if is_failed {
            reasons.push(reason);
        }
    };
    let planned = measured.planned;
    let made = planned.saturating_sub(measured.unsent);
    let made_share = ratio(made as f64, planned as f64).unwrap_or(0.0);
    fail(
        made_share < SENT_SHARE_MIN,
        format!(
            "{made} of {planned} planned sends were made ({:.2} %, at least 99.9 % must be)",
            made_share * 100.0
        ),
    );
    let p99 = |stage| measured.steady.stages.summary(stage).map_or(0, |summary| summary.p99);
    let (lag, response) = (p99(Stage::SendLag) as f64 / 1e3, p99(Stage::Response) as f64 / 1e3);
    fail(
        lag > response * LAG_SHARE_MAX,
        format!(
            "send lag: p99 is {lag:.0} us, more than a tenth of the response's {response:.0} us: \
             the generator was late itself; give it a CPU of its own, or lower the rate"
        ),
    );
    if let Some((first, last)) = backlog_growth(&measured.outstanding, planned) {
        let text = "the rate is more than the mesh carries";
        fail(true, format!("the backlog grows: {first} outstanding tasks, later {last}: {text}"));
    }
    let busy = measured.generator_busy();
    fail(
        busy > BUSY_SHARE_MAX,
        format!(
            "the generator was busy for {:.0} % of the time (at most 70 %): divide the rate among \
             several pinmesh-bench",
            busy * 100.0
        ),
    );
    fail(
        !measured.steady.has_settled,
        "response times have not settled (MSER-5): run longer, or with a longer --warmup".into(),
    );
    reasons.extend(of_tasks(&measured.record));
    reasons.extend(of_set_up(config.workers, config.cpus_allowed, &measured.cpu, build));
    reasons.extend(measured.problems.iter().cloned());
    reasons
}

/// Medians of the outstanding tasks in the first and the last third, if the backlog grows: from
/// third to third, to more than twice, and by more than 0.5 % of what was sent. Medians, because a
/// stall that passes is no growth; its cost is in the response times.
fn backlog_growth(outstanding: &[u64], sent: u64) -> Option<(u64, u64)> {
    if outstanding.len() < SAMPLES_MIN {
        return None;
    }
    let third = outstanding.len() / 3;
    let median = |part: &[u64]| {
        let mut sorted = part.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    };
    let first = median(&outstanding[..third]);
    let middle = median(&outstanding[third..outstanding.len() - third]);
    let last = median(&outstanding[outstanding.len() - third..]);
    let growth_min = GROWTH_MIN.max((sent as f64 * GROWTH_SHARE_MIN) as u64);
    let grows = first <= middle
        && middle <= last
        && last > first.saturating_mul(2)
        && last - first > growth_min;
    grows.then_some((first, last))
}

/// What a reader of the numbers should know although the run is valid.
pub(crate) fn notes(measured: &OpenMeasured, config: &OpenConfig) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |is_so: bool, text: String| {
        if is_so {
            notes.push(text);
        }
    };
    let cpus = config.cpus_allowed;
    // The generator spins; results and the clients' own threads work beside it.
    let busy = config.workers.unwrap_or(0) as usize + config.clients as usize + 2;
    note(
        config.workers.is_some() && busy > cpus,
        format!(
            "broker, workers, clients and generator, {busy} busy processes or threads, share \
             {cpus} CPUs: times include waiting for a CPU"
        ),
    );
    note(
        measured.cpu.broker.is_none() || measured.cpu.workers.is_none(),
        "the CPU time of a mesh that was there before is not known: give --broker-pid and \
         --worker-pids on its host"
            .to_owned(),
    );
    let full = measured.counts.window_full;
    note(full > 0, format!("{full} sends found the client's window full and were late"));
    let steady = &measured.steady;
    let cut_s = measured.cut.as_secs_f64();
    note(!measured.cut.is_zero(), format!("MSER-5 cut the first {cut_s:.1} s as warm-up"));
    let cut_max = steady.response_max_cut_ns as f64 / 1e3;
    let left_max = steady.stages.summary(Stage::Response).map_or(0, |summary| summary.max);
    let left_max = left_max as f64 / 1e3;
    note(
        cut_max > left_max,
        format!(
            "what was cut holds a response of {cut_max:.0} us, longer than any that is left \
             ({left_max:.0} us): if that was a stall and no warm-up, repeat the run"
        ),
    );
    let overflow: u64 = Stage::ALL
        .into_iter()
        .filter_map(|stage| steady.stages.summary(stage))
        .map(|summary| summary.overflow)
        .sum();
    note(overflow > 0, format!("{overflow} times above 60 s were taken as 60 s"));
    notes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::open_run::made_up;

    fn release() -> BuildInfo {
        BuildInfo { debug_assertions: false, ..BuildInfo::this() }
    }

    #[test]
    fn a_run_with_nothing_wrong_is_valid() {
        let (measured, config) = made_up();
        assert_eq!(reasons(&measured, &config, &release()), Vec::<String>::new());
        assert_eq!(notes(&measured, &config), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_wrong_is_a_reason() {
        let debug = BuildInfo { debug_assertions: true, ..BuildInfo::this() };
        let (measured, config) = made_up();
        assert!(reasons(&measured, &config, &debug)[0].contains("debug build"));

        type Spoil = fn(&mut OpenMeasured, &mut OpenConfig);
        let spoils: [(&str, Spoil); 12] = [
            ("99899 of 100000 planned sends", |measured, _| measured.unsent = 101),
            ("0 of 0 planned sends", |measured, _| measured.planned = 0),
            ("send lag: p99 is 50 us", |measured, _| {
                (0..2000).for_each(|_| measured.steady.stages.record(Stage::SendLag, 50_000));
            }),
            ("the backlog grows", |measured, _| measured.outstanding = (0..3000).collect()),
            ("busy for 71 %", |measured, _| measured.counts.busy_ns = 7_100_000_000),
            ("have not settled", |measured, _| measured.steady.has_settled = false),
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

    #[test]
    fn a_tenth_of_a_percent_may_be_missing_and_a_tenth_of_the_response_be_lag() {
        let (mut measured, config) = made_up();
        measured.unsent = 100;
        // Of 100,000 responses p99 is 200 us.
        (0..2000).for_each(|_| measured.steady.stages.record(Stage::SendLag, 19_000));
        assert_eq!(reasons(&measured, &config, &release()), Vec::<String>::new());
    }

    #[test]
    fn a_backlog_grows_when_the_rate_is_too_high_and_not_when_a_stall_passes() {
        // One percent too much of 10,000 a second, 20 ms apart, for ten seconds.
        let overload: Vec<u64> = (0..500).map(|at| 5 + at * 2 + at % 5).collect();
        assert_eq!(backlog_growth(&overload, 100_000), Some((174, 841)));
        // A tenth of that is within what a queue does by itself.
        let slight: Vec<u64> = (0..500).map(|at| 5 + at / 5).collect();
        assert_eq!(backlog_growth(&slight, 100_000), None);
        // 200 ms late, twice as much outstanding as ever: over before the third is half gone.
        let stall: Vec<u64> = (0..500).map(|at| if at > 480 { at * 100 } else { 5 }).collect();
        assert_eq!(backlog_growth(&stall, 100_000), None);
        // It falls again: no growth from third to third.
        let hill: Vec<u64> = (0..500_u64).map(|at| 60_000 - at.abs_diff(250) * 200).collect();
        assert_eq!(backlog_growth(&hill, 100_000), None);
        // Few tasks.
        assert_eq!(backlog_growth(&[1, 1, 1, 2, 2, 2, 5, 5, 5], 90), None);
        assert_eq!(backlog_growth(&[0, 1000], 90), None);
    }

    #[test]
    fn what_was_cut_or_late_is_noted() {
        let (mut measured, mut config) = made_up();
        measured.cut = Duration::from_secs(2);
        measured.steady.response_max_cut_ns = 90_000_000;
        measured.counts.window_full = 4;
        measured.steady.stages.record(Stage::Transit, u64::MAX);
        config.cpus_allowed = 2;
        let notes = notes(&measured, &config);
        let expected =
            ["share 2 CPUs", "4 sends found", "first 2.0 s", "response of 90000 us", "above 60 s"];
        assert_eq!(notes.len(), expected.len(), "{notes:?}");
        for (note, expected) in notes.iter().zip(expected) {
            assert!(note.contains(expected), "{note}");
        }
    }
}
