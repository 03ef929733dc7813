//! The wire of pinmesh: commands, codec, limits. No IO; PROTOCOL.md is the contract.
//!
//! A message is one frame with a sequence of commands, each a MessagePack array `[op, field, ...]`;
//! [`batch::BatchWriter`] builds one and [`batch::BatchReader`] reads it in place.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod batch;
pub mod codec;
pub mod command;
mod cursor;
pub mod error;
pub mod id;
pub mod limits;
mod options;
#[cfg(feature = "serde")]
pub mod payload;
pub mod rendezvous;
pub mod selector;
pub mod status;

pub use batch::{BatchReader, BatchWriter};
pub use error::DecodeError;
pub use options::TaskOptions;
