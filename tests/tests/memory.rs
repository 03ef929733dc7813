//! The broker's memory is bounded by its configuration: filled with tasks of every size until it
//! says BUSY, it stays within the formula of docs/memory.md.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_client::{Client, Error};
use pinmesh_tests::{Broker, LIMIT, Mesh, eventually, turn};

/// `limits.memory` of these brokers.
const MEMORY_MIB: u64 = 64;
/// What docs/memory.md allows: a quarter more for what the allocator loses, and so much for code,
/// sessions and idle boxes.
const BOUND_MIB: u64 = MEMORY_MIB + MEMORY_MIB / 4 + 32;
const CLIENT_WINDOW: u64 = 10_000;

fn resident_kib(broker: &Broker) -> u64 {
    let path = format!("/proc/{}/status", broker.process.pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

/// Hands tasks of so many bytes in, by as many clients as it takes, until the broker is full.
fn fill(broker: &Broker, payload_bytes: usize) -> (Vec<Client>, u64) {
    let mut clients = Vec::new();
    let mut handed_in = 0;
    while broker.ledger().count("busy") == 0 {
        let client = broker.client();
        let queue = client.completions();
        let task = client.task("nobody-serves-it").show_busy();
        for _ in 0..CLIENT_WINDOW {
            match task.try_submit_raw_to(&queue, 0, vec![7; payload_bytes]) {
                Ok(_) => handed_in += 1,
                // Its window of bytes.
                Err(Error::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        clients.push(client);
        // Once it has said BUSY the client keeps the rest from it.
        eventually("the broker is full, or has read them all", LIMIT, || {
            let ledger = broker.ledger();
            ledger.count("busy") > 0 || ledger.count("submitted") == handed_in
        });
    }
    (clients, broker.ledger().count("accepted"))
}

#[test]
fn a_broker_that_is_full_of_tasks_stays_within_its_formula() {
    let _turn = turn();
    for payload_bytes in [0, 65, 1_025, 4_097, 33_000, 1 << 20] {
        let memory = format!("{MEMORY_MIB}MiB");
        let flags = ["--memory", &memory, "--service-wait", "1h", "--client-window", "10000"];
        let broker = Broker::start(&flags);
        let (_clients, accepted) = fill(&broker, payload_bytes);
        let bound_kib = BOUND_MIB << 10;
        let resident = resident_kib(&broker);
        println!("{payload_bytes} bytes: {accepted} tasks, {resident} KiB of {bound_kib}");
        assert!(resident <= bound_kib, "{payload_bytes} bytes: {resident} KiB, not {bound_kib}");
        // It was really filled.
        let counted = accepted * (payload_bytes as u64 + 512);
        assert!(counted > (MEMORY_MIB << 20) / 2, "{payload_bytes} bytes: {accepted} tasks");
    }
}

#[test]
fn a_broker_that_is_full_of_dead_letters_stays_within_its_formula() {
    let _turn = turn();
    let bytes = format!("{MEMORY_MIB}MiB");
    let flags = ["--dead-bytes", &bytes, "--dead-letters", "1000000"];
    let mesh = Mesh::start(1, &flags);
    let folder = tempfile::tempdir().unwrap();
    let (lines, errors) = (folder.path().join("lines"), folder.path().join("errors"));
    let (lines, errors) = (lines.to_str().unwrap(), errors.to_str().unwrap());
    // Each with a letter more than there is room for; none of them is what zstd compresses to.
    for line_bytes in [1, 20_000] {
        let count = (MEMORY_MIB << 20) / (1_024 + line_bytes) + 1;
        let line = "x".repeat(line_bytes as usize) + "\n";
        std::fs::write(lines, line.repeat(count as usize)).unwrap();
        let map = ["map", "unzstd", "--lines", lines, "--errors", errors, "--tries", "1"];
        assert_eq!(mesh.pinmesh(map).code, 1, "all of them fail");
        let ledger = mesh.broker.ledger();
        let (held, dropped) = (ledger.count("dead_held"), ledger.count("dead_dropped"));
        let resident = resident_kib(&mesh.broker);
        println!("{line_bytes} bytes: {held} letters held, {dropped} dropped, {resident} KiB");
        assert!(dropped > 0 && held > count / 2, "{line_bytes} bytes: {ledger:?}");
        // The boxes that the pool keeps count beside it.
        let bound_kib = (BOUND_MIB + 64) << 10;
        assert!(resident <= bound_kib, "{line_bytes} bytes: {resident} KiB, not {bound_kib}");
    }
}
