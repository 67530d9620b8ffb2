//! A stream to an upstream as a connection of HTTP/1.1 that carries one request.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri, header};

use super::halves::{Incoming, Outgoing, Payload, broken, invalid};
use super::request::{Shape, is_about_connection, put_field, read_fields};
use super::serve::Open;
use crate::http::reason;
use crate::net::{Buf, Transport};

/// What is answered to a request that asks to change to another protocol: no stream of HTTP/2 does (RFC 9113 section 8.6).
const NO_UPGRADE: &[u8] = b"HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n";

/// One request and its answer.
pub struct Exchange {
    send: SendRequest<Payload>,
    scheme: Scheme,
    request: Asking,
    /// What was not read of a head.
    head: Option<Buf>,
    answer: Answer,
    to_head: bool,
    unprocessed: bool,
    _open: Open,
}

enum Asking {
    /// What came of the head.
    Head(Vec<u8>),
    Body(Outgoing<SendStream<Payload>>),
    /// It is not sent at all.
    Refused,
}

enum Answer {
    /// There is no request yet.
    None,
    Head(ResponseFuture),
    Body(Incoming),
    /// All was read.
    Ended,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("unprocessed", &self.unprocessed)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// On a connection of its scheme.
    pub(crate) fn new(send: SendRequest<Payload>, scheme: Scheme, open: Open) -> Self {
        Self {
            send,
            scheme,
            request: Asking::Head(Vec::new()),
            head: None,
            answer: Answer::None,
            to_head: false,
            unprocessed: false,
            _open: open,
        }
    }

    /// The upstream has said that it has not looked at the request (RFC 9113 section 8.7): it may be sent elsewhere.
    pub(crate) fn is_unprocessed(&self) -> bool {
        self.unprocessed
    }

    /// Takes the start of `bytes`.
    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let partial = match &mut self.request {
            Asking::Body(body) => return body.poll_write(cx, bytes),
            Asking::Refused => return Poll::Ready(Ok(bytes.len())),
            Asking::Head(partial) => partial,
        };
        let had = partial.len();
        // Nearly always all of it comes at once.
        let (text, len) = match (had, memchr::memmem::find(bytes, b"\r\n\r\n")) {
            (0, Some(at)) => (Bytes::copy_from_slice(&bytes[..at + 4]), at + 4),
            _ => {
                partial.extend_from_slice(bytes);
                let Some(at) = memchr::memmem::find(partial, b"\r\n\r\n") else {
                    return Poll::Ready(Ok(bytes.len()));
                };
                let text = Bytes::copy_from_slice(&partial[..at + 4]);
                (text, at + 4 - had)
            }
        };
        self.send_head(&text)?;
        Poll::Ready(Ok(len))
    }

    /// Opens the stream with a head that we wrote.
    fn send_head(&mut self, text: &Bytes) -> io::Result<()> {
        let line = memchr::memchr(b'\n', text);
        let told = line.and_then(|end| read_fields(text, end + 1));
        let mut words = text.split(|byte| *byte == b' ');
        let (Some(mut told), Some(method), Some(path)) = (told, words.next(), words.next()) else {
            return Err(invalid("a request's head is not valid"));
        };
        if told.upgrade {
            let mut out = Buf::small();
            out.put(NO_UPGRADE);
            self.head = Some(out);
            self.request = Asking::Refused;
            self.answer = Answer::Ended;
            return Ok(());
        }
        let shape = match (told.chunked, told.length) {
            (true, _) => Shape::Chunked,
            (false, 0) => Shape::None,
            (false, _) => Shape::Length,
        };
        let wrong = |_: http::Error| invalid("a request's head can't be said in HTTP/2");
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.scheme.clone());
        let path = text.slice_ref(path);
        let path = PathAndQuery::from_maybe_shared(path).map_err(|error| wrong(error.into()))?;
        uri.path_and_query = Some(path);
        let host = told.headers.remove(header::HOST);
        let host = host.map_or_else(Bytes::new, |host| Bytes::copy_from_slice(host.as_bytes()));
        let host = Authority::from_maybe_shared(host).map_err(|error| wrong(error.into()))?;
        uri.authority = Some(host);
        let mut request = Request::new(());
        *request.method_mut() = Method::from_bytes(method).map_err(|error| wrong(error.into()))?;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|error| wrong(error.into()))?;
        *request.headers_mut() = told.headers;
        self.to_head = *request.method() == Method::HEAD;
        let sent = self.send.send_request(request, shape == Shape::None);
        let (answer, send) = sent.map_err(|error| self.fail(error))?;
        self.request = Asking::Body(Outgoing::new(send, shape, told.length));
        self.answer = Answer::Head(answer);
        Ok(())
    }

    fn fail(&mut self, error: h2::Error) -> io::Error {
        // A stream that a GOAWAY leaves out, or that was refused. A connection that is gone before the stream was
        // opened has not seen it either.
        self.unprocessed = error.reason() == Some(Reason::REFUSED_STREAM)
            || (error.is_go_away()
                && error.is_remote()
                && error.reason() == Some(Reason::NO_ERROR))
            || matches!(self.answer, Answer::None);
        broken(error)
    }

    /// Writes the head of the answer, or of an interim one, as it comes.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Answer::Head(answer) = &mut self.answer else {
            return Poll::Ready(Ok(()));
        };
        if let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
            let mut out = Buf::small();
            put_head(&mut out, &interim, None)?;
            self.head = Some(out);
            return Poll::Ready(Ok(()));
        }
        let response = match ready!(std::pin::Pin::new(answer).poll(cx)) {
            Ok(response) => response,
            Err(error) => return Poll::Ready(Err(self.fail(error))),
        };
        let (parts, recv) = response.into_parts();
        let bodyless = self.to_head || matches!(parts.status.as_u16(), 204 | 304);
        let has_length = parts.headers.contains_key(header::CONTENT_LENGTH);
        let shape = match (bodyless, has_length, recv.is_end_stream()) {
            (true, ..) | (_, _, true) => Shape::None,
            (false, true, false) => Shape::Length,
            (false, false, false) => Shape::Chunked,
        };
        let framing = match shape {
            Shape::Chunked => Some("transfer-encoding: chunked\r\n"),
            Shape::None if !bodyless && !has_length => Some("content-length: 0\r\n"),
            _ => None,
        };
        let mut out = Buf::small();
        put_head(&mut out, &Response::from_parts(parts, ()), framing)?;
        self.head = Some(out);
        self.answer = Answer::Body(Incoming::new(recv, shape));
        Poll::Ready(Ok(()))
    }

    /// Ready when there is something to read, or all was read.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.head.is_none() {
            ready!(self.poll_head(cx))?;
        }
        match &mut self.answer {
            _ if self.head.is_some() => Poll::Ready(Ok(())),
            Answer::None | Answer::Head(_) => Poll::Pending,
            Answer::Body(body) => body.poll_ready(cx),
            Answer::Ended => Poll::Ready(Ok(())),
        }
    }
}

fn put_head(
    out: &mut Buf,
    response: &Response<()>,
    framing: Option<&'static str>,
) -> io::Result<()> {
    let status = response.status().as_u16();
    out.put(b"HTTP/1.1 ");
    out.put_decimal(status.into());
    out.put(b" ");
    out.put(reason(status).as_bytes());
    out.put(b"\r\n");
    for (name, value) in response.headers() {
        // Malformed (RFC 9113 section 8.2.2); h2 lets it pass in answers.
        if is_about_connection(name) {
            return Err(invalid(
                "an answer has a field about a connection of HTTP/1.1",
            ));
        }
        put_field(out, name.as_str().as_bytes(), value.as_bytes())
            .map_err(|malformed| invalid(malformed.0))?;
    }
    out.put(framing.unwrap_or_default().as_bytes());
    out.put(b"\r\n");
    Ok(())
}

impl Transport for Exchange {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buf) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(cx))?;
        if let Some(head) = &mut self.head {
            let count = head.len().min(into.spare().len());
            into.put(&head.filled()[..count]);
            head.consume(count);
            if head.is_empty() {
                self.head = None;
            }
            // Often the body, or its begin, is there as well.
            if self.head.is_none()
                && let Answer::Body(body) = &mut self.answer
                && !body.is_done()
                && !into.spare().is_empty()
                && let Poll::Ready(Ok(more)) = body.poll_read(cx, into)
            {
                return Poll::Ready(Ok(count + more));
            }
            return Poll::Ready(Ok(count));
        }
        match &mut self.answer {
            Answer::Body(body) => body.poll_read(cx, into),
            Answer::None | Answer::Head(_) => Poll::Pending,
            Answer::Ended => Poll::Ready(Ok(0)),
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        for part in parts {
            let mut rest = &part[..];
            while !rest.is_empty() {
                match self.poll_take(cx, rest) {
                    Poll::Ready(Ok(count)) => {
                        rest = &rest[count..];
                        taken += count;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if taken == 0 => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(Ok(taken)),
                }
            }
        }
        Poll::Ready(Ok(taken))
    }

    /// The connection's task sends what was taken.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A request says itself where it ends.
    fn poll_close_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self) {
        if let Asking::Body(body) = &mut self.request {
            body.lane.send_reset(Reason::CANCEL);
        }
    }
}
