//! Which build this is.

use serde::Serialize;

/// What was measured with.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BuildInfo {
    /// Version of this program.
    pub(crate) version: &'static str,
    /// Commit that it was built from, if it was built in a git tree.
    pub(crate) commit: Option<&'static str>,
    /// Compiler.
    pub(crate) rustc: Option<&'static str>,
    /// `release` or `debug`, as cargo calls what the profile derives from.
    pub(crate) profile: Option<&'static str>,
    /// Whether debug assertions are in it: then nothing that is measured counts.
    pub(crate) debug_assertions: bool,
}

impl BuildInfo {
    /// This build.
    pub(crate) const fn this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("PINMESH_BENCH_COMMIT"),
            rustc: option_env!("PINMESH_BENCH_RUSTC"),
            profile: option_env!("PINMESH_BENCH_PROFILE"),
            debug_assertions: cfg!(debug_assertions),
        }
    }

    /// Says on stderr, before anything is measured, that a debug build measures nothing that counts.
    pub(crate) fn warn(&self) {
        if self.debug_assertions {
            eprintln!(
                "WARNING: this is a debug build, several times slower than what is shipped. \
                 Nothing that it measures counts: use `cargo build --release` and \
                 target/release/pinmesh-bench."
            );
        }
    }
}
