//! Signals, as bytes in sockets that the event loop polls.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream as StdStream;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::low_level::pipe;

/// How often each came since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// SIGTERM and SIGINT.
    pub(crate) stops: usize,
    /// SIGUSR1.
    pub(crate) reports: usize,
    /// SIGHUP.
    pub(crate) hangups: usize,
}

/// See the module.
pub(crate) struct Signals {
    stops: UnixStream,
    reports: UnixStream,
    hangups: UnixStream,
}

impl Signals {
    /// Catches them from here on and tells the poller by tokens from `first` on.
    pub(crate) fn new(registry: &Registry, first: Token) -> io::Result<Self> {
        let mut tokens = (first.0..).map(Token);
        let mut caught = |signals: &[i32]| -> io::Result<UnixStream> {
            let (read, write) = StdStream::pair()?;
            read.set_nonblocking(true)?;
            write.set_nonblocking(true)?;
            for &signal in signals {
                pipe::register(signal, write.try_clone()?)?;
            }
            let mut read = UnixStream::from_std(read);
            let token = tokens.next().ok_or(ErrorKind::InvalidInput)?;
            registry.register(&mut read, token, Interest::READABLE)?;
            Ok(read)
        };
        Ok(Self {
            stops: caught(&[SIGTERM, SIGINT])?,
            reports: caught(&[SIGUSR1])?,
            hangups: caught(&[SIGHUP])?,
        })
    }

    /// Reads each socket until it would block, which mio's edges ask for.
    pub(crate) fn take(&mut self) -> Taken {
        Taken {
            stops: drain(&mut self.stops),
            reports: drain(&mut self.reports),
            hangups: drain(&mut self.hangups),
        }
    }
}

fn drain(stream: &mut UnixStream) -> usize {
    let mut bytes = [0; 64];
    let mut taken = 0;
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return taken,
            Ok(read) => taken += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return taken,
        }
    }
}
