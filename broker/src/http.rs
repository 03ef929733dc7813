//! HTTP on a thread of its own: loopback or a unix socket only. It decides nothing and knows nothing:
//! everything is asked of the event loop through the admin queue.

mod admin;
mod answer;
mod dead;
mod guard;
mod json;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustix::fs::Mode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::admin_queue::Asker;
use crate::config::HttpListen;
use crate::error::BrokerError;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's headers may take, and how long a connection may be idle.
const HEADERS_MAX: Duration = Duration::from_secs(10);
/// How long a connection may last: one that reads nothing must not keep its place.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// How long the last answers may take, at the broker's end.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(1);
/// How long nothing is accepted after an error, such as want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A socket that is bound, before its thread is started.
pub(crate) enum Listener {
    Tcp(std::net::TcpListener, SocketAddr),
    Unix(StdUnixListener, PathBuf),
}

impl Listener {
    /// Binds; `None`: there is to be none.
    pub(crate) fn bind(listen: &HttpListen) -> Result<Option<Self>, BrokerError> {
        let listener = match listen {
            HttpListen::Off => return Ok(None),
            HttpListen::Tcp(address) => std::net::TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                Ok(Self::Tcp(listener, address))
            }),
            HttpListen::Unix(path) => bind_unix(path).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener, path.clone()))
            }),
        };
        listener.map(Some).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => {
                BrokerError::Taken { flag: "--http", endpoint: listen.to_string() }
            }
            _ => BrokerError::Http { listen: listen.to_string(), source },
        })
    }

    /// Where it is really bound, as `--http` takes it.
    fn address(&self) -> HttpListen {
        match self {
            Self::Tcp(_, address) => HttpListen::Tcp(*address),
            Self::Unix(_, path) => HttpListen::Unix(path.clone()),
        }
    }

    /// Starts the thread that serves it.
    pub(crate) fn serve(self, asker: Asker) -> Result<Serving, BrokerError> {
        let address = self.address();
        let system = |source| BrokerError::System { action: "start the HTTP thread", source };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
        let thread = std::thread::Builder::new().name("pmb-http".into());
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            if let Err(error) = runtime.block_on(self.serve_until(stopped, asker)) {
                tracing::error!(%error, "the admin API has ended");
            }
        };
        let thread = thread.spawn(serve).map_err(system)?;
        Ok(Serving { address, stop, thread })
    }

    /// Then answers what has been asked.
    async fn serve_until(self, stopped: oneshot::Receiver<()>, asker: Asker) -> io::Result<()> {
        let open = GracefulShutdown::new();
        let ended = {
            let mut accept = pin!(self.accept(asker, &open));
            let mut stopped = pin!(stopped);
            poll_fn(|context| match stopped.as_mut().poll(context) {
                Poll::Ready(_) => Poll::Ready(Ok(())),
                Poll::Pending => accept.as_mut().poll(context),
            })
            .await
        };
        if tokio::time::timeout(LAST_ANSWERS_MAX, open.shutdown()).await.is_err() {
            tracing::debug!("a connection to the admin API was still open at the end");
        }
        ended
    }

    async fn accept(self, asker: Asker, open: &GracefulShutdown) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        match self {
            Self::Tcp(listener, _) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let router = admin::router(asker, guard::Transport::Tcp);
                loop {
                    let permit = permit(&room).await?;
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            connection(stream, router.clone(), permit, open.watcher());
                        }
                        Err(error) => pause(&error).await,
                    }
                }
            }
            Self::Unix(listener, _) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                let router = admin::router(asker, guard::Transport::Unix);
                loop {
                    let permit = permit(&room).await?;
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            connection(stream, router.clone(), permit, open.watcher());
                        }
                        Err(error) => pause(&error).await,
                    }
                }
            }
        }
    }
}

/// The thread.
pub(crate) struct Serving {
    /// Where it is bound, as `--http` takes it.
    pub(crate) address: HttpListen,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Serving {
    /// Accepts nothing more, answers what has been asked, and takes a unix socket's file away. The
    /// queue must be gone: what waits in it is answered then.
    pub(crate) fn end(self) {
        if let HttpListen::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

async fn permit(room: &Arc<Semaphore>) -> io::Result<OwnedSemaphorePermit> {
    Arc::clone(room).acquire_owned().await.map_err(io::Error::other)
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a connection to the admin API was not accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn connection<S>(stream: S, router: axum::Router, permit: OwnedSemaphorePermit, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX);
        builder.max_buf_size(HEAD_BYTES_MAX);
        let service = TowerToHyperService::new(router);
        let serving = watcher.watch(builder.serve_connection(TokioIo::new(stream), service));
        match tokio::time::timeout(CONNECTION_MAX, serving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a connection to the admin API broke"),
            Err(_) => tracing::debug!("a connection to the admin API was there for too long"),
        }
        drop(permit);
    });
}

/// A socket that only this user can connect to. One that a broker has left behind is replaced.
fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    let is_socket = path.symlink_metadata().is_ok_and(|data| data.file_type().is_socket());
    // Refused: nobody listens. Any other error may be somebody else's socket, of another kind.
    let is_left_behind = || {
        StdUnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if is_socket && is_left_behind() {
        std::fs::remove_file(path)?;
    }
    // Before it is there, so that nobody else can connect in between.
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = StdUnixListener::bind(path);
    rustix::process::umask(before);
    bound
}
