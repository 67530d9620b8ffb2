//! Serving nodes: what stands in front of applications; and `echo`, the application to try things on.

pub mod balance;
pub mod chain;
pub mod echo;
mod front;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod limit;
mod page;
