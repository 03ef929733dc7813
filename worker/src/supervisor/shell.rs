//! What the supervisor's machine acts through.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use pinmesh_protocol::codec::write_to_broker;
use pinmesh_protocol::command::ToBroker;
use pinmesh_protocol::id::{AttemptId, Epoch, Incarnation, Slot};
use pinmesh_protocol::limits::BATCH_BYTES;
use pinmesh_protocol::status::RefusedCode;
use pinmesh_session::Time;
use pinmesh_session::slots::{BrokerIndex, Flip, Glance, HeldSlot};
use pinmesh_session::supervision::{CloseReason, Death, Effects, Event, Note, Signal};
use pinmesh_transport::{
    Context, ContextOptions, Dealer, Endpoint, Message, Pollable, Poller, SendOutcome,
    SocketOptions,
};
use rustix::process::Signal as ProcessSignal;
use tracing::{error, info, warn};

use super::signals::Signals;
use super::{SupervisorConfig, SupervisorError, log};
use crate::clock::now;
use crate::page::StatusPage;
use crate::process::{Change, MemoryGroup, MemoryGroups, Process, Spawner};

/// Tokens of the poll: brokers first, then these, then the workers by slot.
const SIGNALS: Token = Token(1_000);
const KEEPER: Token = Token(1_001);
const WORKERS: usize = 2_000;
/// A keeper that died sooner than this is not started again, nanoseconds.
const KEEPER_LIFE_MIN_NS: u64 = 1_000_000_000;
/// The signal by which the kernel kills for want of memory.
const SIGKILL: i32 = ProcessSignal::KILL.as_raw();

/// The socket to one broker.
struct Link {
    endpoint: Endpoint,
    options: SocketOptions,
    dealer: Option<Dealer>,
    /// Commands for the next message.
    batch: Vec<u8>,
    /// Counts the sockets.
    session: u64,
    /// It has been said that the broker does not answer.
    is_missed: bool,
    /// There was a session.
    was_open: bool,
}

/// The worker in one slot, or what is left of it.
struct Child {
    /// Kept after the death: the machine reads what died with it.
    page: StatusPage,
    process: Option<Process>,
    /// Goes with the process.
    memory: Option<MemoryGroup>,
    incarnation: Incarnation,
}

/// See the module.
pub(super) struct Shell {
    spawner: Spawner,
    memory: Option<MemoryGroups>,
    keeper: Option<(Process, Time)>,
    context: Context,
    poller: Poller,
    signals: Signals,
    links: Vec<Link>,
    children: Vec<Option<Child>>,
    cpus: Vec<Option<u16>>,
    has_child_news: bool,
    has_left: bool,
    /// What an effect, which cannot fail, has run into.
    failure: Option<SupervisorError>,
}

impl Shell {
    pub(super) fn new(
        config: &SupervisorConfig,
        endpoints: Vec<(Endpoint, SocketOptions)>,
        spawner: Spawner,
        memory: Option<MemoryGroups>,
    ) -> Result<Self, SupervisorError> {
        let context = Context::new(&ContextOptions::default())?;
        let poller = Poller::new()?;
        let signals = Signals::catch(poller.registry(), SIGNALS).map_err(|source| {
            SupervisorError::System { what: "signals could not be caught", source }
        })?;
        // Proves that pages can be had before the first worker fails for want of one.
        StatusPage::create(endpoints.len()).map_err(SupervisorError::Page)?;
        let link = |(endpoint, options)| Link {
            endpoint,
            options,
            dealer: None,
            batch: Vec::new(),
            session: 0,
            is_missed: false,
            was_open: false,
        };
        let mut shell = Self {
            spawner,
            memory,
            keeper: None,
            context,
            poller,
            signals,
            links: endpoints.into_iter().map(link).collect(),
            children: config.cpus.iter().map(|_| None).collect(),
            cpus: config.cpus.clone(),
            has_child_news: false,
            has_left: false,
            failure: None,
        };
        let keeper = shell.spawner.spawn_keeper()?;
        shell.watch(&keeper, KEEPER)?;
        shell.keeper = Some((keeper, now()));
        Ok(shell)
    }

    pub(super) const fn has_left(&self) -> bool {
        self.has_left
    }

    pub(super) fn brokers(&self) -> usize {
        self.links.len()
    }

    /// Which socket of this broker's it is.
    pub(super) fn session(&self, index: usize) -> u64 {
        self.links[index].session
    }

    pub(super) fn has_renewal(&mut self) -> bool {
        self.signals.has_renewal()
    }

    pub(super) fn terminations(&mut self) -> usize {
        self.signals.terminations()
    }

    /// Receives one message of a broker; `false` if there is none.
    pub(super) fn receive(
        &mut self,
        index: usize,
        message: &mut Message,
    ) -> Result<bool, SupervisorError> {
        match &mut self.links[index].dealer {
            Some(dealer) => Ok(dealer.recv(message)?),
            None => Ok(false),
        }
    }

    /// Hands over what has become of the children since the last call.
    pub(super) fn report_children(&mut self, mut report: impl FnMut(&mut Self, Event<'_>)) {
        if !(std::mem::take(&mut self.has_child_news) | self.signals.has_child()) {
            return;
        }
        self.look_after_keeper();
        for index in 0..self.children.len() {
            // The slots are as many as the CPUs, which `SupervisorConfig::check` bounds.
            let slot = Slot(u16::try_from(index).unwrap_or(u16::MAX));
            while let Some(child) = &mut self.children[index]
                && let Some(change) = child.process.as_ref().and_then(Process::change)
            {
                let event = match change {
                    Change::Stopped => Event::Stopped(slot),
                    Change::Continued => Event::Continued(slot),
                    Change::Died(death) => {
                        let death = child.cause_of(death);
                        child.process = None;
                        self.spawner.sweep(slot, child.incarnation);
                        child.memory = None;
                        Event::Died { slot, death }
                    }
                };
                report(self, event);
            }
        }
    }

    fn look_after_keeper(&mut self) {
        let Some((keeper, since)) = &self.keeper else { return };
        let Some(Change::Died(death)) = keeper.change() else { return };
        let is_too_often = now().since(*since) < KEEPER_LIFE_MIN_NS;
        self.keeper = None;
        if is_too_often {
            warn!(
                ?death,
                "the keeper died at once: should this supervisor be killed, processes that \
                 handlers started may outlive it"
            );
            return;
        }
        match self.spawner.spawn_keeper() {
            Ok(keeper) => {
                warn!(?death, pid = keeper.pid(), "the keeper died and was started again");
                let _ = self.watch(&keeper, KEEPER);
                self.keeper = Some((keeper, now()));
            }
            Err(error) => warn!(%error, "the keeper died and cannot be started again"),
        }
    }

    /// Sends what has been written. `false`: a queue is full, and some of it waits.
    pub(super) fn flush(&mut self) -> Result<bool, SupervisorError> {
        let mut is_all_sent = true;
        for link in &mut self.links {
            is_all_sent &= link.flush()?;
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(is_all_sent),
        }
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<(), SupervisorError> {
        let mut sockets: Vec<&mut dyn Pollable> = Vec::with_capacity(self.links.len());
        for link in &mut self.links {
            if let Some(dealer) = &mut link.dealer {
                sockets.push(dealer);
            }
        }
        let wake = self.poller.wait(&mut sockets, timeout, Duration::ZERO)?;
        self.has_child_news |= wake.others;
        Ok(())
    }

    fn watch(&self, process: &Process, token: Token) -> Result<(), SupervisorError> {
        let pidfd = process.as_fd().as_raw_fd();
        let registry = self.poller.registry();
        registry.register(&mut SourceFd(&pidfd), token, Interest::READABLE).map_err(|source| {
            SupervisorError::System { what: "a process could not be watched", source }
        })
    }

    fn try_spawn(&mut self, slot: Slot, incarnation: Incarnation) -> Result<(), SupervisorError> {
        let index = usize::from(slot.0);
        let page = StatusPage::create(self.links.len()).map_err(SupervisorError::Page)?;
        let process = self.spawner.spawn(slot, incarnation, self.cpus[index], page.fd())?;
        let memory = self.memory_group(slot, incarnation, &process)?;
        if let Err(error) = self.watch(&process, Token(WORKERS + index)) {
            // It goes unwatched by pidfd; SIGCHLD tells of its death as well.
            warn!(%error, slot = slot.0, "watching a worker by SIGCHLD only");
        }
        let cpu = self.cpus[index];
        info!(slot = slot.0, incarnation = incarnation.0, pid = process.pid(), cpu, "started");
        self.children[index] = Some(Child { page, process: Some(process), memory, incarnation });
        Ok(())
    }

    /// The worker's own group, with the worker in it.
    fn memory_group(
        &self,
        slot: Slot,
        incarnation: Incarnation,
        process: &Process,
    ) -> Result<Option<MemoryGroup>, SupervisorError> {
        let Some(groups) = &self.memory else { return Ok(None) };
        let made = groups.make(slot, incarnation);
        match made.and_then(|group| group.add(process.pid()).map(|()| group)) {
            Ok(group) => Ok(Some(group)),
            Err(source) if groups.has_limit() => {
                process.kill();
                let what = "a worker's memory could not be bounded";
                Err(SupervisorError::System { what, source })
            }
            Err(error) => {
                warn!(%error, slot = slot.0, "no memory cgroup for this worker");
                Ok(None)
            }
        }
    }

    fn try_connect(&mut self, index: usize) -> Result<(), SupervisorError> {
        let link = &mut self.links[index];
        link.flush()?;
        link.batch.clear();
        link.session += 1;
        if let Some(mut dealer) = link.dealer.take() {
            self.poller.deregister(&mut dealer)?;
        }
        let mut dealer = Dealer::connect(&self.context, &link.endpoint, &link.options)?;
        self.poller.register(&mut dealer, Token(index))?;
        link.dealer = Some(dealer);
        Ok(())
    }

    fn page(&self, slot: Slot) -> Option<&StatusPage> {
        self.children.get(usize::from(slot.0))?.as_ref().map(|child| &child.page)
    }
}

impl Child {
    fn cause_of(&self, death: Death) -> Death {
        let has_run_out = || self.memory.as_ref().is_some_and(MemoryGroup::has_run_out);
        match death {
            Death::Signalled(signal) if signal == SIGKILL && has_run_out() => Death::OutOfMemory,
            Death::Signalled(_) | Death::Exited(_) | Death::OutOfMemory => death,
        }
    }
}

impl Link {
    fn flush(&mut self) -> Result<bool, SupervisorError> {
        let Some(dealer) = &mut self.dealer else { return Ok(true) };
        if self.batch.is_empty() {
            return Ok(true);
        }
        match dealer.send(&self.batch, &mut Vec::new())? {
            SendOutcome::Full => Ok(false),
            SendOutcome::Sent | SendOutcome::Gone => {
                self.batch.clear();
                Ok(true)
            }
        }
    }
}

impl Effects for Shell {
    fn connect(&mut self, broker: BrokerIndex) {
        if let Err(failure) = self.try_connect(usize::from(broker.0)) {
            self.failure = Some(failure);
        }
    }

    fn send(&mut self, broker: BrokerIndex, command: &ToBroker<'_>) {
        let link = &mut self.links[usize::from(broker.0)];
        let before = link.batch.len();
        write_to_broker(&mut link.batch, command);
        if link.batch.len() <= BATCH_BYTES {
            return;
        }
        // The batch without this command, then this command first in the next.
        let rest = link.batch.split_off(before);
        match link.flush() {
            Ok(_) => link.batch.extend(rest),
            Err(failure) => self.failure = Some(failure),
        }
    }

    fn spawn(&mut self, slot: Slot, incarnation: Incarnation) -> bool {
        match self.try_spawn(slot, incarnation) {
            Ok(()) => true,
            Err(error) => {
                error!(slot = slot.0, %error, "a worker could not be started");
                false
            }
        }
    }

    fn signal(&mut self, slot: Slot, signal: Signal) {
        let Some(Some(child)) = self.children.get(usize::from(slot.0)) else { return };
        let Some(process) = &child.process else { return };
        match signal {
            Signal::Drain => process.signal(ProcessSignal::TERM),
            Signal::Stop => process.signal(ProcessSignal::STOP),
            Signal::Continue => process.signal(ProcessSignal::CONT),
            Signal::Kill => process.kill(),
            Signal::Warn(number) => match ProcessSignal::from_named_raw(number) {
                Some(signal) => process.signal(signal),
                None => warn!(number, "there is no signal of this number"),
            },
        }
    }

    fn set_lease(&mut self, slot: Slot, broker: BrokerIndex, epoch: Epoch, until: Time) {
        if let Some(page) = self.page(slot) {
            page.set_lease(broker, epoch, until);
        }
    }

    fn glance(&mut self, slot: Slot) -> Glance {
        let nothing = Glance { turn: 0, unended: 0, running: None };
        self.page(slot).map_or(nothing, StatusPage::glance)
    }

    fn is_ready(&mut self, slot: Slot) -> bool {
        let brokers = self.links.len() as u64;
        self.page(slot).is_some_and(|page| page.counts().sessions >= brokers)
    }

    fn held(&mut self, slot: Slot) -> Vec<HeldSlot> {
        self.page(slot).map_or_else(Vec::new, StatusPage::held)
    }

    fn flip(&mut self, slot: Slot, broker: BrokerIndex, attempt: AttemptId) -> Flip {
        self.page(slot).map_or(Flip::Absent, |page| page.flip(broker, attempt))
    }

    fn refuse(&mut self, slot: Slot, broker: BrokerIndex, attempt: AttemptId) -> bool {
        self.page(slot).is_some_and(|page| page.refuse(broker, attempt, now()))
    }

    fn cancel(&mut self, slot: Slot, broker: BrokerIndex, attempt: AttemptId) {
        if let Some(page) = self.page(slot) {
            page.cancel(broker, attempt);
        }
    }

    fn note(&mut self, note: Note) {
        if let Note::Closed { broker, why: CloseReason::Refused(RefusedCode::NotAllowed), .. } =
            note
            && let link = &self.links[usize::from(broker.0)]
            && !link.was_open
        {
            // Of a first HELLO nothing but the socket that it came to can be wrong.
            self.failure = Some(SupervisorError::Config {
                flag: "--backend",
                value: link.endpoint.to_string(),
                remedy: "this is the frontend of a broker, where clients connect: name its backend, \
                         tcp://HOST:5556 unless configured",
            });
            return;
        }
        log::note(note, &|broker: BrokerIndex| &self.links[usize::from(broker.0)].endpoint);
        match note {
            Note::Closed { broker, why: CloseReason::NoWelcome, .. } => {
                let link = &mut self.links[usize::from(broker.0)];
                if !std::mem::replace(&mut link.is_missed, true) {
                    let hint = match link.options.security {
                        None => "; if it has keys, --key and --broker-key are missing",
                        Some(_) => "; if it runs, see its log for a refused key",
                    };
                    let endpoint = &link.endpoint;
                    warn!(
                        "no answer from {endpoint}: is a broker running there? Still trying{hint}"
                    );
                }
            }
            Note::Opened { broker, .. } => {
                let link = &mut self.links[usize::from(broker.0)];
                (link.is_missed, link.was_open) = (false, true);
            }
            _ => {}
        }
        if note == Note::Ready {
            log::ready(&self.cpus);
        }
    }

    fn exit(&mut self) {
        self.has_left = true;
    }
}

impl Drop for Shell {
    /// Also on the way out after an error: nothing outlives the supervisor.
    fn drop(&mut self) {
        for child in self.children.iter().flatten() {
            if let Some(process) = &child.process {
                process.kill();
            }
        }
        self.spawner.sweep_all();
        if let Some((keeper, _)) = &self.keeper {
            keeper.kill();
        }
    }
}
