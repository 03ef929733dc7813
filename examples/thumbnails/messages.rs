//! What the client sends and what the worker answers; both programs compile this one file.

use serde::{Deserialize, Serialize};

/// A picture, and how large its thumbnail may be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Longest side of the thumbnail, pixels.
    pub(crate) side: u32,
    /// A PNG or JPEG file. Without `serde_bytes` each byte would travel as a number of its own.
    #[serde(with = "serde_bytes")]
    pub(crate) file: Vec<u8>,
}

/// A thumbnail, in the picture's own format.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Thumbnail {
    pub(crate) width: u32,
    pub(crate) height: u32,
    #[serde(with = "serde_bytes")]
    pub(crate) file: Vec<u8>,
}
