//! The life of a connection that is answered here.

use std::future::poll_fn;
use std::rc::Rc;

use super::Handler;
use super::request::{BodyUse, Request};
use super::response::{Body, Framing, Response, Source, put_head};
use crate::http::chunked::{Chunks, Step};
use crate::http::conn::{Conn, Cut, Found};
use crate::http::head::{BodyKind, Method, RequestHead, Scanner, parse_trailers};
use crate::http::limits::HttpLimits;
use crate::http::reject::Reject;
use crate::net::{Accepted, Buf, Peer, Serve, Transport, Worker};

/// Answers connections with a handler.
#[derive(Debug)]
pub struct Local<H> {
    handler: H,
    limits: HttpLimits,
}

/// A body up to this length is sent together with the head.
const TOGETHER_BYTES: usize = 8 * 1024;

impl<H: Handler> Local<H> {
    /// Answers with `handler` within `limits`.
    pub fn new(handler: H, limits: HttpLimits) -> Self {
        Self { handler, limits }
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Serves a connection over any transport until it ends. (Not an `async fn`: that would keep room for `io` twice.)
    pub fn serve_on<T: Transport>(
        &self,
        io: T,
        peer: Peer,
        worker: Rc<Worker>,
    ) -> impl Future<Output = ()> + use<'_, H, T> {
        let mut conn = Conn::new(io, worker);
        async move {
            match self.requests(&mut conn, peer).await {
                Ok(()) => conn.finish().await,
                Err(Cut::Rejected(reject)) => self.refuse(&mut conn, reject).await,
                Err(Cut::Closed) => conn.close().await,
                Err(Cut::Timeout | Cut::Broken(_) | Cut::Http2) => conn.io.abort(),
            }
        }
    }

    /// Tells the client why, and closes.
    async fn refuse<T: Transport>(&self, conn: &mut Conn<T>, reject: Reject) {
        let response = Response::text(reject.status(), format!("{reject}\n"));
        let mut out = Buf::small();
        put_head(&mut out, &response, Framing::Length, Some("close"));
        if let Body::Bytes(body) = &response.body {
            out.put(body);
        }
        let sent = conn.send(&[out.filled()], self.limits.idle_timeout).await;
        if sent.is_ok() {
            conn.finish().await;
        }
    }

    /// Answers requests until one says that it was the last.
    async fn requests<T: Transport>(&self, conn: &mut Conn<T>, peer: Peer) -> Result<(), Cut> {
        let mut head = RequestHead::default();
        let mut body = Vec::new();
        let mut first = true;
        loop {
            if !first {
                conn.timer.arm_for(self.limits.idle_timeout);
            }
            let fields = self.limits.fields();
            let take = |input: &[u8]| head.take(input, fields);
            let Found { len, parsed } = conn.head(&self.limits, first, take).await?;
            first = false;
            if !parsed {
                head.parse(&conn.input()[..len], fields)?;
            }
            // The bytes of the head must outlive the reading of the body, which moves the buffer.
            let bytes = match head.body() {
                BodyKind::None => None,
                _ => Some(conn.input()[..len].to_vec()),
            };
            let body_bytes = match &bytes {
                None => 0,
                Some(_) => {
                    conn.consume(len);
                    self.body(conn, &head, &mut body).await?
                }
            };
            let response = {
                let request = Request {
                    head: &head,
                    bytes: bytes.as_deref().unwrap_or_else(|| &conn.input()[..len]),
                    body: &body,
                    body_bytes,
                    peer,
                };
                conn.timer.disarm();
                self.handler.handle(request).await
            };
            if bytes.is_none() {
                conn.consume(len);
            }
            body.clear();
            let keep_alive = head.keep_alive() && !response.close && !conn.worker.closing();
            let kept = self.answer(conn, &head, response, keep_alive).await?;
            match kept {
                true => {}
                // It has said that nothing follows, and all of its request has come.
                false if !head.keep_alive() => return Err(Cut::Closed),
                false => return Ok(()),
            }
        }
    }

    /// Reads the body; returns its length.
    async fn body<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        head: &RequestHead,
        body: &mut Vec<u8>,
    ) -> Result<u64, Cut> {
        let (keep, max) = match self.handler.body_use() {
            BodyUse::Collect(max) => (true, Some(max as u64)),
            BodyUse::Count => (false, self.limits.body_bytes()),
        };
        let too_large = |length: u64| max.is_some_and(|max| length > max);
        if let BodyKind::Length(length) = head.body()
            && too_large(length)
        {
            return Err(Reject::BodyTooLarge.into());
        }
        if head.expects_continue() && conn.input().is_empty() {
            let interim: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
            conn.send(&[interim], self.limits.idle_timeout).await?;
        }
        let mut chunks = Chunks::default();
        let mut total = 0_u64;
        loop {
            let input = conn.input();
            let step = match head.body() {
                BodyKind::Length(length) if total == length => return Ok(total),
                BodyKind::Length(length) => match (length - total).min(input.len() as u64) {
                    0 => Step::More,
                    here => Step::Data(usize::try_from(here).unwrap_or(usize::MAX)),
                },
                BodyKind::Chunked => chunks.step(input)?,
                BodyKind::None | BodyKind::UntilClose => return Ok(0),
            };
            match step {
                Step::Data(count) => {
                    total += count as u64;
                    if too_large(total) {
                        return Err(Reject::BodyTooLarge.into());
                    }
                    if keep {
                        body.extend_from_slice(&input[..count]);
                    }
                    conn.consume(count);
                }
                Step::Framing(count) => conn.consume(count),
                Step::Last(count) => {
                    conn.consume(count);
                    self.trailers(conn).await?;
                    return Ok(total);
                }
                Step::More => self.more_body(conn).await?,
            }
        }
    }

    /// Trailers are checked and not used.
    async fn trailers<T: Transport>(&self, conn: &mut Conn<T>) -> Result<(), Cut> {
        let mut scanner = Scanner::default();
        loop {
            if let Some(len) = scanner.find(conn.input(), true)? {
                parse_trailers(&conn.input()[..len], self.limits.fields(), &mut Vec::new())?;
                conn.consume(len);
                return Ok(());
            }
            if conn.input().len() >= self.limits.head_bytes() {
                return Err(Reject::HeadTooLarge.into());
            }
            self.more_body(conn).await?;
        }
    }

    async fn more_body<T: Transport>(&self, conn: &mut Conn<T>) -> Result<(), Cut> {
        conn.timer.arm_for(self.limits.body_timeout);
        match conn.fill(self.limits.head_bytes()).await {
            Ok(0) => Err(Cut::Broken(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(Cut::Timeout) => Err(Reject::BodyTimeout.into()),
            Err(cut) => Err(cut),
        }
    }

    /// Sends the answer; returns whether the connection can be used again.
    async fn answer<T: Transport>(
        &self,
        conn: &mut Conn<T>,
        head: &RequestHead,
        response: Response,
        keep_alive: bool,
    ) -> Result<bool, Cut> {
        let framing = match &response.body {
            Body::Bytes(_)
            | Body::Stream {
                length: Some(_), ..
            } => Framing::Length,
            Body::Stream { length: None, .. } if head.minor() == 1 => Framing::Chunked,
            Body::Stream { length: None, .. } => Framing::Close,
        };
        let keep_alive = keep_alive && framing != Framing::Close;
        let connection = match (keep_alive, head.minor()) {
            (false, _) => Some("close"),
            (true, 0) => Some("keep-alive"),
            (true, _) => None,
        };
        let mut out = Buf::small();
        put_head(&mut out, &response, framing, connection);
        let bodyless =
            head.method() == Method::Head || matches!(response.status, 100..=199 | 204 | 304);
        let pause = self.limits.idle_timeout;
        if !keep_alive && matches!(response.body, Body::Bytes(_)) {
            conn.io.last();
        }
        match response.body {
            _ if bodyless => conn.send(&[out.filled()], pause).await?,
            Body::Bytes(body) if body.len() <= TOGETHER_BYTES => {
                out.put(&body);
                conn.send(&[out.filled()], pause).await?;
            }
            Body::Bytes(body) => conn.send(&[out.filled(), &body], pause).await?,
            Body::Stream { length, source } => {
                stream(conn, out, framing, length, source, pause).await?;
            }
        }
        Ok(keep_alive)
    }
}

/// Sends head and body as the source makes it.
async fn stream<T: Transport>(
    conn: &mut Conn<T>,
    mut out: Buf,
    framing: Framing,
    length: Option<u64>,
    mut source: Box<dyn Source>,
    pause: std::time::Duration,
) -> Result<(), Cut> {
    let mut piece = Vec::new();
    let mut made = 0_u64;
    let fault = |what: &'static str| Cut::from(std::io::Error::other(what));
    loop {
        piece.clear();
        // A source may have nothing for now: what there is must not wait for it.
        let more = poll_fn(|cx| match source.poll_more(cx, &mut piece) {
            std::task::Poll::Pending if !out.is_empty() => std::task::Poll::Ready(None),
            std::task::Poll::Pending => std::task::Poll::Pending,
            std::task::Poll::Ready(result) => std::task::Poll::Ready(Some(result)),
        })
        .await;
        let Some(more) = more else {
            conn.send(&[out.filled()], pause).await?;
            out.clear();
            continue;
        };
        if !more? {
            break;
        }
        made += piece.len() as u64;
        if length.is_some_and(|length| made > length) {
            return Err(fault("a body is longer than was said"));
        }
        if piece.is_empty() {
            continue;
        }
        if framing == Framing::Chunked {
            out.put_hex(piece.len() as u64);
            out.put(b"\r\n");
            conn.send(&[out.filled(), &piece, b"\r\n"], pause).await?;
        } else {
            conn.send(&[out.filled(), &piece], pause).await?;
        }
        out.clear();
    }
    if length.is_some_and(|length| made != length) {
        return Err(fault("a body is shorter than was said"));
    }
    if framing == Framing::Chunked {
        out.put(b"0\r\n\r\n");
    }
    conn.send(&[out.filled()], pause).await
}

impl<H: Handler> Serve for Local<H> {
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted {
            socket,
            peer,
            worker,
            guard,
        } = accepted;
        self.serve_on(socket, peer, worker).await;
        drop(guard);
    }
}
