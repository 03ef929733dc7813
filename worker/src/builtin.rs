//! Ready-made services: for real work, for demonstrations, load tests and end-to-end tests.

mod exec;
mod zstd;

use std::fmt::Display;
use std::time::Duration;

use pinmesh_protocol::id::ContentType;
use pinmesh_protocol::payload::from_msgpack;
use serde::Deserialize;
use sha2::{Digest, Sha256};

pub use exec::{Program, exec_service};
pub use zstd::{ZSTD_LEVEL, zstd_services};

use crate::clock;
use crate::handler::{Context, Failure, Input, Output};
use crate::worker::Worker;

/// How long `sleep` sleeps at a time: it sees a cancel after so long at the latest.
const NAP: Duration = Duration::from_millis(5);

/// `echo` (the payload back), `sleep` and `spin` (wait, or keep the CPU busy, for the duration in
/// the payload), `sha256` (the payload's digest, lowercase hex).
///
/// A duration is text with a unit, such as `250ms`; in MessagePack, that or a whole number of
/// nanoseconds.
pub fn builtin_services() -> Worker {
    Worker::new()
        .raw_service("echo", echo)
        .raw_service("sleep", sleep)
        .raw_service("spin", spin)
        .raw_service("sha256", sha256)
}

/// Services that go wrong on purpose: `fail` returns an error, `fail_last` one that
/// another try would not mend, `panic` panics, `exit` ends the
/// process with code 7, `abort` by SIGABRT, `segfault` by SIGSEGV; `balloon` takes as many bytes of
/// memory as its payload says, as text; `identity` returns client id, request id, submission,
/// dispatch and tries as text; `steps` emits each number up to its input, says the last one as
/// progress, and ends the process before that the first time if the input ends with `!`.
pub fn test_services(worker: Worker) -> Worker {
    worker
        .raw_service("fail", |_, input, _| {
            Err::<(), _>(String::from_utf8_lossy(&input.bytes()).into_owned())
        })
        .raw_service("fail_last", |_, input, _| {
            Err::<(), _>(Failure::last(String::from_utf8_lossy(&input.bytes())))
        })
        .raw_service("panic", panic)
        .raw_service("exit", exit)
        .raw_service("abort", abort)
        .raw_service("segfault", segfault)
        .raw_service("balloon", balloon)
        .raw_service("identity", identity)
        .raw_service("steps", steps)
}

fn steps(context: &Context<'_>, input: Input<'_>, output: &mut Output) -> Result<(), String> {
    let text = String::from_utf8_lossy(&input.bytes()).into_owned();
    let dies = text.ends_with('!') && context.tries() == 0;
    let last: u32 = text.trim_end_matches('!').parse().map_err(|_| "not a number".to_owned())?;
    for step in 1..=last {
        let step = step.to_string();
        context.emit_raw(ContentType::TEXT, step.as_bytes()).map_err(|error| error.to_string())?;
    }
    if dies {
        std::process::abort();
    }
    let told = context.progress_raw(ContentType::TEXT, last.to_string().as_bytes());
    told.map_err(|error| error.to_string())?;
    output.bytes.extend_from_slice(text.as_bytes());
    Ok(())
}

fn echo(context: &Context<'_>, input: Input<'_>, output: &mut Output) -> Result<(), String> {
    output.content_type = context.content_type();
    input.chunks().for_each(|chunk| output.bytes.extend_from_slice(chunk));
    Ok(())
}

fn sleep(context: &Context<'_>, input: Input<'_>, _: &mut Output) -> Result<(), Failure> {
    let end = clock::now().after(duration(context, input)?);
    loop {
        let left = Duration::from_nanos(end.since(clock::now()));
        if left.is_zero() {
            return Ok(());
        }
        if context.is_cancelled() {
            return Err("cancelled while asleep".into());
        }
        std::thread::sleep(left.min(NAP));
    }
}

fn spin(context: &Context<'_>, input: Input<'_>, _: &mut Output) -> Result<(), Failure> {
    let end = clock::now().after(duration(context, input)?);
    while clock::now() < end {
        if context.is_cancelled() {
            return Err("cancelled while busy".into());
        }
        std::hint::spin_loop();
    }
    Ok(())
}

fn sha256(_: &Context<'_>, input: Input<'_>, output: &mut Output) -> Result<(), String> {
    let mut digest = Sha256::new();
    input.chunks().for_each(|chunk| digest.update(chunk));
    output.content_type = ContentType::TEXT;
    for byte in digest.finalize() {
        for half in [byte >> 4, byte & 15] {
            output.bytes.push(b"0123456789abcdef"[usize::from(half)]);
        }
    }
    Ok(())
}

fn panic(_: &Context<'_>, input: Input<'_>, _: &mut Output) -> Result<(), String> {
    std::panic::panic_any(String::from_utf8_lossy(&input.bytes()).into_owned())
}

fn exit(_: &Context<'_>, _: Input<'_>, _: &mut Output) -> Result<(), String> {
    std::process::exit(7)
}

fn abort(_: &Context<'_>, _: Input<'_>, _: &mut Output) -> Result<(), String> {
    std::process::abort()
}

fn segfault(_: &Context<'_>, _: Input<'_>, _: &mut Output) -> Result<(), String> {
    // The first one meets the handler that Rust has for overflows of the stack, which makes way for
    // what the system does with the next.
    loop {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::SEGV)
            .map_err(|error| error.to_string())?;
        std::thread::yield_now();
    }
}

fn balloon(_: &Context<'_>, input: Input<'_>, output: &mut Output) -> Result<(), String> {
    let text = String::from_utf8_lossy(&input.bytes()).into_owned();
    let bytes: usize = text.parse().map_err(|error| format!("`{text}`: {error}"))?;
    // Not zeros, which cost nothing until they are written to.
    let air = vec![1_u8; bytes];
    let sum: u64 = air.iter().step_by(4096).map(|&byte| u64::from(byte)).sum();
    output.bytes.extend_from_slice(sum.to_string().as_bytes());
    Ok(())
}

fn identity(context: &Context<'_>, _: Input<'_>, output: &mut Output) -> Result<(), String> {
    let text = format!(
        "{} {} {} {} {}",
        context.client_id(),
        context.request_id(),
        context.submission(),
        context.attempt().dispatch,
        context.tries()
    );
    output.content_type = ContentType::TEXT;
    output.bytes.extend_from_slice(text.as_bytes());
    Ok(())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum DurationValue {
    Nanoseconds(u64),
    Text(String),
}

/// The duration in the payload, nanoseconds.
fn duration(context: &Context<'_>, input: Input<'_>) -> Result<u64, Failure> {
    let bytes = input.bytes();
    let unfit = |error: &dyn Display| Failure::last(format!("the payload is no duration: {error}"));
    let value = if context.content_type() == ContentType::MSGPACK {
        from_msgpack(&bytes).map_err(|error| unfit(&error))?
    } else {
        let text = std::str::from_utf8(&bytes).map_err(|error| unfit(&error))?;
        DurationValue::Text(text.trim().to_owned())
    };
    match value {
        DurationValue::Nanoseconds(ns) => Ok(ns),
        DurationValue::Text(text) => parse_duration(&text).map_err(Failure::last),
    }
}

fn parse_duration(text: &str) -> Result<u64, String> {
    if text.parse::<f64>().is_ok() {
        return Err(format!("`{text}` has no unit: write `{text}s`, `{text}ms` or `{text}us`"));
    }
    let duration = humantime::parse_duration(text).map_err(|error| {
        format!("`{text}` is no duration: {error}; write a number with its unit, as in 250ms")
    })?;
    u64::try_from(duration.as_nanos()).map_err(|_| format!("`{text}` is longer than 584 years"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(parse_duration("250ms"), Ok(250_000_000));
        assert_eq!(parse_duration("1500ns"), Ok(1500));
        for bare in ["5", "0", "1.5"] {
            assert!(parse_duration(bare).unwrap_err().contains(&format!("write `{bare}s`")));
        }
        assert!(parse_duration("soon").unwrap_err().contains("`soon`"));
    }
}
