//! Bytes that a receiver refuses, and the code that it says.

use pinmesh_protocol::command::{
    Fetch, FrameSpan, Payload, ServiceAlias, ServiceRef, Submit, ToBroker,
};
use pinmesh_protocol::id::{RequestId, Submission};
use pinmesh_protocol::limits::{
    FRAME_BYTES_MAX, KEY_BYTES_MAX, LABELS_MAX, LIST_MAX, NAME_BYTES_MAX, OPTIONS_BYTES_MAX,
    SERVICE_BYTES_MAX, SERVICES_MAX,
};
use pinmesh_protocol::status::RefusedCode;

use super::Malformed;
use super::commands::submit;
use crate::common::{Command, Direction, keep};

fn bad(name: &'static str, bytes: &[u8], code: RefusedCode) -> Malformed {
    let (direction, attachments) = (Direction::ToBroker, Vec::new());
    Malformed { name, direction, bytes: bytes.to_vec(), attachments, code }
}

fn to_peer(name: &'static str, bytes: &[u8], code: RefusedCode) -> Malformed {
    Malformed { direction: Direction::FromBroker, ..bad(name, bytes, code) }
}

fn encoded(submit: Submit<'static>) -> Vec<u8> {
    Command::To(ToBroker::Submit(submit)).encode()
}

pub fn malformed() -> Vec<Malformed> {
    let mut all = shapes();
    all.extend(values());
    all.extend(sizes());
    all.extend(frames());
    all
}

fn shapes() -> Vec<Malformed> {
    use RefusedCode::{Malformed, NotAllowed, UnknownOp};
    let whole = encoded(submit());
    vec![
        bad("not_an_array", b"\x07", Malformed),
        bad("a_map", b"\x81\x07\x07", Malformed),
        bad("reserved_marker", b"\xc1", Malformed),
        bad("empty_array", b"\x90", Malformed),
        bad("op_is_a_str", b"\x92\xa3ACK\x07", Malformed),
        bad("op_is_negative", b"\x92\xff\x07", Malformed),
        bad("op_is_nil", b"\x92\xc0\x07", Malformed),
        bad("array_ends_early", b"\x92\x07", Malformed),
        bad("array_length_ends_early", b"\xdc\0", Malformed),
        bad("number_ends_early", b"\x92\x07\xcd\x01", Malformed),
        bad("submit_ends_in_payload", &whole[..whole.len() - 1], Malformed),
        bad("submit_ends_in_header", &whole[..9], Malformed),
        bad("ack_without_n", b"\x91\x07", Malformed),
        bad("submit_with_seven_fields", b"\x98\x10\x01\x01\xa4echo\x05\xc0\x01\xc0", Malformed),
        bad("unknown_op_0", b"\x91\x00", UnknownOp),
        bad("unknown_op_99", b"\x92\x63\x01", UnknownOp),
        bad("unknown_op_127", b"\x91\x7f", UnknownOp),
        bad("second_command_unknown", b"\x92\x07\x07\x91\x63", UnknownOp),
        bad("task_to_broker", b"\x91\x20", NotAllowed),
        bad("welcome_to_broker", b"\x91\x02", NotAllowed),
        to_peer("submit_from_broker", &whole, NotAllowed),
        to_peer("hello_from_broker", b"\x91\x01", NotAllowed),
        to_peer("unknown_op_from_broker", b"\x91\x0a", UnknownOp),
        bad("later_field_is_cut_off", b"\x93\x07\x07\xa5lat", Malformed),
        bad("ignorable_is_cut_off", b"\x92\xcc\x80\xa4bet", Malformed),
    ]
}

fn values() -> Vec<Malformed> {
    use RefusedCode::Malformed;
    vec![
        bad("n_is_nil", b"\x92\x07\xc0", Malformed),
        bad("n_is_negative", b"\x92\x07\xff", Malformed),
        bad("n_is_negative_int_32", b"\x92\x07\xd2\xff\xff\xff\xff", Malformed),
        bad("n_is_a_float", b"\x92\x07\xcb\x40\x1c\0\0\0\0\0\0", Malformed),
        bad("n_is_a_bool", b"\x92\x07\xc3", Malformed),
        bad("n_is_a_str", b"\x92\x07\xa17", Malformed),
        bad("submission_past_32_bits", b"\x93\x11\x01\xcf\0\0\0\x01\0\0\0\0", Malformed),
        bad("priority_0", b"\x99\x10\x01\x01\xa4echo\x00\xc0\x01\xc0\xc4\0", Malformed),
        bad("priority_11", b"\x99\x10\x01\x01\xa4echo\x0b\xc0\x01\xc0\xc4\0", Malformed),
        bad("alias_256", b"\x99\x10\x01\x01\xcd\x01\0\x05\xc0\x01\xc0\xc4\0", Malformed),
        bad("service_is_nil", b"\x99\x10\x01\x01\xc0\x05\xc0\x01\xc0\xc4\0", Malformed),
        bad("service_is_a_bin", b"\x99\x10\x01\x01\xc4\x04echo\x05\xc0\x01\xc0\xc4\0", Malformed),
        bad(
            "service_is_not_utf_8",
            b"\x99\x10\x01\x01\xa2\xc3\x28\x05\xc0\x01\xc0\xc4\0",
            Malformed,
        ),
        bad("options_is_an_array", b"\x99\x10\x01\x01\xa4echo\x05\xc0\x01\x90\xc4\0", Malformed),
        bad(
            "options_is_a_bin",
            b"\x99\x10\x01\x01\xa4echo\x05\xc0\x01\xc4\x01\x80\xc4\0",
            Malformed,
        ),
        bad("payload_is_a_str", b"\x99\x10\x01\x01\xa4echo\x05\xc0\x01\xc0\xa2hi", Malformed),
        bad("payload_is_nil", b"\x99\x10\x01\x01\xa4echo\x05\xc0\x01\xc0\xc0", Malformed),
        bad("done_status_2", b"\x99\x21\x01\x01\x01\x02\x01\x01\x01\xc4\0", Malformed),
        bad(
            "hello_role_9",
            b"\x98\x01\x01\x01\x09\xc4\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xa1x\x01\0",
            Malformed,
        ),
        bad(
            "peer_id_of_15",
            b"\x98\x01\x01\x01\x01\xc4\x0f\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xa1x\x01\0",
            Malformed,
        ),
        bad("ready_part_1_of_1", b"\x9a\x22\xc0\0\x01\x91\xa1e\x01\x01\x90\x01\x01", Malformed),
        bad("ready_of_no_parts", b"\x9a\x22\xc0\0\x01\x91\xa1e\x01\x01\x90\0\0", Malformed),
        bad("recalled_attempt_of_two", b"\x93\x33\x03\x91\x92\x01\x01", Malformed),
        bad("lost_detail_past_32_bits", b"\x97\x31\0\x01\0\xce\x80\0\0\0\xc0\x90", Malformed),
        to_peer("cancel_is_hard_is_1", b"\x96\x11\x03\x01\x01\x01\x01", Malformed),
        to_peer("result_status_10", b"\x99\x18\x01\x01\x0a\0\xc0\x04\xc4\0\xc0", Malformed),
        to_peer(
            "result_stages_of_three",
            b"\x99\x18\x01\x01\0\0\x93\x01\x01\x01\x04\xc4\0\xc0",
            Malformed,
        ),
        to_peer("fetched_state_2", b"\x94\x1a\x02\x01\x02", Malformed),
    ]
}

fn sizes() -> Vec<Malformed> {
    use RefusedCode::TooLarge;
    let name = |len: usize| -> &'static str { "n".repeat(len).leak() };
    let service = |len| encoded(Submit { service: ServiceRef::Name(name(len)), ..submit() });
    let alias = ServiceAlias { alias: 0, name: name(SERVICE_BYTES_MAX + 1) };
    let fetch = ToBroker::Fetch(Fetch {
        request_id: RequestId(2),
        submission: Submission(1),
        key: keep(&[0; KEY_BYTES_MAX + 1]),
        waits: false,
    });
    let mut hello = b"\x98\x01\x01\x01\x01\xc4\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xda".to_vec();
    hello.extend_from_slice(&(NAME_BYTES_MAX as u16 + 1).to_be_bytes());
    hello.extend(std::iter::repeat_n(b'n', NAME_BYTES_MAX + 1));
    hello.extend_from_slice(b"\x01\0");
    let mut services = b"\x9b\x22\xc0\0\x01\xdc".to_vec();
    services.extend_from_slice(&(SERVICES_MAX as u16 + 1).to_be_bytes());
    services.extend(std::iter::repeat_n(0xa0, SERVICES_MAX + 1));
    services.extend_from_slice(b"\x90\x01\x01\x90\0\x01");
    let mut labels = b"\x9b\x22\xc0\0\x01\x91\xa1a\xdc\0\x21".to_vec();
    labels.extend(std::iter::repeat_n(0xa0, LABELS_MAX + 1));
    labels.extend_from_slice(b"\x01\x01\x90\0\x01");
    let mut list = b"\x93\x33\x03\xdc".to_vec();
    list.extend_from_slice(&(LIST_MAX as u16 + 1).to_be_bytes());
    list.extend((0..=LIST_MAX).flat_map(|_| *b"\x93\0\0\0"));
    // A map with one key, whose value makes it a byte too long.
    let mut options = vec![0x81, 0xa1, b'k', 0xc5];
    options.extend_from_slice(&(OPTIONS_BYTES_MAX as u16 - 5).to_be_bytes());
    options.resize(OPTIONS_BYTES_MAX + 1, 0);
    let mut long_header = encoded(submit());
    long_header[0] += 1;
    long_header.extend_from_slice(b"\xc5\x10\0");
    long_header.resize(long_header.len() + 4096, 0);
    let nested = |depth: usize| [&b"\x93\x07\x07"[..], &vec![0x91; depth], b"\xc0"].concat();
    vec![
        bad("service_of_129", &service(SERVICE_BYTES_MAX + 1), TooLarge),
        bad("alias_name_of_129", &Command::To(ToBroker::Service(alias)).encode(), TooLarge),
        bad("name_of_257", &hello, TooLarge),
        bad("key_of_129", &Command::To(fetch).encode(), TooLarge),
        bad("services_257", &services, TooLarge),
        bad("labels_33", &labels, TooLarge),
        bad("attempts_1025", &list, TooLarge),
        bad(
            "options_of_3073",
            &encoded(Submit { options: Some(keep(&options)), ..submit() }),
            TooLarge,
        ),
        bad("header_past_4096", &long_header, TooLarge),
        bad("later_field_nested_9_deep", &nested(9), TooLarge),
        bad("later_field_nested_1000_deep", &nested(1000), TooLarge),
        bad("window_of_1000001", b"\x93\x08\xce\0\x0f\x42\x41\x01", RefusedCode::Malformed),
    ]
}

fn frames() -> Vec<Malformed> {
    use RefusedCode::{TooLarge, WrongFrames};
    let span = |first, frames, bytes| {
        let payload = Payload::Frames(FrameSpan { first, frames, bytes });
        encoded(Submit { payload, ..submit() })
    };
    let with = |name, bytes: &[u8], attachments: &[usize], code| Malformed {
        attachments: attachments.to_vec(),
        ..bad(name, bytes, code)
    };
    let twice = [span(1, 1, 9), span(1, 1, 9)].concat();
    vec![
        with("frames_missing", &span(1, 1, 9), &[], WrongFrames),
        with("frames_not_all_named", &span(1, 1, 9), &[9, 9], WrongFrames),
        with("frames_too_few", &span(1, 2, 9), &[9], WrongFrames),
        with("frames_from_0", &span(0, 1, 9), &[9], WrongFrames),
        with("frames_from_2", &span(2, 1, 9), &[9, 9], WrongFrames),
        with("frames_none_named", &span(1, 0, 0), &[], WrongFrames),
        with("frames_of_other_length", &span(1, 1, 8), &[9], WrongFrames),
        with("frames_named_twice", &twice, &[9], WrongFrames),
        with("frames_unnamed", b"\x92\x07\x07", &[9], WrongFrames),
        with("frame_over_1_mib", &span(1, 1, 1_048_577), &[FRAME_BYTES_MAX + 1], TooLarge),
        with("frames_65", &span(1, 65, 65), &[1; 65], TooLarge),
    ]
}
