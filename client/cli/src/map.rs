//! `map`: one task for each input, a bounded number at a time.

mod errors;
mod journal;
mod outputs;
mod sink;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pinmesh_client::{Client, Completions, Error, RawOutcome, RequestId, Task};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::{Connection, Map};
use crate::failure::{Failure, INTERRUPTED, OK, OUTPUT, TASK_FAILED};
use crate::format::Rendered;
use crate::inputs::{Input, Source};
use crate::progress::{Progress, Tally};
use crate::tasks::{GOODBYE, connect, task};
use errors::{ErrorLog, Fault};
use journal::Journal;
use sink::{PutError, Sink};

/// Bytes of results that may wait for their turn in an ordered map before no more tasks are begun.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// Bytes of inputs under way after which no more are begun: what a client takes without waiting.
const UNDER_WAY_BYTES_MAX: u64 = 256 << 20;
/// Between two looks at the clock and at signals.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// An input that is under way.
#[derive(Debug)]
struct Named {
    name: Vec<u8>,
    place: PathBuf,
    /// Of its payload.
    bytes: u64,
}

/// An input that is not under way any more.
#[derive(Debug)]
enum Ended {
    /// An earlier run has done it.
    Before,
    Now(Named, Result<Rendered, Fault>),
}

impl Ended {
    fn len(&self) -> usize {
        match self {
            Self::Now(_, Ok(result)) => result.bytes.len(),
            Self::Before | Self::Now(_, Err(_)) => 0,
        }
    }
}

struct Run<'a> {
    args: &'a Map,
    sink: Sink,
    journal: Option<Journal>,
    errors: Option<ErrorLog>,
    progress: Progress,
    tally: Tally,
    under_way: HashMap<u64, (RequestId, Named)>,
    under_way_bytes: u64,
    /// In an ordered map: ends that wait for those before them, their bytes, and whose turn it is.
    waiting: BTreeMap<u64, Ended>,
    waiting_bytes: usize,
    turn: u64,
    /// Somebody wants it to stop.
    stop: Arc<AtomicBool>,
}

pub(crate) fn map(connection: &Connection, args: &Map) -> Result<u8, Failure> {
    let source = Source::new(args)?;
    outputs::check(&source, args)?;
    let mut journal = match &args.resume {
        None => None,
        Some(path) => Some(Journal::open(path, &about(&source, args))?),
    };
    let total = survey(&source, args, journal.as_ref())?;
    let client = connect(connection, Some(args.window))?;
    let sink = Sink::open(args, journal.as_mut())?;
    let skipped = journal.as_ref().map_or(0, |journal| journal.len() as u64);
    let mut run = Run {
        args,
        sink,
        journal,
        errors: args.errors.as_deref().map(ErrorLog::create).transpose()?,
        progress: Progress::new(args.progress, total, skipped),
        tally: Tally::default(),
        under_way: HashMap::new(),
        under_way_bytes: 0,
        waiting: BTreeMap::new(),
        waiting_bytes: 0,
        turn: 0,
        stop: stop_on_signals()?,
    };
    let mut result = run.all(&client, &source);
    if let Err(failure) = &result
        && failure.code != OUTPUT
    {
        // What is done is done, whatever ended it.
        result = run.commit().and(result);
    }
    run.progress.finish(run.tally);
    if result.is_err() {
        // Nobody will read what is still under way.
        run.under_way.values().for_each(|&(request_id, _)| client.cancel(request_id));
    }
    run.sink.close();
    result?;
    let _ = client.close(GOODBYE);
    Ok(if run.tally.failed == 0 { OK } else { TASK_FAILED })
}

/// What must be the same when a map is resumed.
fn about(source: &Source, args: &Map) -> serde_json::Value {
    let format = args.task.format.name();
    let (service, inputs) = (&args.service, source.kind());
    match args.output_dir {
        Some(_) => json!({ "service": service, "format": format, "inputs": inputs,
            "output": "folder", "suffix": args.suffix }),
        None => json!({ "service": service, "format": format, "inputs": inputs,
            "output": "file", "output-format": args.output_format.to_string(),
            "ordered": args.ordered }),
    }
}

/// Looks at all inputs by name, where that can be done twice: whether they are those of the journal,
/// and whether each has a result of its own. Returns how many there are.
fn survey(source: &Source, args: &Map, journal: Option<&Journal>) -> Result<Option<u64>, Failure> {
    let has_places = args.output_dir.is_some();
    let is_of_use = has_places || journal.is_some() || Progress::is_wanted(args.progress);
    if !is_of_use || !source.is_replayable() {
        return Ok(None);
    }
    let mut names: HashMap<PathBuf, Vec<u8>> = HashMap::new();
    let mut count = 0;
    for input in source.inputs()? {
        if let Some(journal) = journal {
            journal.is_done(count, &input.name)?;
        }
        count += 1;
        let Some(place) = input.place.filter(|_| has_places) else { continue };
        if let Some(other) = names.get(&place) {
            return Err(Failure::usage(format!(
                "--output-dir: the results of `{}` and `{}` would both be `{}`; give their common \
                 folder, or map them one after the other to different folders",
                String::from_utf8_lossy(other),
                String::from_utf8_lossy(&input.name),
                place.display()
            )));
        }
        names.insert(place, input.name);
    }
    journal.map_or(Ok(()), |journal| journal.check_count(count))?;
    Ok(Some(count))
}

/// Raised by SIGINT and SIGTERM; the second one ends the program.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let code = i32::from(INTERRUPTED);
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Failure::task(format!("cannot watch for signals: {error}")))?;
    }
    Ok(stop)
}

impl Run<'_> {
    fn all(&mut self, client: &Client, source: &Source) -> Result<(), Failure> {
        let queue = client.completions();
        let format = self.args.task.format;
        let task = task(client, &self.args.service, &self.args.task, format.content_type());
        let mut inputs = (0..).zip(source.inputs()?).fuse();
        let mut count = 0;
        let mut ends = Vec::new();
        loop {
            while self.has_room() && queue.drain(&mut ends) == 0 {
                let Some((index, input)) = inputs.next() else { break };
                count = index + 1;
                self.begin(&task, &queue, index, input)?;
            }
            if ends.is_empty() {
                self.commit()?;
                if self.under_way.is_empty() {
                    break;
                }
                ends.push(self.next_end(&queue)?);
                queue.drain(&mut ends);
            }
            for (index, outcome) in ends.drain(..) {
                self.settle(index, outcome)?;
            }
            self.commit()?;
            self.check_stop()?;
        }
        self.journal.as_ref().map_or(Ok(()), |journal| journal.check_count(count))
    }

    fn has_room(&self) -> bool {
        self.under_way.len() + self.waiting.len() < self.args.window as usize
            && self.waiting_bytes < WAITING_BYTES_MAX
            && self.under_way_bytes < UNDER_WAY_BYTES_MAX
    }

    /// Hands an input in, unless it is done or cannot be read.
    fn begin(
        &mut self,
        task: &Task<'_>,
        queue: &Completions,
        index: u64,
        input: Input,
    ) -> Result<(), Failure> {
        let of_line = || PathBuf::from(format!("{index:08}"));
        let place = input.place.clone().unwrap_or_else(of_line);
        if let Some(journal) = &self.journal
            && journal.is_done(index, &input.name)?
            && self.sink.has(&place)
        {
            return self.arrive(index, Ended::Before);
        }
        let payload = input.read().and_then(|bytes| self.args.task.format.encode(bytes));
        let bytes = payload.as_ref().map_or(0, |payload| payload.len() as u64);
        let sent = match payload {
            Err(why) => Err(Fault::input(why)),
            Ok(payload) => match task.submit_raw_to(queue, index, payload) {
                Ok(request_id) => Ok(request_id),
                Err(error @ (Error::Closed | Error::Invalid { .. })) => return Err(error.into()),
                Err(error) => Err(error.into()),
            },
        };
        let named = Named { name: input.name, place, bytes };
        match sent {
            Ok(request_id) => {
                self.under_way_bytes += bytes;
                self.under_way.insert(index, (request_id, named));
                Ok(())
            }
            Err(fault) => self.arrive(index, Ended::Now(named, Err(fault))),
        }
    }

    /// A task has ended.
    fn settle(&mut self, index: u64, outcome: RawOutcome) -> Result<(), Failure> {
        let Some((_, named)) = self.under_way.remove(&index) else { return Ok(()) };
        self.under_way_bytes -= named.bytes;
        let format = self.args.task.format;
        let result = outcome.map_err(Fault::from);
        let result = result.and_then(|reply| format.render(reply).map_err(Fault::output));
        self.arrive(index, Ended::Now(named, result))
    }

    /// An input has ended; in an ordered map it waits for its turn.
    fn arrive(&mut self, index: u64, ended: Ended) -> Result<(), Failure> {
        if !self.args.ordered {
            return self.emit(index, ended);
        }
        self.waiting_bytes += ended.len();
        self.waiting.insert(index, ended);
        while let Some(ended) = self.waiting.remove(&self.turn) {
            let index = self.turn;
            self.turn += 1;
            self.waiting_bytes -= ended.len();
            self.emit(index, ended)?;
        }
        Ok(())
    }

    fn emit(&mut self, index: u64, ended: Ended) -> Result<(), Failure> {
        let Ended::Now(named, result) = ended else {
            self.tally.skipped += 1;
            return Ok(());
        };
        let Named { name, place, .. } = named;
        let put = match result {
            Err(fault) => return self.fail(index, &name, &fault),
            Ok(result) => self.sink.put(index, &name, &place, result),
        };
        match put {
            Err(PutError::All(failure)) => Err(failure),
            Err(PutError::This(why)) => self.fail(index, &name, &Fault::output(why)),
            Ok(end) => {
                self.tally.done += 1;
                if let Some(journal) = &mut self.journal {
                    journal.note(index, &name, end);
                }
                Ok(())
            }
        }
    }

    fn fail(&mut self, index: u64, name: &[u8], fault: &Fault) -> Result<(), Failure> {
        self.tally.failed += 1;
        match &mut self.errors {
            Some(errors) => errors.note(index, name, fault),
            None => {
                let message = fault.message.as_bytes();
                self.progress.say(&[b"pinmesh: ", name, b": ", message].concat());
            }
        }
        match self.args.max_errors {
            Some(max) if self.tally.failed > max => Err(Failure::task(format!(
                "stopped: {} inputs have failed, --max-errors is {max}; {}",
                self.tally.failed,
                self.remedy()
            ))),
            Some(_) | None => Ok(()),
        }
    }

    fn remedy(&self) -> &'static str {
        match self.journal {
            Some(_) => "the same command goes on from here",
            None => "with --resume it could go on from here",
        }
    }

    /// Hands what has ended to the system: the results first, so that the journal never knows more.
    fn commit(&mut self) -> Result<(), Failure> {
        self.sink.commit()?;
        self.journal.as_mut().map_or(Ok(()), Journal::commit)?;
        self.errors.as_mut().map_or(Ok(()), ErrorLog::commit)?;
        self.progress.update(self.tally, self.under_way.len());
        Ok(())
    }

    fn check_stop(&self) -> Result<(), Failure> {
        if !self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (left, remedy) = (self.under_way.len(), self.remedy());
        let message = format!("interrupted; {left} tasks were cancelled; {remedy}");
        Err(Failure { message, code: INTERRUPTED })
    }

    /// The next end; with a timeout, no longer than that after the one before.
    fn next_end(&mut self, queue: &Completions) -> Result<(u64, RawOutcome), Failure> {
        let start = Instant::now();
        loop {
            let timeout = self.args.task.timeout;
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            let wait = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
            if let Some(end) = queue.recv_timeout(wait) {
                return Ok(end);
            }
            self.check_stop()?;
            self.progress.update(self.tally, self.under_way.len());
            if let (Some(timeout), Some(Duration::ZERO)) = (timeout, left) {
                let (left, service) = (self.under_way.len(), &self.args.service);
                let timeout = humantime::format_duration(timeout);
                return Err(Failure::task(format!(
                    "none of {left} tasks ended within {timeout}: see whether workers serve \
                     `{service}`, or give a longer --timeout"
                )));
            }
        }
    }
}
