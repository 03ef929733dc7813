//! Tasks with keys over two brokers, each in a thread, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use common::{Control, FakeBroker, GENEROUS};
use pinmesh_client::{Client, Error};
use pinmesh_protocol::rendezvous::{hash, weight};

fn connect(brokers: [&FakeBroker; 2]) -> Client {
    let builder = Client::builder().broker(&brokers[0].endpoint).broker(&brokers[1].endpoint);
    builder.connect().unwrap()
}

fn submits(brokers: [&FakeBroker; 2]) -> [usize; 2] {
    brokers.map(|broker| broker.seen().submits.len())
}

/// The place of the broker that is the key's.
fn owner(brokers: [&FakeBroker; 2], key: &[u8]) -> usize {
    let weights = brokers.map(|broker| weight(hash(key), hash(broker.endpoint.as_bytes())));
    usize::from(weights[1] > weights[0])
}

#[test]
fn clients_with_different_lists_send_a_key_to_the_same_broker() {
    let brokers = [FakeBroker::start(), FakeBroker::start()];
    let brokers = brokers.each_ref();
    let mut owned = [0; 2];
    for list in [brokers, [brokers[1], brokers[0]]] {
        let client = connect(list);
        for number in 0..50_u32 {
            let key = format!("customer-{number}");
            let before = submits(brokers);
            let output: u32 = client.task("echo").key(&key).call(&number).unwrap();
            assert_eq!(output, number);
            let owner = owner(brokers, key.as_bytes());
            let mut wanted = before;
            wanted[owner] += 1;
            assert_eq!(submits(brokers), wanted, "{key}");
            owned[owner] += 1;
        }
    }
    assert!(owned.iter().all(|&count| count > 0), "{owned:?}");
}

#[test]
fn a_key_goes_to_the_next_broker_while_its_own_is_not_there() {
    let brokers = [FakeBroker::start(), FakeBroker::start()];
    let key = (0..).map(|number: u32| number.to_string());
    let key = { key }.find(|key| owner(brokers.each_ref(), key.as_bytes()) == 0).unwrap();
    let client = connect(brokers.each_ref());
    let [own, other] = brokers;
    let handle = client.task("hold").key(&key).submit::<_, u8>(&1).unwrap();
    own.wait_seen("the task", |seen| seen.submits.len() == 1);
    other.control(Control::Release);
    drop(own);
    let mut handle = handle;
    assert_eq!(handle.wait_timeout(GENEROUS).unwrap(), 1);
    assert_eq!(client.task("echo").key(&key).timeout(GENEROUS).call::<_, u8>(&2).unwrap(), 2);
    assert_eq!(other.seen().submits.len(), 2);
}

#[test]
fn a_key_of_no_length_or_too_long_is_refused_with_its_limit() {
    let broker = FakeBroker::start();
    let client = Client::connect(&broker.endpoint).unwrap();
    for key in [String::new(), "k".repeat(129)] {
        let error = client.task("echo").key(&key).call::<_, u8>(&1_u8).unwrap_err();
        assert!(matches!(error, Error::Invalid { what: "key", .. }), "{error}");
        assert!(error.to_string().contains("from 1 to 128 bytes"), "{error}");
    }
    assert_eq!(client.task("echo").key("k".repeat(128)).call::<_, u8>(&1_u8).unwrap(), 1);
}
