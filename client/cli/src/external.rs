//! `pinmesh NAME`: the programs of the mesh and of others, as `git` does it.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::failure::Failure;

/// Folders that may hold `pinmesh-NAME`: this program's own first, so that programs of one
/// installation find each other.
fn folders() -> Vec<PathBuf> {
    let own = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    let own = own.and_then(|path| path.parent().map(PathBuf::from));
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.into_iter().chain(std::env::split_paths(&path)).collect()
}

fn is_program(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// Becomes that program; returns only if it cannot.
pub(crate) fn run(words: &[OsString]) -> Failure {
    let empty = OsString::new();
    let (name, arguments) = words.split_first().unwrap_or((&empty, &[]));
    let unknown = |why: &str| {
        let name = name.to_string_lossy();
        Failure::usage(format!(
            "no command `{name}`{why}: `pinmesh --help` lists the commands; others need a program \
             `pinmesh-{name}` beside this one or on the PATH"
        ))
    };
    if name.is_empty() || name.as_encoded_bytes().contains(&b'/') {
        return unknown("");
    }
    let mut file = OsString::from("pinmesh-");
    file.push(name);
    let Some(program) =
        folders().iter().map(|folder| folder.join(&file)).find(|path| is_program(path))
    else {
        return unknown("");
    };
    let error = Command::new(&program).args(arguments.iter().map(OsStr::new)).exec();
    Failure::usage(format!("cannot run `{}`: {error}", program.display()))
}
