//! A crate of somebody else's, outside this workspace and without its flags for libzmq: it links, it
//! serves, it calls, and it is told what to do about keys.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pinmesh_tests::{Mesh, Process, Supervisor, binary};

const WORKER: &str = r#"
fn main() -> std::process::ExitCode {
    let double = |number: u64| Ok::<_, String>(2 * number);
    pinmesh_worker::Worker::new().service("double", double).main()
}
"#;

const CLIENT: &str = r#"
use pinmesh_client::{Client, KeyPair};

fn main() -> Result<(), pinmesh_client::Error> {
    println!("keys: {}", KeyPair::generate().expect_err("this libzmq has no CURVE"));
    let client = Client::connect(std::env::args().nth(1).expect("a broker's frontend"))?;
    let text: String = client.call("echo", "from outside")?;
    println!("call: {text}");
    println!("double: {}", client.call::<_, u64>("double", &21u64)?);
    for (index, text) in client.map::<_, _, String>("echo", ["a", "b"], 2) {
        println!("map: {index} {}", text?);
    }
    Ok(())
}
"#;

/// It does not ask for keys, so libsodium must not be needed either.
fn manifest(root: &Path) -> String {
    let (client, worker) = (root.join("client"), root.join("worker"));
    format!(
        "[package]\nname = \"outside\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\npinmesh-client = {{ path = {client:?} }}\n\
         pinmesh-worker = {{ path = {worker:?}, default-features = false }}\n"
    )
}

/// Makes and builds the crate. Where its programs are.
fn build(folder: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::create_dir_all(folder.join("src/bin")).unwrap();
    fs::write(folder.join("Cargo.toml"), manifest(root)).unwrap();
    fs::write(folder.join("src/bin/outside_client.rs"), CLIENT).unwrap();
    fs::write(folder.join("src/bin/outside_worker.rs"), WORKER).unwrap();
    // The same versions, which are here already.
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    // Beside target/debug, so that only the first run compiles libzmq.
    let target = binary("pinmesh").parent().unwrap().with_file_name("outside");
    let mut command = Command::new("cargo");
    // What the cargo that runs this test has set is of this workspace, CXXFLAGS foremost.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text == "CXXFLAGS" || (text.starts_with("CARGO") && text != "CARGO_HOME") {
            command.env_remove(name);
        }
    }
    command.args(["build", "--offline", "--quiet"]).current_dir(folder);
    let output = command.env("CARGO_TARGET_DIR", &target).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug")
}

#[test]
fn a_crate_outside_the_workspace_links_serves_calls_and_is_told_how_to_get_keys() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        folder.path().ancestors().all(|folder| !folder.join(".cargo/config.toml").exists()),
        "{} is no outside: a folder above it has settings for cargo; set TMPDIR to another",
        folder.path().display()
    );
    let programs = build(folder.path());
    let mesh = Mesh::start(1, &[]);
    let mut worker = Command::new(programs.join("outside_worker"));
    worker.args(["--backend", &mesh.broker.backend]);
    let _worker = Supervisor::run(worker, 1);
    let mut client = Command::new(programs.join("outside_client"));
    client.arg(&mesh.broker.frontend);
    let finished = Process::start(client).wait();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let (keys, rest) = finished.stdout.split_once('\n').unwrap();
    assert!(keys.contains("built without CURVE"), "{keys}");
    assert!(keys.contains("build with the CXXFLAGS of pinmesh's .cargo/config.toml"), "{keys}");
    let mut lines: Vec<&str> = rest.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["call: from outside", "double: 42", "map: 0 a", "map: 1 b"]);
}
