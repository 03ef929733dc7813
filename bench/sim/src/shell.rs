//! What the broker's own shell does around its machine: numbers for addresses, a batch for each
//! peer, peers that are full or gone. Here each peer's batch goes to a virtual link.

use std::collections::{BTreeMap, VecDeque};

use pinmesh_core::{Conn, Outbox, ProgressHead, ResultBody, ResultHead, Side, TaskHead};
use pinmesh_protocol::codec::{write_ack, write_from_broker, write_result, write_task};
use pinmesh_protocol::command::{
    ClientProgress, FromBroker, Payload, ServiceRef, StageTimes, Task, TaskResult,
};
use pinmesh_protocol::id::ContentType;
use pinmesh_protocol::limits::BATCH_BYTES;

use crate::clock::{MS, Wake};
use crate::counters::Count;
use crate::net::{Address, Arrival, Outcome, Owner};
use crate::record::Body;
use crate::world::World;

/// Bytes that are queued for a full peer before it is given up.
const QUEUE_BYTES_MAX: usize = 64 * 1024;
/// How often sending to full peers is tried again, nanoseconds.
const RETRY: u64 = 5 * MS;

/// What the machine is to be told about a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Its batch could not be sent.
    Full(Conn),
    /// It has gone out after all.
    Sendable(Conn),
    /// Nothing can be sent to it any more.
    Gone(Conn),
}

impl Notice {
    const fn conn(self) -> Conn {
        match self {
            Self::Full(conn) | Self::Sendable(conn) | Self::Gone(conn) => conn,
        }
    }
}

#[derive(Debug)]
struct Connection {
    address: Address,
    owner: Owner,
    side: Side,
    /// Written in this turn; the last one is being written.
    batches: VecDeque<Vec<u8>>,
    /// Did not go out.
    queue: VecDeque<Vec<u8>>,
    has_session: bool,
    is_dirty: bool,
    is_closing: bool,
    is_gone: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Shell {
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    by_address: BTreeMap<Address, u32>,
    dirty: Vec<Conn>,
    waiting: Vec<Conn>,
    notices: VecDeque<Notice>,
}

impl Shell {
    /// The number of a peer, a new one if it has none.
    pub fn conn_of(&mut self, arrival: &Arrival) -> Conn {
        if let Some(number) = self.by_address.get(&arrival.from) {
            return Conn(*number);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() as u32 - 1
        });
        self.connections[number as usize] = Some(Connection {
            address: arrival.from,
            owner: arrival.owner,
            side: arrival.side,
            batches: VecDeque::new(),
            queue: VecDeque::new(),
            has_session: false,
            is_dirty: false,
            is_closing: false,
            is_gone: false,
        });
        self.by_address.insert(arrival.from, number);
        Conn(number)
    }

    fn get_mut(&mut self, conn: Conn) -> Option<&mut Connection> {
        self.connections.get_mut(conn.0 as usize)?.as_mut()
    }

    fn get(&self, conn: Conn) -> Option<&Connection> {
        self.connections.get(conn.0 as usize)?.as_ref()
    }

    /// Whose it is.
    pub fn owner(&self, conn: Conn) -> Option<Owner> {
        self.get(conn).map(|connection| connection.owner)
    }

    /// Which of the two sockets it speaks to.
    pub fn side(&self, conn: Conn) -> Side {
        self.get(conn).map_or(Side::Frontend, |connection| connection.side)
    }

    /// Whether the machine has a session with it.
    pub fn has_session(&self, conn: Conn) -> bool {
        self.get(conn).is_some_and(|connection| connection.has_session)
    }

    /// Whether something waits to be sent.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.notices.is_empty()
    }

    /// What the machine has to be told next. After [`Notice::Gone`] the peer is to be forgotten.
    pub fn take_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Sends GOODBYE to everyone who has a session.
    pub fn say_goodbye(&mut self) {
        for number in 0..self.connections.len() as u32 {
            if self.has_session(Conn(number)) {
                Outbox::send(self, Conn(number), FromBroker::Goodbye);
            }
        }
    }

    /// A peer without a session that has been dealt with: answered if need be, then forgotten.
    pub fn forget_when_flushed(&mut self, conn: Conn) {
        if let Some(connection) = self.get_mut(conn) {
            connection.is_closing = true;
            self.make_dirty(conn);
        }
    }

    /// Nothing reminds of this peer afterwards, so its number may be used again.
    pub fn forget(&mut self, conn: Conn) {
        let Some(connection) = self.connections[conn.0 as usize].take() else { return };
        self.by_address.remove(&connection.address);
        self.free.push(conn.0);
        self.notices.retain(|notice| notice.conn() != conn);
        self.waiting.retain(|waiting| *waiting != conn);
        self.dirty.retain(|dirty| *dirty != conn);
    }

    fn make_dirty(&mut self, conn: Conn) {
        let Some(connection) = self.get_mut(conn) else { return };
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(conn);
        }
    }

    /// Where the next command for a peer is written.
    fn batch(&mut self, conn: Conn) -> Option<&mut Vec<u8>> {
        self.make_dirty(conn);
        let connection = self.get_mut(conn)?;
        if connection.batches.back().is_none_or(|batch| batch.len() >= BATCH_BYTES) {
            connection.batches.push_back(Vec::new());
        }
        connection.batches.back_mut()
    }

    /// Sends what every peer has, and forgets those that are closed.
    pub fn flush(&mut self, world: &mut World, broker: usize) {
        for conn in std::mem::take(&mut self.dirty) {
            let Some(connection) = self.get_mut(conn) else { continue };
            connection.is_dirty = false;
            let batches = std::mem::take(&mut connection.batches);
            for batch in batches {
                self.send_batch(world, broker, conn, batch);
            }
            if self.get(conn).is_some_and(|connection| connection.is_closing) {
                self.forget(conn);
            }
        }
    }

    fn send_batch(&mut self, world: &mut World, broker: usize, conn: Conn, mut batch: Vec<u8>) {
        let Some(connection) = self.get_mut(conn) else { return };
        if connection.is_gone {
            return;
        }
        let outcome = if connection.queue.is_empty() {
            let World { now, agenda, net, .. } = world;
            net.send_down(*now, agenda, connection.address, &mut batch)
        } else {
            Outcome::Full
        };
        match outcome {
            Outcome::Sent => {}
            Outcome::Gone => self.give_up(world, conn),
            Outcome::Full => {
                let is_first = connection.queue.is_empty();
                connection.queue.push_back(batch);
                let bytes: usize = connection.queue.iter().map(Vec::len).sum();
                if bytes > QUEUE_BYTES_MAX && !is_first {
                    self.give_up(world, conn);
                } else if is_first {
                    self.waiting.push(conn);
                    self.notices.push_back(Notice::Full(conn));
                    world.after(RETRY, Wake::Retry(broker));
                }
            }
        }
    }

    /// Tries again to send to the peers that are full.
    pub fn retry(&mut self, world: &mut World, broker: usize) {
        for conn in std::mem::take(&mut self.waiting) {
            match self.send_queue(world, conn) {
                Outcome::Sent => self.notices.push_back(Notice::Sendable(conn)),
                Outcome::Full => self.waiting.push(conn),
                Outcome::Gone => self.give_up(world, conn),
            }
        }
        if !self.waiting.is_empty() {
            world.after(RETRY, Wake::Retry(broker));
        }
    }

    fn send_queue(&mut self, world: &mut World, conn: Conn) -> Outcome {
        let Some(connection) = self.get_mut(conn) else { return Outcome::Gone };
        while let Some(batch) = connection.queue.front_mut() {
            let World { now, agenda, net, .. } = &mut *world;
            match net.send_down(*now, agenda, connection.address, batch) {
                Outcome::Sent => {
                    connection.queue.pop_front();
                }
                outcome @ (Outcome::Full | Outcome::Gone) => return outcome,
            }
        }
        Outcome::Sent
    }

    fn give_up(&mut self, world: &mut World, conn: Conn) {
        let Some(connection) = self.get_mut(conn) else { return };
        if std::mem::replace(&mut connection.is_gone, true) {
            return;
        }
        connection.queue.clear();
        connection.batches.clear();
        world.counters.add(Count::PeerGone);
        self.waiting.retain(|waiting| *waiting != conn);
        self.notices.retain(|notice| notice.conn() != conn);
        self.notices.push_back(Notice::Gone(conn));
    }
}

impl Outbox<Body> for Shell {
    fn task(&mut self, to: Conn, head: &TaskHead, body: &Body) {
        let Some(batch) = self.batch(to) else { return };
        let task = Task {
            task: head.task,
            dispatch: head.dispatch,
            client_id: head.client_id,
            request_id: head.request_id,
            submission: head.submission,
            service: ServiceRef::Alias(head.service_alias),
            tries: head.tries,
            deadline_ns: head.deadline_ns,
            max_runtime_ns: head.max_runtime_ns,
            content_type: body.content_type,
            options: body.options.as_deref(),
            payload: Payload::Inline(&body.payload),
        };
        write_task(batch, &task);
    }

    fn result(&mut self, to: Conn, head: &ResultHead, body: ResultBody<'_, Body>) {
        let Some(batch) = self.batch(to) else { return };
        let (content_type, payload) = match body {
            ResultBody::Handler(body) => (body.content_type, Payload::Inline(&body.payload)),
            ResultBody::Text(text) => (ContentType::TEXT, Payload::Inline(text.as_bytes())),
        };
        let result = TaskResult {
            request_id: head.request_id,
            submission: head.submission,
            status: head.status,
            tries: head.tries,
            stages: head.stages,
            content_type,
            payload,
            retry_after_ns: head.retry_after_ns,
        };
        write_result(batch, &result);
    }

    fn progress(&mut self, to: Conn, head: &ProgressHead, body: &Body) {
        let Some(batch) = self.batch(to) else { return };
        let progress = ClientProgress {
            request_id: head.request_id,
            submission: head.submission,
            task: head.task,
            dispatch: head.dispatch,
            sequence: head.sequence,
            kind: head.kind,
            content_type: body.content_type,
            payload: Payload::Inline(&body.payload),
        };
        write_from_broker(batch, &FromBroker::Progress(progress));
    }

    fn send(&mut self, to: Conn, command: FromBroker<'_>) {
        if let FromBroker::Welcome(_) = command
            && let Some(connection) = self.get_mut(to)
        {
            connection.has_session = true;
            connection.is_closing = false;
        }
        let Some(batch) = self.batch(to) else { return };
        match command {
            FromBroker::Ack(taken) => write_ack(batch, taken),
            _ => write_from_broker(batch, &command),
        }
    }

    fn close(&mut self, conn: Conn) {
        if let Some(connection) = self.get_mut(conn) {
            connection.has_session = false;
        }
        self.forget_when_flushed(conn);
    }

    fn stages(&mut self, _: &StageTimes) {}
}
