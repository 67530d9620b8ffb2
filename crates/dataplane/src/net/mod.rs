//! Sockets: listeners, workers that accept from them, and what a connection needs of its thread (a clock for its
//! deadlines, buffers, the phase of the process).
//!
//! ```text
//!   Listener ──one socket per worker──► Workers: N threads, each
//!                                         LocalRuntime (tokio current_thread)
//!                                           accept loop ─► a task per connection ─► Serve
//!                                           Clock: one sweep for all deadlines
//!                                           Buf pool: lent while bytes are there
//! ```
//!
//! Threads share nothing on the way of a request: no work stealing, no lock, no channel. What was rejected: tokio's
//! multi-threaded runtime (stealing moves a connection's state between caches), a timer per request (registering one
//! costs more than parsing a head), a buffer per idle connection (10,000 of them are 160 MB).

mod accept;
mod buffer;
mod by_address;
mod clock;
mod coalesce;
mod cores;
mod flight;
mod fresh;
mod listen;
mod listeners;
pub(crate) mod proxied;
mod socket;
mod tunnel;
mod worker;

/// How long a connection that has asked for nothing yet may still do so when the process drains.
pub(crate) const NEWCOMER: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
pub(crate) mod memory;

pub use accept::{Accepted, Acceptor, Guard, Serve, accept};
pub use buffer::{Buf, ebb};
pub(crate) use buffer::{LARGE_BYTES, SMALL_BYTES};
pub use by_address::ListenerLimits;
pub use clock::{Clock, Timer};
pub use coalesce::{COALESCED, Coalesce, coalesce};
pub(crate) use coalesce::{asked, took};
pub use cores::default_workers;
pub use flight::Flight;
pub(crate) use listen::SocketFile;
pub use listen::{Listener, Port};
pub(crate) use listeners::Handed;
pub use listeners::Listeners;
pub(crate) use proxied::put_header;
pub use proxied::{AcceptProxy, Path, SendProxy, accept_from};
pub use socket::{Peer, Socket, Transport};
pub use tunnel::tunnel;
pub use worker::{Connections, Worker, Workers};

#[cfg(test)]
mod tests;
