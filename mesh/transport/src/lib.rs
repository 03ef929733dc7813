//! ZeroMQ sockets on mio: the only crate of the mesh that knows libzmq.
//!
//! The interface is narrow on purpose: receive a message, send a message, readiness, and whether
//! a peer is gone. [`Router`] and [`Dealer`] never block; [`Poller`] sleeps without losing a
//! wake-up; [`Endpoint`] is checked before libzmq sees it; a bind that other hosts could reach is
//! refused unless there are keys or the caller insists.
//!
//! What libzmq tells about peers is little. There is no event for a peer that left: the only sign
//! is [`SendOutcome::Gone`] at the next send to it. A message that was `Sent` lies in a queue; if
//! the peer's connection ends first, it is lost without a word. Only an acknowledgement in the
//! protocol above proves that anything arrived.
//!
//! ```
//! use std::time::Duration;
//! use pinmesh_transport::*;
//!
//! # fn main() -> Result<(), TransportError> {
//! let context = Context::new(&ContextOptions::default())?;
//! let options = SocketOptions::default();
//! let mut router = Router::bind(&context, &"tcp://127.0.0.1:0".parse()?, &options)?;
//! let mut dealer = Dealer::connect(&context, router.endpoint(), &options)?;
//! assert_eq!(dealer.send(b"hello", &mut Vec::new())?, SendOutcome::Sent);
//!
//! let mut poller = Poller::new()?;
//! poller.register(&mut router, Token(0))?;
//! let mut message = Message::default();
//! while !router.recv(&mut message)? {
//!     poller.wait(&mut [&mut router], Some(Duration::from_secs(10)), Duration::ZERO)?;
//! }
//! assert_eq!(message.body(), b"hello");
//! assert_eq!(router.send(message.from, b"hello yourself", &mut Vec::new())?, SendOutcome::Sent);
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod context;
mod core;
mod endpoint;
mod error;
mod ipc;
mod message;
mod options;
#[allow(unsafe_code)]
mod raw;
mod readiness;
mod security;
mod socket;

pub use self::core::Counters;
pub use context::{Capabilities, Context, ContextOptions};
pub use endpoint::Endpoint;
pub use error::TransportError;
pub use message::{Message, MessageFault, RoutingId, SendOutcome};
pub use mio::Token;
pub use options::SocketOptions;
pub use raw::Frame;
pub use readiness::{Pollable, Poller, Wake};
pub use security::{
    AllowList, AuthCounters, Authenticator, AuthorizedKey, KeyPair, ListChanges, PeerKeys,
    PublicKey, Refusal, Role, Security, SharedAllowList,
};
pub use socket::{Dealer, Router};

/// A result with this crate's error.
pub type Result<T, E = TransportError> = std::result::Result<T, E>;
