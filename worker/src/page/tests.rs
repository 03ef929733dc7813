use std::sync::Barrier;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use pinmesh_protocol::id::{Dispatch, Epoch, TaskId};
use pinmesh_session::Time;
use pinmesh_session::slots::{Flip, Glance, HeldSlot, Lease, Running, SlotState};

use super::*;

const BROKER: BrokerIndex = BrokerIndex(1);

fn attempt(task: u64) -> AttemptId {
    AttemptId { epoch: Epoch(7), task: TaskId(task), dispatch: Dispatch(1) }
}

fn both() -> (StatusPage, StatusPage) {
    let supervisor = StatusPage::create(2).unwrap();
    let worker = StatusPage::open(supervisor.fd().try_clone_to_owned().unwrap()).unwrap();
    (supervisor, worker)
}

#[test]
fn what_one_mapping_writes_the_other_reads() {
    let (supervisor, worker) = both();
    worker.publish(3, BROKER, attempt(9));
    assert!(!worker.settle());
    let held = HeldSlot { broker: BROKER, attempt: attempt(9), state: SlotState::Waiting };
    assert_eq!(supervisor.held(), [held]);
    assert!(worker.claim(3, Time(100), 50));
    worker.turn(1);
    let running =
        Running { broker: BROKER, attempt: attempt(9), started: Time(100), max_runtime_ns: 50 };
    assert_eq!(supervisor.glance(), Glance { turn: 1, unended: 1, running: Some(running) });
    worker.end(3);
    assert_eq!(supervisor.running(), None);
    assert_eq!(supervisor.flip(BROKER, attempt(9)), Flip::Ended);
    worker.free(3);
    assert_eq!(supervisor.held(), []);
    assert_eq!(supervisor.flip(BROKER, attempt(9)), Flip::Absent);
}

#[test]
fn a_file_that_is_no_page_is_turned_away() {
    let fd = rustix::fs::memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
    let error = StatusPage::open(fd).unwrap_err();
    assert!(matches!(error, PageError::Foreign { what: "size", .. }), "{error}");
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("empty", flags).unwrap();
    rustix::fs::ftruncate(&fd, SIZE as u64).unwrap();
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
    let error = StatusPage::open(fd).unwrap_err();
    assert!(matches!(error, PageError::Foreign { what: "magic", .. }), "{error}");
    assert!(matches!(StatusPage::create(BROKERS_MAX + 1), Err(PageError::Brokers(17))));
}

#[test]
fn a_refused_attempt_is_recalled_when_it_comes_and_only_for_its_broker() {
    let (supervisor, worker) = both();
    assert_eq!(supervisor.flip(BROKER, attempt(5)), Flip::Absent);
    assert!(supervisor.refuse(BROKER, attempt(5), Time(1)));
    assert_eq!(supervisor.flip(BROKER, attempt(5)), Flip::Absent);
    worker.publish(0, BrokerIndex(0), attempt(5));
    worker.publish(1, BROKER, attempt(5));
    assert!(worker.settle());
    assert!(!worker.is_refused(0, BrokerIndex(0), attempt(5)));
    assert!(worker.is_refused(1, BROKER, attempt(5)));
    assert!(!worker.claim(1, Time(2), 1));
    assert_eq!(supervisor.flip(BROKER, attempt(5)), Flip::AlreadyRecalled);
    assert!(worker.claim(0, Time(2), 1));
}

#[test]
fn a_full_bucket_refuses_to_refuse_until_its_entries_are_old() {
    let (supervisor, _worker) = both();
    let bucket = AttemptWords::new(attempt(0)).bucket();
    let mut same = (0..).map(attempt).filter(|a| AttemptWords::new(*a).bucket() == bucket);
    for _ in 0..REFUSAL_WAYS {
        assert!(supervisor.refuse(BROKER, same.next().unwrap(), Time(1)));
    }
    let next = same.next().unwrap();
    assert!(!supervisor.refuse(BROKER, next, Time(2)));
    assert!(supervisor.refuse(BROKER, next, Time(120_000_000_000)));
}

#[test]
fn a_cancel_reaches_exactly_the_running_attempt() {
    let (supervisor, worker) = both();
    worker.publish(0, BROKER, attempt(1));
    worker.publish(1, BROKER, attempt(2));
    assert!(!supervisor.cancel(BROKER, attempt(1)));
    assert!(worker.claim(0, Time(1), 1));
    assert!(supervisor.cancel(BROKER, attempt(1)));
    assert!(worker.is_cancelled(0) && !worker.is_cancelled(1));
    worker.end(0);
    assert!(!worker.is_cancelled(0));
    assert!(!supervisor.cancel(BROKER, attempt(1)));
}

#[test]
fn a_lease_that_ends_begins_a_new_term() {
    let (supervisor, worker) = both();
    assert_eq!(worker.lease(BROKER).until, Time(0));
    supervisor.set_lease(BROKER, Epoch(7), Time(10));
    supervisor.set_lease(BROKER, Epoch(7), Time(20));
    assert_eq!(worker.lease(BROKER), Lease { epoch: Epoch(7), until: Time(20), term: 0 });
    supervisor.set_lease(BROKER, Epoch(7), Time(0));
    supervisor.set_lease(BROKER, Epoch(7), Time(0));
    supervisor.set_lease(BROKER, Epoch(8), Time(30));
    assert_eq!(worker.lease(BROKER), Lease { epoch: Epoch(8), until: Time(30), term: 1 });
    assert_eq!(worker.lease(BrokerIndex(0)).until, Time(0));
}

/// Lets the other thread go ahead, on a machine that may have one processor only.
fn wait_until(is_so: impl Fn() -> bool) {
    let mut turns = 0_u32;
    while !is_so() {
        turns += 1;
        if turns.is_multiple_of(64) { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
}

#[test]
fn of_a_claim_and_a_recall_exactly_one_wins() {
    const ROUNDS: u64 = 200_000;
    let (supervisor, worker) = both();
    let (begun, done) = (AtomicU64::new(0), AtomicU64::new(0));
    // Threads that are woken meet too seldom within the nanoseconds that matter; these spin.
    std::thread::scope(|scope| {
        let flips = scope.spawn(|| {
            let mut flips = Vec::new();
            for round in 1..=ROUNDS {
                wait_until(|| begun.load(Acquire) == round);
                flips.push(supervisor.flip(BROKER, attempt(round)));
                done.store(round, Release);
            }
            flips
        });
        let mut claims = Vec::new();
        for round in 1..=ROUNDS {
            worker.publish(0, BROKER, attempt(round));
            begun.store(round, Release);
            // From before the flip to after it, again and again.
            (0..round % 128).for_each(|_| std::hint::spin_loop());
            claims.push(worker.claim(0, Time(round), 1));
            wait_until(|| done.load(Acquire) == round);
            worker.free(0);
        }
        for (round, (claim, flip)) in (1..).zip(claims.into_iter().zip(flips.join().unwrap())) {
            let want = if claim { Flip::Claimed } else { Flip::Recalled };
            assert_eq!(flip, want, "round {round}");
        }
    });
}

#[test]
fn of_a_publication_and_a_refusal_at_least_one_sees_the_other() {
    let (supervisor, worker) = both();
    let barrier = Barrier::new(2);
    for round in 1..=2_000 {
        let (ran, flip) = std::thread::scope(|scope| {
            let flip = scope.spawn(|| {
                barrier.wait();
                assert!(supervisor.refuse(BROKER, attempt(round), Time(round * 60_000_000_001)));
                supervisor.flip(BROKER, attempt(round))
            });
            barrier.wait();
            worker.publish(0, BROKER, attempt(round));
            if worker.settle() {
                worker.is_refused(0, BROKER, attempt(round));
            }
            (worker.claim(0, Time(round), 1), flip.join().unwrap())
        });
        // Given back and run must never both be true.
        let is_given_back = !matches!(flip, Flip::Claimed | Flip::Ended);
        assert_ne!(ran, is_given_back, "round {round}: {flip:?}");
        worker.free(0);
    }
}
