//! The golden vectors: the files say what each byte means, this crate has to agree.
//!
//! `PINMESH_VECTORS=write cargo test -p pinmesh-protocol --test vectors` writes the files anew from
//! `tests/common/catalogue`.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Once;

use common::{Direction, catalogue, hex, meaning, read, unhex};
use pinmesh_protocol::status::RefusedCode;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

static WRITTEN: Once = Once::new();

/// The vectors of a file, after all were written if that was asked for.
fn vectors(file: &str) -> Vec<Value> {
    WRITTEN.call_once(|| {
        if std::env::var_os("PINMESH_VECTORS").is_some_and(|value| value == "write") {
            for (name, text) in catalogue::files() {
                fs::write(folder().join(name), text).unwrap();
            }
        }
    });
    let text = fs::read_to_string(folder().join(file)).unwrap();
    let vectors: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(!vectors.is_empty(), "{file} is empty");
    vectors
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap_or_else(|| panic!("{vector} has no {key}"))
}

fn attachments(vector: &Value) -> Vec<usize> {
    let lens = vector.get("attachments").and_then(Value::as_array);
    lens.map(|lens| lens.iter().map(|len| len.as_u64().unwrap() as usize).collect())
        .unwrap_or_default()
}

fn reading(vector: &Value) -> common::Reading {
    let direction = Direction::from_name(text(vector, "direction"));
    read(direction, &unhex(text(vector, "hex")), &attachments(vector))
}

#[test]
fn the_files_are_those_of_the_catalogue() {
    for (name, text) in catalogue::files() {
        vectors(name);
        let file = fs::read_to_string(folder().join(name)).unwrap();
        assert!(file == text, "{name} is stale; see the head of tests/vectors.rs");
    }
}

#[test]
fn names_of_vectors_are_unique() {
    let mut names = BTreeSet::new();
    for (file, _) in catalogue::files() {
        for vector in vectors(file) {
            assert!(names.insert(text(&vector, "name").to_string()), "{vector}");
        }
    }
}

#[test]
fn each_command_means_what_its_vector_says_and_is_written_alike() {
    for file in ["to_broker.json", "from_broker.json"] {
        for vector in vectors(file) {
            let name = text(&vector, "name");
            let reading = reading(&vector);
            assert_eq!(reading.error, None, "{name}");
            let [command] = &reading.commands[..] else { panic!("{name}: not one command") };
            let (op, fields) = meaning::meaning(command);
            assert_eq!(
                (json!(op), json!(fields)),
                (vector["op"].clone(), vector["fields"].clone())
            );
            assert_eq!(hex(&command.encode()), text(&vector, "hex"), "{name}");
        }
    }
}

#[test]
fn every_command_has_a_vector() {
    let ops = |file| -> BTreeSet<String> {
        vectors(file).iter().map(|vector| text(vector, "op").to_string()).collect()
    };
    assert_eq!(ops("to_broker.json").len(), 17, "variants of ToBroker");
    assert_eq!(ops("from_broker.json").len(), 16, "variants of FromBroker");
}

#[test]
fn tolerated_forms_mean_the_same_as_the_canonical_ones() {
    for vector in vectors("tolerated.json") {
        let name = text(&vector, "name");
        let reading = reading(&vector);
        assert_eq!(reading.error, None, "{name}");
        match vector.get("op") {
            None => assert_eq!((reading.commands.len(), reading.ignored), (0, 1), "{name}"),
            Some(op) => {
                let [command] = &reading.commands[..] else { panic!("{name}: not one command") };
                let meaning = meaning::meaning(command);
                assert_eq!(
                    (json!(meaning.0), json!(meaning.1)),
                    (op.clone(), vector["fields"].clone())
                );
                assert_eq!(hex(&command.encode()), text(&vector, "canonical"), "{name}");
            }
        }
    }
}

#[test]
fn malformed_bytes_are_refused_with_the_code_of_their_vector() {
    for vector in vectors("malformed.json") {
        let name = text(&vector, "name");
        let code = RefusedCode::from_wire(vector["error"].as_u64().unwrap()).unwrap();
        let error = reading(&vector).error.unwrap_or_else(|| panic!("{name} was taken"));
        assert_eq!(error.code(), code, "{name}: {error}");
        assert!(!error.to_string().is_empty());
    }
}
