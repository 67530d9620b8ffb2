//! What a process tells of itself: log lines on standard error and metrics in both text formats.

pub mod log;
pub mod metrics;
