//! Answers of the admin API for people.

use std::fmt::Write as _;

use serde_json::Value;

pub(super) fn services(services: &[Value]) -> String {
    let rows = services.iter().map(|service| {
        let limits = &service["limits"];
        let state = match (service["paused"].as_bool(), number(&service["next_token_ns"])) {
            (Some(true), _) => "paused".to_owned(),
            (_, Some(wait)) => format!("rate, {} more", duration(wait)),
            _ if service["in_flight"].as_u64() >= limits["in_flight_max"].as_u64() => {
                "at its cap".to_owned()
            }
            _ if number(&service["workers"]) == Some(0) => "no worker".to_owned(),
            _ => "open".to_owned(),
        };
        let oldest = number(&service["oldest_wait_ns"]).map_or("-".to_owned(), duration);
        [
            text(&service["name"]),
            text(&service["pending"]),
            oldest,
            text(&service["in_flight"]),
            text(&service["workers"]),
            state,
        ]
    });
    table(["SERVICE", "PENDING", "OLDEST", "IN FLIGHT", "WORKERS", "STATE"], rows)
}

pub(super) fn workers(workers: &[Value]) -> String {
    let rows = workers.iter().map(|worker| {
        let host = match (worker["host_name"].as_str(), worker["host"].as_str()) {
            (Some(name), _) => name.to_owned(),
            (None, Some(id)) => id.get(..8).unwrap_or(id).to_owned(),
            (None, None) => "-".to_owned(),
        };
        let services = worker["services"].as_array().map_or(&[][..], Vec::as_slice);
        let services: Vec<_> = services.iter().filter_map(Value::as_str).collect();
        let labels = worker["labels"].as_array().map_or(&[][..], Vec::as_slice);
        let labels: Vec<_> = labels.iter().filter_map(Value::as_str).collect();
        [
            host,
            text(&worker["slot"]),
            text(&worker["cpu"]),
            text(&worker["state"]),
            format!("{}/{}", text(&worker["in_flight"]), text(&worker["window_tasks"])),
            services.join(","),
            if labels.is_empty() { "-".to_owned() } else { labels.join(",") },
            text(&worker["id"]),
        ]
    });
    table(["HOST", "SLOT", "CPU", "STATE", "IN FLIGHT", "SERVICES", "LABELS", "ID"], rows)
}

pub(super) fn hosts(hosts: &[Value]) -> String {
    let rows = hosts.iter().map(|host| {
        let yes = |key: &str| if host[key] == true { "yes" } else { "no" }.to_owned();
        [text(&host["name"]), yes("connected"), yes("has_lease"), text(&host["id"])]
    });
    table(["HOST", "CONNECTED", "LEASE", "ID"], rows)
}

pub(super) fn clients(clients: &[Value]) -> String {
    let rows = clients.iter().map(|client| {
        let connected = if client["connected"] == true { "yes" } else { "no" };
        [
            text(&client["name"]),
            connected.to_owned(),
            text(&client["tasks"]),
            text(&client["results"]),
            text(&client["bytes"]),
            text(&client["id"]),
        ]
    });
    table(["CLIENT", "CONNECTED", "TASKS", "RESULTS", "BYTES", "ID"], rows)
}

pub(super) fn tasks(tasks: &[Value]) -> String {
    let rows = tasks.iter().map(|task| {
        [
            text(&task["task"]),
            state(task),
            text(&task["tries"]),
            text(&task["client"]),
            text(&task["request"]),
            text(&task["worker"]),
        ]
    });
    table(["TASK", "STATE", "TRIES", "CLIENT", "REQUEST", "WORKER"], rows)
}

pub(super) fn letters(letters: &[Value]) -> String {
    let rows = letters.iter().map(|letter| {
        [
            text(&letter["letter"]),
            number(&letter["died_ns_ago"]).map_or("?".to_owned(), duration),
            text(&letter["service"]),
            text(&letter["status"]),
            death(letter),
            text(&letter["tries"]),
            text(&letter["client_name"]),
            text(&letter["bytes"]),
        ]
    });
    table(["LETTER", "DIED AGO", "SERVICE", "STATUS", "REASON", "TRIES", "CLIENT", "BYTES"], rows)
}

pub(super) fn letter(letter: &Value) -> String {
    let ago = |key: &str| number(&letter[key]).map_or("?".to_owned(), duration);
    let mut lines = format!(
        "dead letter {} of service {}, priority {}: {} ({}), died {} ago\n",
        text(&letter["letter"]),
        text(&letter["service"]),
        text(&letter["priority"]),
        text(&letter["status"]),
        death(letter),
        ago("died_ns_ago"),
    );
    let mut line = |text: String| lines.push_str(&format!("  {text}\n"));
    line(format!(
        "request {} of client {} ({}), came in {} ago",
        text(&letter["request"]),
        text(&letter["client_name"]),
        text(&letter["client"]),
        ago("received_ns_ago"),
    ));
    line(format!(
        "{} starts ended badly, {} of them by its worker's death",
        text(&letter["tries"]),
        text(&letter["crashes"])
    ));
    if let Some(first) = number(&letter["replay_of"]) {
        line(format!("a replay of dead letter {first}"));
    }
    line(format!("last error: {}", text(&letter["error"]).trim_end()));
    lines
}

/// The reason of a death, with its exit code or signal.
fn death(letter: &Value) -> String {
    match letter["detail"].as_i64() {
        Some(detail) => format!("{} {detail}", text(&letter["reason"])),
        None => text(&letter["reason"]),
    }
}

pub(super) fn ledger(ledger: &Value) -> String {
    let mut lines = String::new();
    for (name, value) in ledger.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(now) => now.iter().for_each(|(name, value)| {
                let _ = writeln!(lines, "{:<14} {value}", format!("now {name}"));
            }),
            None => {
                let _ = writeln!(lines, "{name:<14} {value}");
            }
        }
    }
    lines
}

pub(super) fn explanation(task: &Value) -> String {
    let mut lines = format!(
        "task {} of service {}, priority {}: {}, came in {} ago\n",
        text(&task["task"]),
        text(&task["service"]),
        text(&task["priority"]),
        state(task),
        number(&task["age_ns"]).map_or("?".to_owned(), duration),
    );
    let mut line = |text: String| lines.push_str(&format!("  {text}\n"));
    if let Some(ahead) = number(&task["ahead"]) {
        let least = if task["ahead_is_at_least"] == true { "at least " } else { "" };
        line(format!("{least}{ahead} of its client, service and priority are before it"));
    }
    for obstacle in task["waits_for"].as_array().into_iter().flatten() {
        line(obstacle_words(obstacle, &text(&task["service"])));
    }
    if let Some(letter) = number(&task["replay_of"]) {
        line(format!("a replay of dead letter {letter}"));
    }
    if let Some(worker) = task["worker"].as_str() {
        let sent = number(&task["sent_ns_ago"]).map_or("?".to_owned(), duration);
        line(format!("worker {worker} has it, sent {sent} ago"));
    }
    if let Some(left) = number(&task["deadline_ns"]) {
        line(format!("its result is wanted for {} more", duration(left)));
    }
    line(format!(
        "sent {} times, {} starts ended badly",
        text(&task["dispatches"]),
        text(&task["tries"])
    ));
    lines
}

fn obstacle_words(obstacle: &Value, service: &str) -> String {
    match obstacle["reason"].as_str() {
        Some("paused") => {
            format!("waits: its service is paused; `pinmesh resume {service}` lets it go on")
        }
        Some("in_flight_max") => {
            let max = text(&obstacle["max"]);
            format!("waits: its service has {max} in flight, as many as in_flight_max allows")
        }
        Some("rate") => {
            let wait = number(&obstacle["next_token_ns"]).map_or("?".to_owned(), duration);
            format!("waits: the rate of its service allows the next one in {wait}")
        }
        Some("no_worker") => {
            format!("waits: nobody serves {service}; start a worker, or check the name")
        }
        Some("no_free_worker") => {
            let workers = obstacle["workers"].as_object().into_iter().flatten();
            let counts: Vec<_> = workers.map(|(state, count)| format!("{count} {state}")).collect();
            format!("waits: no worker that serves it is free: {}", counts.join(", "))
        }
        _ => format!("waits: {obstacle}"),
    }
}

fn state(task: &Value) -> String {
    let state = text(&task["state"]).replace('_', " ");
    match task["status"].as_str() {
        Some(status) => format!("{state} {status}"),
        None => state,
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Three digits or so: people compare, they do not count.
fn duration(ns: u64) -> String {
    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;
    match ns {
        0..MS => format!("{} us", ns / 1_000),
        MS..S => format!("{} ms", ns / MS),
        ns if ns < 100 * S => format!("{}.{} s", ns / S, ns % S / (100 * MS)),
        ns => {
            let seconds = std::time::Duration::from_secs(ns / S);
            humantime::format_duration(seconds).to_string()
        }
    }
}

/// Columns as wide as they need to be; numbers are told apart by nothing, so that a name that is
/// one stays on its side.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.collect();
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([head[at].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut lines = String::new();
    let head = head.map(str::to_owned);
    for row in std::iter::once(&head).chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_as_wide_as_its_widest_cell() {
        let shown =
            table(["A", "BB"], [["x".into(), "1".into()], ["long".into(), "2".into()]].into_iter());
        assert_eq!(shown, "A     BB\nx     1\nlong  2\n");
    }

    #[test]
    fn a_dead_letter_says_what_killed_it() {
        let shown = json!({
            "letter": 7, "service": "work", "priority": 5, "status": "CRASHED",
            "reason": "signalled", "detail": 6, "died_ns_ago": 2_000_000_000_u64,
            "received_ns_ago": 3_000_000_000_u64, "request": "4", "client": "00ff",
            "client_name": "ann@farm", "tries": 3, "crashes": 3, "replay_of": 2,
            "error": "the worker was killed by signal 6", "bytes": 10,
        });
        let words = letter(&shown);
        let first =
            "dead letter 7 of service work, priority 5: CRASHED (signalled 6), died 2.0 s ago";
        assert!(words.starts_with(first), "{words}");
        assert!(words.contains("a replay of dead letter 2"), "{words}");
        assert!(words.contains("last error: the worker was killed by signal 6\n"), "{words}");
        let row = letters(&[shown]);
        assert!(row.ends_with("work     CRASHED  signalled 6  3      ann@farm  10\n"), "{row}");
    }

    #[test]
    fn durations_are_short() {
        for (ns, shown) in [
            (999, "0 us"),
            (1_500_000, "1 ms"),
            (1_250_000_000, "1.2 s"),
            (99_900_000_000, "99.9 s"),
            (7_200_000_000_000, "2h"),
        ] {
            assert_eq!(duration(ns), shown);
        }
    }

    #[test]
    fn an_explanation_names_the_remedy() {
        let task = json!({
            "task": "7", "service": "work", "priority": 5, "state": "pending", "status": null,
            "age_ns": 2_000_000_000_u64, "ahead": 10_000, "ahead_is_at_least": true,
            "waits_for": [{ "reason": "paused" }], "worker": null, "deadline_ns": null,
            "dispatches": 0, "tries": 0,
        });
        let shown = explanation(&task);
        assert!(shown.contains("task 7 of service work, priority 5: pending, came in 2.0 s ago"));
        assert!(shown.contains("at least 10000 of its client"), "{shown}");
        assert!(shown.contains("`pinmesh resume work`"), "{shown}");
    }
}
