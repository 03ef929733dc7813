//! The wire of pinmesh: commands, codec, limits. No IO; PROTOCOL.md is the contract.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod command;
pub mod id;
pub mod limits;
mod options;
pub mod status;

pub use options::TaskOptions;
