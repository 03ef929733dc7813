//! The machine against model brokers over a network that loses connections, and brokers that
//! restart: whatever happens, each request resolves exactly once.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use pinmesh_protocol::command::{FromBroker, Heartbeat, Window};
use pinmesh_protocol::id::{Epoch, PeerId, RequestId, Submission};
use pinmesh_protocol::status::Status;
use proptest::prelude::*;

use super::link::Random;
use super::tests::{Effect, Recorded, broker_hash, request, result, welcome};
use super::{Cancel, Client, ClientConfig, ClientEvent, LinkId, NewRequest};
use crate::Time;

#[derive(Clone, Debug)]
enum Step {
    Submit { is_at_most_once: bool, deadline_ms: Option<u16>, key: Option<u8> },
    Cancel(u8),
    Sleep(u16),
    ToBroker(u8),
    FromBroker(u8),
    Work(u8, u8),
    Cut(u8),
    Restart(u8),
    Shrink(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), prop::option::of(1..5000_u16), prop::option::of(any::<u8>())).prop_map(
            |(is_at_most_once, deadline_ms, key)| {
                Step::Submit { is_at_most_once, deadline_ms, key }
            }
        ),
        1 => any::<u8>().prop_map(Step::Cancel),
        4 => (1..3000_u16).prop_map(Step::Sleep),
        12 => any::<u8>().prop_map(Step::ToBroker),
        12 => any::<u8>().prop_map(Step::FromBroker),
        8 => (any::<u8>(), any::<u8>()).prop_map(|(at, how)| Step::Work(at, how)),
        1 => any::<u8>().prop_map(Step::Cut),
        1 => any::<u8>().prop_map(Step::Restart),
        1 => (any::<u8>(), 1..6_u8).prop_map(|(at, tasks)| Step::Shrink(at, tasks)),
    ]
}

/// What a broker has to say.
#[derive(Clone, Debug)]
enum Word {
    Welcome(u64, Epoch),
    NoSession,
    Echo(u64),
    Result(RequestId, Submission, Status),
    Window(u32),
}

#[derive(Default)]
struct Broker {
    epoch: u32,
    /// The socket whose HELLO was taken last, unless its connection was cut.
    session: Option<u32>,
    pending: BTreeMap<RequestId, Submission>,
    /// Ends that are not acknowledged, and how many were in this session.
    ends: VecDeque<(RequestId, Submission, Status)>,
    acked: u64,
    inbox: VecDeque<(u32, Effect)>,
    outbox: VecDeque<(u32, Word)>,
    /// The client's socket to it; the client reads no other.
    socket: u32,
}

impl Broker {
    fn say(&mut self, socket: u32, word: Word) {
        self.outbox.push_back((socket, word));
    }

    fn end(&mut self, id: RequestId, submission: Submission, status: Status) {
        self.ends.push_back((id, submission, status));
        if let Some(socket) = self.session {
            self.say(socket, Word::Result(id, submission, status));
        }
    }

    /// The connection breaks and comes back under another routing id.
    fn cut(&mut self) {
        self.session = None;
        self.inbox.clear();
        self.outbox.clear();
    }

    fn restart(&mut self) {
        let (epoch, socket) = (self.epoch + 1, self.socket);
        let inbox = core::mem::take(&mut self.inbox);
        *self = Self { epoch, socket, inbox, ..Self::default() };
    }

    fn read(&mut self, is_busy: bool) {
        let Some((socket, effect)) = self.inbox.pop_front() else { return };
        if let Effect::Hello(_, nonce) = effect {
            (self.session, self.acked) = (Some(socket), 0);
            self.say(socket, Word::Welcome(nonce, Epoch(self.epoch)));
            for (id, submission, status) in self.ends.clone() {
                self.say(socket, Word::Result(id, submission, status));
            }
            return;
        }
        if self.session != Some(socket) {
            self.say(socket, Word::NoSession);
            return;
        }
        match effect {
            Effect::Ack(_, count) => {
                let new = usize::try_from(count - self.acked).unwrap();
                assert!(new <= self.ends.len(), "acknowledged what was never said");
                self.ends.drain(..new);
                self.acked = count;
            }
            Effect::Heartbeat(_, sequence, _) => self.say(socket, Word::Echo(sequence)),
            Effect::Cancel(_, id, submission) | Effect::CancelHard(_, id, submission)
                if self.pending.get(&id) == Some(&submission) =>
            {
                self.pending.remove(&id);
                self.end(id, submission, Status::Cancelled);
            }
            Effect::Submit { id, submission, body, .. } => {
                let is_at_most_once = body % 2 == 1;
                self.take(id, submission, is_busy && !is_at_most_once);
            }
            Effect::Goodbye(_) | Effect::Refused(..) => self.session = None,
            _ => {}
        }
    }

    fn take(&mut self, id: RequestId, submission: Submission, is_busy: bool) {
        let known = self.pending.get(&id).copied();
        let is_ended = self.ends.iter().any(|&(it, at, _)| it == id && at >= submission);
        if is_ended || known.is_some_and(|known| known > submission) {
            return;
        }
        if known.is_none() && is_busy {
            self.end(id, submission, Status::Busy);
            return;
        }
        self.pending.insert(id, submission);
    }

    fn work(&mut self, how: u8) {
        let at = usize::from(how) % self.pending.len().max(1);
        let Some((&id, &submission)) = self.pending.iter().nth(at) else { return };
        self.pending.remove(&id);
        let status = [Status::Ok, Status::Failed, Status::NoService][usize::from(how) % 3];
        self.end(id, submission, status);
    }
}

struct World {
    client: Client<u32>,
    brokers: Vec<Broker>,
    now: Time,
    random: Random,
    ends: BTreeMap<RequestId, u32>,
    submits: BTreeMap<RequestId, (Submission, Vec<(LinkId, u32)>)>,
}

impl World {
    fn new(links: u16, seed: u64) -> Self {
        let config = ClientConfig {
            peer_id: PeerId([1; 16]),
            name: "p".into(),
            seed,
            brokers: (0..links).map(broker_hash).collect(),
            unresolved_max: 20,
        };
        let mut world = Self {
            client: Client::new(config),
            brokers: (0..links).map(|_| Broker::default()).collect(),
            now: Time(0),
            random: Random(seed),
            ends: BTreeMap::new(),
            submits: BTreeMap::new(),
        };
        world.event(ClientEvent::Service("echo"));
        world.event(ClientEvent::Start);
        world
    }

    fn event(&mut self, event: ClientEvent<'_, u32>) {
        let mut outbox = Recorded::default();
        self.client.handle(self.now, event, &mut outbox);
        for effect in outbox.effects {
            self.carry(effect);
        }
    }

    fn carry(&mut self, effect: Effect) {
        let to = match effect {
            Effect::Connect(link) => {
                self.brokers[usize::from(link.0)].socket += 1;
                return;
            }
            Effect::Resolve(id, ..) => {
                *self.ends.entry(id).or_default() += 1;
                return;
            }
            Effect::Submit { to, id, submission, .. } => {
                let place = (to, self.brokers[usize::from(to.0)].epoch);
                let entry = self.submits.entry(id).or_insert((submission, vec![]));
                assert!(entry.0 <= submission, "a submission number went back");
                assert_eq!(self.ends.get(&id), None, "handed in after its end");
                entry.0 = submission;
                entry.1.push(place);
                to
            }
            Effect::Hello(to, _)
            | Effect::Ack(to, _)
            | Effect::Heartbeat(to, ..)
            | Effect::Service(to, ..)
            | Effect::Cancel(to, ..)
            | Effect::Fetch(to, ..)
            | Effect::CancelHard(to, ..)
            | Effect::Goodbye(to)
            | Effect::Refused(to, _) => to,
            Effect::Disconnect(_) | Effect::Pong(_) | Effect::Opened(..) | Effect::Closed(_) => {
                return;
            }
        };
        let broker = &mut self.brokers[usize::from(to.0)];
        broker.inbox.push_back((broker.socket, effect));
    }

    fn deliver(&mut self, at: usize) {
        let broker = &mut self.brokers[at];
        let Some((socket, word)) = broker.outbox.pop_front() else { return };
        if socket != broker.socket {
            return;
        }
        let link = LinkId(u16::try_from(at).unwrap());
        let command = match word {
            Word::Welcome(nonce, epoch) => FromBroker::Welcome(welcome(nonce, epoch.0)),
            Word::NoSession => FromBroker::NoSession,
            Word::Echo(sequence) => FromBroker::Heartbeat(Heartbeat { sequence, silence_ns: None }),
            Word::Result(id, submission, status) => {
                FromBroker::Result(result(id.0, submission.0, status))
            }
            Word::Window(tasks) => FromBroker::Window(Window { tasks, bytes: 1 << 30 }),
        };
        self.event(ClientEvent::Received(link, command));
        if self.random.next().is_multiple_of(2) {
            self.event(ClientEvent::BatchEnd(link));
        }
    }

    fn sleep(&mut self, ns: u64) {
        self.now = self.now.after(ns);
        if self.client.next_wakeup().is_some_and(|(at, _)| at <= self.now) {
            self.event(ClientEvent::Wakeup { is_emptied: true });
        }
    }

    fn take(&mut self, step: &Step) {
        let count = self.brokers.len();
        let index = |at: u8| usize::from(at) % count;
        match *step {
            Step::Submit { is_at_most_once, deadline_ms, key } => {
                let id = u32::try_from(self.client.next_request_id().0).unwrap();
                let deadline =
                    deadline_ms.map_or(Time::NEVER, |ms| self.now.after(u64::from(ms) * 1_000_000));
                let body = id * 2 + u32::from(is_at_most_once);
                let key = key.map(u64::from);
                let new = NewRequest { is_at_most_once, deadline, key, ..request(body) };
                self.event(ClientEvent::Submit(new));
            }
            Step::Cancel(back) => {
                let next = self.client.next_request_id().0;
                let id = RequestId(next.saturating_sub(1 + u64::from(back % 16)));
                let how = if back >= 128 { Cancel::Hard } else { Cancel::Soft };
                self.event(ClientEvent::Cancel(id, how));
            }
            Step::Sleep(ms) => self.sleep(u64::from(ms) * 1_000_000),
            Step::ToBroker(at) => self.brokers[index(at)].read(at % 16 == 15),
            Step::FromBroker(at) => self.deliver(index(at)),
            Step::Work(at, how) => self.brokers[index(at)].work(how),
            Step::Cut(at) => self.brokers[index(at)].cut(),
            Step::Restart(at) => self.brokers[index(at)].restart(),
            Step::Shrink(at, tasks) => {
                let broker = &mut self.brokers[index(at)];
                if let Some(socket) = broker.session {
                    broker.say(socket, Word::Window(u32::from(tasks)));
                }
            }
        }
    }

    /// Faults are over: everything that is said arrives, all work ends well.
    fn heal(&mut self) {
        for _ in 0..400 {
            for at in 0..self.brokers.len() {
                while !self.brokers[at].inbox.is_empty() {
                    self.brokers[at].read(false);
                }
                while !self.brokers[at].pending.is_empty() {
                    self.brokers[at].work(0);
                }
                while !self.brokers[at].outbox.is_empty() {
                    self.deliver(at);
                }
                self.event(ClientEvent::BatchEnd(LinkId(u16::try_from(at).unwrap())));
            }
            self.sleep(100_000_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn each_request_resolves_exactly_once(
        links in 1..5_u16,
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut world = World::new(links, seed);
        steps.iter().for_each(|step| world.take(step));
        world.heal();
        let requests = world.client.counters().requests;
        prop_assert_eq!(world.client.unresolved(), 0, "requests are left: {:?}", world.client);
        prop_assert_eq!(world.ends.len() as u64, requests);
        prop_assert!(world.ends.values().all(|&times| times == 1), "{:?}", world.ends);
        for broker in &world.brokers {
            prop_assert!(broker.ends.is_empty(), "an end was never acknowledged");
        }
        prop_assert!(world.client.is_flushed());
    }

    #[test]
    fn an_at_most_once_request_is_handed_to_one_life_of_one_broker(
        links in 1..5_u16,
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut world = World::new(links, seed);
        let mut steps = steps;
        for step in &mut steps {
            if let Step::Submit { is_at_most_once, .. } = step {
                *is_at_most_once = true;
            }
        }
        steps.iter().for_each(|step| world.take(step));
        world.heal();
        for (id, (_, links)) in &world.submits {
            prop_assert!(links.iter().all(|link| link == &links[0]), "{}: {:?}", id, links);
        }
    }
}
