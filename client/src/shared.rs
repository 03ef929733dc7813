//! What the caller's threads and the IO thread share: a bounded inbox, service names, the state of
//! the links.

use std::collections::HashMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use mio::Waker;
use pinmesh_protocol::id::{RequestId, TaskId};
use pinmesh_protocol::selector::Selector;
use pinmesh_session::Time;
use pinmesh_session::client::{
    Cancel, ClientCounters, NewRequest, Pong, SERVICE_NAMES_MAX, ServiceId,
};
use rustix::time::{ClockId, clock_gettime};

use crate::completion::{Ticket, lock};
use crate::payload::Input;
use crate::updates::{Listener, Unread};
use crate::{Error, Result};

/// What the machine keeps for us with a request.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) input: Input,
    pub(crate) bytes: u64,
    pub(crate) service: ServiceId,
    pub(crate) started_at: Time,
    pub(crate) ticket: Ticket,
    pub(crate) listener: Listener,
    /// To be told the broker's number of the task, when the broker has it.
    pub(crate) accepted: Option<Sender<TaskId>>,
}

/// What a caller's thread wants of the IO thread.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are the largest")]
pub(crate) enum Order {
    Service(Arc<str>),
    Submit(NewRequest<Body>),
    Cancel(RequestId, Cancel),
    Ping(Sender<Pong>),
    /// Updates have been read: what comes is acknowledged again.
    GoOn,
    /// Go, once everything is handed to the sockets, or resolved if `awaits_results`; at `until` in
    /// any case.
    Close {
        until: Instant,
        awaits_results: bool,
    },
}

/// The bounded inbox of the IO thread.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) orders: Vec<Order>,
    /// Given under the lock, so that the machine, which counts too, comes to the same ones.
    next_request_id: u64,
    /// Unresolved tasks and their bytes.
    tasks: u32,
    bytes: u64,
    /// Threads that wait for room.
    waiting: u32,
    /// The IO thread sleeps and must be woken; whoever clears this wakes it.
    is_asleep: bool,
    is_closed: bool,
    /// The client was closed before every task had ended.
    is_cut_short: bool,
    counters: ClientCounters,
}

/// How the links are doing.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkStatus {
    /// Links with an open session.
    pub(crate) open: Vec<bool>,
    /// Why the latest session, or attempt at one, ended.
    pub(crate) reason: String,
    /// The latest refusal of a session: waiting will not help.
    pub(crate) refusal: Option<Error>,
}

/// Of a FETCH, which names no service.
pub(crate) const NO_SERVICE: ServiceId = ServiceId(u32::MAX);

/// Why there is no session where nobody has said anything.
pub(crate) const NO_ANSWER: &str = "no answer";

/// What a client's unresolved tasks are bounded by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) tasks: u32,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) endpoints: Vec<String>,
    pub(crate) bounds: Bounds,
    /// What else a broker's silence may mean to a client with keys.
    keys_hint: Option<String>,
    inbox: Mutex<Inbox>,
    room: Condvar,
    /// Set once, before the IO thread first sleeps.
    waker: OnceLock<Arc<Waker>>,
    names: RwLock<HashMap<Arc<str>, ServiceId>>,
    links: Mutex<LinkStatus>,
    link_news: Condvar,
    pub(crate) unread: Unread,
}

impl Shared {
    pub(crate) fn new(endpoints: Vec<String>, bounds: Bounds, keys_hint: Option<String>) -> Self {
        let inbox = Inbox {
            orders: Vec::new(),
            next_request_id: 1,
            tasks: 0,
            bytes: 0,
            waiting: 0,
            is_asleep: false,
            is_closed: false,
            is_cut_short: false,
            counters: ClientCounters::default(),
        };
        let open = vec![false; endpoints.len()];
        Self {
            endpoints,
            bounds,
            keys_hint,
            inbox: Mutex::new(inbox),
            room: Condvar::new(),
            waker: OnceLock::new(),
            names: RwLock::new(HashMap::new()),
            links: Mutex::new(LinkStatus { open, ..LinkStatus::default() }),
            link_news: Condvar::new(),
            unread: Unread::default(),
        }
    }

    /// CLOCK_BOOTTIME, which goes on while the host is suspended: so does the time after which a
    /// broker forgets what it held for a client.
    pub(crate) fn now(&self) -> Time {
        let now = clock_gettime(ClockId::Boottime);
        Time(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }

    pub(crate) fn set_waker(&self, waker: Arc<Waker>) {
        // A second one does not exist: the IO loop is made once.
        let _ = self.waker.set(waker);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            // Fails only if the descriptor is gone, and with it the IO thread.
            let _ = waker.wake();
        }
    }

    /// The number of a service name, told to the IO thread at first use.
    pub(crate) fn service(&self, name: &str) -> Result<ServiceId> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(&id) = names.get(name) {
            return Ok(id);
        }
        drop(names);
        if let Err(error) = Selector::parse(name) {
            return Err(Error::invalid("service", format!("`{name}`"), error.remedy()));
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(&id) = names.get(name) {
            return Ok(id);
        }
        if names.len() == SERVICE_NAMES_MAX {
            let remedy = format!("a client may use {SERVICE_NAMES_MAX} service names in its life");
            return Err(Error::invalid("service", format!("`{name}`"), &remedy));
        }
        let id = ServiceId(u32::try_from(names.len()).unwrap_or(u32::MAX));
        let name: Arc<str> = name.into();
        // Under the lock of the names: nobody can use the number before its order is in.
        self.order(Order::Service(Arc::clone(&name)))?;
        names.insert(name, id);
        Ok(id)
    }

    /// The name behind a number; for messages.
    pub(crate) fn service_name(&self, id: ServiceId) -> Arc<str> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let name = names.iter().find(|(_, known)| **known == id);
        name.map_or("(fetched)".into(), |(name, _)| name.clone())
    }

    /// Puts an order in that needs no room of its own: there are few of them a task.
    pub(crate) fn order(&self, order: Order) -> Result<()> {
        let mut inbox = lock(&self.inbox);
        if inbox.is_closed {
            return Err(Error::Closed);
        }
        inbox.orders.push(order);
        let must_wake = std::mem::take(&mut inbox.is_asleep);
        drop(inbox);
        if must_wake {
            self.wake();
        }
        Ok(())
    }

    pub(crate) fn cancel(&self, request_id: RequestId, how: Cancel) {
        // A closed client has resolved everything: nothing is left to cancel.
        let _ = self.order(Order::Cancel(request_id, how));
    }

    /// Hands a task in. With no room it waits, if it may, until then. A task that is not taken has
    /// no end to tell.
    pub(crate) fn submit(
        &self,
        new: NewRequest<Body>,
        waits_until: Option<Option<Instant>>,
    ) -> Result<RequestId> {
        let bytes = new.bytes;
        let mut inbox = lock(&self.inbox);
        while !inbox.is_closed && !self.has_room(&inbox, bytes) {
            let Some(until) = waits_until else {
                let Bounds { tasks, bytes } = self.bounds;
                new.body.ticket.void();
                return Err(Error::Full { tasks, bytes });
            };
            let now = Instant::now();
            let left = until.map(|until| until.saturating_duration_since(now));
            if left.is_some_and(|left| left.is_zero()) {
                // Who adds a name holds the names and waits for the inbox.
                drop(inbox);
                let service = self.service_name(new.service);
                new.body.ticket.void();
                return Err(Error::Expired { service });
            }
            inbox.waiting += 1;
            let left = left.unwrap_or(Duration::MAX);
            let woken = self.room.wait_timeout(inbox, left);
            inbox = woken.unwrap_or_else(PoisonError::into_inner).0;
            inbox.waiting -= 1;
        }
        if inbox.is_closed {
            new.body.ticket.void();
            return Err(Error::Closed);
        }
        inbox.tasks += 1;
        inbox.bytes += bytes;
        let request_id = RequestId(inbox.next_request_id);
        inbox.next_request_id += 1;
        inbox.orders.push(Order::Submit(new));
        let must_wake = std::mem::take(&mut inbox.is_asleep);
        drop(inbox);
        if must_wake {
            self.wake();
        }
        Ok(request_id)
    }

    fn has_room(&self, inbox: &Inbox, bytes: u64) -> bool {
        inbox.tasks == 0
            || (inbox.tasks < self.bounds.tasks
                && inbox.bytes.saturating_add(bytes) <= self.bounds.bytes)
    }

    /// IO thread: takes the orders that have come into `orders`, which is empty. With `may_sleep`
    /// and no order, the next one will wake it.
    pub(crate) fn take_orders(
        &self,
        orders: &mut Vec<Order>,
        counters: ClientCounters,
        may_sleep: bool,
    ) {
        let mut inbox = lock(&self.inbox);
        inbox.counters = counters;
        std::mem::swap(&mut inbox.orders, orders);
        inbox.is_asleep = may_sleep && orders.is_empty();
    }

    /// IO thread: that many tasks with so many bytes have ended. Their ends are told afterwards, so
    /// that whoever has seen one finds the room.
    pub(crate) fn give_back(&self, tasks: u32, bytes: u64) {
        let mut inbox = lock(&self.inbox);
        inbox.tasks -= tasks;
        inbox.bytes -= bytes;
        let has_waiting = inbox.waiting > 0;
        drop(inbox);
        if has_waiting {
            self.room.notify_all();
        }
    }

    /// IO thread, at the end: tasks are left that have not ended.
    pub(crate) fn cut_short(&self) {
        lock(&self.inbox).is_cut_short = true;
    }

    pub(crate) fn is_cut_short(&self) -> bool {
        lock(&self.inbox).is_cut_short
    }

    /// Nothing more is taken; returns what was still in the inbox.
    pub(crate) fn close(&self) -> Vec<Order> {
        let mut inbox = lock(&self.inbox);
        inbox.is_closed = true;
        let orders = std::mem::take(&mut inbox.orders);
        drop(inbox);
        self.room.notify_all();
        // Who has seen it open under this lock is asleep by the time that it can be had.
        drop(lock(&self.links));
        self.link_news.notify_all();
        orders
    }

    pub(crate) fn counters(&self) -> ClientCounters {
        lock(&self.inbox).counters
    }

    pub(crate) fn unresolved(&self) -> u32 {
        lock(&self.inbox).tasks
    }

    pub(crate) fn note_links(&self, note: impl FnOnce(&mut LinkStatus)) {
        note(&mut lock(&self.links));
        self.link_news.notify_all();
    }

    /// Waits until a session is open.
    pub(crate) fn wait_open(&self, timeout: Duration) -> Result<()> {
        let until = Instant::now().checked_add(timeout);
        let mut links = lock(&self.links);
        loop {
            if links.open.contains(&true) {
                return Ok(());
            }
            if let Some(refusal) = &links.refusal {
                return Err(refusal.clone());
            }
            if lock(&self.inbox).is_closed {
                return Err(Error::Closed);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.unwrap_or(Duration::MAX);
            if left.is_zero() {
                let reason = if links.reason.is_empty() { NO_ANSWER } else { &links.reason };
                let hint = self.keys_hint.as_ref().filter(|_| reason == NO_ANSWER);
                return Err(Error::Unreachable {
                    endpoints: self.endpoints.join(", "),
                    waited: timeout,
                    reason: match hint {
                        Some(hint) => format!("{reason}, {hint}"),
                        None => reason.to_string(),
                    },
                });
            }
            let woken = self.link_news.wait_timeout(links, left);
            links = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests;
