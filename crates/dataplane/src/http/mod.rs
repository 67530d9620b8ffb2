//! HTTP/1.1, our own (RFC 9112): strict where two readers could understand a message differently.
//!
//! ```text
//!   head     bytes ─► offsets; framing; what is hop-by-hop          (no I/O)
//!   chunked  the chunked coding, a piece at a time                  (no I/O)
//!   conn     a client's connection: head, deadline, sending, closing
//!   local    answers from this process (admin, echo, redirects)
//!   fetch    a request whose whole answer is wanted
//!   front    TLS before it, where that is served
//!   stage    what a request passes before it is forwarded
//!   proxy    forwards to an upstream
//! ```
//!
//! What was rejected: hyper (a third more CPU per proxied request, and heads copied into a map), a parser that repairs
//! (what is repaired here is read otherwise there; that is what request smuggling is).

pub(crate) mod chunked;
mod conn;
mod date;
mod fetch;
mod front;
pub mod head;
mod limits;
pub mod local;
pub mod proxy;
mod reject;
pub mod stage;

pub use fetch::{Ask, Fetched, ask_on, fetch};
pub use front::Front;
pub use limits::HttpLimits;
pub use reject::{Reject, reason};
