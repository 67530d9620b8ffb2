//! Why a pull did not work, and whether it may the next time.

use std::fmt;
use std::io;
use std::time::Duration;

/// One line for people.
#[derive(Debug)]
pub(in crate::image) struct PullError {
    message: String,
    /// Trying again may help: the connection broke, the registry was busy.
    pub(in crate::image) transient: bool,
    /// When the other side said when.
    pub(in crate::image) retry_after: Option<Duration>,
}

impl PullError {
    pub(in crate::image) fn fatal(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            transient: false,
            retry_after: None,
        }
    }

    pub(in crate::image) fn transient(message: impl fmt::Display) -> Self {
        Self {
            transient: true,
            ..Self::fatal(message)
        }
    }

    /// The same with what was being done.
    pub(in crate::image) fn doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for PullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PullError {}

impl From<io::Error> for PullError {
    fn from(error: io::Error) -> Self {
        Self::fatal(error)
    }
}
