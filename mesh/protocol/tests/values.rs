//! Options and the payloads of users: what rmp-serde would let through is stopped.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use pinmesh_protocol::limits::PAYLOAD_DEPTH_MAX;
use pinmesh_protocol::payload::{from_msgpack, to_msgpack};
use pinmesh_protocol::status::RefusedCode;
use pinmesh_protocol::{BatchWriter, DecodeError, TaskOptions};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Job<'a> {
    path: &'a str,
    #[serde(with = "serde_bytes")]
    body: &'a [u8],
    retries: Option<u8>,
}

fn map(key: &str, value: &[u8]) -> Vec<u8> {
    [&[0x81, 0xa0 | key.len() as u8], key.as_bytes(), value].concat()
}

#[test]
fn a_payload_borrows_what_it_was_written_from() {
    let job = Job { path: "/tmp/x", body: &[1, 2, 3], retries: None };
    let bytes = to_msgpack(&job).unwrap();
    assert_eq!(from_msgpack::<Job<'_>>(&bytes), Ok(job));
}

#[test]
fn a_struct_is_taken_as_a_map_too() {
    let bytes = b"\x83\xa4path\xa1x\xa4body\xc4\x01\x07\xa7retries\x02";
    assert_eq!(from_msgpack(bytes), Ok(Job { path: "x", body: &[7], retries: Some(2) }));
}

#[test]
fn bytes_after_the_value_are_refused() {
    assert_eq!(from_msgpack::<u8>(&[7, 7]), Err(DecodeError::TrailingBytes { at: 1, left: 1 }),);
}

#[test]
fn nesting_past_the_limit_is_refused_before_serde_sees_it() {
    let nested = |depth| [vec![0x91; depth], vec![0xc0]].concat();
    assert!(from_msgpack::<serde_json::Value>(&nested(PAYLOAD_DEPTH_MAX)).is_ok());
    let error = from_msgpack::<serde_json::Value>(&nested(PAYLOAD_DEPTH_MAX + 1)).unwrap_err();
    assert_eq!(error.code(), RefusedCode::TooLarge);
    let error = from_msgpack::<serde_json::Value>(&nested(1_000_000)).unwrap_err();
    assert_eq!(error.code(), RefusedCode::TooLarge);
}

#[test]
fn a_value_of_another_type_is_refused_in_words() {
    let error = from_msgpack::<u8>(b"\xa1x").unwrap_err();
    assert_eq!(error.code(), RefusedCode::Malformed);
    assert!(error.to_string().starts_with("payload: "), "{error}");
}

#[test]
fn default_options_are_an_empty_map() {
    assert_eq!(TaskOptions::default().encode(), [0x80]);
    assert_eq!(TaskOptions::decode(&[0x80]), Ok(TaskOptions::default()));
}

#[test]
fn an_unknown_option_is_named_in_the_error() {
    let error = TaskOptions::decode(&map("at_most_twice", &[0xc3])).unwrap_err();
    assert!(error.to_string().contains("at_most_twice"), "{error}");
}

#[test]
fn an_option_that_comes_twice_is_refused() {
    let twice = b"\x82\xa8accepted\xc3\xa8accepted\xc2";
    assert!(TaskOptions::decode(twice).is_err());
}

#[test]
fn a_zero_is_never_unlimited() {
    assert!(TaskOptions::decode(&map("max_runtime_ns", &[0])).is_err());
    assert!(TaskOptions::decode(&map("tries_max", &[0])).is_err());
    assert!(TaskOptions::decode(&map("tries_max", &[1])).is_ok());
}

#[test]
fn options_are_a_map_and_nothing_else() {
    for bytes in [&b""[..], b"\xc0", b"\x94\xc3\xc3\xc0\xc0", b"\x80\x80", b"\x81\xa8accepted\x01"]
    {
        assert!(TaskOptions::decode(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_batch_with_frames_is_full() {
    let mut batch = BatchWriter::new();
    assert!(batch.is_empty() && !batch.is_full());
    let span = batch.attach([("a", 1_048_576), ("b", 7)]);
    assert_eq!((span.first, span.frames, span.bytes), (1, 2, 1_048_583));
    assert!(batch.is_full());
    batch.clear();
    assert!(batch.is_empty() && !batch.is_full() && batch.attachments_mut().is_empty());
}
