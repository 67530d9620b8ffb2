//! What messages of HTTP/1.1 and HTTP/2 have in common (no I/O).

use bytes::Bytes;
use http::HeaderMap;
use http::header::{self, HeaderName};

use crate::net::Buf;

/// How the body of a message that came in DATA frames is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// There is none.
    None,
    /// As it is: its length is in the head.
    Length,
    /// Chunked.
    Chunked,
    /// As it is, until the end: a tunnel.
    Raw,
}

/// What is wrong with a message; its stream is reset with PROTOCOL_ERROR (RFC 9113 section 8.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Fields that are about one connection of HTTP/1.1 (RFC 9113 section 8.2.2).
pub(super) fn is_about_connection(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

pub(super) fn put_field(out: &mut Buf, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    check_value(value)?;
    out.put(name);
    out.put(b": ");
    out.put(value);
    out.put(b"\r\n");
    Ok(())
}

/// RFC 9113 section 8.2.1.
pub(super) fn check_value(value: &[u8]) -> Result<(), Malformed> {
    if memchr::memchr3(b'\r', b'\n', 0, value).is_some() {
        return Err(Malformed("a field's value holds CR, LF or NUL"));
    }
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    match blank(value.first()) || blank(value.last()) {
        true => Err(Malformed("a field's value begins or ends with white space")),
        false => Ok(()),
    }
}

/// What the fields of a message that we wrote say.
#[derive(Debug)]
pub(super) struct Told {
    /// As those of HTTP/2: what is about the connection is left out.
    pub(super) headers: HeaderMap,
    /// Content-Length; 0 without one.
    pub(super) length: u64,
    /// There is a Transfer-Encoding.
    pub(super) chunked: bool,
    /// There is an Upgrade.
    pub(super) upgrade: bool,
}

/// Reads field lines, which are checked already, up to the empty one. `text` holds them from `start` on, so that no value is copied
/// for itself. None when they are not what we would write.
pub(super) fn read_fields(text: &Bytes, start: usize) -> Option<Told> {
    let mut told = Told {
        headers: HeaderMap::with_capacity(USUAL_FIELDS),
        length: 0,
        chunked: false,
        upgrade: false,
    };
    let mut rest = text.get(start..)?;
    loop {
        let end = memchr::memchr(b'\n', rest)?;
        let line = rest[..end].strip_suffix(b"\r")?;
        rest = &rest[end + 1..];
        if line.is_empty() {
            return Some(told);
        }
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let name = HeaderName::from_bytes(name).ok()?;
        if is_about_connection(&name) {
            told.chunked |= name == header::TRANSFER_ENCODING;
            told.upgrade |= name == header::UPGRADE;
            continue;
        }
        if name == header::CONTENT_LENGTH {
            told.length = std::str::from_utf8(value).ok()?.parse().ok()?;
        }
        let value = http::HeaderValue::from_maybe_shared(text.slice_ref(value)).ok()?;
        told.headers.append(name, value);
    }
}

/// More than most messages have.
const USUAL_FIELDS: usize = 16;
