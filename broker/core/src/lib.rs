//! The broker's machine: every decision, no IO. See ARCHITECTURE.md, "The machines have no IO".
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod config;
pub mod event;
pub mod outbox;
pub mod time;
