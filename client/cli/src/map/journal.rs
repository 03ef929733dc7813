//! The journal of a map that can be resumed: which inputs are done, and how long the output was then.
//!
//! A line of what the map is, then one line for each input that is done: its index, a hash of its
//! name, the length of the output after its result, and the beginning of its name for people. Lines
//! are only ever appended, and only after what they speak of is written; so whatever ends the map,
//! the journal never knows more than the output has. What the output has beyond it is cut off when
//! the map is resumed, and runs again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::failure::Failure;

const MAGIC: &str = "pinmesh-map-1 ";
/// The beginning of a name that is kept, bytes.
const NAME_BYTES: usize = 60;

#[derive(Clone, Copy, Debug)]
struct Record {
    index: u64,
    hash: u64,
    /// The output's length with this result.
    end: u64,
    /// Where its line begins in the journal.
    at: u64,
}

#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    records: Vec<Record>,
    /// Hashes of the inputs that are done, by index.
    done: HashMap<u64, u64>,
    /// The end of the last record's line.
    length: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens one, or begins it, and keeps others from using it. `about` is what must be the same
    /// whenever it is used.
    pub(crate) fn open(path: &Path, about: &Value) -> Result<Self, Failure> {
        let file = File::options().read(true).append(true).create(true).open(path);
        let file = file.map_err(|error| Failure::file(path, &error))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let path = path.display();
            return Err(Failure::usage(format!(
                "--resume `{path}` is in use by another map: wait for it, or name another journal"
            )));
        }
        let mut journal = Self {
            path: path.to_owned(),
            file,
            records: Vec::new(),
            done: HashMap::new(),
            length: 0,
            buffer: Vec::new(),
        };
        journal.read(about)?;
        journal.done = journal.records.iter().map(|it| (it.index, it.hash)).collect();
        Ok(journal)
    }

    fn read(&mut self, about: &Value) -> Result<(), Failure> {
        let unreadable = |error| {
            Failure::usage(format!("cannot read --resume `{}`: {error}", self.path.display()))
        };
        let mut reader = BufReader::new(self.file.try_clone().map_err(unreadable)?);
        let mut line = Vec::new();
        let (mut at, mut number) = (0, 0);
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line).map_err(unreadable)?;
            // The last line of a map that was killed may be cut.
            if line.last() != Some(&b'\n') {
                let is_begun =
                    line.starts_with(MAGIC.as_bytes()) || MAGIC.as_bytes().starts_with(&line);
                if number == 0 && !is_begun {
                    return Err(self.foreign());
                }
                break;
            }
            line.pop();
            number += 1;
            let text = std::str::from_utf8(&line).ok();
            match text.and_then(|text| if number == 1 { None } else { record(text, at) }) {
                Some(record) => self.records.push(record),
                None if number == 1 => self.check(text, about)?,
                None => {
                    return Err(Failure::usage(format!(
                        "line {number} of --resume `{}` is none of a journal: it is damaged; \
                         remove it, and the output, to start over",
                        self.path.display()
                    )));
                }
            }
            at += bytes as u64;
        }
        self.length = at;
        self.cut().map_err(|error| Failure::file(&self.path, &error))?;
        if at == 0 {
            self.buffer = format!("{MAGIC}{about}\n").into_bytes();
            self.commit()?;
        }
        Ok(())
    }

    fn foreign(&self) -> Failure {
        let path = self.path.display();
        Failure::usage(format!(
            "--resume `{path}` is no journal of a map: name another file, or remove it"
        ))
    }

    /// Checks the first line.
    fn check(&self, line: Option<&str>, about: &Value) -> Result<(), Failure> {
        let found = line.and_then(|line| line.strip_prefix(MAGIC));
        let found: Option<Value> = found.and_then(|text| serde_json::from_str(text).ok());
        let Some(found) = found else { return Err(self.foreign()) };
        let settings = about.as_object().into_iter().flatten();
        match settings.into_iter().find(|&(key, value)| found.get(key) != Some(value)) {
            None => Ok(()),
            Some((key, value)) => {
                let was = found.get(key).unwrap_or(&Value::Null);
                let path = self.path.display();
                Err(Failure::usage(format!(
                    "--resume `{path}` was begun with {key} {was}, now it is {value}: give the \
                     same again, or another journal and output"
                )))
            }
        }
    }

    /// Removes everything after the last record.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(io::SeekFrom::End(0)).map(|_| ())
    }

    /// How long the output was with the last result that is noted.
    pub(crate) fn end(&self) -> u64 {
        self.records.last().map_or(0, |record| record.end)
    }

    /// Inputs that are done.
    pub(crate) fn len(&self) -> usize {
        self.done.len()
    }

    /// Forgets the results that an output of this length does not have; returns how many.
    pub(crate) fn roll_back(&mut self, length: u64) -> Result<usize, Failure> {
        let before = self.records.len();
        while let Some(record) = self.records.pop_if(|record| record.end > length) {
            self.length = record.at;
        }
        self.cut().map_err(|error| Failure::file(&self.path, &error))?;
        self.done = self.records.iter().map(|it| (it.index, it.hash)).collect();
        Ok(before - self.records.len())
    }

    /// Whether an input is done.
    ///
    /// # Errors
    /// The journal has another input in its place.
    pub(crate) fn is_done(&self, index: u64, name: &[u8]) -> Result<bool, Failure> {
        match self.done.get(&index) {
            None => Ok(false),
            Some(&known) if known == hash(name) => Ok(true),
            Some(_) => Err(Failure::usage(format!(
                "the inputs are not those of --resume `{}`: the first that differs is number \
                 {index}, now `{}`, then `{}`; give the same inputs, or another journal and output",
                self.path.display(),
                shortened(name),
                self.name_of(index).unwrap_or_default(),
            ))),
        }
    }

    /// Checks that all inputs that are done are among the first `count`.
    pub(crate) fn check_count(&self, count: u64) -> Result<(), Failure> {
        let Some(&lost) = self.done.keys().filter(|&&index| index >= count).min() else {
            return Ok(());
        };
        Err(Failure::usage(format!(
            "the inputs are not those of --resume `{}`: there are {count} now, and number {lost} \
             was `{}`; give the same inputs, or another journal and output",
            self.path.display(),
            self.name_of(lost).unwrap_or_default(),
        )))
    }

    /// The name of an input that is done, from the file.
    fn name_of(&self, index: u64) -> Option<String> {
        let record = self.records.iter().rev().find(|record| record.index == index)?;
        let mut reader = BufReader::new(File::open(&self.path).ok()?);
        reader.seek(io::SeekFrom::Start(record.at)).ok()?;
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.trim_end().splitn(4, ' ').nth(3).map(str::to_owned)
    }

    /// Notes that an input is done, once the output that ends at `end` is written.
    pub(crate) fn note(&mut self, index: u64, name: &[u8], end: u64) {
        let line = format!("{index} {:016x} {end} {}\n", hash(name), shortened(name));
        self.buffer.extend_from_slice(line.as_bytes());
    }

    /// Writes what is noted: all of it or, where the disk is full, nothing.
    pub(crate) fn commit(&mut self) -> Result<(), Failure> {
        let (written, bytes) = (self.file.write_all(&self.buffer), self.buffer.len());
        self.buffer.clear();
        written.map_err(|error| {
            let _ = self.cut();
            Failure::file(&self.path, &error)
        })?;
        self.length += bytes as u64;
        Ok(())
    }
}

fn record(line: &str, at: u64) -> Option<Record> {
    let mut words = line.splitn(4, ' ');
    let index = words.next()?.parse().ok()?;
    let hash = words.next().filter(|word| word.len() == 16)?;
    let hash = u64::from_str_radix(hash, 16).ok()?;
    let end = words.next()?.parse().ok()?;
    words.next().map(|_name| Record { index, hash, end, at })
}

/// One line of text, whatever the bytes.
fn shortened(name: &[u8]) -> String {
    let cut = &name[..name.len().min(NAME_BYTES)];
    let dots = if cut.len() < name.len() { "..." } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

/// FNV-1a of 64 bits: the same in every build.
fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open(path: &Path) -> Result<Journal, Failure> {
        Journal::open(path, &json!({ "service": "s", "format": "raw" }))
    }

    fn begun(path: &Path) -> Journal {
        let mut journal = open(path).expect("a new journal");
        assert_eq!(journal.roll_back(0).expect("nothing to cut"), 0);
        journal.note(0, b"zero", 10);
        journal.note(2, b"two\nlines \xff", 15);
        journal.commit().expect("written");
        drop(journal);
        open(path).expect("a journal")
    }

    #[test]
    fn what_was_noted_is_known_again_and_a_cut_last_line_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("j");
        drop(begun(&path));
        let whole = std::fs::read(&path).expect("a journal");
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("written");
            let mut journal = open(&path).expect("a journal");
            let lines = whole[..cut].iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(journal.len(), lines.saturating_sub(1));
            assert_eq!(journal.end(), [0, 0, 10, 15][lines]);
            journal.note(1, b"one", 20);
            journal.commit().expect("written");
            drop(journal);
            let journal = open(&path).expect("still a journal");
            assert_eq!(journal.len(), lines.max(1));
            assert!(journal.is_done(1, b"one").expect("the same"));
        }
    }

    #[test]
    fn other_inputs_other_settings_and_other_files_are_refused_with_the_difference() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("j");
        let journal = begun(&path);
        assert!(open(&path).expect_err("in use").message.contains("in use by another map"));
        assert!(journal.is_done(2, b"two\nlines \xff").expect("the same"));
        assert!(!journal.is_done(1, b"anything").expect("unknown"));
        let error = journal.is_done(2, b"three").expect_err("another").message;
        assert!(error.contains(r"number 2, now `three`, then `two\nlines \xff`"), "{error}");
        assert!(journal.check_count(3).is_ok());
        let error = journal.check_count(2).expect_err("too few").message;
        assert!(error.contains("there are 2 now, and number 2 was `two"), "{error}");
        drop(journal);
        let other = Journal::open(&path, &json!({ "service": "t", "format": "raw" }));
        let error = other.expect_err("another service").message;
        assert!(error.contains(r#"begun with service "s", now it is "t""#), "{error}");
        for content in ["something else\n", "\n", "something without a line end"] {
            std::fs::write(&path, content).expect("written");
            let error = open(&path).expect_err("no journal").message;
            assert!(error.contains("no journal of a map"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).expect("still there"), content);
        }
    }

    #[test]
    fn results_that_the_output_does_not_have_are_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("j");
        let mut journal = begun(&path);
        assert_eq!(journal.roll_back(15).expect("cut"), 0);
        assert_eq!(journal.roll_back(14).expect("cut"), 1);
        assert_eq!((journal.end(), journal.len()), (10, 1));
        drop(journal);
        assert_eq!(open(&path).expect("a journal").len(), 1);
    }
}
