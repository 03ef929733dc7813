//! Identities and counts of the wire, each its own type so that none can be passed for another.

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(transparent))]
        pub struct $name(pub $inner);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// One life of a broker process: random, compared for equality only.
    Epoch(u32)
}
number! {
    /// A task inside one epoch of one broker: slot and generation of the broker's store.
    TaskId(u64)
}
number! {
    /// Numbers every sending of a task to a worker, from 1; the fence against late ends.
    Dispatch(u32)
}
number! {
    /// The client's number for a task, unique for the life of the client process; never reused.
    RequestId(u64)
}
number! {
    /// The client's count of how often it handed one request to a broker under a new meaning, from 1.
    Submission(u32)
}
number! {
    /// A worker's place on its host, from 0; survives restarts of the process in it.
    Slot(u16)
}
number! {
    /// One life of the worker process in a slot, from 1, counted by its supervisor.
    Incarnation(u32)
}
number! {
    /// What the payload is encoded in; the broker hands it through. See the constants.
    ContentType(u32)
}

impl ContentType {
    /// Opaque bytes.
    pub const RAW: Self = Self(0);
    /// One MessagePack value.
    pub const MSGPACK: Self = Self(1);
    /// One JSON text.
    pub const JSON: Self = Self(2);
    /// One Protocol Buffers message.
    pub const PROTOBUF: Self = Self(3);
    /// UTF-8 text; what every error message is.
    pub const TEXT: Self = Self(4);
    /// The first of the numbers that applications may give a meaning of their own.
    pub const APPLICATION: Self = Self(256);
}

/// Sixteen random bytes, drawn once a process: the client id of a client's tasks and the host id of
/// a supervisor's workers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PeerId(pub [u8; 16]);

impl core::fmt::Debug for PeerId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl core::fmt::Display for PeerId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One attempt: one sending of one task by one life of one broker. Names the attempt everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AttemptId {
    /// The broker's life.
    pub epoch: Epoch,
    /// The task.
    pub task: TaskId,
    /// Which sending of it.
    pub dispatch: Dispatch,
}

impl core::fmt::Display for AttemptId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:08x}/{:x}/{}", self.epoch.0, self.task.0, self.dispatch)
    }
}

/// Urgency of a task, 1 to 10; 10 is the most urgent, 5 the default.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Priority(u8);

impl Priority {
    /// The least urgent.
    pub const MIN: Self = Self(1);
    /// The most urgent.
    pub const MAX: Self = Self(10);

    /// `None` outside 1..=10.
    pub const fn new(value: u8) -> Option<Self> {
        if value >= 1 && value <= 10 { Some(Self(value)) } else { None }
    }

    /// The number on the wire, 1..=10.
    pub const fn value(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}
