//! How the other commands reach a pod that runs: a unix socket of its supervisor, and files beside it.
//!
//! ```text
//!   podkit ps ───────────────▶ RUN/pods/NAME/pod.json            the pod as an object, replaced whole at every change
//!   podkit logs ─────────────▶ LIB/pods/NAME/logs/CONTAINER/     files in the format of the CRI
//!   podkit exec, stop, … ────▶ RUN/pods/NAME/control.sock        one request a connection, then frames
//! ```
//!
//! What only looks reads files, so that a supervisor that hangs holds nobody up and one that has ended can still be looked at.
//! What acts, or waits, asks through the socket; that is for the user of the pod and for root. docs/control-protocol.md says
//! it all to those who write a client; what is written there must go on working, since pods outlive the podkit that started
//! them.
//!
//! `wire` is the protocol without I/O, `server` the supervisor's end, `client` the commands', `board` what the supervisor shows
//! of its pod, `find` what there is on the machine, `changes` when that is another.

mod board;
mod changes;
mod client;
mod event;
mod find;
mod server;
mod wire;

pub(crate) use board::Board;
pub use changes::Changes;
pub use client::{Client, ClientError, Ended, Part, Reply};
pub(crate) use event::EventLog;
pub(crate) use find::lost;
pub use find::{Found, Life, Machine, NotFound};
pub(crate) use server::{Asked, Server};
pub use wire::{Attach, Exec, Frame, Kind, Refusal, Request, Size, VERSION};
