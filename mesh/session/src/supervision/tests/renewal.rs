//! A rolling restart: one worker after the other, and none is missed.

use pinmesh_protocol::command::FromBroker;
use pinmesh_protocol::id::{Incarnation, Slot};
use pinmesh_protocol::status::LossKind;

use super::super::{Death, Event, Note, Signal};
use super::fake::{A, B, Fake, MS, S, attempt};
use super::worker::{die, kills};

/// Who was asked to leave, in order.
fn asked(fake: &Fake) -> alloc::vec::Vec<u16> {
    let drained = fake.world.signals.iter().filter(|(_, signal)| *signal == Signal::Drain);
    drained.map(|(slot, _)| slot.0).collect()
}

/// The worker leaves as it was asked to, and the next one comes up.
fn follow(fake: &mut Fake, slot: u16) {
    die(fake, slot, Death::Exited(0));
    fake.run_echoed(10 * MS);
    fake.page(slot).turn = 1;
    fake.run_echoed(200 * MS);
}

#[test]
fn one_worker_after_the_other_is_asked_to_leave_and_started_again() {
    let mut fake = Fake::up(3, 1);
    fake.event(Event::Renew);
    for slot in 0..3 {
        assert_eq!(asked(&fake), (0..=slot).collect::<alloc::vec::Vec<_>>());
        fake.run_echoed(S);
        assert_eq!(asked(&fake).len(), usize::from(slot) + 1, "it has not left yet");
        die(&mut fake, slot, Death::Exited(0));
        fake.run_echoed(S);
        assert_eq!(asked(&fake).len(), usize::from(slot) + 1, "the new one does not serve yet");
        fake.page(slot).turn = 1;
        fake.run_echoed(200 * MS);
    }
    let spawned = (0..3).map(|slot| (Slot(slot), Incarnation(2)));
    assert!(fake.world.spawned.iter().copied().eq(spawned));
    assert_eq!(fake.world.notes.iter().filter(|&&note| note == Note::Renewed).count(), 1);
    assert_eq!(fake.world.notes.iter().filter(|&&note| note == Note::Renewing).count(), 1);
    let causes = fake.lost(A).into_iter().map(|lost| lost.cause);
    assert!(causes.eq([LossKind::Shutdown; 3]), "nobody is charged");
}

#[test]
fn a_worker_that_does_not_leave_in_time_is_killed_and_its_task_not_charged() {
    let mut fake = Fake::up(2, 1);
    fake.run_task(0, A, 7, 3_600 * S);
    fake.event(Event::Renew);
    fake.run_echoed(30 * S - MS);
    assert_eq!(kills(&fake), 0);
    fake.run_echoed(2 * MS);
    assert_eq!(kills(&fake), 1);
    assert!(fake.world.notes.contains(&Note::RenewalOverdue { slot: Slot(0) }));
    die(&mut fake, 0, Death::Signalled(9));
    let lost = fake.lost(A).pop().unwrap();
    assert_eq!((lost.cause, lost.running), (LossKind::Shutdown, Some(attempt(7))));
    fake.run_echoed(10 * MS);
    fake.page(0).turn = 1;
    fake.run_echoed(200 * MS);
    assert_eq!(asked(&fake), [0, 1], "and the next one has its turn");
}

#[test]
fn a_program_that_does_not_come_up_stops_the_renewal_and_the_others_serve_on() {
    let mut fake = Fake::up(2, 1);
    fake.event(Event::Renew);
    die(&mut fake, 0, Death::Exited(0));
    for _ in 0..5 {
        fake.run_echoed(11 * S);
        die(&mut fake, 0, Death::Exited(1));
    }
    assert_eq!(asked(&fake), [0]);
    fake.world.can_spawn = false;
    fake.run_echoed(60 * S);
    assert_eq!(asked(&fake), [0]);
    fake.world.can_spawn = true;
    fake.run_echoed(11 * S);
    fake.page(0).turn = 1;
    fake.run_echoed(200 * MS);
    assert_eq!(asked(&fake), [0, 1]);
}

#[test]
fn asked_for_again_meanwhile_all_are_started_once_more() {
    let mut fake = Fake::up(1, 1);
    (0..3).for_each(|_| fake.event(Event::Renew));
    follow(&mut fake, 0);
    assert_eq!(asked(&fake), [0, 0]);
    follow(&mut fake, 0);
    fake.run_echoed(S);
    assert_eq!((asked(&fake).len(), fake.world.spawned.len()), (2, 2));
}

#[test]
fn a_broker_that_is_away_does_not_stop_it() {
    let mut fake = Fake::up(2, 2);
    fake.event(Event::Renew);
    fake.page(0).turn = 0;
    die(&mut fake, 0, Death::Exited(0));
    fake.run_echoed(10 * MS);
    fake.page(0).turn = 1;
    fake.page(0).lacks_sessions = true;
    fake.receive(B, FromBroker::Goodbye);
    fake.run_echoed(9 * S);
    assert_eq!(asked(&fake), [0]);
    fake.run_echoed(2 * S);
    assert_eq!(asked(&fake), [0, 1]);
}

#[test]
fn a_worker_that_a_broker_does_not_take_stops_it() {
    let mut fake = Fake::up(2, 1);
    fake.event(Event::Renew);
    fake.page(0).turn = 0;
    die(&mut fake, 0, Death::Exited(0));
    fake.run_echoed(10 * MS);
    fake.page(0).turn = 1;
    fake.page(0).lacks_sessions = true;
    fake.run_echoed(60 * S);
    assert_eq!(asked(&fake), [0]);
    fake.page(0).lacks_sessions = false;
    fake.run_echoed(200 * MS);
    assert_eq!(asked(&fake), [0, 1]);
}

#[test]
fn a_host_that_leaves_renews_nobody() {
    let mut fake = Fake::up(2, 1);
    fake.event(Event::Renew);
    fake.event(Event::Terminate);
    fake.event(Event::Renew);
    die(&mut fake, 0, Death::Exited(0));
    die(&mut fake, 1, Death::Exited(0));
    fake.run_echoed(5 * S);
    assert!(fake.world.has_left && fake.world.spawned.is_empty());
}
