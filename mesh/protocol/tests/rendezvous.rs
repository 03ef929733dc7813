//! The weights of brokers: those of the golden vectors and of PROTOCOL.md, even, and with little
//! moved when a broker goes.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::fs;
use std::path::PathBuf;

use common::unhex;
use pinmesh_protocol::rendezvous::{hash, weight};
use proptest::prelude::*;
use serde_json::Value;

fn text(path: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Places of the brokers, the key's first.
fn order(key: u64, brokers: &[u64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..brokers.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(weight(key, brokers[at])));
    order
}

fn hashes<'a>(brokers: impl IntoIterator<Item = &'a str>) -> Vec<u64> {
    brokers.into_iter().map(|broker| hash(broker.as_bytes())).collect()
}

#[test]
fn the_hash_is_fnv_1a() {
    // Of the reference implementation's own tests.
    assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn weights_and_order_are_those_of_the_golden_vectors() {
    let vectors: Vec<Value> = serde_json::from_str(&text("vectors/rendezvous.json")).unwrap();
    assert!(!vectors.is_empty());
    for vector in vectors {
        let key = hash(&unhex(vector["key"].as_str().unwrap()));
        let brokers = vector["brokers"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
        let brokers = hashes(brokers);
        let weights: Vec<Value> =
            brokers.iter().map(|&it| format!("{:016x}", weight(key, it)).into()).collect();
        assert_eq!(Value::from(weights), vector["weights"], "{}", vector["name"]);
        assert_eq!(Value::from(order(key, &brokers)), vector["order"], "{}", vector["name"]);
    }
}

#[test]
fn the_example_of_the_document_is_true() {
    let document = text("../../PROTOCOL.md");
    let rows = document.lines().filter(|line| line.starts_with("| `tcp://10.0.0."));
    let mut brokers = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let found =
            (hash(cells[1].as_bytes()), weight(hash(b"customer-42"), hash(cells[1].as_bytes())));
        assert_eq!(
            cells[2..4],
            [format!("{:016x}", found.0), format!("{:016x}", found.1)],
            "{row}"
        );
        brokers.push(cells[4].parse::<usize>().unwrap());
    }
    let vector = hashes(["tcp://10.0.0.1:5555", "tcp://10.0.0.2:5555", "tcp://10.0.0.3:5555"]);
    let order = order(hash(b"customer-42"), &vector);
    let ranks: Vec<usize> =
        (0..3).map(|at| order.iter().position(|&it| it == at).unwrap() + 1).collect();
    assert_eq!(brokers, ranks);
}

#[test]
fn ten_thousand_keys_are_divided_evenly() {
    for count in 2..=8_usize {
        for base in ["tcp://10.0.0.", "tcp://127.0.0.1:555", "ipc:///run/pinmesh/"] {
            let names: Vec<String> = (1..=count).map(|number| format!("{base}{number}")).collect();
            let brokers = hashes(names.iter().map(String::as_str));
            let mut shares = vec![0_u32; count];
            for number in 0..10_000 {
                shares[order(hash(format!("key-{number}").as_bytes()), &brokers)[0]] += 1;
            }
            // Four standard deviations of a fair throw: 2.5 % with two brokers, 11 % with eight.
            let fair = 10_000.0 / count as f64;
            let limit = 4.0 * (fair * (1.0 - 1.0 / count as f64)).sqrt();
            for share in &shares {
                assert!((f64::from(*share) - fair).abs() < limit, "{base}: {shares:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_broker_that_goes_takes_only_its_own_keys_along_and_the_list_may_be_in_any_order(
        names in prop::collection::btree_set("[a-z0-9:/.]{1,20}", 2..10),
        keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..128), 1..50),
        gone in any::<prop::sample::Index>(),
    ) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let gone = gone.index(names.len());
        let left: Vec<&str> =
            names.iter().enumerate().filter(|&(at, _)| at != gone).map(|(_, &it)| it).rev().collect();
        for key in keys {
            let first = names[order(hash(&key), &hashes(names.iter().copied()))[0]];
            let after = left[order(hash(&key), &hashes(left.iter().copied()))[0]];
            prop_assert!(first == names[gone] || first == after, "{first} became {after}");
        }
    }
}
