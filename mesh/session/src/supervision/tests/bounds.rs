//! Where waits and counts of a supervisor begin and end.

use alloc::vec::Vec;

use pinmesh_protocol::command::{Attempts, CancelAttempt, FromBroker, Heartbeat, Refused};
use pinmesh_protocol::id::{AttemptId, Slot};
use pinmesh_protocol::limits::LIST_MAX;
use pinmesh_protocol::status::{LossKind, RefusedCode};

use super::super::{CloseReason, Death, Event, Note, Signal, WakeReason};
use super::fake::{A, B, EPOCH, Fake, MS, S, Said, attempt};
use crate::slots::SlotState;

fn echo(fake: &mut Fake, broker: crate::slots::BrokerIndex, sequence: u64) {
    fake.receive(broker, FromBroker::Heartbeat(Heartbeat { sequence, silence_ns: None }));
}

fn die(fake: &mut Fake, slot: u16, death: Death) {
    fake.event(Event::Died { slot: Slot(slot), death });
}

fn refuse(fake: &mut Fake) {
    let refused = Refused { code: RefusedCode::Full, reason: "" };
    fake.receive(A, FromBroker::Refused(refused));
}

fn retries(fake: &Fake) -> Vec<u64> {
    let retry = |note: &Note| match note {
        Note::Closed { retry_in_ns, .. } => Some(*retry_in_ns),
        _ => None,
    };
    fake.world.notes.iter().filter_map(retry).collect()
}

/// Lets time pass until another socket is opened.
fn reconnect(fake: &mut Fake) {
    let before = fake.world.connects.len();
    while fake.world.connects.len() == before {
        fake.run(MS);
    }
}

#[test]
fn waits_after_refusals_begin_at_none_and_double_with_jitter_up_to_five_seconds() {
    let mut least = [u64::MAX; 10];
    let mut most = [0; 10];
    for seed in 0..40 {
        let mut fake = Fake::with(1, 1, |config| config.seed = seed);
        for at in 0..10 {
            refuse(&mut fake);
            let wait = *retries(&fake).last().unwrap();
            (least[at], most[at]) = (least[at].min(wait), most[at].max(wait));
            reconnect(&mut fake);
        }
    }
    assert_eq!((least[0], most[0]), (0, 0));
    for at in 1..10 {
        let ceiling = ((100 * MS) << (at - 1)).min(5 * S);
        assert!(least[at] >= ceiling / 2 && most[at] < ceiling, "{at}: {least:?} {most:?}");
        assert!(least[at] < ceiling * 6 / 10 && most[at] > ceiling * 9 / 10, "{at}: no jitter");
    }
}

#[test]
fn a_session_that_lasted_is_followed_by_another_one_at_once() {
    let mut fake = Fake::new(1, 1);
    for _ in 0..4 {
        refuse(&mut fake);
        reconnect(&mut fake);
    }
    fake.welcome(A, EPOCH);
    // One that is refused straight away has proved nothing.
    fake.run(2_900 * MS);
    echo(&mut fake, A, 1);
    refuse(&mut fake);
    assert!(*retries(&fake).last().unwrap() > 0);
    reconnect(&mut fake);
    fake.welcome(A, EPOCH);
    fake.run_echoed(3_100 * MS);
    refuse(&mut fake);
    assert_eq!(*retries(&fake).last().unwrap(), 0);
}

#[test]
fn nonces_of_two_brokers_differ_and_are_those_of_splitmix64() {
    let fake = Fake::with(1, 2, |config| config.seed = 0x9e37_79b9_7f4a_7c15);
    // The first broker's state begins at seed ^ 0x9e37... = 0.
    assert_eq!(fake.hellos(A), [0xe220_a839_7b1d_cdaf]);
    assert_ne!(fake.hellos(A), fake.hellos(B));
}

#[test]
fn heartbeats_are_sent_each_interval_and_numbered() {
    let mut fake = Fake::up(1, 1);
    fake.run_echoed(5 * S);
    let beats = fake.said(A, |said| match said {
        Said::Beat(sequence) => Some(*sequence),
        _ => None,
    });
    let first = beats[0];
    assert_eq!(beats, (first..first + 5).collect::<Vec<_>>());
}

#[test]
fn a_broker_is_given_up_when_the_missed_heartbeats_are_over_and_not_before() {
    let mut fake = Fake::up(1, 1);
    echo(&mut fake, A, 0);
    let heard = fake.now;
    fake.run(3 * S - 1);
    assert!(fake.world.connects.is_empty());
    fake.run(1);
    assert_eq!(fake.world.connects, [A]);
    assert_eq!(fake.now, heard.after(3 * S));
    let silent = Note::Closed { broker: A, why: CloseReason::Silent, retry_in_ns: 0 };
    assert!(fake.world.notes.contains(&silent), "{:?}", fake.world.notes);
}

#[test]
fn a_hello_without_an_answer_is_said_again_after_the_patience_with_the_broker() {
    let mut fake = Fake::new(1, 1);
    let said = fake.now;
    assert_eq!(fake.hellos(A).len(), 1);
    fake.run(3 * S - 1);
    assert_eq!(fake.hellos(A).len(), 1);
    fake.run(1);
    assert_eq!((fake.hellos(A).len(), fake.now), (2, said.after(3 * S)));
}

#[test]
fn a_death_without_attempts_is_not_kept_for_a_broker_that_is_away() {
    let mut fake = Fake::up(2, 1);
    fake.receive(A, FromBroker::Goodbye);
    die(&mut fake, 0, Death::Exited(1));
    fake.hold(1, A, 7, SlotState::Claimed);
    die(&mut fake, 1, Death::Exited(1));
    fake.forget();
    fake.welcome_again(A, EPOCH);
    let slots: Vec<_> = fake.lost(A).iter().map(|lost| lost.slot).collect();
    assert_eq!(slots, [Slot(1)], "HOST says as much of the other one");
}

#[test]
fn a_farewell_does_not_wait_for_a_broker_that_is_away() {
    let mut fake = Fake::up(1, 2);
    fake.run_task(0, A, 1, 3_600 * S);
    fake.receive(A, FromBroker::Goodbye);
    fake.event(Event::Terminate);
    die(&mut fake, 0, Death::Exited(0));
    assert!(!fake.world.has_left, "B has not acknowledged");
    let before = fake.now;
    fake.receive(B, FromBroker::Ack(1));
    assert!(fake.world.has_left);
    assert_eq!(fake.now, before);
    let farewells = |broker| fake.said(broker, |said| matches!(said, Said::Goodbye).then_some(()));
    assert_eq!((farewells(A).len(), farewells(B).len()), (0, 1));
}

#[test]
fn host_lists_to_each_broker_what_is_claimed_of_its_own() {
    let mut fake = Fake::up(2, 2);
    fake.run_task(0, A, 1, S);
    fake.hold(0, B, 2, SlotState::Claimed);
    fake.hold(0, A, 3, SlotState::Waiting);
    fake.hold(0, A, 4, SlotState::Ended);
    for (broker, task) in [(A, 1), (B, 2)] {
        fake.forget();
        fake.welcome_again(broker, EPOCH);
        let hosts = fake.said(broker, |said| match said {
            Said::Host(host) => Some(host.clone()),
            _ => None,
        });
        assert_eq!(hosts[0].workers[0].claimed, [attempt(task)]);
        assert!(hosts[0].workers[1].claimed.is_empty());
        assert_eq!(hosts[0].workers[1].cpu, Some(1));
    }
}

#[test]
fn a_worker_that_is_being_killed_is_listed_and_one_that_waits_to_be_started_is_not() {
    let mut fake = Fake::up(2, 1);
    fake.run_task(0, A, 1, S);
    fake.run_echoed(S);
    fake.event(Event::Stopped(Slot(0)));
    die(&mut fake, 1, Death::Exited(1));
    fake.forget();
    fake.receive(A, FromBroker::NoSession);
    fake.welcome(A, EPOCH);
    let slots = fake.said(A, |said| match said {
        Said::Host(host) => Some(host.workers.iter().map(|worker| worker.slot).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(slots[0], [Slot(0)]);
}

#[test]
fn a_long_recall_is_answered_in_parts() {
    let mut fake = Fake::up(1, 1);
    let many = LIST_MAX as u64 + 2;
    (0..many).for_each(|task| fake.hold(0, A, task, SlotState::Waiting));
    let attempts: Vec<AttemptId> = (0..many).map(attempt).collect();
    fake.receive(A, FromBroker::Recall(Attempts { slot: Slot(0), attempts: attempts.clone() }));
    let parts = fake.said(A, |said| match said {
        Said::Recalled(recalled) => Some(recalled.attempts.len()),
        _ => None,
    });
    assert_eq!(parts, [LIST_MAX, 2]);
    assert_eq!(fake.recalled(A), attempts);
}

#[test]
fn a_worker_killed_for_its_task_starts_at_once_unless_it_had_only_just_started() {
    for (lived, delay) in [(99 * MS, 100 * MS), (100 * MS, 0), (5 * S, 0)] {
        let mut fake = Fake::up(1, 1);
        die(&mut fake, 0, Death::Exited(1));
        fake.run_echoed(100 * MS);
        fake.forget();
        let attempt = attempt(1);
        fake.run_task(0, A, 1, 3_600 * S);
        fake.run_echoed(lived);
        let cancel = CancelAttempt { slot: Slot(0), attempt, is_hard: true };
        fake.receive(A, FromBroker::Cancel(cancel));
        fake.event(Event::Stopped(Slot(0)));
        die(&mut fake, 0, Death::Signalled(9));
        let delays: Vec<_> = fake
            .world
            .notes
            .iter()
            .filter_map(|note| match note {
                Note::RestartIn { delay_ns, .. } => Some(*delay_ns),
                _ => None,
            })
            .collect();
        assert_eq!(delays, [delay], "lived {lived}");
    }
}

#[test]
fn a_crash_after_a_healthy_life_is_the_first_and_one_before_is_the_next() {
    for (lived, failures) in [(10 * S - 1, 3), (10 * S, 1)] {
        let mut fake = Fake::up(1, 1);
        fake.run_echoed(20 * S);
        die(&mut fake, 0, Death::Exited(1));
        fake.run_echoed(100 * MS);
        die(&mut fake, 0, Death::Exited(1));
        fake.run_echoed(200 * MS);
        fake.forget();
        fake.run_echoed(lived);
        die(&mut fake, 0, Death::Exited(1));
        let counted = fake.world.notes.iter().find_map(|note| match note {
            Note::RestartIn { failures, .. } => Some(*failures),
            _ => None,
        });
        assert_eq!(counted, Some(failures), "lived {lived}");
    }
}

/// How often the pages are looked at in a second.
fn looks(fake: &mut Fake) -> usize {
    let end = fake.now.after(S);
    let mut looks = 0;
    while let Some((due, why)) = fake.machine.next_wakeup().filter(|&(due, _)| due <= end) {
        fake.now = due;
        fake.event(Event::Tick);
        looks += usize::from(why == WakeReason::Watch);
        let beats = fake.said(A, |said| match said {
            Said::Beat(sequence) => Some(*sequence),
            _ => None,
        });
        if let Some(sequence) = beats.last() {
            echo(fake, A, *sequence);
        }
    }
    looks
}

#[test]
fn pages_are_looked_at_often_while_workers_start_or_hold_tasks_and_seldom_otherwise() {
    let mut fake = Fake::with(2, 1, |config| {
        (config.watch_busy_ns, config.watch_idle_ns) = (100 * MS, 500 * MS);
    });
    fake.welcome(A, EPOCH);
    fake.page(0).turn = 1;
    assert!(looks(&mut fake) >= 90, "one has not started");
    fake.run_echoed(10 * S);
    assert!(looks(&mut fake) <= 3, "nor will it soon");
    fake.page(1).turn = 1;
    fake.run_echoed(S);
    assert!(looks(&mut fake) <= 3);
    fake.hold(1, A, 1, SlotState::Ended);
    assert!(looks(&mut fake) <= 3);
    fake.hold(0, A, 2, SlotState::Waiting);
    fake.run_echoed(S);
    fake.page(0).turn += 1;
    assert!((9..=11).contains(&looks(&mut fake)));
}

#[test]
fn more_hard_cancels_than_are_kept_forget_the_oldest() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 3_600 * S);
    let cancel = |task| CancelAttempt { slot: Slot(0), attempt: attempt(task), is_hard: true };
    for task in (1..=17).chain([17]) {
        if task > 1 {
            fake.hold(0, A, task, SlotState::Ended);
        }
        fake.receive(A, FromBroker::Cancel(cancel(task)));
    }
    fake.event(Event::Stopped(Slot(0)));
    assert_eq!(fake.world.signals.last(), Some(&(Slot(0), Signal::Continue)));
}

#[test]
fn a_hard_cancel_of_a_worker_that_somebody_stopped_needs_no_stop() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 3_600 * S);
    fake.event(Event::Stopped(Slot(0)));
    let cancel = CancelAttempt { slot: Slot(0), attempt: attempt(1), is_hard: true };
    fake.receive(A, FromBroker::Cancel(cancel));
    assert_eq!(fake.world.signals, [(Slot(0), Signal::Kill)]);
}

#[test]
fn a_cancel_for_a_dead_worker_changes_nothing_and_a_drain_does_not_restart_it() {
    let mut fake = Fake::up(1, 1);
    fake.hold(0, A, 1, SlotState::Waiting);
    die(&mut fake, 0, Death::Exited(1));
    fake.forget();
    for is_hard in [false, true] {
        let cancel = CancelAttempt { slot: Slot(0), attempt: attempt(1), is_hard };
        fake.receive(A, FromBroker::Cancel(cancel));
    }
    fake.receive(A, FromBroker::Recall(Attempts { slot: Slot(0), attempts: [attempt(1)].into() }));
    assert!(fake.recalled(A).is_empty(), "LOST has said more");
    assert!(fake.world.signals.is_empty());
    fake.event(Event::Terminate);
    fake.run_echoed(30 * S);
    assert!(fake.world.spawned.is_empty() && fake.world.has_left);
}

#[test]
fn a_loss_is_told_with_its_cause_also_when_the_host_is_leaving() {
    for (death, cause) in [
        (Death::Exited(0), LossKind::Shutdown),
        (Death::Signalled(15), LossKind::Shutdown),
        (Death::Exited(3), LossKind::Exited),
        (Death::Signalled(11), LossKind::Signalled),
        (Death::OutOfMemory, LossKind::OutOfMemory),
    ] {
        let mut fake = Fake::up(1, 1);
        fake.event(Event::Terminate);
        die(&mut fake, 0, death);
        assert_eq!(fake.lost(A)[0].cause, cause, "{death:?}");
        let mut fake = Fake::up(1, 1);
        die(&mut fake, 0, death);
        let at_work = match death {
            Death::Exited(_) => LossKind::Exited,
            Death::Signalled(_) => LossKind::Signalled,
            Death::OutOfMemory => LossKind::OutOfMemory,
        };
        assert_eq!(fake.lost(A)[0].cause, at_work, "{death:?}");
    }
}
