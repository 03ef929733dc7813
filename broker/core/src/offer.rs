//! Who serves what. Workers that offer the same services with the same labels form a group; a service
//! that requires labels is served by the groups that offer what stands before its brace and have them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use pinmesh_protocol::command::Ready;
use pinmesh_protocol::selector::{Selector, objection_to_offer};
use pinmesh_protocol::status::RefusedCode;

use crate::credit::Credit;
use crate::event::Body;
use crate::group::Group;
use crate::service::Serving;
use crate::slab::{GroupKey, Key, ServiceKey, WorkerKey};
use crate::state::State;

/// What the workers of a group offer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Offer {
    /// By their plain names, in the order of their keys, each once.
    pub(crate) services: Vec<ServiceKey>,
    /// Sorted, each once.
    pub(crate) labels: Vec<Box<str>>,
}

impl<B: Body> State<B> {
    /// The service of this name, for a client; made if there is room, `None` if there is not. The
    /// last quarter of the room is kept for workers: names that a client makes up keep none out.
    pub(crate) fn service_asked(&mut self, name: &str) -> Option<ServiceKey> {
        let max = self.config.services_max as usize;
        self.service_named(name, max - max / 4)
    }

    fn service_named(&mut self, name: &str, max: usize) -> Option<ServiceKey> {
        if let Some(key) = self.services.named(name) {
            return Some(key);
        }
        while self.services.len() >= max {
            for serving in self.services.drop_released()? {
                self.groups.at_mut(serving.group.index()).vacate(serving.place);
            }
        }
        let key = self.services.insert(name, self.now, self.config.service_limits, false);
        self.find_groups(key);
        // Whoever asked for it may yet be refused.
        self.services.release(key);
        Some(key)
    }

    /// A new service that requires labels is served by the groups that have them.
    fn find_groups(&mut self, key: ServiceKey) {
        let service = self.services.at(key);
        let Ok(selector) = Selector::parse(&service.name) else { return };
        let Some(base) = self.services.named(selector.service) else { return };
        let mut groups = self.services.at(base).groups.clone();
        groups.retain(|it| selector.is_met_by(&self.groups.at(it.group.index()).offer.labels));
        for serving in &mut groups {
            let group = self.groups.at_mut(serving.group.index());
            serving.place = group.give_place(key, serving.offered);
        }
        self.services.at_mut(key).groups = groups;
    }

    /// The services that a worker offers, in the order of its READY.
    pub(crate) fn services_offered(
        &mut self,
        ready: &Ready<'_>,
    ) -> Result<Vec<ServiceKey>, (RefusedCode, &'static str)> {
        if ready.services.is_empty() {
            return Err((RefusedCode::Malformed, "READY: name at least one service"));
        }
        if let Some(reason) = objection_to_offer(&ready.services, &ready.labels) {
            return Err((RefusedCode::Malformed, reason));
        }
        let mut services = Vec::new();
        for name in &ready.services {
            let Some(service) = self.service_named(name, self.config.services_max as usize) else {
                break;
            };
            // Held until all are found, so that a later name cannot displace it.
            self.services.at_mut(service).aliases += 1;
            services.push(service);
        }
        for service in &services {
            self.services.at_mut(*service).aliases -= 1;
            self.services.release(*service);
        }
        if services.len() < ready.services.len() {
            return Err((RefusedCode::Full, "too many services; raise limits.services"));
        }
        Ok(services)
    }

    /// The worker serves what it offers from here on, and what requires no label that it lacks.
    pub(crate) fn join_group(&mut self, key: WorkerKey, labels: &[&str]) {
        let mut offer = Offer {
            services: self.workers.at(key.index()).services.clone(),
            labels: labels.iter().map(|label| Box::from(*label)).collect(),
        };
        offer.services.sort_unstable();
        offer.services.dedup();
        offer.labels.sort_unstable();
        offer.labels.dedup();
        let worker = self.workers.at_mut(key.index());
        worker.has_fixed_credit = self.config.is_credit_fixed;
        worker.credits = alloc::vec![Credit::START; offer.services.len()];
        worker.work_max = 0;
        let alias = |service| worker.services.iter().position(|key| key == service);
        let aliases = offer.services.iter().map(|key| alias(key).unwrap_or_default() as u32);
        worker.aliases = aliases.collect();
        let group =
            self.groups_by_offer.get(&offer).copied().unwrap_or_else(|| self.new_group(offer));
        self.groups.at_mut(group.index()).workers += 1;
        self.workers.at_mut(key.index()).group = Some(group);
    }

    fn new_group(&mut self, offer: Offer) -> GroupKey {
        let mut served: Vec<(ServiceKey, u32)> = Vec::new();
        for (offered, service) in (0..).zip(&offer.services) {
            served.push((*service, offered));
        }
        for (offered, service) in (0..).zip(&offer.services) {
            let name = &self.services.at(*service).name;
            let met = self
                .services
                .requiring(name)
                .filter(|(_, selector)| selector.is_met_by(&offer.labels));
            served.extend(met.map(|(service, _)| (service, offered)));
        }
        let group: GroupKey = self.groups.insert(Group::new(offer.clone()));
        for (key, offered) in served {
            let service = self.services.at_mut(key);
            if let Some(timer) = service.timer.take() {
                self.timers.cancel(timer);
            }
            let place = self.groups.at_mut(group.index()).give_place(key, offered);
            for class in service.classes_in_turn() {
                self.groups.at_mut(group.index()).enter(place, class);
            }
            service.groups.push(Serving { group, place, offered });
        }
        self.groups_by_offer.insert(offer, group);
        group
    }

    /// Takes a worker out of its group; services that nobody serves any more start to wait.
    pub(crate) fn leave_group(&mut self, index: u32) {
        self.unlist(index);
        let Some(group_key) = self.workers.at_mut(index).group.take() else { return };
        let Some(group) = self.groups.get_mut(group_key) else { return };
        group.workers -= 1;
        if group.workers > 0 {
            return;
        }
        let Some(group) = self.groups.remove(group_key) else { return };
        self.groups_by_offer.remove(&group.offer);
        for served in group.served {
            let service_key = served.service;
            // Its place may be vacant.
            let Some(service) = self.services.get_mut(service_key) else { continue };
            service.groups.retain(|serving| serving.group != group_key);
            if service.groups.is_empty() {
                service.unserved_since = self.now;
            }
            self.watch_service(service_key);
            self.services.release(service_key);
        }
    }
}
