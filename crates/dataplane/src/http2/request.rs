//! A request of HTTP/2 as the HTTP/1.1 that the rest of the data plane reads (no I/O).
//!
//! What is written here is parsed again by [`crate::http::head`], with all its checks: the bounds, Host, Content-Length, the
//! target. Here is what only HTTP/2 can get wrong (RFC 9113 section 8): a field that would end a line, one that is about a
//! connection, a Host that names another server than `:authority`, white space that one reader trims and another keeps. Such a
//! request is malformed, and its stream is reset.

use aws_lc_rs::rand;
use base64::Engine as _;
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Method, Uri};

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

/// Writes the head of a request. `ends`: no body and no trailers follow it.
pub(super) fn put_request_head(
    out: &mut Buf,
    parts: &Parts,
    ends: bool,
) -> Result<Shape, Malformed> {
    if parts.method == Method::CONNECT {
        return put_connect(out, parts);
    }
    let scheme = parts.uri.scheme_str().unwrap_or("http");
    if !matches!(scheme, "http" | "https") {
        return Err(Malformed(":scheme is neither http nor https"));
    }
    let shape = match (parts.headers.contains_key(header::CONTENT_LENGTH), ends) {
        (_, true) => Shape::None,
        (true, false) => Shape::Length,
        (false, false) => Shape::Chunked,
    };
    put_line(out, parts.method.as_str(), &parts.uri)?;
    put_host(out, &parts.uri, &parts.headers)?;
    put_fields(out, &parts.headers)?;
    if shape == Shape::Chunked {
        out.put(b"transfer-encoding: chunked\r\n");
    }
    out.put(b"\r\n");
    Ok(shape)
}

/// CONNECT, which is refused where heads are read; with `:protocol` websocket (RFC 8441) it is the GET that asks an
/// HTTP/1.1 server for the same.
fn put_connect(out: &mut Buf, parts: &Parts) -> Result<Shape, Malformed> {
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    if protocol.is_none_or(|protocol| protocol.as_str() != "websocket") {
        let authority = parts.uri.authority().map_or("", |found| found.as_str());
        out.put(b"CONNECT ");
        out.put(if authority.is_empty() { "-" } else { authority }.as_bytes());
        out.put(b" HTTP/1.1\r\nhost: ");
        out.put(authority.as_bytes());
        out.put(b"\r\n\r\n");
        return Ok(Shape::Raw);
    }
    put_line(out, "GET", &parts.uri)?;
    put_host(out, &parts.uri, &parts.headers)?;
    put_fields(out, &parts.headers)?;
    let mut key = [0; 16];
    rand::fill(&mut key).map_err(|_| Malformed("no random bytes for a WebSocket's key"))?;
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    out.put(b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: ");
    out.put(key.as_bytes());
    out.put(b"\r\n\r\n");
    Ok(Shape::Raw)
}

fn put_line(out: &mut Buf, method: &str, uri: &Uri) -> Result<(), Malformed> {
    let target = uri.path_and_query().map_or("/", |found| found.as_str());
    if !target.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
        return Err(Malformed(":path is not valid"));
    }
    // What is neither a path nor an asterisk could be read as a target of another form.
    if !target.starts_with('/') && target != "*" {
        return Err(Malformed(":path does not start with a slash"));
    }
    out.put(method.as_bytes());
    out.put(b" ");
    out.put(target.as_bytes());
    out.put(b" HTTP/1.1\r\n");
    Ok(())
}

/// `:authority`, or the Host fields when there is none; both must agree (RFC 9113 section 8.3.1).
fn put_host(out: &mut Buf, uri: &Uri, headers: &HeaderMap) -> Result<(), Malformed> {
    let Some(authority) = uri.authority() else {
        for host in headers.get_all(header::HOST) {
            put_field(out, b"host", host.as_bytes())?;
        }
        return Ok(());
    };
    let authority = authority.as_str().as_bytes();
    let agrees = |host: &http::HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority);
    if !headers.get_all(header::HOST).iter().all(agrees) {
        return Err(Malformed("Host names another server than :authority"));
    }
    put_field(out, b"host", authority)
}

fn put_fields(out: &mut Buf, headers: &HeaderMap) -> Result<(), Malformed> {
    for (name, value) in headers {
        if *name == header::HOST || *name == header::COOKIE || name == "sec-websocket-key" {
            continue;
        }
        if is_about_connection(name) {
            return Err(Malformed("a field that is about a connection of HTTP/1.1"));
        }
        if *name == header::TE && value != "trailers" {
            return Err(Malformed("TE other than trailers"));
        }
        put_field(out, name.as_str().as_bytes(), value.as_bytes())?;
    }
    put_cookies(out, headers)
}

/// One Cookie field out of the crumbs that HTTP/2 allows (RFC 9113 section 8.2.3).
fn put_cookies(out: &mut Buf, headers: &HeaderMap) -> Result<(), Malformed> {
    let mut begun = false;
    for crumb in headers.get_all(header::COOKIE) {
        check_value(crumb.as_bytes())?;
        out.put(if begun { b"; " } else { b"cookie: " });
        out.put(crumb.as_bytes());
        begun = true;
    }
    if begun {
        out.put(b"\r\n");
    }
    Ok(())
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
fn check_value(value: &[u8]) -> Result<(), Malformed> {
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

#[cfg(test)]
mod tests;
