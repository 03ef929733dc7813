//! MessagePack primitives over borrowed bytes. A field takes every width that MessagePack has for
//! its type; a value that is not understood is stepped over without recursion.

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

    /// Offset of the next byte.
    #[inline]
    pub(crate) const fn at(&self) -> usize {
        self.len - self.rest.len()
    }

    /// The bytes that are not read yet.
    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether the next value is nil, which is then read.
    #[inline]
    pub(crate) fn is_nil(&mut self) -> bool {
        if let [marker::NIL, rest @ ..] = self.rest {
            self.rest = rest;
            return true;
        }
        false
    }

    /// The first byte of the next value, unread.
    #[inline]
    pub(crate) fn peek(&self, field: &'static str) -> Read<u8> {
        match self.rest {
            [first, ..] => Ok(*first),
            [] => Err(self.truncated(field)),
        }
    }

    /// An unsigned integer of any width.
    #[inline]
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
        self.uint_slow(field)
    }

    /// Near the end of the bytes, of a signed width, or wrong.
    #[cold]
    #[inline(never)]
    fn uint_slow(&mut self, field: &'static str) -> Read<u64> {
        let at = self.at();
        let value = self.integer(field, Expected::Unsigned)?;
        u64::try_from(value).map_err(|_| DecodeError::OutOfRange {
            field,
            at,
            value,
            min: 0,
            max: u64::MAX,
        })
    }

    /// An integer of any width and sign.
    fn integer(&mut self, field: &'static str, expected: Expected) -> Read<i128> {
        let before = *self;
        let first = self.byte(field)?;
        let value = match first {
            0..=0x7f => i128::from(first),
            marker::NEGATIVE_FIXINT.. => i128::from(first.cast_signed()),
            _ if first & 0xfc == marker::UINT8 => i128::from(self.be(1 << (first & 3), field)?),
            _ if first & 0xfc == marker::INT8 => {
                let width = 1 << (first & 3);
                let shift = 64 - 8 * width;
                let raw = self.be(width as usize, field)?;
                i128::from((raw << shift).cast_signed() >> shift)
            }
            _ => return Err(before.wrong_type(field, expected)),
        };
        Ok(value)
    }

    /// An unsigned integer up to `max`.
    #[inline]
    pub(crate) fn uint_to(&mut self, max: u64, field: &'static str) -> Read<u64> {
        let at = self.at();
        let value = self.uint(field)?;
        if value > max {
            return Err(out_of_range(field, at, value, max));
        }
        Ok(value)
    }

    #[inline]
    pub(crate) fn u32(&mut self, field: &'static str) -> Read<u32> {
        Ok(self.uint_to(u64::from(u32::MAX), field)? as u32)
    }

    #[inline]
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
        self.take(1, field)?;
        Ok(value)
    }

    /// An unsigned integer or nil.
    #[inline]
    pub(crate) fn uint_or_nil(&mut self, field: &'static str) -> Read<Option<u64>> {
        if self.is_nil() { Ok(None) } else { self.uint(field).map(Some) }
    }

    /// A bin of at most `max` bytes.
    #[inline]
    pub(crate) fn bin(&mut self, max: usize, field: &'static str) -> Read<&'a [u8]> {
        let before = *self;
        let len = match *self.rest {
            [marker::BIN8, len, ref rest @ ..] => {
                self.rest = rest;
                usize::from(len)
            }
            [marker::BIN16, a, b, ref rest @ ..] => {
                self.rest = rest;
                usize::from(u16::from_be_bytes([a, b]))
            }
            [marker::BIN32, a, b, c, d, ref rest @ ..] => {
                self.rest = rest;
                u32::from_be_bytes([a, b, c, d]) as usize
            }
            [marker::BIN8..=marker::BIN32, ..] | [] => return Err(before.truncated(field)),
            _ => return Err(before.wrong_type(field, Expected::Bin)),
        };
        before.bounded(len, max, field)?;
        self.take_of(before, len, field)
    }

    /// A str of at most `max` bytes.
    pub(crate) fn str(&mut self, max: usize, field: &'static str) -> Read<&'a str> {
        let before = *self;
        let first = self.byte(field)?;
        let len = match first {
            marker::FIXSTR..=0xbf => usize::from(first & 0x1f),
            marker::STR8..=marker::STR32 => {
                self.be(1 << (first - marker::STR8), field).map_err(|_| before.truncated(field))?
                    as usize
            }
            _ => return Err(before.wrong_type(field, Expected::Str)),
        };
        before.bounded(len, max, field)?;
        let bytes = self.take_of(before, len, field)?;
        core::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8 { field, at: before.at() })
    }

    /// The start of an array; returns how many elements follow.
    #[inline]
    pub(crate) fn array(&mut self, field: &'static str) -> Read<usize> {
        if let [first @ marker::FIXARRAY..=0x9f, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(usize::from(first & 0x0f));
        }
        self.array_slow(field)
    }

    #[cold]
    #[inline(never)]
    fn array_slow(&mut self, field: &'static str) -> Read<usize> {
        let before = *self;
        match self.byte(field)? {
            marker::ARRAY16 => Ok(self.be(2, field).map_err(|_| before.truncated(field))? as usize),
            marker::ARRAY32 => Ok(self.be(4, field).map_err(|_| before.truncated(field))? as usize),
            _ => Err(before.wrong_type(field, Expected::Array)),
        }
    }

    /// Steps over one value, whatever it is, and returns its bytes. Arrays and maps may be nested
    /// `depth_max` deep, at most [`SKIP_DEPTH_MAX`]. Takes time in proportion to the bytes.
    pub(crate) fn skip(&mut self, depth_max: usize, field: &'static str) -> Read<&'a [u8]> {
        let depth_max = depth_max.min(SKIP_DEPTH_MAX);
        let before = *self;
        let mut open = [0_u64; SKIP_DEPTH_MAX];
        let mut depth = 0;
        loop {
            let at = self.at();
            let children = self.shallow(field)?;
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
                return Ok(&before.rest[..self.at() - before.at()]);
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
            marker::BIN8..=marker::BIN32 => (self.be(1 << (first & 3), field)? as usize, 0),
            // ext 8, 16, 32: a type byte before the data.
            0xc7..=0xc9 => ((self.be(1 << (first - 0xc7), field)? as usize).saturating_add(1), 0),
            0xca => (4, 0),
            0xcb => (8, 0),
            0xcc..=0xd3 => (1 << (first & 3), 0),
            // fixext 1, 2, 4, 8, 16.
            0xd4..=0xd8 => (1 + (1 << (first - 0xd4)), 0),
            marker::STR8..=marker::STR32 => {
                (self.be(1 << (first - marker::STR8), field)? as usize, 0)
            }
            marker::ARRAY16 => (0, self.be(2, field)?),
            marker::ARRAY32 => (0, self.be(4, field)?),
            marker::MAP16 => (0, 2 * self.be(2, field)?),
            marker::MAP32 => (0, 2 * self.be(4, field)?),
            _ => return Err(before.wrong_type(field, Expected::Value)),
        };
        self.take_of(before, fixed, field)?;
        Ok(children)
    }

    #[inline]
    fn byte(&mut self, field: &'static str) -> Read<u8> {
        let first = self.peek(field)?;
        self.rest = &self.rest[1..];
        Ok(first)
    }

    /// A big-endian number of `width` bytes, 1 to 8.
    fn be(&mut self, width: usize, field: &'static str) -> Read<u64> {
        let bytes = self.take(width, field)?;
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    #[inline]
    fn take(&mut self, len: usize, field: &'static str) -> Read<&'a [u8]> {
        self.take_of(*self, len, field)
    }

    /// The next `len` bytes; an error is said to be where `value` starts.
    #[inline]
    fn take_of(&mut self, value: Self, len: usize, field: &'static str) -> Read<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(value.truncated(field)),
        }
    }

    #[inline]
    fn bounded(self, len: usize, max: usize, field: &'static str) -> Read<()> {
        if len > max { Err(too_large(field, self.at(), len as u64, max as u64)) } else { Ok(()) }
    }

    #[cold]
    pub(crate) const fn truncated(&self, field: &'static str) -> DecodeError {
        DecodeError::Truncated { field, at: self.at() }
    }

    /// The next value is there, but of another type; or it is not there.
    #[cold]
    pub(crate) fn wrong_type(&self, field: &'static str, expected: Expected) -> DecodeError {
        match self.rest {
            [marker, ..] => {
                DecodeError::WrongType { field, at: self.at(), expected, marker: *marker }
            }
            [] => self.truncated(field),
        }
    }
}

#[cold]
pub(crate) fn out_of_range(field: &'static str, at: usize, value: u64, max: u64) -> DecodeError {
    DecodeError::OutOfRange { field, at, value: i128::from(value), min: 0, max }
}

#[cold]
pub(crate) const fn too_large(field: &'static str, at: usize, value: u64, max: u64) -> DecodeError {
    DecodeError::TooLarge { field, at, value, max }
}
