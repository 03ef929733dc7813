//! A worker whose handler runs for as long as it is told and writes down, as it goes, that it does:
//! for the end-to-end test of max runtime.
#![allow(clippy::unwrap_used, reason = "a record with a gap proves nothing")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use pinmesh_worker::{Context, Input, Output, Worker};
use rustix::time::{ClockId, clock_gettime};

/// Bytes of a task's record: seven numbers, little-endian.
const RECORD: u64 = 56;
/// The handler writes down that it is alive so often, nanoseconds.
const ALIVE_EVERY_NS: u64 = 50_000;

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The input is the task's number and how long to run, nanoseconds. The record is the start, the
/// last sign of life, the end (0: none), the process, and the attempt: epoch, task, dispatch.
fn run(file: &File, context: &Context<'_>, input: Input<'_>) -> Result<(), String> {
    let start = now_ns();
    let bytes = input.bytes();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (at, run_ns) = (number(0) * RECORD, number(8));
    let attempt = context.attempt();
    let process = u64::from(std::process::id());
    let ids = [process, attempt.epoch.0.into(), attempt.task.0, attempt.dispatch.0.into()];
    let write = |field: u64, value: u64| {
        file.write_all_at(&value.to_le_bytes(), at + 8 * field).unwrap();
    };
    let record = [start, start, 0, ids[0], ids[1], ids[2], ids[3]];
    file.write_all_at(&record.map(u64::to_le_bytes).concat(), at).unwrap();
    let mut alive = start;
    loop {
        let now = now_ns();
        if now - start >= run_ns {
            write(2, now);
            return Ok(());
        }
        if now - alive >= ALIVE_EVERY_NS {
            write(1, now);
            alive = now;
        }
    }
}

fn main() -> ExitCode {
    let path = std::env::var_os("RUNTIME_RECORDS").expect("the test sets it");
    let file = File::options().write(true).open(path).unwrap();
    let handler =
        move |context: &Context<'_>, input: Input<'_>, _: &mut Output| run(&file, context, input);
    Worker::new().raw_service("run", handler).main()
}
