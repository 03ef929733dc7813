//! `pinmesh map` over many files with a real program: the bytes of a shell loop, whoever is killed.
//! `PINMESH_MAP_FILES` says how many files: `scripts/map_soak.sh` takes 10,000.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pinmesh_tests::{
    Broker, LIMIT, Mesh, Process, Seen, Supervisor, command, eventually, marked, turn,
};
use rustix::process::{Pid, Signal, kill_process};

/// For a whole map; the number of files is up to whoever runs this.
const MAP_LIMIT: Duration = Duration::from_secs(600);

fn files() -> usize {
    match std::env::var("PINMESH_MAP_FILES") {
        Ok(text) => text.parse().expect("PINMESH_MAP_FILES is a number"),
        Err(_) => 2_000,
    }
}

/// Files of all sizes in 20 folders: empty, of a few bytes, and longer than a pipe.
fn write_inputs(folder: &Path, count: usize) {
    for number in 0..20 {
        fs::create_dir_all(folder.join(format!("d{number:02}"))).unwrap();
    }
    for number in 0..count {
        let lines = [0, 1, 40, 300, 5_000][number % 5] >> (number % 3);
        let text = format!("line of file {number}\n").repeat(lines);
        fs::write(folder.join(format!("d{:02}/f{number:05}", number % 20)), text).unwrap();
    }
}

/// What a user without a mesh would write.
fn shell_loop(inputs: &Path, outputs: &Path) {
    let script = r#"set -e
        cd "$1"
        for file in */*; do
            mkdir -p "$2/${file%/*}"
            gzip -9n <"$file" >"$2/$file.gz"
        done"#;
    let status =
        Command::new("bash").args(["-c", script, "loop"]).args([inputs, outputs]).status().unwrap();
    assert!(status.success());
}

/// Every file below a folder, and what it holds.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut tree = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                tree.insert(name, fs::read(path).unwrap());
            }
        }
    }
    tree
}

#[track_caller]
fn assert_same(found: &Path, wanted: &Path) {
    let (found, wanted) = (tree(found), tree(wanted));
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    let differing = found.iter().find(|(name, bytes)| wanted[*name] != **bytes);
    assert!(differing.is_none(), "{:?} differs", differing.unwrap().0);
}

fn mesh(exec: &[&str]) -> Mesh {
    let broker = Broker::start(&[]);
    let flags = [&["--services", "exec", "--"], exec].concat();
    let supervisor = Supervisor::start(&broker.backend, 2, &flags);
    Mesh { supervisor, broker }
}

fn start(mesh: &Mesh, words: &[&str]) -> Process {
    let mut command = command("pinmesh", words);
    command.env("PINMESH_BROKER", &mesh.broker.frontend);
    Process::start(command)
}

/// Exit code and standard error of a map.
#[track_caller]
fn finish(mut map: Process) -> (i32, String) {
    eventually("the map ends", MAP_LIMIT, || map.has_ended());
    let finished = map.wait();
    (finished.code, finished.stderr)
}

/// Inputs that a journal has as done; 0: it is not there yet.
fn noted(journal: &Path) -> usize {
    let text = fs::read(journal).unwrap_or_default();
    text.iter().filter(|&&byte| byte == b'\n').count().saturating_sub(1)
}

#[test]
fn a_map_gives_the_bytes_of_a_shell_loop_although_a_worker_and_then_the_client_are_killed() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let count = files();
    write_inputs(&at("in"), count);
    shell_loop(&at("in"), &at("loop"));
    // From the middle on, the first client's tasks wait for the kills.
    fs::write(at("hold"), "").unwrap();
    let script = format!(
        r#"[ "$PINMESH_REQUEST_ID" -lt {} ] || while [ -e "{}" ]; do sleep 0.05; done; gzip -9n"#,
        count / 2,
        at("hold").display()
    );
    let mesh = mesh(&["sh", "-c", &script]);
    let (inputs, outputs, journal) = (at("in"), at("out"), at("journal"));
    let words = [
        ["map", "exec", "--suffix", ".gz", "--window", "64"].map(Path::new).as_slice(),
        &[Path::new("--files"), &inputs, Path::new("--output-dir"), &outputs],
        &[Path::new("--resume"), &journal],
    ]
    .concat();
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();

    let mut first = start(&mesh, &words);
    eventually("the map comes to its middle", MAP_LIMIT, || noted(&journal) >= count / 2 - 2);
    let workers = mesh.supervisor.workers();
    let programs = marked(mesh.supervisor.process.mark());
    let programs = programs.iter().filter(|it| !workers.contains(it));
    let holding: Vec<Seen> = programs.copied().collect();
    assert!(holding.len() > 2, "supervisor, keeper, and programs that wait: {holding:?}");
    kill_process(Pid::from_raw(workers[0].pid).unwrap(), Signal::KILL).unwrap();
    mesh.supervisor.wait_for_workers(&workers[..1]);
    assert!(!first.has_ended());
    first.kill();
    let before = noted(&journal);
    assert!((count / 2 - 2..count / 2 + 2).contains(&before), "{before}");

    fs::remove_file(at("hold")).unwrap();
    let (code, said) = finish(start(&mesh, &words));
    assert_eq!(code, 0, "{said}");
    let summary = format!("{} done, 0 failed, {before} done before in ", count - before);
    assert!(said.contains(&summary), "{said}");
    assert_same(&outputs, &at("loop"));
    // Once more: nothing is left to do.
    let (code, said) = finish(start(&mesh, &words));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("0 done, 0 failed, {count} done before in ")), "{said}");
}

#[test]
fn one_output_has_each_line_once_and_whole_however_often_the_client_is_killed() {
    let _turn = turn();
    let broker = Broker::start(&[]);
    let supervisor = Supervisor::start(&broker.backend, 2, &["--services", "echo"]);
    let mesh = Mesh { supervisor, broker };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let count = 20_000;
    let text: String = (0..count).map(|number| format!("text of line {number}\n")).collect();
    fs::write(at("lines"), &text).unwrap();
    for order in [&["--ordered"][..], &[]] {
        let (lines, output, journal) = (at("lines"), at("output"), at("journal"));
        let _ = (fs::remove_file(&output), fs::remove_file(&journal));
        let paths = [&lines, &output, &journal].map(|path| path.to_str().unwrap());
        let words = ["map", "echo", "--output-format", "{result}"];
        let files = ["--lines", paths[0], "--output", paths[1], "--resume", paths[2]];
        let words = [&words[..], &files, order].concat();
        for kill in 1..=5 {
            let mut map = start(&mesh, &words);
            let what = "the map goes on";
            eventually(what, LIMIT, || noted(&journal) >= kill * count / 10 || map.has_ended());
            map.kill();
            // What a kill between two writes would leave.
            let cut = fs::read(&journal).unwrap();
            fs::write(&journal, &cut[..cut.len() - kill]).unwrap();
        }
        let (code, said) = finish(start(&mesh, &words));
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(" done before in "), "{said}");
        let mut found = fs::read_to_string(&output).unwrap();
        if order.is_empty() {
            let mut lines: Vec<&str> = found.lines().collect();
            lines.sort_by_key(|line| line.rsplit_once(' ').unwrap().1.parse::<u32>().unwrap());
            found = lines.iter().map(|line| format!("{line}\n")).collect();
        }
        assert!(found == text, "{} lines", found.lines().count());
    }
}

#[test]
fn inputs_that_failed_are_told_and_run_again_when_the_map_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let repaired = at("repaired").to_str().unwrap().to_owned();
    let script = format!(
        r#"read word; case $word in bad*) [ -e "{repaired}" ] || {{ echo "a $word" >&2; exit 3; }}
        esac; echo "$word""#
    );
    let mesh = mesh(&["sh", "-c", &script]);
    let text: String = (0..100)
        .map(|number| format!("{}{number}\n", if number % 10 == 3 { "bad" } else { "good" }))
        .collect();
    fs::write(at("lines"), &text).unwrap();
    let paths = ["lines", "out", "journal", "errors"].map(at);
    let paths = paths.each_ref().map(|path| path.to_str().unwrap());
    let words =
        ["map", "exec", "--lines", paths[0], "--output-dir", paths[1], "--resume", paths[2]];
    let words = [&words[..], &["--errors", paths[3]]].concat();
    let (code, said) = finish(start(&mesh, &words));
    assert_eq!(code, 1, "{said}");
    assert!(said.starts_with("pinmesh: 90 done, 10 failed in "), "{said}");
    let errors = fs::read_to_string(at("errors")).unwrap();
    let mut errors: Vec<serde_json::Value> =
        errors.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    errors.sort_by_key(|error| error["index"].as_u64());
    assert_eq!(errors.len(), 10);
    assert_eq!(
        errors[1],
        serde_json::json!({ "index": 13, "input": "bad13", "status": "FAILED",
            "message": "service `exec` failed: sh exited with 3: a bad13" })
    );
    let few = [&words[..], &["--max-errors", "4"]].concat();
    let (code, said) = finish(start(&mesh, &few));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("stopped: 5 inputs have failed, --max-errors is 4"), "{said}");
    fs::write(&repaired, "").unwrap();
    let (code, said) = finish(start(&mesh, &words));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("10 done, 0 failed, 90 done before in "), "{said}");
    let results = tree(&at("out"));
    let found: Vec<u8> = results.values().flatten().copied().collect();
    assert_eq!(String::from_utf8(found).unwrap(), text);
    assert_eq!(fs::read(at("errors")).unwrap(), b"");
}
