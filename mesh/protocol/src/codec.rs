//! Command to bytes and back. Writing is here for every sender; reading goes through
//! [`crate::batch::BatchReader`], which knows the frames of the message.
//!
//! SUBMIT, TASK, DONE, RESULT and ACK are the hot ones: no allocation, one pass.

mod fields;
mod frames;
mod read;
mod read_cold;
mod write;
mod write_cold;

pub(crate) use frames::Frames;
pub(crate) use read::{from_broker, to_broker};
pub use write::{
    submit_header_bytes, write_ack, write_done, write_result, write_submit, write_task,
};
pub use write_cold::{write_from_broker, write_to_broker};
