//! Frames: libzmq's messages.

use std::alloc::{Layout, handle_alloc_error};
use std::ffi::{CStr, c_void};
use std::ops::Deref;
use std::{fmt, slice};

use zmq_sys::zmq_msg_t;

/// The longest body that libzmq keeps inside `zmq_msg_t` instead of on the heap.
const INLINE_BYTES_MAX: usize = 33;

/// One frame of a message: bytes owned by libzmq, freed with the frame.
///
/// Received bodies are not copied out of libzmq's receive buffer, so a frame that is kept may keep
/// that whole buffer (see [`batch_bytes`](crate::SocketOptions::batch_bytes)): copy small bodies.
///
/// A frame is `Sync` because [`share`](Self::share), the only operation that writes to it, takes
/// `&mut self`; the bytes themselves are never written after the frame was made.
pub struct Frame(pub(super) zmq_msg_t);

// SAFETY: a zmq_msg_t owns its content or shares it by an atomic count, libzmq itself hands them
// between threads, and the free function of `From<Vec<u8>>` may run anywhere.
unsafe impl Send for Frame {}
// SAFETY: through `&Frame` only fields are read (size, data, flags, metadata); none of these calls
// writes to the zmq_msg_t, and the content is immutable.
unsafe impl Sync for Frame {}

impl Frame {
    /// A frame of no bytes.
    #[must_use]
    pub fn empty() -> Self {
        let mut message = zmq_msg_t::default();
        // SAFETY: the pointer is to a zmq_msg_t; the call cannot fail.
        unsafe { zmq_sys::zmq_msg_init(&mut message) };
        Self(message)
    }

    /// A frame with a copy of the bytes.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut message = zmq_msg_t::default();
        // SAFETY: the pointer is to a zmq_msg_t, which is initialised if the call succeeds.
        if unsafe { zmq_sys::zmq_msg_init_size(&mut message, bytes.len()) } == -1 {
            out_of_memory(bytes.len());
        }
        let mut frame = Self(message);
        // SAFETY: the message was made with room for exactly these bytes, and is not shared yet.
        unsafe {
            let room = zmq_sys::zmq_msg_data(&mut frame.0).cast::<u8>();
            room.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        frame
    }

    /// Another frame with the same bytes: counted, not copied (up to 33 bytes: copied).
    #[must_use]
    pub fn share(&mut self) -> Self {
        let mut copy = Self::empty();
        // SAFETY: both messages are initialised, and `&mut` keeps other threads from the source's
        // flags while libzmq marks it as shared.
        let result = unsafe { zmq_sys::zmq_msg_copy(&mut copy.0, &mut self.0) };
        assert_ne!(result, -1, "zmq_msg_copy fails only on a message that is not initialised");
        copy
    }

    /// Whether further frames of the same message follow.
    pub(crate) fn has_more(&self) -> bool {
        // SAFETY: the message is initialised; the call only reads.
        unsafe { zmq_sys::zmq_msg_more(&self.0) != 0 }
    }

    /// The user id that the ZAP handler gave to the connection that the frame came by: the name of
    /// its key in the list. None without keys.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.property(c"User-Id").filter(|user| !user.is_empty())
    }

    /// A property of the connection that the frame came by, if it has it and it is UTF-8.
    fn property(&self, name: &CStr) -> Option<&str> {
        // SAFETY: the message is initialised; the call only reads. The text belongs to metadata
        // that the message holds a count of, so it lives as long as the borrow of self.
        let text = unsafe {
            let text = zmq_sys::zmq_msg_gets(&self.0, name.as_ptr());
            if text.is_null() {
                return None;
            }
            CStr::from_ptr(text)
        };
        text.to_str().ok()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: initialised in every constructor, closed only here.
        unsafe { zmq_sys::zmq_msg_close(&mut self.0) };
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let message = (&raw const self.0).cast_mut();
        // SAFETY: the message is initialised and both calls only read it. A small body lies inside
        // self, a large one in content that self holds a count of: valid while self is borrowed,
        // during which it cannot move. libzmq's pointer is null for no type of message that we make.
        unsafe {
            let data = zmq_sys::zmq_msg_data(message).cast::<u8>();
            let bytes = zmq_sys::zmq_msg_size(message);
            if data.is_null() || bytes == 0 { &[] } else { slice::from_raw_parts(data, bytes) }
        }
    }
}

impl From<Vec<u8>> for Frame {
    /// Takes the vector's memory over without copying it (up to 33 bytes: copied).
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() <= INLINE_BYTES_MAX {
            return Self::copy_of(&bytes);
        }
        let mut bytes = std::mem::ManuallyDrop::new(bytes);
        let (data, len, capacity) = (bytes.as_mut_ptr(), bytes.len(), bytes.capacity());
        let mut message = zmq_msg_t::default();
        // SAFETY: pointer and length are the vector's, which nobody else frees; the capacity
        // travels as the hint, a number that is never dereferenced.
        let result = unsafe {
            zmq_sys::zmq_msg_init_data(
                &mut message,
                data.cast(),
                len,
                Some(free_vec),
                std::ptr::without_provenance_mut(capacity),
            )
        };
        if result == -1 {
            out_of_memory(len);
        }
        Self(message)
    }
}

/// Frees the vector behind a frame; libzmq calls it once, in any of its threads.
unsafe extern "C" fn free_vec(data: *mut c_void, capacity: *mut c_void) {
    // SAFETY: pointer and capacity are those of a forgotten Vec<u8>; a length of 0 frees the same.
    drop(unsafe { Vec::from_raw_parts(data.cast::<u8>(), 0, capacity.addr()) });
}

fn out_of_memory(bytes: usize) -> ! {
    handle_alloc_error(Layout::array::<u8>(bytes).unwrap_or(Layout::new::<u8>()))
}

impl Default for Frame {
    fn default() -> Self {
        Self::empty()
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}
