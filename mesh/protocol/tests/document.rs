//! PROTOCOL.md shows true bytes: its examples are golden vectors.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use common::{Direction, catalogue, hex, meaning};
use pinmesh_protocol::limits;
use pinmesh_protocol::status::{EndStatus, RefusedCode, Status};

fn document() -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join("PROTOCOL.md")).unwrap()
}

/// Name and bytes of each block that is fenced as `hex NAME`.
fn examples(document: &str) -> Vec<(String, String)> {
    let mut examples = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else { continue };
        let block = lines.by_ref().take_while(|line| *line != "```");
        let digits = block.flat_map(|line| line.split(';').next().unwrap().split_whitespace());
        examples.push((name.to_string(), digits.collect::<String>()));
    }
    examples
}

#[test]
fn each_example_is_a_golden_vector_and_each_command_has_one() {
    let exact = [Direction::ToBroker, Direction::FromBroker].map(catalogue::exact);
    let vectors: BTreeMap<_, _> =
        exact.iter().flatten().map(|exact| (exact.name, &exact.command)).collect();
    let ops: BTreeSet<_> = vectors.values().map(|command| meaning::meaning(command).0).collect();
    let mut shown = BTreeSet::new();
    for (name, digits) in examples(&document()) {
        let command = vectors.get(&*name).unwrap_or_else(|| panic!("no vector {name}"));
        assert_eq!(digits, hex(&command.encode()), "{name}: run vectors/annotate.py");
        shown.insert(meaning::meaning(command).0);
    }
    assert_eq!(shown, ops);
}

#[test]
fn vectors_that_the_text_names_are_shown() {
    let document = document();
    let names: BTreeSet<_> = examples(&document).into_iter().map(|(name, _)| name).collect();
    let rows =
        document.lines().filter(|line| line.starts_with("| -> |") || line.starts_with("| <- |"));
    let mut count = 0;
    for row in rows {
        let name = row.rsplit('`').nth(1).unwrap_or_else(|| panic!("no vector in {row}"));
        assert!(names.contains(name), "{row}");
        count += 1;
    }
    assert!(count > 10, "{count} rows of conversations");
}

#[test]
fn numbers_and_names_are_those_of_this_crate() {
    let document = document();
    let has = |row: String| assert!(document.contains(&row), "no {row:?} in PROTOCOL.md");
    for status in Status::ALL {
        has(format!("| {} | {} |", status.to_wire(), status.name()));
    }
    for status in EndStatus::ALL {
        has(format!("{} {}", status.to_wire(), status.name()));
    }
    for code in RefusedCode::ALL {
        has(format!("| {} | {} |", code.to_wire(), code.name()));
    }
    let thousands = |number: usize| {
        let digits = number.to_string();
        let groups: Vec<&str> = digits
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(|group| std::str::from_utf8(group).unwrap())
            .collect();
        groups.join(",")
    };
    for limit in [
        limits::FIRST_FRAME_BYTES_MAX,
        limits::BATCH_BYTES,
        limits::INLINE_BYTES_MAX,
        limits::FRAME_BYTES_MAX,
        limits::HEADER_BYTES_MAX,
        limits::OPTIONS_BYTES_MAX,
        limits::SERVICE_BYTES_MAX,
        limits::NAME_BYTES_MAX,
        limits::REASON_BYTES_MAX,
        limits::LIST_MAX,
        limits::WINDOW_TASKS_MAX as usize,
    ] {
        has(thousands(limit));
    }
}
