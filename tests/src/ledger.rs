//! The broker's own account, as it writes it to its log.

use std::collections::BTreeMap;

/// Counts since the broker's start, by the names that the broker gives them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ledger(BTreeMap<String, u64>);

impl Ledger {
    /// Reads `... Ledger { submitted: 1, ... }`; `None`: the line is another one.
    pub fn parse(line: &str) -> Option<Self> {
        let inside = line.split_once("Ledger { ")?.1.split_once(" }")?.0;
        let count = |entry: &str| {
            let (name, value) = entry.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        inside.split(", ").map(count).collect::<Option<_>>().map(Self)
    }

    /// One count.
    ///
    /// # Panics
    /// The broker has no such count.
    pub fn count(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no `{name}` in {self:?}"))
    }

    fn sum(&self, names: &[&str]) -> u64 {
        names.iter().map(|name| self.count(name)).sum()
    }

    /// Every submission has one answer, every accepted task one outcome or is held.
    ///
    /// # Panics
    /// The sums do not agree.
    #[track_caller]
    pub fn assert_balanced(&self) {
        let answers = ["busy", "refused", "joined", "ignored", "stale", "accepted"];
        assert_eq!(self.count("submitted"), self.sum(&answers), "{self:?}");
        let outcomes = [
            "ok",
            "failed",
            "expired",
            "timed_out",
            "crashed",
            "cancelled",
            "lost",
            "no_service",
            "held",
        ];
        assert_eq!(self.sum(&["accepted", "replayed"]), self.sum(&outcomes), "{self:?}");
        let letters = ["dead_dropped", "dead_purged", "replayed", "dead_held"];
        assert_eq!(self.count("dead"), self.sum(&letters), "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_is_found_in_a_line_of_the_log() {
        let line =
            "2026-01-01T00:00:00Z  INFO pinmesh_broker::event_loop: Ledger { ok: 3, held: 0 }";
        let ledger = Ledger::parse(line).unwrap();
        assert_eq!((ledger.count("ok"), ledger.count("held")), (3, 0));
        assert_eq!(Ledger::parse("Counts { pending: 0 }"), None);
    }
}
