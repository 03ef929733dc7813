//! A task from its acceptance to the acknowledgement of its end.

use alloc::boxed::Box;

use pinmesh_protocol::command::StageTimes;
use pinmesh_protocol::id::{Dispatch, PeerId, Priority, RequestId, Submission};
use pinmesh_protocol::status::Status;

use crate::event::Body;
use crate::flow::Account;
use crate::list::{Linked, Links};
use crate::outbox::{ResultBody, ResultHead};
use crate::slab::{ClientKey, ServiceKey, TaskKey, TimerKey, WorkerKey};
use crate::time::{Span, Time};
use crate::waiting::Charge;

/// What a task costs beside its payload, bytes, so that the memory budget holds for empty payloads too.
pub(crate) const TASK_OVERHEAD_BYTES: u64 = 512;

/// Of a task that stands in no queue.
pub(crate) const NO_FLOW: u32 = u32::MAX;

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TaskState {
    /// In its service's queue, or about to be.
    Pending,
    /// In no queue: it is not to start before `Task::start_at`.
    Delayed,
    /// Sent to `Task::worker`, which has not said how it ended.
    InFlight,
    /// Its worker is gone after it had started; its DONE may yet come (at-most-once only).
    AwaitingEnd,
    /// It is a request that waits for that task, which has its key; it has no body, and stands in no
    /// queue.
    Following(TaskKey),
    /// Has its outcome. A worker may still be busy with it (`Task::occupies`).
    Ended,
}

/// Whom a task is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// It waits for the end, unless it is gone for good.
    Client(ClientKey),
    /// Those who follow it, by its idempotency key, even when there are none at the moment.
    Key(PeerId),
    /// Nobody waits. Workers are still told the id of whoever asked for it.
    Nobody(PeerId),
}

/// What is asked of a task, as it was submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Terms {
    pub(crate) is_at_most_once: bool,
    pub(crate) tries_max: u32,
    pub(crate) backoff: Span,
    pub(crate) backoff_max: Span,
    pub(crate) max_runtime: Span,
}

impl Terms {
    /// Of what never runs.
    pub(crate) const UNUSED: Self = Self {
        is_at_most_once: false,
        tries_max: 1,
        backoff: Span(0),
        backoff_max: Span(0),
        max_runtime: Span(0),
    };
}

/// What comes in: as a task of its own, as one that is run again, or as one that follows another.
pub(crate) struct Incoming {
    pub(crate) owner: Owner,
    pub(crate) request_id: RequestId,
    pub(crate) submission: Submission,
    pub(crate) service: ServiceKey,
    pub(crate) account: Account,
    pub(crate) priority: Priority,
    pub(crate) terms: Terms,
    pub(crate) payload_bytes: u64,
}

/// How a client wants its task to be stopped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Cancel {
    /// The handler is asked.
    Soft,
    /// What runs is killed.
    Hard,
}

/// How a task ended, kept until the client has acknowledged it.
#[derive(Debug)]
pub(crate) struct End<B> {
    pub(crate) status: Status,
    pub(crate) stages: Option<StageTimes>,
    pub(crate) body: EndBody<B>,
}

/// What the client is told beside the status.
#[derive(Debug)]
pub(crate) enum EndBody<B> {
    /// The handler's words.
    Handler(B),
    /// The mesh's.
    Fixed(&'static str),
    /// The mesh's, with particulars.
    Text(Box<str>),
    /// What that task has ended with, which is kept there.
    Shared(TaskKey),
}

impl<B: Body> EndBody<B> {
    /// Bytes that the memory budget counts for it.
    #[inline]
    pub(crate) fn kept_bytes(&self) -> u64 {
        match self {
            Self::Handler(body) => body.kept_bytes(),
            Self::Fixed(_) => 0,
            Self::Text(text) => text.len() as u64,
            Self::Shared(_) => 0,
        }
    }
}

impl<B> EndBody<B> {
    /// `None`: another task keeps it.
    pub(crate) fn as_result(&self) -> Option<ResultBody<'_, B>> {
        Some(match self {
            Self::Handler(body) => ResultBody::Handler(body),
            Self::Fixed(text) => ResultBody::Text(text),
            Self::Text(text) => ResultBody::Text(text),
            Self::Shared(_) => return None,
        })
    }
}

/// See the module.
pub(crate) struct Task<B> {
    /// Who waits for it: nobody once its end is acknowledged.
    pub(crate) owner: Owner,
    /// It runs even if nobody waits for it.
    pub(crate) runs_on: bool,
    /// It is a request that follows another task, and never runs.
    pub(crate) is_follower: bool,
    pub(crate) request_id: RequestId,
    pub(crate) submission: Submission,
    pub(crate) service: ServiceKey,
    /// Whose it is among those who take turns.
    pub(crate) account: Account,
    /// Where it waits, or [`NO_FLOW`].
    pub(crate) flow: u32,
    /// The place of its service in what the group of its worker offers; of its latest dispatch.
    pub(crate) offered: u32,
    /// What it should take its worker, nanoseconds; while it occupies one.
    pub(crate) work: u64,
    /// It was sent to a worker that held nothing.
    pub(crate) is_probe: bool,
    /// Who pays for its latest dispatch.
    pub(crate) charge: Charge,
    /// How many tasks had come to wait with it: the order of its queue.
    pub(crate) age: u64,
    /// It waits, and was with a worker before.
    pub(crate) has_returned: bool,
    pub(crate) priority: Priority,
    pub(crate) is_at_most_once: bool,
    /// What runs when its deadline passes is killed.
    pub(crate) kills_at_deadline: bool,
    /// Its client wants it no longer.
    pub(crate) cancel: Option<Cancel>,
    /// The end of the latest dispatch has been taken, and was not the task's.
    pub(crate) is_closed: bool,
    /// Named by a READY whose last part has not come.
    pub(crate) is_listed: bool,
    pub(crate) state: TaskState,
    /// In the in-flight list of `worker`.
    pub(crate) occupies: bool,
    /// Numbers the sendings; 0 before the first.
    pub(crate) dispatch: Dispatch,
    /// Starts that ended badly.
    pub(crate) tries: u32,
    /// Of those, deaths of its worker.
    pub(crate) crashes: u32,
    /// How many starts may end badly.
    pub(crate) tries_max: u32,
    /// The longest wait before the second try; it doubles with each.
    pub(crate) backoff: Span,
    /// The longest wait before any.
    pub(crate) backoff_max: Span,
    /// Whom the last dispatch went to; meaningful once `dispatch` is 1 or more.
    pub(crate) worker: WorkerKey,
    pub(crate) received_at: Time,
    /// When it came to wait, as new.
    pub(crate) queued_at: Time,
    /// Not to start earlier; meaningful while it is delayed.
    pub(crate) start_at: Time,
    pub(crate) dispatched_at: Time,
    pub(crate) deadline: Option<Time>,
    pub(crate) max_runtime: Span,
    pub(crate) timer: Option<TimerKey>,
    /// Bytes of payload of the task, which its client's window counts until the end is acknowledged.
    pub(crate) payload_bytes: u64,
    /// The input; gone once the task has ended.
    pub(crate) body: Option<B>,
    pub(crate) end: Option<End<B>>,
    pub(crate) links: Links,
}

impl<B> Linked for Task<B> {
    fn links(&self) -> Links {
        self.links
    }
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl<B: Body> Task<B> {
    /// Bytes that the memory budget counts for it.
    #[inline]
    pub(crate) fn kept_bytes(&self) -> u64 {
        TASK_OVERHEAD_BYTES + self.body.as_ref().map_or(0, Body::kept_bytes) + self.end_bytes()
    }

    /// Bytes of its result.
    #[inline]
    pub(crate) fn end_bytes(&self) -> u64 {
        self.end.as_ref().map_or(0, |end| end.body.kept_bytes())
    }
}

impl<B> Task<B> {
    /// The place of its priority; that of priority 1 is 0.
    #[inline]
    pub(crate) const fn class(&self) -> usize {
        self.priority.value() as usize - 1
    }

    /// One that has just come in: it waits, and has not been sent to anybody.
    #[inline]
    pub(crate) const fn new(incoming: Incoming, now: Time) -> Self {
        let Incoming { owner, request_id, submission, service, account, .. } = incoming;
        let Incoming { priority, terms, payload_bytes, .. } = incoming;
        Self {
            owner,
            runs_on: false,
            is_follower: false,
            request_id,
            submission,
            service,
            account,
            flow: NO_FLOW,
            offered: 0,
            work: 0,
            is_probe: false,
            charge: Charge::NONE,
            age: 0,
            has_returned: false,
            priority,
            is_at_most_once: terms.is_at_most_once,
            kills_at_deadline: false,
            cancel: None,
            is_closed: false,
            is_listed: false,
            state: TaskState::Pending,
            occupies: false,
            dispatch: Dispatch(0),
            tries: 0,
            crashes: 0,
            tries_max: terms.tries_max,
            backoff: terms.backoff,
            backoff_max: terms.backoff_max,
            worker: WorkerKey(0),
            received_at: now,
            queued_at: now,
            start_at: now,
            dispatched_at: now,
            deadline: None,
            max_runtime: terms.max_runtime,
            timer: None,
            payload_bytes,
            body: None,
            end: None,
            links: Links::NONE,
        }
    }

    /// What was asked of it.
    pub(crate) const fn terms(&self) -> Terms {
        Terms {
            is_at_most_once: self.is_at_most_once,
            tries_max: self.tries_max,
            backoff: self.backoff,
            backoff_max: self.backoff_max,
            max_runtime: self.max_runtime,
        }
    }

    /// Whether the end of its latest dispatch may still end it.
    pub(crate) fn is_open(&self) -> bool {
        match self.state {
            TaskState::Pending => self.dispatch.0 > 0 && !self.is_closed,
            TaskState::InFlight | TaskState::AwaitingEnd => true,
            TaskState::Delayed | TaskState::Following(_) | TaskState::Ended => false,
        }
    }

    /// The client that waits for it, which may be gone.
    #[inline]
    pub(crate) const fn client(&self) -> Option<ClientKey> {
        match self.owner {
            Owner::Client(key) => Some(key),
            Owner::Key(_) | Owner::Nobody(_) => None,
        }
    }

    /// The task that has ended for this one too.
    #[inline]
    pub(crate) fn shares(&self) -> Option<TaskKey> {
        match self.end.as_ref()?.body {
            EndBody::Shared(lead) => Some(lead),
            EndBody::Handler(_) | EndBody::Fixed(_) | EndBody::Text(_) => None,
        }
    }

    /// RESULT of an ended task, in the words of `of`: itself, or the task that has ended for it.
    pub(crate) fn result<'a>(&self, of: &'a Task<B>) -> Option<(ResultHead, ResultBody<'a, B>)> {
        let (end, words) = (self.end.as_ref()?, of.end.as_ref()?);
        let head = ResultHead {
            request_id: self.request_id,
            submission: self.submission,
            status: end.status,
            tries: self.tries,
            stages: end.stages,
            retry_after_ns: None,
        };
        Some((head, words.body.as_result()?))
    }
}
