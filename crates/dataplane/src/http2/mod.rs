//! HTTP/2 (RFC 9113), by the h2 crate: frames, HPACK, flow control. What is ours is everything that a proxy must be strict
//! about.
//!
//! ```text
//!  client ─ Io ─ h2 ─┬─ Stream ═ HTTP/1.1 ═ Conn ─ Proxy ─ Wire ═ HTTP/1.1 ═ Exchange ─┬─ h2 ─ Io ─ upstream
//!          flood     ├─ Stream ═ …                                                    ├─ …
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
mod io;
mod limits;
mod request;
mod serve;
mod stream;
mod trailers;

pub use exchange::Exchange;
pub(crate) use flood::PREFACE;
pub(crate) use halves::Payload;
pub(crate) use io::Io;
pub use limits::Http2Limits;
pub(crate) use serve::{End, Open, serve};
pub(crate) use stream::Stream;

/// The application protocols (ALPN) of a server of HTTP/2 and HTTP/1.
pub const HTTP2: &[&[u8]] = &[b"h2", b"http/1.1", b"http/1.0"];
