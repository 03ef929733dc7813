//! What the processes of a chaos run write down: one line an event, one `write` a line, each
//! process into a file of its own, so that SIGKILL loses nothing that was written.
//!
//! All times are CLOCK_MONOTONIC in nanoseconds, which every process of a machine reads alike, in
//! whichever network namespace it is.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

use rustix::time::{ClockId, clock_gettime};

/// Variable with the folder of a run's records.
pub const FOLDER: &str = "PINMESH_CHAOS_FOLDER";
/// Variable with the name of the host that a worker is on.
pub const HOST: &str = "PINMESH_CHAOS_HOST";
/// Variable with the service that a worker serves.
pub const SERVICE: &str = "PINMESH_CHAOS_SERVICE";

/// Now, nanoseconds.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A task as the recorder names it, which is not how the mesh does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskKey {
    /// The client process, counted from 0 within a run.
    pub client: u32,
    /// Its number for the task.
    pub number: u64,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.client, self.number)
    }
}

impl FromStr for TaskKey {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (client, number) = text.split_once('-').ok_or(Unreadable)?;
        Ok(Self { client: read(Some(client))?, number: read(Some(number))? })
    }
}

/// What a task's handler does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Waits.
    Sleep,
    /// Keeps its CPU busy.
    Spin,
}

/// A payload: a line that says whose it is and what to do, then bytes that only have to come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    /// The task.
    pub key: TaskKey,
    /// What to do.
    pub action: Action,
    /// For how long.
    pub ns: u64,
}

impl Order {
    /// The payload: the line, and what makes it so many bytes in all.
    pub fn payload(&self, length: usize) -> Vec<u8> {
        let Self { key, action, ns } = *self;
        let action = if action == Action::Sleep { "sleep" } else { "spin" };
        let mut bytes = format!("{key} {action} {ns}\n").into_bytes();
        // Not the same from task to task, nor at two places of one that lie a frame apart.
        let at = |place: usize| (place as u64 * 0x9E37 + (place >> 11) as u64 + key.number) as u8;
        bytes.extend((bytes.len()..length).map(at));
        bytes
    }

    /// Reads the line of a payload.
    ///
    /// # Errors
    /// It is another's.
    pub fn read(payload: &[u8]) -> Result<Self, Unreadable> {
        let end = payload.iter().position(|byte| *byte == b'\n').ok_or(Unreadable)?;
        let line = std::str::from_utf8(&payload[..end]).map_err(|_| Unreadable)?;
        let mut words = line.split(' ');
        let key = read(words.next())?;
        let action = match words.next() {
            Some("sleep") => Action::Sleep,
            Some("spin") => Action::Spin,
            _ => return Err(Unreadable),
        };
        Ok(Self { key, action, ns: read(words.next())? })
    }
}

/// The mesh's own names of an attempt, as a handler sees them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Names {
    /// The client's id, in hex, and its number for the request.
    pub request: (String, u64),
    /// Epoch, task and dispatch.
    pub attempt: (u32, u64, u32),
    /// Starts that ended badly before.
    pub tries: u32,
}

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A worker starts an attempt.
    Start {
        /// Of which task.
        key: TaskKey,
        /// What the mesh calls it.
        names: Names,
        /// The lock of the task is another living attempt's: the two overlap, says the kernel.
        overlaps: bool,
    },
    /// A worker has ended its attempt.
    End(TaskKey),
    /// A client is about to submit.
    Submit {
        /// Its number for the task.
        number: u64,
        /// Meant to outlast leases.
        is_long: bool,
    },
    /// A client has an outcome.
    Outcome {
        /// Its number for the task.
        number: u64,
        /// How the task ended, if not OK.
        failure: Option<String>,
    },
    /// A client has closed with nothing left.
    Closed,
    /// Whoever does the damage says what.
    Deed(String),
}

/// An event and its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Nanoseconds.
    pub ns: u64,
    /// What.
    pub event: Event,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.ns;
        match &self.event {
            Event::Start { key, names, overlaps } => {
                let Names { request, attempt, tries } = names;
                let (client, request) = request;
                let (epoch, task, dispatch) = attempt;
                let lock = if *overlaps { "overlaps" } else { "alone" };
                write!(
                    f,
                    "start {ns} {key} {client} {request} {epoch} {task} {dispatch} {tries} {lock}"
                )
            }
            Event::End(key) => write!(f, "end {ns} {key}"),
            Event::Submit { number, is_long } => {
                write!(f, "submit {ns} {number} {}", if *is_long { "long" } else { "short" })
            }
            Event::Outcome { number, failure: None } => write!(f, "outcome {ns} {number} ok"),
            Event::Outcome { number, failure: Some(failure) } => {
                write!(f, "outcome {ns} {number} not {}", failure.replace('\n', " "))
            }
            Event::Closed => write!(f, "closed {ns}"),
            Event::Deed(text) => write!(f, "deed {ns} {}", text.replace('\n', " ")),
        }
    }
}

/// A line that no process of ours has written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreadable;

fn read<T: FromStr>(word: Option<&str>) -> Result<T, Unreadable> {
    word.and_then(|word| word.parse().ok()).ok_or(Unreadable)
}

impl FromStr for Line {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (kind, rest) = text.split_once(' ').ok_or(Unreadable)?;
        let (ns, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut words = rest.split(' ');
        let event = match kind {
            "start" => Event::Start {
                key: read(words.next())?,
                names: Names {
                    request: (read(words.next())?, read(words.next())?),
                    attempt: (read(words.next())?, read(words.next())?, read(words.next())?),
                    tries: read(words.next())?,
                },
                overlaps: match words.next() {
                    Some("overlaps") => true,
                    Some("alone") => false,
                    _ => return Err(Unreadable),
                },
            },
            "end" => Event::End(read(words.next())?),
            "submit" => {
                Event::Submit { number: read(words.next())?, is_long: words.next() == Some("long") }
            }
            "outcome" => {
                let number = read(words.next())?;
                let failure = match words.next() {
                    Some("ok") => None,
                    Some("not") => Some(words.collect::<Vec<_>>().join(" ")),
                    _ => return Err(Unreadable),
                };
                Event::Outcome { number, failure }
            }
            "closed" => Event::Closed,
            "deed" => Event::Deed(rest.to_owned()),
            _ => return Err(Unreadable),
        };
        Ok(Self { ns: read(Some(ns))?, event })
    }
}

/// A process's own file.
#[derive(Debug)]
pub struct Recorder(File);

impl Recorder {
    /// Makes it.
    ///
    /// # Errors
    /// The folder is not there or cannot be written.
    pub fn create(folder: &Path, name: &str) -> io::Result<Self> {
        OpenOptions::new().append(true).create(true).open(folder.join(name)).map(Self)
    }

    /// Appends an event of this moment; the moment.
    ///
    /// # Panics
    /// The file cannot be written: a record with a gap proves nothing.
    pub fn note(&self, event: Event) -> u64 {
        let line = Line { ns: now_ns(), event };
        (&self.0).write_all(format!("{line}\n").as_bytes()).expect("the record can be written");
        line.ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_reads_back_as_it_was_written() {
        let key = TaskKey { client: 3, number: 77 };
        let names = Names { request: ("00ff".into(), 9), attempt: (1, 1 << 40, 2), tries: 1 };
        let events = [
            Event::Start { key, names: names.clone(), overlaps: true },
            Event::Start { key, names, overlaps: false },
            Event::End(key),
            Event::Submit { number: 1, is_long: true },
            Event::Submit { number: 2, is_long: false },
            Event::Outcome { number: 1, failure: None },
            Event::Outcome { number: 1, failure: Some("a reason of words".into()) },
            Event::Closed,
            Event::Deed("kill 17".into()),
        ];
        for event in events {
            let line = Line { ns: 12_345, event };
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        for text in ["", "start", "end x 1-2", "outcome 5 1 maybe", "start 1 1-2 ab 1 1 1 1 0"] {
            assert_eq!(text.parse::<Line>(), Err(Unreadable), "{text}");
        }
    }

    #[test]
    fn a_payload_says_whose_it_is_and_what_to_do() {
        let key = TaskKey { client: 0, number: 5 };
        let order = Order { key, action: Action::Spin, ns: 1_000 };
        let payload = order.payload(100);
        assert_eq!(Order::read(&payload), Ok(order));
        assert_eq!((payload.len(), &*order.payload(0)), (100, &b"0-5 spin 1000\n"[..]));
        assert_eq!(Order::read(b"hello"), Err(Unreadable));
    }
}
