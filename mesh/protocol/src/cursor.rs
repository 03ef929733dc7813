//! MessagePack primitives over borrowed bytes. A field takes every width that MessagePack has for
//! its type; a value that is not understood is stepped over without recursion.
//!
//! A cursor is meant to live in registers: callers copy it into a local, and what is not inlined
//! takes and returns its parts. Behind a pointer, every field would wait for the store of the one
//! before it.

use crate::error::{DecodeError, Expected};

type Read<T> = Result<T, DecodeError>;

/// The deepest nesting that [`Cursor::skip`] can be asked to follow.
pub(crate) const SKIP_DEPTH_MAX: usize = 64;

/// First bytes of MessagePack values.
#[allow(dead_code, reason = "the list is the format's")]
pub(crate) mod marker {
    pub(crate) const FIXMAP: u8 = 0x80;
    pub(crate) const FIXARRAY: u8 = 0x90;
    pub(crate) const FIXSTR: u8 = 0xa0;
    pub(crate) const NIL: u8 = 0xc0;
    pub(crate) const FALSE: u8 = 0xc2;
    pub(crate) const TRUE: u8 = 0xc3;
    pub(crate) const BIN8: u8 = 0xc4;
    pub(crate) const BIN16: u8 = 0xc5;
    pub(crate) const BIN32: u8 = 0xc6;
    pub(crate) const UINT8: u8 = 0xcc;
    pub(crate) const INT8: u8 = 0xd0;
    pub(crate) const STR8: u8 = 0xd9;
    pub(crate) const STR16: u8 = 0xda;
    pub(crate) const STR32: u8 = 0xdb;
    pub(crate) const ARRAY16: u8 = 0xdc;
    pub(crate) const ARRAY32: u8 = 0xdd;
    pub(crate) const MAP16: u8 = 0xde;
    pub(crate) const MAP32: u8 = 0xdf;
    pub(crate) const NEGATIVE_FIXINT: u8 = 0xe0;
}

/// Reads values from the front of a slice. After an error its place is unspecified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, len: bytes.len() }
    }

    /// The parts, one by one: a copy of the whole is a 16-byte load of what was stored as two
    /// words, which a store buffer cannot forward.
    #[inline(always)]
    pub(crate) const fn local(&self) -> Self {
        Self { rest: self.rest, len: self.len }
    }

    /// Takes over the place of a copy.
    #[inline(always)]
    pub(crate) const fn advance_to(&mut self, local: &Self) {
        self.rest = local.rest;
    }

    /// Offset of the next byte.
    #[inline(always)]
    pub(crate) const fn at(&self) -> usize {
        self.len - self.rest.len()
    }

    /// The bytes that are not read yet.
    #[inline(always)]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether the next value is nil, which is then read.
    #[inline(always)]
    pub(crate) fn is_nil(&mut self) -> bool {
        if let [marker::NIL, rest @ ..] = self.rest {
            self.rest = rest;
            return true;
        }
        false
    }

    /// The first byte of the next value, unread.
    #[inline(always)]
    pub(crate) fn peek(&self, field: &'static str) -> Read<u8> {
        match self.rest {
            [first, ..] => Ok(*first),
            [] => Err(self.truncated(field)),
        }
    }

    /// An unsigned integer of any width.
    #[inline(always)]
    pub(crate) fn uint(&mut self, field: &'static str) -> Read<u64> {
        if let [small @ 0..=0x7f, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*small));
        }
        // One load and a shift for all four widths: the branch on the width would be mispredicted.
        if let [first, a, b, c, d, e, f, g, h, ..] = *self.rest
            && first & 0xfc == marker::UINT8
        {
            let class = first & 3;
            let wide = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            self.rest = &self.rest[1 + (1 << class)..];
            return Ok(wide >> (64 - (8_u32 << class)));
        }
        let (value, rest) = Self::uint_slow(self.rest, self.len, field)?;
        self.rest = rest;
        Ok(value)
    }

    /// Near the end of the bytes, of a signed width, or wrong.
    #[cold]
    #[inline(never)]
    fn uint_slow(rest: &'a [u8], len: usize, field: &'static str) -> Read<(u64, &'a [u8])> {
        let mut cursor = Self { rest, len };
        let at = cursor.at();
        let value = cursor.integer(field, Expected::Unsigned)?;
        match u64::try_from(value) {
            Ok(value) => Ok((value, cursor.rest)),
            Err(_) => Err(DecodeError::OutOfRange { field, at, value, min: 0, max: u64::MAX }),
        }
    }

    /// An integer of any width and sign.
    fn integer(&mut self, field: &'static str, expected: Expected) -> Read<i128> {
        let before = *self;
        let first = self.byte(field)?;
        let value = match first {
            0..=0x7f => i128::from(first),
            marker::NEGATIVE_FIXINT.. => i128::from(first.cast_signed()),
            _ if first & 0xfc == marker::UINT8 => {
                i128::from(self.be(1 << (first & 3), before, field)?)
            }
            _ if first & 0xfc == marker::INT8 => {
                let width = 1 << (first & 3);
                let shift = 64 - 8 * width;
                let raw = self.be(width as usize, before, field)?;
                i128::from((raw << shift).cast_signed() >> shift)
            }
            _ => return Err(before.wrong_type(field, expected)),
        };
        Ok(value)
    }

    /// An unsigned integer up to `max`.
    #[inline(always)]
    pub(crate) fn uint_to(&mut self, max: u64, field: &'static str) -> Read<u64> {
        let at = self.at();
        let value = self.uint(field)?;
        if value > max {
            return Err(out_of_range(field, at, value, max));
        }
        Ok(value)
    }

    #[inline(always)]
    pub(crate) fn u32(&mut self, field: &'static str) -> Read<u32> {
        Ok(self.uint_to(u64::from(u32::MAX), field)? as u32)
    }

    #[inline(always)]
    pub(crate) fn u16(&mut self, field: &'static str) -> Read<u16> {
        Ok(self.uint_to(u64::from(u16::MAX), field)? as u16)
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Read<i32> {
        let at = self.at();
        let value = self.integer(field, Expected::Signed)?;
        i32::try_from(value).map_err(|_| DecodeError::OutOfRange {
            field,
            at,
            value,
            min: i64::from(i32::MIN),
            max: i32::MAX.cast_unsigned().into(),
        })
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Read<bool> {
        let value = match self.peek(field)? {
            marker::FALSE => false,
            marker::TRUE => true,
            _ => return Err(self.wrong_type(field, Expected::Bool)),
        };
        self.byte(field)?;
        Ok(value)
    }

    /// An unsigned integer or nil.
    #[inline(always)]
    pub(crate) fn uint_or_nil(&mut self, field: &'static str) -> Read<Option<u64>> {
        if self.is_nil() { Ok(None) } else { self.uint(field).map(Some) }
    }

    /// A bin of at most `max` bytes.
    #[inline(always)]
    pub(crate) fn bin(&mut self, max: usize, field: &'static str) -> Read<&'a [u8]> {
        if let [marker::BIN8, len, rest @ ..] = self.rest
            && usize::from(*len) <= max
            && let Some((bytes, rest)) = rest.split_at_checked(usize::from(*len))
        {
            self.rest = rest;
            return Ok(bytes);
        }
        let (bytes, rest) = Self::bin_slow(self.rest, self.len, max, field)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline(never)]
    fn bin_slow(
        rest: &'a [u8],
        len: usize,
        max: usize,
        field: &'static str,
    ) -> Read<(&'a [u8], &'a [u8])> {
        let before = Self { rest, len };
        let mut cursor = before;
        let first = cursor.byte(field)?;
        let len = match first {
            marker::BIN8..=marker::BIN32 => cursor.be(1 << (first & 3), before, field)? as usize,
            _ => return Err(before.wrong_type(field, Expected::Bin)),
        };
        if len > max {
            return Err(too_large(field, before.at(), len as u64, max as u64));
        }
        let bytes = cursor.take(len, before, field)?;
        Ok((bytes, cursor.rest))
    }

    /// A str of at most `max` bytes.
    #[inline(always)]
    pub(crate) fn str(&mut self, max: usize, field: &'static str) -> Read<&'a str> {
        let (text, rest) = Self::str_parts(self.rest, self.len, max, field)?;
        self.rest = rest;
        Ok(text)
    }

    #[inline(never)]
    fn str_parts(
        rest: &'a [u8],
        len: usize,
        max: usize,
        field: &'static str,
    ) -> Read<(&'a str, &'a [u8])> {
        let before = Self { rest, len };
        let mut cursor = before;
        let first = cursor.byte(field)?;
        let len = match first {
            marker::FIXSTR..=0xbf => usize::from(first & 0x1f),
            marker::STR8..=marker::STR32 => {
                cursor.be(1 << (first - marker::STR8), before, field)? as usize
            }
            _ => return Err(before.wrong_type(field, Expected::Str)),
        };
        if len > max {
            return Err(too_large(field, before.at(), len as u64, max as u64));
        }
        let bytes = cursor.take(len, before, field)?;
        match core::str::from_utf8(bytes) {
            Ok(text) => Ok((text, cursor.rest)),
            Err(_) => Err(DecodeError::NotUtf8 { field, at: before.at() }),
        }
    }

    /// The start of an array; returns how many elements follow.
    #[inline(always)]
    pub(crate) fn array(&mut self, field: &'static str) -> Read<usize> {
        if let [first @ marker::FIXARRAY..=0x9f, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(usize::from(first & 0x0f));
        }
        let (len, rest) = Self::array_slow(self.rest, self.len, field)?;
        self.rest = rest;
        Ok(len)
    }

    #[cold]
    #[inline(never)]
    fn array_slow(rest: &'a [u8], len: usize, field: &'static str) -> Read<(usize, &'a [u8])> {
        let before = Self { rest, len };
        let mut cursor = before;
        let width = match cursor.byte(field)? {
            marker::ARRAY16 => 2,
            marker::ARRAY32 => 4,
            _ => return Err(before.wrong_type(field, Expected::Array)),
        };
        let len = cursor.be(width, before, field)? as usize;
        Ok((len, cursor.rest))
    }

    /// Steps over one value, whatever it is, and returns its bytes. Arrays and maps may be nested
    /// `depth_max` deep, at most [`SKIP_DEPTH_MAX`]. Takes time in proportion to the bytes.
    #[inline(always)]
    pub(crate) fn skip(&mut self, depth_max: usize, field: &'static str) -> Read<&'a [u8]> {
        let (bytes, rest) = Self::skip_parts(self.rest, self.len, depth_max, field)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[cold]
    #[inline(never)]
    fn skip_parts(
        rest: &'a [u8],
        len: usize,
        depth_max: usize,
        field: &'static str,
    ) -> Read<(&'a [u8], &'a [u8])> {
        let before = Self { rest, len };
        let mut cursor = before;
        let depth_max = depth_max.min(SKIP_DEPTH_MAX);
        let mut open = [0_u64; SKIP_DEPTH_MAX];
        let mut depth = 0;
        loop {
            let at = cursor.at();
            let children = cursor.shallow(field)?;
            if children > 0 {
                let Some(slot) = open.get_mut(depth).filter(|_| depth < depth_max) else {
                    return Err(DecodeError::TooDeep { field, at, max: depth_max });
                };
                *slot = children;
                depth += 1;
                continue;
            }
            // A value is complete, and with it every array and map whose last child it was.
            while let Some(slot) = depth.checked_sub(1).and_then(|top| open.get_mut(top)) {
                *slot -= 1;
                if *slot > 0 {
                    break;
                }
                depth -= 1;
            }
            if depth == 0 {
                return Ok((&before.rest[..cursor.at() - before.at()], cursor.rest));
            }
        }
    }

    /// Steps over a value without its children; returns how many those are.
    fn shallow(&mut self, field: &'static str) -> Read<u64> {
        let before = *self;
        let first = self.byte(field)?;
        let (fixed, children) = match first {
            0..=0x7f | marker::NEGATIVE_FIXINT.. | marker::NIL | marker::FALSE | marker::TRUE => {
                (0, 0)
            }
            marker::FIXMAP..=0x8f => (0, 2 * u64::from(first & 0x0f)),
            marker::FIXARRAY..=0x9f => (0, u64::from(first & 0x0f)),
            marker::FIXSTR..=0xbf => (usize::from(first & 0x1f), 0),
            marker::BIN8..=marker::BIN32 => (self.be(1 << (first & 3), before, field)? as usize, 0),
            // ext 8, 16, 32: a type byte before the data.
            0xc7..=0xc9 => {
                ((self.be(1 << (first - 0xc7), before, field)? as usize).saturating_add(1), 0)
            }
            0xca => (4, 0),
            0xcb => (8, 0),
            0xcc..=0xd3 => (1 << (first & 3), 0),
            // fixext 1, 2, 4, 8, 16.
            0xd4..=0xd8 => (1 + (1 << (first - 0xd4)), 0),
            marker::STR8..=marker::STR32 => {
                (self.be(1 << (first - marker::STR8), before, field)? as usize, 0)
            }
            marker::ARRAY16 => (0, self.be(2, before, field)?),
            marker::ARRAY32 => (0, self.be(4, before, field)?),
            marker::MAP16 => (0, 2 * self.be(2, before, field)?),
            marker::MAP32 => (0, 2 * self.be(4, before, field)?),
            _ => return Err(before.wrong_type(field, Expected::Value)),
        };
        self.take(fixed, before, field)?;
        Ok(children)
    }

    #[inline(always)]
    fn byte(&mut self, field: &'static str) -> Read<u8> {
        let first = self.peek(field)?;
        self.rest = &self.rest[1..];
        Ok(first)
    }

    /// A big-endian number of `width` bytes, 1 to 8, that is part of `value`.
    #[inline]
    fn be(&mut self, width: usize, value: Self, field: &'static str) -> Read<u64> {
        let bytes = self.take(width, value, field)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The next `len` bytes, which are part of `value`: an error is said to be where that starts.
    #[inline]
    fn take(&mut self, len: usize, value: Self, field: &'static str) -> Read<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(value.truncated(field)),
        }
    }

    #[inline(always)]
    pub(crate) fn truncated(self, field: &'static str) -> DecodeError {
        truncated(field, self.at())
    }

    /// The next value is there, but of another type; or it is not there.
    #[inline(always)]
    pub(crate) fn wrong_type(self, field: &'static str, expected: Expected) -> DecodeError {
        wrong_type(field, self.at(), expected, self.rest.first().copied())
    }
}

#[cold]
#[inline(never)]
fn truncated(field: &'static str, at: usize) -> DecodeError {
    DecodeError::Truncated { field, at }
}

#[cold]
#[inline(never)]
fn wrong_type(
    field: &'static str,
    at: usize,
    expected: Expected,
    marker: Option<u8>,
) -> DecodeError {
    match marker {
        Some(marker) => DecodeError::WrongType { field, at, expected, marker },
        None => truncated(field, at),
    }
}

#[cold]
#[inline(never)]
pub(crate) fn out_of_range(field: &'static str, at: usize, value: u64, max: u64) -> DecodeError {
    DecodeError::OutOfRange { field, at, value: value.into(), min: 0, max }
}

#[cold]
#[inline(never)]
pub(crate) const fn too_large(field: &'static str, at: usize, value: u64, max: u64) -> DecodeError {
    DecodeError::TooLarge { field, at, value, max }
}
