//! Life and death of workers, and the leaving of the host.

use alloc::vec::Vec;

use pinmesh_protocol::command::FromBroker;
use pinmesh_protocol::id::{Incarnation, Slot};
use pinmesh_protocol::status::LossKind;

use super::super::{Death, Event, GraceSignal, Note, Signal};
use super::fake::{A, Fake, MS, S, Said, attempt};
use crate::slots::SlotState;

pub(super) fn die(fake: &mut Fake, slot: u16, death: Death) {
    fake.event(Event::Died { slot: Slot(slot), death });
}

pub(super) fn kills(fake: &Fake) -> usize {
    fake.world.signals.iter().filter(|(_, signal)| *signal == Signal::Kill).count()
}

#[test]
fn every_worker_is_started_once_with_its_first_incarnation() {
    let fake = Fake::new(3, 1);
    let want: Vec<_> = (0..3).map(|slot| (Slot(slot), Incarnation(1))).collect();
    assert_eq!(fake.world.spawned, want);
}

#[test]
fn the_host_is_ready_once_every_worker_serves_every_broker() {
    let mut fake = Fake::new(2, 1);
    fake.welcome(A, super::fake::EPOCH);
    fake.page(0).turn = 1;
    fake.run(S);
    assert!(!fake.world.notes.contains(&Note::Ready));
    fake.page(1).turn = 1;
    fake.run_echoed(S);
    let ready = fake.world.notes.iter().filter(|&&note| note == Note::Ready).count();
    assert_eq!(ready, 1);
}

#[test]
fn the_first_crash_restarts_quickly_and_crashes_in_a_row_ever_more_slowly() {
    let mut fake = Fake::up(1, 1);
    let mut waits = Vec::new();
    for _ in 0..12 {
        die(&mut fake, 0, Death::Exited(1));
        let died = fake.now;
        let before = fake.world.spawned.len();
        while fake.world.spawned.len() == before {
            fake.run_echoed(10 * MS);
        }
        waits.push(fake.now.since(died) / MS);
    }
    assert_eq!(waits[..4], [100, 200, 400, 800]);
    assert_eq!(waits[11], 10_000);
    assert_eq!(fake.machine.children[0].incarnation(), Incarnation(13));
}

#[test]
fn a_healthy_life_forgives_earlier_crashes() {
    let mut fake = Fake::up(1, 1);
    for _ in 0..5 {
        die(&mut fake, 0, Death::Exited(1));
        fake.run_echoed(40 * S);
    }
    let delays: Vec<_> = fake
        .world
        .notes
        .iter()
        .filter_map(|note| match note {
            Note::RestartIn { delay_ns, .. } => Some(*delay_ns),
            _ => None,
        })
        .collect();
    assert_eq!(delays, [100 * MS; 5]);
}

#[test]
fn a_crash_under_a_task_is_the_tasks_fault_and_restarts_quickly_each_time() {
    let mut fake = Fake::up(1, 1);
    for task in 1..=5 {
        fake.run_task(0, A, task, S);
        die(&mut fake, 0, Death::Signalled(6));
        let died = fake.now;
        let before = fake.world.spawned.len();
        while fake.world.spawned.len() == before {
            fake.run_echoed(10 * MS);
        }
        assert_eq!(fake.now.since(died), 100 * MS);
    }
}

#[test]
fn a_worker_that_dies_between_its_first_turn_and_the_next_look_was_up() {
    let mut fake = Fake::new(1, 1);
    fake.page(0).turn = 1;
    die(&mut fake, 0, Death::Signalled(9));
    let was_starting = fake.world.notes.iter().find_map(|note| match note {
        Note::Died { was_starting, .. } => Some(*was_starting),
        _ => None,
    });
    assert_eq!(was_starting, Some(false));
}

#[test]
fn a_worker_that_cannot_be_started_is_tried_with_the_same_backoff() {
    let mut fake = Fake::new(1, 1);
    die(&mut fake, 0, Death::Exited(2));
    fake.world.can_spawn = false;
    fake.run_echoed(60 * S);
    let failed = fake.world.notes.iter().filter(|n| matches!(n, Note::SpawnFailed { .. })).count();
    assert!((11..=14).contains(&failed), "{failed}");
}

#[test]
fn an_attempt_past_its_max_runtime_is_stopped_looked_at_and_killed() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 2 * S);
    fake.run_echoed(1_900 * MS);
    assert!(fake.world.signals.is_empty());
    fake.run_echoed(100 * MS);
    assert_eq!(fake.world.signals, [(Slot(0), Signal::Stop)]);
    fake.event(Event::Stopped(Slot(0)));
    assert_eq!(kills(&fake), 1);
    die(&mut fake, 0, Death::Signalled(9));
    let lost = fake.lost(A);
    assert_eq!((lost[0].cause, lost[0].running), (LossKind::MaxRuntime, Some(attempt(1))));
}

#[test]
fn a_worker_that_has_moved_on_at_the_stop_goes_on() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 2 * S);
    fake.run_echoed(2 * S);
    fake.end_task(0);
    fake.run_task(0, A, 2, 2 * S);
    fake.event(Event::Stopped(Slot(0)));
    assert_eq!(fake.world.signals[1..], [(Slot(0), Signal::Continue)]);
}

/// Task 1 ends while the worker is told to stop over it, and the supervisor comes to look only much
/// later than task 2, if it has begun, might run.
fn late_look(has_begun: bool) -> Fake {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 5 * MS);
    fake.run_echoed(60 * MS);
    assert_eq!(fake.world.signals, [(Slot(0), Signal::Stop)]);
    fake.end_task(0);
    let before = fake.now;
    if has_begun {
        fake.run_task(0, A, 2, 5 * MS);
    }
    fake.now = fake.now.after(20 * MS);
    fake.event(Event::Stopped(Slot(0)));
    if !has_begun {
        // It had read the clock for its start before it was stopped.
        let late = core::mem::replace(&mut fake.now, before);
        fake.run_task(0, A, 2, 5 * MS);
        fake.now = late;
    }
    fake
}

#[test]
fn the_time_that_a_look_takes_is_nobodys_runtime() {
    for has_begun in [false, true] {
        let mut fake = late_look(has_begun);
        assert_eq!(fake.world.signals[1..], [(Slot(0), Signal::Continue)]);
        fake.run_echoed(4 * MS);
        assert_eq!(fake.world.signals.len(), 2, "{:?}", fake.world.signals);
        fake.run_echoed(60 * MS);
        fake.event(Event::Stopped(Slot(0)));
        assert_eq!(kills(&fake), 1, "it has had its own 5 ms");
    }
}

#[test]
fn a_task_that_comes_to_an_idle_worker_is_stopped_within_100_ms_of_its_max_runtime() {
    for max_ms in [1, 5, 49, 51, 200, 1_000] {
        let mut fake = Fake::up(1, 1);
        fake.run_echoed(2 * S);
        fake.run_task(0, A, 1, max_ms * MS);
        fake.run_echoed((max_ms + 60) * MS);
        assert_eq!(fake.world.signals, [(Slot(0), Signal::Stop)], "{max_ms} ms");
        fake.event(Event::Stopped(Slot(0)));
        let over = fake.world.notes.iter().find_map(|note| match *note {
            Note::Overrun { attempt, ran_ns, max_runtime_ns, .. } => {
                Some((attempt, ran_ns, max_runtime_ns))
            }
            _ => None,
        });
        assert_eq!(over, Some((attempt(1), (max_ms + 60) * MS, max_ms * MS)));
    }
}

#[test]
fn a_worker_that_does_not_stop_is_killed_all_the_same() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 2 * S);
    fake.run_echoed(4 * S);
    assert_eq!(kills(&fake), 1);
}

#[test]
fn a_configured_warning_comes_before_the_kill() {
    let grace = GraceSignal { signal: 10, grace_ns: 3 * S };
    let mut fake = Fake::with(1, 0, |config| config.overrun_signal = Some(grace));
    fake.page(0).turn = 1;
    fake.run(S);
    fake.run_task(0, A, 1, 2 * S);
    fake.run(4 * S);
    assert_eq!(fake.world.signals, [(Slot(0), Signal::Warn(10))]);
    fake.run(2 * S);
    assert_eq!(fake.world.signals[1..2], [(Slot(0), Signal::Stop)]);
}

#[test]
fn a_worker_that_stands_still_with_tasks_is_killed_and_a_busy_handler_is_not() {
    let mut fake = Fake::up(2, 1);
    fake.run_task(0, A, 1, 3_600 * S);
    fake.hold(0, A, 2, SlotState::Waiting);
    fake.hold(1, A, 3, SlotState::Waiting);
    fake.run_echoed(9 * S);
    assert_eq!(kills(&fake), 0);
    fake.run_echoed(3 * S);
    assert_eq!(fake.world.signals, [(Slot(1), Signal::Kill)]);
    die(&mut fake, 1, Death::Signalled(9));
    assert_eq!(fake.lost(A)[0].cause, LossKind::Stalled);
}

#[test]
fn a_worker_that_only_waits_for_acknowledgements_does_not_stall() {
    let mut fake = Fake::up(1, 1);
    fake.hold(0, A, 1, SlotState::Ended);
    fake.run_echoed(60 * S);
    assert_eq!(kills(&fake), 0);
}

#[test]
fn a_worker_that_somebody_stopped_is_killed_unless_it_goes_on() {
    let mut fake = Fake::up(1, 1);
    fake.event(Event::Stopped(Slot(0)));
    fake.run_echoed(9 * S);
    fake.event(Event::Continued(Slot(0)));
    fake.run_echoed(60 * S);
    assert_eq!(kills(&fake), 0);
    fake.event(Event::Stopped(Slot(0)));
    fake.run_echoed(12 * S);
    assert_eq!(kills(&fake), 1);
}

#[test]
fn the_time_that_the_supervisor_stood_still_itself_stalls_nobody() {
    let mut fake = Fake::up(1, 1);
    fake.hold(0, A, 1, SlotState::Waiting);
    fake.run_echoed(S);
    fake.now = fake.now.after(8 * S);
    fake.event(Event::Tick);
    fake.page(0).turn += 1;
    fake.run(S);
    assert_eq!(kills(&fake), 0);
}

#[test]
fn a_death_of_its_own_just_before_our_kill_is_charged() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 2 * S);
    fake.run_echoed(2 * S);
    fake.event(Event::Stopped(Slot(0)));
    die(&mut fake, 0, Death::Signalled(11));
    assert_eq!(fake.lost(A)[0].cause, LossKind::Signalled);
}

#[test]
fn a_drain_lets_workers_finish_and_then_says_goodbye() {
    for by_broker in [false, true] {
        let mut fake = Fake::up(2, 1);
        fake.run_task(0, A, 1, 3_600 * S);
        if by_broker {
            fake.receive(A, FromBroker::Drain);
        } else {
            fake.event(Event::Terminate);
        }
        let drains = [(Slot(0), Signal::Drain), (Slot(1), Signal::Drain)];
        assert_eq!(fake.world.signals, drains);
        die(&mut fake, 1, Death::Exited(0));
        fake.run_echoed(5 * S);
        assert!(fake.world.spawned.is_empty() && !fake.world.has_left);
        fake.end_task(0);
        die(&mut fake, 0, Death::Exited(0));
        let causes: Vec<_> = fake.lost(A).iter().map(|lost| lost.cause).collect();
        assert_eq!(causes, [LossKind::Shutdown; 2]);
        assert!(!fake.world.has_left, "the last LOST waits for its ACK");
        fake.receive(A, FromBroker::Ack(2));
        assert!(fake.world.has_left);
        assert_eq!(fake.world.said.last().unwrap().1, Said::Goodbye);
        assert_eq!(fake.machine.next_wakeup(), None);
    }
}

#[test]
fn an_overdue_drain_asks_the_handlers_and_then_kills() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 3_600 * S);
    fake.event(Event::Terminate);
    fake.run_echoed(30 * S);
    assert_eq!(fake.page(0).cancelled, [attempt(1)]);
    assert_eq!(kills(&fake), 0);
    fake.run_echoed(5 * S);
    assert_eq!(kills(&fake), 1);
    die(&mut fake, 0, Death::Signalled(9));
    fake.run(2 * S);
    assert!(fake.world.has_left, "without an ACK it leaves after a while");
}

#[test]
fn a_second_termination_kills_at_once() {
    let mut fake = Fake::up(1, 1);
    fake.run_task(0, A, 1, 3_600 * S);
    fake.event(Event::Terminate);
    fake.event(Event::Terminate);
    assert_eq!(kills(&fake), 1);
    die(&mut fake, 0, Death::Signalled(9));
    assert_eq!(fake.lost(A)[0].cause, LossKind::Shutdown);
}

#[test]
fn an_idle_host_wakes_seldom() {
    let mut fake = Fake::up(8, 1);
    fake.run_echoed(20 * S);
    let mut wakeups = 0;
    let end = fake.now.after(10 * S);
    while let Some((due, _)) = fake.machine.next_wakeup().filter(|&(due, _)| due <= end) {
        fake.now = due;
        fake.event(Event::Tick);
        wakeups += 1;
    }
    // A look every 50 ms and the heartbeats.
    assert!(wakeups <= 220, "{wakeups}");
}
