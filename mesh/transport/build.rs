//! Links libsodium when the libzmq of this build uses it (see `.cargo/config.toml`).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CXXFLAGS");
    println!("cargo:rustc-check-cfg=cfg(libsodium)");
    let asked = std::env::var("CXXFLAGS").is_ok_and(|flags| flags.contains("ZMQ_USE_LIBSODIUM"));
    if asked || std::env::var_os("CARGO_FEATURE_CURVE").is_some() {
        println!("cargo:rustc-link-lib=sodium");
        println!("cargo:rustc-cfg=libsodium");
    }
}
