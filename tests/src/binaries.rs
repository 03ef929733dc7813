//! The programs under test, and whose turn it is to use the machine.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A program of this build: in `PINMESH_BIN_DIR`, or else where cargo puts binaries beside this
/// test.
///
/// # Panics
/// It is not there; says what builds it.
pub fn binary(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(
        path.is_file(),
        "{} is missing: build it with `cargo build --workspace --bins` (or name another folder in \
         PINMESH_BIN_DIR)",
        path.display()
    );
    path
}

fn folder() -> PathBuf {
    if let Some(folder) = env::var_os("PINMESH_BIN_DIR") {
        return folder.into();
    }
    // target/PROFILE/deps/TEST
    let own = env::current_exe().expect("the system knows this program's path");
    own.parent().and_then(Path::parent).expect("cargo puts tests two folders down").to_owned()
}

/// Holds the machine for one heavy test.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

/// Waits until no other heavy test runs, in whichever process: on few CPUs they would only measure
/// each other. Ends when the value is dropped, or with the process.
///
/// # Panics
/// The lock file cannot be made.
pub fn turn() -> Turn {
    let path = folder().join(".pinmesh-tests.lock");
    let lock = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    flock(&lock, FlockOperation::LockExclusive).expect("a file of our own can be locked");
    Turn { _lock: lock }
}
