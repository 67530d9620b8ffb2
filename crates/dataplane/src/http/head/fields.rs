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

    pub(super) fn new(start: usize, len: usize) -> Self {
        // Heads are bounded far below 4 GiB (`--max-head-bytes`).
        let narrow = |number| u32::try_from(number).expect("a head is smaller than 4 GiB");
        Self {
            start: narrow(start),
            len: narrow(len),
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

/// Compares with a lower-case name; an underscore counts as a dash.
fn is(name: &[u8], known: &[u8]) -> bool {
    name.len() == known.len()
        && name
            .iter()
            .zip(known)
            .all(|(a, b)| a.to_ascii_lowercase() == *b || (*a == b'_' && *b == b'-'))
}

impl Known {
    fn of(name: &[u8]) -> Self {
        let known = match name.len() {
            2 if is(name, b"te") => Self::Te,
            4 if is(name, b"host") => Self::Host,
            4 if is(name, b"date") => Self::Date,
            5 if is(name, b"proxy") => Self::Proxy,
            6 if is(name, b"expect") => Self::Expect,
            7 if is(name, b"upgrade") => Self::Upgrade,
            9 if is(name, b"forwarded") => Self::Forwarded,
            9 if is(name, b"x-real-ip") => Self::XForwarded,
            10 if is(name, b"tracestate") => Self::Tracestate,
            11 if is(name, b"traceparent") => Self::Traceparent,
            10 if is(name, b"connection") => Self::Connection,
            10 if is(name, b"keep-alive") => Self::OldKeepAlive,
            14 if is(name, b"content-length") => Self::ContentLength,
            14 if is(name, b"http2-settings") => Self::Http2Settings,
            15 if is(name, b"x-forwarded-for") => Self::XForwardedFor,
            16 if is(name, b"x-forwarded-host") => Self::XForwardedHost,
            16 if is(name, b"proxy-connection") => Self::OldKeepAlive,
            17 if is(name, b"transfer-encoding") => Self::TransferEncoding,
            17 if is(name, b"x-forwarded-proto") => Self::XForwardedProto,
            23 if is(name, b"x-forwarded-client-cert") => Self::ClientCert,
            25 if is(name, b"strict-transport-security") => Self::Hsts,
            13.. if is(&name[..12], b"x-forwarded-") => Self::XForwarded,
            _ => return Self::Other,
        };
        if name.contains(&b'_') {
            return Self::Disguised;
        }
        known
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
) -> Result<(), Reject> {
    fields.clear();
    for header in parsed {
        // httparse takes a name that is empty, which ":" at the start of a line makes.
        if header.name.is_empty() {
            return Err(Reject::Bad("a header has no name"));
        }
        fields.push(Field {
            name: Span::of(header.name.as_bytes(), bytes),
            value: match header.value {
                [] => Span::default(),
                value => Span::of(value, bytes),
            },
            known: Known::of(header.name.as_bytes()),
            dropped: false,
        });
    }
    Ok(())
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

/// Options that one head may name; more are an attempt to make us work.
const MAX_OPTIONS: usize = 64;

/// Reads all Connection fields and marks what they name, and what is hop-by-hop anyway, as dropped (RFC 9110 section
/// 7.6.1).
pub(super) fn drop_hop_by_hop(
    fields: &mut [Field],
    bytes: &[u8],
) -> Result<ConnectionOptions, Reject> {
    let mut options = ConnectionOptions::default();
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
        for option in list(fields[at].value.bytes(bytes)) {
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
