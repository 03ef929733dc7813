//! The golden vectors, as they are generated: commands, tolerated forms, malformed bytes.

mod commands;
mod malformed;
mod tolerated;

use pinmesh_protocol::status::RefusedCode;
use serde_json::{Map, Value, json};

use super::meaning::meaning;
use super::{Command, Direction, hex};

pub use malformed::malformed;
pub use tolerated::tolerated;

/// A command in the form that this crate writes.
pub struct Exact {
    pub name: &'static str,
    pub command: Command,
}

/// Bytes that are read but not written: another width, later fields, commands to ignore.
pub struct Tolerated {
    pub name: &'static str,
    pub direction: Direction,
    pub bytes: Vec<u8>,
    /// What is understood; the op is ignored where there is nothing.
    pub command: Option<Command>,
}

/// Bytes that are refused.
pub struct Malformed {
    pub name: &'static str,
    pub direction: Direction,
    pub bytes: Vec<u8>,
    pub attachments: Vec<usize>,
    pub code: RefusedCode,
}

/// The commands of one direction.
pub fn exact(direction: Direction) -> Vec<Exact> {
    match direction {
        Direction::ToBroker => commands::to_broker(),
        Direction::FromBroker => commands::from_broker(),
    }
}

/// The files of vectors: name, text.
pub fn files() -> Vec<(&'static str, String)> {
    let exact = |direction| exact(direction).iter().map(exact_vector).collect::<Vec<_>>();
    vec![
        ("to_broker.json", file(exact(Direction::ToBroker))),
        ("from_broker.json", file(exact(Direction::FromBroker))),
        ("tolerated.json", file(tolerated().iter().map(tolerated_vector).collect())),
        ("malformed.json", file(malformed().iter().map(malformed_vector).collect())),
    ]
}

/// One vector a line, so that a change is a line of a diff.
fn file(vectors: Vec<Value>) -> String {
    let lines: Vec<String> = vectors.iter().map(|vector| format!("  {vector}")).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

fn exact_vector(exact: &Exact) -> Value {
    let mut vector = vector(exact.name, exact.command.direction(), &exact.command.encode());
    put_meaning(&mut vector, &exact.command);
    put_attachments(&mut vector, &exact.command.attachments());
    Value::Object(vector)
}

fn tolerated_vector(tolerated: &Tolerated) -> Value {
    let mut vector = vector(tolerated.name, tolerated.direction, &tolerated.bytes);
    if let Some(command) = &tolerated.command {
        put_meaning(&mut vector, command);
        vector.insert("canonical".into(), json!(hex(&command.encode())));
        put_attachments(&mut vector, &command.attachments());
    }
    Value::Object(vector)
}

fn malformed_vector(malformed: &Malformed) -> Value {
    let mut vector = vector(malformed.name, malformed.direction, &malformed.bytes);
    vector.insert("error".into(), json!(malformed.code.to_wire()));
    put_attachments(&mut vector, &malformed.attachments);
    Value::Object(vector)
}

fn vector(name: &str, direction: Direction, bytes: &[u8]) -> Map<String, Value> {
    let mut vector = Map::new();
    vector.insert("name".into(), json!(name));
    vector.insert("direction".into(), json!(direction.name()));
    vector.insert("hex".into(), json!(hex(bytes)));
    vector
}

fn put_meaning(vector: &mut Map<String, Value>, command: &Command) {
    let (op, fields) = meaning(command);
    vector.insert("op".into(), json!(op));
    vector.insert("fields".into(), json!(fields));
}

fn put_attachments(vector: &mut Map<String, Value>, attachments: &[usize]) {
    if !attachments.is_empty() {
        vector.insert("attachments".into(), json!(attachments));
    }
}
