//! The head of a request.

use super::fields::{
    self, Field, Known, Seen, Span, check_size, collect, drop_hop_by_hop, has_bare_lf, list,
    refusal,
};
use super::scan::is_token;
use super::{BodyKind, content_length, plain};
use crate::http::reject::Reject;

/// The methods that a proxy treats apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: its answer has no body.
    Head,
    /// POST.
    Post,
    /// PUT, DELETE, OPTIONS, TRACE: may be sent again (RFC 9110 section 9.2.2).
    Idempotent,
    /// Any other.
    Other,
}

impl Method {
    fn of(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" | b"DELETE" | b"OPTIONS" | b"TRACE" => Self::Idempotent,
            _ => Self::Other,
        }
    }

    /// Sending it twice does what sending it once does.
    pub fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Idempotent)
    }
}

/// What is asked for, and for which host (RFC 9112 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `/path?query`.
    Origin(Span),
    /// `http://authority/path?query`; the path is empty when it is missing.
    Absolute {
        /// Takes the place of the Host field.
        authority: Span,
        /// Path and query.
        path: Span,
    },
    /// `*`.
    Asterisk(Span),
}

/// A request's head, as offsets into the bytes that it was parsed from.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    /// All fields in order.
    pub fields: Vec<Field>,
    seen: Seen,
    facts: Option<Facts>,
}

/// What was found out about a request.
#[derive(Debug, Clone, Copy)]
struct Facts {
    method: Method,
    token: Span,
    target: Target,
    minor: u8,
    len: usize,
    body: BodyKind,
    host: Option<Span>,
    keep_alive: bool,
    expects_continue: bool,
    upgrade: Option<Span>,
    te_trailers: bool,
}

impl RequestHead {
    /// Takes the head that `input` begins with, if all of it is there and nothing is unusual or wrong about it, and says how long it
    /// is. Otherwise [`RequestHead::parse`] tells what it is.
    pub fn take(&mut self, input: &[u8], max_fields: usize) -> Option<usize> {
        self.facts = None;
        check_size(input);
        let line = plain::request_line(input)?;
        let most = max_fields.min(super::MAX_FIELDS);
        let (len, seen) = plain::fields(input, line.len, most, &mut self.fields)?;
        self.seen = seen;
        let facts = self.examine(&input[..len], line.method, line.target, line.minor);
        self.facts = Some(facts.ok()?);
        Some(len)
    }

    /// Parses the head that is the whole of `bytes` (as long as the scanner said).
    pub fn parse(&mut self, bytes: &[u8], max_fields: usize) -> Result<(), Reject> {
        self.facts = None;
        check_size(bytes);
        let mut room = fields::UNPARSED;
        let mut request = httparse::Request::new(&mut []);
        match request
            .parse_with_uninit_headers(bytes, &mut room[..max_fields.min(super::MAX_FIELDS)])
        {
            Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
            Ok(_) => return Err(Reject::Bad("the head is not complete")),
            Err(error) => return Err(explain(bytes, error)),
        }
        let (Some(method), Some(target), Some(minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(Reject::Bad("the request line is not valid"));
        };
        let token = Span::of(method.as_bytes(), bytes);
        if token.start() != 0 {
            return Err(Reject::Bad("an empty line before the request"));
        }
        let target = Span::of(target.as_bytes(), bytes);
        self.seen = collect(&mut self.fields, request.headers, bytes)?;
        if has_bare_lf(&self.fields, bytes) {
            return Err(Reject::Bad("a line ends with a bare LF"));
        }
        self.facts = Some(self.examine(bytes, token, target, minor)?);
        Ok(())
    }

    fn examine(
        &mut self,
        bytes: &[u8],
        token: Span,
        target: Span,
        minor: u8,
    ) -> Result<Facts, Reject> {
        let method = token.bytes(bytes);
        let target = parse_target(bytes, method, target)?;
        let options = drop_hop_by_hop(&mut self.fields, bytes, self.seen)?;
        let mut facts = Facts {
            method: Method::of(method),
            token,
            target,
            minor,
            len: bytes.len(),
            body: BodyKind::None,
            host: None,
            keep_alive: !options.close && (minor == 1 || options.keep_alive),
            expects_continue: false,
            upgrade: None,
            te_trailers: false,
        };
        let (mut length, mut chunked) = (None, false);
        for field in &self.fields {
            let value = field.value.bytes(bytes);
            match field.known {
                Known::Host => {
                    if facts.host.replace(field.value).is_some() {
                        return Err(Reject::Bad("more than one Host"));
                    }
                    if !is_all_authority(value) {
                        return Err(Reject::Bad("Host is not valid"));
                    }
                }
                Known::ContentLength => {
                    let another = length.replace(content_length(value)?);
                    if another.is_some() {
                        return Err(Reject::Bad("more than one Content-Length"));
                    }
                }
                Known::TransferEncoding => {
                    check_transfer_encoding(value, minor, chunked)?;
                    chunked = true;
                }
                Known::Expect => {
                    facts.expects_continue |=
                        minor == 1 && value.eq_ignore_ascii_case(b"100-continue");
                }
                Known::Upgrade if options.upgrade && minor == 1 && may_upgrade(value) => {
                    facts.upgrade = Some(field.value);
                }
                Known::Te => {
                    facts.te_trailers |=
                        list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                }
                _ => {}
            }
        }
        if facts.host.is_none() && minor == 1 {
            return Err(Reject::Bad("Host is missing"));
        }
        facts.body = match (length, chunked) {
            (Some(_), true) => {
                return Err(Reject::Bad("both Content-Length and Transfer-Encoding"));
            }
            (_, true) => BodyKind::Chunked,
            (Some(0) | None, _) => BodyKind::None,
            (Some(length), _) => BodyKind::Length(length),
        };
        Ok(facts)
    }

    fn facts(&self) -> &Facts {
        self.facts
            .as_ref()
            .expect("a head is looked at only after it was parsed")
    }

    /// Which method it is.
    pub fn method(&self) -> Method {
        self.facts().method
    }

    /// The method as it was written.
    pub fn method_token(&self) -> Span {
        self.facts().token
    }

    /// What is asked for.
    pub fn target(&self) -> Target {
        self.facts().target
    }

    /// 0 or 1, of HTTP/1.
    pub fn minor(&self) -> u8 {
        self.facts().minor
    }

    /// Its bytes, the empty line included.
    pub fn byte_len(&self) -> usize {
        self.facts().len
    }

    /// What follows it.
    pub fn body(&self) -> BodyKind {
        self.facts().body
    }

    /// The host that is asked: of the target, else of the Host field.
    pub fn authority(&self) -> Option<Span> {
        match self.facts().target {
            Target::Absolute { authority, .. } => Some(authority),
            _ => self.facts().host,
        }
    }

    /// The client takes another response on this connection.
    pub fn keep_alive(&self) -> bool {
        self.facts().keep_alive
    }

    /// The client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.facts().expects_continue
    }

    /// The protocols that the client wants to change to.
    pub fn upgrade(&self) -> Option<Span> {
        self.facts().upgrade
    }

    /// The client takes trailers.
    pub fn takes_trailers(&self) -> bool {
        self.facts().te_trailers
    }

    /// One of these fields at least came with it.
    pub fn has(&self, any: &[Known]) -> bool {
        self.seen.has(any)
    }

    /// The value of the first field of that name (any case).
    pub fn value<'b>(&self, name: &str, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let named = |field: &&Field| {
            field
                .name
                .bytes(bytes)
                .eq_ignore_ascii_case(name.as_bytes())
        };
        let field = self.fields.iter().find(named)?;
        Some(field.value.bytes(bytes))
    }
}

/// httparse says Token for a target and Version for what stands in a version's place; the status tells more.
fn explain(bytes: &[u8], error: httparse::Error) -> Reject {
    if error == httparse::Error::Version {
        let line = bytes
            .split(|byte| *byte == b'\r')
            .next()
            .unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ').skip(2);
        let version = words.next().and_then(|word| word.strip_prefix(b"HTTP/"));
        let is_version = version.is_some_and(|text| text.len() == 3 && text[1] == b'.');
        if !is_version || words.next().is_some() {
            return Reject::Bad("the request line is not valid");
        }
    }
    refusal(error)
}

fn parse_target(bytes: &[u8], method: &[u8], target: Span) -> Result<Target, Reject> {
    if method == b"CONNECT" {
        return Err(Reject::NotImplemented("CONNECT is not served here"));
    }
    // RFC 9110 section 9.1: a token. httparse takes nothing else.
    debug_assert!(method.iter().all(|byte| is_token(*byte)));
    let text = target.bytes(bytes);
    let valid = |byte: u8| matches!(byte, b'!'..=b'~') && byte != b'#';
    // Without a way out in the middle: many bytes at a time.
    if !text.iter().fold(true, |all, byte| all & valid(*byte)) {
        return Err(Reject::Bad("the request target is not valid"));
    }
    match text {
        [b'/', ..] => Ok(Target::Origin(target)),
        b"*" if method == b"OPTIONS" => Ok(Target::Asterisk(target)),
        _ => parse_absolute(text, target),
    }
}

fn parse_absolute(text: &[u8], target: Span) -> Result<Target, Reject> {
    let wrong = Reject::Bad("the request target is not valid");
    let scheme = [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find(|scheme| {
            text.len() > scheme.len() && text[..scheme.len()].eq_ignore_ascii_case(scheme)
        })
        .ok_or(wrong)?;
    let rest = &text[scheme.len()..];
    let split = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let authority = &rest[..split];
    if authority.is_empty() || !is_all_authority(authority) {
        return Err(wrong);
    }
    let start = target.start() + scheme.len();
    Ok(Target::Absolute {
        authority: Span::new(start, split),
        path: Span::new(start + split, rest.len() - split),
    })
}

/// What [`is_authority`] says of each byte.
static AUTHORITY: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_authority(byte as u8);
        byte += 1;
    }
    table
};

fn is_all_authority(text: &[u8]) -> bool {
    // Without a way out in the middle, which costs more than it saves where text is valid.
    text.iter()
        .fold(true, |all, byte| all & AUTHORITY[usize::from(*byte)])
}

/// A byte of `uri-host [ ":" port ]` (RFC 3986 section 3.2): no user information, no comma that could join two hosts.
const fn is_authority(byte: u8) -> bool {
    matches!(byte,
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%'
        | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
}

pub(super) fn check_transfer_encoding(value: &[u8], minor: u8, seen: bool) -> Result<(), Reject> {
    if minor == 0 {
        return Err(Reject::Bad("Transfer-Encoding in HTTP/1.0"));
    }
    if seen {
        return Err(Reject::Bad("more than one Transfer-Encoding"));
    }
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let codings = || list(value);
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    // Chunked that is not last, or twice, leaves the length open (RFC 9112 section 6.3).
    match codings().count() {
        2.. if codings().last().is_some_and(chunked)
            && codings().filter(|it| chunked(it)).count() == 1 =>
        {
            Err(Reject::NotImplemented(
                "a transfer coding other than chunked",
            ))
        }
        1 if value.iter().all(|byte| is_token(*byte)) => Err(Reject::NotImplemented(
            "a transfer coding other than chunked",
        )),
        _ => Err(Reject::Bad("Transfer-Encoding is not valid")),
    }
}

/// Tunnels are for what the upstream asked to speak. An upgrade to h2c would carry requests past whatever looks at them.
fn may_upgrade(value: &[u8]) -> bool {
    let mut count = 0;
    for protocol in list(value) {
        count += 1;
        let h2 = protocol.len() >= 2 && protocol[..2].eq_ignore_ascii_case(b"h2");
        let tls = protocol.len() >= 3 && protocol[..3].eq_ignore_ascii_case(b"tls");
        let http = protocol.len() >= 4 && protocol[..4].eq_ignore_ascii_case(b"http");
        if h2 || tls || http {
            return false;
        }
    }
    count > 0
}
