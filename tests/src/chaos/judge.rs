//! The account at the end of a run: what was promised of every task, held against the records.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::kind::{Fault, Kind, Timing, Victim};
use super::records::{Attempt, Records, Task};
use super::run::{Affected, Round};
use crate::record::TaskKey;

/// Violations that are kept word by word.
const SHOWN_MAX: usize = 20;
/// Crashes after which a task ends CRASHED, as shipped.
const CRASHES_MAX: usize = 3;

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Tasks that were submitted.
    pub tasks: usize,
    /// Attempts that started.
    pub attempts: usize,
    /// Attempts that did not end: their processes were killed in them.
    pub cut_short: usize,
    /// Attempts beyond the first of their tasks.
    pub repeated: usize,
    /// Tasks that ended CRASHED, each with three attempts that were killed.
    pub crashed: usize,
    /// Tasks of killed clients that nobody was told of.
    pub unclaimed: usize,
    /// Overlaps that the stated exceptions excuse.
    pub excused: usize,
    /// The longest time from healing to the next start on what was hit.
    pub resume: Duration,
    /// The longest time from the damage to the start of an attempt that ended a task which was open
    /// then.
    pub back: Duration,
    /// What broke a promise; the first ones.
    pub violations: Vec<String>,
    /// How many did.
    pub violation_count: usize,
}

impl Verdict {
    /// Adds a broken promise.
    pub fn violate(&mut self, what: String) {
        self.violation_count += 1;
        if self.violations.len() < SHOWN_MAX {
            self.violations.push(what);
        }
    }
}

/// Accounts for every task of a run that is over. `killed`: clients that were not asked to end.
pub fn judge(
    kind: Kind,
    timing: &Timing,
    records: &Records,
    rounds: &[Round],
    killed: &BTreeSet<u32>,
) -> Verdict {
    let mut verdict = Verdict::default();
    for nonsense in &records.nonsense {
        verdict.violate(format!("the records make no sense: {nonsense}"));
    }
    verdict.attempts = records.attempts.len();
    verdict.cut_short = records.attempts.iter().filter(|it| it.end_ns.is_none()).count();
    let court = Court { kind, timing, records, rounds };
    for (key, task) in &records.tasks {
        court.task(*key, task, killed.contains(&key.client), &mut verdict);
    }
    court.names(&mut verdict);
    if kind == Kind::SlowLink && verdict.repeated > 0 {
        verdict.violate("a link that was only slow cost an attempt".into());
    }
    for (number, round) in rounds.iter().enumerate() {
        court.round(number, round, &mut verdict);
    }
    verdict
}

struct Court<'a> {
    kind: Kind,
    timing: &'a Timing,
    records: &'a Records,
    rounds: &'a [Round],
}

impl Court<'_> {
    fn attempts<'t>(&'t self, task: &'t Task) -> impl Iterator<Item = &'t Attempt> {
        task.attempts.iter().map(|index| &self.records.attempts[*index])
    }

    fn task(&self, key: TaskKey, task: &Task, is_client_killed: bool, verdict: &mut Verdict) {
        if task.submitted_ns.is_none() {
            return verdict.violate(format!("{key} was never submitted: {task:?}"));
        }
        verdict.tasks += 1;
        verdict.repeated += task.attempts.len().saturating_sub(1);
        match &task.outcomes[..] {
            [] if is_client_killed => verdict.unclaimed += 1,
            [] => verdict.violate(format!("{key} is lost: {task:?}")),
            [(ns, None)] => {
                if !self.attempts(task).any(|attempt| attempt.end_ns.is_some_and(|end| end < *ns)) {
                    verdict.violate(format!("{key} ended OK and no attempt had ended: {task:?}"));
                }
            }
            [(_, Some(failure))] => {
                let hits = self.attempts(task).filter(|attempt| attempt.end_ns.is_none()).count();
                if failure.contains("died") && hits >= CRASHES_MAX {
                    verdict.crashed += 1;
                } else {
                    verdict.violate(format!("{key} failed after {hits} kills: {failure}"));
                }
            }
            [_, _, ..] => verdict.violate(format!("{key} was answered again: {task:?}")),
        }
        self.overlaps(key, task, verdict);
    }

    fn overlaps(&self, key: TaskKey, task: &Task, verdict: &mut Verdict) {
        let mut attempts: Vec<&Attempt> = self.attempts(task).collect();
        attempts.sort_by_key(|attempt| attempt.start_ns);
        for (number, later) in attempts.iter().enumerate() {
            let (epoch, _, dispatch) = later.names.attempt;
            let is_fenced = |earlier: &&&Attempt| {
                earlier.names.attempt.0 == epoch && earlier.names.attempt.2 >= dispatch
            };
            if let Some(earlier) = attempts[..number].iter().find(is_fenced) {
                verdict.violate(format!("{key} started when given up: {earlier:?}, {later:?}"));
            }
            // The end of an attempt that was killed is known to the lock alone.
            let overlaps = |earlier: &&Attempt| match earlier.end_ns {
                Some(end_ns) => end_ns > later.start_ns,
                None => later.overlaps,
            };
            let others: Vec<_> =
                attempts[..number].iter().copied().filter(|it| overlaps(it)).collect();
            if others.is_empty() && !later.overlaps {
                continue;
            }
            let is_excused = |earlier: &&Attempt| self.is_excused(earlier, later);
            if !others.is_empty() && others.iter().all(is_excused) {
                verdict.excused += 1;
            } else {
                verdict.violate(format!("{key} runs twice at once: {others:?}, {later:?}"));
            }
        }
    }

    /// The stated exceptions: a broker that was started again meanwhile, and a host whose
    /// supervisor is stopped, for what started there before the lease ended.
    fn is_excused(&self, earlier: &Attempt, later: &Attempt) -> bool {
        match self.kind {
            Kind::Signal(Fault::Kill, Victim::Broker) => {
                let is_between =
                    |round: &Round| (earlier.start_ns..later.start_ns).contains(&round.fault_ns);
                earlier.names.attempt.0 != later.names.attempt.0
                    && self.rounds.iter().any(is_between)
            }
            Kind::Signal(Fault::Stop, Victim::Supervisor) => {
                let lease_ns = self.timing.lease.as_nanos() as u64;
                let host = &self.records.workers[earlier.worker].host;
                let is_stopped = |round: &Round| {
                    round.affected.is_on(host)
                        && earlier.start_ns < round.fault_ns + lease_ns
                        && (round.fault_ns..round.heal_ns).contains(&later.start_ns)
                };
                self.rounds.iter().any(is_stopped)
            }
            _ => false,
        }
    }

    /// The mesh's names: a request is one task, and an attempt runs once.
    fn names(&self, verdict: &mut Verdict) {
        let (mut requests, mut attempts) = (BTreeMap::new(), BTreeSet::new());
        for attempt in &self.records.attempts {
            let key = *requests.entry(&attempt.names.request).or_insert(attempt.key);
            if key != attempt.key {
                verdict.violate(format!("{key} and {} have one name: {attempt:?}", attempt.key));
            }
            if !attempts.insert(attempt.names.attempt) {
                verdict.violate(format!("an attempt ran twice: {attempt:?}"));
            }
        }
    }

    fn round(&self, number: usize, round: &Round, verdict: &mut Verdict) {
        match round.resumed_ns(self.records) {
            None => verdict.violate(format!("round {number}: what was hit never started again")),
            Some(ns) => {
                let resume = Duration::from_nanos(ns.saturating_sub(round.heal_ns));
                verdict.resume = verdict.resume.max(resume);
                if resume > Timing::RESUME_MAX {
                    verdict.violate(format!("round {number}: resumed after {resume:?}"));
                }
            }
        }
        let healed = Duration::from_nanos(round.heal_ns - round.fault_ns);
        let mut back_max = healed + Timing::RESUME_MAX;
        if self.kind.is_silent() {
            back_max = back_max.max(Timing::SILENT_MAX);
        }
        for (key, task) in &self.records.tasks {
            let Some(back) = self.back(task, round.fault_ns) else { continue };
            verdict.back = verdict.back.max(back);
            if back > back_max {
                verdict.violate(format!("round {number}: {key} started again after {back:?}"));
            }
        }
    }

    /// The time from the damage to the start that ended a task; `None`: it was not open then, or is
    /// one of those that occupy their workers for longer than any bound.
    fn back(&self, task: &Task, fault_ns: u64) -> Option<Duration> {
        let (submitted_ns, (outcome_ns, _)) = (task.submitted_ns?, task.outcomes.first()?);
        if task.is_long || submitted_ns > fault_ns || *outcome_ns < fault_ns {
            return None;
        }
        let has_ended = |attempt: &&Attempt| attempt.end_ns.is_some_and(|end| end < *outcome_ns);
        let start_ns = self.attempts(task).filter(has_ended).map(|it| it.start_ns).max()?;
        Some(Duration::from_nanos(start_ns.saturating_sub(fault_ns)))
    }
}

impl Round {
    /// When everything that was hit had started something again.
    pub fn resumed_ns(&self, records: &Records) -> Option<u64> {
        let first = |is_it: &dyn Fn(&Attempt) -> bool| {
            let starts = records.attempts.iter().rev().take_while(|it| !self.is_before(it));
            let starts = starts.filter(|attempt| attempt.start_ns > self.heal_ns && is_it(attempt));
            starts.map(|attempt| attempt.start_ns).min()
        };
        // What workers still held does not count as work that goes on.
        let is_fresh = |attempt: &Attempt| {
            let task = &records.tasks[&attempt.key];
            !task.is_long && task.submitted_ns.is_some_and(|ns| ns > self.heal_ns)
        };
        match &self.affected {
            Affected::Hosts(hosts) => {
                let on = |host: &String| {
                    first(&|it| is_fresh(it) && records.workers[it.worker].host == *host)
                };
                hosts.iter().map(on).collect::<Option<Vec<u64>>>()?.into_iter().max()
            }
            Affected::Workers { victims, known } => {
                let is_new = |worker: &usize| {
                    *worker >= *known || victims.contains(&records.workers[*worker].pid)
                };
                let workers = (0..records.workers.len()).filter(is_new);
                let mut starts: Vec<u64> = workers
                    .filter_map(|worker| first(&|attempt| attempt.worker == worker))
                    .collect();
                starts.sort_unstable();
                starts.get(victims.len() - 1).copied()
            }
            Affected::Client(client) => first(&|it| is_fresh(it) && it.key.client == *client),
        }
    }

    /// Long before the damage: those who read many files at once read them a little out of order.
    fn is_before(&self, attempt: &Attempt) -> bool {
        const SLACK_NS: u64 = 5_000_000_000;
        attempt.start_ns + SLACK_NS < self.fault_ns
    }
}

#[cfg(test)]
mod tests;
