//! LOST: charged, given back, lost for good.

use pinmesh_core::{Conn, CoreConfig, Event, Span};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::status::{LossKind, Status};

use crate::support::{
    Ask, Greeting, SECOND, SLACK, Sim, TaskSent, at_most_once, attempt, results, tasks,
};

/// A client and a supervisor with one worker in slot 0.
fn watched() -> (Sim, Conn, Conn, Conn) {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(2, 2, &[(0, 1)]);
    let worker = sim.supervised(3, 2, 0);
    (sim, client, supervisor, worker)
}

fn once(request: u64) -> Ask {
    Ask { request, options: at_most_once(), ..Ask::default() }
}

#[test]
fn three_crashes_of_its_worker_end_a_task_crashed() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(2, 2, &[(0, 1)]);
    sim.submit(client, 1);
    for life in 1..=3_u32 {
        let greeting = Greeting { host: Some(2), incarnation: life, ..Greeting::default() };
        let sent = tasks(&sim.greet(10 + life, 10 + life as u8, greeting))[0];
        assert_eq!((sent.head.tries, sent.head.dispatch.0), (life - 1, life));
        let effects = sim.event(Event::Lost(
            supervisor,
            pinmesh_protocol::command::Lost {
                slot: pinmesh_protocol::id::Slot(0),
                incarnation: pinmesh_protocol::id::Incarnation(life),
                cause: LossKind::Signalled,
                detail: 11,
                running: Some(attempt(&sent)),
                started: Vec::new(),
            },
        ));
        let expected: &[_] = if life < 3 { &[] } else { &[(client, 1, Status::Crashed)] };
        assert_eq!(results(&effects), expected);
    }
}

#[test]
fn tries_max_bounds_the_crashes_of_a_task() {
    let (mut sim, client, supervisor, _) = watched();
    let options = Ok(TaskOptions { tries_max: Some(1), ..TaskOptions::default() });
    let task = tasks(&sim.ask(client, Ask { options, ..Ask::default() }))[0];
    let effects = sim.lost(supervisor, LossKind::Exited, Some(&task), &[]);
    assert_eq!(results(&effects), [(client, 1, Status::Crashed)]);
}

#[test]
fn a_death_that_the_supervisor_caused_charges_no_task() {
    for cause in [LossKind::Stalled, LossKind::LeaseEnded, LossKind::Shutdown, LossKind::Unknown] {
        let (mut sim, client, supervisor, _) = watched();
        let task = tasks(&sim.submit(client, 1))[0];
        sim.lost(supervisor, cause, Some(&task), &[]);
        sim.worker(9, &["work"]);
        assert_eq!(sim.broker.counts().in_flight, 1, "{cause}");
        sim.goodbye(Conn(9));
        let again = tasks(&sim.greet(10, 10, Greeting::default()))[0];
        assert_eq!(again.head.tries, 0, "{cause}");
    }
}

#[test]
fn only_the_running_task_is_charged() {
    let (mut sim, client, supervisor, _) = watched();
    let sent: Vec<TaskSent> =
        (1..=3).map(|request| tasks(&sim.submit(client, request))[0]).collect();
    sim.lost(supervisor, LossKind::Signalled, Some(&sent[0]), &[&sent[1]]);
    let again = tasks(&sim.greet(9, 9, Greeting::default()));
    let tries: Vec<_> =
        again.iter().map(|task| (task.head.request_id.0, task.head.tries)).collect();
    assert_eq!(tries, [(1, 1), (2, 0), (3, 0)], "in the order in which they were sent");
}

#[test]
fn a_kill_for_max_runtime_ends_the_task_timed_out() {
    let (mut sim, client, supervisor, _) = watched();
    let options = TaskOptions { tries_max: Some(1), ..TaskOptions::default() };
    let task = tasks(&sim.ask(client, Ask { options: Ok(options), ..Ask::default() }))[0];
    let effects = sim.lost(supervisor, LossKind::MaxRuntime, Some(&task), &[]);
    assert_eq!(results(&effects), [(client, 1, Status::TimedOut)]);
}

#[test]
fn a_running_at_most_once_task_is_lost_with_its_worker() {
    let (mut sim, client, supervisor, _) = watched();
    let task = tasks(&sim.ask(client, once(1)))[0];
    let effects = sim.lost(supervisor, LossKind::Stalled, Some(&task), &[]);
    assert_eq!(results(&effects), [(client, 1, Status::Lost)]);
}

#[test]
fn an_unstarted_at_most_once_task_runs_elsewhere() {
    let (mut sim, client, supervisor, _) = watched();
    sim.ask(client, once(1));
    assert!(results(&sim.lost(supervisor, LossKind::Signalled, None, &[])).is_empty());
    assert_eq!(tasks(&sim.greet(9, 9, Greeting::default())).len(), 1);
}

#[test]
fn a_started_at_most_once_task_is_lost_after_a_heartbeat_without_its_done() {
    let (mut sim, client, supervisor, _) = watched();
    let task = tasks(&sim.ask(client, once(1)))[0];
    let effects = sim.lost(supervisor, LossKind::Signalled, None, &[&task]);
    assert!(results(&effects).is_empty());
    sim.worker(9, &["work"]);
    assert!(results(&sim.pass(Span(SECOND.0 - SLACK.0))).is_empty());
    let effects = sim.pass(Span(2 * SLACK.0));
    assert_eq!(results(&effects), [(client, 1, Status::Lost)]);
    assert_eq!(sim.broker.ledger().dispatched, 1);
}

#[test]
fn a_started_at_most_once_task_ends_as_the_done_that_comes_in_time_says() {
    let (mut sim, client, supervisor, _) = watched();
    let task = tasks(&sim.ask(client, once(1)))[0];
    sim.lost(supervisor, LossKind::Signalled, None, &[&task]);
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
    sim.ack(client, 1);
    sim.pass(SECOND);
    sim.assert_empty();
}

#[test]
fn a_started_at_most_once_task_that_comes_back_after_all_keeps_its_own_deadline() {
    let (mut sim, client, supervisor, _) = watched();
    let task = tasks(&sim.ask(client, once(1)))[0];
    let late = Ask { deadline: Some(Span(5 * SECOND.0)), ..once(2) };
    let second = tasks(&sim.ask(client, late))[0];
    sim.lost(supervisor, LossKind::Signalled, None, &[&task, &second]);
    sim.give_back(&task);
    sim.give_back(&second);
    let effects = sim.pass(Span(2 * SECOND.0));
    assert!(results(&effects).is_empty(), "neither has passed its deadline: {effects:?}");
    assert_eq!(sim.broker.counts().pending, 2);
    let effects = sim.pass(Span(4 * SECOND.0));
    assert_eq!(results(&effects), [(client, 2, Status::Expired)]);
}

#[test]
fn a_done_that_comes_after_lost_ends_the_waiting_task_once() {
    let (mut sim, client, supervisor, _) = watched();
    let task = tasks(&sim.submit(client, 1))[0];
    sim.lost(supervisor, LossKind::Signalled, None, &[&task]);
    assert_eq!(sim.broker.counts().pending, 1);
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
    assert!(results(&sim.done(&task)).is_empty());
    assert!(tasks(&sim.greet(9, 9, Greeting::default())).is_empty());
    sim.ack(client, 1);
    sim.assert_empty();
}

#[test]
fn a_done_that_comes_after_the_next_dispatch_is_stale() {
    let (mut sim, client, supervisor, _) = watched();
    let task = tasks(&sim.submit(client, 1))[0];
    sim.lost(supervisor, LossKind::Signalled, None, &[&task]);
    let again = tasks(&sim.greet(9, 9, Greeting::default()))[0];
    assert!(results(&sim.done(&task)).is_empty());
    assert_eq!(sim.broker.ledger().stale_ends, 1);
    assert_eq!(results(&sim.done(&again)), [(client, 1, Status::Ok)]);
}

#[test]
fn a_repeated_lost_changes_nothing() {
    let (mut sim, client, supervisor, _) = watched();
    let task = tasks(&sim.submit(client, 1))[0];
    sim.lost(supervisor, LossKind::Signalled, Some(&task), &[]);
    sim.lost(supervisor, LossKind::Signalled, Some(&task), &[]);
    let again = tasks(&sim.greet(9, 9, Greeting::default()))[0];
    assert_eq!((again.head.tries, again.head.dispatch.0), (1, 2));
    sim.lost(supervisor, LossKind::Signalled, Some(&again), &[]);
    assert_eq!(sim.broker.counts().in_flight, 1, "that one is not this supervisor's");
}

#[test]
fn the_loss_of_a_worker_with_an_expired_task_forgets_the_task() {
    let (mut sim, client, supervisor, _) = watched();
    let task = tasks(&sim.ask(client, Ask { deadline: Some(SECOND), ..Ask::default() }))[0];
    let effects = sim.pass(Span(SECOND.0 + SLACK.0));
    assert_eq!(results(&effects), [(client, 1, Status::Expired)]);
    sim.ack(client, 1);
    sim.lost(supervisor, LossKind::Cancelled, Some(&task), &[]);
    sim.assert_empty();
}

#[test]
fn a_dead_worker_is_forgotten_after_its_session() {
    let (mut sim, _, supervisor, worker) = watched();
    sim.lost(supervisor, LossKind::Exited, None, &[]);
    assert_eq!(sim.broker.counts().workers, 1, "late ends may still come");
    sim.silence(worker);
    sim.pass(Span(7 * SECOND.0));
    assert_eq!(sim.broker.counts().workers, 0);
}

#[test]
fn without_crashes_allowed_a_task_is_still_tried_once() {
    let mut sim = Sim::with(CoreConfig { crashes_max: 0, ..CoreConfig::default() });
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
}
