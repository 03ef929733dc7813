//! What brokers take and say: the ledger, windows and budgets, fences, one outcome for each task.

use std::collections::{BTreeMap, BTreeSet};

use pinmesh_core::{Broker, Conn, CoreConfig, Counts, Event, Ledger};
use pinmesh_protocol::command::ToBroker;
use pinmesh_protocol::id::{AttemptId, Dispatch, Epoch, TaskId};
use pinmesh_protocol::status::{LossKind, Status};

use super::Checker;
use crate::counters::{Count, Counters};
use crate::net::Owner;
use crate::record::{Body, Effect, Said, Sent};
use crate::shell::Shell;
use crate::task::{Key, Output, client_of};
use crate::worker::WorkerId;
use crate::world::World;

/// The machine looks at itself after every so many events: that takes time linear in what it holds.
const LOOK_EVERY: u64 = 16;
/// Bytes that the mesh's own words on a task's end have at most.
const TEXT_BYTES_MAX: u64 = 160;

/// Bytes of updates that a worker that is held up may still send.
const HELD_BYTES_MAX: u64 = 64 * 1024;

/// The latest sending of a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentSeen {
    pub(super) dispatch: Dispatch,
    key: Key,
    to: Option<WorkerId>,
    /// On the broker's clock.
    at: u64,
    max_runtime: u64,
}

/// How a broker heard a worker.
#[derive(Clone, Debug)]
struct Heard {
    at: u64,
    /// Its silences that were too long for somebody, and when each was over.
    gaps: Vec<(u64, u64)>,
}

/// One life of a broker.
#[derive(Debug)]
pub(super) struct LifeSeen {
    pub(super) epoch: Epoch,
    index: usize,
    config: CoreConfig,
    pub(super) sent: BTreeMap<TaskId, SentSeen>,
    /// Tasks that came in and whose client has not been told of an end.
    open: BTreeSet<Key>,
    told: BTreeMap<Key, (Status, Option<u64>)>,
    dones: BTreeSet<AttemptId>,
    /// Attempts of earlier lives that READY has named, and when it last did, on the broker's clock.
    listed: BTreeMap<AttemptId, u64>,
    /// When each task was last sent, on the broker's clock.
    sent_at: BTreeMap<Key, u64>,
    /// When each worker was last heard, on the broker's clock.
    heard: BTreeMap<WorkerId, Heard>,
}

/// What was so before an event.
#[derive(Clone, Debug)]
pub struct Before {
    ledger: (u64, u64),
    /// Dead letters that came, and that left at a bound.
    dead: (u64, u64),
    joined: u64,
    /// Only for what time does.
    counts: Option<Counts>,
    submitted: Option<(Conn, pinmesh_protocol::id::RequestId)>,
}

impl Checker {
    /// A broker's process starts.
    pub fn on_broker_start(&mut self, index: usize, epoch: Epoch, config: &CoreConfig) {
        self.current.insert(index, epoch);
        self.lives.insert(
            epoch,
            LifeSeen {
                epoch,
                index,
                config: config.clone(),
                sent: BTreeMap::new(),
                open: BTreeSet::new(),
                told: BTreeMap::new(),
                dones: BTreeSet::new(),
                listed: BTreeMap::new(),
                sent_at: BTreeMap::new(),
                heard: BTreeMap::new(),
            },
        );
    }

    /// A broker's process is gone, or the run is over.
    pub fn on_broker_end(&mut self, core: &Broker<Body>, epoch: Epoch, counters: &mut Counters) {
        self.look(core, epoch);
        self.current.retain(|_, current| *current != epoch);
        self.lives.remove(&epoch);
        let ledger: &Ledger = core.ledger();
        for (count, many) in [
            (Count::Busy, ledger.busy),
            (Count::Refused, ledger.refused),
            (Count::Joined, ledger.joined),
            (Count::Ignored, ledger.ignored),
            (Count::Stale, ledger.stale),
            (Count::Ok, ledger.ok),
            (Count::Failed, ledger.failed),
            (Count::TimedOut, ledger.timed_out),
            (Count::Crashed, ledger.crashed),
            (Count::Cancelled, ledger.cancelled),
            (Count::Lost, ledger.lost),
            (Count::NoService, ledger.no_service),
            (Count::Requeued, ledger.requeued),
            (Count::Retried, ledger.retried),
            (Count::Adopted, ledger.adopted),
            (Count::StaleEnd, ledger.stale_ends),
            (Count::ForeignEnd, ledger.foreign_ends),
            (Count::UpdateStale, ledger.stale_updates),
            (Count::HeldUp, ledger.held_up),
            (Count::Dead, ledger.dead),
            (Count::Replayed, ledger.replayed),
            (Count::ReplayBusy, ledger.replay_busy),
            (Count::Malformed, ledger.malformed),
            (Count::NoSession, ledger.no_session),
        ] {
            counters.add_many(count, many);
        }
    }

    /// The machine's own cross-check.
    fn look(&mut self, core: &Broker<Body>, epoch: Epoch) {
        for violation in core.violations() {
            self.fail(format!("epoch {epoch}: {violation}"));
        }
    }

    /// The same, for every broker at once: after faults and at the end.
    pub fn look_at(&mut self, core: &Broker<Body>, epoch: Epoch) {
        self.look(core, epoch);
    }

    /// Before an event.
    pub fn before_core(&mut self, core: &Broker<Body>, event: &Event<'_, Body>) -> Before {
        let ledger = core.ledger();
        let submitted = match event {
            Event::Submit(conn, submit) => Some((*conn, submit.request_id)),
            _ => None,
        };
        let counts = matches!(event, Event::Tick).then(|| core.counts());
        Before {
            ledger: (ledger.accepted, ledger.ended()),
            dead: (ledger.dead, ledger.dead_dropped),
            joined: ledger.joined,
            counts,
            submitted,
        }
    }

    /// After it.
    pub fn after_core(
        &mut self,
        world: &mut World,
        (epoch, local): (Epoch, u64),
        before: &Before,
        (core, shell): (&Broker<Body>, &Shell),
        effects: &[Effect],
    ) {
        let ledger = core.ledger();
        if !ledger.is_balanced() {
            self.fail(format!("epoch {epoch}: the ledger does not add up: {ledger:?}"));
        }
        let dropped = ledger.dead_dropped - before.dead.1;
        // Where some came in the same tick nobody can tell which bound it was.
        let is_by_age = before.counts.is_some() && ledger.dead == before.dead.0;
        let count = if is_by_age { Count::DeadTooOld } else { Count::DeadDisplaced };
        world.counters.add_many(count, dropped);
        let (accepted, ended) = before.ledger;
        if ledger.accepted < accepted || ledger.ended() < ended {
            self.fail(format!("epoch {epoch}: the ledger went back: {ledger:?}"));
        }
        if let Some((conn, request)) = before.submitted
            && (ledger.accepted > accepted || ledger.joined > before.joined)
            && let Some(Owner::Client(number)) = shell.owner(conn)
            && let Some(life) = self.lives.get_mut(&epoch)
        {
            let key = Key { client: number as u32, request };
            let has_key = self.requests.get(&key).is_some_and(|asked| asked.key.is_some());
            if ledger.accepted > accepted || has_key {
                life.open.insert(key);
                life.told.remove(&key);
            }
            let is_told = effects.iter().any(|effect| matches!(effect, Effect::Result { .. }));
            if ledger.accepted == accepted && has_key {
                world.counters.add(if is_told { Count::KeyTold } else { Count::KeyJoined });
            }
        }
        if let Some(counts) = before.counts {
            self.count_tick(world, epoch, counts, core.counts());
        }
        self.after_operator(world, (epoch, local), (core, shell), effects);
    }

    /// After a command of an operator: what is checked after each event as well.
    pub fn after_operator(
        &mut self,
        world: &mut World,
        (epoch, local): (Epoch, u64),
        (core, shell): (&Broker<Body>, &Shell),
        effects: &[Effect],
    ) {
        for effect in effects {
            self.on_effect(world, (epoch, local), shell, effect);
        }
        self.events += 1;
        if self.events.is_multiple_of(LOOK_EVERY) {
            self.look(core, epoch);
            count_held_back(world, core);
        }
    }

    fn count_tick(&mut self, world: &mut World, epoch: Epoch, before: Counts, after: Counts) {
        if after.hosts < before.hosts {
            world.counters.add_many(Count::HostGone, before.hosts - after.hosts);
        }
        if after.clients < before.clients {
            world.counters.add_many(Count::ClientDropped, before.clients - after.clients);
        }
        let Some(life) = self.lives.get(&epoch) else { return };
        // What is told while tasks run may take as much again, and what their workers have unsent.
        let most = 2 * life.config.memory_bytes_max
            + after.tasks * TEXT_BYTES_MAX
            + after.workers * HELD_BYTES_MAX;
        if after.bytes > most {
            self.fail(format!("epoch {epoch}: {} bytes held, {most} allowed", after.bytes));
        }
    }

    fn on_effect(
        &mut self,
        world: &mut World,
        (epoch, local): (Epoch, u64),
        shell: &Shell,
        effect: &Effect,
    ) {
        match effect {
            Effect::Task { to, head, .. } => {
                let key = Key { client: client_of(head.client_id), request: head.request_id };
                let attempt = AttemptId { epoch, task: head.task, dispatch: head.dispatch };
                let to = match shell.owner(*to) {
                    Some(Owner::Worker(id)) => Some(id),
                    _ => None,
                };
                self.attempts.insert(attempt, key);
                let max_runtime = head.max_runtime_ns;
                let sent = SentSeen { dispatch: head.dispatch, key, to, at: local, max_runtime };
                self.on_sent(epoch, local, head.task, sent);
            }
            Effect::Result { to, head, said } => {
                if head.status == Status::Ok && head.tries > 0 {
                    world.counters.add(Count::OkAfterBad);
                }
                if let Some(Owner::Client(number)) = shell.owner(*to) {
                    let key = Key { client: number as u32, request: head.request_id };
                    self.on_told(world, epoch, key, (head.status, said));
                }
            }
            Effect::Send { command: Sent::Cancel(cancel), .. } => {
                let count = if cancel.is_hard { Count::CancelHard } else { Count::CancelSoft };
                world.counters.add(count);
            }
            Effect::Send { to, command: Sent::Refused(code) } => {
                let owner = shell.owner(*to);
                if owner != Some(Owner::Rogue) && !self.may_be_refused() {
                    self.fail(format!("epoch {epoch}: {owner:?} is refused: {code}"));
                }
            }
            Effect::Progress { .. }
            | Effect::Send { .. }
            | Effect::Close(_)
            | Effect::Stages(_) => {}
        }
    }

    fn on_sent(&mut self, epoch: Epoch, local: u64, task: TaskId, sent: SentSeen) {
        let Some(life) = self.lives.get_mut(&epoch) else { return };
        life.sent_at.insert(sent.key, local);
        let Some(earlier) = life.sent.insert(task, sent) else { return };
        if earlier.dispatch >= sent.dispatch || earlier.key != sent.key {
            return self.fail(format!("epoch {epoch}: {sent:?} was sent after {earlier:?}"));
        }
        let Some(worker) = earlier.to else { return };
        if self.workers.get(&worker).is_some_and(Option::is_none) {
            let limit = earlier.max_runtime + life.config.grace.0;
            let was_silent = life.heard.get(&worker).is_none_or(|heard| {
                let mut gaps = heard.gaps.iter();
                local - heard.at >= limit
                    || gaps.any(|(gap, until)| *gap >= limit && *until > earlier.at)
            });
            if was_silent {
                self.given_up.insert(AttemptId { epoch, task, dispatch: earlier.dispatch });
            }
        }
    }

    fn on_told(
        &mut self,
        world: &mut World,
        epoch: Epoch,
        key: Key,
        (status, said): (Status, &Said),
    ) {
        if matches!(status, Status::Busy | Status::Refused) {
            if let Said::Text(text) = said {
                let words = [
                    ("client window", Count::BusyWindow),
                    ("of the service", Count::BusyService),
                    ("after its deadline", Count::BusyLate),
                    ("another idempotency key", Count::BusyKeys),
                    ("is being cancelled", Count::BusyCancelling),
                    ("another service has this key", Count::RefusedKey),
                ];
                let found = words.iter().filter(|(words, _)| text.contains(words));
                found.for_each(|(_, count)| world.counters.add(*count));
            }
            return;
        }
        let output = match said {
            Said::Handler(bytes) => Output::from_payload(bytes),
            Said::Text(text) => {
                if status == Status::Expired {
                    let is_pending = text.contains("before a worker was free");
                    world.counters.add(match is_pending {
                        true => Count::ExpiredPending,
                        false => Count::ExpiredInFlight,
                    });
                }
                None
            }
        };
        let Some(life) = self.lives.get_mut(&epoch) else { return };
        life.open.remove(&key);
        let now = (status, output.map(|output| output.token));
        match life.told.insert(key, now) {
            Some(before) if before != now => {
                self.fail(format!("{key}: epoch {epoch} says {now:?} after {before:?}"));
            }
            Some(_) => world.counters.add(Count::ResultAgain),
            None => self.check_fence(world, epoch, key, output),
        }
    }

    /// The end of an attempt counts only while none was sent after it.
    fn check_fence(&mut self, world: &mut World, epoch: Epoch, key: Key, output: Option<Output>) {
        let Some(output) = output else { return };
        let Some((of, attempt, _)) = self.outputs.get(&output.token).copied() else {
            return self.fail(format!("{key}: epoch {epoch} answers what no handler returned"));
        };
        let is_its = self.is_same_work(of, key);
        if of != key && is_its {
            world.counters.add(Count::KeyShared);
        }
        if is_its && attempt.epoch != epoch && self.is_inherited(epoch, key, attempt) {
            return;
        }
        let latest = self.sent(epoch, attempt.task).map(|sent| sent.dispatch);
        if !is_its || attempt.epoch != epoch || latest != Some(attempt.dispatch) {
            self.fail(format!(
                "{key}: epoch {epoch} takes the end of {attempt}, latest dispatch {latest:?}"
            ));
        }
    }

    /// Whether READY has named the attempt, of an earlier life, since the task was last sent.
    fn is_inherited(&self, epoch: Epoch, key: Key, attempt: AttemptId) -> bool {
        let Some(life) = self.lives.get(&epoch) else { return false };
        let listed = life.listed.get(&attempt);
        listed.is_some_and(|listed| life.sent_at.get(&key).is_none_or(|sent| listed >= sent))
    }

    /// Whether a broker knew of one attempt, of its earlier life, when it sent another one, and not
    /// for so long that it had forgotten.
    pub(super) fn was_listed_before(&self, earlier: AttemptId, later: AttemptId) -> bool {
        let Some(life) = self.lives.get(&later.epoch) else { return false };
        let (Some(listed), Some(sent)) = (life.listed.get(&earlier), life.sent.get(&later.task))
        else {
            return false;
        };
        let known_for = sent.at.checked_sub(*listed);
        sent.dispatch == later.dispatch
            && known_for.is_some_and(|known_for| known_for < life.config.client_kept.0)
    }

    /// A peer's command is about to be taken; not as a word of its session, if it has none.
    pub fn on_command(
        &mut self,
        world: &mut World,
        (epoch, local): (Epoch, u64),
        (owner, is_heard): (Owner, bool),
        command: &ToBroker<'_>,
    ) {
        if owner == Owner::Rogue {
            return;
        }
        if let (Owner::Worker(id), Some(life)) = (owner, self.lives.get_mut(&epoch))
            && is_heard
        {
            let heard =
                life.heard.entry(id).or_insert_with(|| Heard { at: local, gaps: Vec::new() });
            let gap = local - heard.at;
            heard.at = local;
            // No limit is shorter.
            if gap >= life.config.grace.0 {
                heard.gaps.push((gap, local));
            }
        }
        match command {
            ToBroker::Refused(refused) => {
                self.fail(format!("{} refuses a broker: {refused:?}", self.owner_name(owner)));
            }
            ToBroker::Done(done) => {
                let life = self.lives.get_mut(&epoch);
                if life.is_some_and(|life| !life.dones.insert(done.attempt)) {
                    world.counters.add(Count::DoneAgain);
                }
            }
            ToBroker::Return(_) => world.counters.add(Count::Returned),
            ToBroker::Recalled(_) => world.counters.add(Count::Recalled),
            ToBroker::Ready(ready) => {
                world.counters.add_many(Count::ReadyHeld, ready.held.len() as u64);
                let foreign = ready.held.iter().filter(|held| held.attempt.epoch != epoch);
                world.counters.add_many(Count::ReadyForeign, foreign.clone().count() as u64);
                if let Some(life) = self.lives.get_mut(&epoch).filter(|_| is_heard) {
                    life.listed.extend(foreign.map(|held| (held.attempt, local)));
                }
            }
            // It is asked again: the end before counted for the earlier submission only.
            ToBroker::Fetch(fetch) => {
                let (Owner::Client(number), Some(life)) = (owner, self.lives.get_mut(&epoch))
                else {
                    return;
                };
                let key = Key { client: number as u32, request: fetch.request_id };
                let void = [Status::Cancelled, Status::NoService, Status::Lost];
                if life.told.get(&key).is_some_and(|(status, _)| void.contains(status)) {
                    life.told.remove(&key);
                }
            }
            ToBroker::Lost(lost) => {
                let Owner::Supervisor(host) = owner else { return };
                let life = self.host_lives.get(&host).copied().unwrap_or(0) << 32;
                let seen = (host, lost.slot, lost.incarnation, life | u64::from(epoch.0));
                if !self.lost_seen.insert(seen) {
                    world.counters.add(Count::LostAgain);
                }
                count_lost(world, lost);
            }
            _ => {}
        }
    }

    /// Whether an honest peer may be refused: a command that waited in the socket of a peer that
    /// was cut off came before its HELLO.
    pub const fn may_be_refused(&self) -> bool {
        false
    }

    /// Tasks of living clients that came in at a broker that is up and whose end was never told.
    pub fn vanished(&self) -> Vec<(usize, Key)> {
        let lives = self.lives.values();
        let open = lives.flat_map(|life| life.open.iter().map(|key| (life.index, *key)));
        open.filter(|(_, key)| {
            let is_resolved = self.requests.get(key).is_none_or(|asked| asked.is_resolved);
            !is_resolved && !self.dead_clients.contains(&key.client)
        })
        .collect()
    }

    /// Whether the attempt is the latest of its task and in a handler.
    pub fn is_open_run(&self, attempt: AttemptId) -> bool {
        self.key_of(attempt).is_some_and(|key| self.is_running(key, attempt))
    }
}

/// Tasks that wait beside a worker that could take them.
fn count_held_back(world: &mut World, core: &Broker<Body>) {
    let services = core.services_page(None, usize::MAX);
    for view in services.iter().filter(|view| view.pending.iter().sum::<u32>() > 0) {
        let reasons = [
            (view.in_flight >= view.limits.in_flight_max, Count::HeldByCap),
            (view.next_token.is_some(), Count::HeldByRate),
            (view.is_paused, Count::HeldByPause),
        ];
        let held = reasons.iter().filter(|(is_so, _)| *is_so);
        held.for_each(|(_, count)| world.counters.add(*count));
    }
}

fn count_lost(world: &mut World, lost: &pinmesh_protocol::command::Lost) {
    if !lost.started.is_empty() {
        world.counters.add(Count::LostStarted);
    }
    let count = match lost.cause {
        LossKind::OutOfMemory if lost.running.is_some() => Count::LostOutOfMemory,
        LossKind::Exited | LossKind::Signalled if lost.running.is_some() => Count::CrashCharged,
        LossKind::MaxRuntime => Count::LostMaxRuntime,
        LossKind::Stalled => Count::LostStalled,
        LossKind::LeaseEnded => Count::LostLeaseEnded,
        LossKind::Cancelled => Count::LostCancelled,
        LossKind::Shutdown => Count::LostShutdown,
        LossKind::Exited | LossKind::Signalled | LossKind::OutOfMemory | LossKind::Unknown => {
            return;
        }
    };
    world.counters.add(count);
}
