//! Worker library, supervisor and ready-made worker of pinmesh.

mod error;
pub mod page;

pub use error::PageError;
