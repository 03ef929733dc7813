//! Router and Dealer: sockets that never block.

use std::{fmt, io};

use mio::event::Source;
use mio::{Interest, Registry, Token};

use crate::Result;
use crate::context::Context;
use crate::core::{Counters, SocketCore, outcome, pollable};
use crate::endpoint::Endpoint;
use crate::error::TransportError;
use crate::ipc::IpcClaim;
use crate::message::{Message, MessageFault, RoutingId, SendOutcome};
use crate::options::{SocketOptions, refused};
use crate::raw::{Frame, RawSocket};
use crate::readiness::{Pollable, sealed::Sealed};
use crate::security::Security;

/// A bound ROUTER: many peers, each with an address.
///
/// It learns that a peer is gone only by sending to it; see the crate's documentation.
pub struct Router {
    // First, so that the socket is closed before the path and its lock are given up.
    core: SocketCore,
    endpoint: Endpoint,
    id_frame: Frame,
    _ipc: Option<IpcClaim>,
    // Keeps the authenticator running as long as somebody can connect.
    _security: Option<Security>,
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
        if !endpoint.is_local() && !options.insecure && options.security.is_none() {
            return Err(TransportError::NotLocal { endpoint: endpoint.to_string() });
        }
        let mut core = SocketCore::open(context, zmq_sys::ZMQ_ROUTER, endpoint.is_ipv6(), options)?;
        core.raw
            .set_i32(zmq_sys::ZMQ_ROUTER_MANDATORY, 1)
            .map_err(|errno| refused("ZMQ_ROUTER_MANDATORY", errno))?;
        if let Some(security) = &options.security {
            security.apply_to_bind(context, &mut core.raw)?;
        }
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
        let security = options.security.clone();
        Ok(Self { core, endpoint, id_frame: Frame::empty(), _ipc: ipc, _security: security })
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
        if let Some(security) = &options.security {
            security.apply_to_connect(&mut core.raw)?;
        }
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
        self.core.recv_message(into)
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

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Router({})", self.endpoint)
    }
}

impl fmt::Debug for Dealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dealer({})", self.endpoint)
    }
}

pollable!(Router);
pollable!(Dealer);
