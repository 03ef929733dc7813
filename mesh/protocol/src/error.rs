//! What can be wrong with bytes that claim to be commands.

use alloc::boxed::Box;
use core::fmt;

use crate::status::RefusedCode;

/// Why bytes are not what they claim to be. `at` is the offset in the decoded bytes: the first
/// frame of a message, or the value that was handed in.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a value.
    Truncated {
        /// The field that was being read.
        field: &'static str,
        /// Where it starts.
        at: usize,
    },
    /// A value of another MessagePack type than the field has.
    WrongType {
        /// The field.
        field: &'static str,
        /// Where it starts.
        at: usize,
        /// What it has to be.
        expected: Expected,
        /// Its first byte.
        marker: u8,
    },
    /// A number that the field cannot have.
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Where it starts.
        at: usize,
        /// The number.
        value: i128,
        /// The lowest that is right.
        min: i64,
        /// The highest that is right.
        max: u64,
    },
    /// A number that names nothing in this version.
    UnknownValue {
        /// The field.
        field: &'static str,
        /// Where it starts.
        at: usize,
        /// The number.
        value: u64,
    },
    /// An array that ends before the last field that this version needs.
    TooFewFields {
        /// The command or the array inside it.
        field: &'static str,
        /// Where it starts.
        at: usize,
        /// Fields that it has.
        found: usize,
        /// Fields that it needs.
        needed: usize,
    },
    /// A str that is not UTF-8.
    NotUtf8 {
        /// The field.
        field: &'static str,
        /// Where it starts.
        at: usize,
    },
    /// Longer or more than the wire allows.
    TooLarge {
        /// The field, or the part of the message.
        field: &'static str,
        /// Where it starts.
        at: usize,
        /// Its size or number.
        value: u64,
        /// The most that is taken.
        max: u64,
    },
    /// Arrays and maps nested deeper than the wire allows.
    TooDeep {
        /// The field.
        field: &'static str,
        /// Where the innermost one starts.
        at: usize,
        /// The deepest nesting that is taken.
        max: usize,
    },
    /// A critical op that this version does not know.
    UnknownOp {
        /// Where the command starts.
        at: usize,
        /// The op.
        op: u64,
    },
    /// A command that only the other side may say.
    WrongDirection {
        /// Where the command starts.
        at: usize,
        /// The op.
        op: u8,
    },
    /// The frames of the message are not those that its commands name.
    WrongFrames {
        /// Where the payload field starts, or the length of the first frame if none names them.
        at: usize,
        /// What does not fit.
        fault: FrameFault,
    },
    /// Bytes after the one value that was expected.
    TrailingBytes {
        /// Where they start.
        at: usize,
        /// How many.
        left: usize,
    },
    /// A value that is MessagePack but not what the type wants, in serde's words.
    Value {
        /// What was decoded: "options" or "payload".
        what: &'static str,
        /// serde's reason.
        reason: Box<str>,
    },
}

/// The MessagePack type that a field has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the type of its name")]
pub enum Expected {
    Unsigned,
    Signed,
    Str,
    Bin,
    Bool,
    Array,
    Map,
    NameOrAlias,
    BinOrFrames,
    Value,
}

/// How frames and commands of a message disagree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameFault {
    /// A payload names other frames than all that follow the first.
    Span {
        /// The first one named.
        first: u64,
        /// How many are named.
        frames: u64,
        /// How many follow the first frame.
        present: usize,
    },
    /// A payload says another length than its frames have.
    Bytes {
        /// What it says.
        said: u64,
        /// What they have.
        present: u64,
    },
    /// Two payloads name the frames.
    Twice,
    /// No payload names the frames.
    Unnamed {
        /// How many follow the first frame.
        present: usize,
    },
}

impl DecodeError {
    /// The code of the REFUSED that this error is answered with.
    pub const fn code(&self) -> RefusedCode {
        match self {
            Self::Truncated { .. }
            | Self::WrongType { .. }
            | Self::OutOfRange { .. }
            | Self::UnknownValue { .. }
            | Self::TooFewFields { .. }
            | Self::NotUtf8 { .. }
            | Self::TrailingBytes { .. }
            | Self::Value { .. } => RefusedCode::Malformed,
            Self::TooLarge { .. } | Self::TooDeep { .. } => RefusedCode::TooLarge,
            Self::UnknownOp { .. } => RefusedCode::UnknownOp,
            Self::WrongDirection { .. } => RefusedCode::NotAllowed,
            Self::WrongFrames { .. } => RefusedCode::WrongFrames,
        }
    }
}

impl Expected {
    const fn words(self) -> &'static str {
        match self {
            Self::Unsigned => "an unsigned integer",
            Self::Signed => "an integer",
            Self::Str => "a str",
            Self::Bin => "a bin",
            Self::Bool => "a bool",
            Self::Array => "an array",
            Self::Map => "a map",
            Self::NameOrAlias => "a str or an alias",
            Self::BinOrFrames => "a bin or [first frame, frames, bytes]",
            Self::Value => "a value",
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Span { first, frames, present } => write!(
                f,
                "the payload names {frames} frames from {first}, the message has {present} after \
                 its first; name all of them, from 1"
            ),
            Self::Bytes { said, present } => {
                write!(f, "the payload says {said} bytes, its frames have {present}")
            }
            Self::Twice => f.write_str("two payloads name the frames; send one such a message"),
            Self::Unnamed { present } => {
                write!(f, "no payload names the {present} frames after the first")
            }
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { field, at } => {
                write!(f, "{field}: the bytes end inside it (at {at})")
            }
            Self::WrongType { field, at, expected, marker } => {
                write!(f, "{field}: expected {expected}, found marker 0x{marker:02x} (at {at})")
            }
            Self::OutOfRange { field, at, value, min, max } => {
                write!(f, "{field}: {value} is not within {min}..={max} (at {at})")
            }
            Self::UnknownValue { field, at, value } => {
                write!(f, "{field}: {value} has no meaning in this version (at {at})")
            }
            Self::TooFewFields { field, at, found, needed } => {
                write!(f, "{field}: {found} fields, needs {needed} (at {at})")
            }
            Self::NotUtf8 { field, at } => write!(f, "{field}: not UTF-8 (at {at})"),
            Self::TooLarge { field, at, value, max } => {
                write!(f, "{field}: {value} is above the limit of {max} (at {at})")
            }
            Self::TooDeep { field, at, max } => {
                write!(f, "{field}: nested deeper than {max} (at {at})")
            }
            Self::UnknownOp { at, op } => write!(f, "unknown op {op} (at {at})"),
            Self::WrongDirection { at, op } => {
                write!(f, "op {op} is not said in this direction (at {at})")
            }
            Self::WrongFrames { at, fault } => write!(f, "{fault} (at {at})"),
            Self::TrailingBytes { at, left } => {
                write!(f, "{left} bytes after the value; send one value (at {at})")
            }
            Self::Value { what, reason } => write!(f, "{what}: {reason}"),
        }
    }
}

impl core::error::Error for DecodeError {}
