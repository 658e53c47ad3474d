//! What is wrong with a query.

use std::fmt;

/// Why a text is no query, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueryError {
    /// The offset into the text, in bytes.
    pub(crate) position: usize,
    /// What is wrong; where is in [`fmt::Display`].
    pub(crate) message: String,
    line: usize,
    column: usize,
}

impl QueryError {
    pub(super) fn new(text: &str, position: usize, message: String) -> Self {
        let before = text.get(..position).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            position,
            message,
            line: before.matches('\n').count() + 1,
            column: before.get(start..).map_or(0, |line| line.chars().count()) + 1,
        }
    }
}

/// The message with line and column, both from 1, in characters.
impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (line {}, column {})",
            self.message, self.line, self.column
        )
    }
}

impl std::error::Error for QueryError {}
