//! Damage to real processes under load, and an account of every task that does not ask the mesh.
//!
//! Workers and clients write down what they do ([`crate::record`]); [`Records`] reads that while a
//! run goes on, [`judge`] accounts for it at the end. A [`Kind`] is one sort of damage, done to a
//! mesh of its own, so that all kinds can go on side by side.

mod judge;
mod kind;
mod records;
mod rig;
mod run;

pub use judge::{Verdict, judge};
pub use kind::{Fault, Kind, Timing, Victim};
pub use records::{Attempt, Records, Task};
pub use run::{Affected, Report, Round, run_all};
