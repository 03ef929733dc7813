//! The machine: one event in, its effects out.

use pinmesh_protocol::command::FromBroker;

use crate::config::CoreConfig;
use crate::event::{Body, Conn, Event};
use crate::ledger::Ledger;
use crate::outbox::Outbox;
use crate::state::State;
use crate::time::Time;

/// Every decision of a broker, without sockets, clocks or randomness of its own.
pub struct Broker<B> {
    pub(crate) state: State<B>,
}

/// How much of what a broker holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Open sessions.
    pub sessions: u64,
    /// Clients, lost ones that are still kept included.
    pub clients: u64,
    /// Workers.
    pub workers: u64,
    /// Hosts.
    pub hosts: u64,
    /// Tasks that wait for a worker.
    pub pending: u64,
    /// Tasks that wait to be tried again, or for the time of their start.
    pub delayed: u64,
    /// Attempts that workers hold.
    pub in_flight: u64,
    /// Tasks held in all, ended and unacknowledged ones included.
    pub tasks: u64,
    /// Bytes of payloads and results, with the overhead that the budget counts.
    pub bytes: u64,
    /// Dead letters.
    pub dead: u64,
    /// Bytes of those, with the overhead that their bound counts.
    pub dead_bytes: u64,
}

impl<B: Body> Broker<B> {
    /// A broker at the start of its life.
    pub fn new(config: CoreConfig) -> Self {
        Self { state: State::new(config) }
    }

    /// One event, and everything that it causes. `now` never goes back.
    #[inline]
    pub fn handle(&mut self, now: Time, event: Event<'_, B>, out: &mut impl Outbox<B>) {
        self.on_event(now, event, out);
        if !self.state.opened.is_empty() {
            self.state.dispatch_opened(out);
        }
    }

    #[inline]
    fn on_event(&mut self, now: Time, event: Event<'_, B>, out: &mut impl Outbox<B>) {
        let state = &mut self.state;
        state.now = state.now.max(now);
        match event {
            Event::Hello(conn, side, hello, user) => {
                return state.on_hello((conn, side), &hello, user, out);
            }
            Event::Tick => return state.on_time(out),
            Event::Drain => {
                state.is_draining = true;
                return;
            }
            Event::Gone(conn) => {
                state.end_session(conn);
                return out.close(conn);
            }
            Event::Malformed(conn, code, reason) => {
                return state.refuse_session(conn, code, reason, out);
            }
            _ => {}
        }
        let Some(conn) = event.conn() else { return };
        let now = state.now;
        let Some(session) = state.sessions.get_mut(conn) else {
            return stranger(state, conn, &event, out);
        };
        // Full and Sendable are the shell's words, not the peer's.
        if !matches!(event, Event::Full(_) | Event::Sendable(_)) {
            session.heard_at = session.heard_at.max(now);
        }
        match event {
            Event::Submit(_, submit) => state.on_submit(conn, submit, out),
            Event::Done(_, done) => state.on_done(conn, done, out),
            Event::Ack(_, count) => state.on_ack(conn, count, out),
            Event::BatchEnd(_) => state.on_batch_end(conn, out),
            Event::Heartbeat(_, heartbeat) => state.on_heartbeat(conn, heartbeat, out),
            Event::Service(_, alias) => state.on_service(conn, &alias, out),
            Event::Cancel(_, cancel) => state.on_cancel(conn, cancel, out),
            Event::Fetch(_, fetch) => state.on_fetch(conn, &fetch, out),
            Event::Ready(_, ready) => state.on_ready(conn, &ready, out),
            Event::Window(_, window) => state.on_window(conn, window, out),
            Event::Return(_, attempt) => state.on_return(conn, attempt, out),
            Event::Host(_, host) => state.on_host(conn, &host, out),
            Event::Lost(_, lost) => state.on_lost(conn, &lost, out),
            Event::Recalled(_, recalled) => state.on_recalled(conn, &recalled, out),
            Event::Goodbye(_) => state.on_goodbye(conn, out),
            Event::Full(_) => state.on_full(conn, true, out),
            Event::Sendable(_) => state.on_full(conn, false, out),
            Event::Progress(_, progress) => state.on_progress(conn, progress, out),
            Event::Hello(..)
            | Event::Tick
            | Event::Drain
            | Event::Gone(_)
            | Event::Malformed(..) => unreachable!("handled above"),
        }
    }

    /// When to hand in [`Event::Tick`] next.
    pub fn next_wakeup(&self) -> Option<Time> {
        self.state.timers.next_wakeup()
    }

    /// What came in and how it ended.
    pub fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    /// How much is held at the moment.
    pub fn counts(&self) -> Counts {
        let state = &self.state;
        Counts {
            sessions: u64::from(state.sessions.len()),
            clients: state.clients.len() as u64,
            workers: state.workers.len() as u64,
            hosts: state.hosts.len() as u64,
            pending: state.services.iter().map(|(_, s)| u64::from(s.waiting.len())).sum(),
            delayed: state.delayed,
            in_flight: state.workers.iter().map(|(_, w)| u64::from(w.in_flight.len())).sum(),
            tasks: state.tasks.len() as u64,
            bytes: state.bytes,
            dead: state.dead.len() as u64,
            dead_bytes: state.dead.bytes(),
        }
    }

    /// After [`Event::Drain`]: every task has ended and its client has acknowledged the end. Outcomes
    /// that are kept for requests to come are not waited for.
    pub fn is_drained(&self) -> bool {
        let state = &self.state;
        // Most often there is more than what could be in store, and nothing is looked through.
        state.is_draining
            && state.tasks.len() <= state.keys.len()
            && state.tasks.iter().all(|(key, _)| state.is_in_store(key))
    }

    /// Tasks that have ended and are held for nothing but requests that may come with their keys.
    /// Takes time linear in what is held.
    pub fn in_store(&self) -> u64 {
        let state = &self.state;
        state.tasks.iter().filter(|(key, _)| state.is_in_store(*key)).count() as u64
    }
}

/// A command without a session: the peer is told to say HELLO on another socket.
fn stranger<B: Body>(
    state: &mut State<B>,
    conn: Conn,
    event: &Event<'_, B>,
    out: &mut impl Outbox<B>,
) {
    match event {
        Event::BatchEnd(_) | Event::Full(_) | Event::Sendable(_) => {}
        Event::Goodbye(_) => out.close(conn),
        _ => {
            state.ledger.no_session += 1;
            out.send(conn, FromBroker::NoSession);
            out.close(conn);
        }
    }
}
