//! A typed client: makes a thumbnail of every picture in a folder, on all workers at once.
//!
//!     cargo run --release --example thumbnails -- --to /tmp/thumbnails ~/Pictures
//!
//! Without a folder it draws some pictures itself. A picture that fails is reported and does not
//! stop the others; the exit code tells whether there was one.

mod messages;

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, io};

use clap::Parser;
use image::{ImageFormat, Rgb, RgbImage};
use messages::{Request, Thumbnail};
use pinmesh_client::{Client, DEFAULT_BROKER, Error, Handle};

/// Pictures under way at a time. They are read one by one as others end, so this bounds the memory
/// too, however large the folder is.
const WINDOW: usize = 64;

/// Makes thumbnails on every worker that serves `thumbnail`.
#[derive(Parser)]
struct Flags {
    /// Folder with PNG and JPEG files, folders in it included. Default: pictures drawn on the spot
    folder: Option<PathBuf>,
    /// Folder for the thumbnails
    #[arg(long)]
    to: PathBuf,
    /// Longest side of a thumbnail, pixels
    #[arg(long, default_value_t = 128)]
    side: u32,
    /// How many pictures to draw where no folder is given
    #[arg(long, default_value_t = 40)]
    draw: u32,
    /// Broker to submit to
    #[arg(long, default_value = DEFAULT_BROKER)]
    broker: String,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("thumbnails: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A file's name, below the folder, and what is in it.
type Picture = (PathBuf, Vec<u8>);

/// Returns how many pictures failed.
fn run(flags: &Flags) -> Result<u32, Box<dyn StdError>> {
    let client = Client::connect(&flags.broker)?;
    // After a minute nobody looks at the page any more; a decoder that takes ten seconds hangs, and
    // its worker is killed and replaced.
    let task = || {
        let task = client.task("thumbnail");
        task.deadline(Duration::from_secs(60)).max_runtime(Duration::from_secs(10))
    };
    // A folder's first picture is its cover, and seen first: it overtakes what waits in the broker,
    // whoever submitted it.
    let (plain, cover) = (task(), task().priority(9));

    let pictures: Box<dyn Iterator<Item = io::Result<Picture>>> = match &flags.folder {
        Some(folder) => Box::new(files(folder)?),
        None => Box::new((0..flags.draw).map(draw)),
    };
    let mut report = Report::default();
    let mut under_way: VecDeque<(PathBuf, Handle<Thumbnail>)> = VecDeque::new();
    let mut folder = None;
    let started = Instant::now();
    for picture in pictures {
        let (name, file) = picture?;
        if under_way.len() == WINDOW
            && let Some((name, handle)) = under_way.pop_front()
        {
            report.take(&flags.to.join(name), handle)?;
        }
        let is_cover = folder.as_deref() != name.parent();
        folder = name.parent().map(Path::to_owned);
        let task = if is_cover { &cover } else { &plain };
        under_way.push_back((name, task.submit(&Request { side: flags.side, file })?));
    }
    for (name, handle) in under_way {
        report.take(&flags.to.join(name), handle)?;
    }
    let Report { made, failed, work } = report;
    let took = started.elapsed();
    println!("{made} thumbnails, {failed} failed; {took:.2?}, {work:.2?} of work on the workers");
    Ok(failed)
}

#[derive(Default)]
struct Report {
    made: u32,
    failed: u32,
    /// Time in the handlers, as the workers measured it.
    work: Duration,
}

impl Report {
    /// Waits for a thumbnail and writes it.
    fn take(&mut self, to: &Path, handle: Handle<Thumbnail>) -> Result<(), Box<dyn StdError>> {
        match handle.wait_reply() {
            Ok(reply) => {
                self.made += 1;
                let service_ns = reply.stages.map_or(0, |stages| stages.service_ns);
                self.work += Duration::from_nanos(service_ns);
                let thumbnail = reply.value;
                fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))
                    .and_then(|()| fs::write(to, thumbnail.file))
                    .map_err(|error| about(to, &error))?;
                println!("{}  {}x{}", to.display(), thumbnail.width, thumbnail.height);
            }
            // The picture's own fault. The others may be well.
            Err(
                error @ (Error::Failed { .. }
                | Error::Expired { .. }
                | Error::TimedOut { .. }
                | Error::Crashed { .. }),
            ) => {
                self.failed += 1;
                eprintln!("{}: {error}", to.display());
            }
            // The mesh's: it would fail the others too.
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// An error that says which file or folder it is about.
fn about(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// Every PNG and JPEG file under a folder, in order; each is read when its turn comes.
fn files(root: &Path) -> io::Result<impl Iterator<Item = io::Result<Picture>> + use<>> {
    let (mut folders, mut files) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| about(&folder, &error))? {
            let entry = entry?;
            let path = entry.path();
            let format = ImageFormat::from_path(&path);
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if matches!(format, Ok(ImageFormat::Png | ImageFormat::Jpeg)) {
                files.push(path);
            }
        }
    }
    if files.is_empty() {
        return Err(about(root, &"there is no .png, .jpg or .jpeg file in it"));
    }
    files.sort();
    let root = root.to_owned();
    Ok(files.into_iter().map(move |path| {
        let file = fs::read(&path).map_err(|error| about(&path, &error))?;
        Ok((path.strip_prefix(&root).unwrap_or(&path).to_owned(), file))
    }))
}

/// A picture of our own, in either format and of many sizes.
fn draw(number: u32) -> io::Result<Picture> {
    let (width, height) = (200 + 60 * (number % 9), 150 + 90 * (number % 7));
    let shade = |at: u32, of: u32| (255 * at / of) as u8;
    let picture = RgbImage::from_fn(width, height, |x, y| {
        Rgb([shade(x, width), shade(y, height), (x ^ y).wrapping_mul(number) as u8])
    });
    let (extension, format) = match number % 2 {
        0 => ("png", ImageFormat::Png),
        _ => ("jpeg", ImageFormat::Jpeg),
    };
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).map_err(io::Error::other)?;
    Ok((format!("{number:03}.{extension}").into(), file.into_inner()))
}
