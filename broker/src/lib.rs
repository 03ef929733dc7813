//! The shell of the pinmesh broker: configuration, sockets, event loop. It decides nothing; the
//! machine that does is `pinmesh-core`.
#![forbid(unsafe_code)]

mod admin_queue;
mod body;
mod bucket;
pub mod cli;
pub mod config;
mod connections;
pub mod counters;
pub mod error;
pub mod event_loop;
mod http;
mod inbound;
mod keys;
mod outbound;
mod pool;
mod signals;
mod stages;
