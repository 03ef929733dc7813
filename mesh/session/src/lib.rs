//! The machines of pinmesh's peers: client, worker and supervisor. Pure: time comes in with every
//! event, effects go out through an outbox trait, and there is no socket, clock, thread or source
//! of randomness of their own. The simulator runs the same code as the shells.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acks;
pub mod client;
pub mod slots;
pub mod supervision;
pub mod time;
pub mod window;
pub mod worker;

pub use time::Time;
pub use window::Window;
