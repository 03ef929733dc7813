//! What a task is to be: service and options, and how they are handed in.

use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::id::{ContentType, Priority, RequestId, TaskId};
use pinmesh_protocol::{rendezvous, selector};
use pinmesh_session::Time;
use pinmesh_session::client::{NewRequest, ServiceId};
use serde::Serialize;

use crate::callback;
use crate::completion::{Completions, Ticket};
use crate::payload::{Encoding, Input};
use crate::shared::{Body, Shared};
use crate::updates::{Listener, OnUpdate, Queue};
use crate::{Error, Result};

/// What to do while the client's window is full.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenFull {
    Wait,
    Fail,
}

/// Who listens to a task.
#[derive(Clone, Default)]
pub(crate) enum Listens {
    #[default]
    Nobody,
    /// A callback.
    Call(OnUpdate),
    /// Who reads the handle.
    Handle,
}

impl std::fmt::Debug for Listens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listens")
    }
}

impl Listens {
    /// Of one task; `handle`: it has one that may be read.
    pub(crate) fn listener(&self, handle: Option<&Arc<Shared>>) -> Listener {
        match (self, handle) {
            (Self::Call(call), _) => Listener::Call(Arc::clone(call)),
            (Self::Handle, Some(shared)) => {
                Listener::Queue(Arc::new(Queue::new(Arc::clone(shared))))
            }
            (Self::Nobody, _) | (Self::Handle, None) => Listener::None,
        }
    }
}

/// A [`Task`](crate::Task) without its client.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    service: Result<ServiceId>,
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Duration>,
    pub(crate) start_after: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) content_type: Option<ContentType>,
    pub(crate) encoding: Encoding,
    options: TaskOptions,
    /// The options as they travel; made at first use.
    encoded: OnceLock<Option<Arc<[u8]>>>,
    pub(crate) shows_busy: bool,
    /// The hash of the key that says where it goes.
    pub(crate) key: Option<u64>,
    /// Who listens to what its tasks say while they run.
    pub(crate) listens: Listens,
    /// An option is out of its range.
    pub(crate) fault: Option<Error>,
}

impl Plan {
    pub(crate) fn new(service: Result<ServiceId>) -> Self {
        Self {
            service,
            priority: Priority::default(),
            deadline: None,
            start_after: None,
            timeout: None,
            content_type: None,
            encoding: Encoding::default(),
            options: TaskOptions::default(),
            encoded: OnceLock::new(),
            shows_busy: false,
            key: None,
            listens: Listens::default(),
            fault: None,
        }
    }

    /// The service with these labels required.
    pub(crate) fn require(&mut self, shared: &Shared, labels: &[String]) {
        let Ok(service) = self.service else { return };
        let name = shared.service_name(service);
        self.service = selector::requiring(&name, labels)
            .map_err(|error| Error::invalid("requires", format!("{labels:?}"), error.remedy()))
            .and_then(|name| shared.service(&name));
    }

    pub(crate) fn set(&mut self, set: impl FnOnce(&mut TaskOptions)) {
        set(&mut self.options);
        self.encoded = OnceLock::new();
    }

    /// Options that do not go together.
    fn conflict(&self) -> Option<Error> {
        let Self { options, key, .. } = self;
        if options.key.is_some() && key.is_some() {
            let remedy = "an idempotency key says where its task goes: leave out `key`";
            return Some(Error::invalid("key", "set", remedy));
        }
        if options.key.is_some() {
            return None;
        }
        let remedy = "needs an idempotency key";
        if options.detached {
            return Some(Error::invalid("detached", "true", remedy));
        }
        options.retention_ns.map(|ns| Error::invalid("retention", format!("{ns} ns"), remedy))
    }

    fn options(&self) -> Option<Arc<[u8]>> {
        let encode = || match self.options.is_default() {
            true => None,
            false => Some(self.options.encode().into()),
        };
        self.encoded.get_or_init(encode).clone()
    }

    /// Hands an input in that serde knows; its end goes to the queue with `token`.
    pub(crate) fn submit_to<In: Serialize + ?Sized>(
        &self,
        shared: &Shared,
        queue: &Completions,
        token: u64,
        input: &In,
    ) -> Result<RequestId> {
        let (input, content_type) = (self.encoding.encode(input)?, self.encoding.content_type());
        let ticket = Ticket::to_queue(queue.clone(), token);
        let to = (ticket, self.listens.listener(None));
        self.send(shared, input, content_type, to, WhenFull::Wait)
    }

    pub(crate) fn send(
        &self,
        shared: &Shared,
        input: Vec<u8>,
        content_type: ContentType,
        (ticket, listener): (Ticket, Listener),
        when_full: WhenFull,
    ) -> Result<RequestId> {
        self.send_noting(shared, input, content_type, (ticket, listener, None), when_full)
    }

    /// As `send`; whoever is given is told the broker's number of the task, when the broker has it.
    pub(crate) fn send_noting(
        &self,
        shared: &Shared,
        input: Vec<u8>,
        content_type: ContentType,
        (ticket, listener, accepted): (Ticket, Listener, Option<Sender<TaskId>>),
        when_full: WhenFull,
    ) -> Result<RequestId> {
        let fault = self.fault.clone().or_else(|| self.conflict());
        let checked = fault.map_or(Ok(()), Err);
        let checked = checked.and_then(|()| Ok((self.service.clone()?, Input::new(input)?)));
        let (service, input) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                ticket.void();
                return Err(error);
            }
        };
        let started_at = shared.now();
        let moment =
            |span: Duration| started_at.after(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
        let bytes = input.len();
        let new = NewRequest {
            body: Body { input, bytes, service, started_at, ticket, listener, accepted },
            bytes,
            service,
            priority: self.priority,
            deadline: self.deadline.map_or(Time::NEVER, moment),
            start_at: self.start_after.map(moment),
            content_type,
            options: self.options(),
            is_at_most_once: self.options.at_most_once,
            shows_busy: self.shows_busy,
            key: self.options.key.as_ref().map(|key| rendezvous::hash(key)).or(self.key),
            keeps_to_key: self.options.key.is_some(),
            fetch: None,
        };
        let until = || self.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let may_wait = when_full == WhenFull::Wait && !callback::is_inside();
        let waits_until = may_wait.then(until);
        shared.submit(new, waits_until)
    }
}
