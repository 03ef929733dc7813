//! The body of a task or a result, as the machine keeps it.

use std::cell::RefCell;

use pinmesh_core::Excerpt;
use pinmesh_protocol::command::FrameSpan;
use pinmesh_protocol::id::ContentType;
use pinmesh_protocol::limits;
use pinmesh_transport::Frame;

use crate::pool;

const NO_OPTIONS: u32 = u32::MAX;
/// What libzmq reads at a time, as the broker's sockets are set.
const RECEIVE_BUFFER_BYTES: usize = 64 << 10;
/// A frame beside its bytes: libzmq's handle and its count of shares.
const FRAME_OVERHEAD_BYTES: usize = 128;

/// Content type, options as they came, and payload. Small ones lie in a pooled box; large ones
/// share the frames that they came in.
#[derive(Debug)]
pub(crate) struct Body {
    content_type: ContentType,
    /// [`NO_OPTIONS`]: there are none.
    options_bytes: u32,
    store: Store,
}

#[derive(Debug)]
enum Store {
    /// Options, then the payload of so many bytes.
    Boxed(u32, Box<[u8]>),
    Framed(Box<Framed>),
}

#[derive(Debug)]
struct Framed {
    bytes: u64,
    options: Box<[u8]>,
    /// Sharing a frame changes its flags, hence the cell.
    frames: RefCell<Vec<Frame>>,
}

/// Where the bytes of a body's payload are.
pub(crate) enum Stored<'a> {
    /// Here.
    Inline(&'a [u8]),
    /// In frames, to be attached.
    Frames(&'a RefCell<Vec<Frame>>),
}

impl Body {
    /// A body whose payload stood in the command.
    #[inline]
    pub(crate) fn inline(
        content_type: ContentType,
        options: Option<&[u8]>,
        payload: &[u8],
    ) -> Self {
        if payload.len() >= limits::INLINE_BYTES_MAX {
            return Self::copied_into_frames(content_type, options, payload);
        }
        let options_bytes = options.map_or(NO_OPTIONS, |options| options.len() as u32);
        let options = options.unwrap_or_default();
        let mut bytes = pool::take(options.len() + payload.len());
        bytes[..options.len()].copy_from_slice(options);
        bytes[options.len()..][..payload.len()].copy_from_slice(payload);
        Self { content_type, options_bytes, store: Store::Boxed(payload.len() as u32, bytes) }
    }

    /// A body whose payload stood in frames. Those that are small together are copied, and so is
    /// each small one of a long payload, because a frame may keep libzmq's whole receive buffer.
    pub(crate) fn framed(
        content_type: ContentType,
        options: Option<&[u8]>,
        frames: Vec<Frame>,
    ) -> Self {
        let bytes: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        if bytes < limits::INLINE_BYTES_MAX as u64 {
            let payload: Vec<u8> = frames.iter().flat_map(|frame| frame.iter().copied()).collect();
            return Self::inline(content_type, options, &payload);
        }
        let options_bytes = options.map_or(NO_OPTIONS, |options| options.len() as u32);
        let options = options.unwrap_or_default().into();
        let own = |frame: Frame| match frame.len() {
            0..limits::INLINE_BYTES_MAX => Frame::copy_of(&frame),
            _ => frame,
        };
        let frames: Vec<_> = frames.into_iter().map(own).collect();
        let store = Store::Framed(Box::new(Framed { bytes, options, frames: frames.into() }));
        Self { content_type, options_bytes, store }
    }

    #[cold]
    fn copied_into_frames(
        content_type: ContentType,
        options: Option<&[u8]>,
        payload: &[u8],
    ) -> Self {
        let frames = payload.chunks(limits::FRAME_BYTES_MAX).map(Frame::copy_of).collect();
        Self::framed(content_type, options, frames)
    }

    /// What the payload is encoded in.
    #[inline]
    pub(crate) fn content_type(&self) -> ContentType {
        self.content_type
    }

    /// The options, if the task came with some.
    #[inline]
    pub(crate) fn options(&self) -> Option<&[u8]> {
        if self.options_bytes == NO_OPTIONS {
            return None;
        }
        match &self.store {
            Store::Boxed(_, bytes) => bytes.get(..self.options_bytes as usize),
            Store::Framed(framed) => Some(&framed.options),
        }
    }

    /// The payload.
    #[inline]
    pub(crate) fn stored(&self) -> Stored<'_> {
        match &self.store {
            Store::Boxed(len, bytes) => {
                let start =
                    if self.options_bytes == NO_OPTIONS { 0 } else { self.options_bytes as usize };
                Stored::Inline(&bytes[start..start + *len as usize])
            }
            Store::Framed(framed) => Stored::Frames(&framed.frames),
        }
    }
}

impl pinmesh_core::Body for Body {
    #[inline]
    fn payload_bytes(&self) -> u64 {
        match &self.store {
            Store::Boxed(len, _) => u64::from(*len),
            Store::Framed(framed) => framed.bytes,
        }
    }

    #[inline]
    fn kept_bytes(&self) -> u64 {
        match &self.store {
            Store::Boxed(_, bytes) => bytes.len() as u64,
            Store::Framed(framed) => framed.kept_bytes(),
        }
    }

    fn excerpt(&self, bytes_max: usize) -> Excerpt {
        Excerpt {
            content_type: self.content_type,
            bytes: self.copy(0, bytes_max).into(),
            of_bytes: self.payload_bytes(),
        }
    }
}

impl Body {
    /// A copy of the payload from one byte on, so many at most.
    pub(crate) fn copy(&self, from: u64, bytes_max: usize) -> Vec<u8> {
        let mut skip = usize::try_from(from).unwrap_or(usize::MAX);
        let mut copy = Vec::new();
        let mut take = |bytes: &[u8]| {
            let part = bytes.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(bytes.len());
            copy.extend_from_slice(&part[..part.len().min(bytes_max - copy.len())]);
        };
        match self.stored() {
            Stored::Inline(bytes) => take(bytes),
            Stored::Frames(frames) => frames.borrow().iter().for_each(|frame| take(frame)),
        }
        copy
    }
}

impl Framed {
    /// Each frame has a header of libzmq's, and one that was not copied may keep a whole receive
    /// buffer.
    fn kept_bytes(&self) -> u64 {
        let frames = self.frames.borrow();
        let kept = |frame: &Frame| match frame.len() {
            bytes @ 0..limits::INLINE_BYTES_MAX => bytes,
            bytes => bytes.max(RECEIVE_BUFFER_BYTES),
        };
        let frames = frames.iter().map(|frame| kept(frame) + FRAME_OVERHEAD_BYTES).sum::<usize>();
        (frames + self.options.len()) as u64
    }
}

impl Drop for Body {
    #[inline]
    fn drop(&mut self) {
        if let Store::Boxed(_, bytes) = &mut self.store {
            pool::put(std::mem::take(bytes));
        }
    }
}

/// Takes the frames of a span out of a message's attachments; the reader has checked the span.
pub(crate) fn take_frames(attachments: &mut [Frame], span: FrameSpan) -> Vec<Frame> {
    let first = (span.first as usize).saturating_sub(1);
    attachments
        .iter_mut()
        .skip(first)
        .take(span.frames as usize)
        .map(|frame| std::mem::replace(frame, Frame::empty()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinmesh_core::Body as _;

    fn payload(body: &Body) -> Vec<u8> {
        match body.stored() {
            Stored::Inline(bytes) => bytes.to_vec(),
            Stored::Frames(frames) => {
                frames.borrow().iter().flat_map(|frame| frame.to_vec()).collect()
            }
        }
    }

    #[test]
    fn a_body_gives_back_what_it_was_given_at_every_size() {
        for size in [0, 1, 64, 4_095, 4_096, 9_000, 32_767, 32_768, 100_000, 2_500_000] {
            let bytes: Vec<u8> = (0..size).map(|n| n as u8).collect();
            for options in [None, Some(&b""[..]), Some(&b"\x81\xa1a\x01"[..])] {
                let frames = bytes.chunks(limits::FRAME_BYTES_MAX).map(Frame::copy_of).collect();
                let inline = Body::inline(ContentType::JSON, options, &bytes);
                let framed = Body::framed(ContentType::JSON, options, frames);
                for body in [inline, framed] {
                    assert_eq!(body.payload_bytes(), size as u64);
                    assert_eq!(body.content_type(), ContentType::JSON);
                    assert_eq!(body.options(), options);
                    assert!(payload(&body) == bytes, "{size} bytes differ");
                    assert_eq!(matches!(body.stored(), Stored::Frames(_)), size >= 32_768);
                }
            }
        }
    }

    #[test]
    fn a_short_frame_of_a_long_payload_keeps_no_buffer_that_it_came_in() {
        let long = Frame::copy_of(&[1; limits::FRAME_BYTES_MAX]);
        let short = Frame::copy_of(&[2; 100]);
        let came_at = [long.as_ptr(), short.as_ptr()];
        let body = Body::framed(ContentType::RAW, None, vec![long, short]);
        let Stored::Frames(frames) = body.stored() else { panic!("it is long") };
        let stands_at: Vec<_> = frames.borrow().iter().map(|frame| frame.as_ptr()).collect();
        assert_eq!(stands_at[0], came_at[0], "uncopied");
        assert_ne!(stands_at[1], came_at[1], "copied");
        assert_eq!(body.payload_bytes(), limits::FRAME_BYTES_MAX as u64 + 100);
    }

    #[test]
    fn a_body_counts_all_that_it_keeps() {
        let options = [0; limits::OPTIONS_BYTES_MAX];
        let empty = Body::inline(ContentType::RAW, Some(&options), &[]);
        assert_eq!((empty.payload_bytes(), empty.kept_bytes()), (0, 4_096));
        let small = Body::inline(ContentType::RAW, None, &[0; 65]);
        assert_eq!(small.kept_bytes(), 128);
        let frames = || [40_000, 5].map(|len| Frame::copy_of(&vec![0; len])).into();
        let framed = Body::framed(ContentType::RAW, Some(&options), frames());
        assert!(framed.kept_bytes() >= 65_536 + 5 + 3_072, "{}", framed.kept_bytes());
    }

    #[test]
    fn any_part_of_a_payload_can_be_copied() {
        let bytes: Vec<u8> = (0..2_500_000).map(|n: u32| (n / 7) as u8).collect();
        let frames = bytes.chunks(limits::FRAME_BYTES_MAX).map(Frame::copy_of).collect();
        let framed = Body::framed(ContentType::RAW, None, frames);
        let inline = Body::inline(ContentType::RAW, Some(b"\x80"), &bytes[..9_000]);
        for body in [framed, inline] {
            let len = body.payload_bytes() as usize;
            for (from, most) in [(0, 5), (8_999, 5), (8_000, 4_000_000), (1_048_570, 20), (len, 5)]
            {
                let end = len.min(from + most);
                assert_eq!(
                    body.copy(from as u64, most),
                    bytes[from.min(len)..end.max(from.min(len))]
                );
            }
            assert_eq!(body.excerpt(4).bytes[..], bytes[..4]);
            assert_eq!(body.copy(u64::MAX, 4), b"");
        }
    }

    #[test]
    fn a_body_is_small() {
        assert!(size_of::<Body>() <= 32, "{}", size_of::<Body>());
    }
}
