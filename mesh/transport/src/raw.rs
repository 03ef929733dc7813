//! The unsafe part: libzmq's context, sockets and messages behind types that cannot be misused.

use std::alloc::{Layout, handle_alloc_error};
use std::ffi::{CStr, CString, c_int, c_void};
use std::mem::size_of;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::{fmt, slice};

use zmq_sys::zmq_msg_t;

#[cfg(libsodium)]
unsafe extern "C" {
    fn sodium_init() -> c_int;
}

unsafe extern "C" {
    // In libzmq since 4.3.3; zmq-sys has no binding for it.
    fn zmq_ctx_set_ext(
        context: *mut c_void,
        option: c_int,
        value: *const c_void,
        bytes: usize,
    ) -> c_int;
}

/// The longest body that libzmq keeps inside `zmq_msg_t` instead of on the heap.
const INLINE_BYTES_MAX: usize = 33;

/// An error number of libzmq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

impl Errno {
    fn last() -> Self {
        // SAFETY: takes nothing, reads the thread's errno.
        Self(unsafe { zmq_sys::zmq_errno() })
    }

    pub(crate) fn message(self) -> String {
        // SAFETY: returns a NUL-terminated string that lives until the next call in this thread;
        // it is copied at once.
        let text = unsafe { CStr::from_ptr(zmq_sys::zmq_strerror(self.0)) };
        text.to_string_lossy().into_owned()
    }

    fn check(result: c_int) -> Result<(), Self> {
        if result == -1 { Err(Self::last()) } else { Ok(()) }
    }
}

/// Makes ready what libzmq expects of its process. Safe to call again.
pub(crate) fn init_process() {
    // The call also keeps the linker from dropping libsodium, which it sees before libzmq.
    #[cfg(libsodium)]
    // SAFETY: takes nothing, and is documented as safe to call repeatedly and from any thread.
    unsafe {
        sodium_init();
    }
}

/// A context of libzmq, ended when its last socket is gone.
pub(crate) struct RawContext(NonNull<c_void>);

// SAFETY: libzmq's contexts are thread-safe by contract.
unsafe impl Send for RawContext {}
// SAFETY: as above.
unsafe impl Sync for RawContext {}

impl RawContext {
    pub(crate) fn new() -> Result<Arc<Self>, Errno> {
        // SAFETY: takes nothing.
        let context = unsafe { zmq_sys::zmq_ctx_new() };
        Ok(Arc::new(Self(NonNull::new(context).ok_or_else(Errno::last)?)))
    }

    pub(crate) fn set(&self, option: u32, value: c_int) -> Result<(), Errno> {
        // SAFETY: the context is alive as long as self.
        Errno::check(unsafe { zmq_sys::zmq_ctx_set(self.0.as_ptr(), option as c_int, value) })
    }

    pub(crate) fn set_bytes(&self, option: u32, value: &[u8]) -> Result<(), Errno> {
        // SAFETY: the context is alive as long as self; pointer and length are of one slice, which
        // libzmq copies.
        Errno::check(unsafe {
            zmq_ctx_set_ext(self.0.as_ptr(), option as c_int, value.as_ptr().cast(), value.len())
        })
    }
}

impl Drop for RawContext {
    fn drop(&mut self) {
        // SAFETY: the last reference goes here; sockets hold one each, so none is left and the
        // call waits only for their linger time.
        while unsafe { zmq_sys::zmq_ctx_term(self.0.as_ptr()) } == -1
            && Errno::last().0 == libc::EINTR
        {}
    }
}

/// A socket of libzmq. It may move between threads but be used by one at a time.
pub(crate) struct RawSocket {
    socket: NonNull<c_void>,
    // Dropped after the socket has been closed, so the context outlives it.
    _context: Arc<RawContext>,
}

// SAFETY: libzmq allows a socket to migrate between threads with a full fence, which sending a
// value implies; every method takes `&mut self`, so no two threads use it at once.
unsafe impl Send for RawSocket {}

impl RawSocket {
    pub(crate) fn new(context: &Arc<RawContext>, kind: u32) -> Result<Self, Errno> {
        // SAFETY: the context is alive.
        let socket = unsafe { zmq_sys::zmq_socket(context.0.as_ptr(), kind as c_int) };
        let socket = NonNull::new(socket).ok_or_else(Errno::last)?;
        Ok(Self { socket, _context: context.clone() })
    }

    pub(crate) fn set_i32(&mut self, option: u32, value: i32) -> Result<(), Errno> {
        self.set_bytes(option, &value.to_ne_bytes())
    }

    pub(crate) fn set_i64(&mut self, option: u32, value: i64) -> Result<(), Errno> {
        self.set_bytes(option, &value.to_ne_bytes())
    }

    pub(crate) fn set_bytes(&mut self, option: u32, value: &[u8]) -> Result<(), Errno> {
        // SAFETY: the socket is open; pointer and length are of one slice, which libzmq copies.
        Errno::check(unsafe {
            zmq_sys::zmq_setsockopt(
                self.socket.as_ptr(),
                option as c_int,
                value.as_ptr().cast(),
                value.len(),
            )
        })
    }

    fn i32_option(&mut self, option: u32) -> Result<i32, Errno> {
        let mut value: i32 = 0;
        let mut bytes = size_of::<i32>();
        loop {
            // SAFETY: the socket is open; the buffer is as long as `bytes` says.
            let result = unsafe {
                zmq_sys::zmq_getsockopt(
                    self.socket.as_ptr(),
                    option as c_int,
                    (&raw mut value).cast(),
                    &raw mut bytes,
                )
            };
            match Errno::check(result) {
                Ok(()) => return Ok(value),
                Err(Errno(libc::EINTR)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The descriptor whose edges say that something happened. It belongs to libzmq.
    pub(crate) fn fd(&mut self) -> Result<RawFd, Errno> {
        self.i32_option(zmq_sys::ZMQ_FD)
    }

    /// Takes in what has happened and says whether there is a message to read.
    pub(crate) fn has_input(&mut self) -> Result<bool, Errno> {
        let events = self.i32_option(zmq_sys::ZMQ_EVENTS)?;
        Ok(events & zmq_sys::ZMQ_POLLIN as i32 != 0)
    }

    /// The endpoint last bound, with the port that the system chose.
    pub(crate) fn last_endpoint(&mut self) -> Result<String, Errno> {
        let mut text = [0u8; 512];
        let mut bytes = text.len();
        // SAFETY: the socket is open; the buffer is as long as `bytes` says.
        Errno::check(unsafe {
            zmq_sys::zmq_getsockopt(
                self.socket.as_ptr(),
                zmq_sys::ZMQ_LAST_ENDPOINT as c_int,
                text.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        })?;
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
        Ok(text.to_string_lossy().into_owned())
    }

    pub(crate) fn bind(&mut self, endpoint: &CStr) -> Result<(), Errno> {
        // SAFETY: the socket is open, the endpoint NUL-terminated and copied.
        Errno::check(unsafe { zmq_sys::zmq_bind(self.socket.as_ptr(), endpoint.as_ptr()) })
    }

    pub(crate) fn connect(&mut self, endpoint: &CStr) -> Result<(), Errno> {
        // SAFETY: the socket is open, the endpoint NUL-terminated and copied.
        Errno::check(unsafe { zmq_sys::zmq_connect(self.socket.as_ptr(), endpoint.as_ptr()) })
    }

    /// Receives one frame without blocking; false if there is none.
    pub(crate) fn recv(&mut self, into: &mut Frame) -> Result<bool, Errno> {
        loop {
            // SAFETY: the socket is open and the message initialised; libzmq closes its old
            // content.
            let result = unsafe {
                zmq_sys::zmq_msg_recv(&mut into.0, self.socket.as_ptr(), zmq_sys::ZMQ_DONTWAIT as _)
            };
            match Errno::check(result) {
                Ok(()) => return Ok(true),
                Err(Errno(libc::EAGAIN)) => return Ok(false),
                Err(Errno(libc::EINTR)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a copy of the bytes as one frame, without blocking.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8], more: bool) -> Result<(), Errno> {
        loop {
            // SAFETY: the socket is open; pointer and length are of one slice, which libzmq copies.
            let result = unsafe {
                zmq_sys::zmq_send(
                    self.socket.as_ptr(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    send_flags(more),
                )
            };
            match Errno::check(result) {
                Err(Errno(libc::EINTR)) => {}
                other => return other,
            }
        }
    }

    /// Sends the frame without blocking: empty afterwards if that worked, untouched otherwise.
    pub(crate) fn send_frame(&mut self, frame: &mut Frame, more: bool) -> Result<(), Errno> {
        loop {
            // SAFETY: the socket is open and the message initialised; libzmq leaves an initialised
            // message behind in either case.
            let result = unsafe {
                zmq_sys::zmq_msg_send(&mut frame.0, self.socket.as_ptr(), send_flags(more))
            };
            match Errno::check(result) {
                Err(Errno(libc::EINTR)) => {}
                other => return other,
            }
        }
    }
}

impl Drop for RawSocket {
    fn drop(&mut self) {
        // SAFETY: opened in `new` and closed only here. The only error is "not a socket".
        unsafe { zmq_sys::zmq_close(self.socket.as_ptr()) };
    }
}

const fn send_flags(more: bool) -> c_int {
    (zmq_sys::ZMQ_DONTWAIT | if more { zmq_sys::ZMQ_SNDMORE } else { 0 }) as c_int
}

/// One frame of a message: bytes owned by libzmq, freed with the frame.
///
/// Received bodies are not copied out of libzmq's receive buffer, so a frame that is kept may keep
/// that whole buffer (see [`batch_bytes`](crate::SocketOptions::batch_bytes)): copy small bodies.
///
/// A frame is `Sync` because [`share`](Self::share), the only operation that writes to it, takes
/// `&mut self`; the bytes themselves are never written after the frame was made.
pub struct Frame(zmq_msg_t);

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

    /// A property of the connection that the frame came by, if it has it and it is UTF-8.
    pub(crate) fn property(&self, name: &CStr) -> Option<&str> {
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

/// A C string of an endpoint; None if it holds a NUL.
pub(crate) fn c_string(text: &str) -> Option<CString> {
    CString::new(text).ok()
}
