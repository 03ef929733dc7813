//! What a map writes must not be what it reads, nor one file twice: opening it would empty it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::args::Map;
use crate::failure::Failure;
use crate::inputs::Source;

/// What tells a file from all others.
#[derive(PartialEq, Eq)]
enum Identity {
    /// One that is there: device and inode.
    There(u64, u64),
    /// One that is to be made.
    New(PathBuf),
}

/// `None`: it is no regular file, and loses nothing when it is written to.
fn identity(path: &Path) -> Option<Identity> {
    if let Ok(found) = path.metadata() {
        return found.is_file().then(|| Identity::There(found.dev(), found.ino()));
    }
    let folder = path.parent()?;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    Some(Identity::New(folder.canonicalize().ok()?.join(path.file_name()?)))
}

pub(super) fn check(source: &Source, args: &Map) -> Result<(), Failure> {
    let files =
        [("--output", &args.output), ("--resume", &args.resume), ("--errors", &args.errors)];
    let files: Vec<_> =
        files.iter().filter_map(|(flag, path)| Some((*flag, path.as_ref()?))).collect();
    let folder = args.output_dir.as_ref().map(|path| ("--output-dir", path));
    for &(flag, path) in files.iter().chain(&folder) {
        if let Some(around) = source.folder_around(path) {
            let (path, around) = (path.display(), around.display());
            return Err(Failure::usage(format!(
                "{flag} `{path}` lies in `{around}`, which is read: it would become an input; \
                 write it elsewhere"
            )));
        }
    }
    let known: Vec<_> =
        files.iter().filter_map(|&(flag, path)| Some((flag, path, identity(path)?))).collect();
    for (at, (flag, path, found)) in known.iter().enumerate() {
        if let Some((other, ..)) = known[..at].iter().find(|(.., other)| other == found) {
            let path = path.display();
            return Err(Failure::usage(format!(
                "{other} and {flag} are one file, `{path}`: give each its own"
            )));
        }
    }
    if !known.iter().any(|(.., found)| matches!(found, Identity::There(..))) {
        return Ok(());
    }
    for input in source.paths().chain(args.files_from.as_deref()) {
        let Some(is) = identity(input) else { continue };
        if let Some((flag, path, _)) = known.iter().find(|(.., found)| *found == is) {
            let (path, input) = (path.display(), input.display());
            return Err(Failure::usage(format!(
                "{flag} `{path}` is `{input}`, which is read: it would be overwritten; write it \
                 elsewhere"
            )));
        }
    }
    Ok(())
}
