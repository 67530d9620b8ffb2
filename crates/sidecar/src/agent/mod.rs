//! `agent`: the first process of an application's container. It runs the application, and for the sidecars of the pod the
//! validations and reloads that it allows, in the application's own file system and as its user.
//!
//! ```text
//!   sidecar ──unix socket──▶ serve ──allow──▶ run ──▶ nginx -t …       in a process group of its own, with a deadline
//!                                              │
//!   signals ──▶ life ──────────────────────────┴────▶ the application  its exit code is the agent's
//!                 └── reaps whatever ended
//! ```
//!
//! Not a module of the contract: its signals and its exit code are the application's, and it must weigh nothing beside it,
//! so there is no admin server. One thread does it all, which is what makes a process id safe: nothing is reaped while
//! something else is about to signal it.

mod allow;
pub mod client;
mod life;
mod output;
mod params;
mod run;
mod serve;
mod wire;

#[cfg(test)]
mod tests;

pub use life::run;
pub use params::AgentParams;

/// What `podkit agent --help` says below the flags.
pub const HELP: &str = "\
Signals go on to the application; the exit code is the application's, or 128 and the number of the signal that ended it; 127 when \
there is no such program, 126 when it can't be executed. A rule of --allow is a command line: * as a word stands for one word, as \
the last word for all that follow, and no shell is involved. docs/agent.md has the rules and the protocol.";
