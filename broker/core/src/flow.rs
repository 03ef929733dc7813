//! Flows: what waits in one class of one service for one client. Clients are told apart by their
//! names, so that opening ten connections buys nothing.

use alloc::collections::BTreeMap;

use hashbrown::HashTable;

use crate::fair::{InTurn, Turn};
use crate::list::{Linked, Links, List};
use crate::pace::Pace;
use crate::slab::{FlowKey, Key, ServiceKey, Slab, TaskKey};
use crate::task::Task;

/// Flows without tasks that are kept for the debt that they may have; the one that has been without
/// for the longest makes room for the next.
const IDLE_MAX: u32 = 4_096;

/// Who a flow belongs to: a hash of the client's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Account(pub(crate) u64);

impl Account {
    /// The account of a name. The seed is told to nobody, so that no name can be made up that stands
    /// for another one's. FNV-1a, then a multiplication that is folded, for what the names differ in
    /// is often at their ends.
    pub(crate) fn of(name: &str, seed: u64) -> Self {
        let start = 0xcbf2_9ce4_8422_2325 ^ seed;
        let hash = name
            .bytes()
            .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self(fold(hash))
    }
}

/// See the module.
pub(crate) struct Flow {
    service: ServiceKey,
    class: u8,
    account: Account,
    /// Those that have just come in, in their order.
    fresh: List,
    /// Those that came back from a worker, by age.
    returned: BTreeMap<u64, u32>,
    turn: Turn,
    pub(crate) pace: Pace,
    links: Links,
}

impl Linked for Flow {
    fn links(&self) -> Links {
        self.links
    }
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl InTurn for Flow {
    fn turn(&self) -> &Turn {
        &self.turn
    }
    fn turn_mut(&mut self) -> &mut Turn {
        &mut self.turn
    }
}

impl Flow {
    pub(crate) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.returned.is_empty()
    }

    /// How many tasks wait.
    pub(crate) fn len(&self) -> u64 {
        u64::from(self.fresh.len()) + self.returned.len() as u64
    }

    #[inline]
    pub(crate) fn push_back<B>(&mut self, tasks: &mut Slab<TaskKey, Task<B>>, index: u32) {
        self.fresh.push_back(tasks, index);
    }

    pub(crate) fn put_back<B>(&mut self, tasks: &mut Slab<TaskKey, Task<B>>, index: u32) {
        let task = tasks.at_mut(index);
        task.has_returned = true;
        self.returned.insert(task.age, index);
    }

    #[inline]
    pub(crate) fn remove<B>(&mut self, tasks: &mut Slab<TaskKey, Task<B>>, index: u32) {
        let task = tasks.at_mut(index);
        if core::mem::take(&mut task.has_returned) {
            self.returned.remove(&task.age);
        } else {
            self.fresh.remove(tasks, index);
        }
    }

    /// The oldest.
    #[inline]
    pub(crate) fn first<B>(&self, tasks: &Slab<TaskKey, Task<B>>) -> Option<u32> {
        let fresh = self.fresh.first();
        if self.returned.is_empty() {
            return fresh;
        }
        // Most often whatever was sent was older than all that waited on, but for a task that took
        // over an attempt of an earlier epoch.
        let returned = self.returned.first_key_value().map(|(_, index)| *index);
        returned.into_iter().chain(fresh).min_by_key(|index| tasks.at(*index).age)
    }

    /// All of them, the oldest first.
    pub(crate) fn iter<'a, B>(
        &'a self,
        tasks: &'a Slab<TaskKey, Task<B>>,
    ) -> impl Iterator<Item = u32> + 'a {
        let fresh = core::iter::successors(self.fresh.first(), |index| List::after(tasks, *index));
        let mut fresh = fresh.peekable();
        let mut returned = self.returned.values().copied().peekable();
        core::iter::from_fn(move || match (returned.peek(), fresh.peek()) {
            (Some(left), Some(right)) if tasks.at(*right).age < tasks.at(*left).age => fresh.next(),
            (Some(_), _) => returned.next(),
            (None, _) => fresh.next(),
        })
    }
}

/// All flows, by service, class and account.
pub(crate) struct Flows {
    pub(crate) all: Slab<FlowKey, Flow>,
    table: HashTable<u32>,
    /// Those without tasks, the one that has been without for the longest first.
    idle: List,
}

impl Flows {
    pub(crate) const fn new() -> Self {
        Self { all: Slab::new(), table: HashTable::new(), idle: List::EMPTY }
    }

    fn found(&self, service: ServiceKey, class: u8, account: Account) -> Option<u32> {
        let is_it = |index: &u32| {
            let flow = self.all.at(*index);
            (flow.service, flow.class, flow.account) == (service, class, account)
        };
        self.table.find(hash(service, class, account), is_it).copied()
    }

    /// The flow that such a task would wait in, if tasks wait there.
    pub(crate) fn busy(
        &self,
        service: ServiceKey,
        class: usize,
        account: Account,
    ) -> Option<&Flow> {
        let flow = self.all.at(self.found(service, class as u8, account)?);
        (!flow.is_empty()).then_some(flow)
    }

    /// The flow that a task is to wait in; it must be given one.
    #[inline]
    pub(crate) fn opened(&mut self, service: ServiceKey, class: usize, account: Account) -> u32 {
        let class = class as u8;
        if let Some(index) = self.found(service, class, account) {
            if self.all.at(index).is_empty() {
                self.idle.remove(&mut self.all, index);
            }
            return index;
        }
        let flow = Flow {
            service,
            class,
            account,
            fresh: List::EMPTY,
            returned: BTreeMap::new(),
            turn: Turn::default(),
            pace: Pace::default(),
            links: Links::NONE,
        };
        let index = self.all.insert(flow).index();
        let all = &self.all;
        let hash = hash(service, class, account);
        self.table.insert_unique(hash, index, |index| hash_of(all.at(*index)));
        index
    }

    /// The last task of it has left, and it stands in no ring.
    #[inline]
    pub(crate) fn close(&mut self, index: u32) {
        debug_assert!(self.all.at(index).is_empty(), "a flow is closed when it is empty");
        self.idle.push_back(&mut self.all, index);
        if self.idle.len() > IDLE_MAX
            && let Some(oldest) = self.idle.first()
        {
            self.idle.remove(&mut self.all, oldest);
            let hash = hash_of(self.all.at(oldest));
            if let Ok(entry) = self.table.find_entry(hash, |index| *index == oldest) {
                entry.remove();
            }
            self.all.discard(self.all.key_at(oldest));
        }
    }
}

fn hash_of(flow: &Flow) -> u64 {
    hash(flow.service, flow.class, flow.account)
}

#[inline]
fn hash(service: ServiceKey, class: u8, account: Account) -> u64 {
    fold(account.0 ^ service.bits().rotate_left(20) ^ u64::from(class) << 56)
}

#[inline]
fn fold(value: u64) -> u64 {
    let product = u128::from(value) * 0x9e37_79b9_7f4a_7c15_u128;
    (product >> 64) as u64 ^ product as u64
}
