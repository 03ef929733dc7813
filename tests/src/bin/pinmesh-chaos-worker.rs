//! A worker that writes down each attempt: when it starts, when it ends, and whether the kernel
//! says that another attempt of the same task is alive.
#![allow(clippy::unwrap_used, reason = "a record with a gap proves nothing")]

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pinmesh_tests::record::{Action, Event, FOLDER, HOST, Names, Order, Recorder, SERVICE, now_ns};
use pinmesh_worker::{Context, Input, Output, Worker};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Lock files are used again after so many tasks of a client, long after the first has ended.
const LOCKS: u64 = 1 << 16;

struct Records {
    folder: PathBuf,
    recorder: Recorder,
}

impl Records {
    fn open() -> Self {
        let folder = PathBuf::from(std::env::var_os(FOLDER).expect("the driver sets it"));
        let host = std::env::var(HOST).expect("the driver sets it");
        // A process number may come again within a run, so the time tells lives apart.
        let name = format!("worker-{host}-{}-{}", std::process::id(), now_ns());
        let recorder = Recorder::create(&folder, &name).unwrap();
        Self { folder, recorder }
    }

    /// The lock of a task, and whether another attempt holds it. The kernel lets go of it when the
    /// file is closed, so at the latest when the process is dead and before its parent can know.
    fn lock(&self, order: &Order) -> (File, bool) {
        let name = format!("lock-{}-{}", order.key.client, order.key.number % LOCKS);
        let file = File::create(self.folder.join("locks").join(name)).unwrap();
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => (file, false),
            Err(Errno::WOULDBLOCK) => (file, true),
            Err(errno) => panic!("flock: {errno}"),
        }
    }
}

fn names(context: &Context<'_>) -> Names {
    let attempt = context.attempt();
    Names {
        request: (context.client_id().to_string(), context.request_id().0),
        attempt: (attempt.epoch.0, attempt.task.0, attempt.dispatch.0),
        tries: context.tries(),
    }
}

/// Does what the order says. A cancel does not interest it: only SIGKILL ends it early.
fn act(order: &Order) {
    let time = Duration::from_nanos(order.ns);
    match order.action {
        Action::Sleep => std::thread::sleep(time),
        Action::Spin => {
            let end = Instant::now() + time;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        }
    }
}

fn main() -> ExitCode {
    let service = std::env::var(SERVICE).unwrap_or_else(|_| "work".into());
    // The supervisor is this program too, and runs no task.
    let mut records = None;
    let work = move |context: &Context<'_>, input: Input<'_>, output: &mut Output| {
        let bytes = input.bytes();
        let order = Order::read(&bytes).map_err(|_| "the payload is no order".to_owned())?;
        let records = records.get_or_insert_with(Records::open);
        let (lock, overlaps) = records.lock(&order);
        let names = names(context);
        records.recorder.note(Event::Start { key: order.key, names, overlaps });
        act(&order);
        records.recorder.note(Event::End(order.key));
        drop(lock);
        output.bytes.extend_from_slice(&bytes);
        Ok::<_, String>(())
    };
    Worker::new().raw_service(service, work).main()
}
