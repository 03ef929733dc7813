//! Sleeping until something happens, without losing a wake-up.
//!
//! libzmq's descriptor is edge-triggered: a signal that a send or a receive has taken in never
//! comes again. So a thread may sleep only if the last call on every socket was a receive that
//! found nothing, or a look at its events that showed none. Draining a socket and then sending
//! before sleeping seems to work and loses about one wake-up in a thousand as soon as there is
//! work in between. Each socket keeps a flag for this, and [`Poller::wait`] obeys it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use crate::Result;
use crate::core::SocketCore;
use crate::error::TransportError;

/// Waits that may end at once because a socket has input, before the other sources are looked at.
const WAITS_BETWEEN_LOOKS: u32 = 32;
/// Most events taken from the system at a time; the rest come with the next call.
const EVENTS_MAX: usize = 256;

/// A socket that [`Poller::wait`] understands: [`Router`](crate::Router) or
/// [`Dealer`](crate::Dealer).
pub trait Pollable: Source + sealed::Sealed {}

pub(crate) mod sealed {
    use super::SocketCore;

    #[allow(unreachable_pub, reason = "the bound of a public trait that nobody else may implement")]
    pub trait Sealed {
        #[allow(private_interfaces, reason = "callable in this crate only")]
        fn core(&self) -> &SocketCore;
        #[allow(private_interfaces, reason = "callable in this crate only")]
        fn core_mut(&mut self) -> &mut SocketCore;
    }
}

/// Why [`Poller::wait`] returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Wake {
    /// Something may have come in, or a full queue may have room again: receive from every socket.
    pub sockets: bool,
    /// Other sources are ready: see [`Poller::others`].
    pub others: bool,
}

impl Wake {
    /// Whether nothing happened: the time is up, or a signal came.
    #[must_use]
    pub fn is_idle(self) -> bool {
        !self.sockets && !self.others
    }
}

/// mio's poll for ZeroMQ sockets and whatever else mio knows.
pub struct Poller {
    poll: Poll,
    events: Events,
    sockets: Vec<Token>,
    others: Vec<Token>,
    // Kept: a waker that is dropped takes back the wake-ups not seen yet.
    waker: Option<(Token, Arc<Waker>)>,
    waits_since_look: u32,
}

impl Poller {
    /// A poller without sources.
    ///
    /// # Errors
    /// The system is out of descriptors.
    pub fn new() -> Result<Self> {
        Ok(Self {
            poll: Poll::new().map_err(|source| failed("make a poller", source))?,
            events: Events::with_capacity(EVENTS_MAX),
            sockets: Vec::new(),
            others: Vec::new(),
            waker: None,
            waits_since_look: 0,
        })
    }

    /// Where other sources are registered (a pidfd, a timerfd, ...). Like all of mio they are
    /// edge-triggered: read each until it would block. Their tokens must differ from the sockets'.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// A handle with which other threads end [`wait`](Self::wait). It can be asked for again, and
    /// what it woke for is not lost when the handles are dropped.
    ///
    /// # Errors
    /// There is a waker with another token, or the system is out of descriptors.
    pub fn waker(&mut self, token: Token) -> Result<Arc<Waker>> {
        match &self.waker {
            Some((known, waker)) if *known == token => Ok(waker.clone()),
            Some(_) => {
                let source = io::Error::new(io::ErrorKind::AlreadyExists, "there is one already");
                Err(failed("make a waker", source))
            }
            None => {
                let waker = Waker::new(self.poll.registry(), token)
                    .map_err(|source| failed("make a waker", source))?;
                let waker = Arc::new(waker);
                self.waker = Some((token, waker.clone()));
                Ok(waker)
            }
        }
    }

    /// Adds a socket. From here on every [`wait`](Self::wait) must be given it.
    ///
    /// # Errors
    /// The socket or the token is already registered, or the system is out of resources.
    pub fn register(&mut self, socket: &mut dyn Pollable, token: Token) -> Result<()> {
        if self.sockets.contains(&token) {
            let source = io::Error::new(io::ErrorKind::AlreadyExists, "the token is taken");
            return Err(failed("register a socket", source));
        }
        socket
            .register(self.poll.registry(), token, Interest::READABLE)
            .map_err(|source| failed("register a socket", source))?;
        self.sockets.push(token);
        Ok(())
    }

    /// Takes a socket out. To be called before a registered socket is dropped.
    ///
    /// # Errors
    /// It is not registered.
    pub fn deregister(&mut self, socket: &mut dyn Pollable) -> Result<()> {
        let token = socket.core().token;
        socket
            .deregister(self.poll.registry())
            .map_err(|source| failed("deregister a socket", source))?;
        self.sockets.retain(|&known| Some(known) != token);
        Ok(())
    }

    /// The other sources that became ready during the last [`wait`](Self::wait).
    #[must_use]
    pub fn others(&self) -> &[Token] {
        &self.others
    }

    /// Waits until a socket or another source has something, at most `timeout` (None: for ever).
    /// For the first `spin` of it the thread stays awake, which spares the wake-up's latency and
    /// costs the CPU.
    ///
    /// Returns at once while any of `sockets` has input. It may return early for no reason. With
    /// input at every call the other sources are looked at in each 32nd.
    ///
    /// # Errors
    /// libzmq or the system refused; neither happens to sockets in good order.
    ///
    /// # Panics
    /// If `sockets` are not those that are registered: one left out could sleep for ever.
    pub fn wait(
        &mut self,
        sockets: &mut [&mut dyn Pollable],
        timeout: Option<Duration>,
        spin: Duration,
    ) -> Result<Wake> {
        assert!(
            sockets.len() == self.sockets.len()
                && sockets
                    .iter()
                    .all(|s| s.core().token.is_some_and(|t| self.sockets.contains(&t))),
            "wait must be given every registered socket ({}) and no other ({})",
            self.sockets.len(),
            sockets.len()
        );
        self.others.clear();
        for socket in sockets.iter_mut() {
            if socket.core_mut().has_input()? {
                return self.wake_with_input(sockets);
            }
        }
        self.waits_since_look = 0;
        let mut wake = Wake::default();
        let mut left = timeout;
        if !spin.is_zero() {
            let spin = timeout.map_or(spin, |timeout| spin.min(timeout));
            let start = Instant::now();
            while wake.is_idle() && start.elapsed() < spin {
                wake = self.look(sockets, Some(Duration::ZERO))?;
                std::hint::spin_loop();
            }
            left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
        }
        if wake.is_idle() { self.look(sockets, left) } else { Ok(wake) }
    }

    fn wake_with_input(&mut self, sockets: &mut [&mut dyn Pollable]) -> Result<Wake> {
        self.waits_since_look += 1;
        let mut wake = Wake { sockets: true, others: false };
        if self.waits_since_look >= WAITS_BETWEEN_LOOKS {
            self.waits_since_look = 0;
            wake.others = self.look(sockets, Some(Duration::ZERO))?.others;
        }
        Ok(wake)
    }

    /// Asks the system, and notes on the sockets what it says.
    fn look(
        &mut self,
        sockets: &mut [&mut dyn Pollable],
        timeout: Option<Duration>,
    ) -> Result<Wake> {
        let mut wake = Wake::default();
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(wake),
            Err(source) => return Err(failed("wait", source)),
        }
        for event in &self.events {
            let token = event.token();
            if let Some(socket) = sockets.iter_mut().find(|s| s.core().token == Some(token)) {
                socket.core_mut().maybe_ready = true;
                wake.sockets = true;
            } else {
                self.others.push(token);
                wake.others = true;
            }
        }
        Ok(wake)
    }
}

fn failed(action: &'static str, source: io::Error) -> TransportError {
    TransportError::Poll { action, source }
}
