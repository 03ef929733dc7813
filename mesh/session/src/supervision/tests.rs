//! Each rule of the module, one at a time.

mod bounds;
mod broker;
mod fake;
mod renewal;
mod worker;
