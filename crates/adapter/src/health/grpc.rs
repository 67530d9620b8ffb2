//! `--grpc-listen`: the verdicts as `grpc.health.v1.Health` (grpc/grpc, `src/proto/grpc/health/v1/health.proto`): Check and Watch.
//!
//! The messages have two bytes and a name: no code is generated for them. tonic was rejected for its stack of layers.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use podkit_dataplane::http2::Io;
use podkit_dataplane::net::{Accepted, Serve, Socket};
use podkit_foundation::lifecycle::{Lifecycle, Phase};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::board::Endpoint;
use super::runner::Shared;

/// Calls at once on a connection.
const CALLS: u32 = 100;
const HEADERS_BYTES: u32 = 16 * 1024;
/// A question with its frame's five bytes.
const QUESTION_BYTES: usize = 1024;
/// How long a question may take to come, and a client to shake hands.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections are asked whether they are still there.
const PING: Duration = Duration::from_secs(60);

/// `ServingStatus`.
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
const SERVICE_UNKNOWN: u8 = 3;

/// Statuses of gRPC.
const INVALID_ARGUMENT: u8 = 3;
const NOT_FOUND: u8 = 5;
const UNIMPLEMENTED: u8 = 12;
const UNAVAILABLE: u8 = 14;

/// Answers connections.
pub(crate) struct Health {
    pub(crate) shared: Shared,
    pub(crate) lifecycle: Lifecycle,
}

/// A status of gRPC and its message.
type Refusal = (u8, &'static str);

impl Serve for Health {
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted { socket, guard, .. } = accepted;
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(CALLS)
            .max_header_list_size(HEADERS_BYTES);
        let shake = builder.handshake::<_, Bytes>(Io::new(socket));
        if let Ok(Ok(connection)) = timeout(PATIENCE, shake).await {
            self.calls(connection).await;
        }
        drop(guard);
    }
}

impl Health {
    /// Answers calls until one of both goes.
    async fn calls(self: Rc<Self>, mut connection: Connection<Io<Socket>, Bytes>) {
        let mut calls = JoinSet::new();
        let gone = gone(connection.ping_pong());
        let lifecycle = self.lifecycle.clone();
        let draining = lifecycle.reached(Phase::Draining);
        tokio::pin!(gone, draining);
        let mut leaving = false;
        loop {
            tokio::select! {
                call = connection.accept() => match call {
                    Some(Ok((request, respond))) => {
                        drop(calls.spawn_local(Rc::clone(&self).call(request, respond)));
                    }
                    Some(Err(_)) | None => return,
                },
                Some(_) = calls.join_next() => {}
                () = &mut draining, if !leaving => {
                    leaving = true;
                    connection.graceful_shutdown();
                }
                () = &mut gone => return,
            }
        }
    }

    async fn call(self: Rc<Self>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        // A client that is gone is told nothing.
        if let Err(refusal) = self.answer(request, &mut respond).await {
            drop(respond.send_response(refused(refusal), true));
        }
    }

    async fn answer(
        &self,
        request: Request<RecvStream>,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<(), Refusal> {
        let (head, body) = request.into_parts();
        let watches = match (head.method.as_str(), head.uri.path()) {
            ("POST", "/grpc.health.v1.Health/Check") => false,
            ("POST", "/grpc.health.v1.Health/Watch") => true,
            _ => {
                return Err((
                    UNIMPLEMENTED,
                    "grpc.health.v1.Health has Check and Watch here",
                ));
            }
        };
        let service = timeout(PATIENCE, question(body)).await;
        let service = service.unwrap_or(Err((INVALID_ARGUMENT, "the question does not end")))?;
        let mut changes = self.shared.watch();
        let mut status = self.status(&service);
        if status == SERVICE_UNKNOWN && !watches {
            return Err((NOT_FOUND, "there is no probe of this name"));
        }
        let Ok(mut stream) = respond.send_response(accepted(), false) else {
            return Ok(());
        };
        if stream.send_data(message(status), false).is_err() {
            return Ok(());
        }
        if !watches {
            drop(end(&mut stream, 0));
            return Ok(());
        }
        loop {
            tokio::select! {
                // A verdict that grows old changes without a word.
                changed = timeout(Duration::from_secs(1), changes.changed()) => drop(changed),
                () = self.lifecycle.reached(Phase::Draining) => {
                    drop(end(&mut stream, UNAVAILABLE));
                    return Ok(());
                }
            }
            let now = self.status(&service);
            if now != status && stream.send_data(message(now), false).is_err() {
                return Ok(());
            }
            status = now;
        }
    }

    /// Of the application, of an endpoint, or of a probe.
    fn status(&self, service: &str) -> u8 {
        let endpoint = Endpoint::ALL.into_iter().find(|one| one.word() == service);
        let (endpoint, only) = match (service, endpoint) {
            ("", _) => (Endpoint::Ready, None),
            (_, Some(endpoint)) => (endpoint, None),
            (probe, None) => (Endpoint::Ready, Some(probe)),
        };
        let verdict = self.shared.board().verdict(endpoint, only, Instant::now());
        match verdict.map(|verdict| verdict.passes) {
            Some(true) => SERVING,
            Some(false) => NOT_SERVING,
            None => SERVICE_UNKNOWN,
        }
    }
}

/// Returns when the client does not answer any more.
async fn gone(ping_pong: Option<PingPong>) {
    let Some(mut ping_pong) = ping_pong else {
        return std::future::pending().await;
    };
    loop {
        sleep(PING).await;
        if !matches!(
            timeout(PATIENCE, ping_pong.ping(Ping::opaque())).await,
            Ok(Ok(_))
        ) {
            return;
        }
    }
}

fn accepted() -> Response<()> {
    let mut response = Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

fn refused((status, why): Refusal) -> Response<()> {
    let mut response = accepted();
    response
        .headers_mut()
        .insert("grpc-status", u16::from(status).into());
    let why = HeaderValue::from_static(why);
    response.headers_mut().insert("grpc-message", why);
    response
}

fn end(stream: &mut SendStream<Bytes>, status: u8) -> Result<(), h2::Error> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", u16::from(status).into());
    stream.send_trailers(trailers)
}

/// A length-prefixed `HealthCheckResponse`: field 1 is the status.
fn message(status: u8) -> Bytes {
    Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 0x08, status])
}

/// The service that is asked for.
async fn question(mut body: RecvStream) -> Result<String, Refusal> {
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        let Ok(part) = part else {
            return Err((INVALID_ARGUMENT, "the question broke off"));
        };
        // An error says that the client is gone.
        drop(body.flow_control().release_capacity(part.len()));
        bytes.extend_from_slice(&part);
        if bytes.len() > QUESTION_BYTES {
            return Err((INVALID_ARGUMENT, "the question is too long"));
        }
    }
    service(&bytes).ok_or((INVALID_ARGUMENT, "the question is not a HealthCheckRequest"))
}

/// The service in a length-prefixed `HealthCheckRequest`: field 1, a string; what else there may be is skipped (protobuf's encoding,
/// "Message Structure").
fn service(framed: &[u8]) -> Option<String> {
    let (head, mut rest) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || length != rest.len() {
        return None;
    }
    let mut service = String::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let skipped = match tag & 7 {
            0 => varint(&mut rest).map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, behind) = rest.split_at_checked(skipped)?;
        rest = behind;
        if tag == 0x0a {
            service = std::str::from_utf8(value).ok()?.to_owned();
        }
    }
    Some(service)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::service;

    #[test]
    fn questions_are_read_as_protobuf_has_them() {
        let check = |bytes: &[u8], expected: Option<&str>| {
            assert_eq!(service(bytes).as_deref(), expected, "{bytes:?}");
        };
        check(&[0, 0, 0, 0, 0], Some(""));
        check(&[0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b'], Some("ab"));
        // A field that is not known yet, in front: number 2, a varint of two bytes.
        check(&[0, 0, 0, 0, 6, 0x10, 0x80, 1, 0x0a, 1, b'a'], Some("a"));
        check(&[0, 0, 0, 0, 4, 0x0a, 3, b'a', b'b'], None);
        check(&[0, 0, 0, 0, 5, 0x0a, 2, b'a', b'b'], None);
        check(&[1, 0, 0, 0, 4, 0x0a, 2, b'a', b'b'], None);
        check(&[0, 0, 0, 0, 3, 0x0a, 1, 0xff], None);
        check(b"", None);
        let mut long = vec![0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01];
        long.extend([b'x'; 200]);
        check(&long, Some(&"x".repeat(200)));
    }
}
