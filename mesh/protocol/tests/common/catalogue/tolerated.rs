//! Forms that a receiver takes although this crate does not write them.

use pinmesh_protocol::command::{FromBroker, Submit, ToBroker};
use pinmesh_protocol::id::RequestId;

use super::Tolerated;
use super::commands::{done, result, submit, task};
use crate::common::widen::widen;
use crate::common::{Command, Direction, XorShift};

pub fn tolerated() -> Vec<Tolerated> {
    let to = |command| Some(Command::To(command));
    let raw = |name, bytes: &[u8], command| Tolerated {
        name,
        direction: Direction::ToBroker,
        bytes: bytes.to_vec(),
        command,
    };
    let mut all = vec![
        raw("ack_as_uint_64", b"\x92\xcc\x07\xcf\0\0\0\0\0\0\0\x07", to(ToBroker::Ack(7))),
        raw("ack_as_int_64", b"\x92\x07\xd3\0\0\0\0\0\0\0\x07", to(ToBroker::Ack(7))),
        raw("ack_as_int_8", b"\x92\x07\xd0\x07", to(ToBroker::Ack(7))),
        raw("ack_in_array_16", b"\xdc\0\x02\x07\x07", to(ToBroker::Ack(7))),
        raw("ack_in_array_32", b"\xdd\0\0\0\x02\x07\x07", to(ToBroker::Ack(7))),
        raw(
            "ack_with_later_fields",
            b"\x95\x07\x07\xc0\x81\xa1k\xc0\xca\0\0\0\0",
            to(ToBroker::Ack(7)),
        ),
        raw("goodbye_with_later_field", b"\x92\x06\x93\x01\x02\xd4\x05\xff", to(ToBroker::Goodbye)),
        raw("ignorable_128", b"\x92\xcc\x80\xa4beta", None),
        raw("ignorable_most", b"\x91\xcf\xff\xff\xff\xff\xff\xff\xff\xff", None),
    ];
    let wide = |name, command: Command, seed| Tolerated {
        name,
        direction: command.direction(),
        bytes: widen(&command.encode(), &mut XorShift(seed)),
        command: Some(command),
    };
    all.extend([
        wide("submit_wide", Command::To(ToBroker::Submit(submit())), 11),
        wide("done_wide", Command::To(ToBroker::Done(done())), 12),
        wide("task_wide", Command::From(FromBroker::Task(task())), 13),
        wide("result_wide", Command::From(FromBroker::Result(result())), 14),
    ]);
    let again = ToBroker::Submit(Submit { request_id: RequestId(2), ..submit() });
    let mut bytes = Command::To(again.clone()).encode();
    bytes[0] += 1;
    bytes.extend_from_slice(b"\xa5later");
    all.push(raw("submit_with_later_field", &bytes, to(again)));
    all
}
