//! Signals to the supervisor, as bytes that a poll can wait for.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use signal_hook::SigId;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

/// SIGTERM, SIGINT, SIGHUP and SIGCHLD.
#[derive(Debug)]
pub(super) struct Signals {
    terminations: UnixStream,
    renewals: UnixStream,
    children: UnixStream,
    ids: Vec<SigId>,
}

impl Signals {
    pub(super) fn catch(registry: &Registry, token: Token) -> io::Result<Self> {
        let (terminations, term) = UnixStream::pair()?;
        let (renewals, renew) = UnixStream::pair()?;
        let (children, child) = UnixStream::pair()?;
        let mut ids = vec![pipe::register(SIGCHLD, child)?];
        ids.push(pipe::register(SIGHUP, renew)?);
        ids.push(pipe::register(SIGINT, term.try_clone()?)?);
        ids.push(pipe::register(SIGTERM, term)?);
        for stream in [&terminations, &renewals, &children] {
            stream.set_nonblocking(true)?;
            registry.register(&mut SourceFd(&stream.as_raw_fd()), token, Interest::READABLE)?;
        }
        Ok(Self { terminations, renewals, children, ids })
    }

    /// How often the supervisor has been asked to leave since the last call.
    pub(super) fn terminations(&mut self) -> usize {
        drain(&mut self.terminations)
    }

    /// Whether somebody wants the workers started anew since the last call.
    pub(super) fn has_renewal(&mut self) -> bool {
        drain(&mut self.renewals) > 0
    }

    /// Whether a child may have changed since the last call.
    pub(super) fn has_child(&mut self) -> bool {
        drain(&mut self.children) > 0
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.ids.drain(..).for_each(|id| {
            unregister(id);
        });
    }
}

fn drain(stream: &mut UnixStream) -> usize {
    let mut bytes = [0; 64];
    let mut count = 0;
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        count += read;
    }
    count
}
