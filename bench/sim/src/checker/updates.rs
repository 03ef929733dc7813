//! What a client hears of a running task is what its attempts said, in order, each once; of kind
//! `stream` all that the attempt said that ended it.

use pinmesh_protocol::command::{ClientProgress, Payload};
use pinmesh_protocol::id::AttemptId;
use pinmesh_protocol::status::ProgressKind;

use super::Checker;
use crate::counters::Count;
use crate::task::{Key, Output};
use crate::world::World;

/// An update that a handler said.
#[derive(Clone, Copy, Debug)]
pub(super) struct SaidSeen {
    key: Key,
    attempt: AttemptId,
    kind: ProgressKind,
    sequence: u64,
}

impl Checker {
    /// A handler says something. The token of this update.
    pub fn on_said(
        &mut self,
        attempt: AttemptId,
        key: Key,
        kind: ProgressKind,
        sequence: u64,
    ) -> u64 {
        self.tokens += 1;
        self.said.insert(self.tokens, SaidSeen { key, attempt, kind, sequence });
        if kind == ProgressKind::Stream {
            self.streams.entry(attempt).or_default().push(sequence);
        }
        self.tokens
    }

    /// A client is told of it.
    pub fn on_heard(&mut self, world: &mut World, key: Key, progress: &ClientProgress<'_>) {
        let Payload::Inline(payload) = progress.payload else { return };
        let token = Output::from_payload(payload).map(|output| output.token);
        let Some(said) = token.and_then(|token| self.said.get(&token)).copied() else {
            return self.fail(format!("{key} hears what no handler said: {progress:?}"));
        };
        let is_same = (said.kind, said.sequence) == (progress.kind, progress.sequence);
        if said.key != key || !is_same {
            return self.fail(format!("{key} hears {progress:?}, which was {said:?}"));
        }
        world.counters.add(match said.kind {
            ProgressKind::Latest => Count::LatestHeard,
            ProgressKind::Stream => Count::StreamHeard,
        });
        let heard = self.heard.entry(key).or_default();
        // A task that waits to be tried again may take over an attempt of an earlier life, whose
        // updates then go on.
        let mut its = heard.iter().rev().filter(|(attempt, _)| *attempt == said.attempt);
        let is_next = match (its.next(), heard.last()) {
            (Some((_, numbers)), Some((latest, _))) => {
                let goes_on = *latest == said.attempt || latest.epoch != said.attempt.epoch;
                goes_on && numbers.last().is_none_or(|last| *last < said.sequence)
            }
            _ => true,
        };
        // What an earlier life of a broker told and did not acknowledge comes again from the next.
        let is_again = !is_next && !self.lives.contains_key(&said.attempt.epoch);
        if !is_next && !is_again {
            let before = heard.last();
            let text = format!("{key} hears {said:?} out of order, or again, after {before:?}");
            return self.fail(text);
        }
        if is_again || heard.last().is_none_or(|(attempt, _)| *attempt != said.attempt) {
            if !heard.is_empty() {
                world.counters.add(Count::HeardAgain);
            }
            heard.push((said.attempt, Vec::new()));
        }
        if let Some((_, numbers)) = heard.last_mut() {
            numbers.push(said.sequence);
        }
    }

    /// A request has ended by the handler of this attempt, in the words of the broker that sent it,
    /// to which it was handed in last. What it has not heard and should have.
    pub(super) fn unheard(&self, key: Key, attempt: AttemptId) -> Option<&'static str> {
        let streams = self.streams.get(&attempt)?;
        let heard = self.heard.get(&key).into_iter().flatten();
        let mut heard = heard.filter(|(of, _)| *of == attempt).flat_map(|(_, numbers)| numbers);
        let all = streams.iter().all(|sequence| heard.any(|it| it == sequence));
        (!all).then_some("its client has not heard all that it said")
    }
}
