//! A peer that keeps no rules: it says what it may not, of attempts that are not its own, and what
//! is no command at all. None of it may change anybody's outcome.

use pinmesh_protocol::codec::write_to_broker;
use pinmesh_protocol::command::{
    Attempts, CancelRequest, Done, Heartbeat, Held, Hello, Lost, Payload, Ready, ServiceRef,
    Submit, ToBroker, Window,
};
use pinmesh_protocol::id::{
    AttemptId, ContentType, Incarnation, Priority, RequestId, Slot, Submission,
};
use pinmesh_protocol::status::{EndStatus, HeldState, LossKind, Role};

use crate::checker::Checker;
use crate::net::{Machine, Owner, SocketId};
use crate::task::{Key, Output, peer_id};
use crate::world::World;

/// A token that no handler has.
const NO_TOKEN: u64 = u64::MAX;

/// The rogue's sockets.
#[derive(Debug, Default)]
pub struct Rogue {
    sockets: Vec<Option<SocketId>>,
    number: u32,
}

impl Rogue {
    /// It leaves.
    pub fn close(&mut self, world: &mut World) {
        for socket in self.sockets.iter_mut().filter_map(Option::take) {
            world.net.close(socket);
        }
    }
}

/// It does something.
pub fn act(world: &mut World, checker: &Checker, rogue: &mut Rogue, brokers: usize) {
    rogue.sockets.resize(brokers, None);
    let broker = world.random.below(brokers as u64) as usize;
    let mut bytes = Vec::new();
    let World { now, agenda, random, net, .. } = &mut *world;
    if rogue.sockets[broker].is_none() || random.one_in(6) {
        if let Some(socket) = rogue.sockets[broker].take() {
            net.close(socket);
        }
        let context = (*now, &mut *agenda, &mut *random);
        let socket = net.open(context, Owner::Rogue, Machine::Rogue, broker);
        rogue.sockets[broker] = Some(socket);
        rogue.number += 1;
        let held = checker.any_attempt(random.next());
        greet(&mut bytes, rogue.number, random.one_in(4), held);
    }
    let attempt = checker.any_attempt(random.next()).unwrap_or_default();
    let key = checker.key_of(attempt).unwrap_or_default();
    match random.below(12) {
        0 => bytes.extend((0..random.below(40)).map(|_| random.next() as u8)),
        1 => bytes.extend([0x92, 0xcc, 0x7f, 0x01]),
        choice => say(&mut bytes, choice, attempt, key),
    }
    if let Some(socket) = rogue.sockets[broker] {
        while net.read(socket).is_some() {}
        net.send_up(*now, agenda, socket, bytes);
    }
}

fn greet(bytes: &mut Vec<u8>, number: u32, is_supervisor: bool, held: Option<AttemptId>) {
    let role = if is_supervisor { Role::Supervisor } else { Role::Worker };
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        role,
        peer_id: peer_id(9, number),
        name: "rogue",
        nonce: u64::from(number),
        features: 0,
    };
    write_to_broker(bytes, &ToBroker::Hello(hello));
    if role == Role::Worker {
        write_to_broker(bytes, &ToBroker::Ready(ready(held)));
    }
}

fn ready(held: Option<AttemptId>) -> Ready<'static> {
    let held = held.map(|attempt| Held {
        attempt,
        client_id: peer_id(9, 0),
        request_id: RequestId(1),
        submission: Submission(1),
        state: HeldState::Claimed,
    });
    Ready {
        host: None,
        slot: Slot(0),
        incarnation: Incarnation(1),
        services: vec!["rogue"],
        labels: Vec::new(),
        window_tasks: 0,
        window_bytes: 0,
        held: held.into_iter().collect(),
        part: 0,
        parts: 1,
    }
}

fn say(bytes: &mut Vec<u8>, choice: u64, attempt: AttemptId, key: Key) {
    let output = Output { key, token: NO_TOKEN }.to_payload();
    let command = match choice {
        2..=4 => ToBroker::Done(Done {
            attempt,
            status: EndStatus::Ok,
            residence_ns: 1,
            service_ns: 1,
            content_type: ContentType::RAW,
            payload: Payload::Inline(&output),
        }),
        5 => ToBroker::Return(attempt),
        6 => ToBroker::Recalled(Attempts { slot: Slot(0), attempts: vec![attempt] }),
        7 => ToBroker::Lost(Lost {
            slot: Slot(0),
            incarnation: Incarnation(1),
            cause: LossKind::Signalled,
            detail: 9,
            running: Some(attempt),
            started: vec![attempt],
        }),
        8 => ToBroker::Submit(Submit {
            request_id: key.request,
            submission: Submission(99),
            service: ServiceRef::Name("red"),
            priority: Priority::default(),
            deadline_ns: None,
            content_type: ContentType::RAW,
            options: None,
            payload: Payload::Inline(&output),
        }),
        9 => {
            let cancel = CancelRequest {
                request_id: RequestId(key.request.0),
                submission: Submission(99),
                is_hard: true,
            };
            ToBroker::Cancel(cancel)
        }
        10 => ToBroker::Window(Window { tasks: 0, bytes: 1 }),
        _ => ToBroker::Heartbeat(Heartbeat { sequence: 7, silence_ns: Some(u64::MAX) }),
    };
    write_to_broker(bytes, &command);
}
