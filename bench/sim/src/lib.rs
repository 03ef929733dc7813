//! The real broker core and the real client, worker and supervision machines of pinmesh, in virtual
//! time: a fleet on links that break, with processes that crash, stop and jump in time. Every
//! message goes through the real codec. What is promised is checked after every step; then the
//! faults stop, and everything must come to its end.
//!
//! A run is the same for the same seed, bit for bit.
//!
//! ```
//! use pinmesh_sim::campaign::{RunConfig, run};
//! use pinmesh_sim::world::Story;
//!
//! let config = RunConfig { seed: 1, steps: 500, has_faults: true };
//! let first = run(config, Story::Silent).unwrap();
//! assert_eq!(first.digest, run(config, Story::Silent).unwrap().digest);
//! ```
#![forbid(unsafe_code)]

pub mod barrage;
pub mod broker;
pub mod campaign;
pub mod checker;
pub mod client;
pub mod clock;
pub mod counters;
pub mod faults;
pub mod fleet;
pub mod host;
pub mod net;
mod operator;
pub mod oracle;
pub mod page;
pub mod random;
pub mod record;
pub mod rogue;
pub mod scenario;
pub mod shape;
pub mod shell;
pub mod story;
pub mod task;
pub mod trap;
pub mod worker;
pub mod world;
