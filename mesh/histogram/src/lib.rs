//! Latency histograms by stage, recorded in every process of the mesh, and the logs that carry them
//! from one process to another.
//!
//! All values are nanoseconds of a monotonic clock of one host. A [`StageHistograms`] belongs to one
//! thread; those of several threads, seconds or processes are merged, because percentiles must never
//! be averaged, and those of several stages never summed.
//!
//! ```
//! use std::time::Instant;
//! use pinmesh_histogram::{IntervalRecorder, Precision, Stage, read_log, LatencyLog};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("broker.hlog");
//! let log = LatencyLog::create(&path, "pinmesh-broker")?;
//! let mut recorder = IntervalRecorder::with_log(Precision::Serving, log, Instant::now())?;
//!
//! recorder.record(Stage::BrokerWait, 12_500);
//! // Once a second, from the thread that records: writing is done by another thread.
//! if recorder.is_due(Instant::now()) {
//!     if let Some(error) = recorder.rotate(Instant::now()) {
//!         eprintln!("{error}");
//!     }
//! }
//!
//! let (totals, error) = recorder.finish(Instant::now());
//! assert!(error.is_none());
//! assert_eq!(totals.summary(Stage::BrokerWait).map(|summary| summary.count), Some(1));
//! assert_eq!(read_log(&path)?.summary(Stage::BrokerWait).map(|summary| summary.count), Some(1));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod decode;
mod error;
mod log;
mod read;
mod recorder;
mod stage;
mod stages;
mod table;

pub use error::HistogramError;
pub use log::LatencyLog;
pub use read::read_log;
pub use recorder::IntervalRecorder;
pub use stage::Stage;
pub use stages::{Percentiles, Precision, StageHistograms, VALUE_MAX_NS};
pub use table::format_ns;
