//! Options of sockets: checked, then applied.

use zmq_sys as z;

use crate::Result;
use crate::error::TransportError;
use crate::raw::{Errno, RawSocket};
use crate::security::Security;

/// libzmq's draft options for its read and write buffers, in bytes a connection.
const ZMQ_IN_BATCH_SIZE: u32 = 101;
const ZMQ_OUT_BATCH_SIZE: u32 = 102;

/// What a CURVE connection adds to a frame before its size is checked.
const ENCRYPTION_BYTES: u64 = 64;

/// What sockets are set to. The defaults are those of the mesh.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// How long a closed socket goes on sending what is queued, in ms: at most 1,000.
    pub linger_ms: u32,
    /// Most messages queued a peer, each way, at least 1. A last resort: windows are the budget.
    pub queue_messages_max: u32,
    /// Longest frame in bytes, to within 64. A peer that sends a longer one is cut off by libzmq.
    pub frame_bytes_max: u64,
    /// Most frames of a message, at least 1.
    pub frames_max: usize,
    /// Most bytes of a message, all frames together. Neither this nor any other option bounds what
    /// libzmq holds of a message that is not complete yet: only keys keep strangers out.
    pub message_bytes_max: u64,
    /// First pause before a connection is tried again, in ms; doubles up to `reconnect_max_ms`.
    pub reconnect_ms: u32,
    /// Longest pause before a connection is tried again, in ms.
    pub reconnect_max_ms: u32,
    /// How long a peer may take over its handshake, in ms.
    pub handshake_ms: u32,
    /// Interval of ZMTP's own heartbeat in ms. It reaps dead connections, no more: it is answered
    /// by an IO thread while the peer may hang.
    pub heartbeat_interval_ms: u32,
    /// Silence after which a connection is dead to ZMTP, in ms.
    pub heartbeat_timeout_ms: u32,
    /// Bytes that libzmq reads and writes at a time, a connection. At 64 KiB a task costs half the
    /// CPU that it does at libzmq's 8 KiB; a received frame that is kept may keep as much. Left
    /// alone where libzmq was built without draft options.
    pub batch_bytes: u32,
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    /// Whether host names may resolve to IPv6. Always so for IPv6 addresses.
    pub ipv6: bool,
    /// Bind where other hosts can connect although there are no keys.
    pub insecure: bool,
    /// Keys: with them every connection is encrypted, and a Router lets in listed ones only.
    pub security: Option<Security>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            linger_ms: 1_000,
            queue_messages_max: 10_000,
            frame_bytes_max: 1 << 20,
            frames_max: 66,
            message_bytes_max: (64 << 20) + (128 << 10),
            reconnect_ms: 100,
            reconnect_max_ms: 5_000,
            handshake_ms: 3_000,
            heartbeat_interval_ms: 5_000,
            heartbeat_timeout_ms: 30_000,
            batch_bytes: 64 << 10,
            backlog: 1_024,
            ipv6: false,
            insecure: false,
            security: None,
        }
    }
}

impl SocketOptions {
    /// Checks every range.
    pub(crate) fn check(&self) -> Result<()> {
        let in_range = |name, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let reason = format!("must be from {least} to {most}");
            Err(TransportError::Option { name, value: value.to_string(), reason })
        };
        let hour_ms = 3_600_000;
        in_range("linger_ms", self.linger_ms.into(), 0, 1_000)?;
        in_range("queue_messages_max", self.queue_messages_max.into(), 1, 10_000_000)?;
        in_range("frame_bytes_max", self.frame_bytes_max, 1, 1 << 30)?;
        in_range("frames_max", self.frames_max as u64, 1, 1 << 16)?;
        in_range("message_bytes_max", self.message_bytes_max, 1, 1 << 40)?;
        in_range("reconnect_ms", self.reconnect_ms.into(), 1, hour_ms)?;
        let least = self.reconnect_ms.into();
        in_range("reconnect_max_ms", self.reconnect_max_ms.into(), least, hour_ms)?;
        in_range("handshake_ms", self.handshake_ms.into(), 1, hour_ms)?;
        in_range("heartbeat_interval_ms", self.heartbeat_interval_ms.into(), 1, hour_ms)?;
        let least = self.heartbeat_interval_ms.into();
        in_range("heartbeat_timeout_ms", self.heartbeat_timeout_ms.into(), least, hour_ms)?;
        in_range("batch_bytes", self.batch_bytes.into(), 1 << 10, 16 << 20)?;
        in_range("backlog", self.backlog.into(), 1, 1 << 16)
    }

    /// Sets a socket up; to be called before its bind or connect. `check` has passed.
    pub(crate) fn apply(&self, socket: &mut RawSocket, ipv6: bool) -> Result<()> {
        let frame_max = self.frame_bytes_max.saturating_add(ENCRYPTION_BYTES);
        socket
            .set_i64(z::ZMQ_MAXMSGSIZE, i64::try_from(frame_max).unwrap_or(i64::MAX))
            .map_err(|errno| refused("ZMQ_MAXMSGSIZE", errno))?;
        // The time-to-live travels in tenths of a second, in 16 bits.
        let ttl_ms = self.heartbeat_timeout_ms.clamp(100, 6_553_500);
        let values = [
            ("ZMQ_LINGER", z::ZMQ_LINGER, self.linger_ms),
            ("ZMQ_SNDHWM", z::ZMQ_SNDHWM, self.queue_messages_max),
            ("ZMQ_RCVHWM", z::ZMQ_RCVHWM, self.queue_messages_max),
            ("ZMQ_RECONNECT_IVL", z::ZMQ_RECONNECT_IVL, self.reconnect_ms),
            ("ZMQ_RECONNECT_IVL_MAX", z::ZMQ_RECONNECT_IVL_MAX, self.reconnect_max_ms),
            ("ZMQ_HANDSHAKE_IVL", z::ZMQ_HANDSHAKE_IVL, self.handshake_ms),
            ("ZMQ_HEARTBEAT_IVL", z::ZMQ_HEARTBEAT_IVL, self.heartbeat_interval_ms),
            ("ZMQ_HEARTBEAT_TIMEOUT", z::ZMQ_HEARTBEAT_TIMEOUT, self.heartbeat_timeout_ms),
            ("ZMQ_HEARTBEAT_TTL", z::ZMQ_HEARTBEAT_TTL, ttl_ms),
            ("ZMQ_TCP_KEEPALIVE", z::ZMQ_TCP_KEEPALIVE, 1),
            ("ZMQ_TCP_KEEPALIVE_IDLE", z::ZMQ_TCP_KEEPALIVE_IDLE, 60),
            ("ZMQ_TCP_KEEPALIVE_INTVL", z::ZMQ_TCP_KEEPALIVE_INTVL, 10),
            ("ZMQ_TCP_KEEPALIVE_CNT", z::ZMQ_TCP_KEEPALIVE_CNT, 6),
            ("ZMQ_BACKLOG", z::ZMQ_BACKLOG, self.backlog),
            ("ZMQ_IPV6", z::ZMQ_IPV6, u32::from(self.ipv6 || ipv6)),
        ];
        for (name, option, value) in values {
            let value = i32::try_from(value).unwrap_or(i32::MAX);
            socket.set_i32(option, value).map_err(|errno| refused(name, errno))?;
        }
        let batch = i32::try_from(self.batch_bytes).unwrap_or(i32::MAX);
        for draft_option in [ZMQ_IN_BATCH_SIZE, ZMQ_OUT_BATCH_SIZE] {
            // Refused by a libzmq without draft options: slower, but right.
            let _ = socket.set_i32(draft_option, batch);
        }
        Ok(())
    }
}

/// libzmq refused a socket option.
pub(crate) fn refused(name: &str, errno: Errno) -> TransportError {
    zmq_error("zmq_setsockopt", name, errno)
}

/// libzmq refused a call.
pub(crate) fn zmq_error(
    call: &'static str,
    subject: impl Into<String>,
    errno: Errno,
) -> TransportError {
    TransportError::Zmq { call, subject: subject.into(), errno: errno.0, message: errno.message() }
}
