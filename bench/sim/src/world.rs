//! What every part of the simulation shares: time, choices, links, counters and the story.

use std::collections::VecDeque;
use std::fmt;

use crate::clock::{Agenda, Wake};
use crate::counters::Counters;
use crate::net::Net;
use crate::random::{Random, mix};

/// Lines that are kept for the report of a failure.
const STORY_LINES: usize = 120;

/// What is told of a run.
#[derive(Debug)]
pub enum Story {
    /// Nothing.
    Silent,
    /// The last lines.
    Last(VecDeque<(u64, String)>),
    /// Every line.
    All(Vec<(u64, String)>),
    /// Every line, on stdout, at once.
    Print,
}

/// A moment of the story, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct At(pub u64);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}.{:06}", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000)
    }
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// True time, nanoseconds; machines have clocks of their own.
    pub now: u64,
    /// Every choice.
    pub random: Random,
    /// What is to happen.
    pub agenda: Agenda,
    /// Sockets and what is in flight between them.
    pub net: Net,
    /// What happened how often.
    pub counters: Counters,
    /// Told, where somebody listens.
    pub story: Story,
    /// The most that a loop takes to wake up, nanoseconds; 0 in scenarios.
    pub wake_max: u64,
    /// Everything that happened, in one number.
    pub digest: u64,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(seed: u64, story: Story) -> Self {
        Self {
            now: 0,
            random: Random::new(seed),
            agenda: Agenda::default(),
            net: Net::default(),
            counters: Counters::default(),
            story,
            wake_max: 50_000,
            digest: 0,
        }
    }

    /// Notes what is to happen after so long.
    pub fn after(&mut self, ns: u64, wake: Wake) {
        self.agenda.add(self.now.saturating_add(ns), wake);
    }

    /// Time that a loop takes to wake up.
    pub fn wake_time(&mut self) -> u64 {
        self.random.below(self.wake_max + 1)
    }

    /// Whether somebody listens to the story.
    #[inline]
    pub fn is_told(&self) -> bool {
        !matches!(self.story, Story::Silent)
    }

    /// Tells a line, if somebody listens.
    #[inline]
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        match &mut self.story {
            Story::Silent => {}
            Story::Last(lines) => {
                if lines.len() == STORY_LINES {
                    lines.pop_front();
                }
                lines.push_back((self.now, line()));
            }
            Story::All(lines) => lines.push((self.now, line())),
            Story::Print => println!("{} {}", At(self.now), line()),
        }
    }

    /// Makes a number part of the digest.
    #[inline]
    pub fn digest(&mut self, number: u64) {
        self.digest = mix(self.digest ^ number);
    }

    /// Makes bytes part of the digest.
    pub fn digest_bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut digest = self.digest;
        for word in words {
            digest = (digest ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            digest ^= digest >> 32;
        }
        for byte in rest {
            digest = (digest ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        self.digest = digest;
    }
}

/// When a loop wakes up next. What was planned before counts no more.
#[derive(Clone, Copy, Debug)]
pub struct Alarm {
    at: u64,
    number: u32,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { at: u64::MAX, number: 0 }
    }
}

impl Alarm {
    /// The number of the new plan, if that is earlier than what was planned.
    #[must_use]
    pub const fn bring_forward(&mut self, at: u64) -> Option<u32> {
        if at >= self.at {
            return None;
        }
        self.at = at;
        self.number = self.number.wrapping_add(1);
        Some(self.number)
    }

    /// Whether the plan of that number still stands; it is used up then.
    pub const fn rings(&mut self, number: u32) -> bool {
        let stands = number == self.number && self.at != u64::MAX;
        if stands {
            self.at = u64::MAX;
        }
        stands
    }

    /// Nothing is planned any more.
    pub const fn silence(&mut self) {
        self.at = u64::MAX;
    }
}
