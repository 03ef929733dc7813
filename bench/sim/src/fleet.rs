//! A fleet: brokers, hosts, workers and clients on virtual links. One step is one thing that
//! happens: a message arrives, a loop turns, a handler ends, a fault strikes.

use pinmesh_core::Event;
use pinmesh_protocol::id::{Incarnation, Slot};
use pinmesh_session::client::Cancel;
use pinmesh_session::supervision::Death;

use crate::broker::BrokerSim;
use crate::checker::Checker;
use crate::client::ClientSim;
use crate::clock::{MS, S, Wake};
use crate::counters::Count;
use crate::faults::Repair;
use crate::host::{HostSim, News, Workers};
use crate::net::{Direction, Machine, Owner};
use crate::rogue::Rogue;
use crate::shape::{SERVICES, Shape};
use crate::trap::Trap;
use crate::worker::{Turned, Worker, WorkerId};
use crate::world::{Story, World};

/// A worker without a supervisor: its place, whoever is in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loner {
    pub(crate) current: Option<WorkerId>,
}

/// See the module.
pub struct Fleet {
    /// Time, links, choices.
    pub world: World,
    /// What must hold.
    pub checker: Checker,
    /// What it is like.
    pub shape: Shape,
    pub(crate) brokers: Vec<BrokerSim>,
    pub(crate) hosts: Vec<HostSim>,
    pub(crate) workers: Workers,
    pub(crate) loners: Vec<Loner>,
    /// Clients by number, dead ones included.
    pub(crate) clients: Vec<ClientSim>,
    pub(crate) rogue: Rogue,
    pub(crate) repairs: Vec<Option<Repair>>,
    pub(crate) traps: Vec<Trap>,
    /// Callers ask, and faults happen.
    is_troubled: bool,
    /// Whoever leaves is not followed by another.
    pub(crate) is_closing: bool,
}

impl Fleet {
    /// A fleet that has just been started.
    pub fn new(seed: u64, shape: Shape, story: Story) -> Self {
        let mut world = World::new(seed, story);
        world.net.reconnect_max = 2 * S;
        world.net.blind_max = 3 * S;
        Self::started(world, shape)
    }

    /// One in which nothing is left to chance, for a scenario.
    pub fn exact(shape: Shape) -> Self {
        let mut world = World::new(0, Story::All(Vec::new()));
        world.wake_max = 0;
        world.net.is_exact = true;
        Self::started(world, shape)
    }

    fn started(mut world: World, shape: Shape) -> Self {
        world.net.latency = shape.latency;
        let mut fleet = Self {
            checker: Checker::new(world.is_told()),
            world,
            brokers: Vec::new(),
            hosts: Vec::new(),
            workers: Workers::default(),
            loners: vec![Loner::default(); shape.loners],
            clients: Vec::new(),
            rogue: Rogue::default(),
            repairs: Vec::new(),
            traps: Vec::new(),
            is_troubled: true,
            is_closing: false,
            shape,
        };
        fleet.start();
        fleet
    }

    fn start(&mut self) {
        for index in 0..self.shape.brokers {
            self.brokers.push(BrokerSim::new(index, self.shape.core_of(index).clone()));
            self.start_broker(index);
        }
        for (index, slots) in self.shape.hosts.clone().into_iter().enumerate() {
            self.hosts.push(HostSim::new(index, slots, self.shape.worker(index)));
            self.start_host(index);
        }
        (0..self.loners.len()).for_each(|at| self.start_loner(at));
        (0..self.shape.clients).for_each(|_| self.start_client());
        for (fault, mean) in self.shape.faults.clone() {
            let wait = self.world.random.wait(mean);
            self.world.after(wait, Wake::Fault(fault as usize));
        }
    }

    pub(crate) fn start_broker(&mut self, at: usize) {
        self.brokers[at].start(&mut self.world, &mut self.checker);
    }

    pub(crate) fn start_host(&mut self, at: usize) {
        self.checker.on_host_start(at);
        let patience = self.shape.supervisor;
        let Self { world, checker, workers, hosts, .. } = self;
        hosts[at].start(world, checker, workers, |config| patience.apply(config));
    }

    pub(crate) fn start_loner(&mut self, at: usize) {
        let id = WorkerId(self.workers.0.len() as u32);
        let shape = self.shape.worker(at);
        let place = (None, Machine::Loner(at));
        let life = (Slot(at as u16), Incarnation(id.0));
        self.checker.on_loner_start(id, at);
        let worker = Worker::new(&mut self.world, id, place, life, &shape);
        self.workers.0.push(Some(Box::new(worker)));
        if let Some(before) = self.loners[at].current.replace(id) {
            self.workers.0[before.0 as usize] = None;
        }
    }

    pub(crate) fn start_client(&mut self) {
        if self.is_closing {
            return;
        }
        let number = self.clients.len() as u32;
        let client = ClientSim::new(&mut self.world, number, self.shape.brokers, &SERVICES);
        self.clients.push(client);
        if self.shape.pace > 0 {
            let wait = self.world.random.wait(self.shape.pace);
            self.world.after(wait, Wake::Caller(number as usize, 0));
        }
    }

    pub(crate) fn clients_alive(&self) -> Vec<usize> {
        (0..self.clients.len()).filter(|at| !self.clients[*at].is_dead).collect()
    }

    pub(crate) fn drain_broker(&mut self, at: usize) {
        let length = self.world.random.scale(100 * MS, 5 * S);
        self.world.tell(|| format!("{} drains", crate::broker::name(at)));
        self.brokers[at].event(&mut self.world, &mut self.checker, Event::Drain);
        // Whether it is drained by then or not, it is cut short and comes back.
        self.brokers[at].leave_at = Some(self.world.now + length);
        self.brokers[at].look_at_leaving(&mut self.world);
    }

    /// The process of a worker is gone.
    pub(crate) fn bury(&mut self, id: WorkerId, death: Death) {
        let Some(worker) = self.workers.get_mut(id).filter(|worker| worker.is_alive()) else {
            return;
        };
        worker.die(&mut self.world, &mut self.checker);
        let name = self.checker.worker_name(id);
        self.world.tell(|| format!("{name} dies, {death:?}"));
        match worker.machine {
            Machine::Loner(at) if !self.is_closing => {
                let wait = self.world.random.scale(10 * MS, 3 * S);
                self.repair_after(wait, Repair::StartLoner(at));
            }
            _ => self.tell_supervisor(id, News::Died(death)),
        }
    }

    pub(crate) fn tell_supervisor(&mut self, id: WorkerId, news: News) {
        let Some(worker) = self.workers.get(id) else { return };
        let (Some(host), slot) = (worker.host, worker.slot) else { return };
        // A process of an earlier supervisor's life has nobody to be told.
        if self.hosts[host].around.children[usize::from(slot.0)] == Some(id) {
            self.hosts[host].on_news(&mut self.world, slot, news);
        }
    }

    fn clock_ahead(&self, machine: Machine) -> u64 {
        match machine {
            Machine::Host(at) => self.hosts[at].clock_ahead,
            Machine::Client(at) => self.clients[at].clock_ahead,
            Machine::Loner(_) | Machine::Rogue => 0,
        }
    }

    /// The next thing happens. `false`: nothing is left to happen.
    pub fn step(&mut self) -> bool {
        while let Some((at, wake)) = self.world.agenda.pop() {
            self.world.now = self.world.now.max(at);
            if self.act(wake) {
                self.world.counters.add(Count::Steps);
                self.world.digest(self.world.now);
                return true;
            }
        }
        false
    }

    fn act(&mut self, wake: Wake) -> bool {
        if let Wake::Arrive(socket, direction) = wake
            && self.spring_trap(socket, direction)
        {
            return true;
        }
        let Self { world, checker, brokers, hosts, workers, clients, .. } = self;
        match wake {
            Wake::Arrive(socket, Direction::Up) => {
                let Some(arrival) = world.net.arrive_up(world.now, socket) else { return false };
                brokers[arrival.broker].arrive(world, checker, arrival);
            }
            Wake::Arrive(socket, Direction::Down) => {
                let Some(owner) = world.net.arrive_down(world.now, socket) else { return false };
                self.on_mail(owner);
            }
            Wake::Connect(socket) => {
                return world.net.connect((world.now, &mut world.agenda), socket);
            }
            Wake::Broker(at, number) => {
                let has_turned = brokers[at].turn(world, checker, number);
                self.look_at_drain(at);
                return has_turned;
            }
            Wake::Flush(at) => brokers[at].flush(world, checker),
            Wake::Retry(at) => brokers[at].retry(world, checker),
            Wake::Client(at, number) => return clients[at].turn(world, checker, number),
            Wake::Supervisor(at, number) => {
                return hosts[at].turn(world, checker, workers, number);
            }
            Wake::Worker(id, number) => {
                return self.on_worker(id, |worker, world, checker, ahead| {
                    worker.turn(world, checker, (ahead, number))
                });
            }
            Wake::Handler(id, number) => {
                return self.on_worker(id, |worker, world, checker, ahead| {
                    worker.end_handler(world, checker, (ahead, number))
                });
            }
            Wake::Signal(id, signal) => self.signal(id, signal),
            Wake::Caller(at, number) => return self.call(at, number),
            Wake::Fault(number) => return self.next_fault(number),
            Wake::Heal(number) => return self.heal(number),
            Wake::Line => {}
        }
        true
    }

    /// A worker does something, of which it may die. `false`: it was not to do anything.
    fn on_worker(
        &mut self,
        id: WorkerId,
        act: impl FnOnce(&mut Worker, &mut World, &mut Checker, u64) -> Option<Turned>,
    ) -> bool {
        let Some(machine) = self.workers.get(id).map(|worker| worker.machine) else { return false };
        let ahead = self.clock_ahead(machine);
        let Self { world, checker, workers, .. } = self;
        let Some(worker) = workers.get_mut(id) else { return false };
        let Some(turned) = act(worker, world, checker, ahead) else { return false };
        if let Turned::Died(death) = turned {
            self.bury(id, death);
        }
        true
    }

    fn on_mail(&mut self, owner: Owner) {
        let world = &mut self.world;
        match owner {
            Owner::Client(at) => {
                let wait = world.wake_time();
                self.clients[at].poke(world, wait);
            }
            Owner::Supervisor(at) => self.hosts[at].on_mail(world),
            Owner::Worker(id) => {
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.on_mail(world);
                }
            }
            Owner::Rogue => {}
        }
    }

    fn next_fault(&mut self, number: usize) -> bool {
        let fault = Count::ALL[number];
        let mean = self.shape.faults.iter().find(|(of, _)| *of == fault).map(|(_, mean)| *mean);
        let (true, Some(mean)) = (self.is_troubled, mean) else { return false };
        self.fault(fault);
        let least = if fault == Count::BrokerJump { self.shape.core.host_requeue().0 } else { 0 };
        let wait = self.world.random.wait(mean).max(least);
        self.world.after(wait, Wake::Fault(number));
        true
    }

    /// What a client's caller does.
    fn call(&mut self, at: usize, number: u32) -> bool {
        let client = &mut self.clients[at];
        if client.is_dead || client.plans != number || !self.is_troubled {
            return false;
        }
        client.plans += 1;
        let random = &mut self.world.random;
        let mut wait = random.wait(self.shape.pace);
        if random.one_in(100) {
            wait += random.scale(100 * MS, 3 * S);
        }
        self.world.after(wait, Wake::Caller(at, number + 1));
        if client.is_stopped {
            return true;
        }
        let open = client.open.len() as u64;
        if open > 0 && self.world.random.one_in(12) {
            let request = client.open[self.world.random.below(open) as usize];
            let how = if self.world.random.one_in(3) { Cancel::Hard } else { Cancel::Soft };
            client.cancel(&mut self.world, &mut self.checker, request, how);
            return true;
        }
        if client.open.len() < 100 && self.world.random.one_in(12) {
            let key = self.shape.idempotency_key(&mut self.world.random);
            let waits = self.world.random.one_in(2);
            client.fetch(&mut self.world, &mut self.checker, key, waits);
        }
        for _ in 0..self.world.random.between(1, self.shape.burst) {
            if client.open.len() < 100 {
                let ask = self.shape.ask(&mut self.world.random);
                client.ask(&mut self.world, &mut self.checker, &ask);
            }
        }
        true
    }

    fn look_at_drain(&mut self, at: usize) {
        let broker = &mut self.brokers[at];
        let Some(leave_at) = broker.leave_at else { return };
        let is_drained = broker.life.as_ref().is_none_or(|life| life.core.is_drained());
        if is_drained || self.world.now >= leave_at {
            broker.leave_at = None;
            broker.say_goodbye(&mut self.world, &mut self.checker);
            self.kill_broker(at, 500 * MS);
        } else {
            broker.look_at_leaving(&mut self.world);
        }
    }

    /// Faults are over, nobody asks for more, and everything that was stopped goes on.
    pub fn calm(&mut self) {
        self.is_troubled = false;
        (0..self.repairs.len()).for_each(|number| {
            self.heal(number);
        });
        self.world.net.heal();
        self.world.tell(|| "no more faults".into());
    }

    /// Whether nobody waits for anything.
    pub fn is_quiet(&self) -> bool {
        self.clients.iter().all(ClientSim::is_idle)
            && self.workers.living().all(Worker::is_idle)
            && self.brokers.iter().all(|broker| {
                broker.life.as_ref().is_some_and(|life| {
                    let counts = life.core.counts();
                    counts.tasks == 0 && counts.bytes == 0
                })
            })
    }

    /// Everybody leaves in good order.
    pub fn close(&mut self) {
        self.is_closing = true;
        for at in self.clients_alive() {
            self.clients[at].close(&mut self.world, &mut self.checker);
        }
        for at in 0..self.hosts.len() {
            self.hosts[at].terminate(&mut self.world);
        }
        let living: Vec<_> = self.workers.living().map(|worker| (worker.id, worker.host)).collect();
        for (id, host) in living {
            if host.is_none() {
                self.signal(id, pinmesh_session::supervision::Signal::Drain);
            }
        }
        self.rogue.close(&mut self.world);
    }

    /// Whether everybody has left, and no broker remembers anybody.
    pub fn is_empty(&self) -> bool {
        self.hosts.iter().all(|host| !host.is_up())
            && self.workers.living().count() == 0
            && self.brokers.iter().all(|broker| {
                broker.life.as_ref().is_some_and(|life| {
                    let counts = life.core.counts();
                    counts.sessions + counts.clients + counts.workers + counts.hosts == 0
                })
            })
    }

    /// Looks at every broker from inside.
    pub fn look(&mut self) {
        for broker in &self.brokers {
            if let Some(life) = &broker.life {
                self.checker.look_at(&life.core, life.epoch);
            }
        }
    }

    /// What is still held, for the report of a failure.
    pub fn remains(&self) -> String {
        let brokers = self.brokers.iter().map(|broker| match &broker.life {
            Some(life) => format!("{}: {:?}", broker.name(), life.core.counts()),
            None => format!("{}: down", broker.name()),
        });
        let workers = self.workers.living().filter(|worker| !worker.is_idle());
        let workers = workers.map(|worker| self.checker.worker_name(worker.id));
        let unresolved: Vec<_> =
            self.checker.unresolved().iter().take(8).map(ToString::to_string).collect();
        format!(
            "{}; busy workers: {}; unresolved: {}",
            brokers.collect::<Vec<_>>().join("; "),
            workers.collect::<Vec<_>>().join(" "),
            unresolved.join(" ")
        )
    }

    /// Ends the run: what brokers have counted counts.
    pub fn finish(&mut self) {
        for broker in &mut self.brokers {
            if let Some(life) = broker.life.take() {
                let counters = &mut self.world.counters;
                self.checker.on_broker_end(&life.core, life.epoch, counters);
            }
        }
        self.world.counters.add_many(Count::Seconds, self.world.now / S);
    }
}
