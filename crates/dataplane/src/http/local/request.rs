//! A request as a handler sees it.

use crate::http::head::{RequestHead, Target};
use crate::net::Peer;

/// What becomes of request bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyUse {
    /// Collected up to so many bytes; a longer one is answered with 413.
    Collect(usize),
    /// Read, counted and thrown away, up to `--max-body-bytes`.
    Count,
}

/// A request, borrowed from the connection's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) bytes: &'a [u8],
    pub(super) body: &'a [u8],
    pub(super) body_bytes: u64,
    pub(super) peer: Peer,
}

impl<'a> Request<'a> {
    /// The method as it was written.
    pub fn method(&self) -> &'a str {
        text(self.head.method_token().bytes(self.bytes))
    }

    /// Path and query as they were written; `*` for the server as a whole.
    pub fn target(&self) -> &'a str {
        let span = match self.head.target() {
            Target::Origin(span) | Target::Asterisk(span) => span,
            Target::Absolute { path, .. } => path,
        };
        match text(span.bytes(self.bytes)) {
            "" => "/",
            target => target,
        }
    }

    /// The path, not decoded.
    pub fn path(&self) -> &'a str {
        let target = self.target();
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// What follows the `?`, not decoded; empty when absent.
    pub fn query(&self) -> &'a str {
        self.target().split_once('?').map_or("", |(_, query)| query)
    }

    /// The value of the first field of that name (any case). None when absent or not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.head.value(name, self.bytes)?).ok()
    }

    /// All fields in order, names and values as they were written.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let bytes = self.bytes;
        let fields = self.head.fields.iter();
        fields.map(move |field| (text(field.name.bytes(bytes)), field.value.bytes(bytes)))
    }

    /// The host that was asked for: of the target, else of the Host field. With its port, if one was given.
    pub fn host(&self) -> Option<&'a str> {
        Some(text(self.head.authority()?.bytes(self.bytes)))
    }

    /// The minor version: 0 or 1.
    pub fn minor_version(&self) -> u8 {
        self.head.minor()
    }

    /// Who asks.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The body; empty when bodies are only counted.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The body's length, collected or not.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }
}

/// Methods, targets and names were checked to be ASCII when they were parsed.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
