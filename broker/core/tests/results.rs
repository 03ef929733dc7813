//! Submissions, results and their acknowledgement.

use pinmesh_core::{Conn, Event, Span};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::status::{EndStatus, Role, Status};

use crate::support::{
    Ask, Effect, SECOND, SLACK, Said, Sent, Sim, TestBody, at_most_once, attempt, peer, results,
    sent_to, tasks,
};

fn served() -> (Sim, Conn) {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    (sim, client)
}

fn again(request: u64, submission: u32) -> Ask {
    Ask { request, submission, ..Ask::default() }
}

#[test]
fn a_task_carries_what_its_handler_must_know() {
    let (mut sim, client) = served();
    let options = TaskOptions { max_runtime_ns: Some(5), ..TaskOptions::default() };
    let deadline = Some(SECOND);
    let ask = Ask { deadline, options: Ok(options), submission: 3, ..Ask::default() };
    let head = tasks(&sim.ask(client, ask))[0].head;
    assert_eq!((head.client_id, head.request_id.0, head.submission.0), (peer(1), 1, 3));
    assert_eq!((head.dispatch.0, head.tries), (1, 0));
    assert_eq!((head.deadline_ns, head.max_runtime_ns), (Some(SECOND.0), 5));
}

#[test]
fn done_becomes_a_result_with_its_stages() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    sim.pass(Span::from_millis(1));
    let effects = sim.done(&task);
    let Effect::Result { to, head, body } = &effects[1] else { panic!("{effects:?}") };
    assert_eq!((*to, head.status, head.submission.0), (client, Status::Ok, 1));
    assert_eq!(*body, Said::Handler(TestBody { tag: 1_001, bytes: 7 }));
    let stages = head.stages.unwrap();
    assert_eq!((stages.service_ns, stages.worker_wait_ns), (1_500, 500));
    assert_eq!(effects[0], Effect::Stages(stages));
    let sum = stages.broker_wait_ns + stages.transit_ns + 2_000;
    assert_eq!(sum, 1_000_000, "stages add up to the whole time");
}

#[test]
fn a_failed_attempt_ends_the_task_failed_with_the_handlers_words() {
    let (mut sim, client) = served();
    let options = TaskOptions { tries_max: Some(1), ..TaskOptions::default() };
    let task = tasks(&sim.ask(client, Ask { options: Ok(options), ..Ask::default() }))[0];
    let effects = sim.done_by(task.to, &task, EndStatus::Failed);
    assert_eq!(results(&effects), [(client, 1, Status::Failed)]);
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Result { body: Said::Handler(_), .. }))
    );
}

#[test]
fn ends_are_acknowledged_once_a_batch_with_the_count_of_the_session() {
    let (mut sim, client) = served();
    let first = tasks(&sim.submit(client, 1))[0];
    let second = tasks(&sim.submit(client, 2))[0];
    sim.done(&first);
    sim.done(&second);
    let worker = first.to;
    assert_eq!(sent_to(&sim.event(Event::BatchEnd(worker)), worker), [Sent::Ack(2)]);
    assert!(sim.event(Event::BatchEnd(worker)).is_empty());
    sim.done(&second);
    assert_eq!(sent_to(&sim.event(Event::BatchEnd(worker)), worker), [Sent::Ack(3)]);
}

#[test]
fn a_result_is_held_until_it_is_acknowledged() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    sim.done(&task);
    assert_eq!(sim.broker.counts().tasks, 1);
    sim.ack(client, 1);
    sim.assert_empty();
}

#[test]
fn unacknowledged_results_are_sent_again_in_order_and_numbered_anew() {
    let (mut sim, client) = served();
    let sent: Vec<_> = (1..=4).map(|request| tasks(&sim.submit(client, request))[0]).collect();
    for place in [2, 0, 1] {
        sim.done(&sent[place]);
    }
    sim.ack(client, 1);
    let effects = sim.hello(9, Role::Client, 1);
    let again = Conn(9);
    assert_eq!(results(&effects), [(again, 1, Status::Ok), (again, 2, Status::Ok)]);
    sim.done(&sent[3]);
    sim.ack(again, 1);
    assert_eq!(sim.broker.counts().tasks, 2);
    sim.ack(again, 3);
    sim.assert_empty();
}

#[test]
fn a_result_of_the_time_without_a_session_comes_in_the_next_one() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(client);
    assert!(results(&sim.done(&task)).is_empty());
    let effects = sim.hello(9, Role::Client, 1);
    assert_eq!(results(&effects), [(Conn(9), 1, Status::Ok)]);
}

#[test]
fn an_acknowledgement_beyond_what_was_sent_takes_what_was_sent() {
    let (mut sim, client) = served();
    sim.ack(client, 1_000_000);
    let first = tasks(&sim.submit(client, 1))[0];
    let second = tasks(&sim.submit(client, 2))[0];
    sim.done(&first);
    sim.ack(client, u64::MAX);
    assert_eq!(sim.broker.counts().tasks, 1, "the second has not ended");
    assert_eq!(results(&sim.done(&second)), [(client, 2, Status::Ok)]);
    sim.ack(client, u64::MAX);
    sim.assert_empty();
}

#[test]
fn a_repeated_acknowledgement_takes_nothing_more() {
    let (mut sim, client) = served();
    let sent: Vec<_> = (1..=3).map(|request| tasks(&sim.submit(client, request))[0]).collect();
    sent.iter().for_each(|task| drop(sim.done(task)));
    sim.ack(client, 2);
    sim.ack(client, 2);
    sim.ack(client, 1);
    assert_eq!(sim.broker.counts().tasks, 1);
}

#[test]
fn a_repeat_of_a_submission_runs_nothing_twice() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    assert!(sim.submit(client, 1).is_empty());
    assert_eq!(results(&sim.done(&task)).len(), 1);
    assert!(sim.submit(client, 1).is_empty(), "its result is on its way");
    assert_eq!(sim.broker.ledger().ignored, 2);
}

#[test]
fn a_higher_submission_joins_the_task_and_its_result_says_so() {
    let (mut sim, client) = served();
    let task = tasks(&sim.ask(client, again(1, 1)))[0];
    assert!(sim.ask(client, again(1, 4)).is_empty());
    let effects = sim.done(&task);
    let Effect::Result { head, .. } = &effects[1] else { panic!("{effects:?}") };
    assert_eq!(head.submission.0, 4);
    assert_eq!(sim.broker.ledger().joined, 1);
}

#[test]
fn a_lower_submission_is_stale() {
    let (mut sim, client) = served();
    sim.ask(client, again(1, 3));
    assert!(sim.ask(client, again(1, 2)).is_empty());
    assert_eq!(sim.broker.ledger().stale, 1);
}

#[test]
fn accepted_is_said_where_it_was_asked_for_and_repeated_with_the_submission() {
    let (mut sim, client) = served();
    let options = Ok(TaskOptions { accepted: true, ..TaskOptions::default() });
    for submission in [1, 1, 2] {
        let ask = Ask { options: options.clone(), submission, ..Ask::default() };
        let sent = sent_to(&sim.ask(client, ask), client);
        let [Sent::Accepted(accepted)] = sent[..] else { panic!("{sent:?}") };
        assert_eq!(accepted.request_id.0, 1);
    }
    assert_eq!(sim.broker.ledger().accepted, 1);
}

#[test]
fn after_cancelled_a_higher_submission_is_a_new_task() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.submit(client, 1);
    assert_eq!(results(&sim.cancel(client, 1, 1)), [(client, 1, Status::Cancelled)]);
    sim.worker(2, &["work"]);
    let task = tasks(&sim.ask(client, again(1, 2)))[0];
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
    sim.ack(client, 2);
    sim.assert_empty();
}

#[test]
fn after_no_service_a_higher_submission_is_a_new_task() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.submit(client, 1);
    let effects = sim.pass(Span::from_secs(31));
    assert_eq!(results(&effects), [(client, 1, Status::NoService)]);
    assert!(sim.ask(client, again(1, 1)).is_empty(), "an equal one has its answer already");
    sim.ask(client, again(1, 2));
    assert_eq!(sim.broker.counts().pending, 1);
}

#[test]
fn after_lost_a_higher_submission_is_a_new_task() {
    let (mut sim, client) = served();
    let ask = Ask { options: at_most_once(), ..Ask::default() };
    let task = tasks(&sim.ask(client, ask.clone()))[0];
    assert_eq!(results(&sim.goodbye(task.to)), [(client, 1, Status::Lost)]);
    sim.ask(client, Ask { submission: 2, ..ask });
    assert_eq!(sim.broker.counts().pending, 1);
}

#[test]
fn after_ok_a_higher_submission_takes_that_outcome() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    sim.gone(client);
    sim.done(&task);
    sim.hello(9, Role::Client, 1);
    assert!(tasks(&sim.ask(Conn(9), again(1, 2))).is_empty());
    let effects = sim.hello(10, Role::Client, 1);
    let Some(Effect::Result { head, .. }) = effects.last() else { panic!("{effects:?}") };
    assert_eq!((head.submission.0, head.status), (2, Status::Ok));
}

#[test]
fn a_task_whose_deadline_passes_while_it_waits_ends_expired_and_never_runs() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.ask(client, Ask { deadline: Some(SECOND), ..Ask::default() });
    let effects = sim.pass(Span(SECOND.0 + SLACK.0));
    assert_eq!(results(&effects), [(client, 1, Status::Expired)]);
    let worker = sim.worker(2, &["work"]);
    assert!(tasks(&sim.settle()).iter().all(|task| task.to != worker));
}

#[test]
fn a_task_whose_deadline_passes_in_flight_ends_expired_and_its_worker_is_told() {
    let (mut sim, client) = served();
    let task = tasks(&sim.ask(client, Ask { deadline: Some(SECOND), ..Ask::default() }))[0];
    let effects = sim.pass(Span(SECOND.0 + SLACK.0));
    assert_eq!(results(&effects), [(client, 1, Status::Expired)]);
    let [Sent::Cancel(cancel)] = sent_to(&effects, task.to)[..] else { panic!("{effects:?}") };
    assert_eq!((cancel.attempt, cancel.is_hard), (attempt(&task), false));
    sim.ack(client, 1);
    assert_eq!(sim.broker.counts().in_flight, 1, "its worker is still busy with it");
    assert!(results(&sim.done(&task)).is_empty());
    sim.assert_empty();
}

#[test]
fn a_deadline_of_zero_is_never_dispatched() {
    let (mut sim, client) = served();
    let effects = sim.ask(client, Ask { deadline: Some(Span(0)), ..Ask::default() });
    assert_eq!(results(&effects), [(client, 1, Status::Expired)]);
    assert_eq!(sim.broker.ledger().dispatched, 0);
}

#[test]
fn a_deadline_at_the_end_of_time_is_as_good_as_none() {
    let (mut sim, client) = served();
    let task = tasks(&sim.ask(client, Ask { deadline: Some(Span(u64::MAX)), ..Ask::default() }))[0];
    sim.pass(Span::from_secs(100));
    assert_eq!(results(&sim.done(&task)), [(client, 1, Status::Ok)]);
}

#[test]
fn a_client_whose_batch_is_stuck_gets_its_results_when_it_is_out() {
    let (mut sim, client) = served();
    let task = tasks(&sim.submit(client, 1))[0];
    sim.event(Event::Full(client));
    assert!(results(&sim.done(&task)).is_empty());
    let effects = sim.event(Event::Sendable(client));
    assert_eq!(results(&effects), [(client, 1, Status::Ok)]);
}

/// A client with four results of 10 bytes each (7 and what a test's body keeps beside them).
fn ahead(results_ahead_bytes: u64) -> (Sim, Conn, Vec<(Conn, u64, Status)>) {
    let config = pinmesh_core::CoreConfig { results_ahead_bytes, ..Default::default() };
    let mut sim = Sim::with(config);
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    let sent: Vec<_> = (1..=4).map(|request| tasks(&sim.submit(client, request))[0]).collect();
    let told = sent.iter().flat_map(|task| results(&sim.done(task))).collect();
    (sim, client, told)
}

#[test]
fn results_run_only_so_far_ahead_of_their_acknowledgement() {
    let (mut sim, client, told) = ahead(25);
    assert_eq!(told, [(client, 1, Status::Ok), (client, 2, Status::Ok)]);
    assert_eq!(results(&sim.ack(client, 1)), [(client, 3, Status::Ok)]);
    assert_eq!(results(&sim.ack(client, 3)), [(client, 4, Status::Ok)]);
    sim.ack(client, 4);
    sim.assert_empty();
}

#[test]
fn one_result_may_always_go_and_a_new_session_begins_anew() {
    let (mut sim, client, told) = ahead(1);
    assert_eq!(told, [(client, 1, Status::Ok)]);
    sim.gone(client);
    let effects = sim.hello(11, Role::Client, 1);
    assert_eq!(results(&effects), [(Conn(11), 1, Status::Ok)]);
    assert_eq!(results(&sim.ack(Conn(11), 1)), [(Conn(11), 2, Status::Ok)]);
}
