//! What goes wrong: crashes, stops, cuts, jumps; and its end.

use crate::clock::{MS, S, Wake};
use crate::counters::Count;
use crate::fleet::Fleet;
use crate::host::News;
use crate::net::{Direction, Machine, SocketId};
use crate::rogue;
use crate::worker::WorkerId;
use crate::world::World;
use pinmesh_session::supervision::{Death, Signal};

/// SIGKILL.
const SIGKILL: i32 = 9;

/// The end of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repair {
    /// A broker goes on, in that life.
    ContinueBroker(usize, u32),
    /// A broker is started after that life.
    StartBroker(usize, u32),
    /// A service that an operator has paused is resumed, in that life of the broker.
    Resume(usize, u32, &'static str),
    /// A supervisor goes on, in that life.
    ContinueSupervisor(usize, u32),
    /// A host goes on.
    ThawHost(usize),
    /// A supervisor is started after that life.
    StartHost(usize, u32),
    /// A worker goes on.
    ContinueWorker(WorkerId),
    /// A worker without a supervisor is started.
    StartLoner(usize),
    /// A client goes on.
    ContinueClient(usize),
    /// Another client comes.
    StartClient,
}

impl Fleet {
    /// A fault of that class happens, if there is somebody whom it can happen to.
    pub(crate) fn fault(&mut self, fault: Count) {
        let happened = match fault {
            Count::Cut => self.on_some_socket(|fleet, socket| fleet.cut(socket)),
            Count::Stall => self.on_some_socket(|fleet, socket| {
                let until = fleet.world.now + fleet.world.random.scale(5 * MS, 10 * S);
                fleet.world.net.stall(&mut fleet.world.agenda, socket, until);
            }),
            Count::Slow => self.on_some_socket(|fleet, socket| {
                let latency = fleet.world.random.scale(MS, 200 * MS);
                fleet.world.net.set_latency(socket, latency);
            }),
            Count::Full => self.on_some_socket(|fleet, socket| {
                let until = fleet.world.now + fleet.world.random.scale(MS, 3 * S);
                fleet.world.net.fill(socket, until);
            }),
            Count::Partition => self.partition_some(),
            Count::Deaf => self.on_some_socket(|fleet, socket| {
                let World { now, agenda, random, net, .. } = &mut fleet.world;
                let most = 2 * fleet.shape.core.host_requeue().0;
                let until = *now + random.scale(50 * MS, most);
                let direction = if random.one_in(2) { Direction::Up } else { Direction::Down };
                if let (Some(owner), Some(broker)) = (net.owner(socket), net.broker(socket)) {
                    net.deafen(agenda, (owner, broker, direction), until);
                }
            }),
            Count::WorkerKill | Count::WorkerStop | Count::LonerKill | Count::LonerStop => {
                self.worker_fault(fault)
            }
            Count::SupervisorKill
            | Count::SupervisorStop
            | Count::HostFreeze
            | Count::HostJump
            | Count::HostDrain
            | Count::HostRenew => self.host_fault(fault),
            Count::BrokerKill | Count::BrokerStop | Count::BrokerJump | Count::BrokerDrain => {
                self.broker_fault(fault)
            }
            Count::ClientKill | Count::ClientStop | Count::ClientJump | Count::ClientReconnect => {
                self.client_fault(fault)
            }
            Count::Pause
            | Count::Purge
            | Count::OperatorCancel
            | Count::OperatorDrain
            | Count::Replay
            | Count::DeadPurge => self.operator_fault(fault),
            Count::Rogue => {
                rogue::act(&mut self.world, &self.checker, &mut self.rogue, self.shape.brokers);
                true
            }
            _ => false,
        };
        if happened {
            self.world.counters.add(fault);
            self.world.tell(|| format!("fault: {}", fault.name()));
        }
    }

    fn on_some_socket(&mut self, act: impl FnOnce(&mut Self, SocketId)) -> bool {
        let sockets = self.world.net.sockets_where(|_, machine| machine != Machine::Rogue);
        let Some(socket) = self.pick(&sockets) else { return false };
        act(self, socket);
        true
    }

    fn cut(&mut self, socket: SocketId) {
        let world = &mut self.world;
        world.net.cut((world.now, &mut world.agenda, &mut world.random), socket);
    }

    pub(crate) fn pick<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        let at = self.world.random.below(among.len() as u64) as usize;
        among.get(at).copied()
    }

    /// A machine is cut off from one broker, or from all.
    fn partition_some(&mut self) -> bool {
        let mut machines: Vec<Machine> = (0..self.hosts.len()).map(Machine::Host).collect();
        machines.extend((0..self.loners.len()).map(Machine::Loner));
        machines.extend(self.clients_alive().into_iter().map(Machine::Client));
        let Some(machine) = self.pick(&machines) else { return false };
        let most = 2 * self.shape.core.host_requeue().0;
        let length = self.world.random.scale(50 * MS, most);
        let is_all = self.world.random.one_in(2);
        let one = self.world.random.below(self.shape.brokers as u64) as usize;
        for broker in 0..self.shape.brokers {
            if is_all || broker == one {
                self.partition(machine, broker, length);
            }
        }
        true
    }

    /// Nothing passes for so long. What is in flight waits, or its connection breaks over it.
    pub(crate) fn partition(&mut self, machine: Machine, broker: usize, length: u64) {
        let until = self.world.now + length;
        self.world.net.partition(machine, broker, until);
        let fits = |of: usize, whose: Machine| of == broker && whose == machine;
        for socket in self.world.net.sockets_where(fits) {
            let breaks = length > 5 * S || self.world.random.one_in(2);
            self.world.net.stall(&mut self.world.agenda, socket, until);
            if breaks {
                self.cut(socket);
            }
        }
    }

    /// A process is stopped for so long.
    pub(crate) fn stop_worker(&mut self, id: WorkerId, length: u64) {
        self.signal(id, Signal::Stop);
        self.repair_after(length, Repair::ContinueWorker(id));
    }

    fn worker_fault(&mut self, fault: Count) -> bool {
        let is_loner = matches!(fault, Count::LonerKill | Count::LonerStop);
        let living = self.workers.living().filter(|worker| worker.host.is_none() == is_loner);
        let living: Vec<_> = living.map(|worker| worker.id).collect();
        let Some(id) = self.pick(&living) else { return false };
        if matches!(fault, Count::WorkerKill | Count::LonerKill) {
            self.bury(id, Death::Signalled(SIGKILL));
        } else {
            let length = self.world.random.scale(MS, 8 * S);
            self.stop_worker(id, length);
        }
        true
    }

    fn host_fault(&mut self, fault: Count) -> bool {
        let up: Vec<_> = (0..self.hosts.len()).filter(|at| self.hosts[*at].is_up()).collect();
        let Some(at) = self.pick(&up) else { return false };
        let most = 2 * self.shape.core.host_requeue().0;
        match fault {
            Count::SupervisorKill => {
                let length = self.world.random.scale(50 * MS, 5 * S);
                self.kill_supervisor(at, length);
            }
            Count::SupervisorStop => {
                let length = self.world.random.scale(10 * MS, most);
                self.stop_supervisor(at, length);
            }
            Count::HostFreeze => {
                let length = self.world.random.scale(10 * MS, most);
                self.freeze(at, true);
                self.repair_after(length, Repair::ThawHost(at));
            }
            Count::HostJump => {
                let length = self.world.random.scale(10 * MS, most);
                self.hosts[at].clock_ahead += length;
                self.hosts[at].poke(&mut self.world, 0);
            }
            Count::HostRenew => {
                self.checker.on_host_drain();
                self.hosts[at].renew(&mut self.world);
            }
            _ => {
                self.checker.on_host_drain();
                self.hosts[at].terminate(&mut self.world);
                let wait = self.world.random.scale(5 * S, 15 * S);
                self.repair_after(wait, Repair::StartHost(at, self.hosts[at].lives));
            }
        }
        true
    }

    /// A supervisor is killed; its workers die with it, and another comes after so long.
    pub(crate) fn kill_supervisor(&mut self, at: usize, length: u64) {
        for id in self.hosts[at].kill(&mut self.world) {
            let delay = self.world.random.below(2 * MS);
            self.world.after(delay, Wake::Signal(id, Signal::Kill));
        }
        self.checker.on_host_held(at, self.hosts[at].is_frozen, self.world.now);
        self.repair_after(length, Repair::StartHost(at, self.hosts[at].lives));
    }

    /// A supervisor is stopped for so long; its workers are not.
    pub(crate) fn stop_supervisor(&mut self, at: usize, length: u64) {
        let is_frozen = self.hosts[at].is_frozen;
        self.hosts[at].hold(&mut self.world, true, is_frozen);
        self.checker.on_host_held(at, true, self.world.now);
        self.repair_after(length, Repair::ContinueSupervisor(at, self.hosts[at].lives));
    }

    /// A whole host stands still, or goes on.
    pub(crate) fn freeze(&mut self, at: usize, is_frozen: bool) {
        let is_stopped = self.hosts[at].is_stopped;
        self.hosts[at].hold(&mut self.world, is_stopped, is_frozen);
        self.checker.on_host_held(at, is_stopped || is_frozen, self.world.now);
        for worker in self.workers.0.iter_mut().flatten() {
            if worker.machine == Machine::Host(at) {
                let is_stopped = worker.is_stopped();
                worker.hold(&mut self.world, is_stopped, is_frozen);
            }
        }
    }

    fn broker_fault(&mut self, fault: Count) -> bool {
        let up: Vec<_> = (0..self.brokers.len())
            .filter(|at| self.brokers[*at].life.is_some() && !self.brokers[*at].is_stopped)
            .collect();
        let Some(at) = self.pick(&up) else { return false };
        match fault {
            Count::BrokerKill => {
                let length = self.world.random.scale(20 * MS, 8 * S);
                self.kill_broker(at, length);
            }
            Count::BrokerStop => {
                let length = self.world.random.scale(5 * MS, 10 * S);
                self.brokers[at].stop(&mut self.world, true);
                self.repair_after(length, Repair::ContinueBroker(at, self.brokers[at].lives));
            }
            Count::BrokerJump => {
                let length = self.world.random.scale(MS, self.shape.core.grace.0 / 2);
                self.brokers[at].jump(&mut self.world, length);
            }
            _ => self.drain_broker(at),
        }
        true
    }

    /// A broker is killed; another comes after so long.
    pub(crate) fn kill_broker(&mut self, at: usize, length: u64) {
        self.brokers[at].kill(&mut self.world, &mut self.checker);
        self.repair_after(length, Repair::StartBroker(at, self.brokers[at].lives));
    }

    fn client_fault(&mut self, fault: Count) -> bool {
        let alive = self.clients_alive();
        let Some(at) = self.pick(&alive) else { return false };
        match fault {
            Count::ClientKill => {
                self.clients[at].kill(&mut self.world, &mut self.checker);
                let wait = self.world.random.scale(10 * MS, 3 * S);
                self.repair_after(wait, Repair::StartClient);
            }
            Count::ClientStop => {
                self.clients[at].stop(&mut self.world, true);
                let most = 2 * self.shape.core.client_kept.0;
                let length = self.world.random.scale(10 * MS, most);
                self.repair_after(length, Repair::ContinueClient(at));
            }
            Count::ClientJump => {
                self.clients[at].clock_ahead += self.world.random.scale(10 * MS, 30 * S);
                self.clients[at].poke(&mut self.world, 0);
            }
            _ => {
                let link = self.world.random.below(self.shape.brokers as u64) as usize;
                let client = &mut self.clients[at];
                client.lose_socket(&mut self.world, &mut self.checker, link);
            }
        }
        true
    }

    pub(crate) fn repair_after(&mut self, ns: u64, repair: Repair) {
        self.repairs.push(Some(repair));
        self.world.after(ns, Wake::Heal(self.repairs.len() - 1));
    }

    /// A fault is over. `false`: it had been before.
    pub(crate) fn heal(&mut self, number: usize) -> bool {
        let Some(repair) = self.repairs[number].take() else { return false };
        match repair {
            Repair::ContinueBroker(at, life) => {
                if self.brokers[at].lives == life && self.brokers[at].is_stopped {
                    self.brokers[at].stop(&mut self.world, false);
                }
            }
            Repair::StartBroker(at, life) => {
                if self.brokers[at].lives == life && self.brokers[at].life.is_none() {
                    self.start_broker(at);
                }
            }
            Repair::Resume(at, life, service) => self.resume(at, life, service),
            Repair::ContinueSupervisor(at, life) => {
                if self.hosts[at].lives == life {
                    let is_frozen = self.hosts[at].is_frozen;
                    self.hosts[at].hold(&mut self.world, false, is_frozen);
                    self.checker.on_host_held(at, is_frozen, self.world.now);
                }
            }
            Repair::ThawHost(at) => self.freeze(at, false),
            Repair::StartHost(at, life) => self.start_host_again(at, life),
            Repair::ContinueWorker(id) => self.signal(id, Signal::Continue),
            Repair::StartLoner(at) => {
                if !self.is_closing {
                    self.start_loner(at);
                }
            }
            Repair::ContinueClient(at) => {
                if !self.clients[at].is_dead {
                    self.clients[at].stop(&mut self.world, false);
                }
            }
            Repair::StartClient => self.start_client(),
        }
        true
    }

    pub(crate) fn start_host_again(&mut self, at: usize, life: u32) {
        if self.hosts[at].lives != life || self.is_closing {
            return;
        }
        // One that was asked to leave may need its time, and one whose workers have not all died
        // must not be followed yet: its successor has the same CPUs.
        let is_busy = self.workers.living().any(|worker| worker.machine == Machine::Host(at));
        if self.hosts[at].is_up() || is_busy || self.hosts[at].is_frozen {
            self.repair_after(S, Repair::StartHost(at, life));
            return;
        }
        self.start_host(at);
    }

    /// A signal reaches a worker's process.
    pub(crate) fn signal(&mut self, id: WorkerId, signal: Signal) {
        let Some(worker) = self.workers.get_mut(id).filter(|worker| worker.is_alive()) else {
            return;
        };
        let is_frozen = worker.is_frozen();
        let news = match signal {
            Signal::Stop if !worker.is_stopped() => {
                worker.hold(&mut self.world, true, is_frozen);
                News::Stopped
            }
            Signal::Continue if worker.is_stopped() => {
                worker.hold(&mut self.world, false, is_frozen);
                News::Continued
            }
            Signal::Kill => return self.bury(id, Death::Signalled(SIGKILL)),
            Signal::Drain => {
                if let Some(death) = worker.ask_to_leave(&mut self.world) {
                    self.bury(id, death);
                }
                return;
            }
            Signal::Stop | Signal::Continue | Signal::Warn(_) => return,
        };
        self.tell_supervisor(id, news);
    }
}
