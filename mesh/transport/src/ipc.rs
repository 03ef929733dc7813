//! The claim on an ipc path.
//!
//! libzmq removes whatever lies at the path, binds, and so steals a live broker's endpoint. So the
//! path is ours: a lock file beside it says whose it is, and libzmq is given a descriptor that
//! listens already, with which it leaves the path alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::Result;
use crate::error::TransportError;

/// How often a lock file may vanish between opening and locking it.
const LOCK_TRIES_MAX: u32 = 100;

/// A path that is ours until this is dropped, which removes the socket, then the lock file.
pub(crate) struct IpcClaim {
    path: PathBuf,
    _lock: Lock,
}

/// A locked lock file, removed on drop while it is still locked.
struct Lock {
    path: PathBuf,
    _file: File,
}

/// A descriptor that listens at the path.
pub(crate) struct Listener(OwnedFd);

impl IpcClaim {
    /// Takes the lock, removes a socket on which nobody listens any more, and listens.
    pub(crate) fn new(path: &Path, backlog: u32) -> Result<(Self, Listener)> {
        make_folder(path)?;
        let lock = Lock::take(path)?;
        remove_stale(path)?;
        let listener =
            listen(path, backlog).map_err(|errno| file_error("listen at", path, errno.into()))?;
        Ok((Self { path: path.to_owned(), _lock: lock }, Listener(listener)))
    }
}

impl Drop for IpcClaim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Listener {
    /// Gives the descriptor to libzmq, which owns it if `take` succeeds.
    pub(crate) fn hand_over(self, take: impl FnOnce(RawFd) -> Result<()>) -> Result<()> {
        take(self.0.as_raw_fd())?;
        let _ = self.0.into_raw_fd();
        Ok(())
    }
}

impl Lock {
    fn take(socket_path: &Path) -> Result<Self> {
        let mut path = socket_path.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        for _ in 0..LOCK_TRIES_MAX {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|source| file_error("open the lock", &path, source))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(socket_path, &path)),
                Err(errno) => return Err(file_error("lock", &path, errno.into())),
            }
            // Its last owner may have removed the file after we opened it: then the lock is on a
            // file that nobody else will see.
            let ours = file.metadata().map_err(|source| file_error("look at", &path, source))?;
            if fs::metadata(&path).is_ok_and(|there| there.ino() == ours.ino()) {
                return Ok(Self { path, _file: file });
            }
        }
        let source = io::Error::other("it is removed again and again by another process");
        Err(file_error("lock", &path, source))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the folder of a path if it is not there, for its owner only.
fn make_folder(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) if !folder.exists() => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| file_error("make the folder", folder, source)),
        _ => Ok(()),
    }
}

/// Removes a socket that is left over; refuses where something else lies, or somebody answers.
fn remove_stale(path: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(file_error("look at", path, source)),
    };
    if !found.file_type().is_socket() {
        let source = io::Error::other("something that is not a socket lies there; remove it");
        return Err(file_error("bind to", path, source));
    }
    if UnixStream::connect(path).is_ok() {
        return Err(in_use(path, path));
    }
    fs::remove_file(path).map_err(|source| file_error("remove the old socket", path, source))
}

fn listen(path: &Path, backlog: u32) -> rustix::io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

fn in_use(path: &Path, holder: &Path) -> TransportError {
    TransportError::InUse {
        endpoint: format!("ipc://{}", path.display()),
        holder: holder.to_owned(),
    }
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> TransportError {
    TransportError::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_path_is_refused_until_the_claim_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (claim, _listener) = IpcClaim::new(&path, 8).unwrap();
        let error = IpcClaim::new(&path, 8).err().unwrap().to_string();
        assert!(error.contains("is already bound"), "{error}");
        assert!(error.contains("socket.lock"), "{error}");
        drop(claim);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        IpcClaim::new(&path, 8).unwrap();
    }

    #[test]
    fn a_socket_that_a_dead_process_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(listen(&path, 8).unwrap());
        assert!(path.exists());
        IpcClaim::new(&path, 8).unwrap();
    }

    #[test]
    fn a_listener_without_a_lock_is_not_robbed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _other = listen(&path, 8).unwrap();
        let error = IpcClaim::new(&path, 8).err().unwrap();
        assert!(matches!(error, TransportError::InUse { .. }), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn a_file_at_the_path_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "keep me").unwrap();
        let error = IpcClaim::new(&path, 8).err().unwrap().to_string();
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"keep me");
    }

    #[test]
    fn a_folder_that_is_made_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/socket");
        let _claim = IpcClaim::new(&path, 8).unwrap();
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    }
}
