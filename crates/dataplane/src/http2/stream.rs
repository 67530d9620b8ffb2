//! A client's stream as a connection of HTTP/1.1 that carries one request.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};

use super::halves::{Incoming, Outgoing, Payload, broken, invalid};
use super::request::{Malformed, Shape, put_request_head, read_fields};
use super::trailers;
use crate::net::{Buf, Transport};

/// One stream: reads as the request, takes the answer.
pub(crate) struct Stream {
    /// What was not read of the request's head.
    head: Option<Buf>,
    incoming: Incoming,
    /// It says that its body is empty but has not ended: nothing is read of it before it has, so that nothing malformed is forwarded.
    unended: bool,
    answer: Answer,
    to_head: bool,
    /// It asked for a WebSocket.
    tunnel: bool,
}

enum Answer {
    /// No final head yet; what came of one.
    Head(SendResponse<Payload>, Vec<u8>),
    Body(Outgoing),
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("to_head", &self.to_head)
            .finish_non_exhaustive()
    }
}

impl Stream {
    /// A stream out of what h2 accepted. One that is malformed is reset, and the reason given.
    pub(super) fn new(
        request: Request<RecvStream>,
        mut respond: SendResponse<Payload>,
        trailers: &trailers::Malformed,
    ) -> Result<Self, Malformed> {
        let (parts, recv) = request.into_parts();
        let mut head = Buf::small();
        match put_request_head(&mut head, &parts, recv.is_end_stream()) {
            Ok(shape) => Ok(Self {
                head: Some(head),
                incoming: Incoming::new(recv, shape).unless(trailers),
                unended: shape == Shape::Length && says_empty(&parts.headers),
                answer: Answer::Head(respond, Vec::new()),
                to_head: parts.method == Method::HEAD,
                tunnel: shape == Shape::Raw,
            }),
            Err(malformed) => {
                respond.send_reset(Reason::PROTOCOL_ERROR);
                Err(malformed)
            }
        }
    }

    /// Ready when what was said of an empty body has proved true; h2 holds the body against its length.
    fn poll_unended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unended {
            ready!(self.incoming.poll_ready(cx))?;
            self.unended = false;
        }
        Poll::Ready(Ok(()))
    }

    fn is_answered(&self) -> bool {
        matches!(&self.answer, Answer::Body(body) if body.is_done())
    }

    /// Ready when the client has given the stream up.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.answer {
            Answer::Head(respond, _) => match ready!(respond.poll_reset(cx)) {
                Ok(reason) => Poll::Ready(broken(reason.into())),
                Err(error) => Poll::Ready(broken(error)),
            },
            Answer::Body(body) => body.poll_reset(cx),
        }
    }

    /// Takes the start of `bytes`.
    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (respond, partial) = match &mut self.answer {
            Answer::Body(body) => return body.poll_write(cx, bytes),
            Answer::Head(respond, partial) => (respond, partial),
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
                partial.clear();
                (text, at + 4 - had)
            }
        };
        if let Some(body) = send_head(respond, &text, self.to_head, self.tunnel)? {
            self.answer = Answer::Body(body);
        }
        Poll::Ready(Ok(len))
    }
}

/// `Content-Length: 0`.
fn says_empty(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|digits| digits.as_bytes().iter().all(|digit| *digit == b'0'))
}

/// Sends a head that we wrote. None after an interim one.
fn send_head(
    respond: &mut SendResponse<Payload>,
    text: &Bytes,
    to_head: bool,
    tunnel: bool,
) -> io::Result<Option<Outgoing>> {
    // HTTP/1.1 200 …
    let code = text
        .get(9..12)
        .and_then(|code| StatusCode::from_bytes(code).ok());
    let fields = memchr::memchr(b'\n', text).and_then(|end| read_fields(text, end + 1));
    let (Some(status), Some(told)) = (code, fields) else {
        return Err(invalid("an answer's head can't be said in HTTP/2"));
    };
    let code = status.as_u16();
    let switches = code == 101 && tunnel;
    let (shape, length) = match (switches, to_head || matches!(code, 204 | 304)) {
        (true, _) => (Shape::Raw, 0),
        (_, true) => (Shape::None, 0),
        _ if told.chunked => (Shape::Chunked, 0),
        _ if told.length == 0 => (Shape::None, 0),
        _ => (Shape::Length, told.length),
    };
    let mut head = Response::new(());
    *head.headers_mut() = told.headers;
    *head.status_mut() = status;
    if switches {
        head.headers_mut().remove("sec-websocket-accept");
        *head.status_mut() = StatusCode::OK;
    }
    if code < 200 && !switches {
        return match code {
            // Nothing else is spoken on this stream.
            101 => Err(invalid("an answer changes to another protocol")),
            _ => respond
                .send_informational(head)
                .map(|()| None)
                .map_err(broken),
        };
    }
    let send = respond
        .send_response(head, shape == Shape::None)
        .map_err(broken)?;
    Ok(Some(Outgoing::new(send, shape, length)))
}

impl Transport for Stream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unended(cx))?;
        if self.head.is_some() || self.is_answered() {
            return Poll::Ready(Ok(()));
        }
        if !self.incoming.is_done() {
            return self.incoming.poll_ready(cx);
        }
        if self.tunnel {
            return Poll::Ready(Ok(()));
        }
        // All was asked; what can still come is that the client changes its mind.
        self.poll_reset(cx).map(Err)
    }

    /// The request; then the end, once it is answered: each stream carries one.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buf) -> Poll<io::Result<usize>> {
        ready!(self.poll_unended(cx))?;
        if let Some(head) = &mut self.head {
            let count = head.len().min(into.spare().len());
            into.put(&head.filled()[..count]);
            head.consume(count);
            if head.is_empty() {
                self.head = None;
            }
            return Poll::Ready(Ok(count));
        }
        if self.is_answered() {
            return Poll::Ready(Ok(0));
        }
        if !self.incoming.is_done() {
            return self.incoming.poll_read(cx, into);
        }
        if self.tunnel {
            return Poll::Ready(Ok(0));
        }
        self.poll_reset(cx).map(Err)
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

    /// What was taken is within the bound on what waits for a client; the connection's task sends it.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// After an early answer the client is told that the rest of its request is not wanted (NO_ERROR, RFC 9113 section 8.1).
    /// h2 does so when the stream is dropped, behind what is still to be sent; a reset by us would take that with it.
    fn poll_close_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.answer {
            Answer::Head(respond, _) => respond.send_reset(Reason::INTERNAL_ERROR),
            Answer::Body(body) => body.end_tunnel()?,
        }
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self) {
        let reason = match self.incoming.is_malformed() {
            true => Reason::PROTOCOL_ERROR,
            false => Reason::INTERNAL_ERROR,
        };
        match &mut self.answer {
            Answer::Head(respond, _) => respond.send_reset(reason),
            Answer::Body(body) => body.reset(reason),
        }
    }
}
