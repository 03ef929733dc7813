//! A broker's process: the real machine inside a shell on virtual links, and its lives.

use std::collections::VecDeque;

use pinmesh_core::{
    AdminCommand, AdminObjection, AdminReply, Broker, CoreConfig, DoneEvent, Event, ProgressEvent,
    SubmitEvent, Time,
};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::command::{Payload, ToBroker};
use pinmesh_protocol::id::{ContentType, Epoch};

use crate::checker::Checker;
use crate::clock::{US, Wake};
use crate::counters::Count;
use crate::net::Arrival;
use crate::oracle::Oracle;
use crate::random::mix;
use crate::record::{Body, Effect, Recorder, Sent};
use crate::shell::{Notice, Shell};
use crate::story;
use crate::world::{Alarm, World};

/// What a task with options that cannot be read is told.
const BAD_OPTIONS: &str = "options: not a map of the options that this broker knows";

/// One life of a broker.
pub struct Life {
    /// The machine.
    pub core: Broker<Body>,
    /// What it must do.
    oracle: Oracle,
    shell: Shell,
    /// Compared for equality only.
    pub epoch: Epoch,
    effects: Vec<Effect>,
    is_flush_due: bool,
}

impl Life {
    pub(crate) const fn core_and_shell(&mut self) -> (&mut Broker<Body>, &mut Shell) {
        (&mut self.core, &mut self.shell)
    }

    pub(crate) const fn shell(&self) -> &Shell {
        &self.shell
    }

    /// The reference broker follows an operator's command.
    pub(crate) fn follow_operator(
        &mut self,
        now: Time,
        command: &AdminCommand<'_>,
        reply: &Result<AdminReply, AdminObjection>,
        effects: &[Effect],
    ) -> Result<(), String> {
        self.oracle.follow_operator(now, command, reply, effects, &self.core)
    }
}

/// See the module.
pub struct BrokerSim {
    /// Its place among the brokers.
    pub index: usize,
    /// `None`: its process is down.
    pub life: Option<Life>,
    /// Its process is stopped.
    pub is_stopped: bool,
    /// Arrived while it was.
    inbox: VecDeque<Arrival>,
    /// How far its clock is ahead of true time, nanoseconds.
    pub clock_ahead: u64,
    /// It drains, and leaves at the latest then, true time.
    pub leave_at: Option<u64>,
    /// Counts its lives, and what was planned for each.
    pub lives: u32,
    alarm: Alarm,
    /// What each life is made with, but for its epoch.
    pub config: CoreConfig,
}

impl BrokerSim {
    /// A broker that is down.
    pub fn new(index: usize, config: CoreConfig) -> Self {
        Self {
            index,
            life: None,
            is_stopped: false,
            inbox: VecDeque::new(),
            clock_ahead: 0,
            leave_at: None,
            lives: 0,
            alarm: Alarm::default(),
            config,
        }
    }

    /// Its name in the story.
    pub fn name(&self) -> char {
        name(self.index)
    }

    /// A new process.
    pub fn start(&mut self, world: &mut World, checker: &mut Checker) {
        self.lives += 1;
        self.alarm.silence();
        self.is_stopped = false;
        let epoch = Epoch(self.lives * 16 + self.index as u32);
        let config = CoreConfig { epoch, ..self.config.clone() };
        checker.on_broker_start(self.index, epoch, &config);
        self.life = Some(Life {
            oracle: Oracle::new(&config),
            core: Broker::new(config),
            shell: Shell::default(),
            epoch,
            effects: Vec::new(),
            is_flush_due: false,
        });
        world.net.broker_up(self.index);
        world.tell(|| format!("{} starts", name(self.index)));
    }

    /// The process dies.
    pub fn kill(&mut self, world: &mut World, checker: &mut Checker) {
        let Some(life) = self.life.take() else { return };
        checker.on_broker_end(&life.core, life.epoch, &mut world.counters);
        self.inbox.clear();
        self.is_stopped = false;
        self.leave_at = None;
        let World { now, agenda, random, net, .. } = world;
        net.broker_down((*now, agenda, random), self.index);
        world.tell(|| format!("{} is killed", name(self.index)));
    }

    /// The process is stopped, or goes on.
    pub fn stop(&mut self, world: &mut World, is_stopped: bool) {
        self.is_stopped = is_stopped;
        if !is_stopped {
            self.ring(world, world.now);
        }
    }

    fn ring(&mut self, world: &mut World, at: u64) {
        if let Some(number) = self.alarm.bring_forward(at) {
            world.agenda.add(at, Wake::Broker(self.index, number));
        }
    }

    pub(crate) fn local(&self, world: &World) -> Time {
        Time(world.now + self.clock_ahead)
    }

    /// One event of the machine, with everything that is checked about it.
    pub fn event(&mut self, world: &mut World, checker: &mut Checker, event: Event<'_, Body>) {
        let now = self.local(world);
        let Some(life) = &mut self.life else { return };
        life.effects.clear();
        let before = checker.before_core(&life.core, &event);
        let mut recorder = Recorder { effects: &mut life.effects, next: &mut life.shell };
        life.core.handle(now, event.clone(), &mut recorder);
        if let Err(text) = life.oracle.follow(now, &event, &life.effects, &life.core) {
            checker.fail(format!("epoch {}: {text}", life.epoch));
        }
        let is_recall =
            |effect: &&Effect| matches!(effect, Effect::Send { command: Sent::Recall(_), .. });
        let recalls = life.effects.iter().filter(is_recall).count();
        world.counters.add_many(Count::RecallSent, recalls as u64);
        let machine = (&life.core, &life.shell);
        checker.after_core(world, (life.epoch, now.0), &before, machine, &life.effects);
        if world.is_told() {
            for effect in &life.effects {
                let owner = |conn| life.shell.owner(conn);
                if let Some(text) = story::effect(effect, checker, life.epoch, owner) {
                    world.tell(|| format!("{} {text}", name(self.index)));
                }
            }
        }
        life.effects.clear();
    }

    /// A message arrives.
    pub fn arrive(&mut self, world: &mut World, checker: &mut Checker, arrival: Arrival) {
        // What came while it was stopped is read first, in the next turn.
        if self.is_stopped || !self.inbox.is_empty() {
            self.inbox.push_back(arrival);
        } else {
            self.receive(world, checker, &arrival);
            self.settle(world, checker);
        }
    }

    fn receive(&mut self, world: &mut World, checker: &mut Checker, arrival: &Arrival) {
        let local = self.local(world).0;
        let Some(life) = &mut self.life else { return };
        let epoch = life.epoch;
        let conn = life.shell.conn_of(arrival);
        let side = life.shell.side(conn);
        world.counters.add(Count::Messages);
        world.digest_bytes(&arrival.bytes);
        let mut reader = BatchReader::new(&arrival.bytes, &[]);
        let error = loop {
            match reader.next_to_broker() {
                Some(Ok(command)) => {
                    world.counters.add(Count::Commands);
                    if world.is_told()
                        && let Some(text) = story::to_broker(&command, arrival.owner, checker)
                    {
                        let from = checker.owner_name(arrival.owner);
                        world.tell(|| format!("{} hears {text} from {from}", name(self.index)));
                    }
                    let is_heard = self.has_session(conn) || matches!(command, ToBroker::Hello(_));
                    checker.on_command(world, (epoch, local), (arrival.owner, is_heard), &command);
                    self.event(world, checker, event(conn, side, command));
                    if !self.has_session(conn) {
                        break None;
                    }
                }
                Some(Err(error)) => break Some(error),
                None => break reader.finish().err(),
            }
        };
        if let Some(error) = error {
            if arrival.owner != crate::net::Owner::Rogue {
                checker.fail(format!("{:?} wrote what cannot be read: {error}", arrival.owner));
            }
            let text = error.to_string();
            self.event(world, checker, Event::Malformed(conn, error.code(), &text));
        }
        if self.has_session(conn) {
            self.event(world, checker, Event::BatchEnd(conn));
        } else if let Some(life) = &mut self.life {
            life.shell.forget_when_flushed(conn);
        }
    }

    fn has_session(&self, conn: pinmesh_core::Conn) -> bool {
        self.life.as_ref().is_some_and(|life| life.shell.has_session(conn))
    }

    fn notices(&mut self, world: &mut World, checker: &mut Checker) -> bool {
        let mut is_any = false;
        while let Some(notice) = self.life.as_mut().and_then(|life| life.shell.take_notice()) {
            is_any = true;
            let event = match notice {
                Notice::Full(conn) => Event::Full(conn),
                Notice::Sendable(conn) => Event::Sendable(conn),
                Notice::Gone(conn) => Event::Gone(conn),
            };
            self.event(world, checker, event);
            if let (Notice::Gone(conn), Some(life)) = (notice, &mut self.life) {
                life.shell.forget(conn);
            }
        }
        is_any
    }

    /// After every turn: notices, and when to turn and flush next.
    pub(crate) fn settle(&mut self, world: &mut World, checker: &mut Checker) {
        self.notices(world, checker);
        let ahead = self.clock_ahead;
        let Some(life) = &mut self.life else { return };
        if life.shell.is_dirty() && !life.is_flush_due {
            life.is_flush_due = true;
            let wait = world.random.below(4 * world.wake_max + 1);
            world.after(wait, Wake::Flush(self.index));
        }
        if let Some(at) = life.core.next_wakeup() {
            // Late by as much as a loop takes to wake up, the same for the same moment.
            let late = mix(at.0) % (world.wake_max + 1);
            let at = at.0.saturating_sub(ahead).max(world.now);
            self.ring(world, at + late);
        }
    }

    /// The loop turns: time, and what had to wait.
    pub fn turn(&mut self, world: &mut World, checker: &mut Checker, number: u32) -> bool {
        if !self.alarm.rings(number) || self.is_stopped || self.life.is_none() {
            return false;
        }
        while let Some(arrival) = self.inbox.pop_front() {
            self.receive(world, checker, &arrival);
            self.notices(world, checker);
        }
        let now = self.local(world);
        if let Some(life) = &self.life
            && life.core.next_wakeup().is_some_and(|at| at <= now)
        {
            self.event(world, checker, Event::Tick);
        }
        self.settle(world, checker);
        self.flush(world, checker);
        true
    }

    /// It drains: looks again soon whether it may leave.
    pub fn look_at_leaving(&mut self, world: &mut World) {
        let at = world.now + 10_000 * US;
        self.ring(world, at);
    }

    /// Says GOODBYE to everybody, before it leaves.
    pub fn say_goodbye(&mut self, world: &mut World, checker: &mut Checker) {
        if let Some(life) = &mut self.life {
            life.shell.say_goodbye();
        }
        self.flush(world, checker);
    }

    /// The clock jumps: what is due now is due earlier.
    pub fn jump(&mut self, world: &mut World, ns: u64) {
        self.clock_ahead += ns;
        self.ring(world, world.now);
    }

    /// Sends what was written.
    pub fn flush(&mut self, world: &mut World, checker: &mut Checker) {
        if self.is_stopped {
            // The next turn sends it.
            if let Some(life) = &mut self.life {
                life.is_flush_due = false;
            }
            return;
        }
        loop {
            let Some(life) = &mut self.life else { return };
            life.is_flush_due = false;
            life.shell.flush(world, self.index);
            if !self.notices(world, checker) {
                return self.settle(world, checker);
            }
        }
    }

    /// Tries again to send to full peers.
    pub fn retry(&mut self, world: &mut World, checker: &mut Checker) {
        if self.is_stopped {
            world.after(10_000 * US, Wake::Retry(self.index));
            return;
        }
        if let Some(life) = &mut self.life {
            life.shell.retry(world, self.index);
        }
        self.settle(world, checker);
    }
}

/// The name of a broker in the story.
pub const fn name(index: usize) -> char {
    (b'a' + index as u8) as char
}

/// The event that a command is.
fn event(
    conn: pinmesh_core::Conn,
    side: pinmesh_core::Side,
    command: ToBroker<'_>,
) -> Event<'_, Body> {
    match command {
        ToBroker::Done(done) => Event::Done(
            conn,
            DoneEvent {
                attempt: done.attempt,
                status: done.status,
                residence_ns: done.residence_ns,
                service_ns: done.service_ns,
                body: body(done.content_type, None, done.payload),
            },
        ),
        ToBroker::Submit(submit) => Event::Submit(
            conn,
            SubmitEvent {
                request_id: submit.request_id,
                submission: submit.submission,
                service: submit.service,
                priority: submit.priority,
                deadline_ns: submit.deadline_ns,
                options: match submit.options {
                    None => Ok(TaskOptions::default()),
                    Some(options) => TaskOptions::decode(options).map_err(|_| BAD_OPTIONS),
                },
                body: body(submit.content_type, submit.options, submit.payload),
            },
        ),
        ToBroker::Ack(taken) => Event::Ack(conn, taken),
        ToBroker::Heartbeat(heartbeat) => Event::Heartbeat(conn, heartbeat),
        ToBroker::Hello(hello) => Event::Hello(conn, side, hello, None),
        ToBroker::Goodbye | ToBroker::Refused(_) => Event::Goodbye(conn),
        ToBroker::Window(window) => Event::Window(conn, window),
        ToBroker::Service(alias) => Event::Service(conn, alias),
        ToBroker::Cancel(request) => Event::Cancel(conn, request),
        ToBroker::Fetch(fetch) => Event::Fetch(conn, fetch),
        ToBroker::Ready(ready) => Event::Ready(conn, ready),
        ToBroker::Return(attempt) => Event::Return(conn, attempt),
        ToBroker::Progress(progress) => Event::Progress(
            conn,
            ProgressEvent {
                attempt: progress.attempt,
                sequence: progress.sequence,
                kind: progress.kind,
                body: body(progress.content_type, None, progress.payload),
            },
        ),
        ToBroker::Host(host) => Event::Host(conn, host),
        ToBroker::Lost(lost) => Event::Lost(conn, lost),
        ToBroker::Recalled(attempts) => Event::Recalled(conn, attempts),
    }
}

fn body(content_type: ContentType, options: Option<&[u8]>, payload: Payload<'_>) -> Body {
    // No payload of the simulation is long enough for frames of its own.
    let payload = match payload {
        Payload::Inline(bytes) => bytes.into(),
        Payload::Frames(_) => Box::default(),
    };
    Body { content_type, options: options.map(Into::into), payload }
}
