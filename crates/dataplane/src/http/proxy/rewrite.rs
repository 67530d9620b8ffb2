//! Heads as they are sent on: what is hop-by-hop left out, what a proxy says put in (no I/O).
//!
//! Fields that stay are copied in runs, as they were written: a head of ten fields of which one is dropped is two copies.

use std::net::IpAddr;

use super::choice::put_cookies_without;
use crate::http::date::put_date;
use crate::http::head::{Field, Known, Method, RequestHead, ResponseHead, Target};
use crate::http::stage::Reply;
use crate::net::{Buf, Peer};

/// What is told to the upstream about every request of a connection.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// `X-Forwarded-For` and so on, for where no other's word is believed; then an element of `Forwarded`. In one piece, and not
    /// by `format!`: with a connection for each request that took a quarter of our time.
    text: Box<[u8]>,
    /// Bytes of the first.
    identity: usize,
    /// Bytes of the client's address, at its begin.
    addr: usize,
    /// Whole field lines that were given.
    own: Box<[u8]>,
    peer: Peer,
    scheme: &'static str,
    /// It speaks HTTP/2.
    http2: bool,
}

/// What an address that is known stands behind.
const FORWARDED_FOR: &[u8] = b"X-Forwarded-For: ";

impl Client {
    /// `port`: where the client connected; `more`: whole field lines to be added to every request.
    pub(super) fn new(peer: Peer, scheme: &'static str, port: Option<u16>, more: &[u8]) -> Self {
        let mut out = Buf::small();
        if let Some(ip) = peer.ip() {
            out.put(FORWARDED_FOR);
            put_ip(&mut out, ip);
        }
        let addr = out.len().saturating_sub(FORWARDED_FOR.len());
        if addr > 0 {
            out.put(b"\r\n");
        }
        put_field(&mut out, "X-Forwarded-Proto", scheme.as_bytes());
        if let Some(port) = port {
            out.put(b"X-Forwarded-Port: ");
            out.put_decimal(port.into());
            out.put(b"\r\n");
        }
        let identity = out.len();
        // RFC 7239 section 6.
        let (before, after): (&[u8], &[u8]) = match peer.ip() {
            None => (b"for=unknown", b";proto="),
            Some(IpAddr::V4(_)) => (b"for=", b";proto="),
            Some(IpAddr::V6(_)) => (b"for=\"[", b"]\";proto="),
        };
        out.put(before);
        if let Some(ip) = peer.ip() {
            put_ip(&mut out, ip);
        }
        out.put(after);
        out.put(scheme.as_bytes());
        Self {
            text: out.filled().into(),
            identity,
            addr,
            own: more.into(),
            peer,
            scheme,
            http2: false,
        }
    }

    /// The same, speaking HTTP/2.
    pub(super) fn of_http2(self) -> Self {
        Self {
            http2: true,
            ..self
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2
    }

    /// The client's address, as text.
    pub(super) fn addr(&self) -> Option<&[u8]> {
        let known = self.addr > 0;
        known.then(|| &self.text[FORWARDED_FOR.len()..][..self.addr])
    }

    /// Who is connected.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// What is spoken: `http` or `https`.
    pub(super) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The field lines that were given.
    pub(super) fn own_fields(&self) -> &[u8] {
        &self.own
    }
}

fn put_ip(out: &mut Buf, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    out.put(b".");
                }
                out.put_decimal(octet.into());
            }
        }
        IpAddr::V6(ip) => out.put(ip.to_string().as_bytes()),
    }
}

/// Writes the head of `head` (parsed from `bytes`) for the upstream. `host` is asked when the client named none; `traceparent`
/// is added. `trusted`: what the request says of clients is believed, and added to. `session`: the name of the cookie that is
/// between the client and us.
pub(super) fn put_request(
    out: &mut Buf,
    head: &mut RequestHead,
    bytes: &[u8],
    (client, trusted): (&Client, bool),
    (host, session): (&str, Option<&str>),
    traceparent: Option<&[u8]>,
) {
    let (target, absolute) = match head.target() {
        Target::Origin(span) | Target::Asterisk(span) => (span.bytes(bytes), false),
        Target::Absolute { path, .. } => (path.bytes(bytes), true),
    };
    let authority = head.authority().map(|span| span.bytes(bytes));
    drop_request_fields(head, trusted, absolute);
    out.put(head.method_token().bytes(bytes));
    out.put(b" ");
    match target.first() {
        Some(b'/' | b'*') => {}
        // `OPTIONS http://host` asks about the server as a whole (RFC 9112 section 3.2.4).
        None if head.method_token().bytes(bytes) == b"OPTIONS" => out.put(b"*"),
        _ => out.put(b"/"),
    }
    out.put(target);
    out.put(b" HTTP/1.1\r\n");
    let asked = authority.unwrap_or(host.as_bytes());
    if absolute || authority.is_none() {
        put_field(out, "Host", asked);
    }
    if let Some(session) = session {
        put_cookies_without(out, head, bytes, session);
    }
    put_fields(out, &head.fields, bytes, head.byte_len(), false);
    if !trusted {
        out.put(&client.text[..client.identity]);
    }
    out.put(&client.own);
    match trusted {
        false => {
            out.put(b"X-Forwarded-Host: ");
            out.put(asked);
            out.put(b"\r\nForwarded: ");
        }
        true => put_trusted(out, head, bytes, client, asked),
    }
    out.put(&client.text[client.identity..]);
    if asked.is_empty() {
        out.put(b"\r\n");
    } else {
        out.put(b";host=\"");
        out.put(asked);
        out.put(b"\"\r\n");
    }
    match client.http2 {
        true => out.put(b"Via: 2.0 podkit\r\n"),
        false => put_via(out, head.minor()),
    }
    if let Some(value) = traceparent {
        put_field(out, "traceparent", value);
    }
    if let Some(protocol) = head.upgrade() {
        out.put(b"Connection: upgrade\r\n");
        put_field(out, "Upgrade", protocol.bytes(bytes));
    } else if head.takes_trailers() {
        out.put(b"Connection: te\r\nTE: trailers\r\n");
    }
    out.put(b"\r\n");
}

/// Marks what is not forwarded besides what is hop-by-hop.
fn drop_request_fields(head: &mut RequestHead, trusted: bool, absolute: bool) {
    let minor = head.minor();
    for field in &mut head.fields {
        field.dropped |= match field.known {
            Known::Host => absolute,
            // Lists are written anew, and who the client is by its certificate only we may say.
            Known::Forwarded | Known::XForwardedFor | Known::ClientCert => true,
            Known::XForwardedProto | Known::XForwardedHost | Known::XForwarded => !trusted,
            Known::Expect => minor == 0,
            _ => false,
        };
    }
}

/// Appends to the lists of a client that is believed, and adds what it did not say. Ends within Forwarded.
fn put_trusted(out: &mut Buf, head: &RequestHead, bytes: &[u8], client: &Client, host: &[u8]) {
    let has = |known| head.fields.iter().any(|field| field.known == known);
    if !has(Known::XForwardedProto) {
        put_field(out, "X-Forwarded-Proto", client.scheme.as_bytes());
    }
    if !has(Known::XForwardedHost) {
        put_field(out, "X-Forwarded-Host", host);
    }
    let put_list = |out: &mut Buf, known| {
        for field in head.fields.iter().filter(|field| field.known == known) {
            out.put(field.value.bytes(bytes));
            out.put(b", ");
        }
    };
    if let Some(addr) = client.addr() {
        out.put(b"X-Forwarded-For: ");
        put_list(out, Known::XForwardedFor);
        out.put(addr);
        out.put(b"\r\n");
    }
    out.put(b"Forwarded: ");
    put_list(out, Known::Forwarded);
}

/// How a response is framed for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// As the upstream framed it: no body, or by Content-Length.
    Kept,
    /// Chunked.
    Chunked,
    /// Until the connection is closed.
    Close,
}

/// What is put into a response's head.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseOptions<'a> {
    pub(super) framing: Framing,
    /// `close` or `keep-alive` where the client must be told.
    pub(super) connection: Option<&'static str>,
    /// Whole field lines, such as HSTS.
    pub(super) more: &'a [u8],
    /// Whole field lines of the stages that the request passed.
    pub(super) staged: &'a [u8],
    /// The field line of the session's cookie, when it has a new one.
    pub(super) cookie: &'a [u8],
}

/// Writes the head of `head` (parsed from `bytes`) for the client.
pub(super) fn put_response(
    out: &mut Buf,
    head: &mut ResponseHead,
    bytes: &[u8],
    options: ResponseOptions<'_>,
) {
    out.put(b"HTTP/1.1 ");
    out.put(head.status_text().bytes(bytes));
    out.put(b"\r\n");
    if !options.more.is_empty() {
        for field in &mut head.fields {
            field.dropped |= field.known == Known::Hsts;
        }
    }
    put_fields(
        out,
        &head.fields,
        bytes,
        head.byte_len(),
        head.has_bare_lf(),
    );
    if head.status() >= 200 {
        out.put(options.more);
        out.put(options.staged);
        // RFC 9110 section 6.6.1.
        if !head.has_date() {
            put_date(out);
        }
    }
    put_via(out, head.minor());
    if head.status() >= 200 || head.status() == 101 {
        out.put(options.cookie);
    }
    if head.status() == 101 {
        out.put(b"Connection: upgrade\r\n");
        if let Some(protocol) = head.upgrade() {
            put_field(out, "Upgrade", protocol.bytes(bytes));
        }
    } else if let Some(option) = options.connection {
        put_field(out, "Connection", option.as_bytes());
    }
    if options.framing == Framing::Chunked {
        out.put(b"Transfer-Encoding: chunked\r\n");
    }
    out.put(b"\r\n");
}

/// A small answer of our own. `staged`: whole field lines of the stages that the request passed.
pub(super) fn put_reply(out: &mut Buf, reply: &Reply, staged: &[u8], method: Method, close: bool) {
    let status = reply.status;
    out.put(b"HTTP/1.1 ");
    out.put_decimal(status.into());
    out.put(b" ");
    out.put(crate::http::reason(status).as_bytes());
    out.put(b"\r\n");
    put_date(out);
    out.put(staged);
    // RFC 9110 section 8.6: an answer that has no body has no length either.
    let may_have_body = !matches!(status, 204 | 304);
    if may_have_body {
        out.put(b"Content-Type: ");
        out.put(reply.content_type.as_bytes());
        out.put(b"\r\nContent-Length: ");
        out.put_decimal(reply.body.len() as u64);
        out.put(b"\r\n");
    }
    if close {
        out.put(b"Connection: close\r\n");
    }
    out.put(b"\r\n");
    if may_have_body && method != Method::Head {
        out.put(&reply.body);
    }
}

/// Who we are (RFC 9110 section 7.6.3). `minor`: of the version that the message came with.
fn put_via(out: &mut Buf, minor: u8) {
    out.put(match minor {
        0 => b"Via: 1.0 podkit\r\n",
        _ => b"Via: 1.1 podkit\r\n",
    });
}

fn put_field(out: &mut Buf, name: &str, value: &[u8]) {
    out.put(name.as_bytes());
    out.put(b": ");
    out.put(value);
    out.put(b"\r\n");
}

/// Copies the fields that are not dropped: whole runs of lines, or one by one when their line ends are not right.
fn put_fields(out: &mut Buf, fields: &[Field], bytes: &[u8], len: usize, bare_lf: bool) {
    if bare_lf {
        for field in fields.iter().filter(|field| !field.dropped) {
            out.put(field.name.bytes(bytes));
            out.put(b": ");
            out.put(field.value.bytes(bytes));
            out.put(b"\r\n");
        }
        return;
    }
    // The empty line is not a field.
    let end = len - 2;
    let mut run = None;
    for field in fields {
        match (run, field.dropped) {
            (None, false) => run = Some(field.name.start()),
            (Some(start), true) => {
                out.put(&bytes[start..field.name.start()]);
                run = None;
            }
            _ => {}
        }
    }
    if let Some(start) = run {
        out.put(&bytes[start..end]);
    }
}
