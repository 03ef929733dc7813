//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Problems shown at once; the rest is counted.
const SHOWN_MAX: usize = 20;
/// Characters of a source line that are shown.
const LINE_CHARS_MAX: usize = 160;

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file, bytes; `None` if it is not in the file.
    pub(super) span: Option<Range<usize>>,
    /// The key or flag, its value, what is wrong and what would be right.
    pub(super) message: String,
}

/// A configuration that cannot be used: every problem that was found, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub(super) path: Option<PathBuf>,
    pub(super) source: String,
    pub(super) problems: Vec<Problem>,
}

impl ConfigError {
    /// How many things are wrong.
    #[must_use]
    pub fn count(&self) -> usize {
        self.problems.len()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(SHOWN_MAX).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match (&problem.span, &self.path) {
                (Some(span), Some(path)) => {
                    let place = Place::of(&self.source, span);
                    write!(f, "{}:{}:{}: ", path.display(), place.line, place.column)?;
                    write!(f, "{}\n{place}", problem.message)?;
                }
                _ => f.write_str(&problem.message)?,
            }
        }
        match self.problems.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            left => write!(f, "\nand {left} more"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A place in a text, counted as people do, from 1.
struct Place<'a> {
    line: usize,
    column: usize,
    text: &'a str,
    carets: usize,
}

impl<'a> Place<'a> {
    fn of(source: &'a str, span: &Range<usize>) -> Self {
        let at = char_boundary(source, span.start);
        let start = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let text = source[start..].lines().next().unwrap_or_default();
        let left = text.chars().count().saturating_sub(source[start..at].chars().count());
        let end = char_boundary(source, span.end.max(at));
        Self {
            line: source[..at].matches('\n').count() + 1,
            column: source[start..at].chars().count() + 1,
            text,
            carets: source[at..end].chars().count().clamp(1, left.max(1)),
        }
    }
}

/// The start of the character that this byte belongs to.
fn char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let shown: String = self.text.chars().take(LINE_CHARS_MAX).collect();
        // A tab before the caret stays a tab, so that the caret stands below its character.
        let indent: String = self.text.chars().take(self.column - 1).collect();
        let indent = indent.replace(|c: char| c != '\t', " ");
        writeln!(f, "{margin} |\n{number} | {shown}")?;
        write!(f, "{margin} | {indent}{}", "^".repeat(self.carets.min(LINE_CHARS_MAX)))
    }
}
