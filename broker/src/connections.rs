//! The broker's peers: from routing id to a small number and back.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;
use pinmesh_core::{Conn, Side};
use pinmesh_protocol::batch::BatchWriter;
use pinmesh_transport::{Frame, RoutingId};

/// What is built for one peer and sent as one message.
pub(crate) type Batch = BatchWriter<Frame>;

/// One peer's socket, as far as the shell knows it.
pub(crate) struct Connection {
    pub(crate) side: Side,
    pub(crate) address: RoutingId,
    /// What this turn has for it. Not empty: it is dirty.
    pub(crate) batch: Batch,
    /// What could not be sent, oldest first; empty unless the peer is full.
    pub(crate) queue: VecDeque<Batch>,
    pub(crate) queue_bytes: u64,
    /// It stands in the list of those to be flushed.
    pub(crate) is_dirty: bool,
    /// A TASK is in the batch.
    pub(crate) has_task: bool,
    /// WELCOME was sent and the session is not closed.
    pub(crate) has_session: bool,
    /// To be forgotten as soon as it has been flushed.
    pub(crate) is_closing: bool,
    /// Nothing can be sent to it any more.
    pub(crate) is_gone: bool,
}

impl Connection {
    fn new(side: Side, address: RoutingId) -> Self {
        Self {
            side,
            address,
            batch: Batch::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            is_dirty: false,
            has_task: false,
            has_session: false,
            is_closing: false,
            is_gone: false,
        }
    }
}

/// See the module.
pub(crate) struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<u32>,
    by_address: HashMap<u64, u32, BuildHasherDefault<AddressHasher>>,
    max: usize,
}

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_address: HashMap::default(), max }
    }

    /// The peer of this address, made known if it is not; `None` if there is no room.
    pub(crate) fn find_or_insert(&mut self, side: Side, address: RoutingId) -> Option<Conn> {
        let key = key(side, address);
        if let Some(&index) = self.by_address.get(&key) {
            return Some(Conn(index));
        }
        if self.by_address.len() >= self.max {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).ok()?
            }
        };
        self.slots[index as usize] = Some(Connection::new(side, address));
        self.by_address.insert(key, index);
        Some(Conn(index))
    }

    #[inline]
    pub(crate) fn get(&self, conn: Conn) -> Option<&Connection> {
        self.slots.get(conn.0 as usize)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, conn: Conn) -> Option<&mut Connection> {
        self.slots.get_mut(conn.0 as usize)?.as_mut()
    }

    pub(crate) fn remove(&mut self, conn: Conn) -> Option<Connection> {
        let connection = self.slots.get_mut(conn.0 as usize)?.take()?;
        self.by_address.remove(&key(connection.side, connection.address));
        self.free.push(conn.0);
        Some(connection)
    }

    /// Those with a session.
    pub(crate) fn with_session(&self) -> Vec<Conn> {
        let open = |slot: &Option<Connection>| slot.as_ref().is_some_and(|c| c.has_session);
        (0u32..).zip(&self.slots).filter(|(_, slot)| open(slot)).map(|(n, _)| Conn(n)).collect()
    }
}

#[inline]
fn key(side: Side, address: RoutingId) -> u64 {
    let [_, a, b, c, d] = *address.as_bytes();
    let side = match side {
        Side::Frontend => 0,
        Side::Backend => 1 << 32,
    };
    side | u64::from(u32::from_be_bytes([a, b, c, d]))
}

/// One multiplication. Routing ids are libzmq's own running numbers, so nobody can choose them to
/// collide.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        // 2^64 / golden ratio; the halves are folded because hashbrown uses both ends.
        let product = u128::from(self.0 ^ value) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_keeps_its_number_until_it_is_removed() {
        let mut peers = Connections::new(100);
        let address = RoutingId::from_number;
        let a = peers.find_or_insert(Side::Frontend, address(1)).unwrap();
        let b = peers.find_or_insert(Side::Backend, address(1)).unwrap();
        assert_ne!(a, b);
        assert_eq!(peers.find_or_insert(Side::Frontend, address(1)), Some(a));
        assert_eq!(peers.remove(a).unwrap().address, address(1));
        assert!(peers.get(a).is_none());
        assert_eq!(peers.find_or_insert(Side::Frontend, address(2)), Some(a));
        assert_eq!(peers.get(b).unwrap().side, Side::Backend);
    }

    #[test]
    fn there_are_never_more_peers_than_the_limit() {
        let mut peers = Connections::new(2);
        for number in 0..2 {
            assert!(peers.find_or_insert(Side::Backend, RoutingId::from_number(number)).is_some());
        }
        assert_eq!(peers.find_or_insert(Side::Backend, RoutingId::from_number(2)), None);
        peers.remove(Conn(0)).unwrap();
        assert!(peers.find_or_insert(Side::Backend, RoutingId::from_number(2)).is_some());
    }

    #[test]
    fn running_numbers_spread_over_both_ends_of_the_hash() {
        let hash = |n: u64| {
            let mut hasher = AddressHasher::default();
            hasher.write_u64(n);
            hasher.finish()
        };
        let low: std::collections::HashSet<_> = (0..256).map(|n| hash(n) & 0xff).collect();
        let high: std::collections::HashSet<_> = (0..256).map(|n| hash(n) >> 57).collect();
        assert!(low.len() > 128 && high.len() > 64, "{} {}", low.len(), high.len());
    }
}
