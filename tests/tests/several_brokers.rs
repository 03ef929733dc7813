//! Brokers that share nothing: a worker host serves both, a client spreads its tasks over both.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use pinmesh_client::{Client, PeerKeys};
use pinmesh_tests::{
    Broker, FAST, KeyRing, LIMIT, Load, READY_LIMIT, Supervisor, eventually, free_endpoint, turn,
};

fn client(brokers: [&Broker; 2]) -> Client {
    let builder = Client::builder().broker(&brokers[0].frontend).broker(&brokers[1].frontend);
    builder.connect_timeout(READY_LIMIT).connect().unwrap()
}

fn workers_of(brokers: [&Broker; 2], workers: usize) -> Supervisor {
    let supervisor =
        Supervisor::start(&brokers[0].backend, workers, &["--backend", &brokers[1].backend]);
    for broker in brokers {
        // It may be ready for one and on its way to the other.
        let once = Client::builder().broker(&broker.frontend).connect().unwrap();
        once.call_raw("echo", b"there?").unwrap();
    }
    supervisor
}

#[test]
fn a_load_is_spread_over_both_brokers_and_each_task_ends_once() {
    let _turn = turn();
    let brokers = [Broker::start(&FAST), Broker::start(&FAST)];
    let [one, other] = &brokers;
    let supervisor = workers_of([one, other], 2);
    let load = Load::start(client([one, other]), 400);
    load.progress(3_000);
    let report = load.finish();
    report.assert_all_ok();
    drop(supervisor);
    let ended = brokers.map(|broker| broker.drain().count("ok") - 1);
    assert_eq!(ended.iter().sum::<u64>(), report.submitted);
    assert!(ended.iter().all(|ended| *ended >= report.submitted / 10), "{ended:?}");
}

#[test]
fn what_a_killed_broker_held_and_all_that_follows_goes_through_the_other() {
    let _turn = turn();
    let mut one = Broker::start_at(&free_endpoint(), &free_endpoint(), &FAST);
    let other = Broker::start(&FAST);
    let supervisor = workers_of([&one, &other], 2);
    let load = Load::start(client([&one, &other]), 400);
    load.progress(500);
    assert!(one.ledger().count("ok") > 1, "it has its part before it dies");
    one.process.kill();
    let before = other.ledger().count("ok");
    load.progress(2_000);
    assert!(other.ledger().count("ok") >= before + 1_000);
    // It comes back, and has its part again.
    one.start_again();
    eventually("the broker that came back is given tasks", LIMIT, || {
        load.progress(100);
        one.ledger().count("ok") > 0
    });
    load.finish().assert_all_ok();
    drop(supervisor);
    one.drain();
    other.drain();
}

#[test]
fn a_broker_that_is_busy_is_skipped() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.toml");
    fs::write(&path, "[limits]\nmemory = \"1MiB\"\npayload = \"256KiB\"\n").unwrap();
    let small = Broker::start(&["--config", path.to_str().unwrap()]);
    let large = Broker::start(&[]);
    let client = client([&small, &large]);
    let held = |broker: &Broker| broker.ledger().count("held");
    // Until it has a session with both, everything goes to the one that was there first.
    let mut first = Vec::new();
    eventually("both brokers are given tasks", LIMIT, || {
        first.push(client.submit_raw("echo", b"x".to_vec()).unwrap());
        held(&small) > 0 && held(&large) > 0
    });
    // Nobody works yet, so the small one is full after a few of them.
    let payloads: Vec<Vec<u8>> = (0..40u8).map(|byte| vec![byte; 200_000]).collect();
    let handles: Vec<_> =
        payloads.iter().map(|bytes| client.submit_raw("echo", bytes.clone()).unwrap()).collect();
    let tasks = (first.len() + payloads.len()) as u64;
    eventually("every task is held by one of them", LIMIT, || held(&small) + held(&large) == tasks);
    assert!(held(&small) < held(&large), "{:?}", small.ledger());
    assert!(small.ledger().count("busy") > 0, "{:?}", small.ledger());
    let supervisor = Supervisor::start(&small.backend, 1, &["--backend", &large.backend]);
    for handle in first {
        assert_eq!(*handle.wait().unwrap(), *b"x");
    }
    for (handle, sent) in handles.into_iter().zip(&payloads) {
        assert_eq!(*handle.wait().unwrap(), **sent);
    }
    drop(supervisor);
    client.close(LIMIT).unwrap();
    let ended = [small, large].map(|broker| broker.drain().count("ok"));
    assert_eq!(ended.iter().sum::<u64>(), tasks);
}

#[test]
fn brokers_with_keys_of_their_own_are_each_asked_for_their_own() {
    let rings = [KeyRing::new(), KeyRing::new()];
    // One list for both: that of the first, whose peers are those of both.
    let list = rings[0].file("authorized_keys");
    let brokers = [0, 1].map(|at: usize| {
        let [key, file, flag, _] = rings[at].broker_flags();
        Broker::start(&[&key, &file, &flag, &list])
    });
    let [farm, batch] = ["farm.key", "batch.key"].map(|file| rings[0].file(file));
    let keys = [0, 1].map(|at: usize| rings[at].file("broker.pub"));
    let supervisor = Supervisor::start(
        &brokers[0].backend,
        1,
        &[
            "--backend",
            &brokers[1].backend,
            "--key",
            &farm,
            "--broker-key",
            &keys[0],
            "--broker-key",
            &keys[1],
        ],
    );
    for (broker, key) in brokers.iter().zip(&keys) {
        let alone = Client::builder().broker(&broker.frontend);
        let alone = alone.keys(PeerKeys::load(&batch, [key]).unwrap()).connect().unwrap();
        assert_eq!(*alone.call_raw("echo", b"x").unwrap(), *b"x");
    }
    let both = Client::builder().broker(&brokers[0].frontend).broker(&brokers[1].frontend);
    let both = both.keys(PeerKeys::load(&batch, &keys).unwrap()).connect().unwrap();
    let handles: Vec<_> =
        (0..200u8).map(|byte| (byte, both.submit_raw("echo", vec![byte]).unwrap())).collect();
    for (byte, handle) in handles {
        assert_eq!(*handle.wait().unwrap(), [byte]);
    }
    drop(supervisor);
}
