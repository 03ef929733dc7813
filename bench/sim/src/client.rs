//! A client's process: the real machine inside a loop on virtual links, and what its caller asks.

use std::sync::Arc;

use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::codec::{write_submit, write_to_broker};
use pinmesh_protocol::command::{Accepted, ClientProgress, Payload, Submit, ToBroker};
use pinmesh_protocol::id::{ContentType, Priority, RequestId};
use pinmesh_protocol::rendezvous;
use pinmesh_session::Time;
use pinmesh_session::client::{
    Cancel, Client, ClientConfig, ClientEvent, ClientOutbox, FetchOf, LinkId, LinkNews, NewRequest,
    Outcome, Pong, ServiceId, SubmitHeader,
};

use crate::checker::{Asked, Checker};
use crate::clock::Wake;
use crate::counters::Count;
use crate::net::{Machine, Owner, SocketId};
use crate::story;
use crate::task::{IdempotencyKey, Key, Plan, peer_id};
use crate::world::{Alarm, World};

/// What a caller wants done.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What its handler does; the key is filled in.
    pub plan: Plan,
    /// Bytes of its payload.
    pub len: usize,
    /// Which service.
    pub service: u32,
    /// Urgency.
    pub priority: Priority,
    /// Time until nobody wants the result, nanoseconds.
    pub deadline_ns: Option<u64>,
    /// Time until it may start.
    pub start_after_ns: Option<u64>,
    /// Encoded options.
    pub options: Option<Arc<[u8]>>,
    /// What they say.
    pub is_at_most_once: bool,
    /// The same: its task goes on without its client.
    pub runs_on: bool,
    /// Its idempotency key.
    pub key: Option<IdempotencyKey>,
    /// They cannot be read.
    pub has_bad_options: bool,
    /// BUSY is an end.
    pub shows_busy: bool,
    /// What the story calls it.
    pub name: Option<String>,
}

#[derive(Debug, Default)]
struct Link {
    socket: Option<SocketId>,
    batch: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct ClientSim {
    /// Its number.
    pub number: u32,
    machine: Client<Box<[u8]>>,
    links: Vec<Link>,
    alarm: Alarm,
    /// Its process is stopped.
    pub is_stopped: bool,
    /// Its process is gone.
    pub is_dead: bool,
    /// How far its clock is ahead of true time, nanoseconds.
    pub clock_ahead: u64,
    /// Requests that are not resolved.
    pub open: Vec<RequestId>,
    /// Counts what its caller planned.
    pub plans: u32,
}

struct Io<'a> {
    world: &'a mut World,
    checker: &'a mut Checker,
    links: &'a mut Vec<Link>,
    open: &'a mut Vec<RequestId>,
    number: u32,
}

impl Io<'_> {
    fn key(&self, request: RequestId) -> Key {
        Key { client: self.number, request }
    }

    fn flush(&mut self, link: usize) {
        let Link { socket, batch } = &mut self.links[link];
        let batch = std::mem::take(batch);
        if let Some(socket) = *socket {
            let World { now, agenda, net, .. } = &mut *self.world;
            net.send_up(*now, agenda, socket, batch);
        }
    }
}

impl ClientOutbox<Box<[u8]>> for Io<'_> {
    fn connect(&mut self, link: LinkId) {
        let at = usize::from(link.0);
        self.links[at].batch.clear();
        let owner = Owner::Client(self.number as usize);
        let machine = Machine::Client(self.number as usize);
        let World { now, agenda, random, net, .. } = &mut *self.world;
        if let Some(socket) = self.links[at].socket.take() {
            net.close(socket);
        }
        self.links[at].socket = Some(net.open((*now, agenda, random), owner, machine, at));
    }

    fn disconnect(&mut self, link: LinkId) {
        let at = usize::from(link.0);
        self.flush(at);
        if let Some(socket) = self.links[at].socket.take() {
            self.world.net.close(socket);
        }
    }

    fn send(&mut self, link: LinkId, command: &ToBroker<'_>) {
        if let ToBroker::Fetch(fetch) = command {
            let key = self.key(fetch.request_id);
            self.checker.on_submit(self.world, key, usize::from(link.0), fetch.submission);
        }
        write_to_broker(&mut self.links[usize::from(link.0)].batch, command);
    }

    fn submit(&mut self, link: LinkId, header: &SubmitHeader<'_>, body: &mut Box<[u8]>) {
        let delayed = header.start_after_ns.map(|ns| TaskOptions::delayed(header.options, ns));
        let submit = Submit {
            request_id: header.request_id,
            submission: header.submission,
            service: header.service,
            priority: header.priority,
            deadline_ns: header.deadline_ns,
            content_type: header.content_type,
            options: delayed.as_deref().or(header.options),
            payload: Payload::Inline(body),
        };
        if header.start_after_ns.is_some() {
            self.world.counters.add(Count::PutOff);
        }
        let key = self.key(header.request_id);
        self.checker.on_submit(self.world, key, usize::from(link.0), header.submission);
        write_submit(&mut self.links[usize::from(link.0)].batch, &submit);
    }

    fn resolve(&mut self, request_id: RequestId, _: Box<[u8]>, outcome: Outcome<'_>) {
        self.open.retain(|open| *open != request_id);
        let key = self.key(request_id);
        let name = self.checker.key_name(key);
        self.world.tell(|| format!("{name} ends {}", story::outcome(&outcome)));
        self.checker.on_resolved(self.world, key, &outcome);
    }

    fn pong(&mut self, _: Pong) {}

    fn link_news(&mut self, link: LinkId, news: LinkNews<'_>) {
        let number = self.number;
        let broker = crate::broker::name(link.0.into());
        self.world.tell(|| format!("c{number} notes {news:?} of {broker}"));
    }

    fn accepted(&mut self, _: Accepted, _: &Box<[u8]>) {}

    fn progress(&mut self, progress: ClientProgress<'_>, _: &Box<[u8]>) {
        let key = self.key(progress.request_id);
        self.checker.on_heard(self.world, key, &progress);
    }
}

impl ClientSim {
    /// A new client, which starts at once.
    pub fn new(world: &mut World, number: u32, brokers: usize, services: &[&str]) -> Self {
        let config = ClientConfig {
            peer_id: peer_id(1, number),
            // Two of them share one name, and so their turns.
            name: format!("c{}", number / 2).into(),
            seed: world.random.next(),
            brokers: (0..brokers as u64).collect(),
            unresolved_max: 1000,
        };
        let mut client = Self {
            number,
            machine: Client::new(config),
            links: (0..brokers).map(|_| Link::default()).collect(),
            alarm: Alarm::default(),
            is_stopped: false,
            is_dead: false,
            clock_ahead: 0,
            open: Vec::new(),
            plans: 0,
        };
        for service in services {
            // Told before the start: nothing is sent for it.
            let mut checker = Checker::default();
            client.handle(world, &mut checker, ClientEvent::Service(service));
        }
        client.poke(world, 0);
        client
    }

    /// Whether it has nothing to wait for.
    pub fn is_idle(&self) -> bool {
        self.is_dead || self.machine.unresolved() == 0
    }

    fn local(&self, world: &World) -> Time {
        Time(world.now + self.clock_ahead)
    }

    fn handle(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        event: ClientEvent<'_, Box<[u8]>>,
    ) {
        let now = self.local(world);
        let (links, open) = (&mut self.links, &mut self.open);
        let mut io = Io { world, checker, links, open, number: self.number };
        self.machine.handle(now, event, &mut io);
    }

    /// Makes the loop turn after so long, unless it does earlier.
    pub fn poke(&mut self, world: &mut World, ns: u64) {
        let at = world.now + ns;
        if let Some(number) = self.alarm.bring_forward(at) {
            world.agenda.add(at, Wake::Client(self.number as usize, number));
        }
    }

    /// The process is stopped, or goes on.
    pub fn stop(&mut self, world: &mut World, is_stopped: bool) {
        self.is_stopped = is_stopped;
        if !is_stopped {
            self.poke(world, 0);
        }
    }

    /// The process dies: nobody waits for its requests any more.
    pub fn kill(&mut self, world: &mut World, checker: &mut Checker) {
        self.is_dead = true;
        self.open.clear();
        checker.on_client_end(self.number);
        for link in &mut self.links {
            if let Some(socket) = link.socket.take() {
                world.net.kill(socket, &mut world.random);
            }
        }
    }

    /// The caller is done: sessions end.
    pub fn close(&mut self, world: &mut World, checker: &mut Checker) {
        self.handle(world, checker, ClientEvent::Close);
        self.is_dead = true;
        checker.on_client_end(self.number);
    }

    /// The loop turns. `false`: it was not to.
    pub fn turn(&mut self, world: &mut World, checker: &mut Checker, number: u32) -> bool {
        if !self.alarm.rings(number) || self.is_stopped || self.is_dead {
            return false;
        }
        for at in 0..self.links.len() {
            while let Some(socket) = self.links[at].socket
                && let Some(bytes) = world.net.read(socket)
            {
                self.read(world, checker, at, socket, &bytes);
            }
        }
        let now = self.local(world);
        if self.machine.next_wakeup().is_some_and(|(due, _)| due <= now) {
            self.handle(world, checker, ClientEvent::Wakeup { is_emptied: true });
        }
        self.settle(world, checker);
        true
    }

    fn read(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        at: usize,
        socket: SocketId,
        bytes: &[u8],
    ) {
        world.digest_bytes(bytes);
        let link = LinkId(at as u16);
        let mut reader = BatchReader::new(bytes, &[]);
        while let Some(command) = reader.next_from_broker() {
            match command {
                Ok(command) => {
                    let (number, broker) = (self.number, crate::broker::name(at));
                    let owner = Owner::Client(number as usize);
                    if let Some(text) = story::from_broker(&command, owner, checker) {
                        world.tell(|| format!("c{number} hears {text} from {broker}"));
                    }
                    self.handle(world, checker, ClientEvent::Received(link, command));
                }
                Err(error) => checker.fail(format!("c{} cannot read: {error}", self.number)),
            }
            if self.links[at].socket != Some(socket) {
                return;
            }
        }
        self.handle(world, checker, ClientEvent::BatchEnd(link));
    }

    fn settle(&mut self, world: &mut World, checker: &mut Checker) {
        let (links, open, number) = (&mut self.links, &mut self.open, self.number);
        let mut io = Io { world, checker, links, open, number };
        (0..io.links.len()).for_each(|link| io.flush(link));
        if let Some((due, _)) = self.machine.next_wakeup() {
            let wait = due.since(self.local(world)) + world.wake_time();
            self.poke(world, wait);
        }
    }

    /// A request is handed in. Its id.
    pub fn ask(&mut self, world: &mut World, checker: &mut Checker, ask: &Ask) -> RequestId {
        let now = self.local(world);
        let request = self.machine.next_request_id();
        let key = Key { client: self.number, request };
        if let Some(name) = &ask.name {
            checker.name_request(key, name.clone());
        }
        let plan = Plan { key, ..ask.plan };
        checker.on_asked(
            world,
            key,
            Asked {
                act: ask.plan.act,
                is_at_most_once: ask.is_at_most_once,
                runs_on: ask.runs_on,
                key: ask.key,
                has_deadline: ask.deadline_ns.is_some(),
                has_bad_options: ask.has_bad_options,
                shows_busy: ask.shows_busy,
                ..Asked::default()
            },
        );
        self.open.push(request);
        let payload = plan.to_payload(ask.len);
        let new = NewRequest {
            bytes: payload.len() as u64,
            body: payload,
            service: ServiceId(ask.service),
            priority: ask.priority,
            deadline: ask.deadline_ns.map_or(Time::NEVER, |ns| now.after(ns)),
            start_at: ask.start_after_ns.map(|ns| now.after(ns)),
            content_type: ContentType::RAW,
            options: ask.options.clone(),
            is_at_most_once: ask.is_at_most_once,
            shows_busy: ask.shows_busy,
            key: ask.key.map(|key| rendezvous::hash(&key.to_bytes())),
            keeps_to_key: ask.key.is_some(),
            fetch: None,
        };
        self.handle(world, checker, ClientEvent::Submit(new));
        self.settle(world, checker);
        request
    }

    /// The outcome of a key is asked for.
    pub fn fetch(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        idempotency_key: IdempotencyKey,
        waits: bool,
    ) {
        let key = Key { client: self.number, request: self.machine.next_request_id() };
        let asked = Asked { is_fetch: true, key: Some(idempotency_key), ..Asked::default() };
        checker.on_asked(world, key, asked);
        self.open.push(key.request);
        let bytes = idempotency_key.to_bytes();
        let new = NewRequest {
            body: Box::default(),
            bytes: 0,
            service: ServiceId(0),
            priority: Priority::default(),
            deadline: Time::NEVER,
            start_at: None,
            content_type: ContentType::RAW,
            options: None,
            is_at_most_once: false,
            shows_busy: false,
            key: Some(rendezvous::hash(&bytes)),
            keeps_to_key: false,
            fetch: Some(FetchOf { key: bytes.into(), waits }),
        };
        self.handle(world, checker, ClientEvent::Submit(new));
        self.settle(world, checker);
    }

    /// A request is no longer wanted.
    pub fn cancel(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        request: RequestId,
        how: Cancel,
    ) {
        checker.on_cancelled(Key { client: self.number, request });
        self.handle(world, checker, ClientEvent::Cancel(request, how));
        self.settle(world, checker);
    }

    /// A socket fails under the loop's hands.
    pub fn lose_socket(&mut self, world: &mut World, checker: &mut Checker, at: usize) {
        self.handle(world, checker, ClientEvent::SocketLost(LinkId(at as u16)));
        self.settle(world, checker);
    }
}
