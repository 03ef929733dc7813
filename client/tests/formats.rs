//! Payloads in every format, there and back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use common::{FakeBroker, GENEROUS};
use pinmesh_client::{Client, ContentType, Encoding, Error};

fn client(broker: &FakeBroker) -> Client {
    Client::builder().broker(&broker.endpoint).connect_timeout(GENEROUS).connect().unwrap()
}

#[test]
fn a_value_goes_as_messagepack_or_json_and_comes_back_by_its_content_type() {
    let broker = FakeBroker::start();
    let client = client(&broker);
    let value = (7_u32, "seven".to_owned(), vec![Some(1.5), None]);
    for (encoding, content_type, start) in [
        (Encoding::MessagePack, ContentType::MSGPACK, 0x93),
        (Encoding::Json, ContentType::JSON, b'['),
    ] {
        let task = client.task("echo").encoding(encoding);
        let reply = task.call_reply::<_, (u32, String, Vec<Option<f64>>)>(&value).unwrap();
        assert_eq!((&reply.value, reply.content_type), (&value, content_type));
        let queue = client.completions();
        task.submit_to(&queue, 1, &value).unwrap();
        let raw = queue.recv().1.unwrap();
        assert_eq!((raw.content_type, raw.value[0]), (content_type, start));
        assert_eq!(raw.decode::<(u32, String, Vec<Option<f64>>)>().unwrap().value, value);
    }
}

#[test]
fn an_output_of_another_content_type_is_an_error_that_names_both() {
    let broker = FakeBroker::start();
    let client = client(&broker);
    // `length` answers raw bytes.
    let error = client.call::<_, u32>("length", &1).unwrap_err();
    assert!(matches!(error, Error::Decode { .. }));
    let text = error.to_string();
    assert!(text.contains("raw bytes (content type 0), not as MessagePack or JSON"), "{text}");
    let task = client.task("echo").content_type(ContentType::JSON);
    let raw = task.call_raw(b"{\"a\":".to_vec()).unwrap();
    let error = raw.decode::<u32>().unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error}");
}

#[cfg(feature = "protobuf")]
#[test]
fn a_protocol_buffers_message_goes_and_comes_back_and_is_taken_for_nothing_else() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Point {
        #[prost(sint32, tag = "1")]
        x: i32,
        #[prost(string, tag = "2")]
        name: String,
    }
    let broker = FakeBroker::start();
    let client = client(&broker);
    let point = Point { x: -3, name: "p".into() };
    let task = client.task("echo");
    assert_eq!(task.call_protobuf::<_, Point>(&point).unwrap(), point);
    let queue = client.completions();
    task.submit_protobuf_to(&queue, 9, &point).unwrap();
    let (token, outcome) = queue.recv();
    let raw = outcome.unwrap();
    assert_eq!((token, raw.content_type), (9, ContentType::PROTOBUF));
    assert_eq!(raw.decode_protobuf::<Point>().unwrap().value, point);
    let raw = task.call_raw(b"\x08".to_vec()).unwrap();
    let text = raw.decode_protobuf::<Point>().unwrap_err().to_string();
    assert!(text.contains("raw bytes (content type 0), not as Protocol Buffers"), "{text}");
    let task = task.content_type(ContentType::PROTOBUF);
    let cut = task.call_raw(b"\x08".to_vec()).unwrap();
    assert!(matches!(cut.decode_protobuf::<Point>(), Err(Error::Decode { .. })));
}
