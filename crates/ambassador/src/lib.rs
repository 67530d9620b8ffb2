//! Ambassadors: containers that stand between the application and the world, so that it sees one simple local service.

pub mod redis;
pub mod shard;
