//! Named services: who waits for each, and which groups of workers serve it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound;

use pinmesh_protocol::selector::Selector;

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
    /// It requires labels: workers do not offer it, and do not keep it.
    is_selective: bool,
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
    /// The place of what the group offers of it: its own, or, of a service that requires labels, that
    /// of the one before its brace.
    pub(crate) offered: u32,
}

impl Service {
    /// Classes that wait, unless it is closed.
    pub(crate) fn classes_in_turn(&self) -> impl Iterator<Item = usize> {
        (0..CLASSES).filter(|class| self.is_in_turn && self.waiting.has(*class))
    }

    /// Whether workers of this group serve it by what they offer at this place.
    #[inline]
    pub(crate) fn is_served_by(&self, group: Option<GroupKey>, offered: u32) -> bool {
        self.groups.iter().any(|it| Some(it.group) == group && it.offered == offered)
    }

    fn is_idle(&self) -> bool {
        (self.groups.is_empty() || self.is_selective)
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
}

impl Services {
    pub(crate) fn new(config: &CoreConfig) -> Self {
        let mut services =
            Self { by_name: BTreeMap::new(), all: Slab::new(), released: Vec::new() };
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

    /// Those that require labels of workers which offer `name`, and what they require.
    pub(crate) fn requiring(&self, name: &str) -> impl Iterator<Item = (ServiceKey, Selector<'_>)> {
        let start = alloc::format!("{name}{{");
        let range = self.by_name.range::<str, _>((Bound::Excluded(&*start), Bound::Unbounded));
        let found =
            range.map_while(move |(name, key)| name.starts_with(&start).then_some((name, key)));
        found.filter_map(|(name, key)| Some((*key, Selector::parse(name).ok()?)))
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
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

    /// A task, group or alias refers to the service no more: it may have been the last.
    #[inline]
    pub(crate) fn release(&mut self, key: ServiceKey) {
        let service = self.at_mut(key);
        if service.is_idle() && !service.is_released {
            service.is_released = true;
            self.released.push(key);
        }
    }

    pub(crate) fn insert(
        &mut self,
        name: &str,
        now: Time,
        limits: ServiceLimits,
        is_own: bool,
    ) -> ServiceKey {
        let is_selective = Selector::parse(name).is_ok_and(|selector| selector.is_selective());
        let key = self.all.insert(Service {
            name: name.into(),
            waiting: Classes::new(),
            groups: Vec::new(),
            is_selective,
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

    /// Forgets the latest one that was released, unless it is used again. Where it had a place;
    /// `None`: none was released.
    pub(crate) fn drop_released(&mut self) -> Option<Vec<Serving>> {
        let key = self.released.pop()?;
        let service = self.at_mut(key);
        service.is_released = false;
        if !service.is_idle() {
            return Some(Vec::new());
        }
        let service = self.all.remove(key)?;
        self.by_name.remove(&service.name);
        Some(service.groups)
    }
}
