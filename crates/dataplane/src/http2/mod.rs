//! HTTP/2 (RFC 9113): to clients by a state of our own, on slices and lent buffers; to upstreams by the h2 crate.
//!
//! ```text
//!  client ─ Session ─┬─ Stream ═ HTTP/1.1 ═ Conn ─ Proxy ─ Wire ═ HTTP/1.1 ═ Exchange ─┬─ h2 ─ Io ─ upstream
//!           flood    ├─ Stream ═ …                                                    ├─ …
//! ```
//!
//! **A stream is a connection of HTTP/1.1 that carries one request.** So a request is parsed, bounded, paced, limited,
//! forwarded, tried again and counted by the one code that does it for HTTP/1.1, and what goes to an HTTP/1.1 upstream has
//! passed the parser that refuses what two readers could read differently: a downgrade can't smuggle what that parser doesn't
//! take. A head costs a copy and a parse more, about a microsecond. What was rejected: a second way through the proxy
//! for HTTP/2 (two places for each rule).

mod exchange;
mod flood;
mod halves;
mod hpack;
mod io;
mod limits;
mod request;
mod serve;
mod session;
mod stream;

pub use exchange::Exchange;
pub(crate) use flood::PREFACE;
pub(crate) use halves::Payload;
pub use io::Io;
pub use limits::Http2Limits;
pub(crate) use serve::{End, Open, serve};
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use session::fuzz;
pub(crate) use stream::Stream;

/// The application protocols (ALPN) of a server of HTTP/2 and HTTP/1.
pub const HTTP2: &[&[u8]] = &[b"h2", b"http/1.1", b"http/1.0"];
