//! What the tests of the wire share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

pub mod catalogue;
pub mod meaning;
pub mod mirror;
pub mod strategy;
pub mod widen;

use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::codec::{write_from_broker, write_to_broker};
use pinmesh_protocol::command::{FromBroker, Payload, ToBroker};
use pinmesh_protocol::{BatchWriter, DecodeError};

/// A command of either direction.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    To(ToBroker<'static>),
    From(FromBroker<'static>),
}

impl Command {
    pub fn encode(&self) -> Vec<u8> {
        let mut batch = BatchWriter::<()>::new();
        match self {
            Self::To(command) => write_to_broker(batch.bytes_mut(), command),
            Self::From(command) => write_from_broker(batch.bytes_mut(), command),
        }
        batch.bytes().to_vec()
    }

    pub fn direction(&self) -> Direction {
        match self {
            Self::To(_) => Direction::ToBroker,
            Self::From(_) => Direction::FromBroker,
        }
    }

    pub fn payload(&self) -> Option<Payload<'static>> {
        match self {
            Self::To(ToBroker::Submit(c)) => Some(c.payload),
            Self::To(ToBroker::Done(c)) => Some(c.payload),
            Self::To(ToBroker::Progress(c)) => Some(c.payload),
            Self::From(FromBroker::Task(c)) => Some(c.payload),
            Self::From(FromBroker::Result(c)) => Some(c.payload),
            Self::From(FromBroker::Progress(c)) => Some(c.payload),
            _ => None,
        }
    }

    /// Lengths of frames that fit the payload.
    pub fn attachments(&self) -> Vec<usize> {
        let Some(Payload::Frames(span)) = self.payload() else { return Vec::new() };
        let mut left = span.bytes as usize;
        (0..span.frames)
            .map(|frame| {
                let len = if frame + 1 == span.frames { left } else { left.min(1024 * 1024) };
                left -= len;
                len
            })
            .collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    ToBroker,
    FromBroker,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::ToBroker => "to_broker",
            Self::FromBroker => "from_broker",
        }
    }

    pub fn from_name(name: &str) -> Self {
        match name {
            "to_broker" => Self::ToBroker,
            "from_broker" => Self::FromBroker,
            other => panic!("no direction {other}"),
        }
    }
}

/// Everything that a reader says about a message.
pub struct Reading {
    pub commands: Vec<Command>,
    pub error: Option<DecodeError>,
    pub ignored: u32,
    pub discarded: usize,
}

/// Reads a message to its end. The bytes live on: commands borrow from them.
pub fn read(direction: Direction, bytes: &[u8], attachments: &[usize]) -> Reading {
    read_static(direction, keep(bytes), keep(attachments))
}

pub fn read_static(
    direction: Direction,
    bytes: &'static [u8],
    attachments: &'static [usize],
) -> Reading {
    let mut reader = BatchReader::new(bytes, attachments);
    let mut commands = Vec::new();
    let mut error = None;
    loop {
        let next = match direction {
            Direction::ToBroker => reader.next_to_broker().map(|next| next.map(Command::To)),
            Direction::FromBroker => reader.next_from_broker().map(|next| next.map(Command::From)),
        };
        match next {
            None => break,
            Some(Ok(command)) => commands.push(command),
            Some(Err(found)) => error = Some(found),
        }
    }
    let (ignored, discarded) = (reader.ignored(), reader.discarded());
    let end = reader.finish();
    Reading { commands, error: error.or(end.err()), ignored, discarded }
}

/// A copy that is never freed: commands borrow, and a test's memory is short-lived anyway.
pub fn keep<T: Clone>(values: &[T]) -> &'static [T] {
    Vec::leak(values.to_vec())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "hex of odd length: {text}");
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// A small generator whose seed a failing test prints.
pub struct XorShift(pub u64);

impl XorShift {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}
