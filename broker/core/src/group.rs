//! Groups of workers that offer the same: which of their tasks is next, and which worker has
//! the fewest in flight.

use alloc::vec::Vec;

use crate::fair::{InTurn, Ring, Turn};
use crate::list::{Linked, Links, List};
use crate::offer::Offer;
use crate::shares::{CLASSES, Shares};
use crate::slab::{Key, MemberKey, ServiceKey, Slab, WorkerKey};
use crate::worker::Worker;

/// In-flight counts that are told apart; a window is never larger.
pub(crate) const LEVELS: usize = 1024;
const WORDS: usize = LEVELS / 64;
const NOBODY: u32 = u32::MAX;

/// See the module. Classes share its time, in each of them the services take equal turns. What each
/// has used of it is the group's; what the clients of a service have used is the service's.
pub(crate) struct Group {
    pub(crate) offer: Offer,
    /// A place is an index here. Those offered, in their order, then those that require labels.
    pub(crate) served: Vec<Served>,
    vacant: Vec<u32>,
    /// Workers in it, with credit or without.
    pub(crate) workers: u32,
    shares: Shares,
    rings: [Ring; CLASSES],
    members: Slab<MemberKey, Member>,
    /// By place and class, once it has had tasks.
    known: Vec<[u32; CLASSES]>,
    levels: Levels,
}

/// A service that a group serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    /// Finds nothing where the place is vacant.
    pub(crate) service: ServiceKey,
    /// The place of what the group offers of it.
    pub(crate) offered: u32,
}

/// One class of one service.
struct Member {
    place: u32,
    turn: Turn,
    links: Links,
}

impl Linked for Member {
    fn links(&self) -> Links {
        self.links
    }
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl InTurn for Member {
    fn turn(&self) -> &Turn {
        &self.turn
    }
    fn turn_mut(&mut self) -> &mut Turn {
        &mut self.turn
    }
}

/// A stack of workers for each in-flight count; the top is the one most recently idle.
struct Levels {
    stacks: Vec<List>,
    occupied: [u64; WORDS],
}

impl Group {
    pub(crate) fn new(offer: Offer) -> Self {
        let levels = Levels { stacks: alloc::vec![List::EMPTY; LEVELS], occupied: [0; WORDS] };
        Self {
            offer,
            served: Vec::new(),
            vacant: Vec::new(),
            known: Vec::new(),
            workers: 0,
            shares: Shares::new(),
            rings: [const { Ring::new() }; CLASSES],
            members: Slab::new(),
            levels,
        }
    }

    /// A place for a service of which no task waits.
    pub(crate) fn give_place(&mut self, service: ServiceKey, offered: u32) -> u32 {
        let served = Served { service, offered };
        if let Some(place) = self.vacant.pop() {
            self.served[place as usize] = served;
            return place;
        }
        self.served.push(served);
        self.known.push([NOBODY; CLASSES]);
        self.served.len() as u32 - 1
    }

    /// Places that the next services are given.
    pub(crate) fn vacant(&self) -> usize {
        self.vacant.len()
    }

    /// Nothing of the service is held any more.
    pub(crate) fn vacate(&mut self, place: u32) {
        self.vacant.push(place);
    }

    /// Tasks of this class wait for the service.
    #[inline]
    pub(crate) fn enter(&mut self, place: u32, class: usize) {
        let known = &mut self.known[place as usize][class];
        if *known == NOBODY {
            let member = Member { place, turn: Turn::default(), links: Links::NONE };
            *known = self.members.insert(member).index();
        }
        if self.rings[class].is_empty() {
            self.shares.enter(class);
        }
        self.rings[class].enter(&mut self.members, *known);
    }

    /// None of this class waits any more, or the service is closed.
    #[inline]
    pub(crate) fn leave(&mut self, place: u32, class: usize) {
        let member = self.known[place as usize][class];
        self.rings[class].leave(&mut self.members, member);
        if self.rings[class].is_empty() {
            self.shares.leave(class);
        }
    }

    /// The place of the service whose turn it is, and the class.
    #[inline]
    pub(crate) fn next(&mut self, is_strict: bool) -> Option<(u32, usize)> {
        let class = self.shares.first(is_strict)?;
        let member = self.rings[class].first()?;
        Some((self.members.at(member).place, class))
    }

    /// A task of it was sent, which should cost so much. Who is charged.
    #[inline]
    pub(crate) fn charge(&mut self, place: u32, class: usize, cost: u64) -> u32 {
        let member = self.known[place as usize][class];
        self.shares.charge(class, cost);
        self.rings[class].charge(&mut self.members, member, cost);
        member
    }

    /// It has cost that instead.
    #[inline]
    pub(crate) fn correct(&mut self, member: u32, class: usize, charged: u64, cost: u64) {
        self.shares.correct(class, charged, cost);
        self.rings[class].correct(&mut self.members, member, charged, cost);
    }

    /// It was not run after all.
    pub(crate) fn refund(&mut self, member: u32, class: usize, charged: u64) {
        self.shares.refund(class, charged);
        self.rings[class].refund(&mut self.members, member, charged);
    }

    /// Whether the service is in turn for this class.
    pub(crate) fn is_ready(&self, place: u32, class: usize) -> bool {
        let member = self.known[place as usize][class];
        member != NOBODY && self.members.at(member).turn.is_ready()
    }

    /// What is wrong with its turns.
    pub(crate) fn faults(&self) -> impl Iterator<Item = &'static str> {
        let rings = self.rings.iter().enumerate();
        let of_classes = rings
            .filter(|(class, ring)| self.shares.is_ready(*class) == ring.is_empty())
            .map(|_| "a class does not fit its ring");
        let of_turns = self.rings.iter().flat_map(|ring| {
            let turns = ring.iter(&self.members);
            turns.filter_map(|member| ring.fault(self.members.at(member).turn()))
        });
        of_classes.chain(of_turns)
    }

    /// The worker with credit that has the fewest in flight, and how many those are.
    #[inline]
    pub(crate) fn best(&self) -> Option<(u32, usize)> {
        let word = self.levels.occupied.iter().position(|word| *word != 0)?;
        let level = word * 64 + self.levels.occupied[word].trailing_zeros() as usize;
        Some((self.levels.stacks[level].first()?, level))
    }

    /// Offers a worker's credit. Its level is how many it holds.
    #[inline]
    pub(crate) fn list(&mut self, workers: &mut Slab<WorkerKey, Worker>, index: u32) {
        let worker = workers.at_mut(index);
        debug_assert!(worker.level.is_none(), "listed once at most");
        let level = (worker.held() as usize).min(LEVELS - 1);
        worker.level = Some(level as u16);
        self.levels.stacks[level].push_front(workers, index);
        self.levels.occupied[level / 64] |= 1 << (level % 64);
    }

    /// Takes the offer back, if there is one.
    #[inline]
    pub(crate) fn unlist(&mut self, workers: &mut Slab<WorkerKey, Worker>, index: u32) {
        let Some(level) = workers.at_mut(index).level.take() else { return };
        let level = usize::from(level);
        self.levels.stacks[level].remove(workers, index);
        if self.levels.stacks[level].is_empty() {
            self.levels.occupied[level / 64] &= !(1 << (level % 64));
        }
    }
}
