//! The fields of a head: where they are, and which of them mean something to a proxy.

use std::mem::MaybeUninit;

use super::MAX_FIELDS;
use crate::http::reject::Reject;

/// A part of the bytes that a head was parsed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// The part `inner` of `whole`.
    pub(super) fn of(inner: &[u8], whole: &[u8]) -> Self {
        let start = (inner.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Self::new(start, inner.len())
    }

    /// Of bytes that [`check_size`] has seen.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is parsed is smaller than 4 GiB"
    )]
    pub(super) fn new(start: usize, len: usize) -> Self {
        debug_assert!(u32::try_from(start + len).is_ok());
        Self {
            start: start as u32,
            len: len as u32,
        }
    }

    /// Its bytes.
    pub fn bytes(self, whole: &[u8]) -> &[u8] {
        &whole[self.start()..self.end()]
    }

    /// Where it starts.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Where it ends.
    pub fn end(self) -> usize {
        self.start as usize + self.len as usize
    }
}

/// Heads are bounded far below 4 GiB (`--max-head-bytes`): looked at once for all spans of a head.
pub(super) fn check_size(bytes: &[u8]) {
    assert!(
        u32::try_from(bytes.len()).is_ok(),
        "a head is smaller than 4 GiB"
    );
}

/// A field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: Span,
    /// Its value, without the white space around it.
    pub value: Span,
    /// What it is.
    pub known: Known,
    /// It is not forwarded.
    pub dropped: bool,
}

/// The fields that mean something to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// None of the others.
    Other,
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// `Keep-Alive` and `Proxy-Connection`: about one connection, and long dead.
    OldKeepAlive,
    /// `TE`.
    Te,
    /// `Upgrade`.
    Upgrade,
    /// `HTTP2-Settings`: goes with an upgrade that is not forwarded.
    Http2Settings,
    /// `Expect`.
    Expect,
    /// `Proxy`: some CGI programs take it for their `http_proxy` (CVE-2016-5385).
    Proxy,
    /// `Forwarded`.
    Forwarded,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// `X-Forwarded-Host`.
    XForwardedHost,
    /// `X-Forwarded-Client-Cert`: who the client is, by its certificate. Only we may say so.
    ClientCert,
    /// Any other `X-Forwarded-…`, and `X-Real-IP`.
    XForwarded,
    /// `Date`.
    Date,
    /// `Strict-Transport-Security`.
    Hsts,
    /// `traceparent` (W3C Trace Context).
    Traceparent,
    /// `tracestate`.
    Tracestate,
    /// One of those above, written with underscores: CGI and WSGI take it for the real one.
    Disguised,
}

/// Compares with a lower-case name of the same length. Where no control characters are the bit of the case tells nothing else apart
/// that is in these names.
fn is(name: &[u8], known: &[u8]) -> bool {
    // Without a way out in the middle: many bytes at a time.
    let differ = |sum, (a, b): (&u8, &u8)| sum | ((*a | 0x20) ^ *b);
    name.iter().zip(known).fold(0, differ) == 0
}

/// The same, where an underscore counts as a dash.
fn is_like(name: &[u8], known: &[u8]) -> bool {
    name.iter()
        .zip(known)
        .all(|(a, b)| *a | 0x20 == *b || (*a == b'_' && *b == b'-'))
}

impl Known {
    /// Of a name that is a token. Length and first letter leave one name to compare with, and of most names none.
    pub(super) fn of(name: &[u8]) -> Self {
        let Some(first) = name.first() else {
            return Self::Other;
        };
        let (known, like): (Self, &[u8]) = match (name.len(), *first | 0x20) {
            (2, b't') => (Self::Te, b"te"),
            (4, b'h') => (Self::Host, b"host"),
            (4, b'd') => (Self::Date, b"date"),
            (5, b'p') => (Self::Proxy, b"proxy"),
            (6, b'e') => (Self::Expect, b"expect"),
            (7, b'u') => (Self::Upgrade, b"upgrade"),
            (9, b'f') => (Self::Forwarded, b"forwarded"),
            (9, b'x') => (Self::XForwarded, b"x-real-ip"),
            (10, b't') => (Self::Tracestate, b"tracestate"),
            (11, b't') => (Self::Traceparent, b"traceparent"),
            (10, b'c') => (Self::Connection, b"connection"),
            (10, b'k') => (Self::OldKeepAlive, b"keep-alive"),
            (14, b'c') => (Self::ContentLength, b"content-length"),
            (14, b'h') => (Self::Http2Settings, b"http2-settings"),
            (16, b'p') => (Self::OldKeepAlive, b"proxy-connection"),
            (17, b't') => (Self::TransferEncoding, b"transfer-encoding"),
            (25, b's') => (Self::Hsts, b"strict-transport-security"),
            (13.., b'x') => return Self::of_forwarded(name),
            _ => return Self::Other,
        };
        match name {
            name if is(name, like) => known,
            name if is_like(name, like) => Self::Disguised,
            _ => Self::Other,
        }
    }

    /// The names that begin with `X-Forwarded-`; more than 12 bytes.
    fn of_forwarded(name: &[u8]) -> Self {
        let (begin, rest) = name.split_at(12);
        if !is_like(begin, b"x-forwarded-") {
            return Self::Other;
        }
        if name.contains(&b'_') {
            return Self::Disguised;
        }
        match rest.len() {
            3 if is(rest, b"for") => Self::XForwardedFor,
            4 if is(rest, b"host") => Self::XForwardedHost,
            5 if is(rest, b"proto") => Self::XForwardedProto,
            11 if is(rest, b"client-cert") => Self::ClientCert,
            _ => Self::XForwarded,
        }
    }
}

/// Which known fields a head has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen(u32);

impl Seen {
    pub(super) fn add(&mut self, known: Known) {
        self.0 |= 1 << known as u32;
    }

    /// One of `any` at least is there.
    pub(super) fn has(self, any: &[Known]) -> bool {
        any.iter().any(|known| self.0 & (1 << *known as u32) != 0)
    }
}

/// Room for the fields of one head on the stack; not initialised.
pub(super) type Parsed<'b> = [MaybeUninit<httparse::Header<'b>>; MAX_FIELDS];

pub(super) const UNPARSED: Parsed<'static> = [const { MaybeUninit::uninit() }; MAX_FIELDS];

/// Fills `fields` with what httparse found in `bytes`.
pub(super) fn collect(
    fields: &mut Vec<Field>,
    parsed: &[httparse::Header<'_>],
    bytes: &[u8],
) -> Result<Seen, Reject> {
    let mut seen = Seen::default();
    fields.clear();
    fields.reserve(parsed.len());
    for header in parsed {
        // httparse takes a name that is empty, which ":" at the start of a line makes.
        if header.name.is_empty() {
            return Err(Reject::Bad("a header has no name"));
        }
        let known = Known::of(header.name.as_bytes());
        seen.add(known);
        fields.push(Field {
            name: Span::of(header.name.as_bytes(), bytes),
            value: match header.value {
                [] => Span::default(),
                value => Span::of(value, bytes),
            },
            known,
            dropped: false,
        });
    }
    Ok(seen)
}

/// A line of the head that is the whole of `bytes` ends with a bare LF, which httparse takes. Every field has one line, so the
/// lines end where the next field begins, and the last one where the empty line does.
pub(super) fn has_bare_lf(fields: &[Field], bytes: &[u8]) -> bool {
    let Some(text) = bytes.strip_suffix(b"\r\n") else {
        return true;
    };
    let is_bare = |at: usize| at < 2 || bytes[at - 2] != b'\r';
    is_bare(text.len()) || fields.iter().any(|field| is_bare(field.name.start()))
}

/// What a parse error of httparse is to the peer.
pub(super) fn refusal(error: httparse::Error) -> Reject {
    match error {
        httparse::Error::TooManyHeaders => Reject::HeadTooLarge,
        httparse::Error::Version => Reject::Version,
        httparse::Error::HeaderName => Reject::Bad("a header name is not valid"),
        httparse::Error::HeaderValue => Reject::Bad("a header value is not valid"),
        httparse::Error::NewLine => Reject::Bad("a line does not end with CRLF"),
        httparse::Error::Status => Reject::Bad("the status line is not valid"),
        httparse::Error::Token => Reject::Bad("the request line is not valid"),
    }
}

/// The names that a Connection field may not take away: without them the next reader frames or routes differently.
fn is_protected(known: Known) -> bool {
    matches!(
        known,
        Known::Host | Known::ContentLength | Known::TransferEncoding
    )
}

/// What the Connection fields of a head say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

/// What is about one connection, and what is never forwarded.
const HOP_BY_HOP: &[Known] = &[
    Known::Connection,
    Known::OldKeepAlive,
    Known::Te,
    Known::Upgrade,
    Known::Http2Settings,
    Known::Proxy,
    Known::Disguised,
];

/// Options that one head may name; more are an attempt to make us work.
const MAX_OPTIONS: usize = 64;

/// Reads all Connection fields and marks what they name, and what is hop-by-hop anyway, as dropped (RFC 9110 section
/// 7.6.1).
pub(super) fn drop_hop_by_hop(
    fields: &mut [Field],
    bytes: &[u8],
    seen: Seen,
) -> Result<ConnectionOptions, Reject> {
    let mut options = ConnectionOptions::default();
    if !seen.has(HOP_BY_HOP) {
        return Ok(options);
    }
    let mut count = 0;
    for at in 0..fields.len() {
        match fields[at].known {
            Known::Connection => {}
            Known::OldKeepAlive
            | Known::Te
            | Known::Upgrade
            | Known::Http2Settings
            | Known::Proxy
            | Known::Disguised => {
                fields[at].dropped = true;
                continue;
            }
            _ => continue,
        }
        fields[at].dropped = true;
        let value = fields[at].value.bytes(bytes);
        if value.len() == 10 && is(value, b"keep-alive") {
            // What most say, and all that they say.
            options.keep_alive = true;
            count += 1;
            continue;
        }
        for option in list(value) {
            count += 1;
            if count > MAX_OPTIONS {
                return Err(Reject::Bad("Connection names too many options"));
            }
            if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else {
                let named = |field: &&mut Field| {
                    !is_protected(field.known)
                        && field.name.bytes(bytes).eq_ignore_ascii_case(option)
                };
                fields
                    .iter_mut()
                    .filter(named)
                    .for_each(|field| field.dropped = true);
            }
        }
    }
    Ok(options)
}

/// The members of a comma-separated list, without white space and empty ones.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}
