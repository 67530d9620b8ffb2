//! Adapters: containers that make any application look the same to the systems that watch it.

pub mod metrics;
