//! Tasks through the broker's machine, for `scripts/instructions.sh` to count the instructions of:
//! SUBMIT, TASK, DONE, RESULT and both acknowledgements, so many tasks a message.
//!
//! `broker_instructions TASKS BATCH [QUEUED [SERVICES]]`
//!
//! So many are queued all the time, over so many services, all ten priorities and seven clients, so
//! that every task waits for its turn.

use pinmesh_core::{
    Body, Broker, Conn, CoreConfig, DoneEvent, Event, Excerpt, Outbox, ProgressHead, ResultBody,
    ResultHead, ServiceLimits, Side, SubmitEvent, TaskHead, Time,
};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::{FromBroker, Hello, Ready, ServiceAlias, ServiceRef, StageTimes};
use pinmesh_protocol::id::{
    AttemptId, ContentType, Epoch, Incarnation, PeerId, Priority, RequestId,
};
use pinmesh_protocol::id::{Slot, Submission};
use pinmesh_protocol::status::{EndStatus, Role, Status};

const EPOCH: Epoch = Epoch(7);
const WORKER: Conn = Conn(1);
/// The first of the clients.
const CLIENT: u32 = 2;
const CLIENTS: u64 = 7;
/// The worker's window, and that of one that has less than is queued.
const WINDOW: u64 = 128;
const NARROW: u64 = 8;
const NAMES: [&str; CLIENTS as usize] = ["ann", "bob", "cy", "dee", "eve", "fay", "guy"];
const PAYLOAD_BYTES: usize = 64;

#[derive(Clone, Copy)]
struct Payload([u8; PAYLOAD_BYTES]);

impl Body for Payload {
    fn payload_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn excerpt(&self, bytes_max: usize) -> Excerpt {
        let bytes = self.0.iter().take(bytes_max).copied().collect();
        Excerpt { content_type: ContentType::RAW, bytes, of_bytes: self.payload_bytes() }
    }
}

/// Keeps what the next step needs.
#[derive(Default)]
struct Peers {
    tasks: Vec<AttemptId>,
    results: u64,
}

impl Outbox<Payload> for Peers {
    fn task(&mut self, _: Conn, head: &TaskHead, _: &Payload) {
        self.tasks.push(AttemptId { epoch: EPOCH, task: head.task, dispatch: head.dispatch });
    }

    fn result(&mut self, _: Conn, head: &ResultHead, _: ResultBody<'_, Payload>) {
        assert_eq!(head.status, Status::Ok, "nothing is turned away");
        self.results += 1;
    }

    fn progress(&mut self, _: Conn, _: &ProgressHead, _: &Payload) {}

    fn send(&mut self, _: Conn, _: FromBroker<'_>) {}

    fn close(&mut self, conn: Conn) {
        panic!("the machine closed {conn:?}");
    }

    fn stages(&mut self, _: &StageTimes) {}
}

fn hello(role: Role, peer: u8, name: &'static str) -> Hello<'static> {
    Hello {
        version_min: 1,
        version_max: 1,
        role,
        peer_id: PeerId([peer; 16]),
        name,
        nonce: 42,
        features: 0,
    }
}

fn ready(names: &[String], window: u64) -> Ready<'_> {
    Ready {
        host: None,
        slot: Slot(0),
        incarnation: Incarnation(1),
        services: names.iter().map(String::as_str).collect(),
        labels: Vec::new(),
        window_tasks: window as u32,
        window_bytes: 8 << 20,
        held: Vec::new(),
        part: 0,
        parts: 1,
    }
}

/// The broker with its peers, and what was submitted.
struct Plant {
    broker: Broker<Payload>,
    peers: Peers,
    now: Time,
    /// How many services each client asks.
    aliases: [u64; CLIENTS as usize],
    /// Every task waits for its turn.
    is_mixed: bool,
    submitted: u64,
}

impl Plant {
    fn handle(&mut self, event: Event<'_, Payload>) {
        self.now = Time(self.now.0 + 100);
        self.broker.handle(self.now, event, &mut self.peers);
    }

    /// The next task: of each client in turn, of each of its services, of each class.
    fn submit(&mut self) {
        self.submitted += 1;
        let (mut client, mut alias, mut urgency) = (0, 0, 5);
        if self.is_mixed {
            client = self.submitted % CLIENTS;
            let turn = self.submitted / CLIENTS;
            alias = turn % self.aliases[client as usize];
            urgency = 1 + (turn % 10) as u8;
        }
        let submit = SubmitEvent {
            request_id: RequestId(self.submitted),
            submission: Submission(1),
            service: ServiceRef::Alias(alias as u32),
            priority: Priority::new(urgency).expect("1 to 10"),
            deadline_ns: None,
            options: Ok(TaskOptions::default()),
            body: Payload([7; PAYLOAD_BYTES]),
        };
        self.handle(Event::Submit(Conn(CLIENT + client as u32), submit));
    }

    /// What workers hold is done.
    fn work(&mut self) {
        for attempt in std::mem::take(&mut self.peers.tasks) {
            let body = Payload([9; PAYLOAD_BYTES]);
            let status = EndStatus::Ok;
            let done = DoneEvent { attempt, status, residence_ns: 2_000, service_ns: 1_000, body };
            self.handle(Event::Done(WORKER, done));
        }
        self.handle(Event::BatchEnd(WORKER));
    }

    /// Clients acknowledge everything.
    fn acknowledge(&mut self) {
        let clients = if self.is_mixed { CLIENTS as u32 } else { 1 };
        for client in 0..clients {
            self.handle(Event::Ack(Conn(CLIENT + client), self.peers.results));
            self.handle(Event::BatchEnd(Conn(CLIENT + client)));
        }
    }
}

fn main() {
    let numbers = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let numbers: Vec<u64> = numbers.collect();
    let (tasks, batch) = (numbers[0], numbers[1]);
    let (queued, services) = (numbers.get(2).copied(), numbers.get(3).copied().unwrap_or(1));
    let window = if queued.is_some() { NARROW } else { WINDOW };
    let config = CoreConfig {
        epoch: EPOCH,
        client_window_tasks: 1_000_000,
        client_window_bytes: 1 << 40,
        memory_bytes_max: 1 << 40,
        results_ahead_bytes: 1 << 40,
        service_limits: ServiceLimits {
            pending_max: u32::MAX,
            bytes_max: 1 << 40,
            ..ServiceLimits::default()
        },
        ..CoreConfig::default()
    };
    let mut plant = Plant {
        broker: Broker::new(config),
        peers: Peers::default(),
        now: Time(1_000_000_000),
        aliases: [0; CLIENTS as usize],
        is_mixed: queued.is_some(),
        submitted: 0,
    };
    let names: Vec<_> = (0..services).map(|number| format!("work {number}")).collect();
    for client in 0..CLIENTS as u32 {
        let hello = hello(Role::Client, client as u8 + 1, NAMES[client as usize]);
        plant.handle(Event::Hello(Conn(CLIENT + client), Side::Frontend, hello, None));
        // One service is everybody's; of many each has its own.
        let its = names.iter().skip(client as usize % names.len()).step_by(CLIENTS as usize);
        for (alias, name) in (0..).zip(its) {
            plant.handle(Event::Service(Conn(CLIENT + client), ServiceAlias { alias, name }));
            plant.aliases[client as usize] += 1;
        }
    }
    let greeting = hello(Role::Worker, 99, "count@here");
    plant.handle(Event::Hello(WORKER, Side::Backend, greeting, None));
    plant.handle(Event::Ready(WORKER, ready(&names, window)));
    // The worker has no room for what is queued, so that it stays so.
    let held = |plant: &Plant| plant.submitted - plant.peers.results;
    let most = queued.map_or(batch, |queued| queued + window);
    while plant.peers.results < tasks {
        while held(&plant) < most {
            plant.submit();
        }
        plant.work();
        plant.acknowledge();
    }
    let counts = plant.broker.counts();
    assert_eq!(counts.tasks, held(&plant), "what has ended is forgotten");
}
