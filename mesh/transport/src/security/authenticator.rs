//! The ZAP handler (ZeroMQ RFC 27): libzmq asks it about every new connection.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Token, Waker};

use crate::Result;
use crate::context::Context;
use crate::core::{Responder, SocketCore};
use crate::error::TransportError;
use crate::message::Message;
use crate::options::{SocketOptions, zmq_error};
use crate::raw::Frame;
use crate::readiness::Poller;
use crate::security::allow_list::{Role, SharedAllowList};
use crate::security::keys::{KeyPair, PublicKey};
use crate::security::{Security, check_curve, wrong};
use crate::socket::{Dealer, Router};

const ENDPOINT: &std::ffi::CStr = c"inproc://zeromq.zap.01";
/// The domain of the self-test's socket, where only the test's own key is let in.
const SELF_TEST_DOMAIN: &str = "pinmesh-self-test";
const SELF_TEST_MAX: Duration = Duration::from_secs(10);
const SOCKET: Token = Token(0);
const STOP: Token = Token(1);

/// How many connections were let in and refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthCounters {
    /// Handshakes of listed keys.
    pub accepted: u64,
    /// Handshakes of others. A refused peer may try again and again.
    pub refused: u64,
}

/// A connection that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its address, as libzmq tells it; empty over ipc.
    pub address: String,
    /// Its key.
    pub key: Option<PublicKey>,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused {}: {}", self.address, self.reason)?;
        self.key.map_or(Ok(()), |key| write!(f, ": {key}"))
    }
}

/// What the handler's thread and its handles share.
struct Shared {
    list: SharedAllowList,
    /// The key that the self-test's socket lets in, and the one that it last refused.
    test_key: Mutex<Option<PublicKey>>,
    test_refused: Mutex<Option<PublicKey>>,
    accepted: AtomicU64,
    refused: AtomicU64,
    last_refusal: Mutex<Option<Refusal>>,
    stop: AtomicBool,
}

/// Decides who may connect to the sockets of a context. One a context. Cloning shares it.
///
/// It runs in a thread of its own until the last handle and the last socket with its keys are
/// gone. Without it, sockets with keys refuse everyone.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    context: Context,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Authenticator {
    /// Starts it and shows that it works: a listed key gets through to a socket of this process,
    /// an unknown one does not. To be called before anything is bound.
    ///
    /// # Errors
    /// This libzmq has no CURVE, the context has an authenticator already, the system is out of
    /// resources, or the test failed.
    pub fn start(context: &Context, list: SharedAllowList) -> Result<Self> {
        check_curve()?;
        let options = SocketOptions { linger_ms: 0, ..SocketOptions::default() };
        let mut core = SocketCore::open(context, zmq_sys::ZMQ_REP, false, &options)?;
        core.raw
            .bind(ENDPOINT)
            .map_err(|errno| zmq_error("zmq_bind", ENDPOINT.to_string_lossy(), errno))?;
        let mut responder = Responder { core };
        let mut poller = Poller::new()?;
        let waker = poller.waker(STOP)?;
        poller.register(&mut responder, SOCKET)?;
        let shared = Arc::new(Shared {
            list,
            test_key: Mutex::new(None),
            test_refused: Mutex::new(None),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_refusal: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("pm-zap".into())
                .spawn(move || serve(&shared, &mut responder, &mut poller))
                .map_err(|source| TransportError::Poll { action: "start a thread", source })?
        };
        let inner = Inner { shared, context: context.clone(), waker, thread: Some(thread) };
        let authenticator = Self { inner: Arc::new(inner) };
        authenticator.self_test()?;
        Ok(authenticator)
    }

    /// The keys of a socket to be bound, which lets in the listed keys with `role`.
    #[must_use]
    pub fn server(&self, keys: &KeyPair, role: Role) -> Security {
        Security::server(keys, role.domain(), self.clone())
    }

    /// The list that it goes by.
    #[must_use]
    pub fn allow_list(&self) -> &SharedAllowList {
        &self.inner.shared.list
    }

    /// What it has decided so far.
    #[must_use]
    pub fn counters(&self) -> AuthCounters {
        AuthCounters {
            accepted: self.inner.shared.accepted.load(Ordering::Relaxed),
            refused: self.inner.shared.refused.load(Ordering::Acquire),
        }
    }

    /// The last connection that it refused; taken, so that each is told at most once.
    #[must_use]
    pub fn take_last_refusal(&self) -> Option<Refusal> {
        lock(&self.inner.shared.last_refusal).take()
    }

    pub(crate) fn serves(&self, context: &Context) -> bool {
        Arc::ptr_eq(self.inner.context.raw(), context.raw())
    }

    fn self_test(&self) -> Result<()> {
        let shared = &self.inner.shared;
        let (server, known, unknown) =
            (KeyPair::generate()?, KeyPair::generate()?, KeyPair::generate()?);
        *lock(&shared.test_key) = Some(known.public());
        let options = |security| SocketOptions {
            linger_ms: 0,
            security: Some(security),
            ..SocketOptions::default()
        };
        let bind = options(Security::server(&server, SELF_TEST_DOMAIN, self.clone()));
        let context = &self.inner.context;
        let mut router = Router::bind(context, &"tcp://127.0.0.1:0".parse()?, &bind)?;
        let mut poller = Poller::new()?;
        poller.register(&mut router, SOCKET)?;
        let connect = |keys| {
            let options = options(Security::client(server.public(), keys));
            Dealer::connect(context, router.endpoint(), &options)
        };
        let (mut stranger, mut friend) = (connect(&unknown)?, connect(&known)?);
        let _ = stranger.send(b"stranger", &mut Vec::new())?;
        let _ = friend.send(b"friend", &mut Vec::new())?;
        let start = Instant::now();
        let mut message = Message::default();
        let (mut refused, mut heard) = (false, false);
        while !(refused && heard) {
            while router.recv(&mut message)? {
                match message.body() {
                    b"friend" => heard = true,
                    _ => return Err(wrong("self-test: a key that is not listed was let in")),
                }
            }
            refused |= *lock(&shared.test_refused) == Some(unknown.public());
            if start.elapsed() > SELF_TEST_MAX {
                return Err(wrong(format!(
                    "self-test: within {SELF_TEST_MAX:?} the listed key was {}, the unlisted {}",
                    if heard { "let in" } else { "not let in" },
                    if refused { "refused" } else { "not refused" },
                )));
            }
            let _ =
                poller.wait(&mut [&mut router], Some(Duration::from_millis(1)), Duration::ZERO)?;
        }
        *lock(&shared.test_key) = None;
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let woken = self.waker.wake();
        if let (Ok(()), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticator({:?})", self.counters())
    }
}

/// The handler's thread. An error ends it, and from then on everyone is refused.
fn serve(shared: &Shared, responder: &mut Responder, poller: &mut Poller) {
    let mut message = Message::default();
    while !shared.stop.load(Ordering::Acquire) {
        let answered = responder.core.recv_message(&mut message).and_then(|received| {
            if received {
                let mut reply = shared.answer(&message);
                return responder.core.send_frames(b"1.0", &mut reply).map(|_| ());
            }
            poller.wait(&mut [responder], None, Duration::ZERO).map(|_| ())
        });
        if answered.is_err() {
            return;
        }
    }
}

impl Shared {
    /// The frames of a reply after its version: request id, status, text, user id, metadata.
    ///
    /// A request is: version, request id, domain, address, routing id, mechanism, credentials.
    fn answer(&self, request: &Message) -> Vec<Frame> {
        let field = |index: usize| request.frames.get(index).map_or(&b""[..], |frame| frame);
        let decision = match (field(0), field(5), PublicKey::from_bytes(field(6))) {
            (b"1.0", b"CURVE", Some(key)) => self.decide(field(2), &key),
            _ => Err("no CURVE key".into()),
        };
        let (status, text, user) = match &decision {
            Ok(name) => ("200", "OK", name.as_str()),
            Err(reason) => ("400", reason.as_str(), ""),
        };
        let frames = [field(1), status.as_bytes(), text.as_bytes(), user.as_bytes(), b""];
        let frames = frames.map(Frame::copy_of).into();
        let key = PublicKey::from_bytes(field(6));
        match decision {
            Ok(_) if field(2) == SELF_TEST_DOMAIN.as_bytes() => {}
            Err(_) if field(2) == SELF_TEST_DOMAIN.as_bytes() => *lock(&self.test_refused) = key,
            Ok(_) => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
            }
            Err(reason) => {
                let address = String::from_utf8_lossy(field(3)).into_owned();
                *lock(&self.last_refusal) = Some(Refusal { address, key, reason });
                // Last, so that whoever sees the count finds the refusal.
                self.refused.fetch_add(1, Ordering::Release);
            }
        }
        frames
    }

    /// The name of a key that may connect to sockets of a domain.
    fn decide(&self, domain: &[u8], key: &PublicKey) -> Result<String, String> {
        if domain == SELF_TEST_DOMAIN.as_bytes() {
            let known = *lock(&self.test_key) == Some(*key);
            return if known {
                Ok("self-test".into())
            } else {
                Err("the key is not listed".into())
            };
        }
        self.list.read(|list| match list.entry(key) {
            None => Err("the key is not listed".into()),
            Some(entry) if entry.roles.iter().any(|r| r.domain().as_bytes() == domain) => {
                Ok(entry.name.clone())
            }
            Some(entry) => Err(format!("`{}` may not connect here: see its role", entry.name)),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
