//! The examples, and what README shows, as a reader runs them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pinmesh_client::{Client, Error, Handle};
use pinmesh_tests::{Broker, Finished, KeyRing, Process, READY_LIMIT, command, free_endpoint, run};
use rustix::process::Signal;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A broker and a worker of the examples.
struct Example {
    _worker: Process,
    broker: Broker,
}

impl Example {
    #[track_caller]
    fn start(worker: &str) -> Self {
        let broker = Broker::start(&[]);
        let arguments = ["--backend", &broker.backend, "--workers", "2"];
        let mut worker = Process::start(command(&format!("examples/{worker}"), arguments));
        let line = worker.first_line(READY_LIMIT);
        assert!(line.starts_with("pinmesh-worker ready workers=2 "), "{line}");
        Self { _worker: worker, broker }
    }

    fn run(&self, client: &str, arguments: &[&str]) -> Finished {
        let broker = ["--broker", &self.broker.frontend];
        run(&format!("examples/{client}"), broker.iter().chain(arguments))
    }
}

#[test]
fn the_simulated_price_is_within_four_standard_errors_of_the_exact_one() {
    let example = Example::start("price_worker");
    let flags = ["--tasks", "40", "--paths", "20000", "--seed", "7"];
    let price = || {
        let finished = example.run("price", &flags);
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        finished.stdout
    };
    let text = price();
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    let (simulated, exact) = (&lines[0], &lines[1]);
    assert_eq!((simulated[0], exact[0]), ("simulated", "Black-Scholes"), "{text}");
    let number = |text: &str| text.parse::<f64>().unwrap();
    // Strike 105, spot 100, 3 %, volatility 20 %, one year.
    assert!((number(exact[1]) - 7.128).abs() < 0.001, "{text}");
    let standard_error = number(simulated[4]);
    let error = number(simulated[1]) - number(exact[1]);
    assert!(standard_error > 0.0 && error.abs() < 4.0 * standard_error, "{text}");
    // The last line is the time.
    let again = price();
    assert!(text.lines().take(2).eq(again.lines().take(2)), "{text}\n{again}");
    assert_eq!(example.broker.ledger().count("ok"), 80);
}

#[test]
fn a_price_of_terms_that_cannot_be_ends_with_the_words_of_the_handler() {
    let example = Example::start("price_worker");
    let finished = example.run("price", &["--tasks", "4", "--volatility", "-0.2"]);
    let words = "price: service `price` failed: volatility is -0.2; it must be a number above 0";
    assert_eq!((finished.code, &*finished.stderr), (1, words));
}

/// Name and size of each picture that a run says it has made.
fn sizes(stdout: &str, folder: &Path) -> BTreeMap<String, (u32, u32)> {
    let size = |line: &str| {
        let (path, size) = line.split_once("  ")?;
        let (width, height) = size.split_once('x')?;
        let name = Path::new(path).strip_prefix(folder).ok()?.to_str()?.to_owned();
        Some((name, (width.parse().ok()?, height.parse().ok()?)))
    };
    stdout.lines().filter_map(size).collect()
}

/// A PNG file's own word on its size.
fn png_size(path: &Path) -> (u32, u32) {
    let file = fs::read(path).unwrap();
    assert_eq!(&file[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn thumbnails_have_the_right_size_and_a_broken_picture_stops_no_other() {
    let example = Example::start("thumbnail_worker");
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let (to_first, to_second) = (first.to_str().unwrap(), second.to_str().unwrap());

    let flags = ["--draw", "6", "--side", "100", "--to", to_first];
    let finished = example.run("thumbnails", &flags);
    assert_eq!((finished.code, &*finished.stderr), (0, ""));
    let made = sizes(&finished.stdout, &first);
    assert_eq!(made.len(), 6, "{}", finished.stdout);
    for (name, &(width, height)) in &made {
        assert_eq!(width.max(height), 100, "{name}: {width}x{height}");
        if name.ends_with(".png") {
            assert_eq!(png_size(&first.join(name)), (width, height), "{name}");
        }
    }

    // What was made is the next run's folder, with one more that is no picture.
    fs::create_dir(first.join("more")).unwrap();
    fs::write(first.join("more/broken.png"), "no picture").unwrap();
    fs::write(first.join("notes.txt"), "not looked at").unwrap();
    let finished = example.run("thumbnails", &["--side", "20", "--to", to_second, to_first]);
    let words = "more/broken.png: service `thumbnail` failed: this is no PNG or JPEG file";
    assert_eq!(finished.code, 1);
    assert!(finished.stderr.ends_with(words), "{}", finished.stderr);
    let smaller = sizes(&finished.stdout, &second);
    assert!(smaller.keys().eq(made.keys()), "{}", finished.stdout);
    assert!(smaller.values().all(|&(width, height)| width.max(height) == 20));
    let ledger = example.broker.ledger();
    assert_eq!((ledger.count("ok"), ledger.count("failed")), (12, 1), "{ledger:?}");
}

/// A Python program with arguments; it finds the modules of `examples/python`.
fn python(program: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Process {
    let python = std::env::var_os("PINMESH_PYTHON")
        .map_or_else(|| root().join("target/venv/bin/python"), PathBuf::from);
    assert!(
        python.is_file(),
        "{} is missing: `scripts/test.sh test` makes it, or name a Python with pyzmq and msgpack \
         in PINMESH_PYTHON",
        python.display()
    );
    let mut command = Command::new(python);
    command.arg(program).args(arguments);
    command.env("PYTHONPATH", root().join("examples/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    Process::start(command)
}

fn python_example(program: &str, arguments: &[&str]) -> Process {
    python(&root().join("examples/python").join(program), arguments)
}

/// Asks a worker to leave and waits until it has.
#[track_caller]
fn leave(mut worker: Process) {
    worker.signal(Signal::TERM);
    let finished = worker.wait();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
}

type Summary = BTreeMap<String, f64>;

#[track_caller]
fn assert_summary(client: &Client) {
    let summary: Summary = client.call("summary", &[1.0, 2.0, 3.0, 6.0]).unwrap();
    assert_eq!((summary["mean"], summary["median"]), (3.0, 2.5), "{summary:?}");
}

#[test]
fn the_python_worker_serves_typed_calls_of_the_rust_client() {
    let broker = Broker::start(&[]);
    let worker = python_example("worker.py", &["--backend", &broker.backend]);
    let client = broker.client();
    assert_summary(&client);
    // Long enough for frames of its own.
    let many: Vec<f64> = (0..20_000).map(f64::from).collect();
    let summary: Summary = client.call("summary", &many).unwrap();
    assert_eq!(summary["median"], 9_999.5, "{summary:?}");
    match client.call::<_, Summary>("summary", &[1.0]) {
        Err(Error::Failed { message, .. }) => {
            let words = "StatisticsError: stdev requires at least two data points";
            assert_eq!(message, words);
        }
        other => panic!("{other:?}"),
    }
    leave(worker);
    let ledger = broker.ledger();
    ledger.assert_balanced();
    let counts = ["ok", "failed", "malformed"].map(|name| ledger.count(name));
    assert_eq!(counts, [2, 1, 0], "{ledger:?}");
}

#[test]
fn the_python_worker_goes_on_after_its_broker_was_killed_and_started_again() {
    let mut broker = Broker::start_at(&free_endpoint(), &free_endpoint(), &[]);
    let worker = python_example("worker.py", &["--backend", &broker.backend]);
    let client = broker.client();
    assert_summary(&client);
    let submit =
        |number: u32| client.submit("summary", &[number, number + 2]).expect("the window has room");
    let mut handles: Vec<Handle<Summary>> = (0..2_000).map(submit).collect();
    handles.remove(0).wait().unwrap();
    broker.start_again();
    for (handle, number) in handles.into_iter().zip(1..) {
        assert_eq!(handle.wait().unwrap()["mean"], f64::from(number + 1));
    }
    leave(worker);
    broker.ledger().assert_balanced();
}

#[test]
fn the_python_client_prints_results_and_failures_in_the_order_of_its_inputs() {
    let broker = Broker::start(&[]);
    let worker = python_example("worker.py", &["--backend", &broker.backend]);
    let arguments = ["--frontend", &broker.frontend, "summary", "[1, 2]", "[]", "[5, 5]"];
    let finished = python_example("client.py", &arguments).wait();
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!((finished.code, lines.len()), (1, 3), "{}", finished.stderr);
    assert!(lines[0].starts_with(r#"{"mean": 1.5, "median": 1.5, "#), "{}", lines[0]);
    assert!(lines[1].starts_with("FAILED: StatisticsError: "), "{}", lines[1]);
    assert_eq!(lines[2], r#"{"mean": 5.0, "median": 5.0, "stdev": 0.0}"#);
    leave(worker);
}

#[test]
fn python_peers_speak_to_a_broker_with_keys() {
    let ring = KeyRing::new();
    let flags = ring.broker_flags();
    let broker = Broker::start(&flags.each_ref().map(String::as_str));
    let peer = |program: &str, name: &str, arguments: &[&str]| {
        let keys = ring.peer_flags(name);
        let keys = keys.iter().map(String::as_str);
        python_example(program, &arguments.iter().copied().chain(keys).collect::<Vec<_>>())
    };
    let worker = peer("worker.py", "farm", &["--backend", &broker.backend]);
    let arguments = ["--frontend", &broker.frontend, "summary", "[5, 5]"];
    let finished = peer("client.py", "batch", &arguments).wait();
    let output = r#"{"mean": 5.0, "median": 5.0, "stdev": 0.0}"#;
    assert_eq!((finished.code, &*finished.stdout), (0, output), "{}", finished.stderr);
    leave(worker);
}

/// The first block of a language in README.
#[track_caller]
fn readme_block(language: &str) -> String {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once(&format!("```{language}\n")).expect("README has a block");
    rest.split_once("\n```").expect("the block ends").0.to_owned()
}

#[test]
fn the_python_worker_in_readme_serves() {
    let broker = Broker::start(&[]);
    let code = readme_block("python");
    let endpoint = "tcp://127.0.0.1:5556";
    assert!(code.contains(endpoint), "{code}");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("readme.py");
    fs::write(&program, code.replace(endpoint, &broker.backend)).unwrap();
    let worker = python(&program, [""; 0]);
    let longest: String = broker.client().call("longest", "a mesh of workers").unwrap();
    assert_eq!(longest, "workers");
    leave(worker);
}
