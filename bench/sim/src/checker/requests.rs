//! Every request ends exactly once, in a way that what was asked and what was done allow.

use pinmesh_protocol::command::{Payload, TaskResult};
use pinmesh_protocol::id::Submission;
use pinmesh_protocol::status::Status;
use pinmesh_session::client::{LocalEnd, Outcome};

use super::Checker;
use crate::counters::Count;
use crate::task::{Act, IdempotencyKey, Key, Output};
use crate::world::World;

/// What is known of a request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What its handler does.
    pub act: Act,
    /// It may run at most once.
    pub is_at_most_once: bool,
    /// Its task goes on without its client.
    pub runs_on: bool,
    /// It is a FETCH.
    pub is_fetch: bool,
    /// Its idempotency key.
    pub key: Option<IdempotencyKey>,
    /// It has a deadline.
    pub has_deadline: bool,
    /// Its options cannot be read.
    pub has_bad_options: bool,
    /// BUSY ends it.
    pub shows_busy: bool,
    /// It was handed in to another broker.
    pub has_moved: bool,
    /// Its caller has cancelled it.
    pub is_cancelled: bool,
    /// An operator has cancelled it, or purged its service.
    pub is_operator_cancelled: bool,
    /// It has ended.
    pub is_resolved: bool,
    /// Times that a handler was entered for it.
    pub starts: u32,
    /// Times that an operator ran it again after its end.
    pub replays: u32,
    /// Its worker was killed for its max runtime.
    pub overruns: u32,
    /// The latest submission, and where it went.
    pub submission: Submission,
    /// Where it was sent.
    pub broker: usize,
    /// Workers that entered its handler, in that order; noted where the story is told.
    pub ran_on: Vec<String>,
    /// How it ended; noted where the story is told.
    pub end: Option<String>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            act: Act::Ok,
            is_at_most_once: false,
            runs_on: false,
            is_fetch: false,
            key: None,
            has_deadline: false,
            has_bad_options: false,
            shows_busy: false,
            has_moved: false,
            is_cancelled: false,
            is_operator_cancelled: false,
            is_resolved: false,
            starts: 0,
            replays: 0,
            overruns: 0,
            submission: Submission(0),
            broker: 0,
            ran_on: Vec::new(),
            end: None,
        }
    }
}

impl Checker {
    /// A caller hands a request in.
    pub fn on_asked(&mut self, world: &mut World, key: Key, asked: Asked) {
        world.counters.add(Count::Requests);
        if let Some(idempotency_key) = asked.key {
            self.by_key.entry(idempotency_key).or_default().push(key);
        }
        if self.requests.insert(key, asked).is_some() {
            self.fail(format!("{key}: a request id is used twice"));
        }
    }

    /// A client sends a submission.
    pub fn on_submit(
        &mut self,
        world: &mut World,
        key: Key,
        broker: usize,
        submission: Submission,
    ) {
        let Some(asked) = self.requests.get_mut(&key) else { return };
        let (before, earlier) = (asked.submission, asked.broker);
        asked.submission = submission;
        asked.broker = broker;
        asked.has_moved |= submission.0 > 1 && broker != earlier;
        if submission.0 > 1 && submission > before {
            world.counters.add(Count::Resubmitted);
        }
        if submission < before {
            self.fail(format!("{key}: submission {submission} after {before}"));
        } else if submission == before && broker != earlier {
            self.fail(format!("{key}: submission {submission} goes to two brokers"));
        }
    }

    /// A caller wants it no longer.
    pub fn on_cancelled(&mut self, key: Key) {
        if let Some(asked) = self.requests.get_mut(&key) {
            asked.is_cancelled = true;
        }
    }

    /// An operator may have ended it.
    pub fn on_operator_cancel(&mut self, key: Key) {
        if let Some(asked) = self.requests.get_mut(&key) {
            asked.is_operator_cancelled = true;
        }
    }

    /// An operator runs its dead letter again.
    pub fn on_replay(&mut self, key: Key) {
        match self.requests.get_mut(&key) {
            Some(asked) => asked.replays += 1,
            None => self.fail(format!("{key} is replayed and was never asked for")),
        }
    }

    /// A request ends at its client.
    pub fn on_resolved(&mut self, world: &mut World, key: Key, outcome: &Outcome<'_>) {
        let Some(asked) = self.requests.get_mut(&key) else {
            return self.fail(format!("{key} ends and was never asked for"));
        };
        if std::mem::replace(&mut asked.is_resolved, true) {
            return self.fail(format!("{key} ends twice, now {outcome:?}"));
        }
        if self.is_told {
            asked.end = Some(crate::story::outcome(outcome));
        }
        let asked = asked.clone();
        let objection = match outcome {
            Outcome::Result(result) => {
                world.counters.add_many(Count::Fetched, asked.is_fetch.into());
                self.objection_to_result(key, &asked, result)
            }
            Outcome::Local(end) => {
                let (is_allowed, count) = match end {
                    LocalEnd::Expired => (asked.has_deadline, Some(Count::LocalExpired)),
                    LocalEnd::Busy { .. } => (asked.shows_busy, Some(Count::LocalBusy)),
                    LocalEnd::Cancelled => (asked.is_cancelled, Some(Count::LocalCancelled)),
                    LocalEnd::Lost => (asked.is_at_most_once, Some(Count::LocalLost)),
                    LocalEnd::Closed => (true, None),
                    LocalEnd::NotEnded => (asked.is_fetch, Some(Count::FetchNotEnded)),
                    LocalEnd::UnknownKey => (asked.is_fetch, Some(Count::FetchUnknown)),
                    LocalEnd::Full
                    | LocalEnd::PayloadTooLarge { .. }
                    | LocalEnd::HeaderTooLarge { .. } => (false, None),
                };
                if let Some(count) = count {
                    world.counters.add(count);
                }
                (!is_allowed).then_some("nobody asked for that")
            }
        };
        if let Some(objection) = objection {
            self.fail(format!("{key} ends {outcome:?}: {objection}; {asked:?}"));
        }
    }

    fn objection_to_result(
        &self,
        key: Key,
        asked: &Asked,
        result: &TaskResult<'_>,
    ) -> Option<&'static str> {
        let output = match result.payload {
            Payload::Inline(bytes) => Output::from_payload(bytes),
            Payload::Frames(_) => None,
        };
        if let Some(output) = output.filter(|_| result.stages.is_some()) {
            let Some((of, attempt, status)) = self.outputs.get(&output.token) else {
                return Some("no handler returned that");
            };
            if !self.is_same_work(*of, key) || output.key != *of {
                return Some("it is somebody else's");
            }
            if Status::from(*status) != result.status {
                return Some("the handler ended otherwise");
            }
            // What this broker said while another had the request is not heard.
            if self.is_current(attempt.epoch)
                && result.submission == asked.submission
                && !asked.has_moved
                // Nobody hears what tasks with a key say while they run.
                && asked.key.is_none()
                && let Some(why) = self.unheard(key, *attempt)
            {
                return Some(why);
            }
        }
        let has_output = output.is_some() && result.stages.is_some();
        let is_allowed = match result.status {
            Status::Ok | Status::Failed => has_output,
            // The options of the request that came first are those of a key's task.
            Status::Expired => self.any_alike(key, |asked| asked.has_deadline),
            Status::TimedOut => self.any_alike(key, |asked| asked.overruns > 0),
            Status::Crashed => result.tries > 0,
            Status::Cancelled => {
                asked.is_cancelled
                    || asked.is_fetch
                    || self.any_alike(key, |asked| asked.is_operator_cancelled)
                    || (has_output && self.has_drained_hosts)
            }
            Status::Busy => asked.shows_busy || asked.is_cancelled || asked.has_deadline,
            Status::NoService => true,
            Status::Refused => {
                asked.has_bad_options || asked.key.is_some_and(|key| key.service.is_none())
            }
            Status::Lost => self.any_alike(key, |asked| asked.is_at_most_once),
        };
        if result.submission > asked.submission {
            return Some("a submission that was never sent");
        }
        (!is_allowed).then_some("nothing that was done or asked allows that")
    }

    /// Whether a run for one request may be the other's too.
    pub(super) fn is_same_work(&self, of: Key, key: Key) -> bool {
        let key_of = |key| self.requests.get(&key).and_then(|asked| asked.key);
        of == key || key_of(of).is_some_and(|of| Some(of) == key_of(key))
    }

    /// Whether it is so of the request, or of any with the same idempotency key.
    fn any_alike(&self, key: Key, is_so: impl Fn(&Asked) -> bool) -> bool {
        let Some(asked) = self.requests.get(&key) else { return false };
        let alike = asked.key.and_then(|key| self.by_key.get(&key));
        let mut alike = alike.into_iter().flatten().filter_map(|key| self.requests.get(key));
        is_so(asked) || alike.any(is_so)
    }

    /// Requests of living clients that have not ended.
    pub fn unresolved(&self) -> Vec<Key> {
        let open = self
            .requests
            .iter()
            .filter(|(key, asked)| !asked.is_resolved && !self.dead_clients.contains(&key.client));
        open.map(|(key, _)| *key).collect()
    }
}
