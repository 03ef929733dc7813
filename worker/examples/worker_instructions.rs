//! Tasks through a worker's machine and its status page, for `scripts/instructions.sh` to count the
//! instructions of: taken, shown, claimed, ended, acknowledged, so many tasks a message. Handlers,
//! sockets and the clock are left out.
//!
//! `worker_instructions TASKS BATCH`

use pinmesh_protocol::command::{FromBroker, Payload, ServiceRef, Task, ToBroker, Welcome};
use pinmesh_protocol::id::{
    AttemptId, ContentType, Dispatch, Epoch, Incarnation, PeerId, RequestId, Slot, Submission,
    TaskId,
};
use pinmesh_session::Time;
use pinmesh_session::slots::BrokerIndex;
use pinmesh_session::worker::{Event, Start, WorkerConfig, WorkerOutbox, WorkerSession};
use pinmesh_worker::page::StatusPage;

const SECOND: u64 = 1_000_000_000;
const EPOCH: Epoch = Epoch(7);
const BROKER: BrokerIndex = BrokerIndex(0);
const END_BYTES: u64 = 96;

struct Socket {
    page: StatusPage,
    nonce: u64,
    ends: u64,
    forgotten: u64,
}

impl WorkerOutbox<u64> for Socket {
    fn open(&mut self) {}

    fn close(&mut self) {
        panic!("the machine closed its socket");
    }

    fn send(&mut self, command: &ToBroker<'_>) {
        if let ToBroker::Hello(hello) = command {
            self.nonce = hello.nonce;
        }
    }

    fn send_end(&mut self, _: &mut u64) {
        self.ends += 1;
    }

    fn forget(&mut self, index: u32, _: Option<u64>) {
        self.page.free(index as usize);
        self.forgotten += 1;
    }
}

fn welcome(nonce: u64) -> FromBroker<'static> {
    FromBroker::Welcome(Welcome {
        version: 1,
        nonce,
        epoch: EPOCH,
        heartbeat_ns: SECOND,
        lease_ns: 10 * SECOND,
        liveness: 3,
        window_tasks: 0,
        window_bytes: 0,
        payload_bytes_max: 1 << 20,
        header_bytes_max: 4_096,
        kept_ns: 60 * SECOND,
    })
}

fn task(number: u64) -> Task<'static> {
    Task {
        task: TaskId(number),
        dispatch: Dispatch(1),
        client_id: PeerId([1; 16]),
        request_id: RequestId(number),
        submission: Submission(1),
        service: ServiceRef::Alias(0),
        tries: 0,
        deadline_ns: None,
        max_runtime_ns: 3_600 * SECOND,
        content_type: ContentType::RAW,
        options: None,
        payload: Payload::Inline(&[7; 64]),
    }
}

fn open(socket: &mut Socket, now: Time) -> WorkerSession<u64> {
    let mut worker = WorkerSession::new(WorkerConfig {
        peer_id: PeerId([2; 16]),
        name: "count@here".to_owned(),
        host: Some(PeerId([3; 16])),
        slot: Slot(0),
        incarnation: Incarnation(1),
        services: vec!["work".to_owned()],
        labels: Vec::new(),
        window_tasks: 256,
        window_bytes: 8 << 20,
        seed: 7,
    });
    socket.page.set_lease(BROKER, EPOCH, Time(1_000 * SECOND));
    let lease = socket.page.lease(BROKER);
    worker.handle(now, Event::Lease(lease), socket);
    worker.handle(now, Event::Tick, socket);
    let nonce = socket.nonce;
    worker.handle(now, Event::Received(welcome(nonce)), socket);
    assert!(worker.is_open());
    worker
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let (tasks, batch): (u64, u64) =
        (numbers.next().expect("TASKS"), numbers.next().expect("BATCH"));
    let page = StatusPage::create(1).expect("shared memory");
    let mut socket = Socket { page, nonce: 0, ends: 0, forgotten: 0 };
    let now = Time(SECOND);
    let mut worker = open(&mut socket, now);
    let (mut fresh, mut taken) = (Vec::new(), 0);
    while taken < tasks {
        for _ in 0..batch {
            taken += 1;
            let index = worker.take(now, &task(taken), &mut socket).expect("there is room");
            let attempt = AttemptId { epoch: EPOCH, task: TaskId(taken), dispatch: Dispatch(1) };
            socket.page.publish(index as usize, BROKER, attempt);
            fresh.push(index);
        }
        assert!(!socket.page.settle(), "nothing was refused");
        for index in fresh.drain(..) {
            let lease = socket.page.lease(BROKER);
            worker.handle(now, Event::Lease(lease), &mut socket);
            assert_eq!(worker.start(now, index, &mut socket), Start::Run);
            assert!(socket.page.claim(index as usize, now, 3_600 * SECOND));
            socket.page.end(index as usize);
            worker.end(now, index, taken, END_BYTES, &mut socket);
        }
        socket.page.turn(worker.unended());
        let ends = socket.ends;
        worker.handle(now, Event::Received(FromBroker::Ack(ends)), &mut socket);
    }
    assert_eq!((socket.ends, socket.forgotten), (taken, taken), "each ended and is forgotten");
}
