//! A typed worker: the service `thumbnail` makes pictures small.
//!
//!     cargo run --release --example thumbnail_worker
//!
//! Pictures come from strangers. A decoder that panics ends its task FAILED, one that hangs or eats
//! the memory is killed with its worker process alone, and the next worker takes over.

mod messages;

use std::fmt;
use std::io::Cursor;
use std::process::ExitCode;

use image::{ImageError, ImageReader, Limits};
use messages::{Request, Thumbnail};
use pinmesh_worker::{Context, Worker};

/// The longest thumbnail, pixels.
const SIDE_MAX: u32 = 4096;
const MIB: u64 = 1 << 20;

/// Why there is no thumbnail.
enum ThumbnailError {
    Side(u32),
    UnknownFormat,
    Picture(ImageError),
    Late,
    Cancelled,
}

impl fmt::Display for ThumbnailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Side(side) => write!(f, "side is {side}; ask for 1 to {SIDE_MAX} pixels"),
            Self::UnknownFormat => f.write_str("this is no PNG or JPEG file"),
            Self::Picture(error) => error.fmt(f),
            Self::Late => f.write_str("the deadline passed after decoding"),
            Self::Cancelled => f.write_str("cancelled after decoding"),
        }
    }
}

impl From<ImageError> for ThumbnailError {
    fn from(error: ImageError) -> Self {
        Self::Picture(error)
    }
}

fn thumbnail(context: &Context<'_>, request: Request) -> Result<Thumbnail, ThumbnailError> {
    let Request { side, file } = request;
    if !(1..=SIDE_MAX).contains(&side) {
        return Err(ThumbnailError::Side(side));
    }
    let mut reader =
        ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(ImageError::from)?;
    reader.limits(limits(context.tries()));
    let format = reader.format().ok_or(ThumbnailError::UnknownFormat)?;
    let picture = reader.decode()?;

    // Half of the work is still ahead: is there anybody who wants it?
    if context.is_cancelled() {
        return Err(ThumbnailError::Cancelled);
    }
    if context.time_left().is_some_and(|left| left.is_zero()) {
        return Err(ThumbnailError::Late);
    }

    let is_small = picture.width() <= side && picture.height() <= side;
    let small = if is_small { picture } else { picture.thumbnail(side, side) };
    let mut file = Cursor::new(Vec::new());
    small.write_to(&mut file, format)?;
    Ok(Thumbnail { width: small.width(), height: small.height(), file: file.into_inner() })
}

/// How much memory the decoder may take. `tries` counts the workers that died over this picture: the
/// first one is trusted, the next fails it with a message rather than die of the same cause. After
/// three deaths the broker gives up on the task and tells its client CRASHED.
fn limits(tries: u32) -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(if tries == 0 { 512 * MIB } else { 64 * MIB });
    limits
}

fn main() -> ExitCode {
    Worker::new().service("thumbnail", thumbnail).main()
}
