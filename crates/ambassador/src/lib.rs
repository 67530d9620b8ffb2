//! Ambassadors: containers that stand between the application and the world, so that it sees one simple local service.
//!
//! What they have in common is in `clients` (listeners and threads) and `servers` (connections and passwords), and what servers say of commands in `known`.

mod clients;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod known;
pub mod redis;
mod servers;
pub mod shard;
