//! What the processes of a run have written so far.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::record::{Event, Line, Names, TaskKey};

/// One run of a task in one worker process.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Of which task.
    pub key: TaskKey,
    /// What the mesh calls it.
    pub names: Names,
    /// The process, as a place in [`Records::workers`].
    pub worker: usize,
    /// When it started, nanoseconds.
    pub start_ns: u64,
    /// When it ended; `None`: it has not, or its process died in it.
    pub end_ns: Option<u64>,
    /// Another attempt of the task held its lock at the start.
    pub overlaps: bool,
}

/// A worker process that has run something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerLife {
    /// Its host.
    pub host: String,
    /// Its number.
    pub pid: i32,
    /// Its attempt without an end, as a place in [`Records::attempts`].
    current: Option<usize>,
}

/// A task and what is known of it.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// When it was submitted, nanoseconds.
    pub submitted_ns: Option<u64>,
    /// Meant to outlast leases.
    pub is_long: bool,
    /// When outcomes came to its client, and how it had failed.
    pub outcomes: Vec<(u64, Option<String>)>,
    /// Its attempts, as places in [`Records::attempts`].
    pub attempts: Vec<usize>,
}

#[derive(Debug)]
enum Writer {
    Worker(usize),
    Client(u32),
    Other,
}

#[derive(Debug)]
struct Source {
    file: File,
    writer: Writer,
    /// A line whose end is not there yet.
    rest: Vec<u8>,
}

/// Everything that was written in a run's folder, so far.
#[derive(Debug)]
pub struct Records {
    folder: PathBuf,
    sources: BTreeMap<String, Source>,
    /// Every task.
    pub tasks: BTreeMap<TaskKey, Task>,
    /// Every attempt, nearly in the order of their starts.
    pub attempts: Vec<Attempt>,
    /// Worker processes in the order in which they came.
    pub workers: Vec<WorkerLife>,
    /// Clients that have closed with nothing left.
    pub closed: BTreeSet<u32>,
    /// What no process of ours should have written.
    pub nonsense: Vec<String>,
    /// Short tasks without an outcome: when they were submitted.
    open: HashMap<u32, BTreeMap<u64, u64>>,
}

impl Records {
    /// Those of a folder.
    pub fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            sources: BTreeMap::new(),
            tasks: BTreeMap::new(),
            attempts: Vec::new(),
            workers: Vec::new(),
            closed: BTreeSet::new(),
            nonsense: Vec::new(),
            open: HashMap::new(),
        }
    }

    /// Reads what was written since.
    ///
    /// # Panics
    /// The folder or a file in it cannot be read.
    pub fn refresh(&mut self) {
        self.find_new();
        let mut sources = std::mem::take(&mut self.sources);
        for (name, source) in &mut sources {
            let mut bytes = std::mem::take(&mut source.rest);
            source.file.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            source.rest = bytes.split_off(end);
            for text in String::from_utf8_lossy(&bytes).lines() {
                match text.parse() {
                    Ok(line) => self.take(&source.writer, line),
                    Err(_) => self.nonsense.push(format!("{name}: `{text}`")),
                }
            }
        }
        self.sources = sources;
    }

    fn find_new(&mut self) {
        let entries = fs::read_dir(&self.folder).expect("the run's folder");
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !self.sources.contains_key(name))
            .filter(|name| ["worker-", "client-"].iter().any(|start| name.starts_with(start)))
            .collect();
        names.sort();
        for name in names {
            let file = File::open(self.folder.join(&name)).expect("a file of the run");
            let writer = self.writer(&name);
            self.sources.insert(name, Source { file, writer, rest: Vec::new() });
        }
    }

    fn writer(&mut self, name: &str) -> Writer {
        let words: Vec<&str> = name.split('-').collect();
        match words[..] {
            ["worker", host, pid, _] => {
                let pid = pid.parse().unwrap_or_default();
                self.workers.push(WorkerLife { host: host.to_owned(), pid, current: None });
                Writer::Worker(self.workers.len() - 1)
            }
            ["client", number] => number.parse().map_or(Writer::Other, Writer::Client),
            _ => Writer::Other,
        }
    }

    fn take(&mut self, writer: &Writer, line: Line) {
        let ns = line.ns;
        match (writer, line.event) {
            (Writer::Worker(worker), Event::Start { key, names, overlaps }) => {
                let attempt =
                    Attempt { key, names, worker: *worker, start_ns: ns, end_ns: None, overlaps };
                let index = self.attempts.len();
                self.attempts.push(attempt);
                self.tasks.entry(key).or_default().attempts.push(index);
                if self.workers[*worker].current.replace(index).is_some() {
                    self.nonsense.push(format!("worker {worker} starts {key} inside another"));
                }
            }
            (Writer::Worker(worker), Event::End(key)) => {
                match self.workers[*worker].current.take() {
                    Some(index) if self.attempts[index].key == key => {
                        self.attempts[index].end_ns = Some(ns);
                    }
                    _ => self.nonsense.push(format!("worker {worker} ends {key} unstarted")),
                }
            }
            (Writer::Client(client), Event::Submit { number, is_long }) => {
                let task = self.tasks.entry(TaskKey { client: *client, number }).or_default();
                (task.submitted_ns, task.is_long) = (Some(ns), is_long);
                if !is_long {
                    self.open.entry(*client).or_default().insert(number, ns);
                }
            }
            (Writer::Client(client), Event::Outcome { number, failure }) => {
                let task = self.tasks.entry(TaskKey { client: *client, number }).or_default();
                task.outcomes.push((ns, failure));
                self.open.entry(*client).or_default().remove(&number);
            }
            (Writer::Client(client), Event::Closed) => {
                self.closed.insert(*client);
            }
            (writer, event) => self.nonsense.push(format!("{writer:?} writes {event:?}")),
        }
    }

    /// Whether every short task that a client had submitted by then has an outcome.
    pub fn is_settled(&self, client: u32, by_ns: u64) -> bool {
        let open = self.open.get(&client);
        open.is_none_or(|open| open.values().next().is_none_or(|submitted| *submitted > by_ns))
    }

    /// Outcomes in all.
    pub fn outcomes(&self) -> usize {
        self.tasks.values().map(|task| task.outcomes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Recorder;

    fn start(number: u64) -> Event {
        let names = Names { request: ("aa".into(), number), attempt: (1, number, 1), tries: 0 };
        Event::Start { key: TaskKey { client: 0, number }, names, overlaps: false }
    }

    #[test]
    fn records_are_read_as_they_grow() {
        let folder = tempfile::tempdir().unwrap();
        let client = Recorder::create(folder.path(), "client-0").unwrap();
        let worker = Recorder::create(folder.path(), "worker-a-17-1").unwrap();
        let mut records = Records::of(folder.path());
        let at = client.note(Event::Submit { number: 4, is_long: false });
        worker.note(start(4));
        records.refresh();
        assert!(!records.is_settled(0, at) && records.is_settled(0, at - 1));
        assert_eq!(records.attempts[0].end_ns, None);
        let ended = worker.note(Event::End(TaskKey { client: 0, number: 4 }));
        client.note(Event::Outcome { number: 4, failure: None });
        client.note(Event::Closed);
        records.refresh();
        assert!(records.is_settled(0, at) && records.closed.contains(&0));
        assert_eq!((records.attempts[0].end_ns, records.outcomes()), (Some(ended), 1));
        assert_eq!(records.workers[0].pid, 17);
        assert_eq!(records.nonsense, [""; 0]);
    }

    #[test]
    fn what_cannot_be_is_kept_as_nonsense() {
        let folder = tempfile::tempdir().unwrap();
        let worker = Recorder::create(folder.path(), "worker-a-17-1").unwrap();
        worker.note(start(1));
        worker.note(start(2));
        worker.note(Event::End(TaskKey { client: 0, number: 1 }));
        worker.note(Event::Closed);
        let mut records = Records::of(folder.path());
        records.refresh();
        assert_eq!(records.nonsense.len(), 3, "{:?}", records.nonsense);
    }
}
