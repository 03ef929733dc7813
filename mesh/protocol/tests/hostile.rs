//! The short form of the fuzz targets: mutated golden vectors through every decoder.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::{Direction, XorShift, catalogue};
use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::limits::{FIRST_FRAME_BYTES_MAX, LIST_MAX};
use pinmesh_protocol::status::RefusedCode;
use pinmesh_protocol::{DecodeError, TaskOptions, payload};

const ROUNDS: usize = 60_000;

/// Reads to the end and checks what holds for every message.
fn drain(direction: Direction, bytes: &[u8], attachments: &[usize]) {
    let mut reader = BatchReader::new(bytes, attachments);
    let mut commands = 0_usize;
    let mut is_failed = false;
    loop {
        let next = match direction {
            Direction::ToBroker => reader.next_to_broker().map(|next| next.map(drop)),
            Direction::FromBroker => reader.next_from_broker().map(|next| next.map(drop)),
        };
        assert!(next.is_none() || !is_failed, "a command after an error");
        match next {
            None => break,
            Some(Ok(())) => commands += 1,
            Some(Err(error)) => {
                is_failed = true;
                assert!(!error.to_string().is_empty());
                assert!(RefusedCode::ALL.contains(&error.code()));
            }
        }
    }
    // No command is shorter than two bytes.
    assert!(2 * (commands + reader.ignored() as usize) + reader.discarded() <= bytes.len());
    assert!(is_failed || reader.discarded() == 0);
    let _ = reader.finish();
}

fn seeds() -> Vec<(Vec<u8>, Vec<usize>)> {
    let exact = [Direction::ToBroker, Direction::FromBroker].map(catalogue::exact);
    let mut seeds: Vec<_> = exact
        .iter()
        .flatten()
        .map(|exact| (exact.command.encode(), exact.command.attachments()))
        .collect();
    seeds.extend(catalogue::tolerated().into_iter().map(|vector| (vector.bytes, Vec::new())));
    seeds.extend(
        catalogue::malformed().into_iter().map(|vector| (vector.bytes, vector.attachments)),
    );
    seeds
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut XorShift) {
    const EDGES: [u8; 12] =
        [0x00, 0x7f, 0x80, 0x90, 0x9f, 0xc0, 0xc6, 0xcf, 0xd3, 0xdb, 0xdd, 0xff];
    let at = random.below(bytes.len());
    match random.below(7) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = EDGES[random.below(EDGES.len())],
        2 => bytes.truncate(at),
        3 => bytes.insert(at, EDGES[random.below(EDGES.len())]),
        4 if !bytes.is_empty() => drop(bytes.remove(at)),
        5 => {
            let from = random.below(other.len());
            bytes.splice(at..at, other[from..].iter().copied());
        }
        _ => bytes.extend_from_slice(other),
    }
}

#[test]
fn mutated_vectors_are_read_or_refused() {
    let seed = 0x5eed_0000_0000_0001;
    println!("seed {seed:#x}");
    let mut random = XorShift(seed);
    let seeds = seeds();
    for _ in 0..ROUNDS {
        let (mut bytes, attachments) = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            let other = &seeds[random.below(seeds.len())].0;
            mutate(&mut bytes, other, &mut random);
        }
        for direction in [Direction::ToBroker, Direction::FromBroker] {
            drain(direction, &bytes, &attachments);
        }
        let _ = TaskOptions::decode(&bytes);
        let _ = payload::from_msgpack::<serde_json::Value>(&bytes);
    }
}

#[test]
fn a_first_frame_over_its_limit_is_refused_before_a_command_is_read() {
    let bytes = vec![0x91_u8; FIRST_FRAME_BYTES_MAX + 1];
    let mut reader = BatchReader::new(&bytes, &[]);
    let error = reader.next_to_broker().unwrap().unwrap_err();
    assert_eq!(error.code(), RefusedCode::TooLarge);
    assert_eq!(reader.next_to_broker(), None);
    assert_eq!(reader.discarded(), bytes.len());
}

#[test]
fn a_list_that_says_more_than_its_bytes_hold_is_refused() {
    for len in [LIST_MAX as u32, LIST_MAX as u32 + 1, u32::MAX] {
        let mut bytes = b"\x93\x33\x03\xdd".to_vec();
        bytes.extend_from_slice(&len.to_be_bytes());
        let error = BatchReader::new(&bytes, &[]).next_to_broker().unwrap().unwrap_err();
        let is_within = len <= LIST_MAX as u32;
        assert_eq!(matches!(error, DecodeError::Truncated { .. }), is_within, "{error}");
    }
}

#[test]
fn an_empty_message_holds_no_command() {
    let mut reader = BatchReader::new(&[], &[]);
    assert_eq!(reader.next_to_broker(), None);
    assert_eq!(reader.finish(), Ok(()));
    assert!(BatchReader::new(&[], &[5]).finish().is_err());
}
