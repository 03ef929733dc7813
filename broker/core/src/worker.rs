//! Workers and hosts, as the broker knows them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use pinmesh_protocol::id::{Incarnation, PeerId, Slot};
use pinmesh_protocol::limits::WORKERS_MAX;

use crate::credit::{CREDIT_START, Credit, RoundTrip};
use crate::event::Conn;
use crate::list::{Linked, Links, List};
use crate::slab::{GroupKey, ServiceKey, TimerKey};
use crate::time::{Span, Time};

/// Which process of which host: host, slot, incarnation.
pub(crate) type Place = (PeerId, Slot, Incarnation);

/// What keeps a worker from being sent tasks, or nothing does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WorkerState {
    /// It has said HELLO and not READY, or not every part of it.
    Greeting,
    /// It serves.
    Serving,
    /// It has no session; its supervisor says that it lives, or has yet to speak.
    Away,
    /// Its process is gone; only late ends may still come.
    Dead,
}

/// One worker process.
pub(crate) struct Worker {
    pub(crate) peer_id: PeerId,
    /// Of its HELLO, for people.
    pub(crate) name: Box<str>,
    pub(crate) conn: Option<Conn>,
    pub(crate) state: WorkerState,
    /// `None`: it has no supervisor.
    pub(crate) host: Option<PeerId>,
    pub(crate) slot: Slot,
    pub(crate) incarnation: Incarnation,
    /// In the order of its READY: an alias of TASK is an index here.
    pub(crate) services: Vec<ServiceKey>,
    pub(crate) group: Option<GroupKey>,
    /// By the place of a service among those that its group offers.
    pub(crate) aliases: Vec<u32>,
    /// By the same place.
    pub(crate) credits: Vec<Credit>,
    /// The most work that any of those allows, nanoseconds.
    pub(crate) work_max: u64,
    /// What it holds should take it, nanoseconds.
    pub(crate) work: u64,
    pub(crate) round_trip: RoundTrip,
    /// It is sent as much as its window allows, whatever is known.
    pub(crate) has_fixed_credit: bool,
    pub(crate) window_tasks: u32,
    pub(crate) window_bytes: u64,
    /// Tasks and bytes that it said it will hold at most; the windows above may be smaller.
    pub(crate) own_window: (u32, u64),
    pub(crate) in_flight: List,
    pub(crate) in_flight_bytes: u64,
    /// Attempts of an earlier epoch that it holds beside those.
    pub(crate) beside: u32,
    /// Its batch could not be sent.
    pub(crate) is_full: bool,
    /// The client of a task that it runs has too many updates to take.
    pub(crate) is_held_up: bool,
    /// It gave a task back: fed no more before this.
    pub(crate) parked_until: Option<Time>,
    /// Since when what it was sent first is the first.
    pub(crate) head_since: Time,
    /// A timer looks after that.
    pub(crate) has_head_timer: bool,
    /// It was asked to give back all but the first, which has not ended since.
    pub(crate) is_recalled: bool,
    /// The host's lease runs.
    pub(crate) has_lease: bool,
    /// The level of its group under which it is listed.
    pub(crate) level: Option<u16>,
    /// How many HELLOs of supervisors came before its READY.
    pub(crate) turn: u64,
    /// The part of READY that comes next.
    pub(crate) next_part: u32,
    /// Runs while it has neither supervisor nor session.
    pub(crate) away_timer: Option<TimerKey>,
    pub(crate) links: Links,
}

impl Linked for Worker {
    fn links(&self) -> Links {
        self.links
    }
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Worker {
    pub(crate) fn new(peer_id: PeerId, name: &str, conn: Conn) -> Self {
        Self {
            peer_id,
            name: name.into(),
            conn: Some(conn),
            state: WorkerState::Greeting,
            host: None,
            slot: Slot(0),
            incarnation: Incarnation(0),
            services: Vec::new(),
            group: None,
            aliases: Vec::new(),
            credits: Vec::new(),
            work_max: 0,
            work: 0,
            round_trip: RoundTrip::default(),
            has_fixed_credit: false,
            window_tasks: 0,
            window_bytes: 0,
            own_window: (0, 0),
            in_flight: List::EMPTY,
            in_flight_bytes: 0,
            beside: 0,
            is_full: false,
            is_held_up: false,
            parked_until: None,
            head_since: Time(0),
            has_head_timer: false,
            is_recalled: false,
            has_lease: false,
            level: None,
            turn: 0,
            next_part: 0,
            away_timer: None,
            links: Links::NONE,
        }
    }

    /// Attempts that it holds, of whichever epoch.
    #[inline]
    pub(crate) fn held(&self) -> u32 {
        self.in_flight.len() + self.beside
    }

    /// Whether it may be sent another task.
    pub(crate) fn has_credit(&self) -> bool {
        self.state == WorkerState::Serving
            && self.has_lease
            && !self.is_full
            && !self.is_held_up
            && self.parked_until.is_none()
            && !self.is_recalled
            && self.held() < self.window_tasks
            && (self.has_fixed_credit || self.work < self.work_max || self.held() < CREDIT_START)
            && (self.in_flight_bytes < self.window_bytes || self.in_flight.is_empty())
    }

    /// Whether a task of so many bytes, of the service at this place of what it offers, fits its
    /// window and its credit; one task always does.
    #[inline]
    pub(crate) fn fits(&self, bytes: u64, offered: u32) -> bool {
        let has_room =
            self.in_flight.is_empty() || self.in_flight_bytes + bytes <= self.window_bytes;
        has_room
            && (self.has_fixed_credit
                || self.held() == 0
                || self.credits[offered as usize].allows(self.held(), self.work))
    }

    /// A task of the service at this place took so long in its handler, and so long on its way, of
    /// which it may have waited unread for the one before it, unless it `is_probe`: it was sent while
    /// the worker held nothing.
    #[inline]
    pub(crate) fn learn(&mut self, offered: u32, took: Span, on_its_way: Span, is_probe: bool) {
        if is_probe || on_its_way < self.round_trip.value() {
            self.round_trip.add(on_its_way);
        }
        let (trip, cap) = (self.round_trip.value(), self.window_tasks);
        let Some(credit) = self.credits.get_mut(offered as usize) else { return };
        if credit.on_end(took, trip, cap) {
            self.work_max = self.credits.iter().map(Credit::work_max).max().unwrap_or_default();
        }
    }

    pub(crate) fn place(&self) -> Option<Place> {
        self.host.map(|host| (host, self.slot, self.incarnation))
    }
}

/// One supervisor and the lease that it has.
pub(crate) struct Host {
    pub(crate) peer_id: PeerId,
    /// Of its HELLO, for people.
    pub(crate) name: Box<str>,
    /// Of its latest HOST: which CPU each slot is pinned to.
    pub(crate) cpus: BTreeMap<Slot, u16>,
    pub(crate) conn: Option<Conn>,
    /// When its heartbeat was last echoed, from which its lease counts here.
    pub(crate) echoed_at: Time,
    /// Its workers may be sent tasks.
    pub(crate) has_lease: bool,
    /// It has said HOST in this session: only then does a heartbeat give it its lease.
    pub(crate) is_listed: bool,
    /// Which of all supervisors' HELLOs opened its session.
    pub(crate) turn: u64,
    /// The latest incarnation of each slot that is known to be gone: its READY comes too late.
    pub(crate) gone: BTreeMap<Slot, Incarnation>,
    pub(crate) timer: TimerKey,
}

impl Host {
    /// Notes that this process of the host has ended; false if there are too many slots for that.
    pub(crate) fn note_gone(&mut self, slot: Slot, incarnation: Incarnation) -> bool {
        if self.gone.len() >= WORKERS_MAX && !self.gone.contains_key(&slot) {
            return false;
        }
        let gone = self.gone.entry(slot).or_default();
        *gone = (*gone).max(incarnation);
        true
    }
}
