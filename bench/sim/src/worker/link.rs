//! A worker's side of one broker: socket, batch, and the inputs of the tasks from it.

use std::collections::VecDeque;

use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::codec::write_to_broker;
use pinmesh_protocol::command::{FromBroker, Payload, Task, ToBroker};
use pinmesh_session::Time;
use pinmesh_session::slots::SlotState;
use pinmesh_session::worker::{Event, WorkerOutbox};

use super::Worker;
use crate::checker::Checker;
use crate::counters::Count;
use crate::net::{Machine, Owner, SocketId};
use crate::page::Page;
use crate::story;
use crate::world::World;

#[derive(Debug, Default)]
struct Input {
    /// Tells the tasks that used this place apart; 0 while nothing is here.
    serial: u64,
    payload: Box<[u8]>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct LinkState {
    broker: usize,
    pub(super) socket: Option<SocketId>,
    /// It held nothing when it opened the socket, so that the broker counts all that it holds.
    pub(super) was_clean: bool,
    batch: Vec<u8>,
    batch_since: u64,
    inputs: Vec<Input>,
    serial: u64,
    queue: VecDeque<(u32, u64)>,
}

impl LinkState {
    pub(super) fn new(broker: usize) -> Self {
        Self {
            broker,
            socket: None,
            was_clean: true,
            batch: Vec::new(),
            batch_since: 0,
            inputs: Vec::new(),
            serial: 0,
            queue: VecDeque::new(),
        }
    }

    pub(super) fn flush(&mut self, world: &mut World) {
        let batch = std::mem::take(&mut self.batch);
        if let Some(socket) = self.socket {
            let World { now, agenda, net, .. } = world;
            net.send_up(*now, agenda, socket, batch);
        }
    }

    /// What was written goes out before the process ends: a socket lingers.
    pub(super) fn leave(&mut self, world: &mut World) {
        self.flush(world);
        if let Some(socket) = self.socket.take() {
            world.net.close(socket);
        }
    }

    pub(super) fn has_waited(&self, now: u64, ns: u64) -> bool {
        !self.batch.is_empty() && now - self.batch_since >= ns
    }

    fn store(&mut self, index: u32, payload: &[u8]) {
        if self.inputs.len() <= index as usize {
            self.inputs.resize_with(index as usize + 1, Input::default);
        }
        self.serial += 1;
        self.inputs[index as usize] = Input { serial: self.serial, payload: payload.into() };
        self.queue.push_back((index, self.serial));
    }

    /// The next task that still waits.
    pub(super) fn next_ticket(&mut self) -> Option<u32> {
        while let Some(&(index, serial)) = self.queue.front() {
            if self.inputs[index as usize].serial == serial {
                return Some(index);
            }
            self.queue.pop_front();
        }
        None
    }

    pub(super) fn pop_ticket(&mut self) {
        self.queue.pop_front();
    }

    pub(super) fn input(&self, index: u32) -> Option<&[u8]> {
        let input = self.inputs.get(index as usize)?;
        (input.serial > 0).then_some(&input.payload)
    }

    pub(super) fn drop_input(&mut self, index: u32) {
        if let Some(input) = self.inputs.get_mut(index as usize) {
            *input = Input::default();
        }
    }
}

/// What a session may do.
pub(super) struct Io<'a> {
    pub(super) world: &'a mut World,
    pub(super) state: &'a mut LinkState,
    pub(super) page: Option<&'a mut Page>,
    pub(super) owner: Owner,
    pub(super) machine: Machine,
}

impl Io<'_> {
    fn wrote(&mut self, before: usize) {
        if before == 0 {
            self.state.batch_since = self.world.now;
        }
    }
}

impl WorkerOutbox<Vec<u8>> for Io<'_> {
    fn open(&mut self) {
        self.state.batch.clear();
        let World { now, agenda, random, net, .. } = &mut *self.world;
        if let Some(socket) = self.state.socket.take() {
            net.close(socket);
        }
        let context = (*now, agenda, random);
        self.state.socket = Some(net.open(context, self.owner, self.machine, self.state.broker));
    }

    fn close(&mut self) {
        self.state.flush(self.world);
        if let Some(socket) = self.state.socket.take() {
            self.world.net.close(socket);
        }
    }

    fn send(&mut self, command: &ToBroker<'_>) {
        let before = self.state.batch.len();
        write_to_broker(&mut self.state.batch, command);
        self.wrote(before);
    }

    fn send_end(&mut self, end: &mut Vec<u8>) {
        let before = self.state.batch.len();
        self.state.batch.extend_from_slice(end);
        self.wrote(before);
    }

    fn forget(&mut self, index: u32, _: Option<Vec<u8>>) {
        self.state.drop_input(index);
        if let Some(page) = &mut self.page {
            page.free(Page::slot(self.state.broker, index));
        }
    }
}

impl Worker {
    /// One message of a broker.
    pub(super) fn read(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        at: usize,
        (socket, bytes): (SocketId, &[u8]),
        ahead: u64,
    ) {
        world.digest_bytes(bytes);
        let now = Time(world.now + ahead);
        let mut fresh = Vec::new();
        let mut reader = BatchReader::new(bytes, &[]);
        // A session that ends inside a message has no ear for the rest of it.
        while self.links[at].1.socket == Some(socket)
            && let Some(command) = reader.next_from_broker()
        {
            let Ok(command) = command else {
                checker.fail(format!("w{} cannot read a broker's message", self.id.0));
                return;
            };
            if let Some(text) = story::from_broker(&command, Owner::Worker(self.id), checker) {
                let name = checker.worker_name(self.id);
                world.tell(|| format!("{name} hears {text} from {}", crate::broker::name(at)));
            }
            match command {
                FromBroker::Task(task) => {
                    fresh.extend(self.take(world, checker, at, &task, now));
                }
                command => {
                    let unasked = matches!(command, FromBroker::Refused(_));
                    if unasked && !checker.may_be_refused() {
                        checker.fail(format!("w{} is refused: {command:?}", self.id.0));
                    }
                    self.session(world, at, |session, io| {
                        session.handle(now, Event::Received(command), io);
                    });
                }
            }
        }
        if self.host.is_some() {
            for index in fresh {
                if let Some(task) = self.links[at].0.task(index) {
                    self.page.is_refused(Page::slot(at, index), at, task.attempt);
                }
            }
        }
    }

    fn take(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        at: usize,
        task: &Task<'_>,
        now: Time,
    ) -> Option<u32> {
        if self.host.is_some() && !self.links[at].0.admits(task.payload.len()) {
            self.sweep(world, at);
        }
        if !self.links[at].0.admits(task.payload.len()) {
            world.counters.add(Count::Overflow);
            if self.links[at].1.was_clean && !self.is_asked_to_leave {
                checker.fail(format!("w{} is sent more than its window", self.id.0));
            }
        }
        let index = self.session(world, at, |session, io| session.take(now, task, io))?;
        if let Payload::Inline(payload) = task.payload {
            self.links[at].1.store(index, payload);
        }
        if self.host.is_some()
            && let Some(held) = self.links[at].0.task(index)
            && !self.page.publish(Page::slot(at, index), at, held.attempt)
        {
            checker.fail(format!("w{}: the slot of {} is in use", self.id.0, held.attempt));
        }
        Some(index)
    }

    /// Frees what was recalled behind a long task: the broker counts it as gone already.
    fn sweep(&mut self, world: &mut World, at: usize) {
        let waiting: Vec<u32> = self.links[at].1.queue.iter().map(|ticket| ticket.0).collect();
        for index in waiting {
            if self.page.word(Page::slot(at, index)).state() == SlotState::Recalled {
                self.session(world, at, |session, io| session.recalled(index, io));
            }
        }
    }

    /// Whether a message waits to be read.
    pub fn has_mail(&self, world: &World) -> bool {
        self.links
            .iter()
            .any(|(_, state)| state.socket.is_some_and(|socket| world.net.has_mail(socket)))
    }
}
