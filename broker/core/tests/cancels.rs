//! CANCEL, and what races with it.

use pinmesh_core::{Conn, Event, Span};
use pinmesh_protocol::id::Slot;
use pinmesh_protocol::status::{EndStatus, HeldState, LossKind, Role, Status};

use crate::support::{
    Ask, Greeting, SECOND, Sent, Sim, TaskSent, attempt, cancels, held, results, sent_to, tasks,
};

/// A client, a supervisor with one worker in slot 0, and a task in flight there.
fn in_flight() -> (Sim, Conn, Conn, TaskSent) {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(2, 2, &[(0, 1)]);
    sim.supervised(3, 2, 0);
    let task = tasks(&sim.submit(client, 1))[0];
    (sim, client, supervisor, task)
}

#[test]
fn a_waiting_task_is_cancelled_at_once() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.submit(client, 1);
    assert_eq!(results(&sim.cancel(client, 1, 1)), [(client, 1, Status::Cancelled)]);
    assert!(tasks(&sim.greet(2, 2, Greeting::default())).is_empty());
}

#[test]
fn the_cancel_of_an_earlier_submission_is_ignored() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, Ask { submission: 2, ..Ask::default() });
    assert!(sim.cancel(client, 1, 1).is_empty());
    assert!(sim.cancel(client, 99, 1).is_empty(), "of an unknown request too");
    assert_eq!(sim.broker.counts().pending, 1);
}

#[test]
fn the_supervisor_is_asked_softly_to_stop_a_running_task() {
    let (mut sim, client, supervisor, task) = in_flight();
    let effects = sim.cancel(client, 1, 1);
    let [Sent::Cancel(cancel)] = sent_to(&effects, supervisor)[..] else { panic!("{effects:?}") };
    assert_eq!((cancel.slot, cancel.attempt, cancel.is_hard), (Slot(0), attempt(&task), false));
    assert!(results(&effects).is_empty(), "it has not stopped yet");
}

#[test]
fn a_cancel_that_is_repeated_is_passed_on_once_and_a_hard_one_once_more() {
    let (mut sim, client, supervisor, task) = in_flight();
    assert_eq!(cancels(&sim.cancel(client, 1, 1), supervisor), [false]);
    assert!(sim.cancel(client, 1, 1).is_empty());
    let effects = sim.cancel_hard(client, 1);
    let [Sent::Cancel(cancel)] = sent_to(&effects, supervisor)[..] else { panic!("{effects:?}") };
    assert_eq!((cancel.attempt, cancel.is_hard), (attempt(&task), true));
    assert!(sim.cancel_hard(client, 1).is_empty());
    assert!(sim.cancel(client, 1, 1).is_empty(), "nor does a soft one follow a hard one");
}

#[test]
fn a_hard_cancel_ends_what_waits_at_once() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.submit(client, 1);
    assert_eq!(results(&sim.cancel_hard(client, 1)), [(client, 1, Status::Cancelled)]);
}

#[test]
fn a_hard_cancel_harms_none_of_the_workers_other_tasks() {
    let (mut sim, client, supervisor, task) = in_flight();
    let started = tasks(&sim.submit(client, 2))[0];
    sim.submit(client, 3);
    sim.cancel_hard(client, 1);
    let effects = sim.lost(supervisor, LossKind::Cancelled, Some(&task), &[&started]);
    assert_eq!(results(&effects), [(client, 1, Status::Cancelled)]);
    assert_eq!(sim.broker.counts().pending, 2, "they go back");
    assert!(sim.broker.tasks().all(|task| task.tries == 0), "uncharged");
}

#[test]
fn a_supervisor_that_comes_back_is_told_again_what_is_to_stop() {
    let (mut sim, client, supervisor, _) = in_flight();
    sim.submit(client, 2);
    sim.cancel(client, 1, 1);
    sim.event(Event::Gone(supervisor));
    assert!(sim.cancel_hard(client, 1).is_empty(), "nobody is there to be told");
    let again = Conn(9);
    sim.hello(9, Role::Supervisor, 2);
    assert_eq!(cancels(&sim.host(again, &[(0, 1)]), again), [true]);
    assert!(cancels(&sim.host(again, &[(0, 1)]), again).is_empty(), "once a session");
}

#[test]
fn a_worker_without_a_supervisor_that_comes_back_is_told_again_what_is_to_stop() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.event(Event::Gone(worker));
    assert!(sim.cancel(client, 1, 1).is_empty());
    let held = vec![held(&task, HeldState::Waiting)];
    let effects = sim.greet(3, 2, Greeting { held, ..Greeting::default() });
    assert_eq!(cancels(&effects, Conn(3)), [false]);
}

#[test]
fn a_worker_without_a_supervisor_is_asked_itself() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    sim.submit(client, 1);
    let effects = sim.cancel(client, 1, 1);
    assert!(matches!(sent_to(&effects, worker)[..], [Sent::Cancel(_)]));
}

#[test]
fn a_cancelled_task_ends_as_its_done_says() {
    for (end, status) in [(EndStatus::Ok, Status::Ok), (EndStatus::Cancelled, Status::Cancelled)] {
        let (mut sim, client, _, task) = in_flight();
        sim.cancel(client, 1, 1);
        assert_eq!(results(&sim.done_by(task.to, &task, end)), [(client, 1, status)]);
    }
}

#[test]
fn a_cancelled_task_that_comes_back_unstarted_ends_cancelled() {
    let (mut sim, client, supervisor, task) = in_flight();
    sim.cancel(client, 1, 1);
    let effects = sim.recalled(supervisor, &[&task]);
    assert_eq!(results(&effects), [(client, 1, Status::Cancelled)]);
    assert!(tasks(&effects).is_empty());
    assert!(results(&sim.done(&task)).is_empty(), "a late end changes nothing");
    assert_eq!(sim.broker.ledger().stale_ends, 1);
}

#[test]
fn a_cancelled_task_whose_worker_is_killed_for_it_ends_cancelled() {
    let (mut sim, client, supervisor, task) = in_flight();
    sim.cancel(client, 1, 1);
    let effects = sim.lost(supervisor, LossKind::Cancelled, Some(&task), &[]);
    assert_eq!(results(&effects), [(client, 1, Status::Cancelled)]);
}

#[test]
fn a_cancelled_task_whose_worker_crashes_does_not_run_again() {
    let (mut sim, client, supervisor, task) = in_flight();
    sim.cancel(client, 1, 1);
    let effects = sim.lost(supervisor, LossKind::Signalled, Some(&task), &[]);
    assert_eq!(results(&effects), [(client, 1, Status::Cancelled)]);
}

#[test]
fn a_cancel_after_the_end_changes_nothing() {
    let (mut sim, client, _, task) = in_flight();
    sim.done(&task);
    assert!(sim.cancel(client, 1, 1).is_empty());
    sim.ack(client, 1);
    sim.assert_empty();
}

#[test]
fn a_returned_task_parks_its_worker_and_goes_elsewhere() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    sim.worker(3, &["work"]);
    let first = tasks(&sim.submit(client, 1))[0];
    let second = tasks(&sim.give_back(&first))[0];
    assert_ne!(first.to, second.to);
    assert_eq!((second.head.dispatch.0, second.head.tries), (2, 0), "a return is no try");
    for request in 2..8 {
        assert_eq!(tasks(&sim.submit(client, request))[0].to, second.to);
    }
    sim.pass(Span(SECOND.0 + crate::support::SLACK.0));
    assert_eq!(tasks(&sim.submit(client, 9))[0].to, first.to, "parked for a heartbeat only");
}

#[test]
fn a_recalled_task_frees_its_worker_for_other_services() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let services = vec!["work", "other"];
    sim.greet(2, 2, Greeting { services, window_tasks: 1, ..Greeting::default() });
    let task = tasks(&sim.submit(client, 1))[0];
    sim.ask(client, Ask { request: 2, service: "other".into(), ..Ask::default() });
    sim.cancel(client, 1, 1);
    let effects = sim.recalled(task.to, &[&task]);
    assert_eq!(results(&effects), [(client, 1, Status::Cancelled)]);
    assert_eq!(tasks(&effects)[0].head.request_id.0, 2);
}

#[test]
fn recalled_by_a_stranger_is_counted_and_changes_nothing() {
    let (mut sim, _, _, task) = in_flight();
    let stranger = sim.supervisor(8, 8, &[]);
    assert!(sim.recalled(stranger, &[&task]).is_empty());
    assert_eq!(sim.broker.ledger().foreign_ends, 1);
    assert_eq!(sim.broker.counts().in_flight, 1);
    let effects = sim.event(Event::BatchEnd(stranger));
    assert_eq!(sent_to(&effects, stranger), [Sent::Ack(1)]);
}
