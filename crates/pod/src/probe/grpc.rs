//! One call of `grpc.health.v1.Health/Check`, as the kubelet's gRPC prober makes it: over HTTP/2, with the words of the kubelet and
//! of Go's gRPC; with `mode: TLS` any certificate will do (KEP-4939).
//!
//! The kubelet's client waits until a connection stands (the server's SETTINGS are there) and dials again while the probe's
//! time lasts; a port where nobody listens, or where something else speaks, is thus told as a timeout. Here the pauses between
//! two dials are shorter than Go's second, so that a server is seen soon after it came up.
//!
//! tonic was rejected: it brings a stack of layers, pools and code generation for one message of two bytes.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, timeout};

use super::health::{self, Message};
use super::{Dial, Outcome, PROBE_AGENT, errno_text, go_duration};

/// Between two dials: doubling from the first to the last.
const REDIAL_FIRST: Duration = Duration::from_millis(10);
const REDIAL_MAX: Duration = Duration::from_secs(1);
/// Of the head of an answer.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// The type byte of a frame's head, and what it is for SETTINGS. (RFC 9113, 4.1 and 6.5)
const TYPE_AT: usize = 3;
const SETTINGS: u8 = 4;

/// Asks once within `time`. (Kubernetes: `pkg/probe/grpc`)
pub(super) async fn check(
    target: SocketAddr,
    tls: bool,
    service: &str,
    time: Duration,
    dial: &impl Dial,
) -> Outcome {
    let connected = Cell::new(false);
    let deadline = Instant::now() + time;
    let call = Call {
        scheme: if tls { "https" } else { "http" },
        target,
        service,
        deadline,
    };
    let answer = async {
        let mut pause = REDIAL_FIRST;
        loop {
            connected.set(false);
            let tcp = dial.dial(target).await.ok();
            let answer = match tcp {
                Some(tcp) if tls => match super::tls::http2(tcp, target).await {
                    Ok(stream) => once(stream, &call, &connected).await,
                    Err(_) => None,
                },
                Some(tcp) => once(tcp, &call, &connected).await,
                None => None,
            };
            if let Some(answer) = answer {
                return answer;
            }
            sleep(pause).await;
            pause = (pause * 2).min(REDIAL_MAX);
        }
    };
    let in_words = go_duration(time);
    match timeout(time, answer).await {
        Ok(Ok(health::SERVING)) => Outcome::Success,
        Ok(Ok(status)) => Outcome::Failure(format!(
            "service unhealthy (responded with {:?})",
            health::word(status)
        )),
        Ok(Err(status)) => Outcome::Failure(match status.code {
            Code::UNIMPLEMENTED => format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message
            ),
            Code::DEADLINE_EXCEEDED => {
                format!("timeout: health rpc did not complete within {in_words}")
            }
            code => format!(
                "error: health rpc probe failed: rpc error: code = {} desc = {}",
                code.word(),
                status.message
            ),
        }),
        Err(_) if connected.get() => Outcome::Failure(format!(
            "timeout: health rpc did not complete within {in_words}"
        )),
        Err(_) => Outcome::Failure(format!(
            "timeout: failed to connect service {:?} within {in_words}: context deadline exceeded",
            target.to_string()
        )),
    }
}

/// What is asked.
struct Call<'a> {
    scheme: &'static str,
    target: SocketAddr,
    service: &'a str,
    deadline: Instant,
}

/// One call on a connection: the `ServingStatus`, or the call's own status. `None`: HTTP/2 did not come about.
async fn once(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    asked: &Call<'_>,
    connected: &Cell<bool>,
) -> Option<Result<i32, Status>> {
    let stream = Watched {
        stream,
        read: 0,
        connected,
    };
    let (send, connection) = Builder::new()
        .enable_push(false)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .handshake::<_, Bytes>(stream)
        .await
        .ok()?;
    let call = call(send, asked);
    // The connection moves only while it is polled; a call that has its answer comes first.
    let answer = tokio::select! {
        biased;
        answer = call => answer,
        ended = connection => Err(match ended {
            Err(error) => Status::of_h2(&error),
            Ok(()) => Status::new(Code::UNAVAILABLE, "error reading from server: EOF"),
        }),
    };
    connected.get().then_some(answer)
}

async fn call(send: SendRequest<Bytes>, asked: &Call<'_>) -> Result<i32, Status> {
    let Call {
        scheme,
        target,
        service,
        deadline,
    } = asked;
    let broken = |error: h2::Error| Status::of_h2(&error);
    let mut send = send.ready().await.map_err(broken)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{scheme}://{target}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", PROBE_AGENT)
        .header("grpc-timeout", format!("{}m", left.as_millis().max(1)))
        .body(())
        .map_err(|error| Status::new(Code::INTERNAL, error.to_string()))?;
    let (response, mut body) = send.send_request(request, false).map_err(broken)?;
    body.send_data(health::request(service).into(), true)
        .map_err(broken)?;
    let response = response.await.map_err(broken)?;
    check_head(response.status(), response.headers())?;
    let (head, mut body) = response.into_parts();
    if body.is_end_stream() {
        // Trailers only.
        return Err(Status::of_trailers(&head.headers).unwrap_or_else(no_message));
    }
    let message = read(&mut body).await?;
    let trailers = body.trailers().await.map_err(broken)?;
    let trailers = trailers.ok_or_else(|| {
        let message = "server closed the stream without sending trailers";
        Status::new(Code::INTERNAL, message)
    })?;
    match (Status::of_trailers(&trailers), message) {
        (Some(status), _) => Err(status),
        (None, None) => Err(no_message()),
        (None, Some(message)) => health::status(&message).ok_or_else(|| {
            let message = "grpc: failed to unmarshal the received message: invalid wire format";
            Status::new(Code::INTERNAL, message)
        }),
    }
}

/// (grpc-go: `http2Client.operateHeaders`)
fn check_head(status: StatusCode, headers: &HeaderMap) -> Result<(), Status> {
    let content_type = headers.get("content-type").map(|value| value.as_bytes());
    let wrong_type = match content_type {
        Some(found) if is_grpc(found) => None,
        Some(found) => Some(format!(
            "transport: received unexpected content-type {:?}",
            String::from_utf8_lossy(found)
        )),
        None => Some("malformed header: missing HTTP content-type".to_owned()),
    };
    let wrong_status = (status != StatusCode::OK).then(|| {
        format!(
            "unexpected HTTP status code received from server: {} ({})",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default()
        )
    });
    let all: Vec<String> = wrong_status.into_iter().chain(wrong_type).collect();
    if all.is_empty() {
        return Ok(());
    }
    let code = match status.as_u16() {
        400 => Code::INTERNAL,
        401 => Code::UNAUTHENTICATED,
        403 => Code::PERMISSION_DENIED,
        404 => Code::UNIMPLEMENTED,
        429 | 502 | 503 | 504 => Code::UNAVAILABLE,
        _ => Code::UNKNOWN,
    };
    Err(Status::new(code, all.join("; ")))
}

/// `application/grpc`, alone or with a subtype.
fn is_grpc(content_type: &[u8]) -> bool {
    let content_type = content_type.to_ascii_lowercase();
    match content_type.strip_prefix(b"application/grpc") {
        Some(rest) => rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";"),
        None => false,
    }
}

/// The one message, `None` when the stream ended without.
async fn read(body: &mut RecvStream) -> Result<Option<Vec<u8>>, Status> {
    let mut bytes = Vec::new();
    loop {
        match health::message(&bytes) {
            Message::Whole(message) => {
                let message = message.to_vec();
                // What comes after it is not of interest, but it stands before the trailers.
                while body
                    .data()
                    .await
                    .transpose()
                    .is_ok_and(|more| more.is_some())
                {}
                return Ok(Some(message));
            }
            Message::Partial => {}
            Message::Compressed => {
                let message =
                    "grpc: compressed flag set with identity or empty encoding".to_owned();
                return Err(Status::new(Code::INTERNAL, message));
            }
            Message::TooLong(length) => {
                let message = format!(
                    "grpc: received message larger than max ({length} vs. {})",
                    health::MESSAGE_BYTES_MAX
                );
                return Err(Status::new(Code::RESOURCE_EXHAUSTED, message));
            }
        }
        match body.data().await {
            // All of it fits into the window that the stream began with.
            Some(Ok(more)) => bytes.extend_from_slice(&more),
            Some(Err(error)) => return Err(Status::of_h2(&error)),
            None if bytes.is_empty() => return Ok(None),
            None => return Err(Status::new(Code::INTERNAL, "unexpected EOF")),
        }
    }
}

fn no_message() -> Status {
    let message =
        "cardinality violation: received no response message from non-server-streaming RPC";
    Status::new(Code::INTERNAL, message)
}

/// How a call ended. (grpc: `Status`)
#[derive(Debug, PartialEq, Eq)]
struct Status {
    code: Code,
    message: String,
}

/// A status code by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Code(u32);

impl Code {
    const CANCELED: Self = Self(1);
    const UNKNOWN: Self = Self(2);
    const DEADLINE_EXCEEDED: Self = Self(4);
    const PERMISSION_DENIED: Self = Self(7);
    const RESOURCE_EXHAUSTED: Self = Self(8);
    const UNIMPLEMENTED: Self = Self(12);
    const INTERNAL: Self = Self(13);
    const UNAVAILABLE: Self = Self(14);
    const UNAUTHENTICATED: Self = Self(16);

    /// As Go prints it.
    fn word(self) -> String {
        const WORDS: [&str; 17] = [
            "OK",
            "Canceled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        let known = usize::try_from(self.0).ok().and_then(|at| WORDS.get(at));
        known.map_or_else(|| format!("Code({})", self.0), |word| (*word).to_owned())
    }
}

impl Status {
    fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// What `grpc-status` says; `None` for OK.
    fn of_trailers(trailers: &HeaderMap) -> Option<Self> {
        let text = |name| trailers.get(name).map(|value| value.as_bytes());
        let code =
            text("grpc-status").and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
        match code {
            Some(0) => None,
            Some(code) => {
                let message = text("grpc-message").map(health::plain_message);
                Some(Self::new(Code(code), message.unwrap_or_default()))
            }
            None => Some(Self::new(Code::UNKNOWN, "malformed or missing grpc-status")),
        }
    }

    /// (gRPC over HTTP/2, "Errors")
    fn of_h2(error: &h2::Error) -> Self {
        if let Some(io) = error.get_io() {
            let text = match io.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => "EOF".to_owned(),
                _ => errno_text(io),
            };
            return Self::new(
                Code::UNAVAILABLE,
                format!("error reading from server: {text}"),
            );
        }
        let reason = error.reason().unwrap_or(Reason::INTERNAL_ERROR);
        if !error.is_reset() {
            let message = format!("closing transport due to: {error}");
            return Self::new(Code::UNAVAILABLE, message);
        }
        let code = match reason {
            Reason::REFUSED_STREAM => Code::UNAVAILABLE,
            Reason::CANCEL => Code::CANCELED,
            Reason::ENHANCE_YOUR_CALM => Code::RESOURCE_EXHAUSTED,
            Reason::INADEQUATE_SECURITY => Code::PERMISSION_DENIED,
            _ => Code::INTERNAL,
        };
        let name = format!("{reason:?}");
        Self::new(
            code,
            format!("stream terminated by RST_STREAM with error code: {name}"),
        )
    }
}

/// A connection that notes when the first frame of its peer turns out to be SETTINGS: then HTTP/2 is spoken.
struct Watched<'a, S> {
    stream: S,
    /// Bytes read, as far as they matter.
    read: usize,
    connected: &'a Cell<bool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.read <= TYPE_AT {
            let new = &buffer.filled()[before..];
            if let Some(kind) = new.get(TYPE_AT - self.read) {
                self.connected.set(*kind == SETTINGS);
            }
            self.read += new.len();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
