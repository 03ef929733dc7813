//! `dead`: tasks that failed for good, listed, shown, run again, thrown away.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::http::{Api, segment};
use super::{Admin, list, print, show};
use crate::failure::{Failure, OK, TASK_FAILED};

/// Bytes of a payload that are shown of one that is no text.
const HEX_BYTES: usize = 64;
/// Bytes of a payload that are shown of one that is.
const TEXT_BYTES: usize = 4 * 1_024;

/// Why a task died.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Reason {
    /// Its handler returned an error
    Failed,
    /// It ran longer than its max runtime
    TimedOut,
    /// Its worker died, however
    Crashed,
    /// Its worker exited
    Exited,
    /// A signal ended its worker
    Signalled,
    /// The kernel killed its worker for want of memory
    OutOfMemory,
    /// Its worker, which has no supervisor, fell silent
    Silent,
    /// It was a replay, and nobody served it
    NoService,
}

#[derive(Debug, Args)]
struct Filter {
    /// Only those of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only those that died of this
    #[arg(long, value_enum, value_name = "REASON")]
    reason: Option<Reason>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true))]
struct Which {
    /// Its number, as `pinmesh dead list` shows it
    #[arg(group = "which", conflicts_with_all = ["service", "reason", "all"])]
    letter: Option<u64>,
    /// Those of this service
    #[arg(long, value_name = "SERVICE", group = "which", conflicts_with = "all")]
    service: Option<String>,
    /// Those that died of this
    #[arg(long, value_enum, value_name = "REASON", group = "which", conflicts_with = "all")]
    reason: Option<Reason>,
    /// All of them
    #[arg(long, group = "which")]
    all: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List them, the oldest first
    List(Filter),
    /// Show one, with its last error and its payload
    Show {
        /// Its number, as `pinmesh dead list` shows it
        letter: u64,
        /// Write its payload, as it is, to this file, `-` for standard output, and show nothing else
        #[arg(long, value_name = "FILE")]
        payload: Option<PathBuf>,
    },
    /// Run them again: as new tasks with the same payload, options and priority, but without a
    /// deadline; nobody is told of their end
    Replay(Which),
    /// Throw them away
    Purge(Which),
}

#[derive(Debug, Args)]
pub(crate) struct Dead {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    admin: Admin,
}

pub(crate) fn dead(args: &Dead) -> Result<u8, Failure> {
    let admin = &args.admin;
    match &args.what {
        What::List(filter) => {
            let query = query(filter.service.as_deref(), filter.reason);
            list(admin, ("letters", &format!("/v1/dead{query}")), show::letters)
        }
        What::Show { letter, payload: Some(file) } => {
            write_payload(&Api::new(&admin.http)?, *letter, file)
        }
        What::Show { letter, payload: None } => {
            let api = Api::new(&admin.http)?;
            let answer = api.get(&format!("/v1/dead/{letter}"))?;
            let beginning = match admin.output {
                super::Output::Table => api.get_bytes(&format!("/v1/dead/{letter}/payload"))?,
                super::Output::Json => Vec::new(),
            };
            print(admin, &answer, |answer| {
                show::letter(answer) + &payload_words(&beginning, &answer["bytes"])
            })
        }
        What::Replay(which) => replay(admin, which),
        What::Purge(which) => {
            let answer = Api::new(&admin.http)?.post(&path(which, "purge"))?;
            print(admin, &answer, |answer| format!("{} purged\n", letters(&answer["purged"])))
        }
    }
}

fn replay(admin: &Admin, which: &Which) -> Result<u8, Failure> {
    let answer = Api::new(&admin.http)?.post(&path(which, "replay"))?;
    let without_room = answer["no_room"].as_u64().unwrap_or_default();
    let code = print(admin, &answer, |answer| {
        let replayed = format!("{} replayed\n", letters(&answer["replayed"]));
        match without_room {
            0 => replayed,
            _ => format!(
                "{replayed}{} stay: there is no room for their tasks at the moment; try again \
                 when fewer wait\n",
                letters(&answer["no_room"])
            ),
        }
    })?;
    Ok(if without_room > 0 { TASK_FAILED } else { code })
}

fn letters(count: &Value) -> String {
    match count.as_u64() {
        Some(1) => "1 dead letter".to_owned(),
        count => format!("{} dead letters", count.unwrap_or_default()),
    }
}

fn path(which: &Which, verb: &str) -> String {
    match which.letter {
        Some(letter) => format!("/v1/dead/{letter}/{verb}"),
        None if which.all => format!("/v1/dead/{verb}?all=true"),
        None => format!("/v1/dead/{verb}{}", query(which.service.as_deref(), which.reason)),
    }
}

fn query(service: Option<&str>, reason: Option<Reason>) -> String {
    let service = service.map(|service| format!("service={}", segment(service)));
    let reason = reason
        .and_then(|reason| Some(format!("reason={}", reason.to_possible_value()?.get_name())));
    let words: Vec<String> = service.into_iter().chain(reason).collect();
    if words.is_empty() { String::new() } else { format!("?{}", words.join("&")) }
}

/// Part by part, as the broker gives it.
fn write_payload(api: &Api, letter: u64, file: &Path) -> Result<u8, Failure> {
    let answer = api.get(&format!("/v1/dead/{letter}"))?;
    let bytes = answer["bytes"].as_u64().unwrap_or_default();
    let is_standard = file == Path::new("-");
    let failed = |error: &io::Error| match is_standard {
        true => Failure::output(error),
        false => Failure::file(file, error),
    };
    let mut out: Box<dyn Write> = match is_standard {
        true => Box::new(io::stdout().lock()),
        false => Box::new(File::create(file).map_err(|error| failed(&error))?),
    };
    let mut written = 0;
    while written < bytes {
        let part = api.get_bytes(&format!("/v1/dead/{letter}/payload?from={written}"))?;
        if part.is_empty() {
            return Err(Failure::task(format!("dead letter {letter} ends after {written} bytes")));
        }
        out.write_all(&part).map_err(|error| failed(&error))?;
        written += part.len() as u64;
    }
    out.flush().map_err(|error| failed(&error))?;
    Ok(OK)
}

/// A payload for people: text as it is, of anything else how long it is and how it begins.
fn payload_words(beginning: &[u8], bytes: &Value) -> String {
    let whole = bytes.as_u64().unwrap_or_default();
    let shown = &beginning[..beginning.len().min(TEXT_BYTES)];
    let more = |shown: usize| if whole > shown as u64 { " ..." } else { "" };
    let text = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        // Cut in the midst of a character.
        Err(error) if error.error_len().is_none() && whole > shown.len() as u64 => {
            std::str::from_utf8(&shown[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let is_plain = |char: char| !char.is_control() || matches!(char, '\t' | '\n' | '\r');
    match text.filter(|text| text.chars().all(is_plain)) {
        Some("") => "  payload: 0 bytes\n".to_owned(),
        Some(text) => {
            let lines: Vec<_> = text.lines().map(|line| format!("    {line}")).collect();
            format!("  payload, {whole} bytes:\n{}{}\n", lines.join("\n"), more(shown.len()))
        }
        None => {
            let hex: Vec<_> =
                shown.iter().take(HEX_BYTES).map(|byte| format!("{byte:02x}")).collect();
            format!("  payload, {whole} bytes: {}{}\n", hex.join(" "), more(hex.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_payload_is_shown_as_text_or_as_its_first_bytes() {
        let words = |bytes: &[u8], whole: u64| payload_words(bytes, &json!(whole));
        assert_eq!(words(b"a\nb\n", 4), "  payload, 4 bytes:\n    a\n    b\n");
        assert_eq!(words(b"", 0), "  payload: 0 bytes\n");
        assert_eq!(words(&[0, 255], 2), "  payload, 2 bytes: 00 ff\n");
        assert_eq!(words(&[0x1b; 100], 100).matches("1b").count(), HEX_BYTES);
        assert!(words(&[0x1b; 100], 100).ends_with(" ...\n"));
        let long = "ä".repeat(TEXT_BYTES);
        let shown = words(format!("a{long}").as_bytes(), 1 + 2 * TEXT_BYTES as u64);
        assert!(shown.contains("aää") && shown.ends_with("ä ...\n"), "{shown}");
    }

    #[test]
    fn what_is_meant_is_asked_for() {
        let which = |service: Option<&str>, reason, all, letter| Which {
            service: service.map(str::to_owned),
            reason,
            all,
            letter,
        };
        for (which, path_of_it) in [
            (which(None, None, false, Some(7)), "/v1/dead/7/purge"),
            (which(None, None, true, None), "/v1/dead/purge?all=true"),
            (which(Some("a b"), None, false, None), "/v1/dead/purge?service=a%20b"),
            (
                which(Some("x"), Some(Reason::OutOfMemory), false, None),
                "/v1/dead/purge?service=x&reason=out-of-memory",
            ),
        ] {
            assert_eq!(path(&which, "purge"), path_of_it);
        }
    }
}
