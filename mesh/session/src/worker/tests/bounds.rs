//! Where counts, sizes and waits of a worker's session begin and end.

use pinmesh_protocol::limits::{FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX};

use super::*;

const WELCOME: Welcome = Welcome {
    version: 1,
    nonce: 0,
    epoch: Epoch(1),
    heartbeat_ns: SECOND,
    lease_ns: 10 * SECOND,
    liveness: 3,
    window_tasks: 0,
    window_bytes: 0,
    payload_bytes_max: 1 << 20,
    header_bytes_max: 4096,
    kept_ns: 60 * SECOND,
};

/// What was announced of silences, and nothing else.
#[derive(Default)]
struct Silences(Vec<Option<u64>>);

impl WorkerOutbox<u32> for Silences {
    fn open(&mut self) {}
    fn close(&mut self) {}
    fn send(&mut self, command: &ToBroker<'_>) {
        if let ToBroker::Heartbeat(beat) = command {
            self.0.push(beat.silence_ns);
        }
    }
    fn send_end(&mut self, _: &mut u32) {}
    fn forget(&mut self, _: u32, _: Option<u32>) {}
}

fn held(bench: &Bench) -> (usize, usize) {
    (bench.worker.unended(), bench.worker.unacknowledged())
}

/// Ends a task that has been taken, with an end so long.
fn end(bench: &mut Bench, index: u32, bytes: u64) {
    assert_eq!(bench.start(index), Start::Run);
    bench.worker.end(bench.now, index, index, bytes, &mut bench.log);
}

#[test]
fn what_is_unended_and_what_is_unacknowledged_are_counted_for_a_tasks_whole_life() {
    let mut bench = Bench::supervised();
    let indices = [1, 2, 3, 4].map(|task| bench.take(task).unwrap());
    assert_eq!(held(&bench), (4, 0));
    end(&mut bench, indices[0], 10);
    end(&mut bench, indices[1], 10);
    assert_eq!(held(&bench), (2, 2));
    bench.worker.give_back(indices[2], &mut bench.log);
    assert_eq!(held(&bench).0, 1);
    bench.worker.recalled(indices[3], &mut bench.log);
    assert_eq!(held(&bench).0, 0);
    bench.worker.recalled(indices[3], &mut bench.log);
    bench.worker.give_back(indices[2], &mut bench.log);
    assert_eq!(held(&bench).0, 0, "gone is gone");
    bench.hear(FromBroker::Ack(3));
    assert_eq!(held(&bench), (0, 0));
    assert_eq!(indices.map(|index| bench.worker.task(index).is_some()), [false; 4]);
}

#[test]
fn a_place_is_used_again_once_its_task_is_gone() {
    let mut bench = Bench::supervised();
    let first = bench.take(1).unwrap();
    let second = bench.take(2).unwrap();
    assert_ne!(first, second);
    end(&mut bench, first, 10);
    bench.hear(FromBroker::Ack(1));
    let third = bench.take(3).unwrap();
    assert_eq!(third, first);
    assert_eq!(bench.worker.task(third).unwrap().attempt.task, TaskId(3));
    assert_eq!(bench.worker.task(second).unwrap().attempt.task, TaskId(2));
}

#[test]
fn a_worker_admits_what_its_window_has_room_for() {
    let mut bench = Bench::supervised();
    assert!(bench.worker.admits(5_000), "one task always fits");
    bench.take_with(1, None, &[0; 600]).unwrap();
    assert!(bench.worker.admits(400));
    assert!(!bench.worker.admits(401));
}

#[test]
fn a_broker_that_sends_far_beyond_the_window_is_refused_at_the_bound_and_not_before() {
    let mut bench = Bench::supervised();
    bench.take(1).unwrap();
    bench.event(Event::Drain { give_back: false });
    let returned_max = 2 * 4 + LIST_MAX as u64 + 1;
    for task in 0..=returned_max {
        assert_eq!(bench.take(10 + task), None);
        assert_eq!(bench.log.drain().len(), 1, "RETURN");
    }
    bench.take(9_999);
    assert_eq!(bench.log.drain(), ["REFUSED window", "close"]);
}

#[test]
fn an_end_as_long_as_the_broker_takes_is_kept_and_one_byte_more_is_let_go() {
    // Its payload_bytes_max is 1 MiB.
    let bytes_max = (1 << 20) + FIRST_FRAME_BYTES_MAX as u64;
    for (bytes, is_kept) in [(bytes_max, true), (bytes_max + 1, false)] {
        let mut bench = Bench::supervised();
        let index = bench.take(1).unwrap();
        end(&mut bench, index, bytes);
        bench.reconnect(1);
        assert_eq!(bench.worker.unacknowledged(), usize::from(is_kept), "{bytes}");
        let next = bench.take(2).unwrap();
        let want = if is_kept { Start::NotYet } else { Start::Run };
        assert_eq!(bench.start(next), want, "bytes of ends that were let go count no more");
    }
}

#[test]
fn a_silence_is_announced_for_more_than_a_frame_at_the_slowest_rate_of_all() {
    let frame = FRAME_BYTES_MAX as u64;
    for (bytes, silence) in
        [(frame, None), (frame + 1, Some(4 * SECOND + 3_814)), (1 << 24, Some(64 * SECOND))]
    {
        let mut bench = Bench::supervised();
        let index = bench.take(1).unwrap();
        assert_eq!(bench.start(index), Start::Run);
        let mut silences = Silences::default();
        bench.worker.end(bench.now, index, 1, bytes, &mut silences);
        let want: Vec<_> = silence.into_iter().map(Some).collect();
        assert_eq!(silences.0, want, "{bytes}");
    }
}

#[test]
fn while_a_long_end_is_on_its_way_silence_means_nothing_and_afterwards_it_does() {
    let mut bench = Bench::supervised();
    let index = bench.take(1).unwrap();
    end(&mut bench, index, 4 << 20);
    let opens = |bench: &mut Bench| bench.tick_after(SECOND).contains(&"open".to_string());
    (0..18).for_each(|second| assert!(!opens(&mut bench), "{second}"));
    assert!((0..2).any(|_| opens(&mut bench)));
}

#[test]
fn heartbeats_are_numbered_and_come_when_they_are_due_and_not_before() {
    let mut bench = Bench::supervised();
    let wakeup = Some((bench.now.after(SECOND), WakeReason::Heartbeat));
    assert_eq!(bench.worker.next_wakeup(), wakeup);
    assert_eq!(bench.tick_after(SECOND - 1), [""; 0]);
    assert_eq!(bench.tick_after(1), ["HEARTBEAT 1"]);
    assert_eq!(bench.tick_after(0), [""; 0]);
    bench.hear(FromBroker::Heartbeat(Heartbeat { sequence: 1, silence_ns: None }));
    assert_eq!(bench.tick_after(SECOND), ["HEARTBEAT 2"]);
}

#[test]
fn a_broker_is_given_up_after_the_missed_heartbeats_to_the_nanosecond() {
    let mut bench = Bench::supervised();
    bench.tick_after(SECOND);
    (0..5).for_each(|_| drop(bench.tick_after(SECOND / 2)));
    assert!(!bench.tick_after(SECOND / 2 - 1).contains(&"open".to_string()));
    assert_eq!(bench.tick_after(1), ["open", "HELLO"]);
}

#[test]
fn a_broker_cannot_make_a_worker_spin() {
    let mut bench = Bench::new(None, 4);
    bench.event(Event::Tick);
    let nonce = bench.log.nonce;
    let welcome = Welcome { nonce, heartbeat_ns: 0, liveness: 0, ..WELCOME };
    bench.hear(FromBroker::Welcome(welcome));
    assert_eq!(bench.worker.next_wakeup().unwrap().0, bench.now.after(1_000_000));
    bench.tick_after(1_000_000);
    assert!(bench.worker.is_open(), "liveness is one heartbeat at least");
}

#[test]
fn a_version_that_was_not_offered_is_refused() {
    for version in [0, 2] {
        let mut bench = Bench::new(None, 4);
        bench.event(Event::Tick);
        bench.log.drain();
        let nonce = bench.log.nonce;
        let welcome = Welcome { version, nonce, ..WELCOME };
        let said = bench.hear(FromBroker::Welcome(welcome));
        assert_eq!(said, ["REFUSED version", "close"], "{version}");
    }
}

#[test]
fn waits_after_refusals_double_with_jitter_up_to_five_seconds_and_a_welcome_resets_them() {
    const MS: u64 = 1_000_000;
    let wait = |bench: &mut Bench| {
        bench.hear(FromBroker::NoSession);
        let wait = bench.worker.next_wakeup().unwrap().0.since(bench.now);
        bench.tick_after(wait);
        wait
    };
    let mut longest = [0; 8];
    for seed in 0..60 {
        let mut bench = Bench::new(None, 4);
        bench.worker.backoff = Backoff::new(seed);
        bench.event(Event::Tick);
        for (refusals, longest) in (0..).zip(&mut longest) {
            let most = ((100 * MS) << refusals).min(5_000 * MS);
            let wait = wait(&mut bench);
            assert!((50 * MS..50 * MS + most).contains(&wait), "{refusals}: {wait}");
            *longest = wait.max(*longest);
        }
        bench.welcome(1);
        assert!(wait(&mut bench) < 150 * MS);
    }
    assert!(longest[3] > 600 * MS && longest[7] > 4_000 * MS, "{longest:?}");
}

#[test]
fn nonces_are_those_of_splitmix64() {
    let mut bench = Bench::new(None, 4);
    bench.worker.backoff = Backoff::new(0);
    bench.event(Event::Tick);
    assert_eq!(bench.log.nonce, 0xe220_a839_7b1d_cdaf);
    bench.tick_after(WELCOME_WAIT_NS);
    assert_eq!(bench.log.nonce, 0x6e78_9e6a_a1b9_65f4);
    bench.tick_after(WELCOME_WAIT_NS);
    assert_eq!(bench.log.nonce, 0x06c4_5d18_8009_454f);
}

#[test]
fn what_ready_lists_comes_in_parts_and_none_is_left_out() {
    let many = LIST_MAX as u32 + 2;
    let mut bench = Bench::open(None, many);
    bench.worker.held = HeldTasks::new(many, u64::MAX);
    assert!((0..u64::from(many)).all(|task| bench.take(task).is_some()));
    assert_eq!(bench.reconnect(1), ["READY 1/2", "READY 2/2"]);
    let parts = &bench.log.ready[bench.log.ready.len() - 2..];
    assert_eq!((parts[0].0, parts[0].1.len()), (0, LIST_MAX));
    assert_eq!((parts[1].0, parts[1].1.len()), (1, 2));
    assert_eq!(parts[1].1[1], (u64::from(many) - 1, HeldState::Waiting));
}

#[test]
fn a_drained_worker_says_so_in_its_next_session_and_leaves_with_its_last_acknowledgement() {
    let mut bench = Bench::supervised();
    bench.run(1);
    bench.log.drain();
    assert_eq!(bench.event(Event::Drain { give_back: false }), ["WINDOW 0"]);
    assert_eq!(bench.event(Event::Drain { give_back: false }), [""; 0], "once");
    assert!(!bench.worker.has_left());
    assert_eq!(bench.reconnect(1), ["READY 1/1", "WINDOW 0", "DONE 1"]);
    assert_eq!(bench.hear(FromBroker::Ack(1)), ["GOODBYE"]);
    assert!(bench.worker.has_left());
    assert_eq!(bench.worker.next_wakeup(), None);
    assert_eq!(bench.hear(FromBroker::NoSession), [""; 0]);
    assert_eq!(bench.tick_after(100 * SECOND), [""; 0], "there is no way back");
}

#[test]
fn a_recall_takes_the_attempt_that_it_names_and_no_other() {
    let mut bench = Bench::open(None, 4);
    let indices = [1, 2, 3].map(|task| bench.take(task).unwrap());
    let attempts = vec![bench.worker.task(indices[1]).unwrap().attempt];
    let recall = Attempts { slot: Slot(0), attempts };
    assert_eq!(bench.hear(FromBroker::Recall(recall)), ["RECALLED 1"]);
    assert_eq!(indices.map(|index| bench.worker.task(index).is_some()), [true, false, true]);
}
