//! An answer.

use std::borrow::Cow;
use std::io;
use std::task::{Context, Poll};

use crate::http::date::put_date;
use crate::http::reject::reason;
use crate::net::Buf;

/// A body that is made while it is sent.
pub trait Source {
    /// Appends some bytes (16 KiB or so at a time) and returns true; false when nothing more comes. An error cuts the
    /// connection, so that the client sees the body as incomplete.
    fn poll_more(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<io::Result<bool>>;
}

/// The body of an answer.
pub enum Body {
    /// Bytes that are there.
    Bytes(Cow<'static, [u8]>),
    /// Made while it is sent; chunked unless its length is known.
    Stream {
        /// Its length in bytes, if known. A source that gives more or less is a fault and cuts the connection.
        length: Option<u64>,
        /// Where it comes from.
        source: Box<dyn Source>,
    },
}

/// An answer: status, fields, body. Date, Content-Length, Connection and Transfer-Encoding are added by the server.
pub struct Response {
    pub(super) status: u16,
    pub(super) fields: Vec<(&'static str, Cow<'static, str>)>,
    pub(super) body: Body,
    pub(super) close: bool,
}

impl Response {
    /// An empty answer.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Body::Bytes(Cow::Borrowed(&[])),
            close: false,
        }
    }

    /// A text in UTF-8.
    pub fn text(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        let bytes = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self::bytes(status, "text/plain; charset=utf-8", bytes)
    }

    /// Bytes of some type.
    pub fn bytes(
        status: u16,
        content_type: impl Into<Cow<'static, str>>,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        let mut response = Self::new(status).header("Content-Type", content_type);
        response.body = Body::Bytes(body.into());
        response
    }

    /// A body that is made while it is sent.
    pub fn stream(
        status: u16,
        content_type: impl Into<Cow<'static, str>>,
        length: Option<u64>,
        source: Box<dyn Source>,
    ) -> Self {
        let mut response = Self::new(status).header("Content-Type", content_type);
        response.body = Body::Stream { length, source };
        response
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::text(404, "not found\n")
    }

    /// 405; `allow` lists the methods.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::text(405, "method not allowed\n").header("Allow", allow)
    }

    /// Adds a field. A value with a control character is left out: it could be another field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        let value = value.into();
        if !value.chars().any(|c| c.is_control() && c != '\t') {
            self.fields.push((name, value));
        }
        self
    }

    /// Closes the connection after this answer.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }
}

/// How an answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By Content-Length.
    Length,
    /// Chunked.
    Chunked,
    /// Until the connection is closed: an HTTP/1.0 client and an unknown length.
    Close,
}

/// Writes the head. `keep_alive`: Some for a client that must be told (HTTP/1.0), None when the default is right.
pub(super) fn put_head(
    out: &mut Buf,
    response: &Response,
    framing: Framing,
    connection: Option<&'static str>,
) {
    out.put(b"HTTP/1.1 ");
    out.put_decimal(response.status.into());
    out.put(b" ");
    out.put(reason(response.status).as_bytes());
    out.put(b"\r\n");
    put_date(out);
    for (name, value) in &response.fields {
        out.put(name.as_bytes());
        out.put(b": ");
        out.put(value.as_bytes());
        out.put(b"\r\n");
    }
    let may_have_body = response.status >= 200 && !matches!(response.status, 204 | 304);
    match framing {
        Framing::Length if may_have_body => {
            out.put(b"Content-Length: ");
            out.put_decimal(match &response.body {
                Body::Bytes(bytes) => bytes.len() as u64,
                Body::Stream { length, .. } => length.unwrap_or_default(),
            });
            out.put(b"\r\n");
        }
        Framing::Chunked if may_have_body => out.put(b"Transfer-Encoding: chunked\r\n"),
        _ => {}
    }
    if let Some(option) = connection {
        out.put(b"Connection: ");
        out.put(option.as_bytes());
        out.put(b"\r\n");
    }
    out.put(b"\r\n");
}
