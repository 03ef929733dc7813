//! Brokers that share nothing: a worker host serves both, a client spreads its tasks over both.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use pinmesh_client::{Client, PeerKeys};
use pinmesh_protocol::rendezvous::{hash, weight};
use pinmesh_tests::{
    Broker, FAST, KeyRing, LIMIT, Load, READY_LIMIT, Supervisor, eventually, free_endpoint, turn,
};
use rustix::process::Signal;

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

/// Attempts that the broker has with its workers.
fn in_flight(broker: &Broker) -> u64 {
    let mark = broker.process.log_mark();
    broker.process.signal(Signal::USR1);
    broker.process.log_line(mark, "counts", |line| {
        let (_, counts) = line.split_once("Counts {")?;
        let (_, rest) = counts.split_once("in_flight: ")?;
        rest.split([',', ' ']).next()?.parse().ok()
    })
}

#[test]
fn a_worker_divides_its_window_among_its_brokers() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fixed.toml");
    fs::write(&path, "[scheduling]\nfixed_credit = true\n").unwrap();
    let flags = ["--config", path.to_str().unwrap()];
    let brokers = [Broker::start(&flags), Broker::start(&flags)];
    let flags = ["--backend", &brokers[1].backend, "--window", "100"];
    let supervisor = Supervisor::start(&brokers[0].backend, 1, &flags);
    let clients = brokers.each_ref().map(|it| Client::connect(&it.frontend).unwrap());
    for client in &clients {
        (0..200).for_each(|_| drop(client.submit_raw("sleep", b"1h".to_vec()).unwrap()));
    }
    // None of the one broker's half goes to the other, although only one of them has a task run.
    for broker in &brokers {
        eventually("the half of a window", LIMIT, || {
            broker.ledger().count("held") == 200 && in_flight(broker) == 50
        });
    }
    drop((supervisor, clients));
}

/// The broker that is the key's.
fn owner(brokers: [&Broker; 2], key: &str) -> usize {
    let weights =
        brokers.map(|broker| weight(hash(key.as_bytes()), hash(broker.frontend.as_bytes())));
    usize::from(weights[1] > weights[0])
}

#[test]
fn keys_meet_at_their_broker_leave_it_when_it_is_killed_and_come_back() {
    let _turn = turn();
    let mut one = Broker::start_at(&free_endpoint(), &free_endpoint(), &FAST);
    let other = Broker::start(&FAST);
    let supervisor = workers_of([&one, &other], 2);
    let before = [one.ledger().count("ok"), other.ledger().count("ok")];
    // Two clients with different lists agree.
    let clients = [client([&one, &other]), client([&other, &one])];
    let keys: Vec<String> = (0..40).map(|number| format!("key-{number}")).collect();
    let of_one = keys.iter().filter(|key| owner([&one, &other], key) == 0).count() as u64;
    let run = || {
        for (number, key) in keys.iter().enumerate() {
            let task = clients[number % 2].task("echo").key(key).timeout(LIMIT);
            assert_eq!(*task.call_raw(key.as_bytes().to_vec()).unwrap().value, *key.as_bytes());
        }
    };
    (0..3).for_each(|_| run());
    let counts = [one.ledger().count("ok") - before[0], other.ledger().count("ok") - before[1]];
    assert_eq!(counts, [3 * of_one, 3 * (40 - of_one)]);
    one.process.kill();
    run();
    assert_eq!(other.ledger().count("ok") - before[1], 3 * (40 - of_one) + 40);
    one.start_again();
    eventually("its keys come back", LIMIT, || {
        run();
        one.ledger().count("ok") >= 2 * of_one
    });
    let (ours, theirs) = (one.ledger().count("ok"), other.ledger().count("ok"));
    run();
    assert_eq!(one.ledger().count("ok") - ours, of_one);
    assert_eq!(other.ledger().count("ok") - theirs, 40 - of_one);
    drop(supervisor);
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
