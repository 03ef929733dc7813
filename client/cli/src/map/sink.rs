//! Where the results of a map go: one output of a line each, or a file each.

use std::fs::{self, File};
use std::io::{self, ErrorKind, IsTerminal, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::journal::Journal;
use crate::args::Map;
use crate::failure::Failure;
use crate::format::Rendered;
use crate::progress::say;
use crate::template::Template;

/// Bytes after which what is printed is handed to the system.
const BUFFER_BYTES: usize = 1 << 20;
/// Where files grow until they are whole.
const PARTS: &str = ".pinmesh-parts";

/// Why a result is nowhere.
#[derive(Debug)]
pub(crate) enum PutError {
    /// It cannot have a place there; others can.
    This(String),
    /// There is no use in going on.
    All(Failure),
}

impl From<Failure> for PutError {
    fn from(failure: Failure) -> Self {
        Self::All(failure)
    }
}

#[derive(Debug)]
pub(crate) enum Sink {
    Stream(Stream),
    Folder(Folder),
}

impl Sink {
    pub(crate) fn open(args: &Map, journal: Option<&mut Journal>) -> Result<Self, Failure> {
        if let Some(folder) = &args.output_dir {
            return Folder::open(folder, &args.suffix).map(Self::Folder);
        }
        let target = match &args.output {
            None => Target::Stdout,
            Some(path) => Target::open(path, journal)?,
        };
        let is_terminal = matches!(target, Target::Stdout) && io::stdout().is_terminal();
        Ok(Self::Stream(Stream {
            template: args.output_format.clone(),
            committed: target.length()?,
            target,
            buffer: Vec::new(),
            takes_text_only: is_terminal && !args.task.force,
        }))
    }

    /// Whether a result that the journal speaks of is there.
    pub(crate) fn has(&self, place: &Path) -> bool {
        match self {
            Self::Stream(_) => true,
            Self::Folder(folder) => folder.path_of(place).is_file(),
        }
    }

    /// Takes a result; it is there for good after the next commit. Returns how long the output then
    /// is, if it is one.
    pub(crate) fn put(
        &mut self,
        index: u64,
        name: &[u8],
        place: &Path,
        result: Rendered,
    ) -> Result<u64, PutError> {
        match self {
            Self::Stream(stream) => Ok(stream.put(index, name, result)?),
            Self::Folder(folder) => folder.put(index, place, &result.alone()).map(|()| 0),
        }
    }

    pub(crate) fn commit(&mut self) -> Result<(), Failure> {
        match self {
            Self::Stream(stream) => stream.commit(),
            Self::Folder(_) => Ok(()),
        }
    }

    pub(crate) fn close(self) {
        if let Self::Folder(folder) = self {
            // Whatever is left there is a part of no result.
            let _ = fs::remove_dir_all(folder.parts);
        }
    }
}

#[derive(Debug)]
enum Target {
    Stdout,
    File(PathBuf, File),
}

impl Target {
    fn open(path: &Path, journal: Option<&mut Journal>) -> Result<Self, Failure> {
        let failed = |error| Failure::file(path, &error);
        let Some(journal) = journal else {
            return Ok(Self::File(path.to_owned(), File::create(path).map_err(failed)?));
        };
        let options = File::options().write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let path = path.display();
            return Err(Failure::usage(format!(
                "--output `{path}` is no regular file, and what it has got cannot be known after \
                 a kill: write to a file, or leave --resume out"
            )));
        }
        let forgotten = journal.roll_back(metadata.len())?;
        if forgotten > 0 {
            let path = path.display();
            let text = format!("pinmesh: `{path}` lacks {forgotten} results; they run again");
            say(text.as_bytes());
        }
        file.set_len(journal.end()).map_err(failed)?;
        file.seek(io::SeekFrom::End(0)).map_err(failed)?;
        Ok(Self::File(path.to_owned(), file))
    }

    fn length(&self) -> Result<u64, Failure> {
        match self {
            Self::Stdout => Ok(0),
            Self::File(path, file) => {
                file.metadata().map(|it| it.len()).map_err(|error| Failure::file(path, &error))
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Stream {
    target: Target,
    template: Template,
    buffer: Vec<u8>,
    /// Bytes that the system has.
    committed: u64,
    /// A terminal shows it.
    takes_text_only: bool,
}

impl Stream {
    fn put(&mut self, index: u64, name: &[u8], result: Rendered) -> Result<u64, Failure> {
        if self.takes_text_only && !result.is_printable() {
            self.commit()?;
            return Err(Failure::terminal(result.bytes.len()));
        }
        self.template.write(&mut self.buffer, &result.within_a_line(), name, index);
        let end = self.committed + self.buffer.len() as u64;
        if self.buffer.len() >= BUFFER_BYTES {
            self.commit()?;
        }
        Ok(end)
    }

    fn commit(&mut self) -> Result<(), Failure> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        match &mut self.target {
            Target::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(&self.buffer)
                    .and_then(|()| out.flush())
                    .map_err(|error| Failure::output(&error))?;
            }
            Target::File(path, file) => file.write_all(&self.buffer).map_err(|error| {
                // Half a line is worse than none.
                let _ = file.set_len(self.committed);
                Failure::file(path, &error)
            })?,
        }
        self.committed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    suffix: String,
    parts: PathBuf,
    /// Locked, so that no other map takes this one's parts away.
    _lock: File,
}

impl Folder {
    fn open(path: &Path, suffix: &str) -> Result<Self, Failure> {
        if suffix.contains('/') {
            return Err(Failure::usage(format!(
                "--suffix `{suffix}` has a `/`: it is the end of a file's name, such as `.zst`"
            )));
        }
        let failed = |error| Failure::file(path, &error);
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::open(path).map_err(failed)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let path = path.display();
            return Err(Failure::usage(format!(
                "--output-dir `{path}` is in use by another map: wait for it, or name another"
            )));
        }
        let parts = path.join(PARTS);
        // Of a map that was killed.
        let _ = fs::remove_dir_all(&parts);
        fs::create_dir(&parts).map_err(|error| Failure::file(&parts, &error))?;
        Ok(Self { path: path.to_owned(), suffix: suffix.to_owned(), parts, _lock: lock })
    }

    fn path_of(&self, place: &Path) -> PathBuf {
        let mut path = self.path.join(place).into_os_string();
        path.push(&self.suffix);
        path.into()
    }

    /// Writes the file elsewhere and moves it to its place when it is whole.
    fn put(&self, index: u64, place: &Path, bytes: &[u8]) -> Result<(), PutError> {
        if place.starts_with(PARTS) {
            return Err(PutError::This(format!(
                "`{PARTS}` in --output-dir is where results grow, and is removed at the end: give \
                 the folder of this input another name, or leave it out"
            )));
        }
        let part = self.parts.join(index.to_string());
        let written = fs::write(&part, bytes);
        written.map_err(|error| Failure::file(&part, &error))?;
        let path = self.path_of(place);
        let moved = fs::rename(&part, &path).or_else(|error| match path.parent() {
            Some(folder) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(folder)?;
                fs::rename(&part, &path)
            }
            _ => Err(error),
        });
        moved.map_err(|error| {
            let _ = fs::remove_file(&part);
            match error.kind() {
                // The name is at fault, or what stands in its place.
                ErrorKind::InvalidFilename
                | ErrorKind::IsADirectory
                | ErrorKind::NotADirectory
                | ErrorKind::AlreadyExists
                | ErrorKind::DirectoryNotEmpty => {
                    PutError::This(format!("cannot write `{}`: {error}", path.display()))
                }
                _ => PutError::All(Failure::file(&path, &error)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(bytes: &[u8]) -> Rendered {
        Rendered { bytes: bytes.to_vec(), is_text: false }
    }

    #[test]
    fn a_file_a_result_in_folders_that_are_made_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/out");
        let folder = Folder::open(&path, ".x").expect("a folder");
        let error = Folder::open(&path, "").expect_err("in use").message;
        assert!(error.contains("in use by another map"), "{error}");
        let mut sink = Sink::Folder(folder);
        for (index, place) in ["a", "b/c/d"].into_iter().enumerate() {
            sink.put(index as u64, b"", Path::new(place), rendered(b"one")).expect("written");
            sink.put(index as u64, b"", Path::new(place), rendered(b"two")).expect("again");
            assert!(sink.has(Path::new(place)));
        }
        fs::create_dir(path.join("e.x")).expect("a folder");
        let put = sink.put(3, b"", Path::new("e"), rendered(b"x"));
        assert!(matches!(put, Err(PutError::This(_))), "{put:?}");
        let put = sink.put(3, b"", Path::new(&"e".repeat(255)), rendered(b"x"));
        assert!(matches!(put, Err(PutError::This(_))), "{put:?}");
        sink.close();
        assert_eq!(fs::read(path.join("b/c/d.x")).expect("there"), b"two");
        assert_eq!(fs::read_dir(&path).expect("a folder").count(), 3);
    }
}
