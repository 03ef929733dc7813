//! The results of an open loop: taken, checked and recorded by a thread of their own.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use pinmesh_client::{Completions, RawOutcome};

use crate::{
    generator::Shared,
    payload::Payload,
    record::Record,
    timeline::{Schedule, Timeline},
};

/// How often the results are taken. Each carries the moment at which it came, so this delays none.
const TAKE_EVERY: Duration = Duration::from_millis(1);
/// How long the tasks that are outstanding at the end may take.
const LAST_RESULTS_TIME: Duration = Duration::from_secs(30);

/// The results of a run.
#[derive(Debug)]
pub(crate) struct Taken {
    /// How tasks ended.
    pub(crate) record: Record,
    /// Their times.
    pub(crate) timeline: Timeline,
    /// Sends that were made, in the whole run.
    pub(crate) sent: u64,
}

/// What a task's end is told with: its number in the plan, and how late it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) number: u64,
    pub(crate) lag_ns: u64,
}

impl Token {
    /// A plan has at most 50 million sends.
    const NUMBER_BITS: u32 = 28;
    /// 68 s: longer ones are taken as that, above what histograms tell apart.
    const LAG_MAX_NS: u64 = u64::MAX >> Self::NUMBER_BITS;

    /// As the queue carries it.
    pub(crate) fn pack(self) -> u64 {
        (self.lag_ns.min(Self::LAG_MAX_NS) << Self::NUMBER_BITS) | self.number
    }

    fn unpack(token: u64) -> Self {
        let number = token & ((1 << Self::NUMBER_BITS) - 1);
        Self { number, lag_ns: token >> Self::NUMBER_BITS }
    }
}

/// The thread that takes them.
#[derive(Debug)]
pub(crate) struct Taking {
    record: Record,
    timeline: Timeline,
    schedule: Arc<Schedule>,
    payload: Payload,
    shared: Arc<Shared>,
    queue: Completions,
}

impl Taking {
    /// Before the first result.
    pub(crate) fn new(
        schedule: Arc<Schedule>,
        payload: Payload,
        shared: Arc<Shared>,
        queue: Completions,
    ) -> Self {
        let timeline = Timeline::new(&schedule);
        Self { record: Record::new(), timeline, schedule, payload, shared, queue }
    }

    /// Until everything that was sent has ended, or half a minute after the last send.
    pub(crate) fn run(mut self) -> Taken {
        let mut ends: Vec<(u64, RawOutcome)> = Vec::new();
        let mut give_up: Option<Instant> = None;
        let mut ended = 0;
        loop {
            // Before the results are taken: then none of a task that is counted here is missed.
            let has_sent = self.shared.sender.has_ended.load(Ordering::Acquire);
            ended += self.queue.drain(&mut ends) as u64;
            for (token, outcome) in ends.drain(..) {
                self.take(Token::unpack(token), outcome);
            }
            self.shared.taker.ended.store(ended, Ordering::Release);
            if has_sent {
                let sent = self.shared.sender.sent.load(Ordering::Relaxed);
                let outstanding = sent.saturating_sub(ended);
                let until = *give_up.get_or_insert_with(|| Instant::now() + LAST_RESULTS_TIME);
                if outstanding == 0 || Instant::now() >= until {
                    self.record.lost = outstanding;
                    return Taken { record: self.record, timeline: self.timeline, sent };
                }
            }
            thread::sleep(TAKE_EVERY);
        }
    }

    fn take(&mut self, Token { number, lag_ns }: Token, outcome: RawOutcome) {
        let reply = match outcome {
            Ok(reply) => reply,
            Err(error) => return self.record.failure(&error),
        };
        if !self.payload.is_answered_by(&reply.value, number) {
            self.record.wrong += 1;
            return;
        }
        self.record.succeeded += 1;
        self.record.retries += u64::from(reply.tries);
        let round_trip_ns = u64::try_from(reply.response.as_nanos()).unwrap_or(u64::MAX);
        let stages = reply.stages.as_ref();
        self.timeline.record(&self.schedule, number as usize, lag_ns, round_trip_ns, stages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_the_number_and_the_lag() {
        for (number, lag_ns) in [(0, 0), (49_999_999, 60_000_000_000), (1, Token::LAG_MAX_NS)] {
            let token = Token { number, lag_ns };
            assert_eq!(Token::unpack(token.pack()), token);
        }
        let late = Token { number: 7, lag_ns: u64::MAX };
        let kept = Token { number: 7, lag_ns: Token::LAG_MAX_NS };
        assert_eq!(Token::unpack(late.pack()), kept);
    }
}
