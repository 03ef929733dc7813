//! A host: its supervisor's process, the real machine inside a loop on virtual links, and what the
//! system does for it: starts, signals and deaths of workers.

use std::collections::VecDeque;

use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::codec::write_to_broker;
use pinmesh_protocol::command::ToBroker;
use pinmesh_protocol::id::{AttemptId, Epoch, Incarnation, PeerId, Slot};
use pinmesh_session::Time;
use pinmesh_session::slots::{BrokerIndex, Flip, Glance, HeldSlot};
use pinmesh_session::supervision::{Config, Death, Effects, Event, Note, Signal, Supervision};

use crate::checker::Checker;
use crate::clock::{US, Wake};
use crate::counters::Count;
use crate::net::{Machine, Owner, SocketId};
use crate::story;
use crate::task::peer_id;
use crate::worker::{Worker, WorkerId, WorkerShape};
use crate::world::{Alarm, World};

/// Worker processes by number, dead ones whose page may still be read included.
#[derive(Debug, Default)]
pub struct Workers(pub Vec<Option<Box<Worker>>>);

impl Workers {
    /// The process of that number.
    pub fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.0.get(id.0 as usize)?.as_deref()
    }

    /// The process of that number, to be changed.
    pub fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.0.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// Processes that are there.
    pub fn living(&self) -> impl Iterator<Item = &Worker> {
        self.0.iter().flatten().map(|worker| &**worker).filter(|worker| worker.is_alive())
    }
}

/// What a supervisor learns about a worker's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// It was stopped.
    Stopped,
    /// It goes on.
    Continued,
    /// It is gone.
    Died(Death),
}

#[derive(Debug, Default)]
struct Link {
    socket: Option<SocketId>,
    batch: Vec<u8>,
}

/// The supervisor's surroundings.
#[derive(Debug)]
pub struct Surroundings {
    index: usize,
    peer_id: PeerId,
    shape: WorkerShape,
    links: Vec<Link>,
    /// The latest process of each slot.
    pub children: Vec<Option<WorkerId>>,
    news: VecDeque<(Slot, News)>,
    has_left: bool,
    terminations: u32,
    is_to_renew: bool,
    spawn_fails: bool,
    now: Time,
}

/// See the module.
#[derive(Debug)]
pub struct HostSim {
    /// Its place among the hosts.
    pub index: usize,
    /// The machine; `None`: the process is down.
    machine: Option<Supervision>,
    /// What it acts on.
    pub around: Surroundings,
    alarm: Alarm,
    /// The supervisor is stopped; its workers are not.
    pub is_stopped: bool,
    /// The whole machine stands still.
    pub is_frozen: bool,
    /// True time at which the supervisor last went on, or was started.
    pub went_on: u64,
    /// How far its clock is ahead of true time, nanoseconds.
    pub clock_ahead: u64,
    /// Counts the supervisor's lives, and what was planned for each.
    pub lives: u32,
}

struct Fx<'a> {
    world: &'a mut World,
    checker: &'a mut Checker,
    workers: &'a mut Workers,
    around: &'a mut Surroundings,
}

impl Surroundings {
    /// The supervisor's process.
    pub const fn peer_id(&self) -> PeerId {
        self.peer_id
    }
}

impl HostSim {
    /// A host whose supervisor is down.
    pub fn new(index: usize, slots: usize, shape: WorkerShape) -> Self {
        let links = (0..shape.brokers).map(|_| Link::default()).collect();
        Self {
            index,
            machine: None,
            around: Surroundings {
                index,
                peer_id: PeerId::default(),
                shape,
                links,
                children: vec![None; slots],
                news: VecDeque::new(),
                has_left: false,
                terminations: 0,
                is_to_renew: false,
                spawn_fails: false,
                now: Time(0),
            },
            alarm: Alarm::default(),
            is_stopped: false,
            is_frozen: false,
            went_on: 0,
            clock_ahead: 0,
            lives: 0,
        }
    }

    /// Whether the supervisor's process is there.
    pub const fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    /// A new supervisor. `change`: what is not as by default.
    pub fn start(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        workers: &mut Workers,
        change: impl FnOnce(&mut Config),
    ) {
        self.lives += 1;
        self.went_on = world.now;
        let around = &mut self.around;
        around.peer_id = peer_id(3, self.lives * 16 + self.index as u32);
        around.children.fill(None);
        around.news.clear();
        around.has_left = false;
        around.terminations = 0;
        around.is_to_renew = false;
        let cpus = around.children.iter().map(|_| None).collect();
        let name = format!("h{}", self.index);
        let mut config = Config::new(around.peer_id, name, cpus, around.links.len());
        config.seed = world.random.next();
        change(&mut config);
        self.machine = Some(Supervision::new(config));
        self.handle(world, checker, workers, Event::Start);
        self.settle(world);
    }

    fn handle(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        workers: &mut Workers,
        event: Event<'_>,
    ) {
        let now = Time(world.now + self.clock_ahead);
        let Some(machine) = &mut self.machine else { return };
        self.around.now = now;
        self.around.spawn_fails = world.wake_max > 0 && world.random.one_in(50);
        machine.handle(now, event, &mut Fx { world, checker, workers, around: &mut self.around });
    }

    /// Makes the loop turn after so long, unless it does earlier.
    pub fn poke(&mut self, world: &mut World, ns: u64) {
        let at = world.now.saturating_add(ns);
        if let Some(number) = self.alarm.bring_forward(at) {
            world.agenda.add(at, Wake::Supervisor(self.index, number));
        }
    }

    /// Something has come in.
    pub fn on_mail(&mut self, world: &mut World) {
        let wait = world.wake_time();
        self.poke(world, wait);
    }

    /// Something has become of a worker's process.
    pub fn on_news(&mut self, world: &mut World, slot: Slot, news: News) {
        self.around.news.push_back((slot, news));
        self.on_mail(world);
    }

    /// The supervisor is stopped or not, and suspended with its machine or not.
    pub fn hold(&mut self, world: &mut World, is_stopped: bool, is_frozen: bool) {
        let was_held = self.is_stopped || self.is_frozen;
        self.is_stopped = is_stopped;
        self.is_frozen = is_frozen;
        if was_held && !is_stopped && !is_frozen {
            self.went_on = world.now;
            self.alarm.silence();
            self.poke(world, 0);
        }
    }

    /// Somebody wants the host to leave.
    pub fn terminate(&mut self, world: &mut World) {
        self.around.terminations += 1;
        self.on_mail(world);
    }

    /// Somebody wants its workers started anew.
    pub fn renew(&mut self, world: &mut World) {
        self.around.is_to_renew = true;
        self.on_mail(world);
    }

    /// The supervisor's process dies. Its workers, which die with it.
    pub fn kill(&mut self, world: &mut World) -> Vec<WorkerId> {
        self.machine = None;
        self.is_stopped = false;
        self.alarm.silence();
        self.around.news.clear();
        for link in &mut self.around.links {
            link.batch.clear();
            if let Some(socket) = link.socket.take() {
                world.net.kill(socket, &mut world.random);
            }
        }
        self.around.children.iter().flatten().copied().collect()
    }

    /// The loop turns. `false`: it was not to.
    pub fn turn(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        workers: &mut Workers,
        number: u32,
    ) -> bool {
        let is_held = self.is_stopped || self.is_frozen || !self.is_up();
        if !self.alarm.rings(number) || is_held {
            return false;
        }
        for at in 0..self.around.links.len() {
            while let Some(socket) = self.around.links[at].socket
                && let Some(bytes) = world.net.read(socket)
            {
                self.read(world, checker, workers, at, (socket, &bytes));
            }
        }
        while let Some((slot, news)) = self.around.news.pop_front() {
            let event = match news {
                News::Stopped => Event::Stopped(slot),
                News::Continued => Event::Continued(slot),
                News::Died(death) => Event::Died { slot, death },
            };
            self.handle(world, checker, workers, event);
        }
        for _ in 0..std::mem::take(&mut self.around.terminations) {
            self.handle(world, checker, workers, Event::Terminate);
        }
        if std::mem::take(&mut self.around.is_to_renew) {
            self.handle(world, checker, workers, Event::Renew);
        }
        let now = Time(world.now + self.clock_ahead);
        let due = self.machine.as_ref().and_then(Supervision::next_wakeup);
        if due.is_some_and(|(due, _)| due <= now) {
            self.handle(world, checker, workers, Event::Tick);
        }
        self.settle(world);
        true
    }

    fn read(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        workers: &mut Workers,
        at: usize,
        (socket, bytes): (SocketId, &[u8]),
    ) {
        world.digest_bytes(bytes);
        let broker = BrokerIndex(at as u16);
        let mut reader = BatchReader::new(bytes, &[]);
        while let Some(command) = reader.next_from_broker() {
            let event = match command {
                Ok(command) => {
                    let (index, from) = (self.index, crate::broker::name(at));
                    let owner = Owner::Supervisor(index);
                    if let Some(text) = story::from_broker(&command, owner, checker) {
                        world.tell(|| format!("h{index} hears {text} from {from}"));
                    }
                    Event::Received { broker, command }
                }
                Err(error) => {
                    checker.fail(format!("h{} cannot read: {error}", self.index));
                    Event::Unreadable { broker, code: error.code() }
                }
            };
            self.handle(world, checker, workers, event);
            if self.around.links[at].socket != Some(socket) {
                return;
            }
        }
    }

    fn settle(&mut self, world: &mut World) {
        for link in &mut self.around.links {
            link.flush(world);
        }
        if self.around.has_left {
            world.tell(|| format!("h{} leaves", self.index));
            self.kill_after_leaving(world);
            return;
        }
        if let Some((due, _)) = self.machine.as_ref().and_then(Supervision::next_wakeup) {
            let wait = due.since(Time(world.now + self.clock_ahead)).max(US) + world.wake_time();
            self.poke(world, wait);
        }
    }

    fn kill_after_leaving(&mut self, world: &mut World) {
        self.machine = None;
        self.alarm.silence();
        for link in &mut self.around.links {
            // What was sent goes out: a socket lingers.
            if let Some(socket) = link.socket.take() {
                world.net.close(socket);
            }
        }
    }
}

impl Link {
    fn flush(&mut self, world: &mut World) {
        let batch = std::mem::take(&mut self.batch);
        if let Some(socket) = self.socket {
            let World { now, agenda, net, .. } = world;
            net.send_up(*now, agenda, socket, batch);
        }
    }
}

impl Fx<'_> {
    fn worker(&mut self, slot: Slot) -> Option<&mut Worker> {
        let id = (*self.around.children.get(usize::from(slot.0))?)?;
        self.workers.get_mut(id)
    }
}

impl Effects for Fx<'_> {
    fn connect(&mut self, broker: BrokerIndex) {
        let at = usize::from(broker.0);
        let index = self.around.index;
        let link = &mut self.around.links[at];
        link.flush(self.world);
        let World { now, agenda, random, net, .. } = &mut *self.world;
        if let Some(socket) = link.socket.take() {
            net.close(socket);
        }
        let (owner, machine) = (Owner::Supervisor(index), Machine::Host(index));
        link.socket = Some(net.open((*now, agenda, random), owner, machine, at));
    }

    fn send(&mut self, broker: BrokerIndex, command: &ToBroker<'_>) {
        write_to_broker(&mut self.around.links[usize::from(broker.0)].batch, command);
    }

    fn spawn(&mut self, slot: Slot, incarnation: Incarnation) -> bool {
        if self.around.spawn_fails {
            return false;
        }
        let id = WorkerId(self.workers.0.len() as u32);
        let index = self.around.index;
        let host = (Some((index, self.around.peer_id)), Machine::Host(index));
        let worker = Worker::new(self.world, id, host, (slot, incarnation), &self.around.shape);
        self.checker.on_worker_start(id, Some((index, slot, incarnation)));
        if let Some(before) = self.around.children[usize::from(slot.0)].replace(id) {
            self.workers.0[before.0 as usize] = None;
        }
        self.workers.0.push(Some(Box::new(worker)));
        true
    }

    fn signal(&mut self, slot: Slot, signal: Signal) {
        let name = (self.around.index, slot);
        self.world.tell(|| format!("h{}.{} gets {signal:?}", name.0, name.1));
        if let Some(Some(id)) = self.around.children.get(usize::from(slot.0)) {
            if signal == Signal::Continue {
                self.world.counters.add(Count::LetGoOn);
            }
            let delay = self.world.random.below(4 * self.world.wake_max + 1);
            self.world.after(delay, Wake::Signal(*id, signal));
        }
    }

    fn set_lease(&mut self, slot: Slot, broker: BrokerIndex, epoch: Epoch, until: Time) {
        if let Some(worker) = self.worker(slot) {
            worker.page.set_lease(broker, epoch, until);
        }
    }

    fn glance(&mut self, slot: Slot) -> Glance {
        let nothing = Glance { turn: 0, unended: 0, running: None };
        self.worker(slot).map_or(nothing, |worker| worker.page.glance())
    }

    fn is_ready(&mut self, slot: Slot) -> bool {
        let brokers = self.around.links.len();
        self.worker(slot).is_some_and(|worker| worker.page.sessions() >= brokers)
    }

    fn held(&mut self, slot: Slot) -> Vec<HeldSlot> {
        self.worker(slot).map_or_else(Vec::new, |worker| worker.page.held())
    }

    fn flip(&mut self, slot: Slot, broker: BrokerIndex, attempt: AttemptId) -> Flip {
        self.worker(slot).map_or(Flip::Absent, |worker| worker.page.flip(broker, attempt))
    }

    fn refuse(&mut self, slot: Slot, broker: BrokerIndex, attempt: AttemptId) -> bool {
        let now = self.around.now;
        let is_entered =
            self.worker(slot).is_some_and(|worker| worker.page.refuse(broker, attempt, now));
        let count = if is_entered { Count::RefusedUnread } else { Count::RefusalFull };
        self.world.counters.add(count);
        is_entered
    }

    fn cancel(&mut self, slot: Slot, broker: BrokerIndex, attempt: AttemptId) {
        let Some(Some(id)) = self.around.children.get(usize::from(slot.0)).copied() else { return };
        let Some(worker) = self.workers.get_mut(id) else { return };
        if worker.page.cancel(broker, attempt) {
            worker.on_cancel(self.world, attempt);
        }
    }

    fn note(&mut self, note: Note) {
        self.checker.on_note(self.world, self.around.index, &note);
        let index = self.around.index;
        self.world.tell(|| format!("h{index} notes {note:?}"));
    }

    fn exit(&mut self) {
        self.around.has_left = true;
    }
}
