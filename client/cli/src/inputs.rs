//! Inputs of `map`: files, or lines of one.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use pinmesh_protocol::limits::PAYLOAD_BYTES_MAX;

use crate::args::Map;
use crate::failure::Failure;

/// The longest list of files, bytes: it is held in memory.
const LIST_BYTES_MAX: u64 = 1 << 30;

/// One input, which is read only when its turn comes.
#[derive(Debug)]
pub(crate) struct Input {
    /// As it is printed, and what tells it from others.
    pub(crate) name: Vec<u8>,
    /// The name of its result in a folder; a line's is its number.
    pub(crate) place: Option<PathBuf>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File,
    /// The name is all there is.
    Line,
    /// Why there is none.
    None(String),
}

impl Input {
    fn file(path: PathBuf, place: PathBuf) -> Self {
        let name = path.into_os_string().into_vec();
        Self { name, place: Some(place), content: Content::File }
    }

    fn unusable(path: PathBuf, why: String) -> Self {
        Self { name: path.into_os_string().into_vec(), place: None, content: Content::None(why) }
    }

    /// Its bytes, or why there are none.
    pub(crate) fn read(&self) -> Result<Vec<u8>, String> {
        match &self.content {
            Content::File => read_file(Path::new(std::ffi::OsStr::from_bytes(&self.name))),
            Content::Line => Ok(self.name.clone()),
            Content::None(why) => Err(why.clone()),
        }
    }
}

/// Where inputs come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Files and folders.
    Files(Vec<PathBuf>),
    /// Files that a list names.
    List(Vec<PathBuf>),
    Lines(PathBuf),
}

impl Source {
    pub(crate) fn new(args: &Map) -> Result<Self, Failure> {
        if let Some(path) = &args.lines {
            return Ok(Self::Lines(path.clone()));
        }
        let Some(path) = &args.files_from else { return Ok(Self::Files(args.files.clone())) };
        let mut bytes = Vec::new();
        open(path)
            .and_then(|list| list.take(LIST_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| Failure::task(format!("cannot read `{}`: {error}", path.display())))?;
        if bytes.len() as u64 > LIST_BYTES_MAX {
            let path = path.display();
            return Err(Failure::usage(format!(
                "--files-from `{path}` has more than {LIST_BYTES_MAX} bytes: divide it"
            )));
        }
        let separator = if bytes.contains(&0) { 0 } else { b'\n' };
        let names = bytes.split(|byte| *byte == separator).filter(|name| !name.is_empty());
        Ok(Self::List(names.map(|name| OsString::from_vec(name.to_vec()).into()).collect()))
    }

    /// What is named as input, folders included.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let paths = match self {
            Self::Files(paths) | Self::List(paths) => paths.as_slice(),
            Self::Lines(path) => std::slice::from_ref(path),
        };
        paths.iter().map(PathBuf::as_path)
    }

    /// What kind of inputs they are, for the journal.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Files(_) | Self::List(_) => "files",
            Self::Lines(_) => "lines",
        }
    }

    /// Whether [`inputs`](Self::inputs) can be called again.
    pub(crate) fn is_replayable(&self) -> bool {
        match self {
            Self::Files(_) | Self::List(_) => true,
            Self::Lines(path) => path != Path::new("-") && path.is_file(),
        }
    }

    pub(crate) fn inputs(&self) -> Result<Box<dyn Iterator<Item = Input> + '_>, Failure> {
        Ok(match self {
            Self::Files(paths) => Box::new(Walk::new(paths.clone())),
            Self::List(paths) => Box::new(paths.iter().map(|path| match place(path) {
                Ok(place) => Input::file(path.clone(), place),
                Err(why) => Input::unusable(path.clone(), why),
            })),
            Self::Lines(path) => Box::new(Lines {
                source: open(path).map_err(|error| {
                    Failure::task(format!("cannot open `{}`: {error}", path.display()))
                })?,
                name: path.as_os_str().as_bytes().to_vec(),
                is_over: false,
            }),
        })
    }

    /// The folder among those that are read in which this path lies or would lie: what is written
    /// there would be read.
    pub(crate) fn folder_around(&self, path: &Path) -> Option<&Path> {
        let Self::Files(paths) = self else { return None };
        let real = path.ancestors().find_map(|there| {
            // An empty path is what is left of a relative one.
            let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
            there.canonicalize().ok()
        })?;
        let is_around = |folder: &&PathBuf| {
            folder.is_dir() && folder.canonicalize().is_ok_and(|it| real.starts_with(it))
        };
        paths.iter().find(is_around).map(PathBuf::as_path)
    }
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    Ok(match path == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(path)?)),
    })
}

/// Where the result of a listed file goes: the same path, below the folder of the results.
fn place(path: &Path) -> Result<PathBuf, String> {
    let mut place = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => place.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err("a path with `..`: write it without".to_owned()),
        }
    }
    Ok(place)
}

/// Files, and the files in folders: sorted by name, folder by folder, symbolic links left out.
#[derive(Debug)]
struct Walk {
    /// Paths that were named, which may be links or pipes.
    named: VecDeque<PathBuf>,
    /// Paths found in the folder that was named last, the next one last.
    found: Vec<(PathBuf, std::fs::FileType)>,
    root: PathBuf,
}

impl Walk {
    fn new(paths: Vec<PathBuf>) -> Self {
        Self { named: paths.into(), found: Vec::new(), root: PathBuf::new() }
    }

    fn enter(&mut self, folder: &Path) -> Result<(), String> {
        let mut entries = Vec::new();
        let read = std::fs::read_dir(folder).and_then(|listing| {
            for entry in listing {
                let entry = entry?;
                entries.push((entry.path(), entry.file_type()?));
            }
            Ok(())
        });
        entries.sort_by(|a, b| b.0.cmp(&a.0));
        self.found.append(&mut entries);
        read.map_err(|error| format!("cannot list the folder: {error}"))
    }
}

impl Iterator for Walk {
    type Item = Input;

    /// A file, or a folder that could not be listed.
    fn next(&mut self) -> Option<Input> {
        loop {
            let folder = if let Some((path, kind)) = self.found.pop() {
                if kind.is_file() {
                    let place = path.strip_prefix(&self.root).unwrap_or(&path).to_owned();
                    return Some(Input::file(path, place));
                }
                if !kind.is_dir() {
                    continue;
                }
                path
            } else {
                let path = self.named.pop_front()?;
                if !path.is_dir() {
                    let place = path.file_name().map(PathBuf::from).unwrap_or_default();
                    return Some(Input::file(path, place));
                }
                self.root.clone_from(&path);
                path
            };
            if let Err(why) = self.enter(&folder) {
                return Some(Input::unusable(folder, why));
            }
        }
    }
}

/// Reads at most what the mesh takes.
pub(crate) fn read_all(source: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = source.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(format!("it has more than the {PAYLOAD_BYTES_MAX} bytes that a task may have"));
    }
    Ok(bytes)
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut file = File::open(path).map_err(|error| format!("cannot open it: {error}"))?;
    read_all(&mut file)
}

/// Lines without their ends. A read error, or a line too long for a task, is the last item.
struct Lines {
    source: Box<dyn BufRead>,
    name: Vec<u8>,
    is_over: bool,
}

impl Lines {
    fn fail(&mut self, why: String) -> Option<Input> {
        self.is_over = true;
        Some(Input { name: self.name.clone(), place: None, content: Content::None(why) })
    }
}

impl Iterator for Lines {
    type Item = Input;

    fn next(&mut self) -> Option<Input> {
        if self.is_over {
            return None;
        }
        let mut line = Vec::new();
        let mut bounded = (&mut self.source).take(PAYLOAD_BYTES_MAX + 1);
        match bounded.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Err(error) => self.fail(format!("cannot read a line: {error}")),
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                } else if line.len() as u64 > PAYLOAD_BYTES_MAX {
                    let max = PAYLOAD_BYTES_MAX;
                    return self.fail(format!("a line has more than {max} bytes, a task's most"));
                }
                Some(Input { name: line, place: None, content: Content::Line })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn inputs(source: &Source) -> Vec<Input> {
        source.inputs().expect("inputs").collect()
    }

    #[test]
    fn a_folder_stands_for_its_files_sorted_and_without_links() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("b")).expect("a folder");
        for name in ["c", "a", "b/z", "b/y"] {
            std::fs::write(at(name), name).expect("a file");
        }
        symlink(at("a"), at("link")).expect("a link");
        symlink(folder.path(), at("b/loop")).expect("a link");
        let named = vec![folder.path().to_owned(), at("link"), at("missing")];
        let source = Source::Files(named);
        let inputs = inputs(&source);
        let names: Vec<PathBuf> =
            inputs.iter().map(|input| OsString::from_vec(input.name.clone()).into()).collect();
        assert_eq!(names, ["a", "b/y", "b/z", "c", "link", "missing"].map(at));
        let places: Vec<_> = inputs.iter().filter_map(|input| input.place.clone()).collect();
        assert_eq!(places, ["a", "b/y", "b/z", "c", "link", "missing"].map(PathBuf::from));
        assert_eq!(inputs[2].read().as_deref(), Ok(&b"b/z"[..]));
        assert!(inputs[5].read().is_err_and(|why| why.contains("No such file")));
        assert_eq!(source.folder_around(&at("new/x")), Some(folder.path()));
        assert_eq!(source.folder_around(Path::new("/tmp")), None);
    }

    #[test]
    fn lines_lose_their_ends_and_the_last_may_have_none() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        io::Write::write_all(&mut file, b"one\n\ntwo\r\nthree").expect("written");
        let source = Source::Lines(file.path().to_owned());
        let lines: Vec<Vec<u8>> = inputs(&source).iter().flat_map(Input::read).collect();
        assert_eq!(lines, [&b"one"[..], b"", b"two\r", b"three"]);
    }

    #[test]
    fn the_result_of_a_listed_file_keeps_its_folders_and_never_leaves_the_folder_of_results() {
        assert_eq!(place(Path::new("/a/./b")), Ok("a/b".into()));
        assert_eq!(place(Path::new("c")), Ok("c".into()));
        assert!(place(Path::new("a/../../b")).is_err());
    }
}
