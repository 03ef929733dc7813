//! Updates of running tasks: those of kind `stream` wait in their client's line until it has
//! acknowledged them, of kind `latest` at most one a task waits where its client cannot be told at
//! once. Nothing of this is touched by tasks that say nothing while they run.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use pinmesh_protocol::id::Dispatch;
use pinmesh_protocol::limits::UPDATE_OVERHEAD_BYTES;

use crate::event::{Body, Conn};
use crate::outbox::ProgressHead;
use crate::slab::{ClientKey, Slab, TaskKey, UpdateKey};

/// An update that is kept.
pub(crate) struct Update<B> {
    pub(crate) head: ProgressHead,
    pub(crate) body: B,
}

impl<B: Body> Update<B> {
    /// Bytes that the memory budget counts for it.
    pub(crate) fn kept_bytes(&self) -> u64 {
        kept_bytes(&self.body)
    }
}

/// Bytes that the memory budget counts for an update with that body.
pub(crate) fn kept_bytes<B: Body>(body: &B) -> u64 {
    body.kept_bytes() + UPDATE_OVERHEAD_BYTES
}

/// How far a task's updates have got.
pub(crate) struct Told {
    /// Of this attempt.
    dispatch: Dispatch,
    /// The latest number that was taken.
    sequence: u64,
    /// Of kind `latest`, and waits.
    waiting: Option<UpdateKey>,
}

/// See the module.
pub(crate) struct Progress<B> {
    /// Those that are kept.
    pub(crate) updates: Slab<UpdateKey, Update<B>>,
    /// Bytes of those of kind `stream`.
    pub(crate) stream_bytes: u64,
    /// Tasks that have said something and have not ended.
    tasks: BTreeMap<TaskKey, Told>,
    /// Sessions of workers that are not acknowledged further, and the client that is to take
    /// something first.
    held: BTreeMap<Conn, ClientKey>,
}

impl<B: Body> Progress<B> {
    pub(crate) const fn new() -> Self {
        Self {
            updates: Slab::new(),
            stream_bytes: 0,
            tasks: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Whether no task that runs has said anything.
    #[inline]
    pub(crate) fn is_silent(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Takes a number of an attempt; `false`: it, or a later one, was taken before.
    pub(crate) fn take(&mut self, task: TaskKey, dispatch: Dispatch, sequence: u64) -> bool {
        let told = self.tasks.entry(task).or_insert(Told { dispatch, sequence: 0, waiting: None });
        if told.dispatch != dispatch {
            (told.dispatch, told.sequence) = (dispatch, 0);
        }
        let is_new = told.sequence < sequence;
        told.sequence = told.sequence.max(sequence);
        is_new
    }

    /// The newest of a task waits, in the place of the one before, which is returned.
    pub(crate) fn put_latest(&mut self, task: TaskKey, key: UpdateKey) -> Option<UpdateKey> {
        self.tasks.get_mut(&task)?.waiting.replace(key)
    }

    /// The one that waits.
    pub(crate) fn take_latest(&mut self, task: TaskKey) -> Option<UpdateKey> {
        self.tasks.get_mut(&task)?.waiting.take()
    }

    /// The task has ended. The update that waited.
    pub(crate) fn forget(&mut self, task: TaskKey) -> Option<UpdateKey> {
        self.tasks.remove(&task)?.waiting
    }

    /// Forgets an update of kind `stream`: its client has it, or is gone. The bytes that it had.
    pub(crate) fn forget_stream(&mut self, key: UpdateKey) -> u64 {
        let bytes = self.updates.remove(key).map_or(0, |update| update.kept_bytes());
        self.stream_bytes -= bytes;
        bytes
    }

    /// A worker's session is acknowledged no further until this client has taken something.
    pub(crate) fn hold(&mut self, conn: Conn, client: ClientKey) {
        self.held.insert(conn, client);
    }

    /// It is acknowledged again, or over.
    pub(crate) fn let_go(&mut self, conn: Conn) {
        self.held.remove(&conn);
    }

    /// Sessions that are held, and by whom.
    pub(crate) fn held(&self) -> Vec<(Conn, ClientKey)> {
        self.held.iter().map(|(conn, client)| (*conn, *client)).collect()
    }

    /// Whether there are some.
    #[inline]
    pub(crate) fn holds_nobody(&self) -> bool {
        self.held.is_empty()
    }

    /// Tasks that have said something, and the update of each that waits; for the cross-check.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = (TaskKey, Option<UpdateKey>)> {
        self.tasks.iter().map(|(task, told)| (*task, told.waiting))
    }
}
