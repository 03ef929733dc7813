//! Taking back what waits behind a long task.

use pinmesh_core::{Conn, CoreConfig, Span};
use pinmesh_protocol::id::AttemptId;

use crate::support::{Effect, Greeting, SECOND, Sent, Sim, TaskSent, attempt, tasks};

const HOST: u32 = 2;
const FIRST: u32 = 3;

/// What RECALLs ask for.
fn recalls(effects: &[Effect]) -> Vec<Vec<AttemptId>> {
    let asked = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to: Conn(HOST), command: Sent::Recall(recall) } => {
            Some(recall.attempts.clone())
        }
        _ => None,
    });
    asked.collect()
}

/// A host, its worker, which holds so many tasks, and a client.
fn busy(count: u64) -> (Sim, Vec<TaskSent>) {
    let mut sim = Sim::new();
    sim.client(1);
    sim.supervisor(HOST, 2, &[(0, 1), (1, 1)]);
    sim.supervised(FIRST, 2, 0);
    let sent = (0..count).flat_map(|request| tasks(&sim.submit(Conn(1), request))).collect();
    (sim, sent)
}

#[test]
fn what_waits_behind_a_long_task_is_recalled_once_another_worker_is_idle() {
    let (mut sim, sent) = busy(4);
    assert!(recalls(&sim.pass(SECOND)).is_empty(), "nobody else could take it");
    sim.supervised(4, 2, 1);
    let asked = recalls(&sim.pass(SECOND));
    let behind: Vec<AttemptId> = sent[1..].iter().map(attempt).collect();
    assert_eq!(asked, [behind], "once");
    let behind: Vec<&TaskSent> = sent[1..].iter().collect();
    let moved = tasks(&sim.recalled(Conn(HOST), &behind));
    assert!(moved.iter().all(|task| task.to == Conn(4)));
    assert_eq!(moved.len(), 3);
}

#[test]
fn nothing_is_taken_back_for_a_worker_that_holds_almost_as_many() {
    let (mut sim, sent) = busy(2);
    sim.supervised(4, 2, 1);
    assert_eq!(tasks(&sim.submit(Conn(1), 10))[0].to, Conn(4));
    assert!(recalls(&sim.pass(SECOND)).is_empty(), "one task would wait behind one, as before");
    sim.done(&sent[0]);
}

#[test]
fn nothing_is_taken_back_where_the_broker_is_not_to() {
    let mut sim = Sim::with(CoreConfig { recalls: false, ..CoreConfig::default() });
    sim.client(1);
    sim.supervisor(HOST, 2, &[(0, 1), (1, 1)]);
    sim.supervised(FIRST, 2, 0);
    (0..4).for_each(|request| {
        sim.submit(Conn(1), request);
    });
    sim.supervised(4, 2, 1);
    assert!(recalls(&sim.pass(SECOND)).is_empty());
}

#[test]
fn a_recalled_worker_is_sent_nothing_until_it_moves() {
    let (mut sim, sent) = busy(2);
    sim.supervised(4, 2, 1);
    assert_eq!(recalls(&sim.pass(SECOND)).len(), 1);
    for request in 10..14 {
        assert_eq!(tasks(&sim.submit(Conn(1), request))[0].to, Conn(4));
    }
    sim.done(&sent[0]);
    assert_eq!(tasks(&sim.submit(Conn(1), 20))[0].to, Conn(FIRST), "it has fewer");
}

#[test]
fn a_task_is_not_late_within_twice_its_estimate() {
    let (mut sim, sent) = busy(1);
    sim.done_after(&sent[0], 100_000_000);
    let sent: Vec<TaskSent> =
        (10..13).flat_map(|request| tasks(&sim.submit(Conn(1), request))).collect();
    assert_eq!(sent.len(), 3);
    sim.supervised(4, 2, 1);
    assert!(recalls(&sim.pass(Span::from_millis(200))).is_empty());
    assert_eq!(recalls(&sim.pass(Span::from_millis(20))).len(), 1);
}

#[test]
fn a_worker_whose_tasks_end_in_time_keeps_what_it_holds() {
    let (mut sim, mut held) = busy(100);
    sim.supervised(4, 2, 1);
    while held.len() > 1 {
        assert!(recalls(&sim.pass(Span::from_millis(4))).is_empty(), "{} left", held.len());
        let task = held.remove(0);
        assert!(tasks(&sim.done(&task)).is_empty());
    }
}

#[test]
fn one_without_a_supervisor_is_not_asked() {
    let mut sim = Sim::new();
    sim.client(1);
    sim.worker(3, &["work"]);
    sim.submit(Conn(1), 1);
    sim.submit(Conn(1), 2);
    sim.greet(4, 4, Greeting::default());
    let effects = sim.pass(SECOND);
    let is_recall =
        |effect: &Effect| matches!(effect, Effect::Send { command: Sent::Recall(_), .. });
    assert!(!effects.iter().any(is_recall));
}
