//! Keys: the broker that is a key's, and where its requests go while that one cannot take them.

use alloc::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Keys whose brokers, of two, are the first and the second.
const KEYS: [u64; 2] = [1, 4];

fn keyed(body: u32, key: u64) -> NewRequest<u32> {
    NewRequest { key: Some(key), ..request(body) }
}

/// The broker that a key belongs to among those, by trying every one.
fn belongs(key: u64, among: impl Iterator<Item = u16>) -> Option<LinkId> {
    among.max_by_key(|&link| rendezvous::weight(key, broker_hash(link))).map(LinkId)
}

/// Sleeps while the brokers named go on answering.
fn sleep_with(bench: &mut Bench, seconds: u64, alive: &[LinkId]) {
    for _ in 0..2 * seconds {
        bench.sleep(SECOND / 2);
        alive.iter().for_each(|&link| echo(bench, link));
    }
}

#[test]
fn requests_with_one_key_meet_at_one_broker_whatever_is_outstanding() {
    for (at, key) in KEYS.into_iter().enumerate() {
        let mut bench = Bench::open(2);
        (0..3).for_each(|body| bench.event(ClientEvent::Submit(keyed(body, key))));
        let to = LinkId(at as u16);
        assert_eq!(bench.submits(), [(1, 1, to), (2, 1, to), (3, 1, to)]);
    }
}

#[test]
fn a_full_window_keeps_a_key_waiting_and_nobody_else() {
    let mut bench = Bench::open(2);
    let (a, b) = (LinkId(0), LinkId(1));
    (0..6).for_each(|body| bench.event(ClientEvent::Submit(keyed(body, KEYS[0]))));
    bench.event(ClientEvent::Submit(keyed(6, KEYS[1])));
    bench.event(ClientEvent::Submit(request(7)));
    let sent = [(1, 1, a), (2, 1, a), (3, 1, a), (4, 1, a), (7, 1, b), (8, 1, b)];
    assert_eq!(bench.submits(), sent);
    assert!(!bench.client.is_flushed());
    // The oldest first, and who has no key behind those who wait for this broker.
    bench.receive(a, FromBroker::Result(result(2, 1, Status::Ok)));
    assert_eq!(bench.submits(), [(5, 1, a)]);
    bench.event(ClientEvent::Cancel(RequestId(6), Cancel::Soft));
    assert_eq!(bench.ends(), [(6, End::Local(LocalEnd::Cancelled))]);
    bench.receive(a, FromBroker::Result(result(1, 1, Status::Ok)));
    bench.event(ClientEvent::Submit(keyed(8, KEYS[0])));
    assert_eq!(bench.submits(), [(9, 1, a)]);
    assert!(bench.client.is_flushed());
}

#[test]
fn a_long_request_in_a_line_is_not_passed_by_short_ones_for_ever() {
    let mut bench = Bench::new(2);
    bench.event(ClientEvent::Start);
    let (a, b) = (LinkId(0), LinkId(1));
    [a, b].into_iter().for_each(|link| bench.greet(link, 1));
    bench.receive(a, FromBroker::Window(Window { tasks: 4, bytes: 1000 }));
    bench.receive(b, FromBroker::Window(Window { tasks: 1, bytes: 1000 }));
    bench.event(ClientEvent::Submit(keyed(0, KEYS[0])));
    bench.event(ClientEvent::Submit(NewRequest { bytes: 1000, ..keyed(1, KEYS[0]) }));
    (2..5).for_each(|body| bench.event(ClientEvent::Submit(request(body))));
    assert_eq!(bench.submits(), [(1, 1, a), (3, 1, b)]);
    bench.receive(a, FromBroker::Result(result(1, 1, Status::Ok)));
    assert_eq!(bench.submits(), [(2, 1, a)]);
    bench.receive(b, FromBroker::Result(result(3, 1, Status::Ok)));
    bench.receive(a, FromBroker::Result(result(2, 1, Status::Ok)));
    assert_eq!(bench.submits(), [(4, 1, b), (5, 1, a)]);
}

#[test]
fn a_busy_broker_loses_its_keys_until_its_retry_after_and_no_longer() {
    let mut bench = Bench::open(2);
    let (a, b) = (LinkId(0), LinkId(1));
    bench.event(ClientEvent::Submit(keyed(0, KEYS[0])));
    bench.receive(a, FromBroker::Result(result(1, 1, Status::Busy)));
    bench.event(ClientEvent::Submit(keyed(1, KEYS[0])));
    assert_eq!(bench.submits(), [(1, 1, a), (1, 2, b), (2, 1, b)]);
    bench.sleep(SECOND);
    bench.event(ClientEvent::Submit(keyed(2, KEYS[0])));
    assert_eq!(bench.submits(), [(3, 1, a)]);
    // With every broker BUSY it waits for the first that will not be.
    bench.receive(a, FromBroker::Result(result(3, 1, Status::Busy)));
    bench.sleep(SECOND / 2);
    bench.receive(b, FromBroker::Result(result(3, 2, Status::Busy)));
    bench.sleep(SECOND / 2);
    assert_eq!(bench.submits(), [(3, 2, b), (3, 3, a)]);
}

#[test]
fn a_key_waits_for_its_broker_at_the_start_and_when_that_is_cut_off() {
    let mut bench = Bench::new(2);
    bench.event(ClientEvent::Start);
    let (a, b) = (LinkId(0), LinkId(1));
    bench.greet(b, 1);
    bench.event(ClientEvent::Submit(keyed(0, KEYS[0])));
    let effects = bench.effects();
    bench.outbox.effects = effects.clone();
    assert_eq!(bench.submits(), []);
    bench.outbox.effects = effects;
    bench.greet(a, 1);
    assert_eq!(bench.submits(), [(1, 1, a)]);
    let mut bench = Bench::open(2);
    bench.event(ClientEvent::SocketLost(a));
    bench.event(ClientEvent::Submit(keyed(0, KEYS[0])));
    bench.event(ClientEvent::Submit(keyed(1, KEYS[1])));
    assert_eq!(bench.submits(), [(2, 1, b)]);
    bench.sleep(SECOND);
    bench.greet(a, 1);
    assert_eq!(bench.submits().last(), Some(&(1, 1, a)));
}

#[test]
fn a_lost_broker_loses_its_keys_to_the_next_and_gets_them_again_when_it_is_back() {
    let mut bench = Bench::open(2);
    let (a, b) = (LinkId(0), LinkId(1));
    bench.event(ClientEvent::Submit(keyed(0, KEYS[0])));
    bench.event(ClientEvent::SocketLost(a));
    bench.event(ClientEvent::Submit(keyed(1, KEYS[0])));
    assert_eq!(bench.submits(), [(1, 1, a)]);
    sleep_with(&mut bench, 4, &[b]);
    bench.event(ClientEvent::Submit(keyed(2, KEYS[0])));
    let effects = bench.effects();
    bench.outbox.effects = effects.clone();
    let mut sent = bench.submits();
    sent.sort_unstable();
    // What it held was a submission already.
    assert_eq!(sent, [(1, 2, b), (2, 1, b), (3, 1, b)]);
    // Four more than the other has room for: they wait in its line, and go home from there.
    (3..6).for_each(|body| bench.event(ClientEvent::Submit(keyed(body, KEYS[0]))));
    assert_eq!(bench.submits(), [(4, 1, b)]);
    bench.outbox.effects = effects;
    bench.greet(a, 2);
    assert_eq!(bench.submits().split_off(3), [(5, 1, a), (6, 1, a)]);
}

#[test]
fn who_waits_for_a_broker_that_stays_away_is_woken_when_it_is_lost() {
    let mut bench = Bench::open(2);
    let (a, b) = (LinkId(0), LinkId(1));
    bench.sleep(SECOND / 2);
    bench.event(ClientEvent::SocketLost(a));
    bench.event(ClientEvent::Submit(keyed(0, KEYS[0])));
    bench.sleep(3 * SECOND - 1);
    assert_eq!(bench.submits(), []);
    bench.sleep(1);
    assert_eq!(bench.submits(), [(1, 1, b)]);
}

#[test]
fn a_broker_that_leaves_loses_its_keys_at_once() {
    let mut bench = Bench::open(2);
    let (a, b) = (LinkId(0), LinkId(1));
    bench.receive(a, FromBroker::Goodbye);
    bench.event(ClientEvent::Submit(keyed(0, KEYS[0])));
    assert_eq!(bench.submits(), [(1, 1, b)]);
}

#[test]
fn with_every_broker_lost_a_key_takes_the_first_that_is_back() {
    let mut bench = Bench::new(2);
    bench.event(ClientEvent::Start);
    bench.event(ClientEvent::Submit(keyed(0, KEYS[0])));
    (0..4).for_each(|_| bench.sleep(SECOND));
    assert_eq!(bench.ends(), []);
    bench.event(ClientEvent::Submit(request(1)));
    bench.sleep(4 * SECOND);
    bench.greet(LinkId(1), 1);
    assert_eq!(bench.submits().len(), 2);
}

#[test]
fn a_deadline_ends_a_request_in_a_line_and_a_client_that_closes_ends_all_of_them() {
    let mut bench = Bench::open(2);
    (0..5).for_each(|body| bench.event(ClientEvent::Submit(keyed(body, KEYS[0]))));
    let deadline = bench.now.after(SECOND);
    bench.event(ClientEvent::Submit(NewRequest { deadline, ..keyed(5, KEYS[0]) }));
    bench.effects();
    bench.sleep(SECOND + SECOND / 10);
    assert_eq!(bench.ends(), [(6, End::Local(LocalEnd::Expired))]);
    bench.event(ClientEvent::Close);
    assert_eq!(bench.ends().len(), 5);
    assert!(bench.client.is_flushed());
}

#[derive(Clone, Debug)]
enum Step {
    Submit(Option<u8>),
    Busy(u8),
    End(u8),
    Close(u16),
    Leave(u16),
    Greet(u16),
    Sleep(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::option::weighted(0.8, any::<u8>()).prop_map(Step::Submit),
        1 => any::<u8>().prop_map(Step::Busy),
        4 => any::<u8>().prop_map(Step::End),
        1 => any::<u16>().prop_map(Step::Close),
        1 => any::<u16>().prop_map(Step::Leave),
        3 => any::<u16>().prop_map(Step::Greet),
        3 => (1..20_u8).prop_map(Step::Sleep),
    ]
}

/// What a naive client would know of each broker.
#[derive(Clone, Copy, Default)]
struct Known {
    is_open: bool,
    /// Tenths of a second.
    lost_at: Option<u64>,
    busy_until: u64,
}

struct Model {
    bench: Bench,
    known: Vec<Known>,
    /// Keys of what was handed in, and where each request is held.
    keys: BTreeMap<u64, Option<u64>>,
    /// What the latest HELLO said, unless it was answered.
    hellos: Vec<Option<u64>>,
    held: BTreeMap<u64, (u32, LinkId)>,
    tenths: u64,
}

impl Model {
    fn new(links: u16) -> Self {
        let mut bench = Bench::with(links, 100_000);
        bench.event(ClientEvent::Start);
        let hellos = vec![None; usize::from(links)];
        let known = vec![Known { lost_at: Some(30), ..Known::default() }; usize::from(links)];
        let (keys, held) = (BTreeMap::new(), BTreeMap::new());
        let mut model = Self { bench, known, keys, hellos, held, tenths: 0 };
        model.check();
        model
    }

    fn is_usable(&self, link: u16) -> bool {
        let known = self.known[usize::from(link)];
        let is_there = known.is_open || known.lost_at.is_some_and(|at| at > self.tenths);
        is_there && known.busy_until <= self.tenths
    }

    /// Each request with a key that is handed in now goes to the broker that is its key's.
    fn check(&mut self) {
        for effect in self.bench.effects() {
            match effect {
                // The same again, to a session that is open again.
                Effect::Submit { to, id, submission, .. }
                    if self.held.get(&id.0) == Some(&(submission.0, to)) => {}
                Effect::Submit { to, id, submission, .. } => {
                    self.held.insert(id.0, (submission.0, to));
                    if let Some(key) = self.keys[&id.0] {
                        let usable = (0..self.known.len() as u16).filter(|&it| self.is_usable(it));
                        assert_eq!(Some(to), belongs(key, usable), "request {id:?}");
                    }
                }
                Effect::Hello(link, nonce) => self.hellos[usize::from(link.0)] = Some(nonce),
                _ => {}
            }
        }
    }

    fn open_link(&mut self, at: u16) {
        let at = at % self.known.len() as u16;
        let Some(nonce) = self.hellos[usize::from(at)].take() else { return };
        assert!(!self.known[usize::from(at)].is_open);
        self.known[usize::from(at)] = Known { is_open: true, ..Known::default() };
        // Windows without end: nobody waits for room.
        let welcome = Welcome { window_tasks: 1_000_000, ..welcome(nonce, 1) };
        self.bench.receive(LinkId(at), FromBroker::Welcome(welcome));
        assert!(self.bench.client.is_open(LinkId(at)));
    }

    fn close_link(&mut self, at: u16, is_leaving: bool) {
        let at = at % self.known.len() as u16;
        let known = &mut self.known[usize::from(at)];
        if !known.is_open {
            return;
        }
        let after = if is_leaving { 0 } else { 30 };
        *known = Known { lost_at: Some(self.tenths + after), ..Known::default() };
        self.hellos[usize::from(at)] = None;
        match is_leaving {
            true => self.bench.receive(LinkId(at), FromBroker::Goodbye),
            false => self.bench.event(ClientEvent::SocketLost(LinkId(at))),
        }
    }

    fn answer(&mut self, which: u8, status: Status) {
        let nth = usize::from(which) % self.held.len().max(1);
        let Some((&id, &(submission, link))) = self.held.iter().nth(nth) else { return };
        if !self.known[usize::from(link.0)].is_open {
            return;
        }
        self.held.remove(&id);
        let before = self.bench.client.counters().busy;
        self.bench.receive(link, FromBroker::Result(result(id, submission, status)));
        // A BUSY about a submission that is not the latest any more means nothing.
        if self.bench.client.counters().busy > before {
            self.known[usize::from(link.0)].busy_until = self.tenths + 10;
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Submit(key) => {
                let id = self.bench.client.next_request_id().0;
                let key = key.map(|key| rendezvous::hash(&[key]));
                self.keys.insert(id, key);
                let new = NewRequest { key, bytes: 0, ..request(0) };
                self.bench.event(ClientEvent::Submit(new));
            }
            Step::Busy(which) => self.answer(which, Status::Busy),
            Step::End(which) => self.answer(which, Status::Ok),
            Step::Close(at) => self.close_link(at, false),
            Step::Leave(at) => self.close_link(at, true),
            Step::Greet(at) => self.open_link(at),
            Step::Sleep(tenths) => {
                for _ in 0..tenths {
                    // What is due by now is not to be judged by what is so a moment later.
                    self.bench.sleep(0);
                    self.check();
                    self.tenths += 1;
                    self.bench.sleep(SECOND / 10);
                    self.check();
                    for at in 0..self.known.len() {
                        if self.known[at].is_open {
                            echo(&mut self.bench, LinkId(at as u16));
                        }
                    }
                    self.check();
                }
            }
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn a_key_goes_where_a_naive_client_that_tries_every_broker_sends_it(
        links in 2..6_u16,
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut model = Model::new(links);
        steps.iter().for_each(|step| model.take(step));
        // Everything heals, and nobody is left waiting.
        (0..links).for_each(|at| model.take(&Step::Greet(at)));
        for _ in 0..10 {
            model.take(&Step::Sleep(10));
            (0..links).for_each(|at| model.take(&Step::Greet(at)));
        }
        prop_assert!(model.bench.client.is_flushed(), "{:?}", model.bench.client);
    }
}
