//! What goes over the socket: a line of JSON there, a line of JSON back. One ask a connection; who asked and closes the
//! connection has the command killed.

use serde::{Deserialize, Serialize};

/// Bytes of an ask at most.
pub(super) const ASK_MAX: usize = 65_536;
/// Bytes of a command's output that are kept: the last ones, which say what went wrong.
pub(super) const OUTPUT_MAX: usize = 65_536;
/// Bytes of an answer at most: JSON writes a control character with six.
pub(super) const ANSWER_MAX: u64 = 6 * OUTPUT_MAX as u64 + 4096;

/// A command that should run.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Ask {
    /// The program and its arguments.
    pub(super) words: Vec<String>,
    /// How long it may take; the agent's own limit when that is shorter.
    pub(super) timeout_ms: u64,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    /// The end of what it wrote to standard output and standard error, as it came.
    pub(super) output: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// It ended by itself, with this code.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
    /// It was killed after so many milliseconds.
    TimedOut(u64),
    /// It was not run, and why.
    Refused(String),
}

impl Answer {
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Refused(why.into()),
            output: String::new(),
        }
    }
}
