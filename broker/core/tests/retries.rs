//! Bad starts: what is tried again, when, and what is not.

use pinmesh_core::{Conn, CoreConfig, ServiceLimits, Span, TaskDefaults, TaskStanding, Time};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::status::{EndStatus, HeldState, LossKind, Role, Status};

use crate::support::{
    Ask, Effect, Greeting, SECOND, SLACK, Said, Sim, TaskSent, at_most_once, held, results, tasks,
};

const HALF_SECOND: Span = Span(SECOND.0 / 2);

fn served() -> (Sim, Conn) {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    (sim, client)
}

fn fail(sim: &mut Sim, task: &TaskSent) -> Vec<Effect> {
    sim.done_by(task.to, task, EndStatus::Failed)
}

/// The moment until which the one task of the broker is delayed.
fn delayed_until(sim: &Sim) -> Option<Time> {
    sim.broker.tasks().find_map(|view| match view.standing {
        TaskStanding::Delayed(until) => Some(until),
        _ => None,
    })
}

#[test]
fn a_failure_is_tried_again_after_a_wait_and_its_success_is_the_outcome() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    let effects = fail(&mut sim, &task);
    assert!(results(&effects).is_empty() && tasks(&effects).is_empty());
    let counts = sim.broker.counts();
    assert_eq!((counts.delayed, counts.pending, counts.in_flight), (1, 0, 0));
    let until = delayed_until(&sim).unwrap();
    assert!(until.since(sim.now) <= SECOND);
    let early = sim.pass(Span(until.since(sim.now).0.saturating_sub(1)));
    assert!(tasks(&early).is_empty(), "not before its time");
    let again = tasks(&sim.pass(SLACK))[0];
    assert_eq!((again.head.dispatch.0, again.head.tries, again.body), (2, 1, task.body));
    let effects = sim.done(&again);
    assert_eq!(results(&effects), [(client, 1, Status::Ok)]);
    let Effect::Result { head, .. } = &effects[1] else { panic!("{effects:?}") };
    assert_eq!(head.tries, 1);
    assert_eq!((sim.broker.ledger().retried, sim.broker.ledger().failed), (1, 0));
    sim.ack(client, 1);
    sim.assert_empty();
}

#[test]
fn after_the_last_try_the_last_error_is_the_outcome() {
    let (mut sim, client) = served();
    let mut task = tasks(&sim.submit(client, 1))[0];
    for longest in [1, 2] {
        fail(&mut sim, &task);
        task = tasks(&sim.pass(Span(longest * SECOND.0 + SLACK.0)))[0];
    }
    let effects = fail(&mut sim, &task);
    let Some(Effect::Result { head, body, .. }) =
        effects.iter().find(|effect| matches!(effect, Effect::Result { .. }))
    else {
        panic!("{effects:?}")
    };
    assert_eq!((head.status, head.tries, sim.broker.ledger().retried), (Status::Failed, 3, 2));
    assert!(matches!(body, Said::Handler(_)) && head.stages.is_some());
}

#[test]
fn a_final_failure_is_not_tried_again() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    let effects = sim.done_by(task.to, &task, EndStatus::FailedFinal);
    assert_eq!(results(&effects), [(client, 1, Status::Failed)]);
}

#[test]
fn tries_max_of_a_task_counts_bad_starts_of_every_kind() {
    let mut sim = Sim::with(CoreConfig { crashes_max: 5, ..CoreConfig::default() });
    let client = sim.client(1);
    let options = TaskOptions { tries_max: Some(2), ..TaskOptions::default() };
    sim.ask(client, Ask { options: Ok(options), ..Ask::default() });
    let supervisor = sim.supervisor(3, 3, &[(0, 1)]);
    let greeting = Greeting { host: Some(3), ..Greeting::default() };
    let task = tasks(&sim.greet(4, 4, greeting))[0];
    sim.lost(supervisor, LossKind::Signalled, Some(&task), &[]);
    let again = tasks(&sim.worker_effects(9, &["work"]))[0];
    let effects = fail(&mut sim, &again);
    assert_eq!(results(&effects), [(client, 1, Status::Failed)]);
}

#[test]
fn crashes_are_counted_apart_from_failures() {
    let mut sim = Sim::with(CoreConfig { crashes_max: 2, tries_max: 9, ..CoreConfig::default() });
    let client = sim.client(1);
    let supervisor = sim.supervisor(3, 3, &[(0, 1)]);
    let greeting = Greeting { host: Some(3), ..Greeting::default() };
    sim.greet(4, 4, greeting);
    let first = tasks(&sim.submit(client, 1))[0];
    fail(&mut sim, &first);
    let second = tasks(&sim.pass(SECOND))[0];
    fail(&mut sim, &second);
    let third = tasks(&sim.pass(Span(3 * SECOND.0)))[0];
    let effects = sim.lost(supervisor, LossKind::Signalled, Some(&third), &[]);
    assert!(results(&effects).is_empty(), "one crash of two: {effects:?}");
    assert_eq!(sim.broker.counts().pending, 1, "a crash is not waited after");
    let view = sim.broker.tasks().next().unwrap();
    assert_eq!(view.tries, 3);
}

#[test]
fn a_run_past_its_max_runtime_is_tried_again() {
    let (mut sim, client) = (Sim::new(), Conn(1));
    sim.client(1);
    let supervisor = sim.supervisor(3, 3, &[(0, 1)]);
    sim.supervised(4, 3, 0);
    let task = tasks(&sim.submit(client, 1))[0];
    let effects = sim.lost(supervisor, LossKind::MaxRuntime, Some(&task), &[]);
    assert!(results(&effects).is_empty());
    assert_eq!(sim.broker.counts().delayed, 1);
    sim.worker(9, &["work"]);
    assert_eq!(tasks(&sim.pass(SECOND))[0].head.tries, 1);
}

#[test]
fn an_at_most_once_task_is_never_tried_again() {
    let (mut sim, client) = served();
    let task = tasks(&sim.ask(client, Ask { options: at_most_once(), ..Ask::default() }))[0];
    assert_eq!(results(&fail(&mut sim, &task)), [(client, 1, Status::Failed)]);
}

#[test]
fn a_task_that_was_cancelled_is_not_tried_again() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    sim.cancel(client, 1, 1);
    assert_eq!(results(&fail(&mut sim, &task)), [(client, 1, Status::Failed)]);
}

#[test]
fn a_cancel_ends_a_task_that_waits_for_its_next_try() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    fail(&mut sim, &task);
    assert_eq!(results(&sim.cancel(client, 1, 1)), [(client, 1, Status::Cancelled)]);
    sim.ack(client, 1);
    assert!(tasks(&sim.pass(Span(5 * SECOND.0))).is_empty());
    sim.assert_empty();
}

#[test]
fn a_task_whose_client_is_gone_is_not_tried_again() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(client);
    sim.pass(Span(61 * SECOND.0));
    fail(&mut sim, &task);
    assert_eq!((sim.broker.ledger().failed, sim.broker.ledger().retried), (1, 0));
    sim.assert_empty();
}

#[test]
fn a_task_that_waits_for_its_next_try_ends_with_its_client() {
    let mut sim =
        Sim::with(CoreConfig { backoff: Span(1_000 * SECOND.0), ..CoreConfig::default() });
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(client);
    fail(&mut sim, &task);
    assert_eq!(sim.broker.counts().delayed, 1);
    sim.pass(Span(61 * SECOND.0));
    assert_eq!(sim.broker.ledger().cancelled, 1);
    sim.assert_empty();
}

#[test]
fn a_try_that_could_not_start_before_the_deadline_is_not_waited_for() {
    let mut ended_at_once = 0;
    for seed in 0..64 {
        let mut sim = Sim::with(CoreConfig { jitter_seed: seed, ..CoreConfig::default() });
        let client = sim.client(1);
        sim.worker(2, &["work"]);
        let ask = Ask { deadline: Some(HALF_SECOND), ..Ask::default() };
        let task = tasks(&sim.ask(client, ask))[0];
        let effects = fail(&mut sim, &task);
        match delayed_until(&sim) {
            Some(until) => assert!(until < sim.now.after(HALF_SECOND)),
            None => {
                ended_at_once += 1;
                assert_eq!(results(&effects), [(client, 1, Status::Failed)]);
            }
        }
    }
    assert!((20..44).contains(&ended_at_once), "{ended_at_once} of 64, and about a half is due");
}

#[test]
fn a_delayed_task_is_told_of_its_deadline_in_its_next_attempt() {
    let (mut sim, client) = served();
    let options = TaskOptions { backoff_ns: Some(0), ..TaskOptions::default() };
    let ask = Ask { deadline: Some(SECOND), options: Ok(options), ..Ask::default() };
    let task = tasks(&sim.ask(client, ask))[0];
    fail(&mut sim, &task);
    let again = tasks(&sim.settle())[0];
    assert!(again.head.deadline_ns.is_some_and(|left| left < SECOND.0));
    assert_eq!(results(&sim.pass(SECOND)), [(client, 1, Status::Expired)]);
}

#[test]
fn an_end_that_comes_again_counts_once() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    fail(&mut sim, &task);
    fail(&mut sim, &task);
    assert_eq!((sim.broker.ledger().retried, sim.broker.ledger().stale_ends), (1, 1));
    // Its worker is busy with others and away when the task is pending again.
    sim.gone(task.to);
    sim.pass(SECOND);
    assert_eq!(sim.broker.counts().pending, 1);
    sim.hello(9, Role::Worker, 2);
    let greeting = Greeting { held: vec![held(&task, HeldState::Ended)], ..Greeting::default() };
    let again = tasks(&sim.ready(Conn(9), greeting));
    assert_eq!(again.len(), 1, "what has ended is not taken up again: {again:?}");
    assert!(results(&sim.done_by(Conn(9), &task, EndStatus::Ok)).is_empty());
    assert_eq!(sim.broker.ledger().stale_ends, 2);
    assert_eq!(results(&sim.done_by(Conn(9), &again[0], EndStatus::Ok)).len(), 1);
    assert_eq!(sim.broker.ledger().ok, 1);
    let _ = client;
}

#[test]
fn a_task_that_is_tried_again_stands_behind_those_that_wait() {
    let (mut sim, client) = (Sim::new(), Conn(1));
    sim.client(1);
    let greeting = Greeting { window_tasks: 1, ..Greeting::default() };
    sim.greet(2, 2, greeting);
    let options = TaskOptions { backoff_ns: Some(0), ..TaskOptions::default() };
    let first = tasks(&sim.ask(client, Ask { options: Ok(options), ..Ask::default() }))[0];
    sim.submit(client, 2);
    sim.submit(client, 3);
    let second = tasks(&fail(&mut sim, &first))[0];
    sim.settle();
    let third = tasks(&sim.done(&second))[0];
    let fourth = tasks(&sim.done(&third))[0];
    let order = [second, third, fourth].map(|task| task.head.request_id.0);
    assert_eq!(order, [2, 3, 1]);
}

#[test]
fn a_task_that_is_tried_again_waits_for_a_server_as_long_as_a_new_one() {
    let (mut sim, client) = served();
    let options = TaskOptions { backoff_ns: Some(0), ..TaskOptions::default() };
    let task = tasks(&sim.ask(client, Ask { options: Ok(options), ..Ask::default() }))[0];
    sim.pass(Span(60 * SECOND.0));
    fail(&mut sim, &task);
    sim.goodbye(task.to);
    let effects = sim.pass(Span(29 * SECOND.0));
    assert!(results(&effects).is_empty(), "{effects:?}");
    assert_eq!(results(&sim.pass(Span(2 * SECOND.0))), [(client, 1, Status::NoService)]);
}

#[test]
fn the_options_of_a_task_set_its_wait() {
    let (mut sim, client) = served();
    let options = TaskOptions {
        backoff_ns: Some(40 * SECOND.0),
        backoff_max_ns: Some(50 * SECOND.0),
        tries_max: Some(200),
        ..TaskOptions::default()
    };
    let ask = Ask { options: Ok(options), ..Ask::default() };
    let mut task = tasks(&sim.ask(client, ask))[0];
    let mut longest = Span(0);
    for nth in 0..100 {
        fail(&mut sim, &task);
        let wait = delayed_until(&sim).unwrap().since(sim.now);
        let most = if nth == 0 { 40 } else { 50 };
        assert!(wait <= Span(most * SECOND.0), "{wait:?} before try {}", nth + 2);
        longest = longest.max(wait);
        task = *tasks(&sim.pass(Span(50 * SECOND.0 + SLACK.0))).first().unwrap();
    }
    assert!(longest > Span(45 * SECOND.0), "full jitter reaches its limit: {longest:?}");
}

#[test]
fn a_service_says_what_its_tasks_do_not() {
    let mut config = CoreConfig::default();
    let task_defaults = TaskDefaults { tries_max: Some(1), ..TaskDefaults::default() };
    let limits = ServiceLimits { task_defaults, ..ServiceLimits::default() };
    config.own_service_limits.insert("work".into(), limits);
    let mut sim = Sim::with(config);
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.submit(client, 1))[0];
    assert_eq!(results(&fail(&mut sim, &task)), [(client, 1, Status::Failed)]);
    let options = TaskOptions { tries_max: Some(2), ..TaskOptions::default() };
    let task =
        tasks(&sim.ask(client, Ask { request: 2, options: Ok(options), ..Ask::default() }))[0];
    assert!(results(&fail(&mut sim, &task)).is_empty(), "its own word goes first");
}
