//! Dead letters, and what an operator does with them. The broker numbers them; of several in one
//! event only the numbers tell which came first.

use std::collections::BTreeMap;

use pinmesh_core::{
    AdminObjection, AdminReply, Broker, DeadPage, DeathCause, LetterId, LetterView, Span,
};
use pinmesh_protocol::id::{AttemptId, ContentType, Dispatch};
use pinmesh_protocol::status::Status;

use super::Oracle;
use super::book::{Age, State, Task};
use super::clients::TASK_BYTES;
use super::gates::Outcome;
use crate::record::{Body, Said};

/// What the bound counts for a letter beside its payload and its handler's words, bytes.
const LETTER_BYTES: u64 = 1_024;
/// Bytes of a handler's words that a letter keeps.
const WORDS_KEPT: usize = 4 * 1_024;

/// What is kept of a task that failed for good.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    task: Task,
    /// What its client called itself; `None`: it was gone.
    client: Option<String>,
    cause: DeathCause,
    /// `None`: the mesh's words.
    said: Option<Said>,
    died_at: u64,
}

impl Letter {
    fn bytes(&self) -> u64 {
        let words = match &self.said {
            Some(Said::Handler(bytes)) => bytes.len().min(WORDS_KEPT),
            Some(Said::Text(_)) | None => 0,
        };
        LETTER_BYTES + self.task.bytes + words as u64
    }

    fn is_meant(&self, page: &DeadPage<'_>) -> bool {
        page.service.is_none_or(|service| service == self.task.service)
            && page.reason.is_none_or(|reason| reason.is_of(self.cause))
    }

    /// Whether a broker's letter is this one. In a tick its client may have gone before or after.
    fn is_as(&self, view: &LetterView, now: u64, is_tick: bool) -> bool {
        let is_same_error = match &self.said {
            Some(Said::Handler(bytes)) => {
                view.error.of_bytes == bytes.len() as u64
                    && view.error.bytes[..] == bytes[..bytes.len().min(WORDS_KEPT)]
            }
            Some(Said::Text(_)) | None => view.error.content_type == ContentType::TEXT,
        };
        let as_expected = LetterView {
            letter: view.letter,
            service: self.task.service.clone(),
            client: if is_tick { view.client.clone() } else { self.client.clone() },
            client_id: self.task.asked_by,
            request_id: self.task.request,
            priority: self.task.priority,
            cause: self.cause,
            tries: self.task.tries,
            crashes: self.task.crashes,
            error: view.error.clone(),
            content_type: view.content_type,
            bytes: self.task.bytes,
            received: Span(now.saturating_sub(self.task.received_at)),
            died: Span(now.saturating_sub(self.died_at)),
            replay_of: self.task.replay_of,
        };
        is_same_error && *view == as_expected
    }
}

/// The letters, and what came of them in this event.
#[derive(Clone, Debug, Default)]
pub(super) struct Dead {
    letters: BTreeMap<LetterId, Letter>,
    last: LetterId,
    /// Died in this event; the broker has numbered them.
    died: Vec<Letter>,
    /// An operator did something to them in this event.
    is_changed: bool,
}

impl Dead {
    /// How many there are, and their bytes.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.letters.len() as u64, self.letters.values().map(Letter::bytes).sum())
    }

    fn page<'a>(
        &'a self,
        page: &'a DeadPage<'_>,
    ) -> (impl Iterator<Item = (LetterId, &'a Letter)>, Option<LetterId>, LetterId) {
        let upto = page.upto.unwrap_or(self.last);
        let range = || self.letters.iter().filter(move |(id, _)| **id >= page.from && **id <= upto);
        let visits = page.visits.max(1) as usize;
        let next = range().nth(visits).map(|(id, _)| *id);
        let visited = range().take(visits).map(|(id, letter)| (*id, letter));
        (visited.filter(move |(_, letter)| letter.is_meant(page)), next, upto)
    }
}

impl Oracle {
    /// A task ends: FAILED, TIMED_OUT and CRASHED leave a letter, and so does a replay that nobody
    /// served; what was cancelled does not.
    pub(super) fn write_letter(&mut self, age: Age, status: Status, said: Option<&Said>) {
        let Some(task) = self.tasks.get(&age) else { return };
        let cause = match status {
            Status::Failed => DeathCause::Failed,
            Status::TimedOut => DeathCause::MaxRuntime,
            Status::NoService if task.replay_of.is_some() => DeathCause::NoService,
            Status::Crashed => match task.crash {
                Some(cause) => cause,
                None => return self.fail(format!("task {age} crashed, and nobody knows how")),
            },
            _ => return,
        };
        if task.cancelled.is_some() || self.config.dead_letters_max == 0 {
            return;
        }
        let client = match &task.replay_client {
            Some(client) => client.clone(),
            None => task.client.and_then(|id| Some(self.clients.get(&id)?.name.clone())),
        };
        let (task, said, died_at) = (task.clone(), said.cloned(), self.now);
        self.dead.died.push(Letter { task, client, cause, said, died_at });
        self.ledger.dead += 1;
        self.ledger.dead_held += 1;
    }

    /// When the oldest letter is too old.
    pub(super) fn oldest_letter_until(&self) -> Option<u64> {
        let (_, oldest) = self.dead.letters.first_key_value()?;
        Some(oldest.died_at.saturating_add(self.config.dead_kept.0))
    }

    /// The oldest letter leaves.
    pub(super) fn drop_oldest_letter(&mut self) {
        if self.dead.letters.pop_first().is_some() {
            self.ledger.dead_held -= 1;
            self.ledger.dead_dropped += 1;
            self.dead.is_changed = true;
        }
    }

    /// After an event: numbers for the letters of this event, and room for them.
    pub(super) fn file_letters(&mut self, core: &Broker<Body>) {
        if self.dead.died.is_empty() && !self.dead.is_changed && !self.is_tick {
            return;
        }
        self.dead.is_changed = false;
        let all = DeadPage {
            service: None,
            reason: None,
            from: LetterId(0),
            upto: None,
            visits: u32::MAX,
        };
        let real = core.letters_page(all).0;
        while self.is_tick
            && let Some((oldest, _)) = self.dead.letters.first_key_value()
            && real.first().is_none_or(|view| *oldest < view.letter)
            && self.oldest_letter_until().is_some_and(|until| until <= self.now)
        {
            self.drop_oldest_letter();
        }
        let (now, is_tick, before) = (self.now, self.is_tick, self.dead.last);
        let mut died = std::mem::take(&mut self.dead.died);
        for view in real.iter().filter(|view| view.letter > before) {
            let Some(at) = died.iter().position(|letter| letter.is_as(view, now, is_tick)) else {
                return self.fail(format!("nobody has died as {view:?} says; {died:?} have"));
            };
            let mut letter = died.swap_remove(at);
            letter.client.clone_from(&view.client);
            self.dead.letters.insert(view.letter, letter);
            self.dead.last = view.letter;
        }
        if let Err(text) = self.make_room(before, &died) {
            return self.fail(text);
        }
        let is_same = real
            .iter()
            .zip(&self.dead.letters)
            .all(|(view, (id, letter))| view.letter == *id && letter.is_as(view, now, false));
        if !is_same || real.len() != self.dead.letters.len() {
            self.fail(format!("dead letters: {real:?}, not {:?}", self.dead.letters));
        }
    }

    /// What has to leave: the oldest, and of those that died in this event the ones that are not there
    /// any more, as long as the others left them no room.
    fn make_room(&mut self, before: LetterId, missing: &[Letter]) -> Result<(), String> {
        let most = (u64::from(self.config.dead_letters_max), self.config.dead_bytes_max);
        let is_too_much = |(count, bytes): (u64, u64)| count > most.0 || bytes > most.1;
        self.ledger.dead_held -= missing.len() as u64;
        self.ledger.dead_dropped += missing.len() as u64;
        let displaced: Vec<&Letter> =
            missing.iter().filter(|letter| letter.bytes() <= most.1).collect();
        let (count, bytes) = self
            .dead
            .letters
            .range(LetterId(before.0 + 1)..)
            .fold((0, 0), |(count, bytes), (_, letter)| (count + 1, bytes + letter.bytes()));
        let mut largest = displaced.iter().map(|letter| letter.bytes());
        if !displaced.is_empty() {
            if !largest.any(|more| is_too_much((count + 1, bytes + more))) {
                return Err(format!("there was room for {displaced:?} beside {:?}", self.dead));
            }
            while self.dead.letters.first_key_value().is_some_and(|(id, _)| *id <= before) {
                self.drop_oldest_letter();
            }
        }
        while is_too_much(self.dead.counts()) {
            self.drop_oldest_letter();
        }
        Ok(())
    }

    pub(super) fn purge_dead(&mut self, page: &DeadPage<'_>) -> Outcome {
        let (letters, next, upto) = self.dead.page(page);
        let meant: Vec<LetterId> = letters.map(|(id, _)| id).collect();
        let count = meant.len() as u64;
        for id in meant {
            self.dead.letters.remove(&id);
        }
        self.ledger.dead_held -= count;
        self.ledger.dead_purged += count;
        self.dead.is_changed = true;
        Outcome::Is(Ok(AdminReply::DeadPurged { count, upto, next }))
    }

    /// Letters become tasks again. Which ones there was room for can depend on which of those before
    /// it were sent at once, which is the broker's choice.
    pub(super) fn replay(&mut self, page: &DeadPage<'_>, core: &Broker<Body>) -> Outcome {
        let (letters, next, upto) = self.dead.page(page);
        let meant: Vec<LetterId> = letters.map(|(id, _)| id).collect();
        let (mut count, mut busy, mut bytes) = (0, 0, self.counts.bytes);
        let mut sent_at_most: BTreeMap<String, u32> = BTreeMap::new();
        for id in meant {
            let letter = &self.dead.letters[&id];
            let (service, needed) = (letter.task.service.clone(), letter.task.bytes);
            let sent = sent_at_most.get(&service).copied().unwrap_or(0);
            let room = self.config.services_max - self.config.services_max / 4;
            let is_without_room = self.is_draining
                || !self.has_room_for(&service, room)
                || bytes + needed + TASK_BYTES > self.config.memory_bytes_max;
            let may_fit = !is_without_room && !self.is_past_service_limits(&service, needed, sent);
            let must_fit = !is_without_room && !self.is_past_service_limits(&service, needed, 0);
            let task = core.tasks().find(|view| view.replay_of == Some(id)).map(|view| view.task);
            match task {
                Some(_) if !may_fit => {
                    self.fail(format!("letter {} is replayed without room", id.0));
                    break;
                }
                None if must_fit => {
                    self.fail(format!("letter {} is not replayed: there is room", id.0));
                    break;
                }
                None => busy += 1,
                Some(task) => {
                    count += 1;
                    bytes += needed + TASK_BYTES;
                    *sent_at_most.entry(service).or_default() += 1;
                    self.replay_as(id, task);
                }
            }
        }
        self.ledger.replay_busy += busy;
        self.dead.is_changed = true;
        Outcome::Is(Ok::<_, AdminObjection>(AdminReply::Replayed { count, busy, upto, next }))
    }

    /// As if it came in now, but without a deadline and for nobody.
    fn replay_as(&mut self, id: LetterId, task: pinmesh_protocol::id::TaskId) {
        let Some(Letter { task: first, client, .. }) = self.dead.letters.remove(&id) else {
            return;
        };
        self.ledger.dead_held -= 1;
        self.ledger.replayed += 1;
        self.ledger.held += 1;
        self.tasks_seen += 1;
        let age = self.tasks_seen;
        let again = Task {
            client: None,
            runs_on: true,
            key: None,
            replay_of: Some(id),
            replay_client: Some(client),
            cancelled: None,
            is_closed: false,
            state: State::Pending,
            holder: None,
            dispatch: Dispatch(0),
            attempt: AttemptId::default(),
            sent_to: None,
            is_listed: false,
            tries: 0,
            crashes: 0,
            crash: None,
            received_at: self.now,
            order: self.event,
            queued_at: self.now,
            pending_since: self.now,
            sent_at: self.now,
            deadline: None,
            end: None,
            said: (Dispatch(0), 0),
            latest: None,
            is_told: false,
            id: None,
            ..first
        };
        self.tasks.insert(age, again);
        self.learn_id(age, task);
    }

    /// Replays of which nothing is left: what may have ended them without a word has happened.
    pub(super) fn settle_replays(&mut self, core: &Broker<Body>) {
        let replays = self.tasks.iter().filter(|(_, task)| task.replay_of.is_some());
        let open = replays.filter(|(_, task)| task.state == State::Pending);
        let due: Vec<Age> = open
            .map(|(age, _)| *age)
            .filter(|age| self.may_happen(super::time::Due::NoService(*age)))
            .collect();
        for age in due {
            let id = self.tasks[&age].id;
            if core.tasks().all(|view| Some(view.task) != id) {
                self.happen(super::time::Due::NoService(age));
            }
        }
    }
}
