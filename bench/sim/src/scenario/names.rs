//! Who is in a scenario, and the words that its events may have.

use std::collections::BTreeSet;

use pinmesh_protocol::status::{LossKind, Status};

/// Verbs of the story, behind whoever does it.
const VERBS: [&str; 12] = [
    "hears", "starts", "ends", "dies", "gets", "notes", "sends", "answers", "cancels", "drains",
    "leaves", "is",
];
/// Commands as the story names them.
const COMMANDS: [&str; 24] = [
    "HELLO",
    "WELCOME",
    "REFUSED",
    "NO_SESSION",
    "GOODBYE",
    "ACK",
    "WINDOW",
    "SERVICE",
    "SUBMIT",
    "CANCEL",
    "FETCH",
    "RESULT",
    "ACCEPTED",
    "FETCHED",
    "TASK",
    "DONE",
    "READY",
    "RETURN",
    "PROGRESS",
    "DRAIN",
    "HOST",
    "LOST",
    "RECALL",
    "RECALLED",
];
/// What else it says.
const OTHERS: [&str; 32] = [
    "from",
    "to",
    "of",
    "here",
    "soft",
    "hard",
    "running",
    "started",
    "nothing",
    "waiting",
    "claimed",
    "ended",
    "killed",
    "Kill",
    "Stop",
    "Continue",
    "Drain",
    "LeaseEnded",
    "Opened",
    "Closed",
    "Killing",
    "Died",
    "Up",
    "Ready",
    "Renewing",
    "RenewalOverdue",
    "Renewed",
    "Draining",
    "DrainOverdue",
    "Drained",
    "deadline",
    "busy",
];

/// Somebody in a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Actor {
    Broker(usize),
    /// A host, or its supervisor.
    Host(usize),
    /// Whoever is in that place of a host.
    Worker(usize, usize),
    Loner(usize),
    Client(usize),
}

/// Who is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) brokers: usize,
    pub(super) hosts: Vec<usize>,
    pub(super) loners: usize,
    pub(super) clients: usize,
    pub(super) requests: BTreeSet<String>,
}

impl Names {
    /// Whose name that is; `None`: it has not the form of a name.
    fn parse(word: &str) -> Option<Actor> {
        let number = |text: &str| text.parse::<usize>().ok();
        match word.as_bytes() {
            [letter @ b'a'..=b'g'] => return Some(Actor::Broker(usize::from(letter - b'a'))),
            [] => return None,
            _ => {}
        }
        let (kind, rest) = word.split_at_checked(1)?;
        match (kind, rest.split_once('.')) {
            ("h", Some((host, slot))) => Some(Actor::Worker(number(host)?, number(slot)?)),
            ("h", None) => Some(Actor::Host(number(rest)?)),
            ("l", None) => Some(Actor::Loner(number(rest)?)),
            ("c", None) => Some(Actor::Client(number(rest)?)),
            _ => None,
        }
    }

    /// Somebody who is there.
    pub(super) fn actor(&self, word: &str) -> Result<Actor, String> {
        let actor = Self::parse(word).ok_or_else(|| format!("{word:?} is nobody's name"))?;
        let is_there = match actor {
            Actor::Broker(at) => at < self.brokers,
            Actor::Host(at) => at < self.hosts.len(),
            Actor::Worker(at, slot) => self.hosts.get(at).is_some_and(|slots| slot < *slots),
            Actor::Loner(at) => at < self.loners,
            Actor::Client(at) => at < self.clients,
        };
        if is_there { Ok(actor) } else { Err(format!("{word} is not in the fleet")) }
    }

    pub(super) fn broker(&self, word: &str) -> Result<usize, String> {
        match self.actor(word)? {
            Actor::Broker(at) => Ok(at),
            _ => Err(format!("{word} is no broker")),
        }
    }

    pub(super) fn host(&self, word: &str) -> Result<usize, String> {
        match self.actor(word)? {
            Actor::Host(at) => Ok(at),
            _ => Err(format!("{word} is no host")),
        }
    }

    pub(super) fn request(&self, word: &str) -> Result<String, String> {
        let is_known = self.requests.contains(word);
        if is_known { Ok(word.into()) } else { Err(format!("no request is called {word:?}")) }
    }

    /// A name that a request may have: no word that a line of the story has anyway.
    pub(super) fn check_request(word: &str) -> Result<(), String> {
        let is_word = word.starts_with(|letter: char| letter.is_ascii_lowercase())
            && word.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if !is_word || is_known(word) || VERBS.contains(&word) || Self::parse(word).is_some() {
            return Err(format!("{word:?} cannot be the name of a request"));
        }
        Ok(())
    }

    fn is_actor(&self, word: &str) -> bool {
        let (place, life) = word.split_once('#').unwrap_or((word, "1"));
        life.parse::<u32>().is_ok() && self.actor(place).is_ok()
    }

    /// An event: each word is one that the story can have at that place.
    pub(super) fn event(&self, words: &[&str]) -> Result<Vec<String>, String> {
        let (first, verb) = match words {
            [first, verb, ..] => (*first, *verb),
            _ => return Err("an event is somebody, a verb, and what more it takes".into()),
        };
        if !self.is_actor(first) && !self.requests.contains(first) {
            return Err(format!("{first:?} is neither in the fleet nor a request"));
        }
        if !VERBS.contains(&verb) {
            return Err(format!("{verb:?} is no verb of the story: {}", VERBS.join(", ")));
        }
        for word in &words[2..] {
            if !self.is_actor(word) && !self.requests.contains(*word) && !is_known(word) {
                return Err(format!("the story never says {word:?}"));
            }
        }
        Ok(words.iter().map(|word| (*word).to_owned()).collect())
    }

    /// Words of a command: its name, and what more is told of it.
    pub(super) fn command(&self, words: &[&str]) -> Result<Vec<String>, String> {
        let first = words.first().copied().unwrap_or_default();
        if !COMMANDS.contains(&first) {
            return Err(format!("{first:?} is no command"));
        }
        for word in &words[1..] {
            if !self.is_actor(word) && !self.requests.contains(*word) && !is_known(word) {
                return Err(format!("the story never says {word:?}"));
            }
        }
        Ok(words.iter().map(|word| (*word).to_owned()).collect())
    }
}

/// Whether the story has the word, whoever is in it.
fn is_known(word: &str) -> bool {
    let is_numbered = word.split_at_checked(1).is_some_and(|(kind, number)| {
        // Dispatches, submissions, epochs; lives of a broker (`a2`).
        number.parse::<u32>().is_ok() && "dseab".contains(kind)
    });
    let mut statuses = Status::ALL.iter().map(|status| status.name());
    let mut causes = LossKind::ALL.iter().flat_map(|cause| cause.name().split(' '));
    COMMANDS.contains(&word)
        || OTHERS.contains(&word)
        || is_numbered
        || word.parse::<u64>().is_ok()
        || statuses.any(|status| status == word)
        || causes.any(|cause| cause == word)
}
