//! One call of `grpc.health.v1.Health/Check` over HTTP/2, by prior knowledge or whatever TLS has agreed on.
//!
//! Two bytes of protobuf each way: no code is generated for them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{Buf, Transport};

/// `ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// Bytes of an answer at most.
const ANSWER_BYTES: usize = 1024;

/// Whether `service` is serving, or why not. The caller bounds the time.
pub async fn check<T: Transport + Unpin>(io: T, host: &str, service: &str) -> Result<(), String> {
    let (send, connection) = Builder::new()
        .enable_push(false)
        .max_header_list_size(16 * 1024)
        .handshake::<_, Bytes>(Stream {
            io,
            input: Buf::small(),
        })
        .await
        .map_err(|error| error.to_string())?;
    let call = call(send, host, service);
    // The connection moves only while it is polled.
    tokio::select! {
        biased;
        answer = call => answer,
        ended = connection => Err(match ended {
            Err(error) => format!("not HTTP/2, or broken off: {error}"),
            Ok(()) => "closed without an answer".to_owned(),
        }),
    }
}

async fn call(send: SendRequest<Bytes>, host: &str, service: &str) -> Result<(), String> {
    let text = |error: h2::Error| error.to_string();
    let request = Request::post(format!("http://{host}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| error.to_string())?;
    let mut send = send.ready().await.map_err(text)?;
    let (answer, mut body) = send.send_request(request, false).map_err(text)?;
    body.send_data(question(service).into(), true)
        .map_err(text)?;
    let (head, mut body) = answer.await.map_err(text)?.into_parts();
    if head.status != 200 {
        return Err(format!("answers {}", head.status.as_u16()));
    }
    let failed = |fields: &http::HeaderMap| {
        let field = |name| fields.get(name).and_then(|value| value.to_str().ok());
        let status = field("grpc-status").filter(|status| *status != "0")?;
        let message = field("grpc-message").unwrap_or_default();
        Some(format!("gRPC status {status} {message}").trim().to_owned())
    };
    if let Some(why) = failed(&head.headers) {
        return Err(why);
    }
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(text)?;
        // Whoever sends more has not understood the question.
        body.flow_control()
            .release_capacity(part.len())
            .map_err(text)?;
        bytes.extend_from_slice(&part);
        if bytes.len() > ANSWER_BYTES {
            return Err("an answer that is too long".to_owned());
        }
    }
    if let Some(why) = body
        .trailers()
        .await
        .map_err(text)?
        .as_ref()
        .and_then(failed)
    {
        return Err(why);
    }
    match status(&bytes) {
        Some(SERVING) => Ok(()),
        Some(0) => Err("says UNKNOWN".to_owned()),
        Some(2) => Err("says NOT_SERVING".to_owned()),
        Some(3) => Err("says SERVICE_UNKNOWN".to_owned()),
        _ => Err("an answer that is not valid".to_owned()),
    }
}

/// A length-prefixed `HealthCheckRequest`: field 1 is the service (protobuf's encoding, "Message Structure").
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        put_varint(&mut message, service.len());
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

fn put_varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The status in a length-prefixed `HealthCheckResponse`: field 1, a varint; left out for 0.
fn status(framed: &[u8]) -> Option<u64> {
    let (head, message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || length != message.len() {
        return None;
    }
    match message {
        [] => Some(0),
        [0x08, status @ 0..0x80] => Some((*status).into()),
        _ => None,
    }
}

/// A transport for h2, which wants tokio's traits.
struct Stream<T> {
    io: T,
    /// What was read and not taken yet.
    input: Buf,
}

impl<T: Transport + Unpin> AsyncRead for Stream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.input.is_empty() {
            std::task::ready!(this.io.poll_read(cx, &mut this.input))?;
        }
        let count = this.input.len().min(into.remaining());
        into.put_slice(&this.input.filled()[..count]);
        this.input.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io.poll_write(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_close_write(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_protobuf_has_them() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(question(&"x".repeat(200))[4..8], [203, 0x0a, 0xc8, 0x01]);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[0, 0, 0, 0, 2, 8]), None);
        assert_eq!(status(&[1, 0, 0, 0, 2, 8, 1]), None);
        assert_eq!(status(b""), None);
    }
}
