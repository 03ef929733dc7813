//! What the report says about the build: commit, compiler, profile. Each is left out where it cannot
//! be found, as in a tree without git.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The log of HEAD grows with every commit and checkout. In a worktree it is not under `.git`.
    for name in ["HEAD", "logs/HEAD"] {
        let file = output("git", &["rev-parse", "--git-path", name]);
        if let Some(file) = file.filter(|file| Path::new(file).exists()) {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    set("PINMESH_BENCH_COMMIT", output("git", &["rev-parse", "--short=12", "HEAD"]));
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    set("PINMESH_BENCH_RUSTC", output(&rustc, &["--version"]));
    set("PINMESH_BENCH_PROFILE", env::var("PROFILE").ok());
}

fn set(name: &str, value: Option<String>) {
    if let Some(value) = value {
        println!("cargo::rustc-env={name}={value}");
    }
}

/// The first line that the command prints, if it succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
