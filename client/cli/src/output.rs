//! Outputs of tasks on their way to standard output.

use std::io::{self, Write};
use std::str::FromStr;

use pinmesh_client::{Bytes, ContentType, Reply};
use pinmesh_protocol::payload::{from_msgpack, to_msgpack};
use serde_bytes::ByteBuf;
use serde_json::Value;

use crate::args::Format;

/// One part of a [`Template`].
#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Result,
    Input,
    Index,
}

/// What `map` prints for each task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Template(Vec<Part>);

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                '\\' => plain.push(match chars.next() {
                    Some('t') => '\t',
                    Some('n') => '\n',
                    Some('0') => '\0',
                    Some('\\') => '\\',
                    other => {
                        let found = other.map(String::from).unwrap_or_default();
                        return Err(format!("`\\{found}` is unknown; write \\t, \\n, \\0 or \\\\"));
                    }
                }),
                '{' | '}' if chars.as_str().starts_with(char) => {
                    plain.push(char);
                    chars.next();
                }
                '{' => {
                    let rest = chars.as_str();
                    let (name, after) =
                        rest.split_once('}').ok_or("`{` has no `}`; write `{{` for a brace")?;
                    chars = after.chars();
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(match name {
                        "result" => Part::Result,
                        "input" => Part::Input,
                        "index" => Part::Index,
                        _ => {
                            let known = "{result}, {input} and {index}";
                            return Err(format!("`{{{name}}}` is unknown; there are {known}"));
                        }
                    });
                }
                '}' => return Err("`}` has no `{`; write `}}` for a brace".into()),
                other => plain.push(other),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}

impl Template {
    /// Writes one line.
    pub(crate) fn write(
        &self,
        out: &mut impl Write,
        result: &[u8],
        input: &[u8],
        index: u64,
    ) -> io::Result<()> {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.write_all(text.as_bytes())?,
                Part::Result => out.write_all(result)?,
                Part::Input => out.write_all(input)?,
                Part::Index => write!(out, "{index}")?,
            }
        }
        out.write_all(b"\n")
    }
}

/// The input as it goes to the handler, and what it is.
pub(crate) fn encode(input: Vec<u8>, format: Format) -> Result<(Vec<u8>, ContentType), String> {
    match format {
        Format::Raw => Ok((input, ContentType::RAW)),
        Format::Msgpack => Ok((input, ContentType::MSGPACK)),
        Format::Json => {
            let value: Value = serde_json::from_slice(&input)
                .map_err(|error| format!("the input is no JSON: {error}"))?;
            let bytes = to_msgpack(&value)
                .map_err(|error| format!("the input cannot be encoded: {error}"))?;
            Ok((bytes, ContentType::MSGPACK))
        }
    }
}

/// The output as it is printed. `is_bare`: a string without quotes, for a line among others.
pub(crate) fn render(
    reply: Reply<Bytes>,
    format: Format,
    is_bare: bool,
) -> Result<Vec<u8>, String> {
    if format == Format::Msgpack || reply.content_type != ContentType::MSGPACK {
        return Ok(reply.value.into_vec());
    }
    match from_msgpack::<Value>(&reply.value) {
        Ok(Value::String(text)) if is_bare => Ok(text.into_bytes()),
        Ok(value) => Ok(value.to_string().into_bytes()),
        Err(error) => match from_msgpack::<ByteBuf>(&reply.value) {
            Ok(bytes) => Ok(bytes.into_vec()),
            Err(_) => Err(format!(
                "the output cannot be shown as JSON ({error}); ask for it with --format msgpack"
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(template: &str) -> String {
        let mut out = Vec::new();
        let template: Template = template.parse().expect("a template");
        template.write(&mut out, b"R", b"I", 7).expect("a vector takes all");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_template_puts_its_parts_in() {
        assert_eq!(line("{result}  {input}"), "R  I\n");
        assert_eq!(line(r"{index}\t{{{result}}}\\"), "7\t{R}\\\n");
        assert_eq!(line(""), "\n");
    }

    #[test]
    fn a_template_with_a_mistake_says_what_is_right() {
        for (text, remedy) in [
            ("{results}", "there are {result}, {input} and {index}"),
            ("{result", "write `{{`"),
            ("result}", "write `}}`"),
            (r"\x", r"write \t"),
        ] {
            let error = text.parse::<Template>().expect_err("a mistake");
            assert!(error.contains(remedy), "{error}");
        }
    }

    #[test]
    fn json_goes_to_the_handler_as_messagepack() {
        let (bytes, content_type) =
            encode(br#"{"a": [1, null]}"#.to_vec(), Format::Json).expect("JSON");
        assert_eq!(content_type, ContentType::MSGPACK);
        assert_eq!(bytes, [0x81, 0xa1, b'a', 0x92, 1, 0xc0]);
        assert!(encode(b"{".to_vec(), Format::Json).is_err());
    }
}
