//! Ambassadors: containers that stand between the application and the world, so that it sees one simple local service.

#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod redis;
pub mod shard;
