//! Adapters: containers that make any application look the same to the systems that watch it.

mod client;
pub mod metrics;
