//! Functions that only a libzmq with draft functions has.
//!
//! A plain build has to link all the same, and libzmq is linked statically, where `dlsym` finds
//! nothing: so they are weak symbols, whose address is null where they are missing. Stable Rust
//! has none, the assembler has.

use std::ffi::{c_int, c_void};

/// `zmq_ctx_set_ext(context, option, value, bytes)`, new in libzmq 4.3.3.
pub(super) type CtxSetExt = unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize) -> c_int;

#[cfg(target_pointer_width = "64")]
macro_rules! pointer {
    () => {
        ".quad"
    };
}
#[cfg(target_pointer_width = "32")]
macro_rules! pointer {
    () => {
        ".long"
    };
}

std::arch::global_asm!(
    ".weak zmq_ctx_set_ext",
    ".pushsection .data.rel.ro.pinmesh_zmq_ctx_set_ext,\"aw\"",
    ".balign 8",
    ".globl pinmesh_zmq_ctx_set_ext",
    ".hidden pinmesh_zmq_ctx_set_ext",
    "pinmesh_zmq_ctx_set_ext:",
    concat!(pointer!(), " zmq_ctx_set_ext"),
    ".popsection",
);

unsafe extern "C" {
    /// The function's address, filled in by the linker.
    #[link_name = "pinmesh_zmq_ctx_set_ext"]
    static CTX_SET_EXT: Option<CtxSetExt>;
}

/// The function, where this libzmq has it.
pub(super) fn ctx_set_ext() -> Option<CtxSetExt> {
    // SAFETY: the word above is read-only once the program runs; it is null, which is `None`, or
    // the address of a function of this type (zmq.h).
    unsafe { CTX_SET_EXT }
}
