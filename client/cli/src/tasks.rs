//! `call`, `map` and `ping`.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use pinmesh_client::{Client, ContentType, RequestId, Task};

use crate::args::{Call, Connection, Format, Map, Ping, TaskArgs};
use crate::failure::{Failure, OK, TASK_FAILED};
use crate::inputs::{Input, Lines, Walk, files, read_all, read_file};
use crate::keygen;
use crate::output::{encode, render};
use crate::progress::{Progress, say};

/// After so long without a broker the user is told what is missing.
const HINT_AFTER: Duration = Duration::from_secs(3);
/// How long a client that is done may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

fn connect(connection: &Connection, window: Option<u32>) -> Result<Client, Failure> {
    let mut builder = Client::builder();
    for broker in &connection.brokers {
        builder = builder.broker(broker);
    }
    if let Some(window) = window {
        builder = builder.window(window);
    }
    if let Some(keys) = keygen::keys(connection)? {
        builder = builder.keys(keys);
    }
    let start = Instant::now();
    // A malformed endpoint is a mistake on the command line.
    let client = builder.start().map_err(|error| Failure::usage(error.to_string()))?;
    let first = connection.connect_timeout.min(HINT_AFTER);
    let unreachable =
        |error: pinmesh_client::Error| matches!(error, pinmesh_client::Error::Unreachable { .. });
    match client.wait_connected(first) {
        Ok(()) => return Ok(client),
        Err(error) if first < connection.connect_timeout && unreachable(error.clone()) => {
            let left = connection.connect_timeout.saturating_sub(start.elapsed());
            let brokers = connection.brokers.join(", ");
            let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
            say(format!(
                "pinmesh: no broker answers at {brokers}; start `pinmesh-broker`, or name another \
                 with --broker or PINMESH_BROKER (waiting {left} more)"
            )
            .as_bytes());
        }
        Err(error) => return Err(error.into()),
    }
    client.wait_connected(connection.connect_timeout.saturating_sub(start.elapsed())).map_err(
        |error| match error {
            pinmesh_client::Error::Unreachable { endpoints, reason, .. } => {
                let waited = connection.connect_timeout;
                pinmesh_client::Error::Unreachable { endpoints, waited, reason }.into()
            }
            other => Failure::from(other),
        },
    )?;
    Ok(client)
}

fn task<'c>(
    client: &'c Client,
    service: &str,
    args: &TaskArgs,
    content_type: ContentType,
) -> Task<'c> {
    let mut task = client.task(service).priority(args.priority).content_type(content_type);
    if let Some(deadline) = args.deadline {
        task = task.deadline(deadline);
    }
    if let Some(timeout) = args.timeout {
        task = task.timeout(timeout);
    }
    if let Some(max_runtime) = args.max_runtime {
        task = task.max_runtime(max_runtime);
    }
    if args.at_most_once { task.at_most_once() } else { task }
}

pub(crate) fn call(connection: &Connection, args: &Call) -> Result<u8, Failure> {
    let payload = args.payload.as_encoded_bytes();
    let input = match payload {
        b"-" => read_all(&mut io::stdin().lock())
            .map_err(|error| Failure::task(format!("standard input: {error}")))?,
        [b'@', path @ ..] => {
            let path = Path::new(std::ffi::OsStr::new(
                std::str::from_utf8(path).map_err(|_| Failure::usage("a path that is no UTF-8"))?,
            ));
            read_file(path)
                .map_err(|error| Failure::task(format!("`{}`: {error}", path.display())))?
        }
        text => text.to_vec(),
    };
    let (input, content_type) = encode(input, args.task.format).map_err(Failure::usage)?;
    let client = connect(connection, None)?;
    let reply = task(&client, &args.service, &args.task, content_type).call_raw(input)?;
    let is_json = reply.content_type == ContentType::MSGPACK && args.task.format != Format::Msgpack;
    let output = render(reply, args.task.format, args.task.format == Format::Raw);
    let mut output = output.map_err(Failure::task)?;
    // Bytes are handed on as they are, but a prompt after them should stand on its own line.
    let ends_open = output.last() != Some(&b'\n');
    if ends_open && (is_json || io::stdout().is_terminal()) {
        output.push(b'\n');
    }
    write_out(&output)?;
    let _ = client.close(GOODBYE);
    Ok(OK)
}

fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

pub(crate) fn ping(connection: &Connection, args: &Ping) -> Result<u8, Failure> {
    let client = connect(connection, None)?;
    let brokers = connection.brokers.join(", ");
    let mut times = Vec::new();
    for count in 1..=args.count {
        let (round_trip, epoch) = client.ping(args.timeout)?;
        let ms = round_trip.as_secs_f64() * 1e3;
        times.push(ms);
        write_out(
            format!("{brokers}: seq={count} epoch={epoch:08x} time={ms:.3} ms\n").as_bytes(),
        )?;
        if count < args.count {
            std::thread::sleep(args.interval);
        }
    }
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    let most = times.iter().copied().fold(0.0, f64::max);
    let mean = times.iter().sum::<f64>() / f64::from(args.count);
    write_out(format!("round trip min/mean/max = {least:.3}/{mean:.3}/{most:.3} ms\n").as_bytes())?;
    let _ = client.close(GOODBYE);
    Ok(OK)
}

/// Tasks of a `map` that are under way, and what has become of the others.
struct Run<'a> {
    args: &'a Map,
    progress: Progress,
    /// The inputs under way, by index: the task and the input's name.
    names: HashMap<u64, (RequestId, Vec<u8>)>,
    done: u64,
    failed: u64,
}

impl Run<'_> {
    fn fail(&mut self, name: &[u8], why: &str) {
        self.failed += 1;
        let mut line = b"pinmesh: ".to_vec();
        line.extend_from_slice(name);
        line.extend_from_slice(b": ");
        line.extend_from_slice(why.as_bytes());
        self.progress.say(&line);
        self.progress.advance(self.failed);
    }

    fn print(
        &mut self,
        index: u64,
        outcome: pinmesh_client::RawOutcome,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let name = self.names.remove(&index).map(|(_, name)| name).unwrap_or_default();
        let rendered = outcome.map_err(|error| error.to_string());
        let format = self.args.task.format;
        let rendered = rendered.and_then(|reply| render(reply, format, true));
        match rendered {
            Err(why) => self.fail(&name, &why),
            Ok(mut result) => {
                if result.last() == Some(&b'\n') {
                    result.pop();
                }
                let written = self.args.output_format.write(out, &result, &name, index);
                written.map_err(|error| Failure::output(&error))?;
                self.done += 1;
                self.progress.advance(self.failed);
            }
        }
        Ok(())
    }
}

pub(crate) fn map(connection: &Connection, args: &Map) -> Result<u8, Failure> {
    let lines = args.lines.as_deref().map(|path| (path, Lines::open(path)));
    let inputs: Box<dyn Iterator<Item = Input>> = match lines {
        None => Box::new(files(args.files.clone())),
        Some((_, Ok(lines))) => Box::new(lines),
        Some((path, Err(error))) => {
            return Err(Failure::task(format!("cannot open `{}`: {error}", path.display())));
        }
    };
    let client = connect(connection, Some(args.window))?;
    let is_counted = args.lines.is_none() && Progress::is_wanted();
    let total = is_counted.then(|| Walk::new(args.files.clone()).count() as u64);
    let progress = Progress::new(total);
    let mut run = Run { args, progress, names: HashMap::new(), done: 0, failed: 0 };
    let start = Instant::now();
    let result = run_map(&client, &mut run, inputs);
    run.progress.finish();
    if let Err(failure) = result {
        // Nobody will read what is still under way.
        run.names.values().for_each(|&(request_id, _)| client.cancel(request_id));
        return Err(failure);
    }
    let Run { done, failed, .. } = run;
    let took = start.elapsed();
    let rate = done as f64 / took.as_secs_f64().max(1e-9);
    let took = humantime::format_duration(Duration::from_millis(took.as_millis() as u64));
    say(format!("pinmesh: {done} done, {failed} failed in {took} ({rate:.0}/s)").as_bytes());
    let _ = client.close(GOODBYE);
    Ok(if failed == 0 { OK } else { TASK_FAILED })
}

fn run_map(
    client: &Client,
    run: &mut Run<'_>,
    inputs: impl Iterator<Item = Input>,
) -> Result<(), Failure> {
    let queue = client.completions();
    let content_type = match run.args.task.format {
        Format::Raw => ContentType::RAW,
        Format::Json | Format::Msgpack => ContentType::MSGPACK,
    };
    let task = task(client, &run.args.service, &run.args.task, content_type);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut inputs = inputs.fuse();
    let mut ends = Vec::new();
    let mut next_index = 0;
    loop {
        while run.names.len() < run.args.window as usize {
            let Some(input) = inputs.next() else { break };
            let index = next_index;
            next_index += 1;
            let encoded = input.bytes.and_then(|bytes| encode(bytes, run.args.task.format));
            let sent = encoded.and_then(|(bytes, _)| {
                task.submit_raw_to(&queue, index, bytes).map_err(|error| error.to_string())
            });
            match sent {
                Err(why) => run.fail(&input.name, &why),
                Ok(request_id) => {
                    run.names.insert(index, (request_id, input.name));
                }
            }
            if queue.drain(&mut ends) > 0 {
                break;
            }
        }
        if ends.is_empty() {
            if run.names.is_empty() {
                return out.flush().map_err(|error| Failure::output(&error));
            }
            out.flush().map_err(|error| Failure::output(&error))?;
            ends.push(next_end(&queue, run)?);
        }
        queue.drain(&mut ends);
        for (index, outcome) in ends.drain(..) {
            run.print(index, outcome, &mut out)?;
        }
    }
}

/// The next end; with a timeout, no longer than that after the one before.
fn next_end(
    queue: &pinmesh_client::Completions,
    run: &Run<'_>,
) -> Result<(u64, pinmesh_client::RawOutcome), Failure> {
    let Some(timeout) = run.args.task.timeout else { return Ok(queue.recv()) };
    queue.recv_timeout(timeout).ok_or_else(|| {
        let (left, timeout) = (run.names.len(), humantime::format_duration(timeout));
        Failure::task(format!(
            "none of {left} tasks ended within {timeout}: see whether workers serve \
             `{}`, or give a longer --timeout",
            run.args.service
        ))
    })
}
