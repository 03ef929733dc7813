//! What goes wrong with links, and its end.

use super::{Direction, Machine, Net, Owner, SocketId};
use crate::clock::{Agenda, MS, Wake};
use crate::random::Random;

/// How soon a connection that broke is tried again, in a scenario.
const RECONNECT: u64 = 10 * MS;

impl Net {
    /// The connection breaks: everything from some message on is lost, both ways. The socket
    /// connects again by itself.
    pub fn cut(&mut self, (now, agenda, random): (u64, &mut Agenda, &mut Random), id: SocketId) {
        if self.is_exact {
            return self.sever((now, agenda), id, now);
        }
        let (reconnect_max, blind_max) = (self.reconnect_max, self.blind_max);
        let Some(socket) = self.socket(id) else { return };
        if !socket.is_connected {
            return;
        }
        socket.is_connected = false;
        socket.up.truncate(random.below(socket.up.len() as u64 + 1) as usize);
        socket.down.truncate(random.below(socket.down.len() as u64 + 1) as usize);
        socket.blind_until = if random.one_in(2) { now } else { now + random.below(blind_max + 1) };
        agenda.add(now + random.between(MS, reconnect_max.max(MS)), Wake::Connect(id));
    }

    /// The connection breaks and everything in flight is lost; until `blind_until` its broker does
    /// not know.
    pub fn sever(&mut self, (now, agenda): (u64, &mut Agenda), id: SocketId, blind_until: u64) {
        let Some(socket) = self.socket(id).filter(|socket| socket.is_connected) else { return };
        socket.is_connected = false;
        socket.up.clear();
        socket.down.clear();
        socket.blind_until = blind_until;
        agenda.add(now + RECONNECT, Wake::Connect(id));
    }

    /// The connection breaks at the first message of one direction, which is lost with all behind
    /// it. What goes the other way still arrives.
    pub fn lose(&mut self, (now, agenda): (u64, &mut Agenda), id: SocketId, direction: Direction) {
        let Some(socket) = self.socket(id) else { return };
        match direction {
            Direction::Up => socket.up.clear(),
            Direction::Down => socket.down.clear(),
        }
        if std::mem::replace(&mut socket.is_connected, false) {
            socket.blind_until = now;
            agenda.add(now + RECONNECT, Wake::Connect(id));
        }
        self.forget_if_over(id);
    }

    /// Nothing of a peer's arrives at a broker until then, or the other way round, by whatever
    /// socket; nothing is lost.
    pub fn deafen(
        &mut self,
        agenda: &mut Agenda,
        (owner, broker, direction): (Owner, usize, Direction),
        until: u64,
    ) {
        self.deaf.retain(|entry| (entry.0, entry.1, entry.2) != (owner, broker, direction));
        self.deaf.push((owner, broker, direction, until));
        for id in self.sockets_of(owner, broker) {
            let Some(socket) = self.socket(id) else { continue };
            let flights = match direction {
                Direction::Up => &mut socket.up,
                Direction::Down => &mut socket.down,
            };
            for flight in flights {
                flight.at = flight.at.max(until);
                agenda.add(flight.at, Wake::Arrive(id, direction));
            }
        }
    }

    /// Nothing moves on the link until then; nothing is lost.
    pub fn stall(&mut self, agenda: &mut Agenda, id: SocketId, until: u64) {
        let Some(socket) = self.socket(id) else { return };
        socket.stalled_until = socket.stalled_until.max(until);
        for (flights, direction) in
            [(&mut socket.up, Direction::Up), (&mut socket.down, Direction::Down)]
        {
            for flight in flights {
                flight.at = flight.at.max(until);
                agenda.add(flight.at, Wake::Arrive(id, direction));
            }
        }
    }

    /// The peer's queue at the broker is full until then.
    pub fn fill(&mut self, id: SocketId, until: u64) {
        if let Some(socket) = self.socket(id) {
            socket.full_until = until;
        }
    }

    /// A link becomes slow, or quick again.
    pub fn set_latency(&mut self, id: SocketId, latency: u64) {
        if let Some(socket) = self.socket(id) {
            socket.latency = latency;
        }
    }

    /// Nothing passes between a machine and a broker until then, neither can it connect.
    pub fn partition(&mut self, machine: Machine, broker: usize, until: u64) {
        self.partitions.insert((machine, broker), until);
    }

    /// Every partition and every full queue is over.
    pub fn heal(&mut self) {
        self.partitions.clear();
        self.deaf.clear();
        for socket in self.sockets.iter_mut().flatten() {
            socket.full_until = 0;
        }
    }

    /// A broker's process is gone: every connection with it breaks.
    pub fn broker_down(
        &mut self,
        (now, agenda, random): (u64, &mut Agenda, &mut Random),
        broker: usize,
    ) {
        self.down_brokers.insert(broker);
        for id in self.sockets_where(|of, _| of == broker) {
            self.cut((now, agenda, random), id);
            if let Some(socket) = self.socket(id) {
                // What had arrived died with the process; what was on its way goes nowhere.
                socket.up.clear();
                socket.blind_until = now;
            }
            self.forget_if_over(id);
        }
    }

    /// It is back.
    pub fn broker_up(&mut self, broker: usize) {
        self.down_brokers.remove(&broker);
    }
}
