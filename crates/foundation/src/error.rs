//! How a start can fail, and the exit code that says so.
//!
//! Libraries have small error types of their own; whatever ends a process is turned into a [`Failure`]
//! at the edge, once, so that every module exits alike.

use std::fmt;

use crate::params::ParamError;
use crate::secret::masked;

/// Why a process ends without having done its job, with its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// What the user gave is wrong: exit 2, before anything listens. One line that says what is wrong,
    /// where, and what would be right.
    Usage(String),
    /// A parameter is wrong: likewise.
    Parameter(ParamError),
    /// The machine or a peer did not play along: exit 1.
    Runtime(String),
}

impl Failure {
    /// The exit code of the process: 2 for bad input, 1 for a failure at run time.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Parameter(_) => 2,
            Self::Runtime(_) => 1,
        }
    }

    /// A failure at run time: what was being done, and what came of it.
    pub fn runtime(doing: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self::Runtime(format!("{doing}: {cause}"))
    }
}

/// Without the passwords that somebody wrote into a URL.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(line) | Self::Runtime(line) => f.write_str(&masked(line)),
            Self::Parameter(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<ParamError> for Failure {
    fn from(error: ParamError) -> Self {
        Self::Parameter(error)
    }
}
