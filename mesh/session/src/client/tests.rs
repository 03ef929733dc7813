//! One behaviour each, against a recorded outbox.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use pinmesh_protocol::command::{
    FromBroker, Heartbeat, Payload, Refused, ServiceRef, TaskResult, ToBroker, Welcome, Window,
};
use pinmesh_protocol::id::{ContentType, Epoch, PeerId, Priority, RequestId, Submission};
use pinmesh_protocol::rendezvous;
use pinmesh_protocol::status::{RefusedCode, Status};

use super::{
    Cancel, Client, ClientConfig, ClientEvent, ClientOutbox, CloseReason, LinkId, LinkNews,
    LocalEnd, NewRequest, Outcome, Pong, ServiceId, SubmitHeader,
};
use crate::Time;

mod bounds;
mod counts;
mod fetches;
mod keys;
mod requests;
mod sessions;

const SECOND: u64 = 1_000_000_000;
const LINK: LinkId = LinkId(0);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    Result(Status, Submission),
    Local(LocalEnd),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Connect(LinkId),
    Disconnect(LinkId),
    Hello(LinkId, u64),
    Ack(LinkId, u64),
    Heartbeat(LinkId, u64, Option<u64>),
    Service(LinkId, u32, String),
    Cancel(LinkId, RequestId, Submission),
    CancelHard(LinkId, RequestId, Submission),
    Goodbye(LinkId),
    Refused(LinkId, RefusedCode),
    Fetch(LinkId, RequestId, Submission),
    Submit { to: LinkId, id: RequestId, submission: Submission, body: u32, left: Option<u64> },
    Resolve(RequestId, u32, End),
    Pong(Pong),
    Opened(LinkId, Epoch),
    Closed(LinkId),
}

#[derive(Default)]
pub(super) struct Recorded {
    pub(super) effects: Vec<Effect>,
    pub(super) names: u32,
    /// Times until the start, of each SUBMIT.
    pub(super) starts: Vec<Option<u64>>,
}

impl ClientOutbox<u32> for Recorded {
    fn connect(&mut self, link: LinkId) {
        self.effects.push(Effect::Connect(link));
    }

    fn disconnect(&mut self, link: LinkId) {
        self.effects.push(Effect::Disconnect(link));
    }

    fn send(&mut self, link: LinkId, command: &ToBroker<'_>) {
        self.effects.push(match command {
            ToBroker::Hello(hello) => Effect::Hello(link, hello.nonce),
            ToBroker::Ack(count) => Effect::Ack(link, *count),
            ToBroker::Heartbeat(it) => Effect::Heartbeat(link, it.sequence, it.silence_ns),
            ToBroker::Service(it) => Effect::Service(link, it.alias, it.name.to_string()),
            ToBroker::Cancel(it) if it.is_hard => {
                Effect::CancelHard(link, it.request_id, it.submission)
            }
            ToBroker::Cancel(it) => Effect::Cancel(link, it.request_id, it.submission),
            ToBroker::Fetch(it) => Effect::Fetch(link, it.request_id, it.submission),
            ToBroker::Goodbye => Effect::Goodbye(link),
            ToBroker::Refused(it) => Effect::Refused(link, it.code),
            other => panic!("a client does not send {other:?}"),
        });
    }

    fn submit(&mut self, to: LinkId, header: &SubmitHeader<'_>, body: &mut u32) {
        self.names += u32::from(matches!(header.service, ServiceRef::Name(_)));
        let (id, submission) = (header.request_id, header.submission);
        let left = header.deadline_ns;
        self.starts.push(header.start_after_ns);
        self.effects.push(Effect::Submit { to, id, submission, body: *body, left });
    }

    fn resolve(&mut self, request_id: RequestId, body: u32, outcome: Outcome<'_>) {
        let end = match outcome {
            Outcome::Result(result) => End::Result(result.status, result.submission),
            Outcome::Local(end) => End::Local(end),
        };
        self.effects.push(Effect::Resolve(request_id, body, end));
    }

    fn pong(&mut self, pong: Pong) {
        self.effects.push(Effect::Pong(pong));
    }

    fn link_news(&mut self, link: LinkId, news: LinkNews<'_>) {
        self.effects.push(match news {
            LinkNews::Opened(epoch) => Effect::Opened(link, epoch),
            LinkNews::Closed(CloseReason::Unreachable) | LinkNews::Closed(_) => {
                Effect::Closed(link)
            }
        });
    }
}

/// A request of service 0 with nothing special about it.
pub(super) fn request(body: u32) -> NewRequest<u32> {
    NewRequest {
        body,
        bytes: 100,
        service: ServiceId(0),
        priority: Priority::default(),
        deadline: Time::NEVER,
        start_at: None,
        content_type: ContentType::RAW,
        options: None,
        is_at_most_once: false,
        shows_busy: false,
        key: None,
        keeps_to_key: false,
        fetch: None,
    }
}

/// The hash of a made-up broker's endpoint.
pub(super) fn broker_hash(link: u16) -> u64 {
    rendezvous::hash(alloc::format!("tcp://10.0.0.{link}:5555").as_bytes())
}

pub(super) fn welcome(nonce: u64, epoch: u32) -> Welcome {
    Welcome {
        version: 1,
        nonce,
        epoch: Epoch(epoch),
        heartbeat_ns: SECOND,
        lease_ns: 10 * SECOND,
        liveness: 3,
        window_tasks: 4,
        window_bytes: 1 << 30,
        payload_bytes_max: 1 << 26,
        header_bytes_max: 4096,
        kept_ns: 60_000_000_000,
    }
}

pub(super) fn result(id: u64, submission: u32, status: Status) -> TaskResult<'static> {
    TaskResult {
        request_id: RequestId(id),
        submission: Submission(submission),
        status,
        tries: 0,
        stages: None,
        content_type: ContentType::RAW,
        payload: Payload::Inline(b""),
        retry_after_ns: (status == Status::Busy).then_some(SECOND),
    }
}

struct Bench {
    client: Client<u32>,
    outbox: Recorded,
    now: Time,
}

impl Bench {
    fn new(links: u16) -> Self {
        Self::with(links, 10)
    }

    fn with(links: u16, unresolved_max: usize) -> Self {
        let config = ClientConfig {
            peer_id: PeerId([7; 16]),
            name: "test".into(),
            seed: 1,
            brokers: (0..links).map(broker_hash).collect(),
            unresolved_max,
        };
        let mut bench =
            Self { client: Client::new(config), outbox: Recorded::default(), now: Time(SECOND) };
        bench.event(ClientEvent::Service("echo"));
        bench
    }

    /// Started, and a session with every broker open in epoch 1.
    fn open(links: u16) -> Self {
        let mut bench = Self::new(links);
        bench.event(ClientEvent::Start);
        (0..links).for_each(|link| bench.greet(LinkId(link), 1));
        bench.effects();
        bench
    }

    fn event(&mut self, event: ClientEvent<'_, u32>) {
        self.client.handle(self.now, event, &mut self.outbox);
    }

    fn effects(&mut self) -> Vec<Effect> {
        core::mem::take(&mut self.outbox.effects)
    }

    fn greet(&mut self, link: LinkId, epoch: u32) {
        let nonce = self.outbox.effects.iter().rev().find_map(|effect| match effect {
            Effect::Hello(to, nonce) if *to == link => Some(*nonce),
            _ => None,
        });
        let nonce = nonce.expect("HELLO was said");
        self.receive(link, FromBroker::Welcome(welcome(nonce, epoch)));
    }

    fn receive(&mut self, link: LinkId, command: FromBroker<'_>) {
        self.event(ClientEvent::Received(link, command));
        self.event(ClientEvent::BatchEnd(link));
    }

    fn sleep(&mut self, ns: u64) {
        let until = self.now.after(ns);
        while let Some((at, _)) = self.client.next_wakeup().filter(|&(at, _)| at <= until) {
            self.now = self.now.max(at);
            self.event(ClientEvent::Wakeup { is_emptied: true });
        }
        self.now = until;
    }

    fn submits(&mut self) -> Vec<(u64, u32, LinkId)> {
        let submits = self.effects().into_iter().filter_map(|effect| match effect {
            Effect::Submit { to, id, submission, .. } => Some((id.0, submission.0, to)),
            _ => None,
        });
        submits.collect()
    }

    fn ends(&mut self) -> Vec<(u64, End)> {
        let ends = self.effects().into_iter().filter_map(|effect| match effect {
            Effect::Resolve(id, _, end) => Some((id.0, end)),
            _ => None,
        });
        ends.collect()
    }
}

/// The broker answers a heartbeat.
fn echo(bench: &mut Bench, link: LinkId) {
    bench.receive(link, FromBroker::Heartbeat(Heartbeat { sequence: 0, silence_ns: None }));
}

fn wake(bench: &mut Bench) {
    bench.event(ClientEvent::Wakeup { is_emptied: true });
}

/// How long until another socket is opened for the link.
fn wait_for_socket(bench: &mut Bench, link: LinkId) -> u64 {
    bench.effects();
    let begun = bench.now;
    while !bench.outbox.effects.contains(&Effect::Connect(link)) {
        let (at, _) = bench.client.next_wakeup().expect("it tries again");
        bench.now = at;
        wake(bench);
    }
    bench.now.since(begun)
}
