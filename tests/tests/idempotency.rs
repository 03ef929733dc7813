//! One task for all requests with its key: it outlives its clients, and others fetch its outcome.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pinmesh_tests::{Broker, Finished, LIMIT, Process, Supervisor, command, eventually};

fn pinmesh(broker: &Broker, words: &[&str]) -> Process {
    let connection = ["--broker", &broker.frontend];
    Process::start(command("pinmesh", connection.iter().chain(words)))
}

#[track_caller]
fn assert_said(finished: &Finished, code: i32, out: &str) {
    assert_eq!((finished.code, &*finished.stdout), (code, out), "{finished:?}");
}

#[test]
fn a_detached_task_outlives_its_clients_and_is_fetched_by_another_one() {
    let broker = Broker::start(&[]);
    let key = ["--idempotency-key", "order-4711"];
    let call = |input, more: &[&str]| {
        let words = ["call", "echo", input].into_iter().chain(key).chain(more.iter().copied());
        pinmesh(&broker, &words.collect::<Vec<_>>())
    };
    assert_said(&call("first", &["--detach"]).wait(), 0, "");
    let mut joined = call("second", &[]);
    eventually("the broker has both requests", LIMIT, || broker.ledger().count("joined") == 1);
    joined.kill();
    assert_said(&pinmesh(&broker, &["result", "order-4711"]).wait(), 5, "");
    let supervisor = Supervisor::start(&broker.backend, 1, &["--services", "echo"]);
    assert_said(&pinmesh(&broker, &["result", "order-4711", "--wait"]).wait(), 0, "first");
    // It does not run again: what it ended with is told at once.
    assert_said(&call("third", &[]).wait(), 0, "first");
    assert_said(&pinmesh(&broker, &["result", "order-4712", "--wait"]).wait(), 6, "");
    let ledger = broker.ledger();
    assert_eq!((ledger.count("accepted"), ledger.count("ok"), ledger.count("joined")), (1, 1, 2));
    drop(supervisor);
}
