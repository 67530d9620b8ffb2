//! Redis' protocol: clients whose commands share connections to servers.
//!
//! ```text
//!   Front ── a client's commands ─▶ Router (of the module) ─▶ Node ─▶ Lane ── one connection for all ─▶ server
//!     ▲                                                                │
//!     └──────────── Outbox: replies in order ◀── Ticket ◀──────────────┘
//! ```
//!
//! `scan` finds where commands and replies end, `commands` says what a command is, `front` reads clients, `lane` carries what is shared
//! (`way` says which of them); `session`, `private` and `again` do what a client needs a connection of its own for, `listen`, `hearing` and `ear` what it hears
//! of several servers, `client` and `calls` what clients
//! ask of each other; `line` is for who asks for itself. All of a client stays on one thread.

mod again;
mod asker;
mod calls;
mod client;
mod commands;
mod ear;
mod front;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod hearing;
mod info;
mod join;
mod journal;
mod keep;
mod lane;
mod line;
mod listen;
mod names;
pub(crate) mod near;
mod node;
mod private;
mod reply;
mod route;
pub mod scan;
mod secret;
mod session;
pub(crate) mod stream;
mod talk;
mod track;
mod value;
mod wait;
mod way;

pub use asker::Asker;
pub use commands::{COMMANDS, Command, Keys, Kind, Words};
pub use front::{Front, RespLimits};
pub(crate) use join::Join;
pub use join::{Joins, Merge};
pub use keep::{Failure, Keep, Watch};
pub use lane::Greeting;
pub use line::{Answers, Line, Questions};
pub use names::find;
pub use node::Node;
pub use reply::Ticket;
pub use route::{Elsewhere, Opening, Part, Place, Request, Router, Sender};
pub use secret::{Auth, Credentials, Secret};
pub use talk::Talk;
pub use value::Value;
pub use wait::Waits;
pub(crate) use wait::{Busy, Silence};
pub use way::Way;
