//! Worker library, supervisor and ready-made worker of pinmesh.
//!
//! A worker program registers handlers and hands `main` over. Started by hand it becomes the
//! supervisor of its host, which starts one worker process for each CPU, pinned to it:
//!
//! ```no_run
//! use pinmesh_worker::{Context, Worker};
//!
//! fn add((a, b): (i64, i64)) -> Result<i64, String> {
//!     a.checked_add(b).ok_or_else(|| format!("{a} + {b} does not fit 64 bits"))
//! }
//!
//! fn count(context: &Context<'_>, to: u64) -> Result<u64, String> {
//!     let mut sum = 0u64;
//!     for n in 0..to {
//!         if context.is_cancelled() {
//!             return Err(format!("cancelled at {n}"));
//!         }
//!         sum = sum.wrapping_add(n);
//!     }
//!     Ok(sum)
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     Worker::new()
//!         .service("add", add)
//!         .service("count", count)
//!         .raw_service("upper", |_, input, output| {
//!             output.bytes.extend(input.bytes().to_ascii_uppercase());
//!             Ok::<_, std::convert::Infallible>(())
//!         })
//!         .main()
//! }
//! ```
//!
//! [`Worker::embed`] runs one worker in a thread instead, without a supervisor.

#![deny(unsafe_code)]

mod builtin;
mod clock;
mod error;
mod flags;
mod handler;
#[allow(unsafe_code)]
pub mod page;
pub mod process;
mod run_loop;
pub mod supervisor;
mod worker;

pub use builtin::{
    Program, ZSTD_LEVEL, builtin_services, exec_service, test_services, zstd_services,
};
pub use error::{PageError, WorkerError};
pub use flags::WorkerFlags;
pub use handler::{Context, Failure, Handler, Input, Output, UpdateError};
pub use pinmesh_transport::{KeyPair, PeerKeys, PublicKey, TransportError};
pub use worker::{Embedded, Worker};
