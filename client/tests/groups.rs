//! Callbacks, updates of running tasks, and groups of tasks with one outcome.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::sync::mpsc::channel;

use common::{Control, FakeBroker, GENEROUS};
use pinmesh_client::{Client, Error, ProgressKind};

fn connected() -> (FakeBroker, Client) {
    let broker = FakeBroker::start();
    let client = Client::connect(&broker.endpoint).unwrap();
    (broker, client)
}

#[test]
fn a_callback_is_called_once_with_the_output_or_the_error() {
    let (_broker, client) = connected();
    let (ends, ended) = channel();
    for service in ["echo", "fail"] {
        let ends = ends.clone();
        let told = move |end: pinmesh_client::Result<u8>| ends.send(end).unwrap();
        client.task(service).submit_with(&7_u8, told).unwrap();
        let end = ended.recv_timeout(GENEROUS).unwrap();
        match service {
            "echo" => assert_eq!(end.unwrap(), 7),
            _ => assert!(matches!(end, Err(Error::Failed { .. }))),
        }
    }
    drop(ends);
    assert!(ended.recv().is_err(), "each was called once and is gone");
}

#[test]
fn a_callback_that_panics_harms_no_other_task() {
    let (_broker, client) = connected();
    client.task("echo").submit_with(&1_u8, |_: Result<u8, _>| panic!("on purpose")).unwrap();
    assert_eq!(client.call::<_, u8>("echo", &2_u8).unwrap(), 2);
    let (ends, ended) = channel();
    let told = move |end: Result<u8, Error>| ends.send(end).unwrap();
    client.task("echo").submit_with(&3_u8, told).unwrap();
    assert_eq!(ended.recv_timeout(GENEROUS).unwrap().unwrap(), 3);
}

#[test]
fn nothing_waits_in_a_callback_but_tasks_may_be_handed_in_there() {
    let broker = FakeBroker::start();
    let client = Client::builder().broker(&broker.endpoint).window(1).connect().unwrap();
    let (said, heard) = channel();
    let inner = client.clone();
    let told = move |_: Result<u8, Error>| {
        let first = inner.submit::<_, u8>("hold", &1_u8).unwrap();
        said.send(first.wait().unwrap_err()).unwrap();
        said.send(inner.submit::<_, u8>("echo", &1_u8).unwrap_err()).unwrap();
    };
    client.task("echo").submit_with(&1_u8, told).unwrap();
    assert!(matches!(heard.recv_timeout(GENEROUS).unwrap(), Error::InCallback));
    assert!(matches!(heard.recv_timeout(GENEROUS).unwrap(), Error::Full { .. }));
    broker.control(Control::Release);
}

#[test]
fn a_client_that_is_closed_tells_callbacks_so() {
    let (broker, client) = connected();
    let (ends, ended) = channel();
    client
        .task("hold")
        .submit_with(&1_u8, move |end: Result<u8, _>| ends.send(end).unwrap())
        .unwrap();
    broker.wait_seen("it is held", |seen| seen.submits.len() == 1);
    drop(client);
    assert!(matches!(ended.recv_timeout(GENEROUS).unwrap(), Err(Error::Closed)));
}

#[test]
fn updates_come_to_the_handle_that_asked_for_them_and_end_with_the_task() {
    let (_broker, client) = connected();
    let handle = client.task("steps").keep_updates().submit::<_, u8>(&3_u8).unwrap();
    let updates: Vec<_> = handle.updates().collect();
    let told: Vec<_> = updates.iter().map(|it| (it.dispatch, it.sequence, it.kind)).collect();
    let stream = |sequence| (1, sequence, ProgressKind::Stream);
    assert_eq!(told, [stream(1), stream(2), stream(3), (1, 4, ProgressKind::Latest)]);
    assert_eq!(updates[1].decode::<u64>().unwrap(), 2);
    assert_eq!(handle.wait().unwrap(), 3);
    let unasked = client.submit::<_, u8>("steps", &3_u8).unwrap();
    assert_eq!(unasked.updates().count(), 0);
    assert_eq!(unasked.wait().unwrap(), 3);
}

#[test]
fn updates_come_to_a_callback_before_the_result() {
    let (_broker, client) = connected();
    let (said, heard) = channel();
    let task = client.task("steps").on_update(move |update| {
        said.send(update.sequence).unwrap();
        assert_ne!(update.sequence, 2, "on purpose");
    });
    assert_eq!(task.call::<_, u8>(&3_u8).unwrap(), 3);
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn a_client_acknowledges_nothing_while_too_much_lies_unread() {
    let (broker, client) = connected();
    // 24 MiB of updates.
    let handle = client.task("long steps").keep_updates().submit::<_, u8>(&24_u8).unwrap();
    broker.wait_seen("it acknowledges some", |seen| seen.acked > 0);
    let mut updates = handle.updates();
    broker.wait_seen("all are sent", |seen| seen.updates == 24);
    while client.counters().updates < 24 {
        client.ping(GENEROUS).unwrap();
    }
    // Whatever it said before the ping has come.
    client.ping(GENEROUS).unwrap();
    assert!(broker.seen().acked < 24, "16 MiB lie unread");
    let mut read = 0;
    while updates.next().is_some() {
        read += 1;
    }
    assert_eq!(read, 24);
    assert_eq!(handle.wait().unwrap(), 24);
    broker.wait_seen("in the end it acknowledges all", |seen| seen.acked == 25);
}

#[test]
fn a_group_has_one_outcome_in_the_order_of_its_inputs() {
    let (_broker, client) = connected();
    let outputs: Vec<u64> = client.map("echo", 0..500_u64, 16).all().unwrap();
    assert!(outputs.into_iter().eq(0..500));
    let outputs = client.map::<_, _, u64>("echo", 0..500_u64, 16).ordered();
    assert!(outputs.map(Result::unwrap).eq(0..500));
}

#[test]
fn a_group_stops_at_its_first_failure_and_cancels_the_rest() {
    let (broker, client) = connected();
    let error = client.map::<_, _, u8>("held or fails", 0..1000_u64, 8).all().unwrap_err();
    assert_eq!(error.index, 5);
    assert!(matches!(error.error, Error::Failed { .. }), "{error}");
    broker.wait_seen("the others are cancelled", |seen| seen.cancels.len() == 7);
    assert_eq!(broker.seen().submits.len(), 8, "and no more are handed in");
}

#[test]
fn a_group_that_is_to_settle_goes_on_after_failures() {
    let (_broker, client) = connected();
    let outputs = client.map::<_, _, u64>("odd fails", 0..100_u64, 8).settle();
    assert_eq!(outputs.len(), 100);
    for (n, output) in (0..).zip(outputs) {
        match n % 2 {
            0 => assert_eq!(output.unwrap(), n),
            _ => assert!(matches!(output, Err(Error::Failed { .. }))),
        }
    }
}
