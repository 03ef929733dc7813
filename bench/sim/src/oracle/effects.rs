//! Explains the real effects one by one. Where several things are due in the same tick, or an event
//! has several parts, an effect says which of them came first.

use pinmesh_core::{Conn, ResultHead};
use pinmesh_protocol::id::{AttemptId, PeerId};
use pinmesh_protocol::status::Status;

use super::book::{Age, End, InLine, State, Who, WorkerNo};
use super::time::Due;
use super::{Expected, Oracle, Piece};
use crate::record::{Effect, Said, Sent};

impl Oracle {
    pub(super) fn explain(&mut self, effect: &Effect) {
        let result = match effect {
            Effect::Task { to, head, bytes } => {
                let age = self.ids.get(&head.task).copied();
                self.start_if_due(age);
                self.bring_back(age);
                self.on_task(*to, head, *bytes)
            }
            Effect::Result { to, head, said } => self.on_result(*to, head, said),
            Effect::Progress { to, head, payload } => self.on_update(*to, head, payload),
            Effect::Send { to, command: Sent::Ack(count) } => self.on_ack_sent(*to, *count),
            Effect::Send { to, command: Sent::Recall(recall) } => self.on_recall(*to, recall),
            Effect::Send { command: Sent::Cancel(cancel), .. } => {
                self.expire_running(cancel.attempt);
                self.match_or_keep(effect);
                Ok(())
            }
            Effect::Close(conn) => {
                self.close_silent(*conn);
                self.match_or_keep(effect);
                Ok(())
            }
            Effect::Send { .. } | Effect::Stages(_) => {
                self.match_or_keep(effect);
                Ok(())
            }
        };
        if let Err(text) = result {
            self.fail(text);
        }
    }

    /// Takes an effect off the list of what is expected; keeps it if it is not there yet.
    fn match_or_keep(&mut self, effect: &Effect) {
        if !self.is_expected(effect) {
            self.unexplained.push(effect.clone());
        }
    }

    fn is_expected(&mut self, effect: &Effect) -> bool {
        let place = self.expected.iter().position(|expected| match (expected, effect) {
            (Expected::Sent(conn, sent), Effect::Send { to, command }) => {
                (conn, sent) == (to, command)
            }
            (
                Expected::Accepted(conn, request, age),
                Effect::Send { to, command: Sent::Accepted(accepted) },
            ) => {
                let id = self.tasks.get(age).and_then(|task| task.id);
                (conn, request, id) == (to, &accepted.request_id, Some(accepted.task))
            }
            (Expected::Close(conn), Effect::Close(closed)) => conn == closed,
            (Expected::Stages(stages), Effect::Stages(real)) => stages == real,
            _ => false,
        });
        place.map(|place| self.expected.swap_remove(place)).is_some()
    }

    /// What was expected and did not come, and what came and was not expected.
    pub(super) fn match_the_rest(&mut self) {
        for effect in std::mem::take(&mut self.unexplained) {
            if !self.is_expected(&effect) {
                let session = match &effect {
                    Effect::Close(conn) | Effect::Send { to: conn, .. } => self.sessions.get(conn),
                    _ => None,
                };
                let expected = &self.expected;
                self.fail(format!("not expected: {effect:?}, {session:?}; expected: {expected:?}"));
            }
        }
        let expected = std::mem::take(&mut self.expected);
        if !expected.is_empty() {
            self.fail(format!("missing: {expected:?}"));
        }
        let answers = std::mem::take(&mut self.answers);
        if !answers.is_empty() {
            self.fail(format!("answers that are missing: {answers:?}"));
        }
    }

    /// ACK may be said at any time, of all that was taken and not yet acknowledged.
    fn on_ack_sent(&mut self, to: Conn, count: u64) -> Result<(), String> {
        self.drop_who_holds(to);
        let Some(session) = self.sessions.get_mut(&to) else {
            return Err(format!("ACK to {to:?}, who has no session"));
        };
        let most = session.held.map_or(session.taken, |(most, _)| most.min(session.taken));
        if count != most || count <= session.acknowledged {
            return Err(format!(
                "ACK {count}: {} ends were taken, {} of them acknowledged",
                session.taken, session.acknowledged
            ));
        }
        session.acknowledged = count;
        session.unacknowledged_bytes = 0;
        Ok(())
    }

    fn on_result(&mut self, to: Conn, head: &ResultHead, said: &Said) -> Result<(), String> {
        let Some(Who::Client(id)) = self.sessions.get(&to).map(|session| session.who) else {
            return Err(format!("RESULT to {to:?}, who is no client"));
        };
        if matches!(head.status, Status::Busy | Status::Refused) {
            let place = self.answers.iter().position(|answer| *answer == (to, *head));
            let Some(place) = place else {
                return Err(format!("RESULT {head:?}; allowed: {:?}", self.answers));
            };
            self.answers.swap_remove(place);
            if let Some(client) = self.clients.get_mut(&id) {
                client.results.push_back(InLine::Answer);
            }
            return Ok(());
        }
        // Where its worker is gone in the same tick its words say whether it came back first.
        let is_back = matches!(said, Said::Text(text) if text.contains("before a worker was free"));
        let age = self.told(id, head).or_else(|| {
            self.end_now(id, head, is_back);
            self.told(id, head)
        });
        let Some(age) = age else {
            return Err(format!("RESULT {head:?} is not allowed: {}", self.held_as(id, head)));
        };
        let is_same = match self.tasks[&age].end.as_ref().and_then(|end| end.said.as_ref()) {
            Some(words) => words == said,
            None => matches!(said, Said::Text(_)),
        };
        if !is_same {
            return Err(format!("RESULT {head:?} with other words than its handler's"));
        }
        if let Some(task) = self.tasks.get_mut(&age) {
            task.is_told = true;
        }
        if self.has_untold_updates(id, age) {
            return Err(format!("RESULT {head:?} before its updates"));
        }
        if self.is_too_far_ahead(id, age, 0) {
            return Err(format!("RESULT {head:?} is too far ahead of its ACKs"));
        }
        match self.clients.get_mut(&id) {
            Some(client) if !client.is_full => client.results.push_back(InLine::Result(age)),
            _ => return Err(format!("RESULT {head:?} although its batch could not be sent")),
        }
        Ok(())
    }

    /// RESULTs of so many bytes, or one, are sent ahead of their ACKs. Nobody but the broker knows
    /// how many bytes the mesh's own words on a task count for: `words` of them.
    pub(super) fn is_too_far_ahead(&self, id: PeerId, age: Age, words: u64) -> bool {
        self.is_beyond(id, self.end_bytes(age, words), words)
    }

    /// Whether so many bytes more may not be sent to the client ahead of its ACKs.
    pub(super) fn is_beyond(&self, id: PeerId, bytes: u64, words: u64) -> bool {
        let Some(client) = self.clients.get(&id) else { return false };
        let told = client.results.iter().map(|told| match told {
            InLine::Answer => 0,
            InLine::Result(age) => self.end_bytes(*age, words),
            InLine::Update(update) => update.bytes(),
        });
        let ahead: u64 = told.sum();
        ahead > 0 && ahead + bytes > self.config.results_ahead_bytes
    }

    fn end_bytes(&self, age: Age, words: u64) -> u64 {
        match self.tasks.get(&age).and_then(|task| task.end.as_ref()) {
            Some(End { said: Some(Said::Handler(bytes)), .. }) => bytes.len() as u64,
            _ => words,
        }
    }

    /// A task of the client that has ended like this, and of which it was not told in this session.
    fn told(&self, id: PeerId, head: &ResultHead) -> Option<Age> {
        let ended = self.tasks.iter().filter(|(_, task)| {
            task.client == Some(id) && task.state == State::Ended && !task.is_told
        });
        let mut same = ended.filter(|(_, task)| {
            let Some(end) = &task.end else { return false };
            *head
                == ResultHead {
                    request_id: task.request,
                    submission: task.submission,
                    status: end.status,
                    tries: task.tries,
                    stages: end.stages,
                    retry_after_ns: None,
                }
        });
        same.next().map(|(age, _)| *age)
    }

    fn held_as(&self, id: PeerId, head: &ResultHead) -> String {
        let tasks = self.tasks.values();
        let of_request =
            tasks.filter(|task| task.client == Some(id) && task.request == head.request_id);
        let texts: Vec<_> = of_request
            .map(|task| {
                format!(
                    "{:?} {:?}, submission {}, tries {}, told {}",
                    task.state, task.end, task.submission, task.tries, task.is_told
                )
            })
            .collect();
        texts.join("; ")
    }

    /// A RESULT says that its task has just ended so: what may have ended it happens now.
    fn end_now(&mut self, id: PeerId, head: &ResultHead, is_back: bool) {
        let mut its = self.tasks.iter().filter(|(_, task)| {
            let is_its = task.client == Some(id) && task.request == head.request_id;
            is_its && task.state != State::Ended
        });
        // What ends a request with a key is the end of the task of its key.
        let age = its.next().map(|(age, task)| task.follows.map_or(*age, |follows| follows.lead));
        if let Some(age) = age {
            if is_back {
                self.bring_back(Some(age));
            }
            self.end_as(age, head.status);
        }
    }

    /// Lets happen what ends the task with this status, if something may.
    pub(super) fn end_as(&mut self, age: Age, status: Status) {
        if self.is_tick && status == Status::Cancelled {
            self.drop_who_waits(age);
        }
        let Some(state) = self.tasks.get(&age).map(|task| task.state) else { return };
        if state == State::Ended {
            return;
        }
        let own = match status {
            Status::NoService => Some(Due::NoService(age)),
            Status::Lost => Some(Due::NoEnd(age)),
            // A task whose time is over is ended when it is its turn, whether it is time to tick
            // or not.
            Status::Expired if self.is_tick || state == State::Pending => Some(Due::Deadline(age)),
            _ => None,
        };
        let may_tick = self.is_tick || status == Status::Expired;
        if let Some(due) = own.filter(|due| may_tick && self.may_happen(*due)) {
            return self.happen(due);
        }
        if !matches!(status, Status::Expired | Status::NoService) {
            self.bring_back(Some(age));
        }
    }

    /// A task goes on that a worker held: what may have taken it from there happens now.
    pub(super) fn bring_back(&mut self, age: Option<Age>) {
        let Some(task) = age.and_then(|age| self.tasks.get(&age)) else { return };
        let (attempt, Some(holder)) = (task.attempt, task.holder) else { return };
        let place = self.pieces.iter().position(|piece| match piece {
            Piece::Recalled(_, recalled) => *recalled == attempt,
            Piece::Gone(number) => *number == holder,
            Piece::Lease(_) => false,
        });
        if let Some(place) = place {
            // In their order, for RECALLED may name a later dispatch of the same task before.
            let pieces: Vec<Piece> = self.pieces.drain(..=place).collect();
            return pieces.into_iter().for_each(|piece| self.follow_piece(piece));
        }
        if !self.is_tick {
            return;
        }
        for due in self.ends_of(holder) {
            let is_held = age
                .and_then(|age| self.tasks.get(&age))
                .is_some_and(|task| task.holder == Some(holder));
            if is_held && self.may_happen(due) {
                self.happen(due);
            }
        }
        // Of a host that is gone each worker is a piece of its own.
        let place = self
            .pieces
            .iter()
            .position(|piece| matches!(piece, Piece::Gone(number) if *number == holder));
        if let Some(piece) = place.and_then(|place| self.pieces.remove(place)) {
            self.follow_piece(piece);
        }
    }

    /// What may take a worker away.
    pub(super) fn ends_of(&self, number: WorkerNo) -> Vec<Due> {
        let Some(worker) = self.workers.get(&number) else { return Vec::new() };
        let silence = worker.conn.map(Due::Silence);
        let host = worker.host.map(Due::HostGone);
        silence.into_iter().chain([Due::Away(number)]).chain(host).collect()
    }

    pub(super) fn follow_piece(&mut self, piece: Piece) {
        match piece {
            Piece::Recalled(conn, attempt) => self.take_recalled(conn, attempt),
            Piece::Lease(id) => self.renew_lease(id),
            Piece::Gone(number) => self.lose_worker(number, None),
        }
    }

    /// CANCEL in a tick: a deadline has passed while a worker had the task, or nobody has asked for
    /// an attempt of an earlier life.
    fn expire_running(&mut self, attempt: AttemptId) {
        if !self.is_tick {
            return;
        }
        let running = self.task_of(attempt).filter(|age| self.tasks[age].state == State::InFlight);
        let due = running.map_or(Due::Forsaken(attempt), Due::Deadline);
        if let Some(due) = Some(due).filter(|due| self.may_happen(*due)) {
            self.happen(due);
        }
    }

    /// A session is closed in a tick: its peer was silent, or its host is gone.
    fn close_silent(&mut self, conn: Conn) {
        let is_it = |expected: &Expected| matches!(expected, Expected::Close(it) if *it == conn);
        let is_known = self.expected.iter().any(is_it);
        let Some(session) = self.sessions.get(&conn).filter(|_| self.is_tick && !is_known) else {
            return;
        };
        let silence = Due::Silence(conn);
        let mut before = match session.who {
            Who::Host(id) => vec![Due::HostGone(id)],
            Who::Client(_) => Vec::new(),
            // Once nobody speaks for it any more, or what it brought along is forgotten, it may be
            // silent for less long.
            Who::Worker(number) => {
                let its = self.inherited.iter().filter(|(_, entry)| entry.worker == number);
                let host = self.workers.get(&number).and_then(|worker| worker.host);
                let forsaken = its.map(|(attempt, _)| Due::Forsaken(*attempt));
                forsaken.chain(host.map(Due::HostGone)).collect()
            }
        };
        before.retain(|due| self.may_happen(*due));
        while !self.may_happen(silence)
            && let Some(due) = before.pop()
        {
            self.happen(due);
        }
        if self.sessions.contains_key(&conn) && self.may_happen(silence) {
            self.happen(silence);
        }
    }
}
