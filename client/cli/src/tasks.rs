//! `call` and `ping`, and what `map` shares with them.

use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pinmesh_client::{Bytes, Client, ContentType, Error, Handle, RawReply, Task, Update};

use crate::args::{Call, Connection, Fetch, Format, Ping, TaskArgs};
use crate::failure::{Failure, OK};
use crate::inputs::{read_all, read_file};
use crate::keygen;
use crate::progress::say;
use crate::signals::Stop;

/// After so long without a broker the user is told what is missing.
const HINT_AFTER: Duration = Duration::from_secs(3);
/// After so long without any result the user is told what it may be waiting for.
pub(crate) const NO_RESULT_AFTER: Duration = Duration::from_secs(2);
/// Between two looks at the clock and at signals.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest wait before any try where `--backoff` is given.
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// How long a client that is done may take to say goodbye.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

pub(crate) fn connect(connection: &Connection, window: Option<u32>) -> Result<Client, Failure> {
    let mut builder = Client::builder();
    for broker in &connection.brokers {
        builder = builder.broker(broker);
    }
    if let Some(window) = window {
        // A map bounds the bytes itself: a signal must not find it waiting for room.
        builder = builder.window(window).window_bytes(u64::MAX);
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

pub(crate) fn task<'c>(
    client: &'c Client,
    service: &str,
    args: &TaskArgs,
    content_type: ContentType,
) -> Task<'c> {
    let mut task = client.task(service).requires(&args.labels);
    task = task.priority(args.priority).content_type(content_type);
    if let Some(deadline) = args.deadline {
        task = task.deadline(deadline);
    }
    if args.kill_at_deadline {
        task = task.kill_at_deadline();
    }
    if let Some(start_after) = args.start_after {
        task = task.start_after(start_after);
    }
    if let Some(timeout) = args.timeout {
        task = task.timeout(timeout);
    }
    if let Some(max_runtime) = args.max_runtime {
        task = task.max_runtime(max_runtime);
    }
    if let Some(tries) = args.tries {
        task = task.tries_max(tries);
    }
    if let Some(backoff) = args.backoff {
        task = task.backoff(backoff, backoff.max(BACKOFF_MAX));
    }
    if args.at_most_once { task.at_most_once() } else { task }
}

pub(crate) fn call(connection: &Connection, args: &Call) -> Result<u8, Failure> {
    let payload = args.payload.as_encoded_bytes();
    let input = match payload {
        b"-" => read_all(&mut io::stdin().lock())
            .map_err(|error| Failure::task(format!("standard input: {error}")))?,
        [b'@', path @ ..] => {
            let path = Path::new(std::ffi::OsStr::from_bytes(path));
            read_file(path)
                .map_err(|error| Failure::task(format!("`{}`: {error}", path.display())))?
        }
        text => text.to_vec(),
    };
    let format = args.task.format;
    let input = format.encode(input).map_err(Failure::usage)?;
    let client = connect(connection, None)?;
    let mut task = task(&client, &args.service, &args.task, format.content_type());
    if let Some(key) = &args.affinity {
        task = task.key(key);
    }
    if let Some(key) = &args.idempotency_key {
        task = task.idempotency_key(key);
    }
    if let Some(retention) = args.retention {
        task = task.retention(retention);
    }
    if args.run_on {
        task = task.run_on();
    }
    if args.detach {
        task.submit_detached_raw(input)?;
        return Ok(OK);
    }
    let stop = Stop::on_signals()?;
    if args.progress {
        task = task.on_update(|update| say(words(&update).as_bytes()));
    }
    let waits = Waits { timeout: args.task.timeout, service: Some(&args.service) };
    let reply = await_reply(task.submit_raw(input)?, &waits, &stop)?;
    print(reply, format, args.task.force)?;
    let _ = client.close(GOODBYE);
    Ok(OK)
}

pub(crate) fn result(connection: &Connection, args: &Fetch) -> Result<u8, Failure> {
    let client = connect(connection, None)?;
    let stop = Stop::on_signals()?;
    let handle =
        if args.wait { client.fetch_raw(&args.of_key) } else { client.try_fetch_raw(&args.of_key) };
    let waits = Waits { timeout: args.timeout, service: None };
    let reply = await_reply(handle?, &waits, &stop)?;
    print(reply, args.format, args.force)?;
    let _ = client.close(GOODBYE);
    Ok(OK)
}

fn print(reply: RawReply, format: Format, is_forced: bool) -> Result<(), Failure> {
    let mut output = format.render(reply).map_err(Failure::task)?;
    let is_terminal = io::stdout().is_terminal();
    if is_terminal && !is_forced && !output.is_printable() {
        return Err(Failure::terminal(output.bytes.len()));
    }
    // Bytes are handed on as they are, but a prompt after them should stand on its own line.
    output.is_text |= is_terminal;
    write_out(&output.alone())
}

/// An update, as people read it.
fn words(update: &Update) -> String {
    let value = match update.content_type {
        ContentType::MSGPACK | ContentType::JSON => {
            update.decode().map(|value: serde_json::Value| value.to_string()).ok()
        }
        _ => std::str::from_utf8(&update.value).map(str::to_owned).ok(),
    };
    let value = value.filter(|text| !text.contains(|c: char| c.is_control() && c != '\t'));
    value.unwrap_or_else(|| format!("({} bytes)", update.value.len()))
}

/// How an output is waited for.
struct Waits<'a> {
    timeout: Option<Duration>,
    /// Of a task of this command, which is cancelled with it; `None`: the task is another's.
    service: Option<&'a str>,
}

/// Waits for the output. Whoever stops waiting cancels the task, and gives that a moment to reach
/// the broker.
fn await_reply(
    mut handle: Handle<Bytes>,
    waits: &Waits<'_>,
    stop: &Stop,
) -> Result<RawReply, Failure> {
    let (start, mut is_told) = (Instant::now(), false);
    loop {
        let timeout = waits.timeout;
        let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
        match handle.wait_reply_timeout(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)) {
            Err(Error::WaitTimedOut { .. }) => {}
            ended => return Ok(ended?),
        }
        let failure = if stop.is_wanted() {
            let what = if waits.service.is_some() { "was cancelled" } else { "goes on" };
            Failure::interrupted(format!("interrupted; the task {what}"))
        } else if let (Some(waited), Some(Duration::ZERO)) = (timeout, left) {
            Error::WaitTimedOut { waited }.into()
        } else {
            if let Some(service) = waits.service
                && !is_told
                && start.elapsed() >= NO_RESULT_AFTER
            {
                say(no_result(service).as_bytes());
                is_told = true;
            }
            continue;
        };
        handle.cancel();
        let _ = handle.wait_reply_timeout(GOODBYE);
        return Err(failure);
    }
}

/// What a client can say that has not heard of a task: the broker does not tell.
pub(crate) fn no_result(service: &str) -> String {
    format!(
        "pinmesh: no result of `{service}` yet: it is at work, or no worker serves it; for one that \
         does the broker waits up to its service_wait (30s unless configured)"
    )
}

pub(crate) fn write_out(bytes: &[u8]) -> Result<(), Failure> {
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
