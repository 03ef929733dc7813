//! What the machine causes: commands into the batch of their broker, ends to who waits for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use pinmesh_protocol::BatchWriter;
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::codec::{write_submit, write_to_broker};
use pinmesh_protocol::command::{Accepted, ClientProgress, Payload, Submit, TaskResult, ToBroker};
use pinmesh_protocol::id::RequestId;
use pinmesh_protocol::limits::FRAME_BYTES_MAX;
use pinmesh_protocol::status::Status;
use pinmesh_session::Time;
use pinmesh_session::client::{
    ClientOutbox, CloseReason, LinkId, LinkNews, LocalEnd, Outcome, PINGS_MAX, Pong, SubmitHeader,
};
use pinmesh_transport::{
    Context, Dealer, Endpoint, Frame, Poller, SendOutcome, SocketOptions, Token,
};

use crate::Error;
use crate::completion::{RawOutcome, Ticket};
use crate::payload::{Bytes, Input, RawReply, Reply};
use crate::shared::{Body, NO_ANSWER, Shared};
use crate::updates::{Listener, Update};

/// Batches kept for the next use.
const SPARE_BATCHES_MAX: usize = 16;

/// One broker's socket and what is to go out on it.
pub(crate) struct NetLink {
    endpoint: Endpoint,
    options: SocketOptions,
    pub(crate) dealer: Option<Dealer>,
    batch: BatchWriter<Frame>,
    /// Batches that the socket had no room for; the client's window bounds them.
    backlog: VecDeque<BatchWriter<Frame>>,
    /// The socket failed; the machine is yet to be told.
    pub(crate) is_lost: bool,
}

impl NetLink {
    fn new((endpoint, options): (Endpoint, SocketOptions)) -> Self {
        Self {
            endpoint,
            options,
            dealer: None,
            batch: BatchWriter::new(),
            backlog: VecDeque::new(),
            is_lost: false,
        }
    }

    fn forget(&mut self) {
        self.batch.clear();
        self.backlog.clear();
    }

    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }
}

/// The sockets, and the machine's outbox.
pub(crate) struct Net {
    context: Context,
    pub(crate) poller: Poller,
    pub(crate) links: Vec<NetLink>,
    spare: Vec<BatchWriter<Frame>>,
    shared: Arc<Shared>,
    /// Frames after the first of the message that is being read.
    pub(crate) attachments: Vec<Frame>,
    /// The time of the event that is being handled.
    pub(crate) now: Time,
    /// Tasks that have ended and are to be told of it, and their bytes.
    ended: Vec<(Ticket, RawOutcome)>,
    ended_bytes: u64,
    pings: BTreeMap<u64, Sender<Pong>>,
    next_ping: u64,
}

impl Net {
    pub(crate) fn new(
        context: Context,
        endpoints: Vec<(Endpoint, SocketOptions)>,
        poller: Poller,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            context,
            poller,
            links: endpoints.into_iter().map(NetLink::new).collect(),
            spare: Vec::new(),
            shared,
            attachments: Vec::new(),
            now: Time(0),
            ended: Vec::new(),
            ended_bytes: 0,
            pings: BTreeMap::new(),
            next_ping: 0,
        }
    }

    /// Notes who asked for a ping; returns its number.
    pub(crate) fn add_ping(&mut self, sender: Sender<Pong>) -> u64 {
        if self.pings.len() >= PINGS_MAX {
            self.pings.pop_first();
        }
        self.next_ping += 1;
        self.pings.insert(self.next_ping, sender);
        self.next_ping
    }

    /// Tells the ends since the last call: a message's worth at a time, so that the lock of the
    /// inbox is taken once for all of them.
    pub(crate) fn tell_ends(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        let tasks = u32::try_from(self.ended.len()).expect("a client has at most a million tasks");
        self.shared.give_back(tasks, std::mem::take(&mut self.ended_bytes));
        for (ticket, outcome) in self.ended.drain(..) {
            ticket.complete(outcome).wake();
        }
    }

    /// Sends what there is to send, as far as the sockets have room.
    pub(crate) fn flush(&mut self) {
        (0..self.links.len()).for_each(|at| self.flush_link(at));
    }

    fn flush_link(&mut self, at: usize) {
        let link = &mut self.links[at];
        let Some(dealer) = &mut link.dealer else {
            link.forget();
            return;
        };
        loop {
            let is_backlog = !link.backlog.is_empty();
            let batch = link.backlog.front_mut().unwrap_or(&mut link.batch);
            if batch.is_empty() {
                return;
            }
            // The attachments stay with the batch unless it is sent.
            let mut attachments = std::mem::take(batch.attachments_mut());
            let sent = dealer.send(batch.bytes(), &mut attachments);
            *batch.attachments_mut() = attachments;
            match sent {
                Ok(SendOutcome::Sent) if is_backlog => {
                    if let Some(mut batch) = link.backlog.pop_front()
                        && self.spare.len() < SPARE_BATCHES_MAX
                    {
                        batch.clear();
                        self.spare.push(batch);
                    }
                }
                Ok(SendOutcome::Sent) => {
                    link.batch.clear();
                    return;
                }
                Ok(SendOutcome::Full) => return,
                Ok(SendOutcome::Gone) | Err(_) => {
                    link.is_lost = true;
                    link.forget();
                    return;
                }
            }
        }
    }

    /// The batch that the next command for that broker goes into.
    fn batch(&mut self, link: LinkId) -> &mut BatchWriter<Frame> {
        let at = usize::from(link.0);
        if self.links[at].batch.is_full() {
            self.turn_over(at);
        }
        &mut self.links[at].batch
    }

    /// What comes next goes into another message.
    fn turn_over(&mut self, at: usize) {
        self.flush_link(at);
        if !self.links[at].batch.is_empty() {
            let next = self.spare.pop().unwrap_or_default();
            let full = std::mem::replace(&mut self.links[at].batch, next);
            self.links[at].backlog.push_back(full);
        }
    }

    /// Takes the socket out of the poller and closes it; what it was given may still go out.
    fn close_socket(&mut self, link: LinkId) {
        let at = usize::from(link.0);
        self.flush_link(at);
        let entry = &mut self.links[at];
        entry.forget();
        entry.is_lost = false;
        if let Some(mut dealer) = entry.dealer.take() {
            // It is registered: `connect` keeps none that is not.
            let _ = self.poller.deregister(&mut dealer);
        }
    }

    fn open_socket(&mut self, link: LinkId) -> Result<(), Error> {
        let at = usize::from(link.0);
        let link = &self.links[at];
        let mut dealer = Dealer::connect(&self.context, &link.endpoint, &link.options)?;
        self.poller.register(&mut dealer, Token(at))?;
        self.links[at].dealer = Some(dealer);
        Ok(())
    }

    fn bytes(&mut self, payload: Payload<'_>) -> Bytes {
        match payload {
            Payload::Inline(bytes) => Bytes::from(bytes.to_vec()),
            // The span has been held against the frames of the message when it was read.
            Payload::Frames(span) => {
                let first = (span.first as usize).saturating_sub(1).min(self.attachments.len());
                let end = (first + span.frames as usize).min(self.attachments.len());
                let frames = self.attachments[first..end].iter_mut().map(std::mem::take);
                Bytes::from_frames(frames.collect())
            }
        }
    }

    fn reply(&mut self, result: &TaskResult<'_>, body: &Body) -> RawReply {
        Reply {
            value: self.bytes(result.payload),
            content_type: result.content_type,
            tries: result.tries,
            stages: result.stages,
            response: Duration::from_nanos(self.now.since(body.started_at)),
        }
    }

    fn outcome(&mut self, outcome: Outcome<'_>, body: &Body) -> RawOutcome {
        let result = match outcome {
            Outcome::Result(result) => result,
            Outcome::Local(end) => return Err(self.local_end(end, body)),
        };
        let reply = self.reply(&result, body);
        if result.status == Status::Ok {
            return Ok(reply);
        }
        let service = self.shared.service_name(body.service);
        let message = String::from_utf8_lossy(&reply.value).into_owned();
        Err(match result.status {
            Status::Ok | Status::Failed => Error::Failed { service, message },
            Status::Expired => Error::Expired { service },
            Status::TimedOut => Error::TimedOut { service, message },
            Status::Crashed => Error::Crashed { service, tries: result.tries, message },
            Status::Cancelled => Error::Cancelled { service },
            Status::Busy => {
                let retry_after = result.retry_after_ns.map(Duration::from_nanos);
                Error::Busy { service, retry_after }
            }
            Status::NoService => Error::NoService { service },
            Status::Refused => Error::Refused { service, message },
            Status::Lost => Error::Lost { service },
        })
    }

    fn local_end(&self, end: LocalEnd, body: &Body) -> Error {
        let service = self.shared.service_name(body.service);
        match end {
            LocalEnd::Expired => Error::Expired { service },
            LocalEnd::Busy { retry_after_ns } => {
                let retry_after = Some(Duration::from_nanos(retry_after_ns));
                Error::Busy { service, retry_after }
            }
            LocalEnd::Cancelled => Error::Cancelled { service },
            LocalEnd::Lost => Error::Lost { service },
            LocalEnd::Closed => Error::Closed,
            LocalEnd::NotEnded => Error::NotEnded,
            LocalEnd::UnknownKey => Error::UnknownKey,
            LocalEnd::Full => {
                let bounds = self.shared.bounds;
                Error::Full { tasks: bounds.tasks, bytes: bounds.bytes }
            }
            LocalEnd::PayloadTooLarge { bytes, bytes_max } => {
                Error::TooLarge { what: "the payload", bytes, bytes_max }
            }
            LocalEnd::HeaderTooLarge { bytes, bytes_max } => {
                Error::TooLarge { what: "what goes before the payload", bytes, bytes_max }
            }
        }
    }
}

impl ClientOutbox<Body> for Net {
    fn connect(&mut self, link: LinkId) {
        self.close_socket(link);
        if let Err(error) = self.open_socket(link) {
            let entry = &mut self.links[usize::from(link.0)];
            entry.is_lost = true;
            let endpoint = entry.endpoint.to_string();
            tracing::warn!(endpoint, %error, "cannot open a socket");
            self.shared.note_links(|links| links.reason = error.to_string());
        }
    }

    fn disconnect(&mut self, link: LinkId) {
        self.close_socket(link);
    }

    fn send(&mut self, link: LinkId, command: &ToBroker<'_>) {
        let batch = self.batch(link);
        write_to_broker(batch.bytes_mut(), command);
        batch.count();
    }

    fn submit(&mut self, link: LinkId, header: &SubmitHeader<'_>, body: &mut Body) {
        if body.bytes > FRAME_BYTES_MAX as u64 {
            // A message arrives as a whole: the word of its long silence goes before it.
            self.turn_over(usize::from(link.0));
        }
        let batch = self.batch(link);
        let payload = match &mut body.input {
            Input::Inline(bytes) => Payload::Inline(bytes),
            Input::Frames(frames) => {
                let shares = frames.iter_mut().map(|frame| (frame.share(), frame.len()));
                Payload::Frames(batch.attach(shares))
            }
        };
        let delayed = header.start_after_ns.map(|ns| TaskOptions::delayed(header.options, ns));
        let submit = Submit {
            request_id: header.request_id,
            submission: header.submission,
            service: header.service,
            priority: header.priority,
            deadline_ns: header.deadline_ns,
            content_type: header.content_type,
            options: delayed.as_deref().or(header.options),
            payload,
        };
        write_submit(batch.bytes_mut(), &submit);
        batch.count();
    }

    fn resolve(&mut self, _: RequestId, body: Body, outcome: Outcome<'_>) {
        self.ended_bytes += body.bytes;
        let outcome = self.outcome(outcome, &body);
        body.listener.end();
        self.ended.push((body.ticket, outcome));
    }

    fn progress(&mut self, progress: ClientProgress<'_>, body: &Body) {
        if matches!(body.listener, Listener::None) {
            return;
        }
        let value = self.bytes(progress.payload);
        body.listener.hear(Update {
            request_id: progress.request_id,
            dispatch: progress.dispatch.0,
            sequence: progress.sequence,
            kind: progress.kind,
            content_type: progress.content_type,
            value,
        });
    }

    fn accepted(&mut self, accepted: Accepted, body: &Body) {
        if let Some(sender) = &body.accepted {
            // Who waited may have stopped.
            let _ = sender.send(accepted.task);
        }
    }

    fn pong(&mut self, pong: Pong) {
        if let Some(sender) = self.pings.remove(&pong.token) {
            // Who asked may have stopped waiting.
            let _ = sender.send(pong);
        }
    }

    fn link_news(&mut self, link: LinkId, news: LinkNews<'_>) {
        let at = usize::from(link.0);
        let endpoint = self.links[at].endpoint.to_string();
        match news {
            LinkNews::Opened(epoch) => {
                tracing::info!(endpoint, %epoch, "session open");
                self.shared.note_links(|links| {
                    links.open[at] = true;
                    links.refusal = None;
                });
            }
            LinkNews::Closed(reason) => {
                let words = words(reason);
                tracing::info!(endpoint, reason = words, "no session");
                self.shared.note_links(|links| {
                    links.open[at] = false;
                    if let CloseReason::Refused(..) = reason {
                        let reason = words.clone();
                        links.refusal = Some(Error::SessionRefused { endpoint, reason });
                    }
                    links.reason = words;
                });
            }
        }
    }
}

fn words(reason: CloseReason<'_>) -> String {
    match reason {
        CloseReason::Unreachable => NO_ANSWER.into(),
        CloseReason::Silent => "the broker fell silent".into(),
        CloseReason::NoSession => "the broker did not know the session".into(),
        CloseReason::Refused(code, text) => format!("{code}: {text}"),
        CloseReason::Goodbye => "the broker left".into(),
        CloseReason::SocketLost => "the socket failed".into(),
    }
}
