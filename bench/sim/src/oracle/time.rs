//! What time does. The reference has no timers: it looks at everything that could be due.

use pinmesh_core::Conn;
use pinmesh_protocol::id::{AttemptId, PeerId};
use pinmesh_protocol::status::Status;

use super::book::{Age, Presence, Session, State, Task, Who, WorkerNo};
use super::inherited::Standing;
use super::{Expected, Oracle};

/// The grain of a broker's timers, nanoseconds: they go off at the first multiple of it that is
/// not before their time.
const GRAIN: u64 = 1 << 20;

/// Something that happens at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// The peer of this session was silent for too long.
    Silence(Conn),
    /// A client was away for too long.
    Dropped(PeerId),
    /// A worker was away for so long that it is given up, unless its supervisor speaks for it.
    Away(WorkerNo),
    /// A host's lease ends.
    Lease(PeerId),
    /// Nothing of a host runs any more.
    HostGone(PeerId),
    /// Nobody has served the task's service for long enough.
    NoService(Age),
    /// A delayed task may start.
    Start(Age),
    /// Nobody wants the result any more.
    Deadline(Age),
    /// The end of an at-most-once task has not come.
    NoEnd(Age),
    /// The outcome of a task with a key is kept no longer.
    KeyOver(Age),
    /// A worker that gave something back may be sent more.
    Unpark(WorkerNo),
    /// This service has a token again.
    Open(u32),
    /// Nobody has asked for an attempt of an earlier life.
    Forsaken(AttemptId),
    /// The oldest dead letter is too old.
    OldLetter,
}

/// When a timer that is set for `at` goes off.
pub(super) const fn rounded(at: u64) -> u64 {
    at.div_ceil(GRAIN).saturating_mul(GRAIN)
}

impl Oracle {
    /// `liveness` heartbeats.
    pub(super) const fn silence_max(&self) -> u64 {
        self.config.heartbeat.0.saturating_mul(self.config.liveness as u64)
    }

    /// 1.1 leases and a grace.
    const fn host_requeue(&self) -> u64 {
        let (lease, grace) = (self.config.lease.0, self.config.grace.0);
        lease + lease / 10 + grace
    }

    /// How long a worker may say nothing; `None`: its supervisor speaks for it.
    pub(super) fn worker_silence_max(&self, number: WorkerNo) -> Option<u64> {
        let worker = self.workers.get(&number)?;
        if worker.presence == Presence::Dead {
            return Some(self.silence_max());
        }
        let is_idle = worker.holds.is_empty() && self.beside(number) == 0;
        match worker.host {
            Some(host) if self.hosts.contains_key(&host) => None,
            // Its supervisor may still have the lease of an earlier life of this broker.
            Some(_) if !is_idle => Some(self.silence_max().max(self.host_requeue())),
            Some(_) => Some(self.silence_max()),
            // Nobody knows how long what it brought along may run, only how long it matters.
            None if worker.holds.is_empty() && !is_idle => Some(self.config.client_kept.0),
            None => {
                let runtimes = worker.holds.iter().map(|age| self.tasks[age].max_runtime);
                let busy =
                    runtimes.max().map(|longest| longest.saturating_add(self.config.grace.0));
                Some(busy.unwrap_or(self.silence_max()))
            }
        }
    }

    fn limit_of(&self, session: &Session) -> Option<u64> {
        match session.who {
            Who::Client(_) | Who::Host(_) => Some(self.silence_max()),
            Who::Worker(number) => self.worker_silence_max(number),
        }
    }

    /// Notes since when each peer may be silent for as long as it may now.
    pub(super) fn note_limits(&mut self) {
        let conns: Vec<Conn> = self.sessions.keys().copied().collect();
        for conn in conns {
            let limit = self.limit_of(&self.sessions[&conn]);
            if let Some(session) = self.sessions.get_mut(&conn)
                && session.limit != limit
            {
                session.limit = limit;
                session.limit_since = self.now;
            }
        }
    }

    /// From when on something may happen.
    pub(super) fn earliest(&self, due: Due) -> Option<u64> {
        let config = &self.config;
        match due {
            Due::Silence(conn) => {
                let session = self.sessions.get(&conn)?;
                Some(session.heard_at.saturating_add(self.limit_of(session)?))
            }
            Due::Dropped(id) => self.clients.get(&id)?.drop_at,
            Due::Away(number) => {
                let worker = self.workers.get(&number)?;
                worker.conn.is_none().then_some(worker.away_until)
            }
            Due::Lease(id) => {
                let host = self.hosts.get(&id).filter(|host| host.has_lease)?;
                Some(host.echoed_at.saturating_add(config.lease.0))
            }
            Due::HostGone(id) => {
                Some(self.hosts.get(&id)?.echoed_at.saturating_add(self.host_requeue()))
            }
            Due::NoService(age) => {
                let task = self.tasks.get(&age).filter(|task| task.state == State::Pending)?;
                let since = self.unserved_since.get(&task.service).copied().unwrap_or(0);
                let from = since.max(task.queued_at);
                (!self.is_served(&task.service)).then(|| from.saturating_add(config.service_wait.0))
            }
            Due::Start(age) => match self.tasks.get(&age)?.state {
                State::Delayed(at) => Some(at),
                State::Pending
                | State::InFlight
                | State::Awaiting(_)
                | State::Following
                | State::Ended => None,
            },
            Due::Deadline(age) => match self.tasks.get(&age)?.state {
                State::Pending | State::Delayed(_) | State::InFlight => self.tasks[&age].deadline,
                State::Awaiting(_) | State::Following | State::Ended => None,
            },
            Due::NoEnd(age) => match self.tasks.get(&age)?.state {
                State::Awaiting(until) => Some(until),
                State::Pending
                | State::Delayed(_)
                | State::InFlight
                | State::Following
                | State::Ended => None,
            },
            Due::KeyOver(age) => self.tasks.get(&age)?.key.as_ref()?.until,
            Due::Unpark(number) => self.workers.get(&number)?.parked_until,
            Due::Open(place) => self.gates.get(place as usize)?.opens_at,
            Due::OldLetter => self.oldest_letter_until(),
            Due::Forsaken(attempt) => match self.inherited.get(&attempt)?.standing {
                Standing::Unclaimed { until, .. } => Some(until),
                _ => None,
            },
        }
    }

    /// When it has to have happened, at the first tick from then on. Silence of a worker, whose
    /// limit changes with what it holds, is looked at once in a `silence_max`.
    pub(super) fn latest(&self, due: Due) -> Option<u64> {
        let earliest = self.earliest(due)?;
        match due {
            Due::Silence(conn) => {
                let session = self.sessions.get(&conn)?;
                let slack = match session.who {
                    Who::Worker(_) => self.silence_max(),
                    Who::Client(_) | Who::Host(_) => 0,
                };
                let is_new = self.limit_of(session) != session.limit;
                let since = if is_new { self.now } else { session.limit_since };
                Some(rounded(earliest.max(since).saturating_add(slack)))
            }
            _ => Some(rounded(earliest)),
        }
    }

    /// When a broker must be woken up at the latest, and what for.
    pub(super) fn wake_at(&self) -> Option<(u64, Due)> {
        let sessions = self.sessions.keys().map(|conn| Due::Silence(*conn));
        let clients = self.clients.keys().map(|id| Due::Dropped(*id));
        let workers =
            self.workers.keys().flat_map(|number| [Due::Away(*number), Due::Unpark(*number)]);
        let hosts = self.hosts.keys().flat_map(|id| [Due::Lease(*id), Due::HostGone(*id)]);
        let inherited = self.inherited.keys().map(|attempt| Due::Forsaken(*attempt));
        let gates = (0..self.gates.len() as u32).map(Due::Open);
        let peers =
            sessions.chain(clients).chain(workers).chain(hosts).chain(inherited).chain(gates);
        let peers = peers.chain([Due::OldLetter]);
        let of_peers = peers.filter_map(|due| Some((self.latest(due)?, due)));
        of_peers.chain(self.next_of_tasks()).min_by_key(|(at, _)| *at)
    }

    /// The first thing that is due about tasks.
    fn next_of_tasks(&self) -> Option<(u64, Due)> {
        let mut next: Option<(u64, Due)> = None;
        let mut note = |at: Option<u64>, due| {
            if let Some(at) = at
                && next.is_none_or(|(earlier, _)| at < earlier)
            {
                next = Some((at, due));
            }
        };
        for (age, task) in &self.tasks {
            match task.state {
                State::Pending => {
                    note(task.deadline, Due::Deadline(*age));
                    if !self.is_served(&task.service) {
                        // A task that came back late is looked at from then on.
                        let at = self.earliest(Due::NoService(*age));
                        note(at.map(|at| at.max(task.pending_since)), Due::NoService(*age));
                    }
                }
                State::Delayed(at) => {
                    note(task.deadline, Due::Deadline(*age));
                    note(Some(at), Due::Start(*age));
                }
                State::InFlight => note(task.deadline, Due::Deadline(*age)),
                State::Awaiting(until) => note(Some(until), Due::NoEnd(*age)),
                State::Following => {}
                State::Ended => {
                    note(task.key.as_ref().and_then(|key| key.until), Due::KeyOver(*age))
                }
            }
        }
        next.map(|(at, due)| (rounded(at), due))
    }

    /// What must have happened by now, the first of it first.
    pub(super) fn next_due(&self) -> Option<Due> {
        self.wake_at().filter(|(at, _)| *at <= self.now).map(|(_, due)| due)
    }

    /// Whether it may happen now.
    pub(super) fn may_happen(&self, due: Due) -> bool {
        self.earliest(due).is_some_and(|at| at <= self.now)
    }

    /// It happens.
    pub(super) fn happen(&mut self, due: Due) {
        match due {
            Due::Silence(conn) => {
                let Some(who) = self.sessions.get(&conn).map(|session| session.who) else { return };
                self.end_session(conn);
                self.expect(Expected::Close(conn));
                if let Who::Worker(number) = who {
                    self.lose_silent(number);
                }
            }
            Due::Dropped(id) => self.drop_client(id),
            Due::Away(number) => self.look_at_away(number),
            Due::Lease(id) => {
                if let Some(host) = self.hosts.get_mut(&id) {
                    host.has_lease = false;
                }
            }
            Due::HostGone(id) => self.lose_host(id),
            Due::NoService(age) => {
                self.note_drops(age);
                self.end(age, Status::NoService);
            }
            Due::Start(age) => self.start_delayed(age),
            Due::Deadline(age) => {
                self.note_drops(age);
                if self.tasks[&age].state == State::InFlight {
                    self.stop_running(age, self.tasks[&age].kills_at_deadline);
                    let ends = self.tasks[&age].holder.map(|number| self.ends_of(number));
                    let mut ends = ends.unwrap_or_default().into_iter();
                    self.ambiguous_back += u64::from(ends.any(|due| self.may_happen(due)));
                }
                self.end(age, Status::Expired);
            }
            Due::NoEnd(age) => self.lose(age),
            Due::KeyOver(age) => self.unlist_key(age),
            Due::Forsaken(attempt) => self.forsake(attempt),
            Due::Open(place) => self.open_gate(place),
            Due::OldLetter => self.drop_oldest_letter(),
            Due::Unpark(number) => {
                if let Some(worker) = self.workers.get_mut(&number) {
                    worker.parked_until = None;
                    worker.is_passed_over = false;
                }
            }
        }
    }

    /// A task ends by itself at the moment at which those who wait for it may be given up: either may
    /// come first, and where nobody is told only the sums show which.
    fn note_drops(&mut self, age: Age) {
        let own = self.tasks.get(&age).into_iter();
        let waiting: Vec<&Task> = own.chain(self.followers(age).map(|(_, task)| task)).collect();
        let mut clients = waiting.iter().filter_map(|task| task.client);
        let may_be_dropped = clients.any(|id| self.may_happen(Due::Dropped(id)));
        self.ambiguous += u64::from(may_be_dropped);
    }

    /// A worker is away: it is given up, or looked at again where its supervisor speaks for it.
    fn look_at_away(&mut self, number: WorkerNo) {
        if self.worker_silence_max(number).is_some() {
            return self.lose_silent(number);
        }
        let again = self.now.saturating_add(self.silence_max());
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.away_until = again;
        }
    }

    /// A worker runs its tasks in order: the first of them is charged, where no supervisor knows
    /// better.
    fn lose_silent(&mut self, number: WorkerNo) {
        let worker = self.workers.get(&number).filter(|worker| worker.host.is_none());
        let charged = worker.and_then(|worker| worker.holds.first().copied());
        self.lose_worker(number, charged);
    }

    pub(super) fn is_past_deadline(&self, age: Age) -> bool {
        self.tasks.get(&age).is_some_and(|task| self.is_over(task))
    }

    /// Nobody wants its result any more.
    pub(super) fn is_over(&self, task: &Task) -> bool {
        task.deadline.is_some_and(|at| at <= self.now)
    }
}
