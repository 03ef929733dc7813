//! The client's machine: sessions with its brokers, requests and their one end each, resubmission.
//!
//! One event, one mutation: [`Client::handle`] changes the machine and writes what follows from it
//! to the outbox. The caller reads sockets, gives every command as an event and
//! [`ClientEvent::BatchEnd`] after each message, and wakes the machine at
//! [`Client::next_wakeup`]. The body of a request is the caller's own; the machine keeps it until
//! the request is resolved and gives it back then.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use pinmesh_protocol::command::{CancelRequest, FromBroker, Heartbeat, ToBroker};
use pinmesh_protocol::id::RequestId;
use pinmesh_protocol::status::RefusedCode;

use crate::Time;
use link::{Link, Random};
use queue::Queue;
use table::{Place, Request, Table};

mod event;
mod keyed;
mod link;
mod queue;
mod results;
mod sessions;
mod submit;
mod table;

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;

pub use event::{
    Cancel, ClientConfig, ClientCounters, ClientEvent, ClientOutbox, CloseReason, FetchOf, LinkId,
    LinkNews, LocalEnd, NewRequest, Outcome, Pong, ServiceId, SubmitHeader, WakeReason,
};

/// Service names that a client may use in its life.
pub const SERVICE_NAMES_MAX: usize = 4096;
/// Pings that may be unanswered; older ones are forgotten.
pub const PINGS_MAX: usize = 64;
/// How exactly deadlines are kept while no broker can be asked.
const EXPIRY_NS: u64 = 50_000_000;

/// A ping that has not been answered.
#[derive(Clone, Copy, Debug)]
struct Ping {
    token: u64,
    /// The link, HEARTBEAT's number and when it was sent; `None`: no session was open.
    sent: Option<(LinkId, u64, Time)>,
}

/// The machine. `B`: what the caller keeps with a request.
#[derive(Debug)]
pub struct Client<B> {
    config: ClientConfig,
    random: Random,
    links: Vec<Link>,
    services: Vec<Box<str>>,
    table: Table<B>,
    /// Requests in [`Place::Queued`] that any broker may take; the others are in a broker's line.
    queue: Queue,
    /// Requests in [`Place::Delayed`] and until when.
    delayed: BTreeSet<(Time, RequestId)>,
    pings: VecDeque<Ping>,
    /// Unresolved requests that have a deadline.
    deadlines: usize,
    /// When to look for passed deadlines next, if it is on us to do so.
    expiry_at: Time,
    /// Nothing is acknowledged for now.
    is_held: bool,
    is_closed: bool,
    counters: ClientCounters,
}

impl<B> Client<B> {
    /// A machine that has done nothing yet. Panics unless it is given at least one link and may
    /// keep at least one request.
    pub fn new(config: ClientConfig) -> Self {
        assert!(!config.brokers.is_empty(), "a client needs at least one broker");
        assert!(config.brokers.len() <= usize::from(u16::MAX), "links are counted in u16");
        assert!(config.unresolved_max > 0, "a client may keep at least one request");
        Self {
            random: Random(config.seed),
            links: config.brokers.iter().map(|&hash| Link::new(hash)).collect(),
            services: Vec::new(),
            table: Table::new(config.unresolved_max.saturating_mul(2).max(1024)),
            queue: Queue::default(),
            delayed: BTreeSet::new(),
            pings: VecDeque::new(),
            deadlines: 0,
            expiry_at: Time(0),
            is_held: false,
            is_closed: false,
            counters: ClientCounters::default(),
            config,
        }
    }

    /// Takes one event. `now` never goes back.
    pub fn handle<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        event: ClientEvent<'_, B>,
        outbox: &mut O,
    ) {
        match event {
            ClientEvent::Submit(new) => self.on_submit(now, new, outbox),
            ClientEvent::Received(link, command) => self.on_command(now, link, command, outbox),
            ClientEvent::BatchEnd(link) => self.on_batch_end(now, link, outbox),
            ClientEvent::Start => {
                self.links.iter_mut().for_each(|link| link.expect(now));
                self.on_wakeup(now, false, outbox);
            }
            ClientEvent::Service(name) => self.on_service(name),
            ClientEvent::Cancel(request_id, how) => self.on_cancel(request_id, how, outbox),
            ClientEvent::Hold(is_held) => self.on_hold(is_held, outbox),
            ClientEvent::Ping(token) => self.on_ping(now, token, outbox),
            ClientEvent::Malformed(link, code) => {
                self.refuse(now, link, code, "malformed command", outbox);
            }
            ClientEvent::SocketLost(link) => self.on_socket_lost(now, link, outbox),
            ClientEvent::Wakeup { is_emptied } => self.on_wakeup(now, is_emptied, outbox),
            ClientEvent::Close => self.on_close(outbox),
        }
    }

    /// When the machine wants [`ClientEvent::Wakeup`] next, and why.
    pub fn next_wakeup(&self) -> Option<(Time, WakeReason)> {
        if self.is_closed {
            return None;
        }
        let links = self.links.iter().filter_map(Link::next_wakeup);
        let moves = self.links.iter().map(Link::next_move).filter(|&at| at < Time::NEVER);
        let moves = moves.map(|at| (at, WakeReason::Move));
        let retry = self.delayed.first().map(|&(at, _)| (at, WakeReason::Retry));
        let expiry = self.watches_deadlines().then_some((self.expiry_at, WakeReason::Expiry));
        links.chain(moves).chain(retry).chain(expiry).min()
    }

    /// The id that the next request will have.
    pub fn next_request_id(&self) -> RequestId {
        self.table.next_id()
    }

    /// Requests that have not been resolved.
    pub fn unresolved(&self) -> usize {
        self.table.len()
    }

    /// Whether every unresolved request has been handed to some broker.
    pub fn is_flushed(&self) -> bool {
        let is_queued = |id: &RequestId| {
            self.table.request(*id).is_some_and(|request| request.place == Place::Queued)
        };
        let lines = self.links.iter().flat_map(|link| link.line.iter());
        self.delayed.is_empty() && !self.queue.iter().chain(lines).any(is_queued)
    }

    /// Whether a session with that broker is open.
    pub fn is_open(&self, link: LinkId) -> bool {
        self.links.get(usize::from(link.0)).is_some_and(|link| link.session().is_some())
    }

    /// What it has counted so far.
    pub fn counters(&self) -> ClientCounters {
        self.counters
    }

    fn link_ids(&self) -> impl Iterator<Item = LinkId> + use<B> {
        let count = u16::try_from(self.links.len()).expect("links are counted in u16");
        (0..count).map(LinkId)
    }

    fn on_service(&mut self, name: &str) {
        assert!(self.services.len() < SERVICE_NAMES_MAX, "the caller bounds its service names");
        self.services.push(name.into());
    }

    fn on_command<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        link: LinkId,
        command: FromBroker<'_>,
        outbox: &mut O,
    ) {
        let at = usize::from(link.0);
        let Some(session) = self.links.get_mut(at).and_then(Link::session_mut) else {
            self.on_greeting_command(now, link, command, outbox);
            return;
        };
        session.heard();
        match command {
            FromBroker::Result(result) => self.on_result(now, link, result, outbox),
            FromBroker::Heartbeat(heartbeat) => self.on_heartbeat(now, link, heartbeat, outbox),
            FromBroker::Window(window) => {
                self.links[at].window.resize(window.tasks, window.bytes);
            }
            FromBroker::NoSession => self.close_link(now, link, CloseReason::NoSession, outbox),
            FromBroker::Refused(refused) => {
                let reason = CloseReason::Refused(refused.code, refused.reason);
                self.close_link(now, link, reason, outbox);
            }
            FromBroker::Goodbye => self.close_link(now, link, CloseReason::Goodbye, outbox),
            FromBroker::Progress(progress) => self.on_progress(link, progress, outbox),
            FromBroker::Accepted(accepted) => match self.table.request(accepted.request_id) {
                Some(request) => outbox.accepted(accepted, &request.body),
                None => self.counters.stale += 1,
            },
            // A second WELCOME is a repeated one; a client sends no ends that ACK could be about,
            // has no aliases set for it.
            FromBroker::Welcome(_) | FromBroker::Ack(_) | FromBroker::Service(_) => {
                self.counters.ignored += 1
            }
            FromBroker::Fetched(fetched) => self.on_fetched(now, link, fetched, outbox),
            FromBroker::Task(_)
            | FromBroker::Drain
            | FromBroker::Recall(_)
            | FromBroker::Cancel(_) => {
                self.refuse(now, link, RefusedCode::NotAllowed, "not for a client", outbox);
            }
        }
    }

    fn on_batch_end<O: ClientOutbox<B>>(&mut self, now: Time, link: LinkId, outbox: &mut O) {
        self.acknowledge(link, outbox);
        self.pump(now, outbox);
    }

    fn acknowledge<O: ClientOutbox<B>>(&mut self, link: LinkId, outbox: &mut O) {
        let at = usize::from(link.0);
        if let Some(session) = self.links.get_mut(at).and_then(Link::session_mut)
            && session.taken > session.acked
            && !self.is_held
        {
            session.acked = session.taken;
            outbox.send(link, &ToBroker::Ack(session.acked));
        }
    }

    fn on_hold<O: ClientOutbox<B>>(&mut self, is_held: bool, outbox: &mut O) {
        self.is_held = is_held;
        for link in self.link_ids() {
            self.acknowledge(link, outbox);
        }
    }

    fn on_cancel<O: ClientOutbox<B>>(
        &mut self,
        request_id: RequestId,
        how: Cancel,
        outbox: &mut O,
    ) {
        let Some(request) = self.table.request_mut(request_id) else { return };
        let submission = request.submission;
        match request.place {
            // No broker has the latest submission; one that may have an earlier is told below.
            Place::Queued | Place::Delayed(_) => {
                self.finish(request_id, Outcome::Local(LocalEnd::Cancelled), outbox);
            }
            Place::Held(link) => {
                let is_more = request.cancel < Some(how);
                request.cancel = request.cancel.max(Some(how));
                if is_more && self.links[usize::from(link.0)].session().is_some() {
                    let is_hard = how == Cancel::Hard;
                    let cancel = CancelRequest { request_id, submission, is_hard };
                    outbox.send(link, &ToBroker::Cancel(cancel));
                }
            }
        }
    }

    fn on_ping<O: ClientOutbox<B>>(&mut self, now: Time, token: u64, outbox: &mut O) {
        if self.pings.len() == PINGS_MAX {
            self.pings.pop_front();
        }
        self.pings.push_back(Ping { token, sent: None });
        self.send_pings(now, outbox);
    }

    /// Sends the pings that wait for a session on the first one that is open.
    fn send_pings<O: ClientOutbox<B>>(&mut self, now: Time, outbox: &mut O) {
        let open = self.links.iter_mut().enumerate();
        let open = open.filter_map(|(at, link)| Some((at, link.session_mut()?)));
        let Some((at, session)) = { open }.next() else { return };
        let link = LinkId(u16::try_from(at).expect("links are counted in u16"));
        for ping in self.pings.iter_mut().filter(|ping| ping.sent.is_none()) {
            let sequence = session.next_sequence();
            ping.sent = Some((link, sequence, now));
            outbox.send(link, &ToBroker::Heartbeat(Heartbeat { sequence, silence_ns: None }));
        }
    }

    fn on_heartbeat<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        link: LinkId,
        heartbeat: Heartbeat,
        outbox: &mut O,
    ) {
        let entry = &mut self.links[usize::from(link.0)];
        entry.settle();
        if let (Some(session), Some(silence_ns)) = (entry.session_mut(), heartbeat.silence_ns) {
            session.on_announced(now, silence_ns);
        }
        let is_this = |ping: &Ping| {
            ping.sent.is_some_and(|(to, sequence, _)| to == link && sequence == heartbeat.sequence)
        };
        let Some(found) = self.pings.iter().position(is_this) else { return };
        let epoch = self.links[usize::from(link.0)].epoch;
        if let (Some(ping), Some(epoch)) = (self.pings.remove(found), epoch)
            && let Some((_, _, sent_at)) = ping.sent
        {
            let round_trip_ns = now.since(sent_at);
            outbox.pong(Pong { token: ping.token, round_trip_ns, epoch });
        }
    }

    fn on_close<O: ClientOutbox<B>>(&mut self, outbox: &mut O) {
        // GOODBYE says that nothing more is wanted. With requests unresolved the session is left
        // open instead, so that the broker goes on with them as for a client that it lost.
        let is_done = self.table.len() == 0;
        self.is_closed = true;
        for (at, link) in (0..).zip(&mut self.links) {
            if link.session().is_some() && is_done {
                outbox.send(LinkId(at), &ToBroker::Goodbye);
            }
            link.state = link::State::Closed;
            outbox.disconnect(LinkId(at));
        }
        for request_id in self.table.ids(|_| true) {
            self.finish(request_id, Outcome::Local(LocalEnd::Closed), outbox);
        }
        self.queue.clear();
        self.links.iter_mut().for_each(|link| link.line.clear());
        self.delayed.clear();
        self.pings.clear();
    }

    /// Whether deadlines that pass are noticed by nobody else: something waits here, or a broker
    /// that holds something cannot be asked.
    fn watches_deadlines(&self) -> bool {
        let is_waiting = !self.queue.is_empty() || !self.delayed.is_empty();
        let is_ours = |link: &Link| link.session().is_none() || !link.line.is_empty();
        self.deadlines > 0 && (is_waiting || self.links.iter().any(is_ours))
    }

    /// Ends, here, what waits here or is held by a broker that cannot be asked, and whose deadline
    /// has passed.
    fn expire<O: ClientOutbox<B>>(&mut self, now: Time, outbox: &mut O) {
        self.expiry_at = now.after(EXPIRY_NS);
        let links = &self.links;
        let is_ours = |request: &Request<B>| match request.place {
            Place::Queued | Place::Delayed(_) => true,
            Place::Held(link) => links[usize::from(link.0)].session().is_none(),
        };
        let is_over = |request: &Request<B>| request.deadline <= now && is_ours(request);
        for request_id in self.table.ids(is_over) {
            self.finish(request_id, Outcome::Local(LocalEnd::Expired), outbox);
        }
    }
}
