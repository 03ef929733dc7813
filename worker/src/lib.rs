//! Worker library, supervisor and ready-made worker of pinmesh.

mod error;
pub mod page;
pub mod process;

pub use error::PageError;
