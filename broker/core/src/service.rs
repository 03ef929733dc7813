//! Named services: who waits for each, and which groups of workers serve it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::classes::Classes;
use crate::slab::{GroupKey, ServiceKey, Slab, TimerKey};
use crate::time::Time;

/// A queue of its own.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) waiting: Classes,
    pub(crate) groups: Vec<GroupKey>,
    /// Aliases that sessions hold on it.
    pub(crate) aliases: u32,
    /// Since when nobody serves it; meaningful while `groups` is empty.
    pub(crate) unserved_since: Time,
    /// Set while nobody serves it and somebody waits.
    pub(crate) timer: Option<TimerKey>,
}

impl Service {
    fn is_idle(&self) -> bool {
        self.groups.is_empty() && self.aliases == 0 && self.waiting.len() == 0
    }
}

/// Every service by name. Bounded: an unused one makes room for a new one.
pub(crate) struct Services {
    by_name: BTreeMap<String, ServiceKey>,
    all: Slab<ServiceKey, Service>,
    max: usize,
}

impl Services {
    pub(crate) fn new(max: u32) -> Self {
        Self { by_name: BTreeMap::new(), all: Slab::new(), max: max as usize }
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

    /// The service of this name, made if there is room; `None` if there is not.
    pub(crate) fn find_or_insert(&mut self, name: &str, now: Time) -> Option<ServiceKey> {
        if let Some(key) = self.by_name.get(name) {
            return Some(*key);
        }
        if self.all.len() >= self.max {
            self.drop_idle();
        }
        if self.all.len() >= self.max {
            return None;
        }
        let key = self.all.insert(Service {
            name: name.into(),
            waiting: Classes::new(),
            groups: Vec::new(),
            aliases: 0,
            unserved_since: now,
            timer: None,
        });
        self.by_name.insert(name.into(), key);
        Some(key)
    }

    fn drop_idle(&mut self) {
        let idle: Vec<_> =
            self.all.iter().filter(|(_, s)| s.is_idle()).map(|(key, _)| key).collect();
        for key in idle {
            if let Some(service) = self.all.remove(key) {
                self.by_name.remove(&service.name);
            }
        }
    }
}
