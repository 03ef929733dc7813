//! Idempotency keys and detached tasks over a broker in a thread, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::time::Duration;

use common::FakeBroker;
use pinmesh_client::{Client, Error};

#[test]
fn an_outcome_is_fetched_by_its_key() {
    let broker = FakeBroker::start();
    let client = Client::connect(&broker.endpoint).unwrap();
    assert_eq!(&*client.fetch_raw("report").unwrap().wait().unwrap(), b"report");
    assert_eq!(&*client.fetch_raw("unended").unwrap().wait().unwrap(), b"unended");
    let unended = client.try_fetch_raw("unended").unwrap().wait();
    assert!(matches!(unended, Err(Error::NotEnded)), "{unended:?}");
    let unknown = client.fetch::<u8>("unknown").unwrap().wait();
    assert!(matches!(unknown, Err(Error::UnknownKey)), "{unknown:?}");
    assert!(matches!(client.fetch_raw(""), Err(Error::Invalid { .. })));
    broker.wait_seen("both results acknowledged", |seen| seen.acked == 2);
}

#[test]
fn a_detached_task_is_handed_in_when_the_broker_has_it() {
    let broker = FakeBroker::start();
    let client = Client::connect(&broker.endpoint).unwrap();
    let task = |service: &str| client.task(service).idempotency_key("key");
    assert_eq!(task("hold").submit_detached(&1).unwrap(), 9);
    assert_eq!(client.unresolved(), 1, "it has not ended");
    let failed = task("fail").submit_detached(&1);
    assert!(matches!(failed, Err(Error::Failed { .. })), "{failed:?}");
    assert!(broker.seen().cancels.is_empty());
}

#[test]
fn options_that_do_not_go_together_are_told_at_once() {
    let broker = FakeBroker::start();
    let client = Client::connect(&broker.endpoint).unwrap();
    let told = [
        client.task("echo").submit_detached(&1).map(drop),
        client.task("echo").retention(Duration::from_secs(1)).submit::<_, u8>(&1).map(drop),
        client.task("echo").key("a").idempotency_key("b").submit::<_, u8>(&1).map(drop),
        client.task("echo").idempotency_key("").submit::<_, u8>(&1).map(drop),
    ];
    for told in told {
        assert!(matches!(told, Err(Error::Invalid { .. })), "{told:?}");
    }
    assert!(broker.seen().submits.is_empty());
}
