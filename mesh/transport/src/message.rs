//! What goes through a socket: messages, and the addresses of peers.

use std::fmt;

use crate::raw::Frame;

/// The address of one connection at a [`Router`](crate::Router), chosen by libzmq.
///
/// It says nothing about who the peer is, and a peer that reconnects has another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoutingId([u8; 5]);

impl RoutingId {
    /// Nobody: the sender of a [`Dealer`](crate::Dealer)'s messages, and of those whose sender
    /// chose an id of its own. Sending to it is [`SendOutcome::Gone`].
    pub const NONE: Self = Self([0xff; 5]);

    /// libzmq's own ids are a zero byte and a number; None for any that a peer has chosen.
    pub(crate) fn from_frame(frame: &[u8]) -> Option<Self> {
        let id: [u8; 5] = frame.try_into().ok()?;
        (id[0] == 0).then_some(Self(id))
    }

    /// The bytes that libzmq knows it by.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 5] {
        &self.0
    }

    /// An id from its number: for tests of code above the transport, which have no socket.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        let [a, b, c, d] = number.to_be_bytes();
        Self([0, a, b, c, d])
    }
}

impl Default for RoutingId {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Display for RoutingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("none");
        }
        let [_, a, b, c, d] = self.0;
        write!(f, "{:08x}", u32::from_be_bytes([a, b, c, d]))
    }
}

impl fmt::Debug for RoutingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoutingId({self})")
    }
}

/// Why a message was read but not handed over. Its frames are gone; its sender can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageFault {
    /// More frames than [`frames_max`](crate::SocketOptions::frames_max).
    TooManyFrames,
    /// More bytes than [`message_bytes_max`](crate::SocketOptions::message_bytes_max).
    TooManyBytes,
    /// The peer chose its own routing id: it has no address here, [`RoutingId::NONE`] stands for it.
    ForeignRoutingId,
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyFrames => "more frames than a message may have",
            Self::TooManyBytes => "more bytes than a message may have",
            Self::ForeignRoutingId => "the peer set a routing id of its own; leave it unset",
        })
    }
}

/// A received message; reuse one for every receive.
#[derive(Debug, Default)]
pub struct Message {
    /// Whom it came from; [`RoutingId::NONE`] at a Dealer.
    pub from: RoutingId,
    /// Its frames, without the routing id. Empty if there is a fault. They may be taken out.
    pub frames: Vec<Frame>,
    /// Set if the message broke a bound and was dropped.
    pub fault: Option<MessageFault>,
}

impl Message {
    /// The first frame's bytes; none if there is no frame.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.frames.first().map_or(&[], |frame| frame)
    }

    /// The frames after the first.
    pub fn attachments(&mut self) -> &mut [Frame] {
        self.frames.get_mut(1..).unwrap_or_default()
    }

    /// The user id that the ZAP handler gave to the peer's connection; None without keys.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.frames.first()?.user_id()
    }

    pub(crate) fn clear(&mut self) {
        self.from = RoutingId::NONE;
        self.frames.clear();
        self.fault = None;
    }

    pub(crate) fn fail(&mut self, fault: MessageFault) {
        self.frames.clear();
        self.fault.get_or_insert(fault);
    }
}

/// What became of a message that was to be sent. Its frames stay with the caller unless `Sent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum SendOutcome {
    /// It is in libzmq's queue. It may still be lost with the connection.
    Sent,
    /// The queue is full. Keep the frames and try again on a timer: writability is no help, it
    /// stays true while any other peer has room.
    Full,
    /// No such peer. Forget its address.
    Gone,
}
