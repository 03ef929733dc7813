//! A host that does nothing but remember what it was told.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use pinmesh_protocol::command::{Attempts, FromBroker, Heartbeat, Host, Lost, ToBroker, Welcome};
use pinmesh_protocol::id::{AttemptId, Dispatch, Epoch, Incarnation, PeerId, Slot, TaskId};

use super::super::{Config, Effects, Event, Note, Signal, Supervision};
use crate::slots::{BrokerIndex, Flip, Glance, HeldSlot, Running, SlotState};
use crate::time::Time;

pub(super) const MS: u64 = 1_000_000;
pub(super) const S: u64 = 1_000 * MS;
pub(super) const A: BrokerIndex = BrokerIndex(0);
pub(super) const B: BrokerIndex = BrokerIndex(1);
pub(super) const EPOCH: Epoch = Epoch(7);

/// What a broker was sent, in words that can be compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Said {
    Hello(u64),
    Beat(u64),
    Host(Host),
    Lost(Lost),
    Recalled(Attempts),
    Goodbye,
    Refused,
}

#[derive(Default)]
pub(super) struct Page {
    pub(super) turn: u64,
    /// It has not said READY to every broker.
    pub(super) lacks_sessions: bool,
    pub(super) running: Option<Running>,
    pub(super) held: Vec<HeldSlot>,
    pub(super) refused: Vec<AttemptId>,
    pub(super) cancelled: Vec<AttemptId>,
    pub(super) leases: BTreeMap<u16, (Epoch, Time)>,
}

pub(super) struct Fake {
    pub(super) machine: Supervision,
    pub(super) now: Time,
    pub(super) world: World,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) pages: BTreeMap<u16, Page>,
    pub(super) spawned: Vec<(Slot, Incarnation)>,
    pub(super) signals: Vec<(Slot, Signal)>,
    pub(super) connects: Vec<BrokerIndex>,
    pub(super) said: Vec<(BrokerIndex, Said)>,
    pub(super) notes: Vec<Note>,
    pub(super) can_spawn: bool,
    pub(super) is_refusal_full: bool,
    pub(super) has_left: bool,
}

impl World {
    fn page(&mut self, slot: Slot) -> &mut Page {
        self.pages.entry(slot.0).or_default()
    }
}

impl Effects for World {
    fn connect(&mut self, broker: BrokerIndex) {
        self.connects.push(broker);
    }

    fn send(&mut self, broker: BrokerIndex, command: &ToBroker<'_>) {
        let said = match command {
            ToBroker::Hello(hello) => Said::Hello(hello.nonce),
            ToBroker::Heartbeat(beat) => Said::Beat(beat.sequence),
            ToBroker::Host(host) => Said::Host(host.clone()),
            ToBroker::Lost(lost) => Said::Lost(lost.clone()),
            ToBroker::Recalled(recalled) => Said::Recalled(recalled.clone()),
            ToBroker::Goodbye => Said::Goodbye,
            ToBroker::Refused(_) => Said::Refused,
            other => panic!("a supervisor does not say {other:?}"),
        };
        self.said.push((broker, said));
    }

    fn spawn(&mut self, slot: Slot, incarnation: Incarnation) -> bool {
        if self.can_spawn {
            self.pages.insert(slot.0, Page::default());
            self.spawned.push((slot, incarnation));
        }
        self.can_spawn
    }

    fn signal(&mut self, slot: Slot, signal: Signal) {
        self.signals.push((slot, signal));
    }

    fn set_lease(&mut self, slot: Slot, broker: BrokerIndex, epoch: Epoch, until: Time) {
        self.page(slot).leases.insert(broker.0, (epoch, until));
    }

    fn glance(&mut self, slot: Slot) -> Glance {
        let page = self.page(slot);
        let unended = page
            .held
            .iter()
            .filter(|held| matches!(held.state, SlotState::Waiting | SlotState::Claimed))
            .count() as u32;
        Glance { turn: page.turn, unended, running: page.running }
    }

    fn is_ready(&mut self, slot: Slot) -> bool {
        let page = self.page(slot);
        page.turn > 0 && !page.lacks_sessions
    }

    fn held(&mut self, slot: Slot) -> Vec<HeldSlot> {
        self.page(slot).held.clone()
    }

    fn flip(&mut self, slot: Slot, broker: BrokerIndex, attempt: AttemptId) -> Flip {
        let held = &mut self.page(slot).held;
        let Some(held) = held.iter_mut().find(|h| h.attempt == attempt && h.broker == broker)
        else {
            return Flip::Absent;
        };
        match held.state {
            SlotState::Waiting => {
                held.state = SlotState::Recalled;
                Flip::Recalled
            }
            SlotState::Claimed => Flip::Claimed,
            SlotState::Ended => Flip::Ended,
            SlotState::Recalled => Flip::AlreadyRecalled,
            SlotState::Free => Flip::Absent,
        }
    }

    fn refuse(&mut self, slot: Slot, _: BrokerIndex, attempt: AttemptId) -> bool {
        if !self.is_refusal_full {
            self.page(slot).refused.push(attempt);
        }
        !self.is_refusal_full
    }

    fn cancel(&mut self, slot: Slot, _: BrokerIndex, attempt: AttemptId) {
        self.page(slot).cancelled.push(attempt);
    }

    fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    fn exit(&mut self) {
        self.has_left = true;
    }
}

pub(super) fn attempt(task: u64) -> AttemptId {
    AttemptId { epoch: EPOCH, task: TaskId(task), dispatch: Dispatch(1) }
}

impl Fake {
    pub(super) fn new(workers: usize, brokers: usize) -> Self {
        Self::with(workers, brokers, |_| ())
    }

    pub(super) fn with(workers: usize, brokers: usize, set: impl Fn(&mut Config)) -> Self {
        let cpus = (0..workers as u16).map(Some).collect();
        let mut config = Config::new(PeerId([9; 16]), String::from("host"), cpus, brokers);
        set(&mut config);
        let world = World { can_spawn: true, ..World::default() };
        let mut fake = Self { machine: Supervision::new(config), now: Time(S), world };
        fake.event(Event::Start);
        fake
    }

    /// Workers are in their loop and every broker has welcomed the host.
    pub(super) fn up(workers: usize, brokers: usize) -> Self {
        let mut fake = Self::new(workers, brokers);
        (0..workers as u16).for_each(|slot| fake.page(slot).turn = 1);
        (0..brokers as u16).for_each(|broker| fake.welcome(BrokerIndex(broker), EPOCH));
        fake.run(200 * MS);
        fake.forget();
        fake
    }

    pub(super) fn event(&mut self, event: Event<'_>) {
        self.machine.handle(self.now, event, &mut self.world);
    }

    pub(super) fn receive(&mut self, broker: BrokerIndex, command: FromBroker<'_>) {
        self.event(Event::Received { broker, command });
    }

    /// WELCOME, and the echo of the heartbeat that follows.
    pub(super) fn welcome(&mut self, broker: BrokerIndex, epoch: Epoch) {
        self.welcome_only(broker, epoch);
        let echo = Heartbeat { sequence: 1, silence_ns: None };
        self.receive(broker, FromBroker::Heartbeat(echo));
    }

    pub(super) fn welcome_only(&mut self, broker: BrokerIndex, epoch: Epoch) {
        let nonce = self.hellos(broker).pop().expect("HELLO was said");
        self.receive(
            broker,
            FromBroker::Welcome(Welcome {
                version: 1,
                nonce,
                epoch,
                heartbeat_ns: S,
                lease_ns: 10 * S,
                liveness: 3,
                window_tasks: 0,
                window_bytes: 0,
                payload_bytes_max: 1,
                header_bytes_max: 1,
                kept_ns: 60_000_000_000,
            }),
        );
    }

    /// The session is lost and opened again.
    pub(super) fn welcome_again(&mut self, broker: BrokerIndex, epoch: Epoch) {
        self.receive(broker, FromBroker::NoSession);
        self.world.said.retain(|(_, said)| matches!(said, Said::Hello(_)));
        while self.hellos(broker).is_empty() {
            self.run(10 * MS);
        }
        self.welcome(broker, epoch);
    }

    /// Lets time pass, with brokers that say nothing.
    pub(super) fn run(&mut self, ns: u64) {
        self.pass(ns, false);
    }

    /// Lets time pass, with brokers that echo every heartbeat at once.
    pub(super) fn run_echoed(&mut self, ns: u64) {
        self.pass(ns, true);
    }

    fn pass(&mut self, ns: u64, is_echoed: bool) {
        let end = self.now.after(ns);
        for _ in 0..100_000 {
            let Some((due, _)) = self.machine.next_wakeup().filter(|&(due, _)| due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            let before = self.world.said.len();
            self.event(Event::Tick);
            let news = self.world.said[before..].to_vec();
            for (broker, said) in news {
                if let (true, Said::Beat(sequence)) = (is_echoed, said) {
                    let echo = Heartbeat { sequence, silence_ns: None };
                    self.receive(broker, FromBroker::Heartbeat(echo));
                }
            }
        }
        panic!("a hot loop: {:?}", self.machine.next_wakeup());
    }

    pub(super) fn page(&mut self, slot: u16) -> &mut Page {
        self.world.page(Slot(slot))
    }

    pub(super) fn hold(&mut self, slot: u16, broker: BrokerIndex, task: u64, state: SlotState) {
        self.page(slot).held.push(HeldSlot { broker, attempt: attempt(task), state });
    }

    /// The worker enters the handler.
    pub(super) fn run_task(&mut self, slot: u16, broker: BrokerIndex, task: u64, max: u64) {
        self.page(slot).held.retain(|held| held.attempt != attempt(task));
        self.hold(slot, broker, task, SlotState::Claimed);
        let started = self.now;
        self.page(slot).running =
            Some(Running { broker, attempt: attempt(task), started, max_runtime_ns: max });
    }

    /// The worker leaves the handler.
    pub(super) fn end_task(&mut self, slot: u16) {
        let page = self.page(slot);
        if let Some(running) = page.running.take() {
            let mut held = page.held.iter_mut();
            held.find(|h| h.attempt == running.attempt).unwrap().state = SlotState::Ended;
            page.turn += 1;
        }
    }

    /// Forgets what was said and done so far.
    pub(super) fn forget(&mut self) {
        self.world.said.clear();
        self.world.signals.clear();
        self.world.notes.clear();
        self.world.spawned.clear();
        self.world.connects.clear();
    }

    pub(super) fn hellos(&self, broker: BrokerIndex) -> Vec<u64> {
        self.said(broker, |said| match said {
            Said::Hello(nonce) => Some(*nonce),
            _ => None,
        })
    }

    pub(super) fn lost(&self, broker: BrokerIndex) -> Vec<Lost> {
        self.said(broker, |said| match said {
            Said::Lost(lost) => Some(lost.clone()),
            _ => None,
        })
    }

    pub(super) fn recalled(&self, broker: BrokerIndex) -> Vec<AttemptId> {
        self.said(broker, |said| match said {
            Said::Recalled(recalled) => Some(recalled.attempts.clone()),
            _ => None,
        })
        .concat()
    }

    pub(super) fn said<T>(&self, broker: BrokerIndex, take: impl Fn(&Said) -> Option<T>) -> Vec<T> {
        let said = self.world.said.iter().filter(|(to, _)| *to == broker);
        said.filter_map(|(_, said)| take(said)).collect()
    }
}
