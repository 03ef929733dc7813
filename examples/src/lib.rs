//! The examples of pinmesh are the programs beside this crate's `src`:
//!
//! | | worker | client |
//! |---|---|---|
//! | an option's price by simulation | `monte_carlo/worker.rs` | `monte_carlo/client.rs` |
//! | thumbnails of a folder of pictures | `thumbnails/worker.rs` | `thumbnails/client.rs` |
//! | a worker and a client in Python | `python/worker.py` | `python/client.py` |
//!
//! The library itself is empty: it lets the compiler check the Rust code in the project's README.
#![cfg_attr(doctest, doc = include_str!("../../README.md"))]
