//! Tasks of the simulation: each carries what its handler is to do, and whose it is, so that every
//! result can be checked.

use pinmesh_protocol::id::{PeerId, RequestId};

/// Whose request, and which.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Key {
    /// Number of the client, never used again.
    pub client: u32,
    /// Its request.
    pub request: RequestId,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "c{}:{}", self.client, self.request)
    }
}

/// An idempotency key of the few that callers use, so that they meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct IdempotencyKey {
    /// Whose tasks have it; `None`: all services'.
    pub service: Option<u32>,
    /// Which.
    pub number: u8,
}

impl IdempotencyKey {
    /// As it travels.
    pub fn to_bytes(self) -> Box<[u8]> {
        let service = self.service.map_or(u8::MAX, |service| service as u8);
        [service, self.number].into()
    }
}

/// What a handler does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Act {
    /// Returns a result.
    Ok = 0,
    /// Returns an error.
    Fail = 1,
    /// Takes its worker down, every time.
    Poison = 2,
    /// Takes its worker down the first time.
    CrashOnce = 3,
    /// Never returns, and never looks at the cancel flag.
    Hang = 4,
    /// Never returns unless it is cancelled.
    Wait = 5,
    /// Returns just when it is about to be killed for its max runtime.
    Brink = 6,
    /// Returns an error the first time.
    FailOnce = 7,
    /// Returns an error that another try would not mend.
    FailFinal = 8,
}

impl Act {
    const ALL: [Self; 9] = [
        Self::Ok,
        Self::Fail,
        Self::Poison,
        Self::CrashOnce,
        Self::Hang,
        Self::Wait,
        Self::Brink,
        Self::FailOnce,
        Self::FailFinal,
    ];
}

/// What a task is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Whose request.
    pub key: Key,
    /// What its handler does.
    pub act: Act,
    /// For how long, nanoseconds.
    pub duration: u64,
    /// It stops early when it is cancelled.
    pub is_obedient: bool,
    /// Updates that it says while it runs, one in three of kind `latest`.
    pub updates: u8,
}

/// Bytes of the shortest payload.
pub const PAYLOAD_MIN: usize = 32;

impl Plan {
    /// The payload, with zeros after it up to `len`.
    pub fn to_payload(&self, len: usize) -> Box<[u8]> {
        let mut bytes = Vec::with_capacity(len.max(PAYLOAD_MIN));
        bytes.extend_from_slice(&self.key.client.to_le_bytes());
        bytes.extend_from_slice(&self.key.request.0.to_le_bytes());
        bytes.extend_from_slice(&self.duration.to_le_bytes());
        bytes.push(self.act as u8);
        bytes.push(u8::from(self.is_obedient));
        bytes.push(self.updates);
        bytes.resize(len.max(PAYLOAD_MIN), 0);
        bytes.into()
    }

    /// Reads it back; `None` for bytes that no client of this simulation wrote.
    pub fn from_payload(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let client = u32::from_le_bytes(*bytes.first_chunk()?);
        let key = Key { client, request: RequestId(number(4)?) };
        let act = *Act::ALL.get(usize::from(*bytes.get(20)?))?;
        let (is_obedient, updates) = (*bytes.get(21)? == 1, *bytes.get(22)?);
        Some(Self { key, act, duration: number(12)?, is_obedient, updates })
    }
}

/// What a handler returned, or said while it ran: whose request it was, and a number that nothing else that was said has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Output {
    /// Whose request.
    pub key: Key,
    /// Which run.
    pub token: u64,
}

impl Output {
    /// The result's payload: no longer than the shortest task's, so that an end never needs more
    /// room than its task had.
    pub fn to_payload(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&self.key.client.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.key.request.0.to_le_bytes());
        bytes[12..].copy_from_slice(&self.token.to_le_bytes());
        bytes
    }

    /// Reads it back.
    pub fn from_payload(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 20] = bytes.try_into().ok()?;
        let client = u32::from_le_bytes(*bytes.first_chunk()?);
        let request = RequestId(u64::from_le_bytes(*bytes[4..].first_chunk()?));
        Some(Self {
            key: Key { client, request },
            token: u64::from_le_bytes(*bytes[12..].first_chunk()?),
        })
    }
}

/// The id of a process: its kind and its number, which is never used again.
pub fn peer_id(kind: u8, number: u32) -> PeerId {
    let mut id = [kind; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    PeerId(id)
}

/// The number of a client.
pub fn client_of(id: PeerId) -> u32 {
    u32::from_le_bytes([id.0[0], id.0[1], id.0[2], id.0[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_and_outputs_survive_their_payload() {
        let key = Key { client: 3, request: RequestId(u64::MAX) };
        for act in Act::ALL {
            let plan = Plan { key, act, duration: 7, is_obedient: true, updates: 3 };
            assert_eq!(Plan::from_payload(&plan.to_payload(100)), Some(plan));
        }
        let output = Output { key, token: 9 };
        assert_eq!(Output::from_payload(&output.to_payload()), Some(output));
        assert_eq!(Output::from_payload(b"text"), None);
    }
}
