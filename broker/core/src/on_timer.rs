//! What time does: each timer goes off with its reason.

use pinmesh_protocol::status::Status;

use crate::dead::DeathCause;
use crate::event::Body;
use crate::outbox::Outbox;
use crate::slab::{Key, ServiceKey, TaskKey};
use crate::state::{State, Wake};
use crate::task::EndBody;

impl<B: Body> State<B> {
    pub(crate) fn on_time(&mut self, out: &mut impl Outbox<B>) {
        while let Some(wake) = self.timers.pop(self.now) {
            match wake {
                Wake::Session(conn) => self.on_session_timer(conn, out),
                Wake::ClientLost(key) => {
                    if let Some(client) = self.clients.get_mut(key) {
                        client.lost_timer = None;
                        self.drop_client(key, out);
                    }
                }
                Wake::WorkerAway(key) => self.on_worker_away(key, out),
                Wake::Head(key) => self.on_head_timer(key, out),
                Wake::Unpark(key) => self.on_unpark(key, out),
                Wake::Host(key) => self.on_host_timer(key, out),
                Wake::Service(key) => self.on_service_timer(key, out),
                Wake::Gate(key) => self.on_gate_timer(key, out),
                Wake::Inherited => self.on_inherited_timer(out),
                Wake::Dead => self.on_dead_timer(),
                Wake::Task(key) => self.on_task_timer(key, out),
            }
        }
    }

    /// Nobody has served the service for `service_wait`: tasks that have waited as long end so; later
    /// ones wait on.
    fn on_service_timer(&mut self, key: ServiceKey, out: &mut impl Outbox<B>) {
        let wait = self.config.service_wait;
        self.services.at_mut(key).timer = None;
        let mut over: alloc::vec::Vec<TaskKey> = alloc::vec::Vec::new();
        let mut earliest_wait = None;
        for flow in self.services.at(key).waiting.flows(&self.tasks, &self.flows) {
            for index in flow {
                let at = self.tasks.at(index).queued_at.after(wait);
                if at <= self.now {
                    over.push(self.tasks.key_at(index));
                } else {
                    // Those behind it came later.
                    earliest_wait = Some(earliest_wait.map_or(at, |earliest| at.min(earliest)));
                    break;
                }
            }
        }
        if let Some(at) = earliest_wait {
            let timer = self.timers.set(at, Wake::Service(key));
            self.services.at_mut(key).timer = Some(timer);
        }
        for task in over {
            let name = &self.services.at(self.tasks.at(task.index()).service).name;
            let text = alloc::format!(
                "no worker has served {name:?} for {} s; start one, or check the name",
                wait.0 / 1_000_000_000
            );
            let text = EndBody::Text(text.into());
            match self.origins.contains_key(&task) {
                // An operator who replays it too early must not lose it by that.
                true => self.die(task, DeathCause::NoService, None, text, out),
                false => self.finish(task, Status::NoService, None, text, out),
            }
        }
    }
}
