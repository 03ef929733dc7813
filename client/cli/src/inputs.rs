//! Inputs of `map`: files, or lines of one.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use pinmesh_protocol::limits::PAYLOAD_BYTES_MAX;

/// One input: its name as it is printed, and its bytes or why there are none.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) name: Vec<u8>,
    pub(crate) bytes: Result<Vec<u8>, String>,
}

/// Files, and the files in folders: sorted by name, folder by folder, symbolic links left out.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Paths that were named, which may be links or pipes.
    named: VecDeque<PathBuf>,
    /// Paths found in folders, the next one last.
    found: Vec<(PathBuf, std::fs::FileType)>,
}

impl Walk {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self { named: paths.into(), found: Vec::new() }
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
    /// A file's path, or what could not be listed and why.
    type Item = Result<PathBuf, (PathBuf, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let path = if let Some((path, kind)) = self.found.pop() {
                if kind.is_file() {
                    return Some(Ok(path));
                }
                if !kind.is_dir() {
                    continue;
                }
                path
            } else {
                let path = self.named.pop_front()?;
                if !path.is_dir() {
                    return Some(Ok(path));
                }
                path
            };
            if let Err(error) = self.enter(&path) {
                return Some(Err((path, error)));
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

/// The files of `paths`, read one by one.
pub(crate) fn files(paths: Vec<PathBuf>) -> impl Iterator<Item = Input> {
    Walk::new(paths).map(|found| match found {
        Ok(path) => {
            let bytes = read_file(&path);
            Input { name: path.into_os_string().into_vec(), bytes }
        }
        Err((path, error)) => Input { name: path.into_os_string().into_vec(), bytes: Err(error) },
    })
}

/// Lines without their ends. A read error, or a line too long for a task, is the last item.
pub(crate) struct Lines {
    source: Box<dyn BufRead>,
    name: Vec<u8>,
    is_over: bool,
}

impl Lines {
    /// Lines of a file; of standard input for `-`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let source: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(BufReader::new(File::open(path)?))
        };
        let name = path.as_os_str().to_owned().into_vec();
        Ok(Self { source, name, is_over: false })
    }

    fn fail(&mut self, error: String) -> Option<Input> {
        self.is_over = true;
        Some(Input { name: self.name.clone(), bytes: Err(error) })
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
                Some(Input { name: line.clone(), bytes: Ok(line) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

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
        let inputs: Vec<Input> = files(named).collect();
        let names: Vec<PathBuf> = inputs
            .iter()
            .map(|input| std::ffi::OsString::from_vec(input.name.clone()).into())
            .collect();
        assert_eq!(names, ["a", "b/y", "b/z", "c", "link", "missing"].map(at));
        assert_eq!(inputs[2].bytes.as_deref(), Ok(&b"b/z"[..]));
        assert!(inputs[5].bytes.as_ref().is_err_and(|error| error.contains("No such file")));
    }

    #[test]
    fn lines_lose_their_ends_and_the_last_may_have_none() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        io::Write::write_all(&mut file, b"one\n\ntwo\r\nthree").expect("written");
        let lines = Lines::open(file.path()).expect("a file");
        let lines: Vec<Vec<u8>> = lines.filter_map(|line| line.bytes.ok()).collect();
        assert_eq!(lines, [&b"one"[..], b"", b"two\r", b"three"]);
    }
}
