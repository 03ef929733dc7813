//! What every socket has: libzmq's socket, bounds, counters, and the flag of the edge rule.

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::Result;
use crate::context::Context;
use crate::endpoint::Endpoint;
use crate::error::TransportError;
use crate::message::{Message, MessageFault, SendOutcome};
use crate::options::{SocketOptions, zmq_error};
use crate::raw::{self, Errno, Frame, RawSocket};
use crate::readiness::{Pollable, sealed::Sealed};

/// What a socket has seen of what it should not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages dropped for their number of frames or bytes.
    pub oversized: u64,
    /// Messages dropped because the peer chose its own routing id.
    pub foreign_routing_ids: u64,
}

/// What Router and Dealer have in common.
pub(crate) struct SocketCore {
    pub(crate) raw: RawSocket,
    fd: RawFd,
    frames_max: usize,
    message_bytes_max: u64,
    pub(crate) counters: Counters,
    pub(crate) token: Option<Token>,
    /// False only if the last call on the socket showed that there is nothing to read, so that
    /// the next message must raise a new edge (see `readiness`).
    pub(crate) maybe_ready: bool,
}

impl SocketCore {
    pub(crate) fn open(
        context: &Context,
        kind: u32,
        ipv6: bool,
        options: &SocketOptions,
    ) -> Result<Self> {
        options.check()?;
        let mut raw = RawSocket::new(context.raw(), kind).map_err(|errno| match errno.0 {
            libc::EMFILE => TransportError::Option {
                name: "sockets_max",
                value: "(context)".into(),
                reason: "is used up, or the process has no descriptors left".into(),
            },
            _ => zmq_error("zmq_socket", "", errno),
        })?;
        options.apply(&mut raw, ipv6)?;
        let fd = raw.fd().map_err(|errno| zmq_error("zmq_getsockopt", "ZMQ_FD", errno))?;
        Ok(Self {
            raw,
            fd,
            frames_max: options.frames_max,
            message_bytes_max: options.message_bytes_max,
            counters: Counters::default(),
            token: None,
            maybe_ready: true,
        })
    }

    /// Whether a message waits; cheap if the last receive found none.
    pub(crate) fn has_input(&mut self) -> Result<bool> {
        if self.maybe_ready {
            self.maybe_ready = self
                .raw
                .has_input()
                .map_err(|errno| zmq_error("zmq_getsockopt", "ZMQ_EVENTS", errno))?;
        }
        Ok(self.maybe_ready)
    }

    pub(crate) fn recv_frame(&mut self, into: &mut Frame) -> Result<bool> {
        self.maybe_ready = true;
        let received = self.raw.recv(into).map_err(|errno| zmq_error("zmq_msg_recv", "", errno))?;
        self.maybe_ready = received;
        Ok(received)
    }

    /// Receives a message of a socket that has no routing ids.
    pub(crate) fn recv_message(&mut self, into: &mut Message) -> Result<bool> {
        into.clear();
        let mut frame = Frame::empty();
        if !self.recv_frame(&mut frame)? {
            return Ok(false);
        }
        self.recv_rest(frame, into)?;
        Ok(true)
    }

    /// Reads the frames of a message whose first one is there. The rest come with it: libzmq hands
    /// over whole messages.
    pub(crate) fn recv_rest(&mut self, mut frame: Frame, into: &mut Message) -> Result<()> {
        let mut bytes = 0u64;
        loop {
            let more = frame.has_more();
            bytes = bytes.saturating_add(frame.len() as u64);
            if into.fault.is_none() {
                if into.frames.len() >= self.frames_max {
                    self.counters.oversized += 1;
                    into.fail(MessageFault::TooManyFrames);
                } else if bytes > self.message_bytes_max {
                    self.counters.oversized += 1;
                    into.fail(MessageFault::TooManyBytes);
                } else {
                    into.frames.push(frame);
                }
            }
            if !more {
                return Ok(());
            }
            frame = Frame::empty();
            if !self.recv_frame(&mut frame)? {
                return Err(zmq_error("zmq_msg_recv", "inside a message", Errno(libc::EAGAIN)));
            }
        }
    }

    /// Sends the frames of a message after its routing id, if any.
    ///
    /// Attachments are sent as shares, so that they are still the caller's if the peer's queue
    /// goes away between two frames.
    pub(crate) fn send_frames(
        &mut self,
        head: &[u8],
        attachments: &mut Vec<Frame>,
    ) -> Result<SendOutcome> {
        self.maybe_ready = true;
        let count = attachments.len();
        let mut sent = self.raw.send_bytes(head, count > 0);
        let mut open = sent.is_ok() && count > 0;
        for (index, frame) in attachments.iter_mut().enumerate() {
            if sent.is_err() {
                break;
            }
            let more = index + 1 < count;
            sent = self.raw.send_frame(&mut frame.share(), more);
            open = more;
        }
        match sent {
            Ok(()) => attachments.clear(),
            // libzmq has dropped what it took of the message, and drops the rest up to its end.
            Err(_) if open => {
                let _ = self.raw.send_bytes(&[], false);
            }
            Err(_) => {}
        }
        outcome(sent)
    }

    /// Binds or connects.
    pub(crate) fn attach(
        &mut self,
        call: &'static str,
        endpoint: &Endpoint,
        attach: impl FnOnce(&mut RawSocket, &CStr) -> Result<(), Errno>,
    ) -> Result<()> {
        self.maybe_ready = true;
        let address = endpoint.zmq_address();
        let address = raw::c_string(&address).ok_or_else(|| TransportError::Endpoint {
            endpoint: endpoint.to_string(),
            reason: "must not hold a zero byte".into(),
        })?;
        attach(&mut self.raw, &address)
            .map_err(|errno| zmq_error(call, format!("`{endpoint}`"), errno))
    }
}

pub(crate) fn outcome(sent: Result<(), Errno>) -> Result<SendOutcome> {
    match sent {
        Ok(()) => Ok(SendOutcome::Sent),
        Err(Errno(libc::EAGAIN)) => Ok(SendOutcome::Full),
        Err(Errno(libc::EHOSTUNREACH)) => Ok(SendOutcome::Gone),
        Err(errno) => Err(zmq_error("zmq_send", "", errno)),
    }
}

impl Source for SocketCore {
    fn register(&mut self, registry: &Registry, token: Token, _: Interest) -> io::Result<()> {
        // The descriptor becomes readable for everything, room in a queue included.
        SourceFd(&self.fd).register(registry, token, Interest::READABLE)?;
        self.token = Some(token);
        self.maybe_ready = true;
        Ok(())
    }

    fn reregister(&mut self, registry: &Registry, token: Token, _: Interest) -> io::Result<()> {
        SourceFd(&self.fd).reregister(registry, token, Interest::READABLE)?;
        self.token = Some(token);
        self.maybe_ready = true;
        Ok(())
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.fd).deregister(registry)?;
        self.token = None;
        Ok(())
    }
}

/// A REP socket: answers one request at a time. Only the ZAP handler needs it.
pub(crate) struct Responder {
    pub(crate) core: SocketCore,
}

/// Makes a type with a field `core` something that a [`Poller`](crate::Poller) can wait for.
macro_rules! pollable {
    ($socket:ty) => {
        impl Pollable for $socket {}

        impl Sealed for $socket {
            #[allow(private_interfaces)]
            fn core(&self) -> &SocketCore {
                &self.core
            }

            #[allow(private_interfaces)]
            fn core_mut(&mut self) -> &mut SocketCore {
                &mut self.core
            }
        }

        impl Source for $socket {
            fn register(&mut self, r: &Registry, token: Token, i: Interest) -> io::Result<()> {
                self.core.register(r, token, i)
            }

            fn reregister(&mut self, r: &Registry, token: Token, i: Interest) -> io::Result<()> {
                self.core.reregister(r, token, i)
            }

            fn deregister(&mut self, r: &Registry) -> io::Result<()> {
                self.core.deregister(r)
            }
        }
    };
}

pollable!(Responder);

pub(crate) use pollable;
