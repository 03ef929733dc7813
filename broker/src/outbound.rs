//! Effects of the machine, encoded straight into the batch of the peer that they go to.

mod encode;

use std::collections::VecDeque;

use pinmesh_core::{Conn, Event, Outbox as _, Side, Span, Time};
use pinmesh_protocol::command::FromBroker;
use pinmesh_transport::{Router, RoutingId, SendOutcome, TransportError};

use crate::body::Body;
use crate::bucket::Bucket;
use crate::connections::{Batch, Connection, Connections};
use crate::counters::Counters;
use crate::stages::Stages;

/// Connections beyond the machine's sessions: those that have none and are answered so.
const STRANGERS_MAX: usize = 4_096;
/// Bytes kept for a peer that is full; one batch is always kept. Past it the peer is given up.
const QUEUE_BYTES_MAX: u64 = 16 << 20;
/// Batches that wait for use, with the room that they have grown to.
const SPARE_MAX: usize = 64;
/// Pauses between attempts to send to peers that are full. Writability is no help: libzmq says so
/// while any other peer has room.
const RETRY_MIN: Span = Span::from_millis(1);
const RETRY_MAX: Span = Span::from_millis(50);
/// NO_SESSION and REFUSED to peers without a session, a second and at once.
const STRANGERS_PER_S: u32 = 10_000;

/// What the shell has to tell the machine about a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    Full(Conn),
    Sendable(Conn),
    Gone(Conn),
}

impl Notice {
    pub(crate) fn conn(self) -> Conn {
        match self {
            Self::Full(conn) | Self::Sendable(conn) | Self::Gone(conn) => conn,
        }
    }

    pub(crate) fn event<'a>(self) -> Event<'a, Body> {
        match self {
            Self::Full(conn) => Event::Full(conn),
            Self::Sendable(conn) => Event::Sendable(conn),
            Self::Gone(conn) => Event::Gone(conn),
        }
    }
}

/// The two sockets.
pub(crate) struct Sockets {
    pub(crate) frontend: Router,
    pub(crate) backend: Router,
}

impl Sockets {
    #[inline]
    pub(crate) fn of(&mut self, side: Side) -> &mut Router {
        match side {
            Side::Frontend => &mut self.frontend,
            Side::Backend => &mut self.backend,
        }
    }
}

/// See the module. Owns the sockets, because a full batch is sent in the middle of a turn.
pub(crate) struct Outbound {
    pub(crate) sockets: Sockets,
    pub(crate) connections: Connections,
    pub(crate) counters: Counters,
    pub(crate) stages: Stages,
    /// The time of the event that is being handled.
    pub(crate) now: Time,
    dirty: Vec<Conn>,
    spare: Vec<Batch>,
    notices: VecDeque<Notice>,
    /// Peers that are full.
    waiting: Vec<Conn>,
    retry_at: Time,
    retry_pause: Span,
    strangers: Bucket,
    failure: Option<TransportError>,
}

impl Outbound {
    pub(crate) fn new(sockets: Sockets, sessions_max: u32, stages: Stages) -> Self {
        Self {
            sockets,
            connections: Connections::new(sessions_max as usize + STRANGERS_MAX),
            counters: Counters::default(),
            stages,
            now: Time(0),
            dirty: Vec::new(),
            spare: Vec::new(),
            notices: VecDeque::new(),
            waiting: Vec::new(),
            retry_at: Time::NEVER,
            retry_pause: RETRY_MIN,
            strangers: Bucket::new(STRANGERS_PER_S),
            failure: None,
        }
    }

    /// What the machine has to be told next.
    pub(crate) fn take_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When to try again to send to peers that are full.
    pub(crate) fn next_retry(&self) -> Time {
        self.retry_at
    }

    /// Sends what every dirty peer has, as one message each, and forgets those that are closed.
    ///
    /// # Errors
    /// A socket that is broken, now or when a full batch was sent.
    pub(crate) fn flush(&mut self) -> Result<(), TransportError> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            self.send_batch(conn);
            let Some(connection) = self.connections.get_mut(conn) else { continue };
            connection.is_dirty = false;
            let batch = std::mem::take(&mut connection.batch);
            if self.spare.len() < SPARE_MAX {
                self.spare.push(batch);
            }
            if connection.is_closing {
                self.forget(conn);
            }
        }
        self.dirty = dirty;
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Tries again to send to the peers that are full, if it is time.
    pub(crate) fn retry(&mut self, now: Time) {
        if now < self.retry_at {
            return;
        }
        let mut has_moved = false;
        let waiting = std::mem::take(&mut self.waiting);
        for conn in waiting {
            match self.send_queue(conn) {
                SendOutcome::Sent => {
                    has_moved = true;
                    self.notices.push_back(Notice::Sendable(conn));
                }
                SendOutcome::Full => self.waiting.push(conn),
                SendOutcome::Gone => self.give_up(conn),
            }
        }
        let pause = if has_moved { RETRY_MIN.0 } else { self.retry_pause.0 * 2 };
        self.retry_pause = Span(pause.min(RETRY_MAX.0));
        self.retry_at =
            if self.waiting.is_empty() { Time::NEVER } else { now.after(self.retry_pause) };
    }

    /// Sends GOODBYE to everyone who has a session.
    pub(crate) fn goodbye(&mut self) {
        for conn in self.connections.with_session() {
            self.send(conn, FromBroker::Goodbye);
        }
    }

    /// A peer without a session that has been dealt with: answered if need be, then forgotten.
    pub(crate) fn forget_when_flushed(&mut self, conn: Conn) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        connection.is_closing = true;
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(conn);
        }
    }

    /// Nothing reminds of this peer afterwards, so its number may be used again.
    pub(crate) fn forget(&mut self, conn: Conn) {
        let Some(connection) = self.connections.remove(conn) else { return };
        self.counters.unsendable += connection.queue.len() as u64;
        self.notices.retain(|notice| notice.conn() != conn);
        self.waiting.retain(|waiting| *waiting != conn);
        if connection.is_dirty {
            self.dirty.retain(|dirty| *dirty != conn);
        }
    }

    /// The peer, with room in its batch for one more command.
    #[inline]
    fn room(&mut self, to: Conn) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(to)?;
        if connection.is_dirty {
            if connection.batch.is_full() {
                self.send_batch(to);
            }
        } else {
            connection.is_dirty = true;
            self.dirty.push(to);
            if let Some(batch) = self.spare.pop() {
                connection.batch = batch;
            }
        }
        self.connections.get_mut(to)
    }

    /// Whether a stranger may be answered: that has a rate, and past it there is silence.
    fn may_answer(&mut self, to: Conn, command: &FromBroker<'_>) -> bool {
        let is_to_a_stranger = match command {
            FromBroker::NoSession => true,
            FromBroker::Refused(_) => !self.connections.get(to).is_some_and(|c| c.has_session),
            _ => false,
        };
        if !is_to_a_stranger {
            return true;
        }
        let may_answer = self.strangers.take(self.now);
        let counters = &mut self.counters;
        match may_answer {
            true => counters.strangers_answered += 1,
            false => counters.strangers_suppressed += 1,
        }
        may_answer
    }

    /// Sends or queues a peer's batch, which is empty afterwards.
    fn send_batch(&mut self, conn: Conn) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.batch.is_empty() {
            return;
        }
        if std::mem::take(&mut connection.has_task) {
            self.counters.task_messages += 1;
        }
        if connection.is_gone {
            connection.batch.clear();
            self.counters.unsendable += 1;
            return;
        }
        let outcome = if connection.queue.is_empty() {
            let socket = self.sockets.of(connection.side);
            send(socket, connection.address, &mut connection.batch, &mut self.counters)
        } else {
            Ok(SendOutcome::Full)
        };
        match outcome {
            Ok(SendOutcome::Sent) => {}
            Ok(SendOutcome::Full) => self.queue_batch(conn),
            Ok(SendOutcome::Gone) => self.give_up(conn),
            Err(error) => self.fail(conn, error),
        }
    }

    #[cold]
    fn queue_batch(&mut self, conn: Conn) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let mut batch = std::mem::take(&mut connection.batch);
        let is_first = connection.queue.is_empty();
        connection.queue_bytes += bytes_of(&mut batch);
        connection.queue.push_back(batch);
        if connection.queue_bytes > QUEUE_BYTES_MAX && !is_first {
            self.give_up(conn);
        } else if is_first {
            self.counters.full += 1;
            self.waiting.push(conn);
            self.notices.push_back(Notice::Full(conn));
            self.retry_pause = RETRY_MIN;
            self.retry_at = self.retry_at.min(self.now.after(RETRY_MIN));
        }
    }

    /// Sends what a full peer has in its queue, as far as it goes.
    fn send_queue(&mut self, conn: Conn) -> SendOutcome {
        let Some(connection) = self.connections.get_mut(conn) else { return SendOutcome::Gone };
        while let Some(batch) = connection.queue.front_mut() {
            let bytes = bytes_of(batch);
            let socket = self.sockets.of(connection.side);
            match send(socket, connection.address, batch, &mut self.counters) {
                Ok(SendOutcome::Sent) => {
                    connection.queue.pop_front();
                    connection.queue_bytes -= bytes;
                }
                Ok(outcome) => return outcome,
                Err(error) => {
                    self.failure.get_or_insert(error);
                    return SendOutcome::Gone;
                }
            }
        }
        SendOutcome::Sent
    }

    /// Nothing more goes to this peer; the machine hears of it.
    #[cold]
    fn give_up(&mut self, conn: Conn) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.is_gone {
            return;
        }
        connection.is_gone = true;
        let dropped = connection.queue.len() + usize::from(!connection.batch.is_empty());
        connection.queue.clear();
        connection.queue_bytes = 0;
        connection.batch.clear();
        self.counters.gone += 1;
        self.counters.unsendable += dropped as u64;
        self.waiting.retain(|waiting| *waiting != conn);
        self.notices.retain(|notice| notice.conn() != conn);
        self.notices.push_back(Notice::Gone(conn));
    }

    #[cold]
    fn fail(&mut self, conn: Conn, error: TransportError) {
        self.failure.get_or_insert(error);
        self.give_up(conn);
    }
}

/// Sends a batch as one message and clears it if it went.
fn send(
    socket: &mut Router,
    to: RoutingId,
    batch: &mut Batch,
    counters: &mut Counters,
) -> Result<SendOutcome, TransportError> {
    let mut attachments = std::mem::take(batch.attachments_mut());
    let bytes = batch.len() + attachments.iter().map(|frame| frame.len()).sum::<usize>();
    let outcome = socket.send(to, batch.bytes(), &mut attachments);
    *batch.attachments_mut() = attachments;
    if let Ok(SendOutcome::Sent) = outcome {
        counters.outbound.messages += 1;
        counters.outbound.commands += u64::from(batch.commands());
        counters.outbound.bytes += bytes as u64;
        batch.clear();
    }
    outcome
}

fn bytes_of(batch: &mut Batch) -> u64 {
    let attachments: usize = batch.attachments_mut().iter().map(|frame| frame.len()).sum();
    (batch.len() + attachments) as u64
}

#[cfg(test)]
mod tests;
