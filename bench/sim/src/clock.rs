//! Virtual time: what happens next, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::net::{Direction, SocketId};
use crate::worker::WorkerId;
use pinmesh_session::supervision::Signal;

/// A microsecond, nanoseconds.
pub const US: u64 = 1_000;
/// A millisecond, nanoseconds.
pub const MS: u64 = 1_000_000;
/// A second, nanoseconds.
pub const S: u64 = 1_000_000_000;

/// What is to happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// The first message in flight on a socket arrives.
    Arrive(SocketId, Direction),
    /// A socket tries to connect.
    Connect(SocketId),
    /// A broker's loop turns.
    Broker(usize, u32),
    /// A broker sends what it has written.
    Flush(usize),
    /// A broker tries again to send to full peers.
    Retry(usize),
    /// A client's loop turns.
    Client(usize, u32),
    /// A supervisor's loop turns.
    Supervisor(usize, u32),
    /// A worker's loop turns.
    Worker(WorkerId, u32),
    /// A handler ends.
    Handler(WorkerId, u32),
    /// A signal of its supervisor reaches a worker.
    Signal(WorkerId, Signal),
    /// The caller of a client does something.
    Caller(usize, u32),
    /// The next fault of a class.
    Fault(usize),
    /// The end of a fault that was noted under that number.
    Heal(usize),
    /// A line of a scenario.
    Line,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    at: u64,
    /// Equal times are taken in the order of their making.
    number: u64,
    wake: Wake,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Everything that is to happen.
#[derive(Debug, Default)]
pub struct Agenda {
    entries: BinaryHeap<Reverse<Entry>>,
    number: u64,
}

impl Agenda {
    /// Notes what is to happen then.
    pub fn add(&mut self, at: u64, wake: Wake) {
        self.number += 1;
        self.entries.push(Reverse(Entry { at, number: self.number, wake }));
    }

    /// What comes next.
    pub fn pop(&mut self) -> Option<(u64, Wake)> {
        self.entries.pop().map(|Reverse(entry)| (entry.at, entry.wake))
    }

    /// When that is.
    pub fn next_at(&self) -> Option<u64> {
        self.entries.peek().map(|Reverse(entry)| entry.at)
    }
}
