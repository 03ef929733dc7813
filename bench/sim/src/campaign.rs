//! Runs of many seeds: each in trouble for so many steps, then calm until everything has ended.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::clock::S;
use crate::counters::{Count, Counters};
use crate::fleet::Fleet;
use crate::random::Random;
use crate::shape::Shape;
use crate::world::{At, Story};

/// The longest that it may take until nobody waits for anything, once faults are over,
/// nanoseconds.
const CALM_MAX: u64 = 900 * S;
/// The longest that it may take until everybody has left, nanoseconds.
const CLOSE_MAX: u64 = 120 * S;
/// Steps between two looks at whether the fleet is quiet.
const LOOK_EVERY: u64 = 32;
/// Seeds in a campaign from which on every fault and branch must have occurred.
pub const SEEDS_FOR_ALL: u64 = 200;

/// What a run is to be.
#[derive(Clone, Copy, Debug)]
pub struct RunConfig {
    /// Which choices.
    pub seed: u64,
    /// Steps in trouble.
    pub steps: u64,
    /// Whether anything goes wrong.
    pub has_faults: bool,
}

/// A violation.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Of which seed.
    pub seed: u64,
    /// After how many steps.
    pub step: u64,
    /// At which true time, nanoseconds.
    pub at: u64,
    /// What.
    pub text: String,
    /// The last lines of the story, where it was told.
    pub story: Vec<(u64, String)>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, line) in &self.story {
            writeln!(f, "{} {line}", At(*at))?;
        }
        write!(f, "seed {}, step {}, {} s: {}", self.seed, self.step, At(self.at), self.text)
    }
}

/// What a run without a violation was like.
#[derive(Clone, Debug)]
pub struct Run {
    /// What happened how often.
    pub counters: Counters,
    /// Everything that happened, in one number.
    pub digest: u64,
}

/// Runs a seed.
///
/// # Errors
/// The first violation.
pub fn run(config: RunConfig, story: Story) -> Result<Run, Box<Failure>> {
    let mut random = Random::new(config.seed);
    let shape = Shape::draw(&mut random, config.has_faults);
    let mut fleet = Fleet::new(random.next(), shape, story);
    let mut steps = Steps::new(config.seed);
    while steps.count < config.steps {
        steps.one(&mut fleet)?;
    }
    steps.settle(&mut fleet)?;
    steps.close(&mut fleet)?;
    Ok(Run { counters: fleet.world.counters.clone(), digest: fleet.world.digest })
}

/// One thing after the other, each checked.
pub(crate) struct Steps {
    seed: u64,
    count: u64,
}

impl Steps {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    /// Faults are over: everything comes to its end.
    pub(crate) fn settle(&mut self, fleet: &mut Fleet) -> Result<(), Box<Failure>> {
        fleet.calm();
        self.until(fleet, CALM_MAX, "something is never over", Fleet::is_quiet)?;
        for (broker, key) in fleet.checker.vanished() {
            let name = crate::broker::name(broker);
            fleet.checker.fail(format!("{key} came in at {name} and vanished"));
        }
        self.check(fleet)
    }

    /// Everybody leaves.
    pub(crate) fn close(&mut self, fleet: &mut Fleet) -> Result<(), Box<Failure>> {
        fleet.close();
        self.until(fleet, CLOSE_MAX, "somebody never leaves", Fleet::is_empty)?;
        fleet.finish();
        self.check(fleet)
    }

    pub(crate) fn one(&mut self, fleet: &mut Fleet) -> Result<(), Box<Failure>> {
        self.count += 1;
        if !fleet.step() {
            fleet.checker.fail("nothing is left to happen".into());
        }
        self.check(fleet)
    }

    fn check(&self, fleet: &mut Fleet) -> Result<(), Box<Failure>> {
        let Some(text) = fleet.checker.failure() else { return Ok(()) };
        let text = text.to_owned();
        let story = match &mut fleet.world.story {
            Story::Last(lines) => lines.drain(..).collect(),
            Story::All(lines) => std::mem::take(lines),
            Story::Silent | Story::Print => Vec::new(),
        };
        let (seed, step, at) = (self.seed, self.count, fleet.world.now);
        Err(Box::new(Failure { seed, step, at, text, story }))
    }

    fn until(
        &mut self,
        fleet: &mut Fleet,
        most: u64,
        otherwise: &str,
        is_over: impl Fn(&Fleet) -> bool,
    ) -> Result<(), Box<Failure>> {
        let end = fleet.world.now + most;
        fleet.look();
        while !is_over(fleet) {
            let mut has_more = true;
            for _ in 0..LOOK_EVERY {
                has_more = has_more && fleet.step();
                self.count += u64::from(has_more);
                self.check(fleet)?;
            }
            if (fleet.world.now > end || !has_more) && !is_over(fleet) {
                let text = format!("{otherwise}: {}", fleet.remains());
                fleet.checker.fail(text);
            }
        }
        fleet.look();
        self.check(fleet)
    }
}

/// Runs a seed; a violation is run again and its story told.
///
/// # Errors
/// The violation.
pub fn run_told(config: RunConfig) -> Result<Run, Box<Failure>> {
    run(config, Story::Silent).map_err(|failure| {
        match run(config, Story::Last(std::collections::VecDeque::new())) {
            Err(told) => told,
            Ok(_) => Box::new(Failure {
                text: format!("{}; and not again: a run is not the same twice", failure.text),
                ..*failure
            }),
        }
    })
}

/// Runs seeds on threads until all are done or one has failed.
///
/// # Errors
/// The violation of the lowest seed among those that were run.
pub fn campaign(
    (first, seeds): (u64, u64),
    config: RunConfig,
    threads: usize,
    progress: impl Fn(u64) + Sync,
) -> Result<Counters, Box<Failure>> {
    let next = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    let all = Mutex::new((Counters::default(), None::<Box<Failure>>));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds {
                        return;
                    }
                    let seed = first + number;
                    let result = run_told(RunConfig { seed, ..config });
                    let Ok(mut all) = all.lock() else { return };
                    match result {
                        Ok(run) => all.0.join(&run.counters),
                        Err(failure) => {
                            if all.1.as_ref().is_none_or(|other| failure.seed < other.seed) {
                                all.1 = Some(failure);
                            }
                            next.store(seeds, Ordering::Relaxed);
                        }
                    }
                    drop(all);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let (counters, failure) = match all.into_inner() {
        Ok(all) => all,
        Err(poisoned) => poisoned.into_inner(),
    };
    failure.map_or(Ok(counters), Err)
}

/// Why a campaign without a violation proves too little; `None`: it does not.
pub fn objection(counters: &Counters, seeds: u64) -> Option<String> {
    if counters.faults() == 0 {
        return Some("without faults a run is no proof".into());
    }
    if counters.of(Count::Ok) == 0 {
        return Some("no task has ended OK".into());
    }
    let missing = counters.missing();
    if seeds < SEEDS_FOR_ALL || missing.is_empty() {
        return None;
    }
    let names: Vec<_> = missing.iter().map(|count| count.name()).collect();
    Some(format!("never met: {}", names.join(", ")))
}
