//! Sessions, leases, and what brokers ask for.

use alloc::vec;
use alloc::vec::Vec;

use pinmesh_protocol::command::{Attempts, CancelAttempt, FromBroker, Heartbeat, Refused};
use pinmesh_protocol::id::{Epoch, Slot};
use pinmesh_protocol::status::{LossKind, RefusedCode};

use super::super::{Death, Event, Note, Signal};
use super::fake::{A, B, EPOCH, Fake, MS, S, Said, attempt};
use crate::slots::SlotState;
use crate::time::Time;

fn recall(fake: &mut Fake, tasks: &[u64]) {
    let attempts = tasks.iter().map(|&task| attempt(task)).collect();
    fake.receive(A, FromBroker::Recall(Attempts { slot: Slot(0), attempts }));
}

fn cancel(fake: &mut Fake, task: u64, is_hard: bool) {
    let attempt = attempt(task);
    fake.receive(A, FromBroker::Cancel(CancelAttempt { slot: Slot(0), attempt, is_hard }));
}

#[test]
fn hello_opens_a_session_and_host_lists_the_workers() {
    let mut fake = Fake::new(2, 1);
    fake.run_task(1, A, 5, S);
    fake.welcome(A, EPOCH);
    let hosts = fake.said(A, |said| match said {
        Said::Host(host) => Some(host.clone()),
        _ => None,
    });
    assert_eq!(hosts[0].cpus, [0, 1]);
    assert_eq!(hosts[0].workers.len(), 2);
    assert_eq!(hosts[0].workers[1].claimed, [attempt(5)]);
    assert_eq!(hosts[0].workers[1].incarnation.0, 1);
}

#[test]
fn a_welcome_with_another_nonce_opens_nothing() {
    let mut fake = Fake::new(1, 1);
    fake.world.said.push((A, Said::Hello(1)));
    fake.welcome(A, EPOCH);
    assert!(!fake.machine.links[0].is_open());
}

#[test]
fn a_broker_that_does_not_answer_gets_another_socket_and_another_hello() {
    let mut fake = Fake::new(1, 1);
    fake.run(10 * S);
    assert!((3..=5).contains(&fake.world.connects.len()), "{:?}", fake.world.connects);
    let hellos = fake.hellos(A);
    assert_eq!(hellos.len(), fake.world.connects.len());
    assert_ne!(hellos[0], hellos[1]);
}

#[test]
fn a_silent_broker_is_given_up_after_the_missed_heartbeats() {
    let mut fake = Fake::up(1, 1);
    fake.run(2_700 * MS);
    assert!(fake.world.connects.is_empty());
    fake.run(200 * MS);
    assert_eq!(fake.world.connects, [A]);
}

#[test]
fn announced_silence_is_waited_for() {
    let mut fake = Fake::up(1, 1);
    let echo = Heartbeat { sequence: 1, silence_ns: Some(20 * S) };
    fake.receive(A, FromBroker::Heartbeat(echo));
    fake.run(19 * S);
    assert!(fake.world.connects.is_empty());
}

#[test]
fn the_lease_counts_from_the_sending_of_the_echoed_heartbeat() {
    let mut fake = Fake::up(1, 1);
    let until = |fake: &mut Fake| fake.page(0).leases[&0].1;
    let sent = fake.now;
    fake.run(1_500 * MS);
    let beats = fake.said(A, |said| match said {
        Said::Beat(sequence) => Some(*sequence),
        _ => None,
    });
    fake.receive(A, FromBroker::Heartbeat(Heartbeat { sequence: beats[0], silence_ns: None }));
    let renewed = until(&mut fake);
    assert!(renewed > sent.after(10 * S) && renewed <= sent.after(11 * S));
    // The same echo again renews nothing.
    fake.run(100 * MS);
    fake.receive(A, FromBroker::Heartbeat(Heartbeat { sequence: beats[0], silence_ns: None }));
    assert_eq!(until(&mut fake), renewed);
}

/// The broker counts from HOST and the heartbeats behind it, which may never arrive.
#[test]
fn welcome_alone_gives_no_lease_and_prolongs_none() {
    let mut fake = Fake::new(1, 1);
    fake.welcome_only(A, EPOCH);
    assert!(fake.page(0).leases.is_empty());
    let mut fake = Fake::up(1, 1);
    let until = fake.page(0).leases[&0].1;
    fake.run(2 * S);
    fake.receive(A, FromBroker::NoSession);
    fake.run(10 * MS);
    fake.welcome_only(A, EPOCH);
    fake.run(20 * MS);
    assert_eq!(fake.page(0).leases[&0].1, until);
    let beat = Heartbeat { sequence: 1, silence_ns: None };
    fake.receive(A, FromBroker::Heartbeat(beat));
    assert!(fake.page(0).leases[&0].1 > until.after(S));
}

#[test]
fn when_the_lease_ends_what_runs_is_killed_and_what_waits_is_given_back() {
    let mut fake = Fake::up(2, 2);
    fake.run_task(0, A, 1, 3_600 * S);
    fake.hold(0, A, 2, SlotState::Waiting);
    fake.run_task(1, B, 3, 3_600 * S);
    fake.hold(1, A, 4, SlotState::Ended);
    // Only B echoes.
    for _ in 0..24 {
        fake.run(500 * MS);
        let beats = fake.said(B, |said| match said {
            Said::Beat(sequence) => Some(*sequence),
            _ => None,
        });
        let sequence = beats.last().copied().unwrap_or(1);
        fake.receive(B, FromBroker::Heartbeat(Heartbeat { sequence, silence_ns: None }));
    }
    let kills: Vec<_> = fake.world.signals.iter().filter(|s| s.1 == Signal::Kill).collect();
    assert_eq!(kills, [&(Slot(0), Signal::Kill)]);
    assert_eq!(fake.page(0).leases[&0], (EPOCH, Time(0)));
    assert_eq!(fake.page(0).held[1].state, SlotState::Recalled);
    fake.event(Event::Died { slot: Slot(0), death: Death::Signalled(9) });
    fake.forget();
    fake.welcome_again(A, EPOCH);
    assert_eq!(fake.recalled(A), [attempt(2)]);
    let lost = fake.lost(A);
    assert_eq!(lost[0].cause, LossKind::LeaseEnded);
    assert_eq!(lost[0].running, Some(attempt(1)));
}

#[test]
fn an_echo_that_comes_after_the_lease_has_ended_does_not_hide_the_end() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 3_600 * S);
    let echo = |sequence| FromBroker::Heartbeat(Heartbeat { sequence, silence_ns: Some(60 * S) });
    fake.receive(A, echo(1));
    fake.run(9 * S);
    let beats = fake.said(A, |said| match said {
        Said::Beat(sequence) => Some(*sequence),
        _ => None,
    });
    // The supervisor itself stands still, then finds the echo of its last heartbeat.
    fake.now = fake.now.after(5 * S);
    fake.receive(A, echo(*beats.last().unwrap()));
    assert!(fake.world.signals.contains(&(Slot(0), Signal::Kill)));
    assert!(fake.world.notes.contains(&Note::LeaseEnded { broker: A, epoch: EPOCH }));
}

#[test]
fn a_restarted_broker_takes_the_lease_over() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 3_600 * S);
    fake.receive(A, FromBroker::NoSession);
    fake.welcome(A, Epoch(8));
    fake.run_echoed(30 * S);
    assert_eq!(fake.page(0).leases[&0].0, Epoch(8));
    assert!(fake.world.signals.is_empty());
}

#[test]
fn refused_sessions_are_tried_again_ever_more_slowly() {
    let mut fake = Fake::new(1, 1);
    for _ in 0..6 {
        let refused = Refused { code: RefusedCode::Full, reason: "" };
        fake.receive(A, FromBroker::Refused(refused));
        let before = fake.world.connects.len();
        while fake.world.connects.len() == before {
            fake.run(10 * MS);
        }
    }
    assert!(fake.now > Time(2 * S), "{:?}", fake.now);
}

#[test]
fn recall_gives_back_what_waits_or_has_not_come_and_nothing_else() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, S);
    fake.hold(0, A, 2, SlotState::Waiting);
    fake.hold(0, A, 3, SlotState::Ended);
    recall(&mut fake, &[1, 2, 3, 4]);
    assert_eq!(fake.recalled(A), [attempt(2), attempt(4)]);
    assert_eq!(fake.page(0).refused, [attempt(4)]);
    fake.world.is_refusal_full = true;
    fake.forget();
    recall(&mut fake, &[5]);
    assert!(fake.recalled(A).is_empty());
}

#[test]
fn what_is_recalled_is_said_again_until_it_is_acknowledged() {
    let mut fake = Fake::up(1, 1);
    fake.hold(0, A, 1, SlotState::Waiting);
    fake.hold(0, A, 2, SlotState::Waiting);
    recall(&mut fake, &[1]);
    recall(&mut fake, &[2]);
    fake.receive(A, FromBroker::Ack(1));
    fake.forget();
    fake.welcome_again(A, EPOCH);
    assert_eq!(fake.recalled(A), [attempt(2)]);
    fake.receive(A, FromBroker::Ack(1));
    fake.forget();
    fake.welcome_again(A, EPOCH);
    assert!(fake.recalled(A).is_empty());
}

#[test]
fn an_ack_of_what_was_never_said_ends_the_session() {
    let mut fake = Fake::up(1, 1);
    fake.receive(A, FromBroker::Ack(1));
    assert_eq!(fake.world.said[0].1, Said::Refused);
    assert_eq!(fake.world.connects, [A]);
}

#[test]
fn a_soft_cancel_flags_what_runs_and_gives_back_what_waits() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, S);
    fake.hold(0, A, 2, SlotState::Waiting);
    cancel(&mut fake, 1, false);
    cancel(&mut fake, 2, false);
    assert_eq!(fake.page(0).cancelled, [attempt(1)]);
    assert_eq!(fake.recalled(A), [attempt(2)]);
    assert!(fake.world.signals.is_empty());
}

#[test]
fn a_hard_cancel_stops_the_worker_looks_again_and_kills_only_that_attempt() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 3_600 * S);
    cancel(&mut fake, 1, true);
    assert_eq!(fake.world.signals, [(Slot(0), Signal::Stop)]);
    fake.event(Event::Stopped(Slot(0)));
    assert_eq!(fake.world.signals[1..], [(Slot(0), Signal::Kill)]);
    fake.event(Event::Died { slot: Slot(0), death: Death::Signalled(9) });
    let lost = fake.lost(A);
    assert_eq!((lost[0].cause, lost[0].running), (LossKind::Cancelled, Some(attempt(1))));
    assert_eq!(fake.world.spawned.len(), 1, "it starts again at once");
}

#[test]
fn a_hard_cancel_lets_go_a_worker_that_has_moved_on() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 3_600 * S);
    cancel(&mut fake, 1, true);
    fake.end_task(0);
    fake.run_task(0, A, 2, 3_600 * S);
    fake.event(Event::Stopped(Slot(0)));
    fake.event(Event::Continued(Slot(0)));
    assert_eq!(fake.world.signals[1..], [(Slot(0), Signal::Continue)]);
    fake.run_echoed(30 * S);
    assert_eq!(fake.world.signals.len(), 2);
}

#[test]
fn each_broker_hears_of_its_own_attempts_only_and_of_every_death() {
    let mut fake = Fake::up(1, 2);
    fake.run_task(0, A, 1, S);
    fake.hold(0, B, 2, SlotState::Ended);
    fake.hold(0, B, 3, SlotState::Waiting);
    fake.event(Event::Died { slot: Slot(0), death: Death::Signalled(11) });
    let (a, b) = (fake.lost(A), fake.lost(B));
    assert_eq!((a[0].running, a[0].started.len()), (Some(attempt(1)), 0));
    assert_eq!((b[0].running, &b[0].started), (None, &vec![attempt(2)]));
    assert_eq!((a[0].cause, a[0].detail), (LossKind::Signalled, 11));
}

#[test]
fn a_loss_is_said_before_host_in_the_next_session() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, S);
    fake.receive(A, FromBroker::Goodbye);
    fake.event(Event::Died { slot: Slot(0), death: Death::Exited(1) });
    fake.forget();
    fake.welcome_again(A, EPOCH);
    let order: Vec<_> = fake.said(A, |said| match said {
        Said::Lost(_) => Some("LOST"),
        Said::Host(_) => Some("HOST"),
        _ => None,
    });
    assert_eq!(order[..2], ["LOST", "HOST"]);
}

#[test]
fn nothing_is_done_for_a_broker_without_a_session() {
    let mut fake = Fake::new(1, 1);
    fake.hold(0, A, 1, SlotState::Waiting);
    recall(&mut fake, &[1]);
    cancel(&mut fake, 1, true);
    fake.receive(A, FromBroker::Drain);
    assert_eq!(fake.page(0).held[0].state, SlotState::Waiting);
    assert!(fake.world.signals.is_empty());
}
