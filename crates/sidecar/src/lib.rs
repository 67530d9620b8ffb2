//! Sidecars: containers that extend and improve the one they stand beside, which doesn't know of them.

pub mod agent;
pub mod config;
mod dial;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod git;
mod proxy;
pub mod publish;
pub mod tls;
pub mod topz;
