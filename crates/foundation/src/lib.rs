//! What every part of podkit stands on: parameters declared once, the surface that is documented from
//! those declarations, the lifecycle of a process, logs, metrics, and errors with their exit codes.
//!
//! Nothing here opens a socket or knows HTTP: this crate is built first and by everything, so it stays small.

pub mod error;
pub mod fuzz;
pub mod lifecycle;
pub mod params;
pub mod secret;
pub mod surface;
pub mod telemetry;
pub mod yaml;

/// The version of this build, as `podkit --version` shows it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
