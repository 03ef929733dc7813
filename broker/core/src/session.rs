//! Sessions: one a socket, from HELLO to the end of it.

use alloc::vec::Vec;

use crate::event::Conn;
use crate::slab::{ClientKey, HostKey, ServiceKey, TimerKey, WorkerKey};
use crate::time::Time;

/// Who a session belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    Client(ClientKey),
    Worker(WorkerKey),
    Host(HostKey),
}

/// See the module.
pub(crate) struct Session {
    pub(crate) peer: Peer,
    /// The last word from it, or the end of a silence that it announced.
    pub(crate) heard_at: Time,
    /// Ends taken from it.
    pub(crate) taken: u64,
    /// Of those, acknowledged.
    pub(crate) acknowledged: u64,
    /// Bytes of the tasks whose ends were taken and are not acknowledged: its sender counts them
    /// in its window until they are.
    pub(crate) unacknowledged_bytes: u64,
    /// Ends beyond this number are not acknowledged for now; `u64::MAX`: all may be.
    pub(crate) acknowledged_max: u64,
    /// Bytes of updates that came since then.
    pub(crate) held_bytes: u64,
    pub(crate) aliases: Vec<Option<ServiceKey>>,
    pub(crate) timer: TimerKey,
}

impl Session {
    /// An end was taken, of a task of so many bytes.
    #[inline]
    pub(crate) fn take_end(&mut self, bytes: u64) {
        self.taken += 1;
        self.unacknowledged_bytes = self.unacknowledged_bytes.saturating_add(bytes);
    }

    /// Ends taken and not acknowledged.
    #[inline]
    pub(crate) fn unacknowledged(&self) -> u64 {
        self.taken - self.acknowledged
    }

    /// What ACK has to say, if anything.
    #[inline]
    pub(crate) fn acknowledge(&mut self) -> Option<u64> {
        let count = self.taken.min(self.acknowledged_max);
        if count <= self.acknowledged {
            return None;
        }
        self.acknowledged = count;
        self.unacknowledged_bytes = 0;
        Some(count)
    }
}

/// Sessions by the shell's number.
pub(crate) struct Sessions {
    all: Vec<Option<Session>>,
    len: u32,
}

impl Sessions {
    pub(crate) const fn new() -> Self {
        Self { all: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, conn: Conn) -> Option<&mut Session> {
        self.all.get_mut(conn.0 as usize)?.as_mut()
    }

    #[inline]
    pub(crate) fn get(&self, conn: Conn) -> Option<&Session> {
        self.all.get(conn.0 as usize)?.as_ref()
    }

    pub(crate) fn insert(&mut self, conn: Conn, session: Session) {
        let index = conn.0 as usize;
        if self.all.len() <= index {
            self.all.resize_with(index + 1, || None);
        }
        debug_assert!(self.all[index].is_none(), "one session a socket");
        self.all[index] = Some(session);
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, conn: Conn) -> Option<Session> {
        let session = self.all.get_mut(conn.0 as usize)?.take()?;
        self.len -= 1;
        Some(session)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Conn, &Session)> {
        self.all
            .iter()
            .enumerate()
            .filter_map(|(index, session)| Some((Conn(index as u32), session.as_ref()?)))
    }
}
