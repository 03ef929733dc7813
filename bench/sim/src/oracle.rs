//! A reference broker, written from PROTOCOL.md and the design and not from the core, that is told
//! the same events at the same times. It is naive: ordered maps, searched through each time, no
//! keys, no lists, no timers. After each event it must have caused the same effects, and hold the
//! same tasks in the same states, with the same sums, as the real machine.
//!
//! Where a broker has a choice (which worker, which of the tasks, when to feed) the reference knows
//! what is allowed, reads the choice from the real outbox, and follows it:
//!
//! - A worker is sent a task only if it serves the service, has said the last part of READY, its
//!   host's lease stands, it is not full or parked, and the task fits its window; and no other
//!   worker of its group that could take the task has fewer in flight.
//! - The task is the oldest of its client (by the name in HELLO) in its service and class, and not
//!   past its deadline; if the broker is `strict`, nothing more urgent waits for that worker.
//! - After each event no task waits while a worker could take it. Excused is a worker that holds
//!   something and was passed over because what was next did not fit its bytes: it is offered more
//!   once something changes about it.
//!
//! What time does it does at `Tick`, because a broker that was held up reads before it judges; its
//! timers have a grain and may be late by that much, never early. Several that are due in the same
//! tick have no order: the real effects say which came first.
//!
//! Numbers of tasks are opaque: they are learnt when they are first seen.

mod allowed;
mod book;
mod clients;
mod compare;
mod dead;
mod delays;
mod effects;
mod gates;
mod hosts;
mod inherited;
mod keys;
mod names;
mod progress;
mod sessions;
mod tasks;
mod time;
mod workers;

use std::collections::{BTreeMap, VecDeque};

use pinmesh_core::{
    AdminCommand, AdminObjection, AdminReply, Broker, Conn, CoreConfig, Counts, Event, Ledger,
    ResultHead, Time,
};
use pinmesh_protocol::command::StageTimes;
use pinmesh_protocol::id::{AttemptId, PeerId, RequestId, TaskId};
use pinmesh_protocol::status::Status;

use crate::record::{Body, Effect, Sent};
use book::{Age, Client, Host, Session, Task, Worker, WorkerNo};
use dead::Dead;
use delays::Undecided;
use gates::Gate;
use inherited::Inherited;

/// Characters of an event in the report of a difference.
const EVENT_CHARS: usize = 700;

/// An effect that must be among the real ones, wherever it stands there.
#[derive(Clone, Debug)]
enum Expected {
    Sent(Conn, Sent),
    Accepted(Conn, RequestId, Age),
    Close(Conn),
    Stages(StageTimes),
}

/// A part of an event that is yet to be followed: a broker may send tasks between two of them.
#[derive(Clone, Copy, Debug)]
enum Piece {
    /// RECALLED names it, said by this session.
    Recalled(Conn, AttemptId),
    /// HOST gives its host a lease.
    Lease(PeerId),
    /// This worker is gone, and nobody can say what it had started.
    Gone(WorkerNo),
}

/// The reference for one life of a broker.
#[derive(Debug)]
pub struct Oracle {
    config: CoreConfig,
    now: u64,
    /// Number of the event that is being followed.
    event: u64,
    is_tick: bool,
    /// Time of the last tick.
    ticked_at: u64,
    is_draining: bool,
    sessions: BTreeMap<Conn, Session>,
    clients: BTreeMap<PeerId, Client>,
    workers: BTreeMap<WorkerNo, Worker>,
    hosts: BTreeMap<PeerId, Host>,
    tasks: BTreeMap<Age, Task>,
    ids: BTreeMap<TaskId, Age>,
    inherited: BTreeMap<AttemptId, Inherited>,
    /// Since when nobody has served a service that was once served.
    unserved_since: BTreeMap<String, u64>,
    gates: Vec<Gate>,
    dead: Dead,
    ledger: Ledger,
    /// What the real broker held after the event before.
    counts: Counts,
    workers_seen: WorkerNo,
    tasks_seen: Age,
    pieces: VecDeque<Piece>,
    undecided: Vec<Undecided>,
    expected: Vec<Expected>,
    /// RESULTs that no task stands behind.
    answers: Vec<(Conn, ResultHead)>,
    /// Effects that nothing has explained yet.
    unexplained: Vec<Effect>,
    /// Tasks that ended by time alone in this tick, of which nobody was told.
    ended_by_time: BTreeMap<Age, Status>,
    /// Hosts that were given up in this event.
    hosts_lost: Vec<PeerId>,
    /// Tasks that ended in this event while more than one thing could have ended them, and of which
    /// nothing can be seen any more.
    ambiguous: u64,
    /// Tasks whose deadline was over in this tick, when their worker was gone as well.
    ambiguous_back: u64,
    failure: Option<String>,
}

impl Oracle {
    /// The reference for a broker that starts with this configuration.
    pub fn new(config: &CoreConfig) -> Self {
        Self {
            config: config.clone(),
            now: 0,
            event: 0,
            is_tick: false,
            ticked_at: 0,
            is_draining: false,
            sessions: BTreeMap::new(),
            clients: BTreeMap::new(),
            workers: BTreeMap::new(),
            hosts: BTreeMap::new(),
            tasks: BTreeMap::new(),
            ids: BTreeMap::new(),
            inherited: BTreeMap::new(),
            unserved_since: BTreeMap::new(),
            gates: Vec::new(),
            dead: Dead::default(),
            ledger: Ledger::default(),
            counts: Counts::default(),
            workers_seen: 0,
            tasks_seen: 0,
            pieces: VecDeque::new(),
            undecided: Vec::new(),
            expected: Vec::new(),
            answers: Vec::new(),
            unexplained: Vec::new(),
            ended_by_time: BTreeMap::new(),
            hosts_lost: Vec::new(),
            ambiguous: 0,
            ambiguous_back: 0,
            failure: None,
        }
    }

    /// Follows one event that the real broker has handled with these effects.
    ///
    /// # Errors
    /// The first difference: the event, what the broker did, and what is allowed.
    pub fn follow(
        &mut self,
        now: Time,
        event: &Event<'_, Body>,
        effects: &[Effect],
        core: &Broker<Body>,
    ) -> Result<(), String> {
        self.begin(now, matches!(event, Event::Tick));
        self.take(event, effects);
        self.learn(core);
        self.decide(core);
        let acknowledged = match event {
            Event::BatchEnd(conn) => Some(*conn),
            _ => None,
        };
        self.conclude(acknowledged, effects, core);
        self.verdict(|| format!("{event:?}"), effects)
    }

    /// Follows a command of an operator that the real broker has obeyed with these effects.
    ///
    /// # Errors
    /// As [`Self::follow`].
    pub fn follow_operator(
        &mut self,
        now: Time,
        command: &AdminCommand<'_>,
        reply: &Result<AdminReply, AdminObjection>,
        effects: &[Effect],
        core: &Broker<Body>,
    ) -> Result<(), String> {
        self.begin(now, false);
        let right = self.administer(command, core);
        self.check_reply(command, &right, reply, effects);
        self.conclude(None, effects, core);
        self.verdict(|| format!("{command:?}"), effects)
    }

    fn begin(&mut self, now: Time, is_tick: bool) {
        self.now = self.now.max(now.0);
        self.event += 1;
        self.is_tick = is_tick;
        if self.is_tick {
            self.ticked_at = self.now;
        }
        self.ended_by_time.clear();
        self.hosts_lost.clear();
        self.ambiguous = 0;
        self.ambiguous_back = 0;
    }

    fn conclude(&mut self, batch_end: Option<Conn>, effects: &[Effect], core: &Broker<Body>) {
        if self.is_tick {
            self.note_ended_by_time(core, effects);
        }
        for effect in effects {
            self.explain(effect);
        }
        self.settle(core);
        self.file_letters(core);
        self.compare(batch_end, core);
        self.counts = core.counts();
    }

    fn verdict(
        &mut self,
        event: impl FnOnce() -> String,
        effects: &[Effect],
    ) -> Result<(), String> {
        match self.failure.take() {
            None => Ok(()),
            Some(failure) => {
                let event: String = event().chars().take(EVENT_CHARS).collect();
                Err(format!(
                    "oracle: {failure}\n  event {} at {}: {event}\n  the broker: {effects:?}",
                    self.event, self.now
                ))
            }
        }
    }

    /// Notes a difference; the first one counts.
    fn fail(&mut self, text: impl Into<String>) {
        if self.failure.is_none() {
            self.failure = Some(text.into());
        }
    }

    /// What the event does whatever the broker chooses.
    fn take(&mut self, event: &Event<'_, Body>, effects: &[Effect]) {
        match event {
            Event::Tick => return,
            Event::Drain => {
                self.is_draining = true;
                return;
            }
            Event::Hello(conn, side, hello, user) => {
                return self.on_hello(*conn, *side, hello, *user);
            }
            Event::Gone(conn) => {
                self.end_session(*conn);
                return self.expect(Expected::Close(*conn));
            }
            Event::Malformed(conn, code, _) => return self.refuse_session(*conn, *code),
            _ => {}
        }
        let Some(conn) = event.conn() else { return };
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&conn) else {
            return self.on_stranger(conn, event);
        };
        if !matches!(event, Event::Full(_) | Event::Sendable(_)) {
            session.heard_at = session.heard_at.max(now);
        }
        match event {
            Event::Goodbye(_) => self.on_goodbye(conn),
            Event::Heartbeat(_, heartbeat) => self.on_heartbeat(conn, *heartbeat),
            Event::Ack(_, count) => self.on_ack(conn, *count),
            Event::Service(_, alias) => self.on_service(conn, alias),
            Event::Window(_, window) => self.on_window(conn, *window),
            Event::Submit(_, submit) => self.on_submit(conn, submit, effects),
            Event::Cancel(_, cancel) => self.on_cancel(conn, *cancel),
            Event::Fetch(_, fetch) => self.on_fetch(conn, fetch, effects),
            Event::Ready(_, ready) => self.on_ready(conn, ready),
            Event::Done(_, done) => self.on_done(conn, done),
            Event::Return(_, attempt) => self.on_return(conn, *attempt),
            Event::Host(_, host) => self.on_host(conn, host),
            Event::Lost(_, lost) => self.on_lost(conn, lost),
            Event::Recalled(_, recalled) => self.on_recalled(conn, recalled),
            Event::Full(_) => self.on_full(conn, true),
            Event::Sendable(_) => self.on_full(conn, false),
            Event::Progress(_, progress) => self.on_progress(conn, progress),
            Event::BatchEnd(_)
            | Event::Hello(..)
            | Event::Tick
            | Event::Drain
            | Event::Gone(_)
            | Event::Malformed(..) => {}
        }
    }

    fn expect(&mut self, expected: Expected) {
        self.expected.push(expected);
    }
}
