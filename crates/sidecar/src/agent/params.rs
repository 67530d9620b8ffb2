//! What can be set: these declarations are the flags and the variables.

use std::path::PathBuf;
use std::time::Duration;

use podkit_foundation::params;
use podkit_foundation::telemetry::log::{LogFormat, LogLevel};

use super::allow::Rule;

params! {
    /// The parameters of `agent`.
    pub struct AgentParams {
        /// The unix socket on which sidecars ask, in a volume that they share.
        ///
        /// Whoever can reach the file may ask: give the directory to nobody else.
        socket: PathBuf { default: Some("/run/podkit-agent/agent.sock") },
        /// A command that sidecars may have run, such as 'nginx -t *'; nothing else runs.
        ///
        /// Split into words as a shell does (quotes count, nothing is expanded). A word `*` stands for any one word, as the
        /// last word for all words that follow, none included. The variable holds one rule.
        allow: Vec<Rule> { commas: false },
        /// The user ids that may ask, as this container sees them; everybody who reaches the socket when not given.
        allow_uid: Vec<u32> {},
        /// How long a command may take, unless the asker wants it shorter; then its process group is killed.
        timeout: Duration { default: Some("30s"), bounds: Some((100, 3_600_000)) },
        /// Askers at a time; one more is refused.
        max_asks: u32 { default: Some("4"), bounds: Some((1, 1_000)) },
        /// How much is logged.
        log_level: LogLevel { default: Some("info") },
        /// Form of the log lines; text when standard error is a terminal, else JSON.
        log_format: Option<LogFormat> {},
    }
}
