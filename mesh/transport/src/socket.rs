//! Router and Dealer: sockets that never block.

use std::io;
use std::os::fd::RawFd;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::Result;
use crate::context::Context;
use crate::endpoint::Endpoint;
use crate::error::TransportError;
use crate::ipc::IpcClaim;
use crate::message::{Message, MessageFault, RoutingId, SendOutcome};
use crate::options::{SocketOptions, refused, zmq_error};
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
    raw: RawSocket,
    fd: RawFd,
    frames_max: usize,
    message_bytes_max: u64,
    counters: Counters,
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

    fn recv_frame(&mut self, into: &mut Frame) -> Result<bool> {
        self.maybe_ready = true;
        let received = self.raw.recv(into).map_err(|errno| zmq_error("zmq_msg_recv", "", errno))?;
        self.maybe_ready = received;
        Ok(received)
    }

    /// Reads the frames of a message whose first one is there. The rest come with it: libzmq hands
    /// over whole messages.
    fn recv_rest(&mut self, mut frame: Frame, into: &mut Message) -> Result<()> {
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
    fn send_frames(&mut self, head: &[u8], attachments: &mut Vec<Frame>) -> Result<SendOutcome> {
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
    fn attach(
        &mut self,
        call: &'static str,
        endpoint: &Endpoint,
        attach: impl FnOnce(&mut RawSocket, &std::ffi::CStr) -> Result<(), Errno>,
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

fn outcome(sent: Result<(), Errno>) -> Result<SendOutcome> {
    match sent {
        Ok(()) => Ok(SendOutcome::Sent),
        Err(Errno(libc::EAGAIN)) => Ok(SendOutcome::Full),
        Err(Errno(libc::EHOSTUNREACH)) => Ok(SendOutcome::Gone),
        Err(errno) => Err(zmq_error("zmq_send", "", errno)),
    }
}

/// A bound ROUTER: many peers, each with an address.
///
/// It learns that a peer is gone only by sending to it; see the crate's documentation.
pub struct Router {
    // First, so that the socket is closed before the path and its lock are given up.
    core: SocketCore,
    endpoint: Endpoint,
    id_frame: Frame,
    _ipc: Option<IpcClaim>,
}

impl Router {
    /// Binds. A port of 0 or `*` lets the system choose: see [`endpoint`](Self::endpoint). An ipc
    /// path gets a lock file `PATH.lock` beside it; a folder that is not there is made, for the
    /// owner only; a socket file left by a dead process is replaced.
    ///
    /// # Errors
    /// The endpoint is taken, cannot be bound, or can be reached from other hosts although there
    /// are no keys; an option is out of range.
    pub fn bind(context: &Context, endpoint: &Endpoint, options: &SocketOptions) -> Result<Self> {
        endpoint.check_bind()?;
        if !endpoint.is_local() && !options.insecure {
            return Err(TransportError::NotLocal { endpoint: endpoint.to_string() });
        }
        let mut core = SocketCore::open(context, zmq_sys::ZMQ_ROUTER, endpoint.is_ipv6(), options)?;
        core.raw
            .set_i32(zmq_sys::ZMQ_ROUTER_MANDATORY, 1)
            .map_err(|errno| refused("ZMQ_ROUTER_MANDATORY", errno))?;
        let ipc = match endpoint.ipc_path() {
            None => {
                core.attach("zmq_bind", endpoint, RawSocket::bind)?;
                None
            }
            Some(path) => {
                let (claim, listener) = IpcClaim::new(path, options.backlog)?;
                listener.hand_over(|fd| {
                    core.raw
                        .set_i32(zmq_sys::ZMQ_USE_FD, fd)
                        .map_err(|errno| refused("ZMQ_USE_FD", errno))?;
                    core.attach("zmq_bind", endpoint, RawSocket::bind)
                })?;
                Some(claim)
            }
        };
        let endpoint = match core.raw.last_endpoint() {
            Ok(bound) if ipc.is_none() => bound.parse()?,
            _ => endpoint.clone(),
        };
        Ok(Self { core, endpoint, id_frame: Frame::empty(), _ipc: ipc })
    }

    /// The endpoint that is really bound, with the port that the system chose.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Receives one message without blocking; false if there is none.
    ///
    /// A message beyond the bounds, or from a peer that chose its own routing id, is dropped and
    /// comes back as a [`fault`](Message::fault).
    ///
    /// # Errors
    /// libzmq refused; does not happen to a socket in good order.
    pub fn recv(&mut self, into: &mut Message) -> Result<bool> {
        into.clear();
        if !self.core.recv_frame(&mut self.id_frame)? {
            return Ok(false);
        }
        match RoutingId::from_frame(&self.id_frame) {
            Some(id) => into.from = id,
            None => {
                self.core.counters.foreign_routing_ids += 1;
                into.fail(MessageFault::ForeignRoutingId);
            }
        }
        let mut frame = Frame::empty();
        if !self.id_frame.has_more() || !self.core.recv_frame(&mut frame)? {
            return Ok(true);
        }
        self.core.recv_rest(frame, into)?;
        Ok(true)
    }

    /// Sends one message without blocking: a copy of `head`, then the attachments uncopied.
    ///
    /// The attachments stay with the caller unless the outcome is `Sent`, which empties the vector
    /// and keeps its room.
    ///
    /// # Errors
    /// libzmq refused; does not happen to a socket in good order.
    pub fn send(
        &mut self,
        to: RoutingId,
        head: &[u8],
        attachments: &mut Vec<Frame>,
    ) -> Result<SendOutcome> {
        self.core.maybe_ready = true;
        match outcome(self.core.raw.send_bytes(to.as_bytes(), true))? {
            SendOutcome::Sent => self.core.send_frames(head, attachments),
            failed => Ok(failed),
        }
    }

    /// What it has dropped so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.core.counters
    }
}

/// A connected DEALER: one peer. libzmq connects again by itself when the connection breaks.
///
/// What is sent before the connection stands is queued, and reaches whoever listens there then.
pub struct Dealer {
    core: SocketCore,
    endpoint: Endpoint,
}

impl Dealer {
    /// Starts to connect; nobody need listen there yet.
    ///
    /// # Errors
    /// The endpoint cannot be connected to, or an option is out of range.
    pub fn connect(
        context: &Context,
        endpoint: &Endpoint,
        options: &SocketOptions,
    ) -> Result<Self> {
        endpoint.check_connect()?;
        let mut core = SocketCore::open(context, zmq_sys::ZMQ_DEALER, endpoint.is_ipv6(), options)?;
        core.attach("zmq_connect", endpoint, RawSocket::connect)?;
        Ok(Self { core, endpoint: endpoint.clone() })
    }

    /// The endpoint that it connects to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Receives one message without blocking; false if there is none. One beyond the bounds is
    /// dropped and comes back as a [`fault`](Message::fault).
    ///
    /// # Errors
    /// libzmq refused; does not happen to a socket in good order.
    pub fn recv(&mut self, into: &mut Message) -> Result<bool> {
        into.clear();
        let mut frame = Frame::empty();
        if !self.core.recv_frame(&mut frame)? {
            return Ok(false);
        }
        self.core.recv_rest(frame, into)?;
        Ok(true)
    }

    /// Sends one message without blocking: a copy of `head`, then the attachments uncopied. They
    /// stay with the caller unless the outcome is `Sent`. It is never `Gone`.
    ///
    /// # Errors
    /// libzmq refused; does not happen to a socket in good order.
    pub fn send(&mut self, head: &[u8], attachments: &mut Vec<Frame>) -> Result<SendOutcome> {
        self.core.send_frames(head, attachments)
    }

    /// What it has dropped so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.core.counters
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

pollable!(Router);
pollable!(Dealer);
