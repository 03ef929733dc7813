//! What a seed's fleet is like: how many of whom, their limits, what is asked of them, and how often
//! what goes wrong. Some seeds are calm in some way, so that what follows from one fault is not
//! always hidden behind another.

use std::collections::BTreeMap;
use std::sync::Arc;

use pinmesh_core::{CoreConfig, Rate, ServiceLimits, Span, TaskDefaults};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::id::Priority;
use pinmesh_session::supervision::{Config, GraceSignal};

use crate::client::Ask;
use crate::clock::{MS, S, US};
use crate::counters::{Class, Count};
use crate::random::Random;
use crate::task::{Act, IdempotencyKey, Key, PAYLOAD_MIN, Plan};
use crate::worker::WorkerShape;

/// What workers offer.
const OFFERED: [&str; 3] = ["red", "green", "blue"];
/// What some of them have beside it.
const LABELS: [&str; 2] = ["gpu", "near"];
/// Names of the services that tasks are for.
pub const SERVICES: [&str; 5] = ["red", "green", "blue", "green{gpu}", "blue{gpu,near}"];

/// See the module.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Brokers.
    pub brokers: usize,
    /// Hosts, and workers of each.
    pub hosts: Vec<usize>,
    /// Workers without a supervisor.
    pub loners: usize,
    /// Clients at a time.
    pub clients: usize,
    /// Limits of the brokers.
    pub core: CoreConfig,
    /// Limits of single brokers that are not as those of the others.
    pub own_cores: BTreeMap<usize, CoreConfig>,
    /// Window of a worker for each broker.
    pub window: (u32, u64),
    /// Buckets and ways of the refusal tables.
    pub refusals: (usize, usize),
    /// Patience of the supervisors, nanoseconds.
    pub supervisor: Patience,
    /// Latency one way: least, and added at most.
    pub latency: (u64, u64),
    /// Mean time between what a client's caller does, nanoseconds.
    pub pace: u64,
    /// Requests handed in at once, at most.
    pub burst: u64,
    /// The shortest and the longest that a well-behaved handler takes, nanoseconds.
    pub duration_min: u64,
    /// See above.
    pub duration_max: u64,
    /// The longest payload.
    pub payload_max: u64,
    /// Handlers that misbehave, in a thousand.
    pub misbehave: u64,
    /// Faults and the mean time between two of each, nanoseconds.
    pub faults: Vec<(Count, u64)>,
}

/// Of a supervisor.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// With a worker that stands still.
    pub stall_max: u64,
    /// With workers that are asked to leave.
    pub drain: u64,
    grace: u64,
    watch_busy: u64,
    restart_max: u64,
    warns: bool,
}

impl Patience {
    /// That of a real one, as nearly as matters.
    const USUAL: Self = Self {
        stall_max: 10 * S,
        drain: 30 * S,
        grace: 5 * S,
        watch_busy: 100 * MS,
        restart_max: 10 * S,
        warns: false,
    };

    fn draw(random: &mut Random) -> Self {
        Self {
            stall_max: random.scale(S, 4 * S),
            drain: random.scale(200 * MS, 4 * S),
            grace: random.scale(100 * MS, S),
            watch_busy: random.scale(10 * MS, 100 * MS),
            restart_max: random.scale(200 * MS, 3 * S),
            warns: random.one_in(3),
        }
    }

    /// Sets what is not as by default.
    pub fn apply(&self, config: &mut Config) {
        config.stall_max_ns = self.stall_max;
        config.drain_ns = self.drain;
        config.grace_ns = self.grace;
        config.watch_busy_ns = self.watch_busy;
        config.watch_idle_ns = 5 * self.watch_busy;
        config.restart_max_ns = self.restart_max;
        config.restart_min_ns = 50 * MS;
        config.healthy_ns = 2 * S;
        let grace = GraceSignal { signal: 15, grace_ns: self.grace / 2 };
        config.overrun_signal = self.warns.then_some(grace);
    }
}

impl Shape {
    /// The fleet of a seed.
    pub fn draw(random: &mut Random, has_faults: bool) -> Self {
        let brokers = if random.percent(40) { 2 } else { 1 };
        let mut hosts: Vec<usize> = (0..random.below(4)).map(|_| 0).collect();
        hosts.fill_with(|| random.between(1, 3) as usize);
        let loners = random.below(3) as usize;
        if hosts.is_empty() && loners == 0 {
            hosts.push(2);
        }
        let core = draw_core(random);
        let faults = if has_faults { draw_faults(random, &core) } else { Vec::new() };
        let latency = random.scale(20 * US, 5 * MS);
        let duration_max = random.scale(100 * US, 4 * S);
        let duration_min = if random.one_in(2) { US } else { duration_max / 50 + US };
        Self {
            brokers,
            hosts,
            loners,
            clients: random.between(1, 4) as usize,
            window: (random.between(1, 16) as u32, random.scale(200, 40_000)),
            refusals: if random.one_in(4) { (1, 1) } else { (256, 8) },
            supervisor: Patience::draw(random),
            latency: (latency, latency * random.below(4)),
            pace: random.scale(3 * MS, 400 * MS),
            burst: random.scale(1, 12),
            duration_min,
            duration_max,
            payload_max: random.scale(PAYLOAD_MIN as u64 + 1, 4_000),
            misbehave: if random.one_in(4) { 0 } else { random.scale(1, 60) },
            faults,
            core,
            own_cores: BTreeMap::new(),
        }
    }

    /// A fleet of so many, in which everything is as by default and nothing happens by itself; but a
    /// worker is sent what fits its window, so that a scenario says what it holds.
    pub fn plain(brokers: usize, hosts: Vec<usize>, loners: usize, clients: usize) -> Self {
        Self {
            brokers,
            hosts,
            loners,
            clients,
            core: CoreConfig { is_credit_fixed: true, ..CoreConfig::default() },
            own_cores: BTreeMap::new(),
            window: (8, 1 << 20),
            refusals: (256, 8),
            supervisor: Patience::USUAL,
            latency: (MS, 0),
            pace: 0,
            burst: 0,
            duration_min: US,
            duration_max: S,
            payload_max: PAYLOAD_MIN as u64,
            misbehave: 0,
            faults: Vec::new(),
        }
    }

    /// The limits of a broker.
    pub fn core_of(&self, broker: usize) -> &CoreConfig {
        self.own_cores.get(&broker).unwrap_or(&self.core)
    }

    /// What the workers of a host, or one without, are started with.
    pub fn worker(&self, place: usize) -> WorkerShape {
        // The first of each kind serves everything, so that something is always served by somebody.
        let services = OFFERED.iter().enumerate().filter(|(at, _)| place == 0 || *at != place % 3);
        let labels = LABELS.iter().take(2 - place % 3);
        WorkerShape {
            brokers: self.brokers,
            services: services.map(|(_, name)| (*name).into()).collect(),
            labels: labels.map(|label| (*label).into()).collect(),
            window: self.window,
            refusals: self.refusals,
        }
    }

    /// One of a few. Some are every service's, so that they are refused.
    pub fn idempotency_key(&self, random: &mut Random) -> IdempotencyKey {
        let service = random.below(SERVICES.len() as u64) as u32;
        let service = (!random.one_in(30)).then_some(service);
        IdempotencyKey { service, number: random.below(4) as u8 }
    }

    /// A request.
    pub fn ask(&self, random: &mut Random) -> Ask {
        let misbehaves = random.below(1000) < self.misbehave;
        let act = match random.below(8) {
            7 if random.one_in(5) => Act::FailOnce,
            7 if random.one_in(5) => Act::FailFinal,
            0 if misbehaves => Act::Poison,
            1 | 2 if misbehaves => Act::CrashOnce,
            3 if misbehaves => Act::Hang,
            4 | 5 if misbehaves => Act::Brink,
            _ if misbehaves => Act::Wait,
            0 if random.one_in(3) => Act::Fail,
            _ => Act::Ok,
        };
        let is_at_most_once = random.one_in(8);
        let key = self.idempotency_key(random);
        let service = key.service.unwrap_or_else(|| random.below(SERVICES.len() as u64) as u32);
        let key = random.one_in(5).then_some(key);
        let retention_ns = random.one_in(2).then(|| random.scale(10 * MS, 4 * S));
        let options = TaskOptions {
            at_most_once: is_at_most_once,
            accepted: random.one_in(6),
            max_runtime_ns: random.one_in(8).then(|| random.scale(5 * MS, 2 * S)),
            tries_max: random.one_in(8).then(|| random.between(1, 3) as u32),
            backoff_ns: random.one_in(8).then(|| random.scale(MS, 2 * S)),
            backoff_max_ns: random.one_in(8).then(|| random.scale(MS, S)),
            start_after_ns: None,
            kill_at_deadline: random.one_in(4),
            key: key.map(|key| key.to_bytes()),
            detached: key.is_some() && random.one_in(4),
            retention_ns: retention_ns.filter(|_| key.is_some()),
            run_on: random.one_in(8),
        };
        let has_bad_options = !is_at_most_once && random.one_in(200);
        let encoded = match (has_bad_options, options.is_default()) {
            (true, _) => Some(Arc::from([0x81, 0xa1, b'x', 1])),
            (false, true) => None,
            (false, false) => Some(options.encode().into()),
        };
        Ask {
            plan: Plan {
                key: Key::default(),
                act,
                duration: random.scale(self.duration_min, self.duration_max),
                is_obedient: random.one_in(2),
                updates: if random.one_in(4) { random.between(1, 12) as u8 } else { 0 },
            },
            len: random.scale(PAYLOAD_MIN as u64, self.payload_max) as usize,
            service,
            priority: Priority::new(random.between(1, 10) as u8).unwrap_or_default(),
            deadline_ns: random.one_in(6).then(|| random.scale(500 * US, 8 * S)),
            start_after_ns: random.one_in(8).then(|| random.scale(MS, 4 * S)),
            options: encoded,
            is_at_most_once,
            runs_on: options.run_on || options.detached,
            key: key.filter(|_| !has_bad_options),
            has_bad_options,
            shows_busy: random.one_in(10),
            name: None,
        }
    }
}

fn draw_core(random: &mut Random) -> CoreConfig {
    let heartbeat = random.scale(150 * MS, S);
    CoreConfig {
        heartbeat: Span(heartbeat),
        lease: Span(heartbeat * random.between(4, 10)),
        grace: Span(random.scale(400 * MS, 2 * S)),
        service_wait: Span(random.scale(S, 8 * S)),
        client_kept: Span(random.scale(4 * S, 20 * S)),
        max_runtime: Span(random.scale(500 * MS, 4 * S)),
        crashes_max: random.between(1, 3) as u32,
        tries_max: random.between(1, 4) as u32,
        backoff: Span(random.scale(MS, S)),
        backoff_max: Span(random.scale(MS, 4 * S)),
        jitter_seed: random.next(),
        client_window_tasks: random.scale(3, 80) as u32,
        client_window_bytes: random.scale(1_000, 100_000),
        worker_window_tasks: random.scale(1, 32) as u32,
        worker_window_bytes: random.scale(500, 50_000),
        stream_bytes_max: random.scale(150, 5_000),
        memory_bytes_max: if random.one_in(4) { random.scale(10_000, 200_000) } else { 4_000_000 },
        dead_letters_max: if random.one_in(8) { 0 } else { random.scale(1, 60) as u32 },
        dead_bytes_max: random.scale(1_000, 100_000),
        dead_kept: Span(random.scale(S, 60 * S)),
        key_kept: Span(random.scale(20 * MS, 4 * S)),
        detached_kept: Span(random.scale(100 * MS, 8 * S)),
        keys_max: if random.one_in(4) { random.scale(1, 6) as u32 } else { 1_000 },
        sessions_max: 500,
        services_max: 16,
        is_strict: random.one_in(4),
        is_credit_fixed: random.one_in(2),
        recalls: !random.one_in(8),
        retry_after: Span(random.scale(5 * MS, 300 * MS)),
        own_service_limits: draw_service_limits(random),
        ..CoreConfig::default()
    }
}

/// Every other fleet has services with limits of their own.
fn draw_service_limits(random: &mut Random) -> BTreeMap<String, ServiceLimits> {
    let mut own = BTreeMap::new();
    if random.one_in(2) {
        return own;
    }
    for name in SERVICES {
        if random.one_in(2) {
            own.insert(name.to_owned(), draw_limits(random));
        }
    }
    own
}

/// Limits of a service, most of them near enough to be met.
pub(crate) fn draw_limits(random: &mut Random) -> ServiceLimits {
    let usual = ServiceLimits::default();
    ServiceLimits {
        pending_max: if random.one_in(2) { random.scale(2, 60) as u32 } else { usual.pending_max },
        in_flight_max: if random.one_in(2) {
            random.scale(1, 12) as u32
        } else {
            usual.in_flight_max
        },
        bytes_max: if random.one_in(3) { random.scale(2_000, 60_000) } else { usual.bytes_max },
        rate: random.one_in(2).then(|| Rate {
            interval: Span(random.scale(10 * US, 40 * MS)),
            burst: random.scale(1, 12) as u32,
        }),
        task_defaults: TaskDefaults {
            max_runtime: random.one_in(4).then(|| Span(random.scale(50 * MS, 4 * S))),
            tries_max: random.one_in(4).then(|| random.between(1, 3) as u32),
            backoff: random.one_in(4).then(|| Span(random.scale(MS, S))),
            backoff_max: random.one_in(4).then(|| Span(random.scale(MS, 2 * S))),
        },
    }
}

fn draw_faults(random: &mut Random, core: &CoreConfig) -> Vec<(Count, u64)> {
    let is_quiet = random.one_in(10);
    let mut faults = Vec::new();
    for fault in Count::ALL.iter().filter(|count| count.class() == Class::Fault) {
        let is_wanted = random.one_in(if is_quiet { 8 } else { 2 });
        let mean = match fault {
            Count::Cut | Count::Stall | Count::Full | Count::WorkerKill => {
                random.scale(300 * MS, 20 * S)
            }
            Count::Rogue => random.scale(100 * MS, 5 * S),
            // At most one within the time that its grace allows for.
            Count::BrokerJump => 2 * core.host_requeue().0 + random.scale(S, 20 * S),
            Count::BrokerKill | Count::BrokerDrain => random.scale(3 * S, 60 * S),
            _ => random.scale(S, 40 * S),
        };
        if is_wanted {
            faults.push((*fault, mean));
        }
    }
    faults
}
