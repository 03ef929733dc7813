//! MessagePack of users: handler inputs and outputs, options. `rmp-serde` does the work; what it
//! would let through is stopped before it sees a byte.

use alloc::boxed::Box;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::error::DecodeError;
use crate::limits::PAYLOAD_DEPTH_MAX;

/// Why a value cannot be written as MessagePack, in serde's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodeError(Box<str>);

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "payload: {}", self.0)
    }
}

impl core::error::Error for EncodeError {}

/// A value as MessagePack ([`crate::id::ContentType::MSGPACK`]); structs become arrays. Bytes need
/// `serde_bytes`: without it each is a number of its own, ten times slower.
///
/// # Errors
/// A value that serde cannot write, such as a sequence of unknown length.
pub fn to_msgpack<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    rmp_serde::to_vec(value).map_err(|error| EncodeError(error.to_string().into()))
}

/// One MessagePack value; structs may be arrays or maps. It may borrow from `bytes`.
///
/// # Errors
/// Bytes that are not exactly one value, nested deeper than [`PAYLOAD_DEPTH_MAX`], or another
/// value than `T` takes.
pub fn from_msgpack<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, DecodeError> {
    one_value(bytes, "payload", PAYLOAD_DEPTH_MAX)
}

/// One value and nothing after it.
pub(crate) fn one_value<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    what: &'static str,
    depth_max: usize,
) -> Result<T, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    cursor.skip(depth_max, what)?;
    let left = cursor.rest().len();
    if left > 0 {
        return Err(DecodeError::TrailingBytes { at: cursor.at(), left });
    }
    rmp_serde::from_slice(bytes)
        .map_err(|error| DecodeError::Value { what, reason: error.to_string().into() })
}
