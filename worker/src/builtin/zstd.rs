//! `zstd` and `unzstd`: compression of payloads.

use std::io::{self, Read};

use zstd::bulk::Compressor;
use zstd::stream::read::Decoder;

use crate::handler::{Context, Failure, Input, Output};
use crate::worker::Worker;

/// Level of [`zstd_services`] unless another is wanted.
pub const ZSTD_LEVEL: i32 = 3;
/// The window that a frame may ask for, as a power of two: what the `zstd` command takes, 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;

/// Adds `zstd` (the payload as one frame with a checksum, compressed at `level`, 1 to 22) and
/// `unzstd` (the content of the payload's frames; more than the broker takes as a result is an
/// error, found without holding it).
#[must_use]
pub fn zstd_services(worker: Worker, level: i32) -> Worker {
    let mut compressor = None;
    let compress = move |context: &Context<'_>, input: Input<'_>, output: &mut Output| {
        let compressor = match &mut compressor {
            Some(compressor) => compressor,
            none => none.insert(new_compressor(level).map_err(Failure::last)?),
        };
        // An input that does not fit or is damaged is so at every try.
        compress(compressor, input, context.payload_bytes_max(), &mut output.bytes)
            .map_err(Failure::last)
    };
    worker.raw_service("zstd", compress).raw_service("unzstd", |context, input, output| {
        decompress(input, context.payload_bytes_max(), &mut output.bytes).map_err(Failure::last)
    })
}

fn new_compressor(level: i32) -> Result<Compressor<'static>, String> {
    let made = Compressor::new(level).and_then(|mut compressor| {
        compressor.include_checksum(true)?;
        Ok(compressor)
    });
    made.map_err(|error| format!("no compressor of level {level}: {error}; take 1 to 22"))
}

fn compress(
    compressor: &mut Compressor<'_>,
    input: Input<'_>,
    limit: u64,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let bytes = input.bytes();
    out.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
    compressor
        .compress_to_buffer(&bytes, out)
        .map_err(|error| format!("cannot compress {} bytes: {error}", bytes.len()))?;
    if out.len() as u64 > limit {
        return Err(format!(
            "{} bytes do not get smaller, and with the frame around them they are more than the \
             {limit} that the broker takes; send less at a time",
            bytes.len()
        ));
    }
    Ok(())
}

/// The pieces of a payload, one after the other.
struct Pieces<'a, I> {
    now: &'a [u8],
    next: I,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Read for Pieces<'a, I> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            let Some(piece) = self.next.next() else { return Ok(0) };
            self.now = piece;
        }
        self.now.read(into)
    }
}

fn decompress(input: Input<'_>, limit: u64, out: &mut Vec<u8>) -> Result<(), String> {
    if input.is_empty() {
        return Err("the payload is empty, and so no zstd frame".to_owned());
    }
    let wrong = |error: io::Error| {
        format!("the payload is not what zstd compresses to: {error}; it may be cut or damaged")
    };
    let mut decoder = Decoder::new(Pieces { now: &[], next: input.chunks() }).map_err(wrong)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(wrong)?;
    // One byte more than may be, to tell the two apart.
    decoder.take(limit.saturating_add(1)).read_to_end(out).map_err(wrong)?;
    if out.len() as u64 > limit {
        return Err(format!(
            "{} bytes decompress to more than the {limit} that the broker takes; compress less at \
             a time, or raise the broker's payload limit",
            input.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::Pieces;

    fn one(bytes: &[u8]) -> Input<'_> {
        Input { pieces: Pieces::One(bytes) }
    }

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let (mut compressor, mut out) = (new_compressor(ZSTD_LEVEL).unwrap(), Vec::new());
        compress(&mut compressor, one(bytes), u64::MAX, &mut out).unwrap();
        out
    }

    #[test]
    fn what_was_compressed_comes_back_from_one_frame_or_several() {
        let text = b"pinned ".repeat(10_000);
        for bytes in [&b""[..], b"x", &text] {
            let (frame, mut back) = (compressed(bytes), Vec::new());
            decompress(one(&frame), bytes.len() as u64, &mut back).unwrap();
            assert_eq!(back, bytes);
        }
        let frames = [compressed(b"one "), compressed(b"two")].concat();
        let mut back = Vec::new();
        decompress(one(&frames), 7, &mut back).unwrap();
        assert_eq!(back, b"one two");
    }

    #[test]
    fn a_bomb_is_an_error_that_names_the_limit_and_is_never_held() {
        let bomb = compressed(&vec![0; 100 << 20]);
        assert!(bomb.len() < 20_000);
        let mut out = Vec::new();
        let error = decompress(one(&bomb), 1 << 20, &mut out).unwrap_err();
        assert!(error.contains("more than the 1048576 "), "{error}");
        assert!(out.capacity() <= 4 << 20, "{}", out.capacity());
    }

    #[test]
    fn a_frame_that_is_cut_or_damaged_or_none_is_an_error() {
        let mut frame = compressed(b"something to be damaged, something to be damaged");
        for bytes in [&b""[..], b"no frame at all", &frame[..frame.len() - 1]] {
            assert!(decompress(one(bytes), 1 << 20, &mut Vec::new()).is_err(), "{bytes:?}");
        }
        // The checksum is the frame's end.
        *frame.last_mut().unwrap() ^= 1;
        assert!(decompress(one(&frame), 1 << 20, &mut Vec::new()).is_err());
    }

    #[test]
    fn the_zstd_command_reads_our_frames() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("frame.zst");
        std::fs::write(&path, compressed(b"hello")).unwrap();
        let Ok(output) = std::process::Command::new("zstd").args(["-dc"]).arg(&path).output()
        else {
            return;
        };
        assert_eq!(output.stdout, b"hello");
    }
}
