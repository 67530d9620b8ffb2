//! Serving nodes: what stands in front of applications; and `echo`, the application to try things on.

pub mod balance;
pub mod chain;
pub mod echo;
mod front;
pub mod limit;
mod page;
