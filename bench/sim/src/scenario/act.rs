//! What a scenario does to its fleet, done.

use pinmesh_core::Event;
use pinmesh_protocol::codec::{write_from_broker, write_to_broker};
use pinmesh_protocol::command::{Attempts, FromBroker, ToBroker, Window};
use pinmesh_protocol::id::Slot;
use pinmesh_session::supervision::{Death, Signal};

use super::Player;
use super::action::{Action, FOR_EVER};
use super::limits::limit;
use super::names::Actor;
use super::words::Words;
use crate::clock::MS;
use crate::faults::Repair;
use crate::fleet::Fleet;
use crate::net::{Machine, Owner};
use crate::task::Key;
use crate::trap::Trap;
use crate::worker::WorkerId;
use crate::world::World;

/// SIGKILL.
const SIGKILL: i32 = 9;

impl Player {
    pub(super) fn act(&mut self, action: &Action) -> Result<(), String> {
        let fleet = &mut self.fleet;
        match action {
            Action::Submit { client, asks } => {
                for ask in asks {
                    let sim = &mut fleet.clients[*client];
                    let request = sim.ask(&mut fleet.world, &mut fleet.checker, ask);
                    let key = Key { client: *client as u32, request };
                    self.keys.extend(ask.name.clone().map(|name| (name, key)));
                }
            }
            Action::Cancel { client, request, how } => {
                let key = self.keys.get(request).ok_or("it has not been submitted yet")?;
                let sim = &mut fleet.clients[*client];
                sim.cancel(&mut fleet.world, &mut fleet.checker, key.request, *how);
            }
            Action::Kill(actor) => fleet.kill_actor(*actor)?,
            Action::Start(actor) => fleet.start_actor(*actor)?,
            Action::Restart(at) => {
                fleet.kill_broker(*at, FOR_EVER);
                fleet.start_broker(*at);
            }
            Action::Stop(actor, length) => fleet.stop_actor(*actor, *length)?,
            Action::Continue(actor) => fleet.continue_actor(*actor)?,
            Action::Freeze(at, length) => {
                fleet.freeze(*at, true);
                fleet.repair_after(*length, Repair::ThawHost(*at));
            }
            Action::Drain(actor) => fleet.drain_actor(*actor)?,
            Action::Renew(at) => {
                fleet.checker.on_host_drain();
                fleet.hosts[*at].renew(&mut fleet.world);
            }
            Action::CutOff(actor, brokers, length) => {
                let machine = machine(*actor)?;
                brokers.iter().for_each(|broker| fleet.cut_off(machine, *broker, *length));
            }
            Action::Break(actor, broker) => {
                let owner = fleet.owner_of(*actor)?;
                let World { now, agenda, net, .. } = &mut fleet.world;
                for socket in net.sockets_of(owner, *broker) {
                    net.sever((*now, agenda), socket, *now);
                }
            }
            Action::Lose { peer, broker, direction, command } => {
                let owner = fleet.owner_of(*peer)?;
                let (broker, direction, words) = (*broker, *direction, command.clone());
                fleet.traps.push(Trap { owner, broker, direction, words });
            }
            Action::Deafen { peer, broker, direction, length } => {
                let owner = fleet.owner_of(*peer)?;
                let World { now, agenda, net, .. } = &mut fleet.world;
                net.deafen(agenda, (owner, *broker, *direction), *now + *length);
            }
            Action::Jump(actor, ns) => fleet.jump_actor(*actor, *ns)?,
            Action::Limit(at, text) => {
                limit(&mut Words::new(text), &mut fleet.brokers[*at].config)?;
            }
            Action::SayWindow { worker, broker, tasks } => {
                let owner = fleet.owner_of(*worker)?;
                fleet.say_window((owner, *broker), *tasks)?;
            }
            Action::SayRecall { broker, worker, request } => {
                let key = *self.keys.get(request).ok_or("it has not been submitted yet")?;
                fleet.say_recall(*broker, *worker, key)?;
            }
        }
        Ok(())
    }
}

fn machine(actor: Actor) -> Result<Machine, String> {
    match actor {
        Actor::Host(at) => Ok(Machine::Host(at)),
        Actor::Loner(at) => Ok(Machine::Loner(at)),
        Actor::Client(at) => Ok(Machine::Client(at)),
        Actor::Worker(..) | Actor::Broker(_) => {
            Err("only hosts, loners and clients have a network of their own".into())
        }
    }
}

impl Fleet {
    fn owner_of(&self, actor: Actor) -> Result<Owner, String> {
        match actor {
            Actor::Client(at) => Ok(Owner::Client(at)),
            Actor::Host(at) => Ok(Owner::Supervisor(at)),
            Actor::Worker(..) | Actor::Loner(_) => self.worker_of(actor).map(Owner::Worker),
            Actor::Broker(_) => Err("a broker is at the other end of links".into()),
        }
    }

    /// Words that no machine of this fleet says by itself, but others of their kind may.
    fn say_window(&mut self, (owner, broker): (Owner, usize), tasks: u32) -> Result<(), String> {
        let World { now, agenda, net, .. } = &mut self.world;
        let socket = net.sockets_of(owner, broker).pop().ok_or("it has no session")?;
        let mut bytes = Vec::new();
        let window = Window { tasks, bytes: 1 << 20 };
        write_to_broker(&mut bytes, &ToBroker::Window(window));
        net.send_up(*now, agenda, socket, bytes);
        Ok(())
    }

    fn say_recall(&mut self, broker: usize, worker: Actor, key: Key) -> Result<(), String> {
        let attempt = self.checker.latest_attempt(key).ok_or("it was never sent")?;
        let Actor::Worker(host, slot) = worker else {
            return Err("only a worker with a supervisor is recalled from here".into());
        };
        let World { now, agenda, net, .. } = &mut self.world;
        let socket = net.sockets_of(Owner::Supervisor(host), broker).pop();
        let address = socket.and_then(|socket| net.address(socket));
        let address = address.ok_or("its supervisor has no session")?;
        let recall = Attempts { slot: Slot(slot as u16), attempts: vec![attempt] };
        let mut bytes = Vec::new();
        write_from_broker(&mut bytes, &FromBroker::Recall(recall));
        net.send_down(*now, agenda, address, &mut bytes);
        Ok(())
    }

    /// Who is in that place now.
    fn worker_of(&self, actor: Actor) -> Result<WorkerId, String> {
        let worker = match actor {
            Actor::Worker(host, slot) => self.hosts[host].around.children[slot],
            Actor::Loner(at) => self.loners[at].current,
            Actor::Broker(_) | Actor::Host(_) | Actor::Client(_) => None,
        };
        let is_alive =
            |id: &WorkerId| self.workers.get(*id).is_some_and(|worker| worker.is_alive());
        worker.filter(is_alive).ok_or_else(|| "nobody is there now".into())
    }

    fn kill_actor(&mut self, actor: Actor) -> Result<(), String> {
        match actor {
            Actor::Broker(at) => self.kill_broker(at, FOR_EVER),
            Actor::Host(at) => self.kill_supervisor(at, FOR_EVER),
            Actor::Client(at) => self.clients[at].kill(&mut self.world, &mut self.checker),
            Actor::Worker(..) | Actor::Loner(_) => {
                let id = self.worker_of(actor)?;
                self.bury(id, Death::Signalled(SIGKILL));
            }
        }
        Ok(())
    }

    fn start_actor(&mut self, actor: Actor) -> Result<(), String> {
        match actor {
            Actor::Broker(at) if self.brokers[at].life.is_none() => self.start_broker(at),
            Actor::Host(at) if !self.hosts[at].is_up() => {
                let lives = self.hosts[at].lives;
                self.start_host_again(at, lives);
            }
            _ => return Err("only brokers and hosts that are down can be started".into()),
        }
        Ok(())
    }

    fn stop_actor(&mut self, actor: Actor, length: u64) -> Result<(), String> {
        match actor {
            Actor::Broker(at) => {
                self.brokers[at].stop(&mut self.world, true);
                let lives = self.brokers[at].lives;
                self.repair_after(length, Repair::ContinueBroker(at, lives));
            }
            Actor::Host(at) => self.stop_supervisor(at, length),
            Actor::Client(at) => {
                self.clients[at].stop(&mut self.world, true);
                self.repair_after(length, Repair::ContinueClient(at));
            }
            Actor::Worker(..) | Actor::Loner(_) => {
                let id = self.worker_of(actor)?;
                self.stop_worker(id, length);
            }
        }
        Ok(())
    }

    fn continue_actor(&mut self, actor: Actor) -> Result<(), String> {
        let repair = match actor {
            Actor::Broker(at) => Repair::ContinueBroker(at, self.brokers[at].lives),
            Actor::Host(at) => Repair::ContinueSupervisor(at, self.hosts[at].lives),
            Actor::Client(at) => Repair::ContinueClient(at),
            Actor::Worker(..) | Actor::Loner(_) => Repair::ContinueWorker(self.worker_of(actor)?),
        };
        self.repairs.push(Some(repair));
        self.heal(self.repairs.len() - 1);
        Ok(())
    }

    fn drain_actor(&mut self, actor: Actor) -> Result<(), String> {
        match actor {
            Actor::Broker(at) => {
                self.brokers[at].event(&mut self.world, &mut self.checker, Event::Drain);
                self.brokers[at].leave_at = Some(self.world.now + FOR_EVER);
                self.brokers[at].look_at_leaving(&mut self.world);
            }
            Actor::Host(at) => {
                self.checker.on_host_drain();
                self.hosts[at].terminate(&mut self.world);
            }
            Actor::Worker(..) | Actor::Loner(_) => {
                let id = self.worker_of(actor)?;
                self.signal(id, Signal::Drain);
            }
            Actor::Client(_) => return Err("a client does not drain".into()),
        }
        Ok(())
    }

    fn jump_actor(&mut self, actor: Actor, ns: u64) -> Result<(), String> {
        match actor {
            Actor::Broker(at) => self.brokers[at].jump(&mut self.world, ns),
            Actor::Host(at) => {
                self.hosts[at].clock_ahead += ns;
                self.hosts[at].poke(&mut self.world, 0);
            }
            Actor::Client(at) => {
                self.clients[at].clock_ahead += ns;
                self.clients[at].poke(&mut self.world, 0);
            }
            Actor::Worker(..) | Actor::Loner(_) => {
                return Err("a worker has its host's clock".into());
            }
        }
        Ok(())
    }

    /// Everything in flight is lost, and neither side is told of it.
    fn cut_off(&mut self, machine: Machine, broker: usize, length: u64) {
        let World { now, agenda, net, .. } = &mut self.world;
        let until = *now + length;
        net.partition(machine, broker, until);
        for socket in net.sockets_where(|of, whose| (of, whose) == (broker, machine)) {
            net.sever((*now, agenda), socket, until + MS);
        }
    }
}
