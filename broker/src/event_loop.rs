//! Read, hand to the machine, flush, wait. Decides nothing.

use std::time::{Duration, Instant};

use pinmesh_core::{Broker, Event, Side, Time};
use pinmesh_host::{CpuSelection, CpuSet, pin_current_thread};
use pinmesh_protocol::id::Epoch;
use pinmesh_protocol::limits;
use pinmesh_transport::{
    Context, ContextOptions, Endpoint, Message, Poller, Router, SocketOptions, Token,
    TransportError,
};

use crate::admin_queue::AdminQueue;
use crate::body::Body;
use crate::config::{Config, HttpListen, span_of};
use crate::counters::Counters;
use crate::error::BrokerError;
use crate::http::{Listener, Serving};
use crate::inbound::Inbound;
use crate::keys::{self, Keys};
use crate::outbound::{Notice, Outbound, Sockets};
use crate::pool;
use crate::signals::Signals;
use crate::stages::Stages;

/// What one turn reads from one socket, so that neither starves the other or the timers.
const TURN_MESSAGES_MAX: u32 = 64;
const TURN_BYTES_MAX: usize = 4 << 20;
/// How often a log of intervals has to be looked after.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

const FRONTEND: Token = Token(0);
const BACKEND: Token = Token(1);
const ADMIN: Token = Token(2);
/// And those behind it.
const SIGNALS: Token = Token(3);

/// How the event loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything that was accepted has ended and was acknowledged.
    Drained,
    /// The drain time is over, or a second signal came.
    CutShort {
        /// Tasks that have not ended.
        tasks: u64,
        /// Results that their clients have not acknowledged.
        results: u64,
    },
}

/// A broker that is bound and ready to run.
pub struct EventLoop {
    broker: Broker<Body>,
    inbound: Inbound,
    outbound: Outbound,
    keys: Option<Keys>,
    poller: Poller,
    signals: Signals,
    admin: Option<AdminQueue>,
    /// Where the admin API listens; `None`: nowhere.
    http: Option<Serving>,
    message: Message,
    origin: Instant,
    spin: Duration,
    drain_time: Duration,
    drain_until: Option<Time>,
    is_cut_short: bool,
}

impl EventLoop {
    /// Starts the IO threads, binds backend and frontend, and pins the calling thread, which is the
    /// one to call [`run`](Self::run).
    ///
    /// # Errors
    /// An endpoint that cannot be bound, CPUs that cannot be had, a log that cannot be written.
    pub fn new(config: &Config) -> Result<Self, BrokerError> {
        let pin = config.cpu.map(CpuSet::single);
        let io_cpus = match (&config.io_cpus, &pin) {
            (Some(selection), _) => Some(resolve("[cpu] io (--io-cpu)", selection)?),
            (None, Some(cpus)) => {
                Some(resolve("[cpu] pin (--cpu)", &CpuSelection::Ids(cpus.clone()))?)
            }
            (None, None) => None,
        };
        let context = Context::new(&ContextOptions {
            io_threads: config.io_threads,
            io_cpus,
            thread_name: "pmb".into(),
            ..ContextOptions::default()
        })
        .map_err(transport("the IO threads"))?;
        let keys = config.key_files().map(|files| Keys::start(&context, &files)).transpose()?;
        if keys.is_none() {
            tracing::info!("keys are off: whoever reaches the endpoints may submit and run tasks");
        }
        let bind = |side, endpoint: &Endpoint| {
            let security = keys.as_ref().map(|keys| keys.security(side));
            let options = SocketOptions { security, ..socket_options(config) };
            let bound = Router::bind(&context, endpoint, &options);
            bound.map_err(|error| bind_error(side, endpoint, error))
        };
        let mut backend = bind(Side::Backend, &config.backend)?;
        let mut frontend = bind(Side::Frontend, &config.frontend)?;
        let mut poller = Poller::new().map_err(transport("the event loop"))?;
        // Its thread is started before this one is pinned, or it would share this one's CPU.
        let (mut admin, mut http) = (None, None);
        if let Some(listener) = Listener::bind(&config.http)? {
            let waker = poller.waker(ADMIN).map_err(transport("the event loop"))?;
            let (asker, queue) = AdminQueue::new(waker);
            http = Some(listener.serve(asker)?);
            admin = Some(queue);
        }
        if let Some(cpu) = config.cpu {
            pin_current_thread(cpu)
                .map_err(|source| BrokerError::Cpu { setting: "[cpu] pin (--cpu)", source })?;
        }
        poller.register(&mut frontend, FRONTEND).map_err(transport("frontend"))?;
        poller.register(&mut backend, BACKEND).map_err(transport("backend"))?;
        let signals = Signals::new(poller.registry(), SIGNALS)
            .map_err(|source| BrokerError::System { action: "catch signals", source })?;
        let origin = Instant::now();
        let stages =
            Stages::new(config.latency_log.as_deref(), origin).map_err(BrokerError::LatencyLog)?;
        let mut core = config.core.clone();
        core.epoch = Epoch(u32::from_ne_bytes(random("draw an epoch")?));
        core.hash_seed = u64::from_ne_bytes(random("draw a seed")?);
        core.jitter_seed = u64::from_ne_bytes(random("draw a seed")?);
        tracing::info!(epoch = format!("{:08x}", core.epoch.0), "this life of the broker");
        let sockets = Sockets { frontend, backend };
        Ok(Self {
            outbound: Outbound::new(sockets, core.sessions_max, stages),
            broker: Broker::new(core),
            inbound: Inbound::default(),
            keys,
            poller,
            signals,
            admin,
            http,
            message: Message::default(),
            origin,
            spin: config.spin,
            drain_time: config.drain_time,
            drain_until: None,
            is_cut_short: false,
        })
    }

    /// The endpoints that are really bound: frontend, backend.
    #[must_use]
    pub fn endpoints(&self) -> (&Endpoint, &Endpoint) {
        let sockets = &self.outbound.sockets;
        (sockets.frontend.endpoint(), sockets.backend.endpoint())
    }

    /// Where the admin API really listens; `None`: nowhere.
    #[must_use]
    pub fn http(&self) -> Option<&HttpListen> {
        self.http.as_ref().map(|http| &http.address)
    }

    /// Runs until a signal has drained the broker, or cut that short.
    ///
    /// # Errors
    /// A socket that is broken.
    pub fn run(mut self) -> Result<Ended, BrokerError> {
        loop {
            self.turn()?;
            if let Some(ended) = self.ended() {
                return self.leave(ended);
            }
            self.wait()?;
        }
    }

    fn turn(&mut self) -> Result<(), BrokerError> {
        self.outbound.counters.turns += 1;
        self.read(Side::Backend)?;
        self.read(Side::Frontend)?;
        let now = self.look_at_the_clock();
        self.outbound.retry(now);
        if self.broker.next_wakeup().is_some_and(|wakeup| wakeup <= now) {
            self.broker.handle(now, Event::Tick, &mut self.outbound);
        }
        debug_assert!(self.broker.ledger().is_balanced(), "{:?}", self.broker.ledger());
        self.flush()
    }

    /// Reads what is ready on one socket, up to a bound.
    fn read(&mut self, side: Side) -> Result<(), BrokerError> {
        let mut bytes = 0;
        for _ in 0..TURN_MESSAGES_MAX {
            let socket = self.outbound.sockets.of(side);
            if !socket.recv(&mut self.message).map_err(transport(name(side)))? {
                break;
            }
            bytes += self.message.frames.iter().map(|frame| frame.len()).sum::<usize>();
            let now = self.look_at_the_clock();
            let broker = &mut self.broker;
            self.inbound.message(
                side,
                &mut self.message,
                &mut self.outbound,
                &mut |event, outbound| broker.handle(now, event, outbound),
            );
            self.deliver_notices(now);
            if bytes >= TURN_BYTES_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Sends every batch, tells the machine whom nothing could be sent to, and sends what that
    /// caused. It ends: a peer becomes full or gone only once.
    fn flush(&mut self) -> Result<(), BrokerError> {
        loop {
            self.outbound.flush().map_err(transport("the event loop"))?;
            let now = self.outbound.now;
            if !self.deliver_notices(now) {
                return Ok(());
            }
        }
    }

    fn deliver_notices(&mut self, now: Time) -> bool {
        let mut is_any = false;
        while let Some(notice) = self.outbound.take_notice() {
            is_any = true;
            tracing::debug!(?notice, "peer");
            self.broker.handle(now, notice.event(), &mut self.outbound);
            if let Notice::Gone(conn) = notice {
                self.outbound.forget(conn);
            }
        }
        is_any
    }

    fn wait(&mut self) -> Result<(), BrokerError> {
        let now = self.look_at_the_clock();
        let until = self
            .broker
            .next_wakeup()
            .unwrap_or(Time::NEVER)
            .min(self.outbound.next_retry())
            .min(self.drain_until.unwrap_or(Time::NEVER));
        let mut timeout = (until < Time::NEVER).then(|| Duration::from_nanos(until.since(now).0));
        let log = self.outbound.stages.has_log().then_some(LOG_INTERVAL);
        let refusals = self.keys.is_some().then_some(keys::LOOK_EVERY);
        let errands = self.admin.as_ref().is_some_and(AdminQueue::has_more);
        let errands = errands.then_some(Duration::ZERO);
        timeout = [timeout, log, refusals, errands].into_iter().flatten().min();
        let Sockets { frontend, backend } = &mut self.outbound.sockets;
        let wake = self
            .poller
            .wait(&mut [frontend, backend], timeout, self.spin)
            .map_err(transport("the event loop"))?;
        if wake.others {
            self.on_signals();
        }
        if wake.others || errands.is_some() {
            self.serve_admin();
        }
        Ok(())
    }

    /// Does some of what the admin API asks; its effects go out with the next turn's.
    fn serve_admin(&mut self) {
        if self.admin.is_none() {
            return;
        }
        let now = self.look_at_the_clock();
        let Some(admin) = &mut self.admin else { return };
        if admin.serve(&mut self.broker, &mut self.outbound, now) && self.drain_until.is_none() {
            self.start_drain(now);
        }
    }

    fn on_signals(&mut self) {
        let taken = self.signals.take();
        let now = self.look_at_the_clock();
        match &self.keys {
            _ if taken.hangups == 0 => {}
            Some(keys) => keys.reload(),
            None => tracing::warn!(
                "SIGHUP reads authorized keys again, and there are none: restart the broker for \
                 another configuration"
            ),
        }
        if taken.reports > 0 {
            self.report();
        }
        for _ in 0..taken.stops {
            if self.drain_until.is_some() {
                self.is_cut_short = true;
                continue;
            }
            self.start_drain(now);
        }
    }

    fn start_drain(&mut self, now: Time) {
        let counts = self.broker.counts();
        tracing::info!(
            pending = counts.pending,
            in_flight = counts.in_flight,
            time = %humantime::format_duration(self.drain_time),
            "draining; a second signal ends it"
        );
        self.drain_until = Some(now.after(span_of(self.drain_time)));
        self.broker.handle(now, Event::Drain, &mut self.outbound);
    }

    fn ended(&self) -> Option<Ended> {
        let until = self.drain_until?;
        if self.broker.is_drained() {
            Some(Ended::Drained)
        } else if self.is_cut_short || self.outbound.now >= until {
            let tasks = self.broker.ledger().held;
            let results = self.broker.counts().tasks.saturating_sub(tasks);
            Some(Ended::CutShort { tasks, results })
        } else {
            None
        }
    }

    /// Says GOODBYE to everyone and what has been done to the log.
    fn leave(mut self, ended: Ended) -> Result<Ended, BrokerError> {
        self.outbound.goodbye();
        self.outbound.flush().map_err(transport("the event loop"))?;
        self.report();
        self.outbound.stages.finish(Instant::now());
        drop(self.admin.take());
        if let Some(http) = self.http.take() {
            http.end();
        }
        Ok(ended)
    }

    fn report(&mut self) {
        self.outbound.counters.pool_misses = pool::misses();
        let counters: &Counters = &self.outbound.counters;
        let ledger = self.broker.ledger();
        tracing::info!("{ledger:?}");
        if !ledger.is_balanced() {
            tracing::error!(
                "the ledger does not add up: tasks were lost or counted twice; report it"
            );
        }
        tracing::info!("{:?}", self.broker.counts());
        tracing::info!("traffic: {counters}");
        if let Some(keys) = &self.keys {
            keys.report();
        }
    }

    /// The time, once a message, for everything that the message causes.
    #[inline]
    fn look_at_the_clock(&mut self) -> Time {
        let instant = Instant::now();
        self.outbound.stages.tick(instant);
        if let Some(keys) = &mut self.keys {
            keys.look(instant);
        }
        let now = Time((instant - self.origin).as_nanos() as u64);
        self.outbound.now = now;
        now
    }
}

fn resolve(setting: &'static str, cpus: &CpuSelection) -> Result<Vec<usize>, BrokerError> {
    let cpus = cpus.resolve_here().map_err(|source| BrokerError::Cpu { setting, source })?;
    Ok(cpus.iter().map(|cpu| cpu.index()).collect())
}

fn socket_options(config: &Config) -> SocketOptions {
    let payload = config.core.payload_bytes_max;
    SocketOptions {
        insecure: config.insecure,
        frame_bytes_max: limits::FRAME_BYTES_MAX as u64,
        frames_max: limits::FRAMES_MAX + 1,
        message_bytes_max: payload + limits::FIRST_FRAME_BYTES_MAX as u64,
        ..SocketOptions::default()
    }
}

fn random<const BYTES: usize>(action: &'static str) -> Result<[u8; BYTES], BrokerError> {
    let mut bytes = [0; BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| BrokerError::System { action, source: errno.into() })?;
    Ok(bytes)
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Frontend => "frontend",
        Side::Backend => "backend",
    }
}

fn bind_error(side: Side, endpoint: &Endpoint, source: TransportError) -> BrokerError {
    let flag = match side {
        Side::Frontend => "--frontend",
        Side::Backend => "--backend",
    };
    match source {
        TransportError::Zmq { errno, .. }
            if errno == rustix::io::Errno::ADDRINUSE.raw_os_error() =>
        {
            BrokerError::Taken { flag, endpoint: endpoint.to_string() }
        }
        source => BrokerError::Transport { what: name(side), source },
    }
}

fn transport(what: &'static str) -> impl Fn(TransportError) -> BrokerError {
    move |source| BrokerError::Transport { what, source }
}
