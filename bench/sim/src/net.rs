//! Links. Inside one connection they are what ZMTP over TCP is: in order, and nothing is lost but
//! by a cut, which loses everything from some message on. What goes by several sockets overtakes
//! each other; a peer that was cut off comes back under another address, with what it had queued
//! first; the broker learns late or never that a peer is gone. So a single message is never
//! dropped, repeated or reordered here by itself: a cut loses a suffix, and the machines send
//! again what was not acknowledged.

mod breaks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pinmesh_core::Side;

use crate::clock::{Agenda, MS, Wake};
use crate::random::Random;
use crate::worker::WorkerId;

/// One socket of a peer, from its opening to its closing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SocketId(pub u32);

/// Which way a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// To the broker.
    Up,
    /// To the peer.
    Down,
}

/// Whose socket it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A client's.
    Client(usize),
    /// A supervisor's.
    Supervisor(usize),
    /// A worker's.
    Worker(WorkerId),
    /// Somebody's who keeps no rules.
    Rogue,
}

/// A machine with a clock and a network of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Machine {
    /// A client's.
    Client(usize),
    /// A host's.
    Host(usize),
    /// A worker's that has no supervisor.
    Loner(usize),
    /// The rogue's.
    Rogue,
}

/// What the broker's ROUTER calls a peer: another one after each reconnection.
pub type Address = (SocketId, u32);

/// What became of a message to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// On its way, which may be cut.
    Sent,
    /// There is no room.
    Full,
    /// There is no such address any more.
    Gone,
}

#[derive(Debug)]
struct Flight {
    at: u64,
    generation: u32,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Socket {
    owner: Owner,
    machine: Machine,
    broker: usize,
    side: Side,
    generation: u32,
    is_connected: bool,
    /// The peer has closed it, or is dead; what is on its way up still arrives.
    is_closed: bool,
    /// Of a connection that is cut: until then the broker does not know.
    blind_until: u64,
    stalled_until: u64,
    full_until: u64,
    latency: u64,
    up: VecDeque<Flight>,
    down: VecDeque<Flight>,
    /// Written while there was no connection.
    waiting: VecDeque<Vec<u8>>,
    /// Arrived and not read.
    inbox: VecDeque<Vec<u8>>,
}

/// Every socket.
#[derive(Debug, Default)]
pub struct Net {
    /// In the order of their opening; `None`: closed and nothing in flight.
    sockets: Vec<Option<Socket>>,
    /// Where nothing passes, and until when.
    partitions: BTreeMap<(Machine, usize), u64>,
    /// Least latency one way and what is added at most, nanoseconds.
    pub latency: (u64, u64),
    /// The longest that a cut connection takes to come back, nanoseconds.
    pub reconnect_max: u64,
    /// The longest that a broker does not know of a cut, nanoseconds.
    pub blind_max: u64,
    /// Who hears nothing of a broker, or is not heard by it, and until when.
    deaf: Vec<(Owner, usize, Direction, u64)>,
    down_brokers: BTreeSet<usize>,
    /// In a scenario: nothing is lost by chance, and all that is in flight when a link breaks.
    pub is_exact: bool,
}

/// A message that arrived at a broker.
#[derive(Debug)]
pub struct Arrival {
    /// Which broker.
    pub broker: usize,
    /// At which of its sockets.
    pub side: Side,
    /// From whom.
    pub owner: Owner,
    /// From where.
    pub from: Address,
    /// Its frame.
    pub bytes: Vec<u8>,
}

impl Net {
    /// A peer opens a socket, which connects as soon as it can.
    pub fn open(
        &mut self,
        (now, agenda, random): (u64, &mut Agenda, &mut Random),
        owner: Owner,
        machine: Machine,
        broker: usize,
    ) -> SocketId {
        let side = match owner {
            Owner::Client(_) => Side::Frontend,
            Owner::Supervisor(_) | Owner::Worker(_) | Owner::Rogue => Side::Backend,
        };
        let id = SocketId(self.sockets.len() as u32);
        let latency = self.latency.0 + random.below(self.latency.1 + 1);
        self.sockets.push(Some(Socket {
            owner,
            machine,
            broker,
            side,
            generation: 0,
            is_connected: false,
            is_closed: false,
            blind_until: 0,
            stalled_until: 0,
            full_until: 0,
            latency,
            up: VecDeque::new(),
            down: VecDeque::new(),
            waiting: VecDeque::new(),
            inbox: VecDeque::new(),
        }));
        agenda.add(now + 2 * latency, Wake::Connect(id));
        id
    }

    fn socket(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets.get_mut(id.0 as usize)?.as_mut()
    }

    /// The peer closes the socket. What it had sent still goes out, unless it had no connection.
    pub fn close(&mut self, id: SocketId) {
        let Some(socket) = self.socket(id) else { return };
        socket.is_closed = true;
        socket.is_connected = false;
        socket.inbox.clear();
        socket.down.clear();
        socket.waiting.clear();
        self.forget_if_over(id);
    }

    /// The peer's process is dead: part of what it had sent still arrives.
    pub fn kill(&mut self, id: SocketId, random: &mut Random) {
        let is_exact = self.is_exact;
        if let Some(socket) = self.socket(id).filter(|_| !is_exact) {
            let arrives = random.below(socket.up.len() as u64 + 1);
            socket.up.truncate(arrives as usize);
        }
        self.close(id);
    }

    fn forget_if_over(&mut self, id: SocketId) {
        if self.socket(id).is_some_and(|socket| socket.is_closed && socket.up.is_empty()) {
            self.sockets[id.0 as usize] = None;
        }
    }

    /// A peer sends.
    pub fn send_up(&mut self, now: u64, agenda: &mut Agenda, id: SocketId, bytes: Vec<u8>) {
        let Some(socket) = self.socket(id) else { return };
        if socket.is_closed || bytes.is_empty() {
            return;
        }
        if !socket.is_connected {
            socket.waiting.push_back(bytes);
            return;
        }
        let (owner, broker) = (socket.owner, socket.broker);
        let deaf_until = self.deaf_until(owner, broker, Direction::Up);
        let Some(socket) = self.socket(id) else { return };
        let last = socket.up.back().map_or(0, |flight| flight.at);
        let at = (now + socket.latency).max(socket.stalled_until).max(last).max(deaf_until);
        let generation = socket.generation;
        socket.up.push_back(Flight { at, generation, bytes });
        agenda.add(at, Wake::Arrive(id, Direction::Up));
    }

    /// A broker sends. The bytes are taken unless there is no room.
    pub fn send_down(
        &mut self,
        now: u64,
        agenda: &mut Agenda,
        (id, generation): Address,
        bytes: &mut Vec<u8>,
    ) -> Outcome {
        let Some(socket) = self.socket(id) else { return Outcome::Gone };
        if socket.generation != generation || !socket.is_connected {
            if now >= socket.blind_until {
                return Outcome::Gone;
            }
            bytes.clear();
            return Outcome::Sent;
        }
        if socket.full_until > now {
            return Outcome::Full;
        }
        let (owner, broker) = (socket.owner, socket.broker);
        let deaf_until = self.deaf_until(owner, broker, Direction::Down);
        let Some(socket) = self.socket(id) else { return Outcome::Gone };
        let last = socket.down.back().map_or(0, |flight| flight.at);
        let at = (now + socket.latency).max(socket.stalled_until).max(last).max(deaf_until);
        socket.down.push_back(Flight { at, generation, bytes: std::mem::take(bytes) });
        agenda.add(at, Wake::Arrive(id, Direction::Down));
        Outcome::Sent
    }

    /// The first message on its way to the broker, if it is there by now.
    pub fn arrive_up(&mut self, now: u64, id: SocketId) -> Option<Arrival> {
        let socket = self.socket(id)?;
        let flight = pop_due(&mut socket.up, now)?;
        let (broker, side, owner) = (socket.broker, socket.side, socket.owner);
        self.forget_if_over(id);
        if self.down_brokers.contains(&broker) {
            return None;
        }
        Some(Arrival { broker, side, owner, from: (id, flight.generation), bytes: flight.bytes })
    }

    /// The first message on its way to the peer, if it is there by now: its owner can read it.
    pub fn arrive_down(&mut self, now: u64, id: SocketId) -> Option<Owner> {
        let socket = self.socket(id)?;
        let flight = pop_due(&mut socket.down, now)?;
        socket.inbox.push_back(flight.bytes);
        Some(socket.owner)
    }

    /// The peer reads a message.
    pub fn read(&mut self, id: SocketId) -> Option<Vec<u8>> {
        self.socket(id)?.inbox.pop_front()
    }

    /// Whether there is something to read.
    pub fn has_mail(&self, id: SocketId) -> bool {
        self.sockets
            .get(id.0 as usize)
            .and_then(Option::as_ref)
            .is_some_and(|s| !s.inbox.is_empty())
    }

    /// A socket tries to connect; it tries again while nothing passes. Returns whether it did.
    pub fn connect(&mut self, (now, agenda): (u64, &mut Agenda), id: SocketId) -> bool {
        let Some(socket) = self.sockets.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return false;
        };
        if socket.is_connected || socket.is_closed {
            return false;
        }
        let partition = self.partitions.get(&(socket.machine, socket.broker)).copied().unwrap_or(0);
        if partition > now || self.down_brokers.contains(&socket.broker) {
            agenda.add(partition.max(now + 100 * MS), Wake::Connect(id));
            return false;
        }
        socket.is_connected = true;
        socket.generation += 1;
        let waiting = std::mem::take(&mut socket.waiting);
        for bytes in waiting {
            self.send_up(now, agenda, id, bytes);
        }
        true
    }

    /// The message that is about to arrive, with its peer and its broker.
    pub fn peek(
        &self,
        now: u64,
        id: SocketId,
        direction: Direction,
    ) -> Option<(Owner, usize, &[u8])> {
        let socket = self.sockets.get(id.0 as usize)?.as_ref()?;
        let flights = match direction {
            Direction::Up => &socket.up,
            Direction::Down => &socket.down,
        };
        let flight = flights.front().filter(|flight| flight.at <= now)?;
        Some((socket.owner, socket.broker, &flight.bytes))
    }

    fn deaf_until(&self, owner: Owner, broker: usize, direction: Direction) -> u64 {
        let entries = self
            .deaf
            .iter()
            .filter(|entry| (entry.0, entry.1, entry.2) == (owner, broker, direction));
        entries.map(|entry| entry.3).max().unwrap_or(0)
    }

    /// Open sockets that fit, oldest first.
    pub fn sockets_where(&self, fits: impl Fn(usize, Machine) -> bool) -> Vec<SocketId> {
        let open = self.sockets.iter().enumerate().filter_map(|(id, socket)| {
            let socket = socket.as_ref()?;
            fits(socket.broker, socket.machine).then_some(SocketId(id as u32))
        });
        open.collect()
    }

    /// Open sockets of a peer to a broker.
    pub fn sockets_of(&self, owner: Owner, broker: usize) -> Vec<SocketId> {
        let ids = (0..self.sockets.len() as u32).map(SocketId);
        ids.filter(|id| self.owner(*id) == Some(owner) && self.broker(*id) == Some(broker))
            .collect()
    }

    /// What its broker calls a socket now.
    pub fn address(&self, id: SocketId) -> Option<Address> {
        let socket = self.sockets.get(id.0 as usize)?.as_ref()?;
        socket.is_connected.then_some((id, socket.generation))
    }

    /// Which broker a socket is for.
    pub fn broker(&self, id: SocketId) -> Option<usize> {
        Some(self.sockets.get(id.0 as usize)?.as_ref()?.broker)
    }

    /// Whose socket it is; `None` once it is closed.
    pub fn owner(&self, id: SocketId) -> Option<Owner> {
        let socket = self.sockets.get(id.0 as usize)?.as_ref()?;
        (!socket.is_closed).then_some(socket.owner)
    }
}

fn pop_due(flights: &mut VecDeque<Flight>, now: u64) -> Option<Flight> {
    if flights.front()?.at > now { None } else { flights.pop_front() }
}
