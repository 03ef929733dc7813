//! Each rule of the module, one at a time.

mod broker;
mod fake;
mod worker;
