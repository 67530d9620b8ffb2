//! A Redis Cluster as one Redis, for clients that know nothing of clusters.
//!
//! ```text
//!   client ─▶ command ─▶ slot of its keys ─▶ shard ─▶ its primary or a replica, as without a cluster
//!                 ▲          │ several: in parts, whose replies become one
//!                 └─ MOVED, ASK, TRYAGAIN ◀─┘  it was not done: it goes where it belongs
//!   main thread: asks a node who has which slots ─▶ the map; each shard's servers what they are and how far
//! ```
//!
//! A shard is what a primary and its replicas are without a cluster: the same code finds its primary, keeps its fences, holds what waits.
//!
//! - [`said`]: what nodes say; [`map`]: who has which slots; [`finder`] asks;
//! - [`nodes`], [`over`]: where a command of a worker's client goes.

mod finder;
#[cfg(any(test, feature = "fuzz"))]
pub(in crate::redis) mod fuzz;
mod map;
mod nodes;
mod over;
mod said;
#[cfg(test)]
mod tests;

pub(super) use finder::Finder;
pub(super) use map::{Cluster, Shard};
pub(super) use nodes::Nodes;
pub(super) use over::Over;
