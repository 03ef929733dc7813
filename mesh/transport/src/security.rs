//! Keys: who may connect, and proof that nobody else can.
//!
//! CURVE encrypts, and by itself lets everyone in: who holds which key is asked of a ZAP handler,
//! and a socket without one is open. So a server's [`Security`] comes only from an
//! [`Authenticator`], which is that handler, is running before anything is bound, is kept alive by
//! every socket that needs it, and has shown at its start that an unknown key is refused.
//!
//! ```no_run
//! use pinmesh_transport::*;
//! use std::path::Path;
//!
//! # fn main() -> Result<(), TransportError> {
//! let context = Context::new(&ContextOptions::default())?;
//! let list = SharedAllowList::load(Path::new("/etc/pinmesh/authorized_keys"))?;
//! let authenticator = Authenticator::start(&context, list)?;
//! let keys = KeyPair::load(Path::new("/etc/pinmesh/broker.key"))?;
//! let security = authenticator.server(&keys, Role::Client);
//! let options = SocketOptions { security: Some(security), ..SocketOptions::default() };
//! let frontend = Router::bind(&context, &"tcp://*:5555".parse()?, &options)?;
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

use crate::Result;
use crate::context::{Capabilities, Context};
use crate::error::TransportError;
use crate::options::refused;
use crate::raw::RawSocket;

mod allow_list;
mod authenticator;
mod keys;
mod peer_keys;

pub use allow_list::{AllowList, AuthorizedKey, ListChanges, Role, SharedAllowList};
pub use authenticator::{AuthCounters, Authenticator, Refusal};
pub use keys::{KeyPair, PublicKey};
pub use peer_keys::PeerKeys;

/// Makes a socket with a domain but without a handler refuse everyone, instead of no one.
const ZMQ_ZAP_ENFORCE_DOMAIN: u32 = 93;

/// The keys of a socket: a server's from [`Authenticator::server`], or a client's.
#[derive(Clone, Debug)]
pub struct Security(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Server { keys: Arc<KeyPair>, domain: &'static str, authenticator: Authenticator },
    Client { server: PublicKey, keys: Arc<KeyPair> },
}

impl Security {
    /// For a socket that connects: it talks only to the server that holds `server`'s secret half,
    /// and proves that it holds `keys`.
    #[must_use]
    pub fn client(server: PublicKey, keys: &KeyPair) -> Self {
        Self(Kind::Client { server, keys: Arc::new(keys.clone()) })
    }

    fn server(keys: &KeyPair, domain: &'static str, authenticator: Authenticator) -> Self {
        Self(Kind::Server { keys: Arc::new(keys.clone()), domain, authenticator })
    }

    /// Sets a socket up that is to be bound.
    pub(crate) fn apply_to_bind(&self, context: &Context, socket: &mut RawSocket) -> Result<()> {
        check_curve()?;
        let Kind::Server { keys, domain, authenticator } = &self.0 else {
            return Err(wrong("these are a client's keys; a bind needs Authenticator::server"));
        };
        if !authenticator.serves(context) {
            return Err(wrong("the authenticator belongs to another context; start one in this"));
        }
        let set = |socket: &mut RawSocket, name, option, value: &[u8]| {
            socket.set_bytes(option, value).map_err(|errno| refused(name, errno))
        };
        let yes = &1i32.to_ne_bytes();
        set(socket, "ZMQ_CURVE_SERVER", zmq_sys::ZMQ_CURVE_SERVER, yes)?;
        set(socket, "ZMQ_CURVE_SECRETKEY", zmq_sys::ZMQ_CURVE_SECRETKEY, keys.secret_bytes())?;
        set(socket, "ZMQ_ZAP_DOMAIN", zmq_sys::ZMQ_ZAP_DOMAIN, domain.as_bytes())?;
        set(socket, "ZMQ_ZAP_ENFORCE_DOMAIN", ZMQ_ZAP_ENFORCE_DOMAIN, yes)
    }

    /// Sets a socket up that is to be connected.
    pub(crate) fn apply_to_connect(&self, socket: &mut RawSocket) -> Result<()> {
        check_curve()?;
        let Kind::Client { server, keys } = &self.0 else {
            return Err(wrong("these are a server's keys; a connection needs Security::client"));
        };
        let public = keys.public();
        for (name, option, key) in [
            ("ZMQ_CURVE_SERVERKEY", zmq_sys::ZMQ_CURVE_SERVERKEY, server.as_bytes()),
            ("ZMQ_CURVE_PUBLICKEY", zmq_sys::ZMQ_CURVE_PUBLICKEY, public.as_bytes()),
            ("ZMQ_CURVE_SECRETKEY", zmq_sys::ZMQ_CURVE_SECRETKEY, keys.secret_bytes()),
        ] {
            socket.set_bytes(option, key).map_err(|errno| refused(name, errno))?;
        }
        Ok(())
    }
}

/// Refuses security where this libzmq would not give it.
fn check_curve() -> Result<()> {
    if Capabilities::of_this_build().curve { Ok(()) } else { Err(TransportError::CurveMissing) }
}

fn wrong(reason: impl Into<String>) -> TransportError {
    TransportError::Security { reason: reason.into() }
}
