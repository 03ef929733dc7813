//! The words of a line, read from left to right.

use crate::clock::{MS, S, US};

/// What is left of a line.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    /// Commas and colons are words of their own.
    pub(super) fn new(text: &'a str) -> Self {
        let mut words = Vec::new();
        for word in text.split_whitespace() {
            let bare = word.trim_end_matches([',', ':']);
            words.extend([bare, &word[bare.len()..]].into_iter().filter(|part| !part.is_empty()));
        }
        Self { words, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    /// The next word.
    pub(super) fn next(&mut self, what: &str) -> Result<&'a str, String> {
        let word = self.peek().ok_or_else(|| format!("{what} is missing at the end"))?;
        self.at += 1;
        Ok(word)
    }

    /// Takes these words if they come next.
    pub(super) fn take(&mut self, phrase: &str) -> bool {
        let words: Vec<_> = phrase.split(' ').collect();
        let is_next = self.words[self.at..].starts_with(&words);
        if is_next {
            self.at += words.len();
        }
        is_next
    }

    /// These words must come next.
    pub(super) fn need(&mut self, phrase: &str) -> Result<(), String> {
        if self.take(phrase) { Ok(()) } else { Err(self.unknown(phrase)) }
    }

    /// What to say of a word that does not belong there.
    pub(super) fn unknown(&self, wanted: &str) -> String {
        match self.peek() {
            Some(word) => format!("{word:?} where {wanted} should be"),
            None => format!("{wanted} is missing at the end"),
        }
    }

    /// Words up to the next comma, or all that are left.
    pub(super) fn up_to_comma(&mut self) -> Vec<&'a str> {
        let rest = &self.words[self.at..];
        let len = rest.iter().position(|word| *word == ",").unwrap_or(rest.len());
        self.at += len;
        rest[..len].to_vec()
    }

    pub(super) fn end(&self) -> Result<(), String> {
        self.peek().map_or(Ok(()), |word| Err(format!("{word:?} is one word too many")))
    }

    pub(super) fn number(&mut self) -> Result<u64, String> {
        let word = self.next("a number")?;
        word.parse().map_err(|_| format!("{word:?} is no number"))
    }

    /// A length of time, nanoseconds.
    pub(super) fn duration(&mut self) -> Result<u64, String> {
        let number = self.number()?;
        let unit = match self.next("a unit of time")? {
            "us" => US,
            "ms" => MS,
            "s" => S,
            "min" => 60 * S,
            other => return Err(format!("{other:?} is no unit of time: us, ms, s, min")),
        };
        Ok(number * unit)
    }

    pub(super) fn bytes(&mut self) -> Result<u64, String> {
        let number = self.number()?;
        let unit = match self.next("B, kB or MB")? {
            "B" => 1,
            "kB" => 1_000,
            "MB" => 1_000_000,
            other => return Err(format!("{other:?} is no unit of bytes: B, kB, MB")),
        };
        Ok(number * unit)
    }
}
