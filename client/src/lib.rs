//! The client library of pinmesh: submit tasks to the mesh and get their results.
//!
//! ```no_run
//! use pinmesh_client::{Client, Error};
//!
//! # fn main() -> Result<(), Error> {
//! let client = Client::connect("tcp://127.0.0.1:5555")?;
//!
//! // One task: input and output are anything that serde knows.
//! let sum: u64 = client.call("sum", &[1, 2, 3])?;
//!
//! // Many at once: handles are futures, and have `wait`.
//! let handle = client.submit::<_, u64>("sum", &[4, 5, 6])?;
//! println!("{sum} {}", handle.wait()?);
//!
//! // A whole iterator, 100 at a time, outputs as they come.
//! for (index, output) in client.map::<_, _, u64>("sum", (0..1000).map(|n| [n, n]), 100) {
//!     println!("{index}: {}", output?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every task that is handed in ends exactly once. The client survives a broker that restarts and
//! connections that break: it opens another session and hands in again what has not ended, which
//! may run a task twice unless it is [`at_most_once`](Task::at_most_once).
#![forbid(unsafe_code)]

mod callback;
mod client;
mod completion;
mod error;
mod fetch;
mod handle;
mod io_loop;
mod map;
mod net;
mod payload;
mod plan;
#[cfg(feature = "protobuf")]
mod protobuf;
mod shared;
mod task;
mod updates;

pub use client::{BROKERS_MAX, Builder, Client, DEFAULT_BROKER};
pub use completion::{Completions, RawOutcome};
pub use error::{Error, Result};
pub use handle::Handle;
pub use map::{GroupError, Map, Ordered};
pub use payload::{Bytes, Encoding, RawReply, Reply};
pub use pinmesh_protocol::command::StageTimes;
pub use pinmesh_protocol::id::{ContentType, RequestId};
pub use pinmesh_session::client::ClientCounters;
pub use pinmesh_transport::{KeyPair, PeerKeys, PublicKey, TransportError};
pub use task::Task;
pub use updates::{ProgressKind, Update, Updates};
