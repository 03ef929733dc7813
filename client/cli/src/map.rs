//! `map`: one task for each input, a bounded number at a time.

mod errors;
mod journal;
mod outputs;
mod sink;
mod survey;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pinmesh_client::{Client, Completions, Error, RawOutcome, RequestId, Task};

use crate::args::When;
use crate::args::{Connection, Map};
use crate::failure::{Failure, OK, OUTPUT, TASK_FAILED};
use crate::feed::{Feed, Next};
use crate::format::Rendered;
use crate::inputs::{Input, Source};
use crate::progress::{Progress, Tally};
use crate::signals::Stop;
use crate::tasks::{GOODBYE, LOOK_EVERY, NO_RESULT_AFTER, connect, no_result, task};
use errors::{ErrorLog, Fault, NO_SERVICE};
use journal::Journal;
use sink::{PutError, Sink};
use survey::{about, survey};

/// Bytes of results that may wait for their turn in an ordered map before no more tasks are begun.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// Bytes of inputs under way after which no more are begun: what a client takes without waiting.
const UNDER_WAY_BYTES_MAX: u64 = 256 << 20;

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
    /// What the system has of it: results and journal are written.
    committed: Tally,
    /// The latest end, or since when there was anything to wait for.
    since: Instant,
    /// A result has come, or the user was told that none has.
    is_told: bool,
    under_way: HashMap<u64, (RequestId, Named)>,
    under_way_bytes: u64,
    /// In an ordered map: ends that wait for those before them, their bytes, and whose turn it is.
    waiting: BTreeMap<u64, Ended>,
    waiting_bytes: usize,
    turn: u64,
    stop: Stop,
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
        committed: Tally::default(),
        since: Instant::now(),
        is_told: args.progress == When::Never,
        under_way: HashMap::new(),
        under_way_bytes: 0,
        waiting: BTreeMap::new(),
        waiting_bytes: 0,
        turn: 0,
        stop: Stop::on_signals()?,
    };
    let mut result = run.all(&client, &source);
    if let Err(failure) = &result
        && failure.code != OUTPUT
    {
        // What is done is done, whatever ended it.
        result = run.commit().and(result);
    }
    run.progress.finish(run.committed);
    if result.is_err() {
        // Nobody will read what is still under way.
        run.under_way.values().for_each(|&(request_id, _)| client.cancel(request_id));
    }
    run.sink.close();
    result?;
    let _ = client.close(GOODBYE);
    Ok(if run.tally.failed == 0 { OK } else { TASK_FAILED })
}

impl Run<'_> {
    fn all(&mut self, client: &Client, source: &Source) -> Result<(), Failure> {
        let queue = client.completions();
        let format = self.args.task.format;
        let task = task(client, &self.args.service, &self.args.task, format.content_type());
        let mut feed = Feed::new(source, &queue)?;
        let mut ends = Vec::new();
        loop {
            while self.has_room() && queue.drain(&mut ends) == 0 {
                let Next::Input(index, input) = feed.next() else { break };
                self.begin(&task, &queue, index, input)?;
            }
            if ends.is_empty() {
                self.commit()?;
                if self.under_way.is_empty() && feed.is_over() {
                    break;
                }
                ends.extend(self.next_end(&queue)?);
                queue.drain(&mut ends);
            }
            for (index, outcome) in ends.drain(..) {
                self.settle(index, outcome)?;
            }
            self.commit()?;
            self.check_stop()?;
        }
        self.journal.as_ref().map_or(Ok(()), |journal| journal.check_count(feed.count()))
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
            Ok(payload) => match self.hand_in(task, queue, index, &input.name, payload) {
                Ok(request_id) => Ok(request_id),
                Err(error @ (Error::Closed | Error::Invalid { .. })) => return Err(error.into()),
                Err(error) => Err(error.into()),
            },
        };
        let named = Named { name: input.name, place, bytes };
        match sent {
            Ok(request_id) => {
                if self.under_way.is_empty() {
                    self.since = Instant::now();
                }
                self.under_way_bytes += bytes;
                self.under_way.insert(index, (request_id, named));
                Ok(())
            }
            Err(fault) => self.arrive(index, Ended::Now(named, Err(fault))),
        }
    }

    fn hand_in(
        &self,
        task: &Task<'_>,
        queue: &Completions,
        index: u64,
        name: &[u8],
        payload: Vec<u8>,
    ) -> Result<RequestId, Error> {
        match &self.args.affinity {
            None => task.submit_raw_to(queue, index, payload),
            Some(template) => {
                let task = task.clone().key(template.of_input(name, index));
                task.submit_raw_to(queue, index, payload)
            }
        }
    }

    /// A task has ended.
    fn settle(&mut self, index: u64, outcome: RawOutcome) -> Result<(), Failure> {
        let Some((_, named)) = self.under_way.remove(&index) else { return Ok(()) };
        self.under_way_bytes -= named.bytes;
        (self.since, self.is_told) = (Instant::now(), true);
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
        if fault.status == NO_SERVICE && self.tally.done == 0 {
            let message = format!("stopped with nothing done: {}", fault.message);
            return Err(Failure::task(message));
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
        self.committed = self.tally;
        self.progress.update(self.tally, self.under_way.len());
        Ok(())
    }

    fn check_stop(&self) -> Result<(), Failure> {
        if !self.stop.is_wanted() {
            return Ok(());
        }
        let (left, remedy) = (self.under_way.len(), self.remedy());
        let message = format!("interrupted; {left} tasks were cancelled; {remedy}");
        Err(Failure::interrupted(message))
    }

    /// The next end, or nothing but news of the inputs; with a timeout, no longer than that after
    /// the end before.
    fn next_end(&mut self, queue: &Completions) -> Result<Option<(u64, RawOutcome)>, Failure> {
        let timeout = self.args.task.timeout.filter(|_| !self.under_way.is_empty());
        let left = timeout.map(|timeout| timeout.saturating_sub(self.since.elapsed()));
        let end = queue.recv_timeout(left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY)));
        if end.is_some() {
            return Ok(end);
        }
        self.check_stop()?;
        self.progress.update(self.tally, self.under_way.len());
        let is_late = !self.under_way.is_empty() && self.since.elapsed() >= NO_RESULT_AFTER;
        if is_late && !std::mem::replace(&mut self.is_told, true) {
            self.progress.say(no_result(&self.args.service).as_bytes());
        }
        if let (Some(timeout), Some(Duration::ZERO)) = (timeout, left) {
            let (left, service) = (self.under_way.len(), &self.args.service);
            let timeout = humantime::format_duration(timeout);
            return Err(Failure::task(format!(
                "none of {left} tasks ended within {timeout}: see whether workers serve \
                 `{service}`, or give a longer --timeout"
            )));
        }
        Ok(None)
    }
}
