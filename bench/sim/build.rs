//! Which commit a failing seed belongs to; left out where it cannot be found, as in a tree without git.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The log of HEAD grows with every commit and checkout.
    for file in ["../../.git/HEAD", "../../.git/logs/HEAD"] {
        if Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = output.ok().filter(|output| output.status.success());
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    if let Some(commit) = commit {
        println!("cargo::rustc-env=PINMESH_SIM_COMMIT={}", commit.trim());
    }
    if let Ok(profile) = env::var("PROFILE") {
        println!("cargo::rustc-env=PINMESH_SIM_PROFILE={profile}");
    }
}
