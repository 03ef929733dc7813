//! What went through the shell and what it dropped.

use std::fmt;

use pinmesh_protocol::status::RefusedCode;

/// Messages, commands and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// ZeroMQ messages.
    pub messages: u64,
    /// Commands in them.
    pub commands: u64,
    /// Bytes of all their frames.
    pub bytes: u64,
}

/// Counts since the broker's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received.
    pub inbound: Traffic,
    /// Sent.
    pub outbound: Traffic,
    /// TASKs sent.
    pub tasks: u64,
    /// Messages with a TASK in them.
    pub task_messages: u64,
    /// Messages that were refused, by [`RefusedCode`] as it is on the wire.
    pub malformed: [u64; RefusedCode::ALL.len() + 1],
    /// Bytes of messages that were not read to their end.
    pub discarded_bytes: u64,
    /// Commands of an op that may be ignored, and was.
    pub ignored: u64,
    /// Messages from a peer that chose its own routing id: there is no way to answer it.
    pub foreign: u64,
    /// NO_SESSION and REFUSED sent to peers without a session.
    pub strangers_answered: u64,
    /// Those held back by their rate limit, and peers that there was no room for.
    pub strangers_suppressed: u64,
    /// Times that a peer's queue was full.
    pub full: u64,
    /// Peers that were gone when something was to be sent.
    pub gone: u64,
    /// Messages given up: their peer was gone, closed or too far behind.
    pub unsendable: u64,
    /// Bodies for which the pool had no box.
    pub pool_misses: u64,
    /// Turns of the event loop.
    pub turns: u64,
}

impl Counters {
    pub(crate) fn on_malformed(&mut self, code: RefusedCode) {
        if let Some(count) = self.malformed.get_mut(usize::from(code.to_wire())) {
            *count += 1;
        }
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Traffic { messages, commands, bytes } = self.inbound;
        write!(f, "in {messages} messages {commands} commands {bytes} bytes, ")?;
        let Traffic { messages, commands, bytes } = self.outbound;
        write!(f, "out {messages} messages {commands} commands {bytes} bytes, ")?;
        let per_message = self.tasks as f64 / self.task_messages.max(1) as f64;
        let Self { tasks, task_messages, turns, .. } = self;
        write!(f, "{tasks} tasks in {task_messages} messages ({per_message:.1} a message), ")?;
        write!(f, "{turns} turns")?;
        for code in RefusedCode::ALL {
            let count = self.malformed[usize::from(code.to_wire())];
            if count > 0 {
                write!(f, ", refused {count} ({code})")?;
            }
        }
        let rest = [
            ("discarded bytes", self.discarded_bytes),
            ("ignored", self.ignored),
            ("foreign routing ids", self.foreign),
            ("strangers answered", self.strangers_answered),
            ("strangers suppressed", self.strangers_suppressed),
            ("full", self.full),
            ("gone", self.gone),
            ("unsendable", self.unsendable),
            ("pool misses", self.pool_misses),
        ];
        rest.iter()
            .filter(|(_, count)| *count > 0)
            .try_for_each(|(name, count)| write!(f, ", {name} {count}"))
    }
}
