//! Named services: who waits for each, and which groups of workers serve it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::classes::Classes;
use crate::config::{CoreConfig, ServiceLimits};
use crate::gate::Gate;
use crate::shares::CLASSES;
use crate::slab::{GroupKey, ServiceKey, Slab, TimerKey};
use crate::time::Time;
use crate::waiting::Estimate;

/// A queue of its own.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) waiting: Classes,
    pub(crate) groups: Vec<Serving>,
    /// What one of its tasks should cost.
    pub(crate) estimate: Estimate,
    /// Aliases that sessions hold on it.
    pub(crate) aliases: u32,
    /// Tasks of it that have not ended, wherever they are.
    pub(crate) tasks: u32,
    /// Bytes of payload of those.
    pub(crate) bytes: u64,
    pub(crate) limits: ServiceLimits,
    pub(crate) gate: Gate,
    /// What waits stands in the rings of its groups: as long as the gate is open.
    pub(crate) is_in_turn: bool,
    /// The configuration names it.
    is_own: bool,
    /// It stands in the list of those that may have nobody left.
    is_released: bool,
    /// Since when nobody serves it; meaningful while `groups` is empty.
    pub(crate) unserved_since: Time,
    /// Set while nobody serves it and somebody waits.
    pub(crate) timer: Option<TimerKey>,
}

/// A group that serves it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Serving {
    pub(crate) group: GroupKey,
    /// The service's place there.
    pub(crate) place: u32,
}

impl Service {
    /// Classes that wait, unless it is closed.
    pub(crate) fn classes_in_turn(&self) -> impl Iterator<Item = usize> {
        (0..CLASSES).filter(|class| self.is_in_turn && self.waiting.has(*class))
    }

    fn is_idle(&self) -> bool {
        self.groups.is_empty()
            && self.aliases == 0
            && self.tasks == 0
            && self.gate.in_flight == 0
            && !self.gate.is_paused
            && self.gate.timer.is_none()
            && !self.is_own
    }
}

/// Every service by name. Bounded: an unused one makes room for a new one.
pub(crate) struct Services {
    by_name: BTreeMap<String, ServiceKey>,
    all: Slab<ServiceKey, Service>,
    /// Every unused one, and some that are used again: to make room takes no search.
    released: Vec<ServiceKey>,
    max: usize,
    limits: ServiceLimits,
}

impl Services {
    pub(crate) fn new(config: &CoreConfig) -> Self {
        let (by_name, all, released) = (BTreeMap::new(), Slab::new(), Vec::new());
        let (max, limits) = (config.services_max as usize, config.service_limits);
        let mut services = Self { by_name, all, released, max, limits };
        for (name, limits) in &config.own_service_limits {
            services.insert(name, Time(0), *limits, true);
        }
        services
    }

    /// The service of this name, if it is known.
    pub(crate) fn named(&self, name: &str) -> Option<ServiceKey> {
        self.by_name.get(name).copied()
    }

    /// Those whose names come after `after`, in the order of their names.
    pub(crate) fn by_name_after(
        &self,
        after: Option<&str>,
    ) -> impl Iterator<Item = (ServiceKey, &Service)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.by_name.range::<str, _>((start, Bound::Unbounded));
        range.map(|(_, key)| (*key, self.at(*key)))
    }

    pub(crate) fn get(&self, key: ServiceKey) -> Option<&Service> {
        self.all.get(key)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: ServiceKey) -> Option<&mut Service> {
        self.all.get_mut(key)
    }

    #[inline]
    pub(crate) fn at(&self, key: ServiceKey) -> &Service {
        self.all.get(key).expect("a service lives while a task, group or alias refers to it")
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, key: ServiceKey) -> &mut Service {
        self.all.get_mut(key).expect("a service lives while a task, group or alias refers to it")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ServiceKey, &Service)> {
        self.all.iter()
    }

    /// The service of this name, for a client; made if there is room, `None` if there is not. The
    /// last quarter of the room is kept for workers: names that a client makes up keep none out.
    pub(crate) fn asked(&mut self, name: &str, now: Time) -> Option<ServiceKey> {
        self.find_or_insert(name, now, self.max - self.max / 4)
    }

    /// The service of this name, for a worker; made if there is room, `None` if there is not.
    pub(crate) fn served(&mut self, name: &str, now: Time) -> Option<ServiceKey> {
        self.find_or_insert(name, now, self.max)
    }

    /// A task, group or alias refers to the service no more: it may have been the last.
    #[inline]
    pub(crate) fn release(&mut self, key: ServiceKey) {
        let service = self.at_mut(key);
        if service.is_idle() && !service.is_released {
            service.is_released = true;
            self.released.push(key);
        }
    }

    fn find_or_insert(&mut self, name: &str, now: Time, max: usize) -> Option<ServiceKey> {
        if let Some(key) = self.by_name.get(name) {
            return Some(*key);
        }
        while self.all.len() >= max {
            self.drop_released()?;
        }
        let key = self.insert(name, now, self.limits, false);
        // Whoever asked for it may yet be refused.
        self.release(key);
        Some(key)
    }

    fn insert(&mut self, name: &str, now: Time, limits: ServiceLimits, is_own: bool) -> ServiceKey {
        let key = self.all.insert(Service {
            name: name.into(),
            waiting: Classes::new(),
            groups: Vec::new(),
            estimate: Estimate::UNKNOWN,
            aliases: 0,
            tasks: 0,
            bytes: 0,
            limits,
            gate: Gate::default(),
            is_in_turn: Gate::default().is_open(&limits),
            is_own,
            is_released: false,
            unserved_since: now,
            timer: None,
        });
        self.by_name.insert(name.into(), key);
        key
    }

    /// Forgets the latest one that was released, unless it is used again; `None`: there is none.
    fn drop_released(&mut self) -> Option<()> {
        let key = self.released.pop()?;
        let service = self.at_mut(key);
        service.is_released = false;
        if service.is_idle()
            && let Some(service) = self.all.remove(key)
        {
            self.by_name.remove(&service.name);
        }
        Some(())
    }
}
