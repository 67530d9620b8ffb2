//! Adapters: containers that make any application look the same to the systems that watch it.

mod client;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod health;
pub mod metrics;
