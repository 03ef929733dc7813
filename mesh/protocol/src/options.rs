//! What a client may ask of one task beyond its service, priority and deadline.

use alloc::boxed::Box;

#[cfg(feature = "serde")]
use crate::error::DecodeError;

/// Options of a task, a MessagePack map on the wire; a key that is absent keeps the default.
///
/// A broker refuses a task with a key that it does not know (status REFUSED): an option that is
/// silently ignored would be a promise silently broken.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct TaskOptions {
    /// Run at most once: after a loss the request ends LOST instead of running again.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_false"))]
    pub at_most_once: bool,
    /// Ask for ACCEPTED.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_false"))]
    pub accepted: bool,
    /// The longest that one attempt may run, nanoseconds; the broker's default where absent.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub max_runtime_ns: Option<u64>,
    /// Starts that may end badly before the task ends for good, 1 or more.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub tries_max: Option<u32>,
    /// The longest wait before the second try, nanoseconds; it doubles with each. 0: at once.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub backoff_ns: Option<u64>,
    /// The longest wait before any try, nanoseconds. 0: at once.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub backoff_max_ns: Option<u64>,
    /// Not to start before so long has passed, nanoseconds. Counts from the broker's receipt.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub start_after_ns: Option<u64>,
    /// What still runs when the deadline passes is killed rather than asked to stop.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_false"))]
    pub kill_at_deadline: bool,
    /// The idempotency key, 1 to 128 bytes: requests with the same one stand for one task.
    #[cfg_attr(feature = "serde", serde(with = "serde_bytes"))]
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub key: Option<Box<[u8]>>,
    /// The task of the key goes on when nobody waits for it. Asks for ACCEPTED.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_false"))]
    pub detached: bool,
    /// How long the outcome is kept under the key, nanoseconds; the broker's default where absent.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub retention_ns: Option<u64>,
    /// Run the task even if its client is gone for good by then; its outcome is dropped.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_false"))]
    pub run_on: bool,
}

#[cfg(feature = "serde")]
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

impl TaskOptions {
    /// Whether every option has its default; such options travel as nil.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(feature = "serde")]
impl TaskOptions {
    /// Reads the options of a SUBMIT or TASK.
    ///
    /// # Errors
    /// Bytes that are not one map, a key that this version does not know or that comes twice, a
    /// value of another type, or a 0 where that would have to mean "unlimited".
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        use crate::cursor::{Cursor, marker};
        use crate::error::Expected;
        use crate::limits::{DEPTH_MAX, KEY_BYTES_MAX, OPTIONS_BYTES_MAX};

        const WHAT: &str = "options";
        if bytes.len() > OPTIONS_BYTES_MAX {
            let (value, max) = (bytes.len() as u64, OPTIONS_BYTES_MAX as u64);
            return Err(DecodeError::TooLarge { field: WHAT, at: 0, value, max });
        }
        let cursor = Cursor::new(bytes);
        // serde would take an array for the struct too; on the wire it is a map.
        match cursor.peek(WHAT)? {
            marker::FIXMAP..=0x8f | marker::MAP16 | marker::MAP32 => {}
            _ => return Err(cursor.wrong_type(WHAT, Expected::Map)),
        }
        let options: Self = crate::payload::one_value(bytes, WHAT, DEPTH_MAX)?;
        let zero =
            |field| DecodeError::OutOfRange { field, at: 0, value: 0, min: 1, max: u64::MAX };
        if options.max_runtime_ns == Some(0) {
            return Err(zero("options.max_runtime_ns"));
        }
        if options.tries_max == Some(0) {
            return Err(zero("options.tries_max"));
        }
        if options.retention_ns == Some(0) {
            return Err(zero("options.retention_ns"));
        }
        if let Some(key) = &options.key
            && !(1..=KEY_BYTES_MAX).contains(&key.len())
        {
            let (field, value) = ("options.key", key.len() as i128);
            let max = KEY_BYTES_MAX as u64;
            return Err(DecodeError::OutOfRange { field, at: 0, value, min: 1, max });
        }
        Ok(options)
    }

    /// Encoded options, `None` for all default, with another `start_after_ns`. Bytes that are no
    /// options stay as they are: their broker is to refuse them.
    pub fn delayed(encoded: Option<&[u8]>, start_after_ns: u64) -> alloc::vec::Vec<u8> {
        match encoded.map_or(Ok(Self::default()), Self::decode) {
            Ok(options) => Self { start_after_ns: Some(start_after_ns), ..options }.encode(),
            Err(_) => encoded.unwrap_or_default().to_vec(),
        }
    }

    /// The map of the options that do not have their default.
    pub fn encode(&self) -> alloc::vec::Vec<u8> {
        // Writing bools and integers into memory cannot fail.
        rmp_serde::to_vec_named(self).unwrap_or_else(|_| alloc::vec![0x80])
    }
}
