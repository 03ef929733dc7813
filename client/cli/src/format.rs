//! Payloads between what a user writes and sees and what travels.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pinmesh_client::{ContentType, RawReply};
use pinmesh_protocol::payload::{from_msgpack, to_msgpack};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::args::Format;

impl Format {
    /// What inputs travel as.
    pub(crate) fn content_type(self) -> ContentType {
        match self {
            Self::Raw => ContentType::RAW,
            Self::Text => ContentType::TEXT,
            Self::Json | Self::Msgpack => ContentType::MSGPACK,
        }
    }

    /// The input as it goes to the handler.
    pub(crate) fn encode(self, input: Vec<u8>) -> Result<Vec<u8>, String> {
        match self {
            Self::Raw => Ok(input),
            Self::Text => match std::str::from_utf8(&input) {
                Ok(_) => Ok(input),
                Err(error) => Err(format!("the input is no UTF-8 text: {error}; use --format raw")),
            },
            Self::Msgpack => match from_msgpack::<IgnoredAny>(&input) {
                Ok(IgnoredAny) => Ok(input),
                Err(error) => Err(format!("the input is not one MessagePack value: {error}")),
            },
            Self::Json => {
                let value: Value = serde_json::from_slice(&input)
                    .map_err(|error| format!("the input is no JSON: {error}"))?;
                to_msgpack(&value).map_err(|error| format!("the input cannot be encoded: {error}"))
            }
        }
    }

    /// The output as it is shown.
    pub(crate) fn render(self, reply: RawReply) -> Result<Rendered, String> {
        let content_type = reply.content_type;
        let text = |bytes| Ok(Rendered { bytes, is_text: true });
        match (self, content_type) {
            (Self::Text | Self::Json | Self::Msgpack, ContentType::MSGPACK) => {
                let Shown(value) = from_msgpack(&reply.value).map_err(|error| {
                    format!("the output is not the MessagePack that it says it is: {error}")
                })?;
                text(match value {
                    Value::String(text) if self == Self::Text => text.into_bytes(),
                    value => value.to_string().into_bytes(),
                })
            }
            (Self::Json | Self::Msgpack, ContentType::TEXT) => {
                text(Value::from(String::from_utf8_lossy(&reply.value)).to_string().into_bytes())
            }
            (Self::Text | Self::Json | Self::Msgpack, ContentType::JSON)
            | (Self::Text, ContentType::TEXT) => text(reply.value.into_vec()),
            _ => Ok(Rendered { bytes: reply.value.into_vec(), is_text: false }),
        }
    }
}

/// An output as it is shown.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Rendered {
    pub(crate) bytes: Vec<u8>,
    /// It is text, which ends with a line end wherever it stands alone.
    pub(crate) is_text: bool,
}

impl Rendered {
    /// Whether a terminal would show it, and do nothing else.
    pub(crate) fn is_printable(&self) -> bool {
        let is_plain = |char: char| !char.is_control() || matches!(char, '\t' | '\n' | '\r');
        let text = std::str::from_utf8(&self.bytes);
        self.is_text || text.is_ok_and(|text| text.chars().all(is_plain))
    }

    /// As it stands alone.
    pub(crate) fn alone(mut self) -> Vec<u8> {
        if self.is_text && self.bytes.last() != Some(&b'\n') {
            self.bytes.push(b'\n');
        }
        self.bytes
    }

    /// As a part of a line: without the line end that many programs put at the end of their output.
    pub(crate) fn within_a_line(mut self) -> Vec<u8> {
        if self.bytes.last() == Some(&b'\n') {
            self.bytes.pop();
        }
        self.bytes
    }
}

/// Any MessagePack value as JSON. What JSON has no word for: bytes become base64, a map's keys text,
/// numbers that are not finite null.
struct Shown(Value);

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShownVisitor).map(Shown)
    }
}

struct ShownVisitor;

impl<'de> Visitor<'de> for ShownVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(STANDARD.encode(value).into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        inner.deserialize_any(self)
    }

    /// An extension: its type and its bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Shown(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((Shown(key), Shown(value))) = entries.next_entry()? {
            let key = match key {
                Value::String(key) => key,
                other => other.to_string(),
            };
            all.insert(key, value);
        }
        Ok(all.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        let Shown(value) = from_msgpack(bytes).expect("one value");
        value.to_string()
    }

    #[test]
    fn json_goes_to_the_handler_as_messagepack() {
        let bytes = Format::Json.encode(br#"{"a": [1, null]}"#.to_vec()).expect("JSON");
        assert_eq!(Format::Json.content_type(), ContentType::MSGPACK);
        assert_eq!(bytes, [0x81, 0xa1, b'a', 0x92, 1, 0xc0]);
        for (format, bytes) in [
            (Format::Json, &b"{"[..]),
            (Format::Json, b"1 2"),
            (Format::Text, b"\xff"),
            (Format::Msgpack, b"\x92\x01"),
            (Format::Msgpack, b"\x01\x01"),
        ] {
            assert!(format.encode(bytes.to_vec()).is_err(), "{format:?} {bytes:?}");
        }
    }

    #[test]
    fn every_messagepack_value_can_be_shown_as_json() {
        assert_eq!(shown(b"\x93\xc3\xff\xa1x"), r#"[true,-1,"x"]"#);
        assert_eq!(shown(b"\xc4\x03\x00\x01\xff"), r#""AAH/""#);
        assert_eq!(shown(b"\x82\x01\xc0\xa1k\x80"), r#"{"1":null,"k":{}}"#);
        assert_eq!(shown(b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"), "null");
        assert_eq!(shown(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), "18446744073709551615");
        assert_eq!(shown(b"\xd4\x05\x01"), r#"[5,"AQ=="]"#);
    }

    #[test]
    fn a_terminal_is_spared_bytes_that_are_no_text() {
        let raw = |bytes: &[u8]| Rendered { bytes: bytes.to_vec(), is_text: false };
        assert!(raw("2 \u{e4}\tb\r\n".as_bytes()).is_printable());
        assert!(raw(b"").is_printable());
        assert!(!raw(b"\x28\xb5\x2f\xfd").is_printable());
        assert!(!raw(b"\x1b[2J").is_printable());
        assert!(!raw(b"a\0").is_printable());
    }

    #[test]
    fn text_that_stands_alone_ends_its_line_and_bytes_stay_as_they_are() {
        let rendered = |is_text| Rendered { bytes: b"x".to_vec(), is_text };
        assert_eq!(rendered(true).alone(), b"x\n");
        assert_eq!(rendered(false).alone(), b"x");
        assert_eq!(Rendered { bytes: b"x\n\n".to_vec(), is_text: false }.within_a_line(), b"x\n");
    }
}
