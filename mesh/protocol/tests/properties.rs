//! Arbitrary commands and arbitrary bytes, and the cursor held to rmp-serde.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::widen::widen;
use common::{Command, Direction, XorShift, keep, mirror, read, read_static, strategy};
use pinmesh_protocol::codec::submit_header_bytes;
use pinmesh_protocol::command::{Payload, ToBroker};
use pinmesh_protocol::limits::INLINE_BYTES_MAX;
use pinmesh_protocol::{DecodeError, TaskOptions, payload};
use proptest::prelude::*;

/// The one command in `bytes`.
fn only(direction: Direction, bytes: &[u8], attachments: &[usize]) -> Command {
    let reading = read(direction, bytes, attachments);
    assert_eq!(reading.error, None);
    assert_eq!(reading.commands.len(), 1);
    reading.commands.into_iter().next().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_command_is_read_as_it_was_written(command in strategy::command()) {
        let bytes = command.encode();
        prop_assert_eq!(only(command.direction(), &bytes, &command.attachments()), command);
    }

    #[test]
    fn the_cursor_reads_what_rmp_serde_writes_and_writes_the_same(command in strategy::command()) {
        let bytes = mirror::encode::encode(&command);
        prop_assert_eq!(&only(command.direction(), &bytes, &command.attachments()), &command);
        prop_assert_eq!(command.encode(), bytes);
    }

    #[test]
    fn rmp_serde_reads_what_the_cursor_writes(command in strategy::command()) {
        let bytes = command.encode();
        prop_assert_eq!(mirror::decode::decode(command.direction(), &bytes), command);
    }

    #[test]
    fn every_width_of_a_number_or_a_length_is_read(
        command in strategy::command(),
        seed in 1..u64::MAX,
    ) {
        // Options are handed on as they are, so their bytes differ where their meaning does not.
        let bytes = widen(&command.encode(), &mut XorShift(seed));
        let read = only(command.direction(), &bytes, &command.attachments());
        prop_assert_eq!(mirror::decode::decode(command.direction(), &mirror::encode::encode(&read)), command);
    }

    #[test]
    fn a_command_that_is_cut_off_anywhere_is_malformed(command in strategy::command()) {
        let bytes = keep(&command.encode());
        let attachments = keep(&command.attachments());
        let step = (bytes.len() / 200).max(1);
        for len in (1..bytes.len()).step_by(step) {
            let reading = read_static(command.direction(), &bytes[..len], attachments);
            prop_assert!(reading.commands.is_empty());
            let error = reading.error;
            prop_assert!(matches!(error, Some(DecodeError::Truncated { .. })), "{:?}", error);
            prop_assert_eq!(reading.discarded, len);
        }
    }

    #[test]
    fn a_batch_is_read_up_to_its_bad_command(
        commands in proptest::collection::vec(strategy::to_broker(), 1..20),
    ) {
        let commands: Vec<Command> = commands
            .into_iter()
            .map(Command::To)
            .filter(|command| command.attachments().is_empty())
            .collect();
        let mut bytes: Vec<u8> = commands.iter().flat_map(Command::encode).collect();
        prop_assume!(bytes.len() < 200_000);
        bytes.extend_from_slice(&[0x91, 0x63, 0x91, 0x06]);
        let reading = read(Direction::ToBroker, &bytes, &[]);
        prop_assert_eq!(reading.commands, commands);
        let at = bytes.len() - 4;
        prop_assert_eq!(reading.error, Some(DecodeError::UnknownOp { at, op: 99 }));
        prop_assert_eq!(reading.discarded, 4);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        attachments in proptest::collection::vec(0_usize..2_000_000, 0..3),
    ) {
        for direction in [Direction::ToBroker, Direction::FromBroker] {
            read(direction, &bytes, &attachments);
        }
        let _ = TaskOptions::decode(&bytes);
        let _ = payload::from_msgpack::<serde_json::Value>(&bytes);
    }

    #[test]
    fn arbitrary_fields_after_a_known_op_are_read_or_refused(
        op in 0_u8..=140,
        fields in 0_u8..15,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut command = vec![0x90 | fields, op];
        command.extend_from_slice(&bytes);
        for direction in [Direction::ToBroker, Direction::FromBroker] {
            read(direction, &command, &[]);
        }
    }

    #[test]
    fn the_header_of_a_submit_is_as_long_as_was_said(command in strategy::to_broker()) {
        if let ToBroker::Submit(submit) = &command {
            let inline = match submit.payload {
                Payload::Inline(bytes) => bytes.len(),
                Payload::Frames(_) => 0,
            };
            let said = submit_header_bytes(submit);
            prop_assert_eq!(Command::To(command).encode().len() - inline, said);
        }
    }

    #[test]
    fn options_are_read_as_they_were_written(options in strategy::task_options()) {
        prop_assert_eq!(TaskOptions::decode(&options.encode()), Ok(options));
    }
}

#[test]
fn the_longest_inline_payload_is_read() {
    let bytes = keep(&vec![7; INLINE_BYTES_MAX - 1]);
    let command = Command::To(ToBroker::Done(pinmesh_protocol::command::Done {
        attempt: Default::default(),
        status: pinmesh_protocol::status::EndStatus::Ok,
        residence_ns: 0,
        service_ns: 0,
        content_type: Default::default(),
        payload: Payload::Inline(bytes),
    }));
    assert_eq!(only(Direction::ToBroker, &command.encode(), &[]), command);
}
