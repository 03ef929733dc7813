//! What a worker holds for one broker: a slab with a free list, its indices handed out to the shell
//! as places of the payloads and of the slots on the status page.

use alloc::vec::Vec;

use pinmesh_protocol::command::{Held, Task};
use pinmesh_protocol::id::{AttemptId, ContentType, PeerId, RequestId, Submission};
use pinmesh_protocol::status::HeldState;

use crate::{Time, Window};

/// An attempt that the worker has taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldTask {
    /// The attempt.
    pub attempt: AttemptId,
    /// Whose request.
    pub client_id: PeerId,
    /// Which request.
    pub request_id: RequestId,
    /// Which submission.
    pub submission: Submission,
    /// Index into the worker's services.
    pub service: u32,
    /// Starts that ended badly so far.
    pub tries: u32,
    /// When it came in.
    pub received: Time,
    /// After this nobody wants the result.
    pub deadline: Option<Time>,
    /// The longest that it may run, nanoseconds.
    pub max_runtime_ns: u64,
    /// Encoding of the payload.
    pub content_type: ContentType,
    /// Bytes of the payload.
    pub bytes: u64,
    /// Where it stands.
    pub state: HeldState,
}

impl HeldTask {
    pub(super) fn new(attempt: AttemptId, service: u32, task: &Task<'_>, now: Time) -> Self {
        Self {
            attempt,
            client_id: task.client_id,
            request_id: task.request_id,
            submission: task.submission,
            service,
            tries: task.tries,
            received: now,
            deadline: task.deadline_ns.map(|ns| now.after(ns)),
            max_runtime_ns: task.max_runtime_ns,
            content_type: task.content_type,
            bytes: task.payload.len(),
            state: HeldState::Waiting,
        }
    }

    const fn listed(&self) -> Held {
        Held {
            attempt: self.attempt,
            client_id: self.client_id,
            request_id: self.request_id,
            submission: self.submission,
            state: self.state,
        }
    }
}

/// The slab. Bounded by the window: the first task beyond it is not taken.
#[derive(Debug)]
pub(super) struct HeldTasks {
    places: Vec<Option<HeldTask>>,
    free: Vec<u32>,
    window: Window,
    unended: usize,
}

impl HeldTasks {
    pub(super) fn new(window_tasks: u32, window_bytes: u64) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            window: Window::new(window_tasks, window_bytes),
            unended: 0,
        }
    }

    pub(super) const fn admits(&self, bytes: u64) -> bool {
        self.window.admits(bytes)
    }

    pub(super) fn put(&mut self, task: HeldTask) -> u32 {
        self.window.take(task.bytes);
        self.unended += 1;
        if let Some(index) = self.free.pop() {
            self.places[index as usize] = Some(task);
            return index;
        }
        self.places.push(Some(task));
        self.places.len() as u32 - 1
    }

    pub(super) fn task(&self, index: u32) -> Option<&HeldTask> {
        self.places.get(index as usize)?.as_ref()
    }

    pub(super) fn set_state(&mut self, index: u32, state: HeldState) {
        let Some(Some(task)) = self.places.get_mut(index as usize) else { return };
        if state == HeldState::Ended && task.state != HeldState::Ended {
            self.unended -= 1;
        }
        task.state = state;
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<HeldTask> {
        let task = self.places.get_mut(index as usize)?.take()?;
        self.free.push(index);
        self.window.give_back(task.bytes);
        if task.state != HeldState::Ended {
            self.unended -= 1;
        }
        Some(task)
    }

    /// Indices of what has not started.
    pub(super) fn waiting(&self) -> Vec<u32> {
        let is_waiting =
            |task: &Option<HeldTask>| task.is_some_and(|task| task.state == HeldState::Waiting);
        (0..self.places.len() as u32).filter(|&i| is_waiting(&self.places[i as usize])).collect()
    }

    pub(super) fn find(&self, attempt: AttemptId) -> Option<u32> {
        let is_it = |task: &Option<HeldTask>| task.is_some_and(|task| task.attempt == attempt);
        self.places.iter().position(is_it).map(|index| index as u32)
    }

    /// What READY lists.
    pub(super) fn list(&self) -> Vec<Held> {
        self.places.iter().flatten().map(HeldTask::listed).collect()
    }

    /// Attempts that wait or run.
    pub(super) const fn unended(&self) -> usize {
        self.unended
    }

    /// All of them, ended ones included.
    pub(super) const fn len(&self) -> usize {
        self.window.tasks() as usize
    }
}
