//! Heads of requests and responses: found, parsed in place into offsets, and checked.
//!
//! ```text
//!   bytes ─► plain: a head that came whole, and of which nothing is unusual, is read in one pass; of any other:
//!         ─► Scanner: where does the head end? (each byte is looked at once, however it is chunked)
//!         ─► httparse: tokens and values, once per head
//!         ─► fields: offsets, and which of them mean something to us
//!         ─► framing (RFC 9112 section 6): what follows the head; whatever two readers could read differently is refused
//! ```
//!
//! A [`Head`] holds offsets, not slices, so that it can be kept beside the buffer, and is used again for the next head:
//! after the first request of a connection nothing is allocated. httparse is lenient where the RFC lets it be (a bare LF
//! ends a line, any number of empty lines come first, a target may hold any byte from 0x80); those are checked here.

mod fields;
mod plain;
mod request;
mod response;
mod scan;
mod trailers;

pub use fields::{Field, Known, Span};
pub use request::{Method, RequestHead, Target};
pub use response::ResponseHead;
pub use scan::Scanner;
pub use trailers::parse_trailers;

use super::reject::Reject;

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// Nothing.
    None,
    /// So many bytes.
    Length(u64),
    /// The chunked transfer coding (RFC 9112 section 7.1).
    Chunked,
    /// Everything until the connection is closed; responses only.
    UntilClose,
}

/// Fields that a head has at most (`--max-headers` is bounded by it): they are parsed on the stack.
pub const MAX_FIELDS: usize = 256;

/// Parses the digits of a Content-Length. A sign, a space, a list, or more than 2^63 is refused.
fn content_length(value: &[u8]) -> Result<u64, Reject> {
    let right = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    if !right {
        return Err(Reject::Bad("Content-Length is not a number"));
    }
    let number = value
        .iter()
        .fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Ok(number)
}

#[cfg(test)]
mod tests;
