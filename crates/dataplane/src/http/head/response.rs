//! The head of a response.

use super::fields::{
    self, Field, Known, Seen, Span, check_size, collect, drop_hop_by_hop, has_bare_lf, refusal,
};
use super::request::check_transfer_encoding;
use super::{BodyKind, content_length, plain};
use crate::http::reject::Reject;

/// A response's head, as offsets into the bytes that it was parsed from.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    /// All fields in order.
    pub fields: Vec<Field>,
    seen: Seen,
    facts: Option<Facts>,
}

#[derive(Debug, Clone, Copy)]
struct Facts {
    status: u16,
    /// Code and reason: what stands between the version and the line's end.
    status_text: Span,
    len: usize,
    body: BodyKind,
    keep_alive: bool,
    upgrade: Option<Span>,
    minor: u8,
    bare_lf: bool,
}

impl ResponseHead {
    /// Takes the head that `input` begins with, if all of it is there and nothing is unusual or wrong about it, and says how long it
    /// is. Otherwise [`ResponseHead::parse`] tells what it is.
    pub fn take(&mut self, input: &[u8], max_fields: usize, to_head: bool) -> Option<usize> {
        self.facts = None;
        check_size(input);
        let line = plain::status_line(input)?;
        let most = max_fields.min(super::MAX_FIELDS);
        let (len, seen) = plain::fields(input, line.len, most, &mut self.fields)?;
        self.seen = seen;
        let facts = self.examine(&input[..len], (line.status, line.text, line.minor), to_head);
        self.facts = Some(facts.ok()?);
        Some(len)
    }

    /// Parses the head that is the whole of `bytes`. `to_head`: it answers a HEAD request, and so has no body.
    pub fn parse(&mut self, bytes: &[u8], max_fields: usize, to_head: bool) -> Result<(), Reject> {
        self.facts = None;
        check_size(bytes);
        let mut room = fields::UNPARSED;
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut room[..max_fields.min(super::MAX_FIELDS)],
        );
        match parsed {
            Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
            Ok(_) => return Err(Reject::Bad("the head is not complete")),
            Err(error) => return Err(refusal(error)),
        }
        let (Some(status), Some(minor)) = (response.code, response.version) else {
            return Err(Reject::Bad("the status line is not valid"));
        };
        if bytes[0] != b'H' || status < 100 {
            return Err(Reject::Bad("the status line is not valid"));
        }
        self.seen = collect(&mut self.fields, response.headers, bytes)?;
        let line = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
        let line = bytes[..line].strip_suffix(b"\r").unwrap_or(&bytes[..line]);
        // "HTTP/1.1 ": httparse takes one space only.
        let text = Span::new(9, line.len() - 9);
        let mut facts = self.examine(bytes, (status, text, minor), to_head)?;
        facts.bare_lf = has_bare_lf(&self.fields, bytes);
        self.facts = Some(facts);
        Ok(())
    }

    /// `bytes`: the head alone.
    fn examine(
        &mut self,
        bytes: &[u8],
        (status, status_text, minor): (u16, Span, u8),
        to_head: bool,
    ) -> Result<Facts, Reject> {
        let options = drop_hop_by_hop(&mut self.fields, bytes, self.seen)?;
        let (mut length, mut chunked, mut upgrade) = (None, false, None);
        for field in &mut self.fields {
            let value = field.value.bytes(bytes);
            match field.known {
                Known::ContentLength => {
                    if length.replace(content_length(value)?).is_some() {
                        return Err(Reject::Bad("more than one Content-Length"));
                    }
                    // What has no body has no length to be misread (RFC 9110 section 8.6).
                    field.dropped |= status < 200 || status == 204;
                }
                Known::TransferEncoding => {
                    check_transfer_encoding(value, minor, chunked)?;
                    chunked = true;
                    // Who forwards decides on the framing.
                    field.dropped = true;
                }
                Known::Upgrade if options.upgrade => upgrade = Some(field.value),
                // Means nothing in a response: keep it.
                Known::Proxy | Known::Disguised | Known::Http2Settings => field.dropped = false,
                _ => {}
            }
        }
        if length.is_some() && chunked {
            return Err(Reject::Bad("both Content-Length and Transfer-Encoding"));
        }
        let bodyless = to_head || status < 200 || status == 204 || status == 304;
        Ok(Facts {
            status,
            status_text,
            len: bytes.len(),
            body: match (length, chunked) {
                _ if bodyless => BodyKind::None,
                (_, true) => BodyKind::Chunked,
                (Some(0), _) => BodyKind::None,
                (Some(length), _) => BodyKind::Length(length),
                (None, _) => BodyKind::UntilClose,
            },
            keep_alive: !options.close && (minor == 1 || options.keep_alive),
            upgrade,
            minor,
            bare_lf: false,
        })
    }

    fn facts(&self) -> &Facts {
        self.facts
            .as_ref()
            .expect("a head is looked at only after it was parsed")
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.facts().status
    }

    /// The status code and the reason as they were written.
    pub fn status_text(&self) -> Span {
        self.facts().status_text
    }

    /// Its bytes, the empty line included.
    pub fn byte_len(&self) -> usize {
        self.facts().len
    }

    /// What follows it.
    pub fn body(&self) -> BodyKind {
        self.facts().body
    }

    /// The upstream takes another request on this connection.
    pub fn keep_alive(&self) -> bool {
        self.facts().keep_alive
    }

    /// 0 or 1, of HTTP/1.
    pub fn minor(&self) -> u8 {
        self.facts().minor
    }

    /// It says when it was made.
    pub fn has_date(&self) -> bool {
        self.seen.has(&[Known::Date])
    }

    /// A line of it ends with a bare LF.
    pub fn has_bare_lf(&self) -> bool {
        self.facts().bare_lf
    }

    /// The protocol that the upstream changes to.
    pub fn upgrade(&self) -> Option<Span> {
        self.facts().upgrade
    }
}
