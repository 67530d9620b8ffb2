//! memcached's text protocol: clients whose commands share connections to servers.
//!
//! ```text
//!   Front ── a client's commands ─▶ Router (of the module) ─▶ Node ── one connection for all ─▶ server
//!     ▲                                                        │
//!     └────────── Outbox: replies in order ◀── Ticket ◀────────┘
//! ```
//!
//! `command` finds where commands end and what they are, `reply` where replies do, `front` reads clients, `lane` carries what is
//! shared, `join` makes one reply of several, `stats` and `tables` that of `stats`;
//! `asker` asks a server apart from clients.
//!
//! What the server is silent about would leave nobody to say whose the next reply is. So `noreply` is kept from it and what it
//! replies is dropped here; behind a quiet meta command goes an `mn`, whose reply ends whatever the server says. A command that the server might
//! read otherwise than it is read here (a length that is no number) is answered here, as memcached does, and never sent: on a shared connection
//! its value would be commands.
//!
//! Rejected: one engine with Redis' over a trait for both. Their connections differ in what they begin with, and in what a reply belongs to; what is
//! alike (the order of replies, silence) is used from there.

mod asker;
mod command;
mod front;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod join;
mod lane;
mod reply;
mod stats;
mod tables;
#[cfg(test)]
mod tests;

pub use asker::Asker;
pub use front::{Front, Router};
pub use lane::Node;
