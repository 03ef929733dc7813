//! What is looked at besides the story: how requests ended, and what brokers have counted.

use pinmesh_core::Ledger;
use pinmesh_protocol::status::Status;

use super::Player;
use super::names::{Actor, Names};
use super::words::Words;
use crate::counters::Count;
use crate::story::fits;
use crate::world::Story;

/// Something to look at.
#[derive(Clone, Debug)]
pub(super) enum Check {
    Outcome {
        request: String,
        /// A status, `LOST here` and the like for one that the client gave itself, or `open`.
        end: String,
        /// Times that its handler was entered.
        attempts: Option<u32>,
        /// Workers that entered it, in that order.
        on: Vec<String>,
    },
    Counts {
        broker: usize,
        counts: Vec<(String, u64)>,
    },
    /// Lines of the story.
    Times {
        event: Vec<String>,
        times: u64,
    },
}

impl Check {
    pub(super) fn parse(words: &mut Words<'_>, names: &Names) -> Result<Self, String> {
        let first = words.clone().next("a request, a broker or an event")?;
        if names.requests.contains(first) {
            let mut ahead = words.clone();
            ahead.next("a request")?;
            if ahead.take("is") {
                *words = ahead;
                return parse_outcome(words, first.to_owned());
            }
        }
        if let Ok(Actor::Broker(broker)) = names.actor(first) {
            let mut ahead = words.clone();
            ahead.next("a broker")?;
            if ahead.take("counts") {
                *words = ahead;
                return Ok(Self::Counts { broker, counts: parse_counts(words)? });
            }
        }
        let event = names.event(&words.up_to_comma())?;
        words.need(",")?;
        let times = words.number()?;
        let _ = words.take("times") || words.take("time");
        Ok(Self::Times { event, times })
    }
}

fn parse_outcome(words: &mut Words<'_>, request: String) -> Result<Check, String> {
    let end = words.next("how it ended")?;
    let is_status = Status::ALL.iter().any(|status| status.name() == end);
    if !is_status && end != "open" {
        return Err(format!("{end:?} is no status"));
    }
    let is_here = is_status && words.take("here");
    let end = if is_here { format!("{end} here") } else { end.to_owned() };
    let mut attempts = None;
    if words.take("after") {
        attempts = Some(words.number()? as u32);
        let _ = words.take("attempts") || words.take("attempt");
    }
    let mut on = Vec::new();
    if words.take("on") {
        on.push(words.next("a worker")?.to_owned());
        while words.take(",") {
            on.push(words.next("a worker")?.to_owned());
        }
    }
    Ok(Check::Outcome { request, end, attempts, on })
}

fn parse_counts(words: &mut Words<'_>) -> Result<Vec<(String, u64)>, String> {
    let mut counts = Vec::new();
    loop {
        let name = words.next("what it counts")?;
        counted(&Ledger::default(), name).ok_or_else(|| format!("no ledger has {name:?}"))?;
        counts.push((name.to_owned(), words.number()?));
        if !words.take(",") {
            return Ok(counts);
        }
    }
}

fn counted(ledger: &Ledger, name: &str) -> Option<u64> {
    Some(match name {
        "submitted" => ledger.submitted,
        "busy" => ledger.busy,
        "refused" => ledger.refused,
        "joined" => ledger.joined,
        "ignored" => ledger.ignored,
        "stale" => ledger.stale,
        "accepted" => ledger.accepted,
        "ok" => ledger.ok,
        "failed" => ledger.failed,
        "expired" => ledger.expired,
        "timed_out" => ledger.timed_out,
        "crashed" => ledger.crashed,
        "cancelled" => ledger.cancelled,
        "lost" => ledger.lost,
        "no_service" => ledger.no_service,
        "held" => ledger.held,
        "dispatched" => ledger.dispatched,
        "requeued" => ledger.requeued,
        "adopted" => ledger.adopted,
        "stale_ends" => ledger.stale_ends,
        "foreign_ends" => ledger.foreign_ends,
        "malformed" => ledger.malformed,
        _ => return None,
    })
}

impl Player {
    pub(super) fn check(&self, check: &Check) -> Result<(), String> {
        match check {
            Check::Outcome { request, end, attempts, on } => {
                let key = self.keys.get(request).ok_or("it has not been submitted yet")?;
                let asked = self.fleet.checker.asked(*key).ok_or("nobody has asked for it")?;
                let is = asked.end.as_deref().unwrap_or("open");
                if is != end {
                    return Err(format!("{request} is {is}"));
                }
                if attempts.is_some_and(|attempts| attempts != asked.starts) {
                    return Err(format!("{request} was started {} times", asked.starts));
                }
                let is_there = |(was, wanted): (&String, &String)| {
                    was == wanted || was.split('#').next() == Some(wanted)
                };
                let is_same = on.len() == asked.ran_on.len();
                let is_right = is_same && asked.ran_on.iter().zip(on).all(is_there);
                if !on.is_empty() && !is_right {
                    return Err(format!("{request} was started on {}", asked.ran_on.join(", ")));
                }
            }
            Check::Counts { broker, counts } => {
                let life = self.fleet.brokers[*broker].life.as_ref().ok_or("it is down")?;
                let ledger = life.core.ledger();
                for (name, wanted) in counts {
                    let count = counted(ledger, name).unwrap_or_default();
                    if count != *wanted {
                        return Err(format!("{name} is {count}; in all: {ledger:?}"));
                    }
                }
            }
            Check::Times { event, times } => {
                let Story::All(story) = &self.fleet.world.story else { return Ok(()) };
                let count = story.iter().filter(|(_, told)| fits(told, event)).count() as u64;
                if count != *times {
                    return Err(format!("it happened {count} times"));
                }
            }
        }
        Ok(())
    }

    /// Attempts of a task at once: all must be announced, though the rules excuse them.
    pub(super) fn check_overlaps(&self, announced: u64) -> Result<(), String> {
        let excused = [Count::OverlapStopped, Count::OverlapBrokers, Count::OverlapLoner];
        let found: u64 = excused.iter().map(|count| self.fleet.world.counters.of(*count)).sum();
        if found == announced {
            return Ok(());
        }
        Err(format!("{found} attempts overlap, which the rules excuse; {announced} were announced"))
    }
}
