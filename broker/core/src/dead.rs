//! Dead letters: what is kept of tasks that failed for good, so that an operator can look at them, run
//! them again, or throw them away.
//!
//! A task that ends FAILED, TIMED_OUT or CRASHED leaves one, unless it had been cancelled. One that
//! ends LOST leaves none: it may have run to its end, and was to run once only. A replay that nobody
//! serves goes back: it leaves one too.
//!
//! The queue is bounded in letters, bytes and age; where a bound is reached the oldest leaves.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Range;
use core::ops::Bound;

use pinmesh_protocol::command::StageTimes;
use pinmesh_protocol::id::{ContentType, PeerId, Priority, RequestId, Submission};
use pinmesh_protocol::status::Status;

use crate::event::{Body, Excerpt};
use crate::flow::Account;
use crate::outbox::Outbox;
use crate::slab::{Key, TaskKey};
use crate::state::{State, Wake};
use crate::task::{EndBody, Terms};
use crate::time::Time;

/// What a letter costs beside its payload and its handler's last words, bytes: names, what the mesh
/// says of the end, its place in the queue.
pub(crate) const LETTER_OVERHEAD_BYTES: u64 = 1_024;

/// Bytes of a handler's last words that a letter keeps.
pub(crate) const ERROR_BYTES_MAX: usize = 4 * 1_024;

/// The number of a dead letter: counts up within the broker's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LetterId(pub u64);

/// How the last attempt of a dead task ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeathCause {
    /// Its handler returned an error, or its result could not be kept.
    Failed,
    /// It was killed for its max runtime.
    MaxRuntime,
    /// Its worker exited with this code.
    Exited(i32),
    /// A signal of this number ended its worker.
    Signalled(i32),
    /// The kernel killed its worker for want of memory.
    OutOfMemory,
    /// Its worker, which has no supervisor, fell silent.
    Silent,
    /// It was a replay, and nobody served it.
    NoService,
}

/// Which dead letters are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeadReason {
    /// FAILED.
    Failed,
    /// TIMED_OUT.
    TimedOut,
    /// CRASHED, however the worker died.
    Crashed,
    /// CRASHED: the last worker exited.
    Exited,
    /// CRASHED: a signal ended the last worker.
    Signalled,
    /// CRASHED: the kernel killed the last worker for want of memory.
    OutOfMemory,
    /// CRASHED: the last worker fell silent.
    Silent,
    /// NO_SERVICE, of a replay.
    NoService,
}

impl DeathCause {
    /// The narrowest reason that it is.
    pub const fn reason(self) -> DeadReason {
        match self {
            Self::Failed => DeadReason::Failed,
            Self::MaxRuntime => DeadReason::TimedOut,
            Self::Exited(_) => DeadReason::Exited,
            Self::Signalled(_) => DeadReason::Signalled,
            Self::OutOfMemory => DeadReason::OutOfMemory,
            Self::Silent => DeadReason::Silent,
            Self::NoService => DeadReason::NoService,
        }
    }

    /// The exit code or the number of the signal.
    pub const fn detail(self) -> Option<i32> {
        match self {
            Self::Exited(detail) | Self::Signalled(detail) => Some(detail),
            Self::Failed
            | Self::MaxRuntime
            | Self::OutOfMemory
            | Self::Silent
            | Self::NoService => None,
        }
    }

    /// How a task ends by it.
    pub const fn status(self) -> Status {
        match self {
            Self::Failed => Status::Failed,
            Self::MaxRuntime => Status::TimedOut,
            Self::NoService => Status::NoService,
            Self::Exited(_) | Self::Signalled(_) | Self::OutOfMemory | Self::Silent => {
                Status::Crashed
            }
        }
    }
}

impl DeadReason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Failed,
        Self::TimedOut,
        Self::Crashed,
        Self::Exited,
        Self::Signalled,
        Self::OutOfMemory,
        Self::Silent,
        Self::NoService,
    ];

    /// What operators call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Crashed => "crashed",
            Self::Exited => "exited",
            Self::Signalled => "signalled",
            Self::OutOfMemory => "out-of-memory",
            Self::Silent => "silent",
            Self::NoService => "no-service",
        }
    }

    /// Whether a death is meant by it.
    pub fn is_of(self, cause: DeathCause) -> bool {
        match self {
            Self::Crashed => cause.status() == Status::Crashed,
            _ => self == cause.reason(),
        }
    }
}

/// Dead letters of a page of a walk: those that are meant among so many from one number on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeadPage<'a> {
    /// Only those of this service.
    pub service: Option<&'a str>,
    /// Only those that died of this.
    pub reason: Option<DeadReason>,
    /// The first number: 0, or what the page before gave.
    pub from: LetterId,
    /// The last number; `None`: that of the latest letter at this page.
    pub upto: Option<LetterId>,
    /// How many letters it looks at.
    pub visits: u32,
}

impl DeadPage<'_> {
    /// This one letter.
    pub const fn of(letter: LetterId) -> Self {
        Self { service: None, reason: None, from: letter, upto: Some(letter), visits: 1 }
    }
}

/// What a task is a replay of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    pub(crate) letter: LetterId,
    /// What the client of the first task called itself.
    pub(crate) client: Option<Box<str>>,
}

/// See the module.
pub(crate) struct Letter<B> {
    pub(crate) service: Box<str>,
    /// What its client called itself; `None`: it was gone before.
    pub(crate) client: Option<Box<str>>,
    pub(crate) client_id: PeerId,
    pub(crate) request_id: RequestId,
    pub(crate) submission: Submission,
    pub(crate) account: Account,
    pub(crate) priority: Priority,
    pub(crate) terms: Terms,
    pub(crate) cause: DeathCause,
    pub(crate) tries: u32,
    pub(crate) crashes: u32,
    /// The last error.
    pub(crate) error: Excerpt,
    pub(crate) received_at: Time,
    pub(crate) died_at: Time,
    /// The letter of which it was a replay.
    pub(crate) replay_of: Option<LetterId>,
    pub(crate) body: B,
    /// Bytes that the bound counts for it.
    pub(crate) bytes: u64,
}

/// The letters, the oldest first.
pub(crate) struct Dead<B> {
    letters: BTreeMap<LetterId, Letter<B>>,
    bytes: u64,
    last: LetterId,
    has_timer: bool,
}

impl<B: Body> Dead<B> {
    pub(crate) const fn new() -> Self {
        Self { letters: BTreeMap::new(), bytes: 0, last: LetterId(0), has_timer: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.letters.len()
    }

    /// Bytes of all of them.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a timer will look at the oldest one.
    pub(crate) const fn has_timer(&self) -> bool {
        self.has_timer
    }

    pub(crate) fn get(&self, id: LetterId) -> Option<&Letter<B>> {
        self.letters.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LetterId, &Letter<B>)> {
        self.letters.iter().map(|(id, letter)| (*id, letter))
    }

    fn oldest(&self) -> Option<(LetterId, &Letter<B>)> {
        self.letters.first_key_value().map(|(id, letter)| (*id, letter))
    }

    fn insert(&mut self, letter: Letter<B>) {
        self.last.0 += 1;
        self.bytes += letter.bytes;
        self.letters.insert(self.last, letter);
    }

    /// Takes it out.
    pub(crate) fn remove(&mut self, id: LetterId) -> Option<Letter<B>> {
        let letter = self.letters.remove(&id)?;
        self.bytes -= letter.bytes;
        Some(letter)
    }

    /// The last number that a page goes to.
    pub(crate) fn upto(&self, page: &DeadPage<'_>) -> LetterId {
        page.upto.unwrap_or(self.last)
    }

    /// The letters of a page that are meant, and where the next page begins; `None`: this was the last
    /// one.
    pub(crate) fn page<'a>(
        &'a self,
        page: DeadPage<'a>,
    ) -> (impl Iterator<Item = (LetterId, &'a Letter<B>)>, Option<LetterId>) {
        let visits = page.visits.max(1) as usize;
        let next = self.range(&page).nth(visits).map(|(id, _)| *id);
        let visited = self.range(&page).take(visits);
        let is_meant = move |(_, letter): &(&LetterId, &Letter<B>)| {
            page.service.is_none_or(|service| service == &*letter.service)
                && page.reason.is_none_or(|reason| reason.is_of(letter.cause))
        };
        (visited.filter(is_meant).map(|(id, letter)| (*id, letter)), next)
    }

    fn range(&self, page: &DeadPage<'_>) -> Range<'_, LetterId, Letter<B>> {
        let (from, upto) = (page.from, self.upto(page));
        // A range must not end before it begins.
        let end = if upto < from { Bound::Excluded(from) } else { Bound::Included(upto) };
        self.letters.range((Bound::Included(from), end))
    }
}

impl<B: Body> State<B> {
    /// Ends a task that failed for good: its client is told, and a letter is kept.
    #[cold]
    #[inline(never)]
    pub(crate) fn die(
        &mut self,
        key: TaskKey,
        cause: DeathCause,
        stages: Option<StageTimes>,
        error: EndBody<B>,
        out: &mut impl Outbox<B>,
    ) {
        self.write_letter(key, cause, &error);
        self.finish(key, cause.status(), stages, error, out);
    }

    /// Keeps what a task was that is about to end. Its payload is moved into the letter.
    fn write_letter(&mut self, key: TaskKey, cause: DeathCause, error: &EndBody<B>) {
        let (letters_max, bytes_max) = (self.config.dead_letters_max, self.config.dead_bytes_max);
        let task = self.tasks.at_mut(key.index());
        // Nobody wants one that was cancelled, however it ended.
        if letters_max == 0 || task.cancel.is_some() {
            return;
        }
        let Some(body) = task.body.take() else { return };
        self.bytes -= body.kept_bytes();
        self.ledger.dead += 1;
        let error_bytes = match error {
            EndBody::Handler(body) => body.payload_bytes().min(ERROR_BYTES_MAX as u64),
            EndBody::Fixed(_) | EndBody::Text(_) | EndBody::Shared(_) => 0,
        };
        let bytes = LETTER_OVERHEAD_BYTES + body.kept_bytes() + error_bytes;
        if bytes > bytes_max {
            // It would throw out all others, and not fit either.
            self.ledger.dead_dropped += 1;
            return;
        }
        while self.dead.len() >= letters_max as usize || self.dead.bytes + bytes > bytes_max {
            self.drop_oldest_letter();
        }
        let task = self.tasks.at(key.index());
        let client = task.client().and_then(|key| self.clients.get(key));
        let origin = self.origins.get(&key);
        self.dead.insert(Letter {
            service: self.services.at(task.service).name.as_str().into(),
            client: match origin {
                Some(origin) => origin.client.clone(),
                None => client.map(|client| client.name.clone()),
            },
            client_id: self.client_id(task).unwrap_or_default(),
            request_id: task.request_id,
            submission: task.submission,
            account: task.account,
            priority: task.priority,
            terms: task.terms(),
            cause,
            tries: task.tries,
            crashes: task.crashes,
            error: excerpt(error),
            received_at: task.received_at,
            died_at: self.now,
            replay_of: origin.map(|origin| origin.letter),
            body,
            bytes,
        });
        self.ledger.dead_held += 1;
        self.watch_dead();
    }

    fn drop_oldest_letter(&mut self) {
        let Some((id, _)) = self.dead.oldest() else { return };
        self.dead.remove(id);
        self.ledger.dead_held -= 1;
        self.ledger.dead_dropped += 1;
    }

    /// One timer for all: it is set for the letter that is the oldest when it is set.
    fn watch_dead(&mut self) {
        if self.dead.has_timer {
            return;
        }
        if let Some((_, oldest)) = self.dead.oldest() {
            let at = oldest.died_at.after(self.config.dead_kept);
            self.timers.set(at, Wake::Dead);
            self.dead.has_timer = true;
        }
    }

    /// Some letters may be too old.
    pub(crate) fn on_dead_timer(&mut self) {
        self.dead.has_timer = false;
        let (now, kept) = (self.now, self.config.dead_kept);
        while self.dead.oldest().is_some_and(|(_, letter)| letter.died_at.after(kept) <= now) {
            self.drop_oldest_letter();
        }
        self.watch_dead();
    }
}

fn excerpt<B: Body>(error: &EndBody<B>) -> Excerpt {
    let text = match error {
        EndBody::Handler(body) => return body.excerpt(ERROR_BYTES_MAX),
        EndBody::Fixed(text) => text,
        EndBody::Text(text) => &**text,
        // Of a request that follows a task, which has a letter itself.
        EndBody::Shared(_) => "",
    };
    Excerpt {
        content_type: ContentType::TEXT,
        bytes: text.as_bytes().into(),
        of_bytes: text.len() as u64,
    }
}
