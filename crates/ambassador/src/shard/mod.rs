//! `shard`: one local endpoint in front of many shards.
//!
//! - [`place`]: which shard has a key, and what moves when the shards change.

pub mod place;
