//! Tasks through the broker's machine, for `scripts/instructions.sh` to count the instructions of:
//! SUBMIT, TASK, DONE, RESULT and both acknowledgements, so many tasks a message.
//!
//! `broker_instructions TASKS BATCH`

use pinmesh_core::{
    Body, Broker, Conn, CoreConfig, DoneEvent, Event, Outbox, ResultBody, ResultHead, Side,
    SubmitEvent, TaskHead, Time,
};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::{FromBroker, Hello, Ready, ServiceRef, StageTimes};
use pinmesh_protocol::id::{AttemptId, Epoch, Incarnation, PeerId, Priority, RequestId};
use pinmesh_protocol::id::{Slot, Submission};
use pinmesh_protocol::status::{EndStatus, Role};

const EPOCH: Epoch = Epoch(7);
const CLIENT: Conn = Conn(1);
const WORKER: Conn = Conn(2);
const PAYLOAD_BYTES: usize = 64;

#[derive(Clone, Copy)]
struct Payload([u8; PAYLOAD_BYTES]);

impl Body for Payload {
    fn payload_bytes(&self) -> u64 {
        self.0.len() as u64
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

    fn result(&mut self, _: Conn, _: &ResultHead, _: ResultBody<'_, Payload>) {
        self.results += 1;
    }

    fn send(&mut self, _: Conn, _: FromBroker<'_>) {}

    fn close(&mut self, conn: Conn) {
        panic!("the machine closed {conn:?}");
    }

    fn stages(&mut self, _: &StageTimes) {}
}

fn hello(role: Role, peer: u8) -> Hello<'static> {
    Hello {
        version_min: 1,
        version_max: 1,
        role,
        peer_id: PeerId([peer; 16]),
        name: "count@here",
        nonce: 42,
        features: 0,
    }
}

fn ready() -> Ready<'static> {
    Ready {
        host: None,
        slot: Slot(0),
        incarnation: Incarnation(1),
        services: vec!["work"],
        window_tasks: 128,
        window_bytes: 8 << 20,
        held: Vec::new(),
        part: 0,
        parts: 1,
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let (tasks, batch): (u64, u64) =
        (numbers.next().expect("TASKS"), numbers.next().expect("BATCH"));
    let mut broker = Broker::new(CoreConfig { epoch: EPOCH, ..CoreConfig::default() });
    let mut peers = Peers::default();
    let mut now = Time(1_000_000_000);
    let mut handle = |event: Event<'_, Payload>, peers: &mut Peers| {
        now = Time(now.0 + 100);
        broker.handle(now, event, peers);
    };
    handle(Event::Hello(CLIENT, Side::Frontend, hello(Role::Client, 1)), &mut peers);
    handle(Event::Hello(WORKER, Side::Backend, hello(Role::Worker, 2)), &mut peers);
    handle(Event::Ready(WORKER, ready()), &mut peers);
    let mut attempts = Vec::new();
    let mut submitted = 0;
    while submitted < tasks {
        for _ in 0..batch {
            submitted += 1;
            let submit = SubmitEvent {
                request_id: RequestId(submitted),
                submission: Submission(1),
                service: ServiceRef::Name("work"),
                priority: Priority::default(),
                deadline_ns: None,
                options: Ok(TaskOptions::default()),
                body: Payload([7; PAYLOAD_BYTES]),
            };
            handle(Event::Submit(CLIENT, submit), &mut peers);
        }
        handle(Event::BatchEnd(CLIENT), &mut peers);
        std::mem::swap(&mut attempts, &mut peers.tasks);
        for attempt in attempts.drain(..) {
            let body = Payload([9; PAYLOAD_BYTES]);
            let status = EndStatus::Ok;
            let done = DoneEvent { attempt, status, residence_ns: 2_000, service_ns: 1_000, body };
            handle(Event::Done(WORKER, done), &mut peers);
        }
        handle(Event::BatchEnd(WORKER), &mut peers);
        handle(Event::Ack(CLIENT, peers.results), &mut peers);
        handle(Event::BatchEnd(CLIENT), &mut peers);
    }
    assert_eq!(peers.results, submitted, "every task has ended");
    assert_eq!(broker.counts().tasks, 0, "and is forgotten");
}
