//! The publish engine of `config` and `git-sync`: a whole set of files at once, or none of it.
//!
//! ```text
//!   stage ─▶ guards ─▶ owner, mode ─▶ validate ─▶ fsync ─▶ swap ─▶ reload ─▶ confirm ─▶ published
//!              │            │            │                   ▲        │          │
//!              └────────────┴────────────┴─▶ refused         └────────┴──────────┴─▶ the former version, reloaded
//! ```
//!
//! A version is a directory of its own that never changes once it is named; one rename makes it the present one. What a
//! crash leaves is a complete tree at any moment: a journal says what a swap was about to do, and [`Engine::open`] goes on
//! from there. Everything here blocks: call it from a thread that may.
//!
//! Rejected: writing files one by one with a rename each (a set is seen half new), and `syncfs` (it waits for what others
//! write to the same file system).

mod action;
mod client;
mod engine;
mod owner;
mod params;
mod place;
mod signal;
mod tree;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

pub(crate) use action::words;
pub use action::{Action, Context, check_validations};
pub use client::{Client, Url, collect};
pub use engine::{Back, Engine, PublishSettings, Published, Refused, Staged, Step};
pub use owner::{Mode, Owner};
pub use params::{NEEDS, PublishParams};
pub use place::Place;
