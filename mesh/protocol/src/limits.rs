//! Maxima of the wire. WELCOME tells a peer those that a broker enforces; these are the format's own.

/// Versions that this crate speaks, inclusive.
pub const VERSION_MIN: u32 = 1;
/// See [`VERSION_MIN`].
pub const VERSION_MAX: u32 = 1;

/// Bytes after which a batch is sent, so that it fits libzmq's 64 KiB write buffer.
pub const BATCH_BYTES: usize = 60_000;
/// The longest first frame that a receiver takes: a full batch plus one task with an inline payload.
pub const FIRST_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Payloads of this many bytes or more travel as frames of their own.
pub const INLINE_BYTES_MAX: usize = 32 * 1024;
/// The longest payload frame; longer payloads are cut into several.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// The longest payload of a task or result, bytes.
pub const PAYLOAD_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Payload frames a message.
pub const FRAMES_MAX: usize = 64;
/// The longest header of a command that carries a payload, payload excluded, bytes.
pub const HEADER_BYTES_MAX: usize = 4 * 1024;
/// The longest options of a task, bytes; leaves room for the rest of a TASK's header.
pub const OPTIONS_BYTES_MAX: usize = 3 * 1024;
/// The longest name of a service, bytes of UTF-8.
pub const SERVICE_BYTES_MAX: usize = 128;
/// The longest label of a worker, bytes of UTF-8.
pub const LABEL_BYTES_MAX: usize = 64;
/// Labels that a worker may have.
pub const LABELS_MAX: usize = 32;
/// The longest name of a peer, bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 256;
/// The longest reason of a REFUSED, bytes of UTF-8.
pub const REASON_BYTES_MAX: usize = 512;
/// The longest key of a task, bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// Services that a worker may declare, and aliases that a session may set.
pub const SERVICES_MAX: usize = 256;
/// Attempts that one READY, LOST, RECALL or RECALLED may name; longer lists go in parts.
pub const LIST_MAX: usize = 1024;
/// Workers, and CPUs, that one HOST may name.
pub const WORKERS_MAX: usize = 1024;
/// Nesting of MessagePack values below a command: options and what a later version may add.
pub const DEPTH_MAX: usize = 8;
/// Nesting of MessagePack values in a user payload that the helpers of [`crate::payload`] take.
pub const PAYLOAD_DEPTH_MAX: usize = 64;
/// The most tasks that a window may grant.
pub const WINDOW_TASKS_MAX: u32 = 1_000_000;
/// Bytes of `stream` updates that a worker may have unacknowledged, or one update: for each its
/// payload and [`UPDATE_OVERHEAD_BYTES`].
pub const STREAM_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// What an update counts beside its payload, bytes, so that bounds hold for empty ones too.
pub const UPDATE_OVERHEAD_BYTES: u64 = 128;
/// Rate at which a payload over [`FRAME_BYTES_MAX`] is taken to move when a sender announces its
/// silence, bytes a second.
pub const SILENCE_BYTES_PER_S: u64 = 256 * 1024;
