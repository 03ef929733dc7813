//! The unsafe part: libzmq's context, sockets and messages behind types that cannot be misused.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::size_of;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

pub use self::frame::Frame;

mod draft;
mod frame;

#[cfg(libsodium)]
unsafe extern "C" {
    fn sodium_init() -> c_int;
}

// zmq-sys has no binding for it.
unsafe extern "C" {
    fn zmq_curve_public(public: *mut c_char, secret: *const c_char) -> c_int;
}

/// A key in Z85 and the zero byte that ends it.
const CURVE_TEXT_BYTES: usize = 41;
/// A key as libzmq writes and reads it.
pub(crate) type CurveText = [u8; CURVE_TEXT_BYTES];

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

    /// ENOTSUP where libzmq was built without draft functions.
    pub(crate) fn set_bytes(&self, option: u32, value: &[u8]) -> Result<(), Errno> {
        let set = draft::ctx_set_ext().ok_or(Errno(libc::ENOTSUP))?;
        // SAFETY: the context is alive as long as self; pointer and length are of one slice, which
        // libzmq copies.
        Errno::check(unsafe {
            set(self.0.as_ptr(), option as c_int, value.as_ptr().cast(), value.len())
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

/// A C string of an endpoint; None if it holds a NUL.
pub(crate) fn c_string(text: &str) -> Option<CString> {
    CString::new(text).ok()
}

/// A new CURVE key pair, public key first.
pub(crate) fn curve_keypair() -> Result<(CurveText, CurveText), Errno> {
    let (mut public, mut secret) = ([0; CURVE_TEXT_BYTES], [0; CURVE_TEXT_BYTES]);
    // SAFETY: both buffers have the 41 bytes that the call writes.
    Errno::check(unsafe {
        zmq_sys::zmq_curve_keypair(public.as_mut_ptr().cast(), secret.as_mut_ptr().cast())
    })?;
    Ok((public, secret))
}

/// The public key of a secret one.
pub(crate) fn curve_public(secret: &CurveText) -> Result<CurveText, Errno> {
    let mut public = [0; CURVE_TEXT_BYTES];
    debug_assert_eq!(secret[CURVE_TEXT_BYTES - 1], 0);
    // SAFETY: the output has the 41 bytes that the call writes. The call reads 40 bytes of the
    // input, which is no shorter.
    Errno::check(unsafe { zmq_curve_public(public.as_mut_ptr().cast(), secret.as_ptr().cast()) })?;
    Ok(public)
}

/// Overwrites a secret in a way that the compiler does not leave out.
pub(crate) fn wipe(bytes: &mut [u8]) {
    for byte in bytes {
        // SAFETY: the pointer is a reference.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}
