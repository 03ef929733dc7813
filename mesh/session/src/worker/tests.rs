use alloc::string::ToString;
use alloc::vec;

use pinmesh_protocol::command::{Payload, ServiceRef, Task};
use pinmesh_protocol::id::{ContentType, Dispatch, Epoch, RequestId, Submission, TaskId};

use super::*;

mod bounds;
mod leases;
mod updates;

const SECOND: u64 = 1_000_000_000;
const LEASE: Lease = Lease { epoch: Epoch(1), until: Time(100 * SECOND), term: 0 };

/// Records what the machine causes, in words.
#[derive(Default)]
struct Log {
    said: Vec<String>,
    ready: Vec<(u32, Vec<(u64, HeldState)>)>,
    nonce: u64,
    forgotten: Vec<(u32, Option<u32>)>,
}

impl Log {
    fn drain(&mut self) -> Vec<String> {
        core::mem::take(&mut self.said)
    }
}

impl WorkerOutbox<u32> for Log {
    fn open(&mut self) {
        self.said.push("open".to_string());
    }

    fn close(&mut self) {
        self.said.push("close".to_string());
    }

    fn send(&mut self, command: &ToBroker<'_>) {
        let said = match command {
            ToBroker::Hello(hello) => {
                self.nonce = hello.nonce;
                "HELLO".to_string()
            }
            ToBroker::Ready(ready) => {
                assert_eq!(ready.labels, ["gpu"]);
                let listed = ready.held.iter().map(|h| (h.attempt.task.0, h.state)).collect();
                self.ready.push((ready.part, listed));
                alloc::format!("READY {}/{}", ready.part + 1, ready.parts)
            }
            ToBroker::Return(attempt) => alloc::format!("RETURN {}", attempt.task),
            ToBroker::Recalled(list) => alloc::format!("RECALLED {}", list.attempts.len()),
            ToBroker::Heartbeat(beat) => alloc::format!("HEARTBEAT {}", beat.sequence),
            ToBroker::Refused(refused) => alloc::format!("REFUSED {}", refused.code),
            ToBroker::Window(window) => alloc::format!("WINDOW {}", window.tasks),
            ToBroker::Goodbye => "GOODBYE".to_string(),
            other => alloc::format!("{other:?}"),
        };
        self.said.push(said);
    }

    fn send_end(&mut self, end: &mut u32) {
        self.said.push(alloc::format!("DONE {end}"));
    }

    fn forget(&mut self, index: u32, end: Option<u32>) {
        self.forgotten.push((index, end));
    }
}

struct Bench {
    worker: WorkerSession<u32>,
    log: Log,
    now: Time,
}

impl Bench {
    fn new(host: Option<PeerId>, window_tasks: u32) -> Self {
        let worker = WorkerSession::new(WorkerConfig {
            peer_id: PeerId([1; 16]),
            name: "test".to_string(),
            host,
            slot: Slot(0),
            incarnation: Incarnation(1),
            services: vec!["echo".to_string()],
            labels: vec!["gpu".to_string()],
            window_tasks,
            window_bytes: 1000,
            seed: 7,
        });
        Self { worker, log: Log::default(), now: Time(SECOND) }
    }

    /// With a session of epoch 1, if supervised under its lease.
    fn open(host: Option<PeerId>, window_tasks: u32) -> Self {
        let mut bench = Self::new(host, window_tasks);
        if host.is_some() {
            bench.event(Event::Lease(LEASE));
        }
        bench.event(Event::Tick);
        bench.welcome(1);
        bench.log.drain();
        bench
    }

    fn supervised() -> Self {
        Self::open(Some(PeerId([2; 16])), 4)
    }

    fn event(&mut self, event: Event<'_>) -> Vec<String> {
        self.worker.handle(self.now, event, &mut self.log);
        self.log.drain()
    }

    fn hear(&mut self, command: FromBroker<'_>) -> Vec<String> {
        self.event(Event::Received(command))
    }

    fn tick_after(&mut self, ns: u64) -> Vec<String> {
        self.now = self.now.after(ns);
        self.event(Event::Tick)
    }

    fn welcome(&mut self, epoch: u32) -> Vec<String> {
        self.hear(FromBroker::Welcome(Welcome {
            version: 1,
            nonce: self.log.nonce,
            epoch: Epoch(epoch),
            heartbeat_ns: SECOND,
            lease_ns: 10 * SECOND,
            liveness: 3,
            window_tasks: 0,
            window_bytes: 0,
            payload_bytes_max: 1 << 20,
            header_bytes_max: 4096,
            kept_ns: 60_000_000_000,
        }))
    }

    fn take(&mut self, task: u64) -> Option<u32> {
        self.take_with(task, None, b"abc")
    }

    fn take_with(&mut self, task: u64, deadline_ns: Option<u64>, payload: &[u8]) -> Option<u32> {
        let task = Task {
            task: TaskId(task),
            dispatch: Dispatch(1),
            client_id: PeerId([3; 16]),
            request_id: RequestId(task),
            submission: Submission(1),
            service: ServiceRef::Alias(0),
            tries: 0,
            deadline_ns,
            max_runtime_ns: SECOND,
            content_type: ContentType::RAW,
            options: None,
            payload: Payload::Inline(payload),
        };
        self.worker.take(self.now, &task, &mut self.log)
    }

    fn start(&mut self, index: u32) -> Start {
        self.worker.start(self.now, index, &mut self.log)
    }

    /// Takes, runs and ends a task.
    fn run(&mut self, task: u64) {
        let index = self.take(task).unwrap();
        assert_eq!(self.start(index), Start::Run);
        self.worker.end(self.now, index, task as u32, 10, &mut self.log);
    }

    /// Loses the session and opens the next one.
    fn reconnect(&mut self, epoch: u32) -> Vec<String> {
        self.hear(FromBroker::NoSession);
        assert_eq!(self.tick_after(10 * SECOND), ["open", "HELLO"]);
        self.welcome(epoch)
    }
}

#[test]
fn a_worker_says_hello_then_ready_and_ignores_a_welcome_of_another_nonce() {
    let mut bench = Bench::new(None, 4);
    assert_eq!(bench.event(Event::Tick), ["open", "HELLO"]);
    bench.log.nonce ^= 1;
    assert_eq!(bench.welcome(1), [""; 0]);
    bench.log.nonce ^= 1;
    assert_eq!(bench.welcome(1), ["READY 1/1"]);
    assert!(bench.worker.is_open());
}

#[test]
fn unacknowledged_ends_are_listed_and_sent_again_in_order_after_a_reconnect() {
    let mut bench = Bench::supervised();
    (1..=3).for_each(|task| bench.run(task));
    assert_eq!(bench.log.drain(), ["DONE 1", "DONE 2", "DONE 3"]);
    bench.hear(FromBroker::Ack(1));
    assert_eq!(bench.log.forgotten, [(0, Some(1))]);
    assert_eq!(bench.reconnect(1), ["READY 1/1", "DONE 2", "DONE 3"]);
    let (_, listed) = bench.log.ready.last().unwrap();
    assert_eq!(listed[..], [(2, HeldState::Ended), (3, HeldState::Ended)]);
    bench.hear(FromBroker::Ack(2));
    assert_eq!(bench.worker.unacknowledged(), 0);
    assert_eq!(bench.log.forgotten.len(), 3);
}

#[test]
fn an_end_without_a_session_is_sent_in_the_next_one() {
    let mut bench = Bench::supervised();
    let index = bench.take(1).unwrap();
    assert_eq!(bench.start(index), Start::Run);
    bench.hear(FromBroker::NoSession);
    bench.worker.end(bench.now, index, 1, 10, &mut bench.log);
    assert_eq!(bench.log.drain(), [""; 0]);
    bench.tick_after(10 * SECOND);
    assert_eq!(bench.welcome(1), ["READY 1/1", "DONE 1"]);
}

#[test]
fn an_end_that_a_restarted_broker_would_not_take_is_let_go_so_that_its_task_runs_again() {
    let mut bench = Bench::supervised();
    for (task, bytes) in [(7, 10), (9, 10), (8, 2 << 20)] {
        let index = bench.take(task).unwrap();
        assert_eq!(bench.start(index), Start::Run);
        bench.worker.end(bench.now, index, task as u32, bytes, &mut bench.log);
    }
    bench.hear(FromBroker::NoSession);
    bench.tick_after(SECOND);
    // Its payload_bytes_max is 1 MiB.
    assert_eq!(bench.welcome(2), ["READY 1/1", "DONE 7", "DONE 9"]);
    let listed: Vec<_> = bench.log.ready.last().unwrap().1.iter().map(|held| held.0).collect();
    assert_eq!(listed, [7, 9]);
    assert_eq!((bench.worker.unacknowledged(), bench.log.forgotten.len()), (2, 1));
}

#[test]
fn a_restarted_broker_is_told_what_an_earlier_one_left() {
    let mut bench = Bench::supervised();
    bench.run(1);
    let waiting = bench.take(2).unwrap();
    bench.log.drain();
    assert_eq!(bench.reconnect(2), ["READY 1/1", "DONE 1"]);
    let (_, listed) = bench.log.ready.last().unwrap();
    assert_eq!(listed[..], [(1, HeldState::Ended), (2, HeldState::Waiting)]);
    assert_eq!(bench.worker.task(waiting).unwrap().attempt.epoch, Epoch(1));
    // The new broker's lease covers what READY has listed to it.
    bench.event(Event::Lease(Lease { epoch: Epoch(2), ..LEASE }));
    assert_eq!(bench.start(waiting), Start::Run);
}

#[test]
fn what_does_not_fit_the_window_goes_back_and_an_unacknowledged_end_fills_it() {
    let mut bench = Bench::supervised();
    (1..=4).for_each(|task| bench.run(task));
    bench.log.drain();
    assert_eq!(bench.take(5), None);
    assert_eq!(bench.log.drain(), ["RETURN 5"]);
    bench.hear(FromBroker::Ack(5));
    assert_eq!(bench.worker.unacknowledged(), 0);
    assert!(bench.take_with(6, None, &[0; 2000]).is_some());
    assert_eq!(bench.take_with(7, None, &[0; 1]), None);
}

#[test]
fn a_return_is_not_sent_again_because_ready_does_not_list_it() {
    let mut bench = Bench::supervised();
    (1..=4).for_each(|task| bench.run(task));
    bench.take(5);
    bench.log.drain();
    assert_eq!(bench.reconnect(1), ["READY 1/1", "DONE 1", "DONE 2", "DONE 3", "DONE 4"]);
}

#[test]
fn too_many_unacknowledged_bytes_hold_the_next_start_back() {
    let mut bench = Bench::supervised();
    let first = bench.take(1).unwrap();
    let second = bench.take(2).unwrap();
    assert_eq!(bench.start(first), Start::Run);
    bench.worker.end(bench.now, first, 1, 1000, &mut bench.log);
    assert_eq!(bench.start(second), Start::NotYet);
    bench.hear(FromBroker::Ack(1));
    assert_eq!(bench.start(second), Start::Run);
}

#[test]
fn an_ack_of_what_was_never_sent_ends_the_session() {
    let mut bench = Bench::supervised();
    bench.run(1);
    bench.log.drain();
    assert_eq!(bench.hear(FromBroker::Ack(2)), ["REFUSED not allowed", "close"]);
    assert_eq!(bench.worker.unacknowledged(), 1);
}

#[test]
fn a_task_of_an_undeclared_service_ends_the_session() {
    let mut bench = Bench::supervised();
    let task = Task { service: ServiceRef::Alias(1), ..bench_task() };
    assert_eq!(bench.worker.take(bench.now, &task, &mut bench.log), None);
    assert_eq!(bench.log.drain(), ["REFUSED not allowed", "close"]);
}

fn bench_task() -> Task<'static> {
    Task {
        task: TaskId(1),
        dispatch: Dispatch(1),
        client_id: PeerId([3; 16]),
        request_id: RequestId(1),
        submission: Submission(1),
        service: ServiceRef::Name("echo"),
        tries: 0,
        deadline_ns: None,
        max_runtime_ns: SECOND,
        content_type: ContentType::RAW,
        options: None,
        payload: Payload::Inline(b""),
    }
}

#[test]
fn a_refused_worker_waits_longer_each_time_before_it_opens_another_socket() {
    let mut bench = Bench::new(None, 4);
    bench.event(Event::Tick);
    let mut longest = 0;
    for _ in 0..20 {
        assert_eq!(bench.hear(FromBroker::NoSession), ["close"]);
        let (at, why) = bench.worker.next_wakeup().unwrap();
        assert_eq!(why, WakeReason::Open);
        longest = longest.max(at.since(bench.now));
        assert_eq!(bench.tick_after(at.since(bench.now)), ["open", "HELLO"]);
    }
    assert!(longest > SECOND && longest <= 6 * SECOND, "{longest}");
}

#[test]
fn a_hello_without_an_answer_is_repeated_on_another_socket() {
    let mut bench = Bench::new(None, 4);
    bench.event(Event::Tick);
    assert_eq!(bench.tick_after(2 * SECOND), [""; 0]);
    assert_eq!(bench.tick_after(SECOND), ["open", "HELLO"]);
}

#[test]
fn three_heartbeats_without_a_word_open_another_socket() {
    let mut bench = Bench::supervised();
    assert_eq!(bench.tick_after(SECOND), ["HEARTBEAT 1"]);
    bench.hear(FromBroker::Heartbeat(Heartbeat { sequence: 1, silence_ns: None }));
    assert_eq!(bench.tick_after(SECOND), ["HEARTBEAT 2"]);
    assert_eq!(bench.tick_after(SECOND), ["HEARTBEAT 3"]);
    assert_eq!(bench.tick_after(SECOND), ["HEARTBEAT 4"]);
    assert_eq!(bench.tick_after(SECOND), ["open", "HELLO"]);
}

#[test]
fn a_worker_that_was_away_does_not_judge_the_broker_for_it() {
    let mut bench = Bench::supervised();
    assert_eq!(bench.tick_after(SECOND), ["HEARTBEAT 1"]);
    assert_eq!(bench.tick_after(3600 * SECOND), ["HEARTBEAT 2"]);
    assert!(bench.worker.is_open());
}

#[test]
fn an_announced_silence_is_waited_for() {
    let mut bench = Bench::supervised();
    bench.tick_after(SECOND);
    let silence_ns = Some(60 * SECOND);
    bench.hear(FromBroker::Heartbeat(Heartbeat { sequence: 1, silence_ns }));
    (0..60).for_each(|_| {
        assert!(!bench.tick_after(SECOND).contains(&"open".to_string()));
    });
    (0..3).for_each(|_| drop(bench.tick_after(SECOND)));
    assert!(!bench.worker.is_open());
}

#[test]
fn an_announced_silence_ends_with_what_was_announced() {
    let mut bench = Bench::supervised();
    let silence_ns = Some(60 * SECOND);
    bench.hear(FromBroker::Heartbeat(Heartbeat { sequence: 0, silence_ns }));
    bench.take(1).unwrap();
    (0..5).for_each(|_| drop(bench.tick_after(SECOND)));
    assert!(!bench.worker.is_open());
}

#[test]
fn a_long_result_announces_its_silence_first() {
    let mut bench = Bench::supervised();
    let index = bench.take(1).unwrap();
    assert_eq!(bench.start(index), Start::Run);
    bench.worker.end(bench.now, index, 1, 2 << 20, &mut bench.log);
    assert_eq!(bench.log.drain(), ["HEARTBEAT 1", "DONE 1"]);
}

#[test]
fn a_task_past_its_deadline_goes_back_unstarted() {
    let mut bench = Bench::supervised();
    let index = bench.take_with(1, Some(SECOND), b"").unwrap();
    bench.now = bench.now.after(SECOND);
    assert_eq!(bench.start(index), Start::GivenBack);
    assert_eq!(bench.log.drain(), ["RETURN 1"]);
}

#[test]
fn a_worker_without_a_supervisor_starts_nothing_while_the_session_is_away() {
    let mut bench = Bench::open(None, 4);
    let index = bench.take(1).unwrap();
    bench.hear(FromBroker::NoSession);
    assert_eq!(bench.start(index), Start::NotYet);
    bench.tick_after(10 * SECOND);
    bench.welcome(1);
    assert_eq!(bench.start(index), Start::Run);
}

#[test]
fn a_worker_without_a_supervisor_answers_recalls_itself() {
    let mut bench = Bench::open(None, 4);
    let running = bench.take(1).unwrap();
    bench.take(2);
    assert_eq!(bench.start(running), Start::Run);
    let attempts = [1, 2, 3].map(|task| AttemptId {
        epoch: Epoch(1),
        task: TaskId(task),
        dispatch: Dispatch(1),
    });
    let recall = Attempts { slot: Slot(0), attempts: attempts.to_vec() };
    assert_eq!(bench.hear(FromBroker::Recall(recall)), ["RECALLED 1"]);
    assert_eq!(bench.worker.unended(), 1);
}

#[test]
fn a_draining_worker_takes_nothing_more_and_leaves_when_all_is_acknowledged() {
    let mut bench = Bench::supervised();
    bench.run(1);
    let waiting = bench.take(2).unwrap();
    bench.log.drain();
    assert_eq!(bench.hear(FromBroker::Drain), ["WINDOW 0"]);
    assert_eq!(bench.take(3), None);
    assert_eq!(bench.log.drain(), ["RETURN 3"]);
    assert_eq!(bench.event(Event::Drain { give_back: true }), ["RETURN 2"]);
    assert_eq!(bench.start(waiting), Start::GivenBack);
    assert_eq!(bench.hear(FromBroker::Ack(2)), [""; 0]);
    assert_eq!(bench.hear(FromBroker::Ack(3)), ["GOODBYE"]);
    assert!(bench.worker.has_left());
    assert_eq!(bench.tick_after(100 * SECOND), [""; 0]);
}

#[test]
fn a_long_list_of_held_tasks_goes_in_parts() {
    let mut bench = Bench::open(None, 1500);
    (0..1300).for_each(|task| assert!(bench.take_with(task, None, b"").is_some()));
    assert_eq!(bench.reconnect(1), ["READY 1/2", "READY 2/2"]);
    let listed: usize = bench.log.ready.iter().rev().take(2).map(|(_, list)| list.len()).sum();
    assert_eq!(listed, 1300);
}
