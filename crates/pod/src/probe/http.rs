//! One HTTP GET as the kubelet's prober makes it: no keep-alive, redirects to the same host followed, the body read up to 10 KiB.
//!
//! The data plane's HTTP is made for proxying, with pools and streaming; a probe wants Go's client and its words, and a
//! connection that is closed after one response. So this is a small client of its own, with everything bounded.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::tls::Stream;
use super::url::Url;
use super::{Dial, OUTPUT_BYTES_MAX, Outcome, dial_text, errno_text, ip_of};

const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 128;
/// Interim (1xx) responses before the real one. (Go: 5)
const INTERIM_MAX: usize = 5;
/// Requests, the first included. (Go's default, and the kubelet's)
const REQUESTS_MAX: usize = 10;
/// Of a response that is not HTTP, in the message.
const SHOWN_BYTES_MAX: usize = 64;

/// How far a request has come, for the words of a timeout.
#[derive(Debug, Clone)]
enum Phase {
    Dialing(SocketAddr),
    Waiting,
    Reading,
}

#[derive(Debug)]
struct Progress {
    url: String,
    phase: Phase,
}

/// Why there is no response.
#[derive(Debug)]
enum Failed {
    /// No head came: counts against the container.
    Request(String),
    /// The body broke off: the kubelet throws such an attempt away.
    Body(String),
}

struct Response {
    status: u16,
    body: Vec<u8>,
}

/// Probes once within `time`.
pub(super) async fn get(
    url: &Url,
    headers: &[(String, String)],
    agent: &str,
    time: Duration,
    dial: &impl Dial,
) -> Outcome {
    let progress = RefCell::new(Progress {
        url: url.to_string(),
        phase: Phase::Waiting,
    });
    let done = timeout(time, follow(url, headers, agent, dial, &progress)).await;
    let progress = progress.into_inner();
    let at = |text: String| format!("Get {:?}: {text}", progress.url);
    match done {
        Ok(Ok(response)) => judge(&response),
        Ok(Err(Failed::Request(text))) => Outcome::Failure(at(text)),
        Ok(Err(Failed::Body(text))) => Outcome::Unknown(text),
        Err(_) => match progress.phase {
            Phase::Dialing(target) => Outcome::Failure(at(format!(
                "dial tcp {target}: i/o timeout (Client.Timeout exceeded while awaiting headers)"
            ))),
            Phase::Waiting => Outcome::Failure(at(
                "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into(),
            )),
            Phase::Reading => Outcome::Unknown(
                "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
                    .into(),
            ),
        },
    }
}

/// Calls a hook: any response is good. A server that turns out to speak plain HTTP is asked again in plain, as the
/// kubelet does.
pub(super) async fn call(
    url: &Url,
    headers: &[(String, String)],
    agent: &str,
    dial: &impl Dial,
) -> Result<(), String> {
    let progress = RefCell::new(Progress {
        url: url.to_string(),
        phase: Phase::Waiting,
    });
    let mut done = follow(url, headers, agent, dial, &progress).await;
    if let Err(Failed::Request(text)) = &done
        && url.tls
        && text.contains("server gave HTTP response to HTTPS client")
    {
        let plain = url.plain();
        let open: Vec<(String, String)> = headers
            .iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("authorization"))
            .cloned()
            .collect();
        done = follow(&plain, &open, agent, dial, &progress).await;
    }
    match done {
        Ok(_) | Err(Failed::Body(_)) => Ok(()),
        Err(Failed::Request(text)) => Err(format!("Get {:?}: {text}", progress.borrow().url)),
    }
}

/// (Kubernetes: `DoHTTPProbe`)
fn judge(response: &Response) -> Outcome {
    match response.status {
        200..300 => Outcome::Success,
        300..400 => Outcome::Warning(format!(
            "Probe terminated redirects, Response body: {}",
            String::from_utf8_lossy(&response.body)
        )),
        status => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

async fn follow(
    first: &Url,
    headers: &[(String, String)],
    agent: &str,
    dial: &impl Dial,
    progress: &RefCell<Progress>,
) -> Result<Response, Failed> {
    let mut url = first.clone();
    let mut host = given(headers, "host").map(str::to_string);
    for requests in 1.. {
        progress.borrow_mut().url = url.to_string();
        let request = request(&url, host.as_deref(), headers, agent)?;
        let (head, mut stream, rest) = exchange(&url, &request, dial, progress).await?;
        let location = match head.status {
            301 | 302 | 303 | 307 | 308 => head.location.as_deref(),
            _ => None,
        };
        let next = location.and_then(|location| url.join(location));
        // Elsewhere is not followed: whoever controls the container must not make the node call others.
        let Some(next) = next.filter(|next| next.host.eq_ignore_ascii_case(&first.host)) else {
            progress.borrow_mut().phase = Phase::Reading;
            let mut body = Body::new(&head);
            body.read(&mut stream, &rest).await?;
            return Ok(Response {
                status: head.status,
                body: body.kept,
            });
        };
        if requests >= REQUESTS_MAX {
            progress.borrow_mut().url = next.to_string();
            break;
        }
        // A Host of one's own stays for a relative Location only, as in Go.
        if location.is_some_and(|l| l.contains("://") || l.starts_with("//")) {
            host = None;
        }
        url = next;
    }
    Err(Failed::Request(format!(
        "stopped after {REQUESTS_MAX} redirects"
    )))
}

fn given<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// The bytes of a request. User-Agent and Accept are the prober's unless given; given empty, they are left out.
fn request(
    url: &Url,
    host: Option<&str>,
    headers: &[(String, String)],
    agent: &str,
) -> Result<Vec<u8>, Failed> {
    let authority = url.authority();
    let host = host.filter(|host| !host.is_empty()).unwrap_or(&authority);
    let mut lines = vec![("Host", host)];
    for (name, default) in [("User-Agent", agent), ("Accept", "*/*")] {
        if given(headers, name).is_none() {
            lines.push((name, default));
        }
    }
    for (name, value) in headers {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let dropped =
            is("host") || is("connection") || is("content-length") || is("transfer-encoding");
        let empty = value.is_empty() && (is("user-agent") || is("accept"));
        if !dropped && !empty {
            lines.push((name, value));
        }
    }
    lines.push(("Connection", "close"));
    let mut out = format!("GET {} HTTP/1.1\r\n", url.path);
    for (name, value) in lines {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            let text = format!("net/http: invalid header field name {name:?}");
            return Err(Failed::Request(text));
        }
        if value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
            let text = format!("net/http: invalid header field value for {name:?}");
            return Err(Failed::Request(text));
        }
        out.push_str(name);
        out.push_str(": ");
        out.push_str(value);
        out.push_str("\r\n");
    }
    out.push_str("\r\n");
    Ok(out.into_bytes())
}

/// One connection and one request, up to the head of the response and what came with it.
async fn exchange(
    url: &Url,
    request: &[u8],
    dial: &impl Dial,
    progress: &RefCell<Progress>,
) -> Result<(Head, Stream, Vec<u8>), Failed> {
    let ip = ip_of(&url.host).map_err(Failed::Request)?;
    let target = SocketAddr::new(ip, url.port);
    progress.borrow_mut().phase = Phase::Dialing(target);
    let tcp = dial.dial(target).await;
    let tcp = tcp.map_err(|error| Failed::Request(dial_text(target, &error)))?;
    progress.borrow_mut().phase = Phase::Waiting;
    let mut stream = match url.tls {
        true => Stream::tls(tcp, &url.host).await.map_err(request_error)?,
        false => Stream::Plain(tcp),
    };
    stream.write_all(request).await.map_err(request_error)?;
    let (head, rest) = read_head(&mut stream).await?;
    Ok((head, stream, rest))
}

fn request_error(error: io::Error) -> Failed {
    Failed::Request(match error.kind() {
        io::ErrorKind::UnexpectedEof => "EOF".to_string(),
        _ => errno_text(&error),
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    location: Option<String>,
    framing: Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// This many bytes are to come.
    Length(u64),
    Chunked,
    /// Until the connection ends.
    End,
}

/// Reads up to the end of the head; what came after it is returned with it.
async fn read_head(stream: &mut Stream) -> Result<(Head, Vec<u8>), Failed> {
    let mut buffer = Vec::new();
    let mut interim = 0;
    loop {
        match parse_head(&buffer).map_err(Failed::Request)? {
            Some((head, length)) if (100..200).contains(&head.status) && head.status != 101 => {
                interim += 1;
                if interim > INTERIM_MAX {
                    return Err(Failed::Request(
                        "net/http: too many 1xx informational responses".into(),
                    ));
                }
                buffer.drain(..length);
            }
            Some((head, length)) => return Ok((head, buffer.split_off(length))),
            None => {
                if buffer.len() >= HEAD_BYTES_MAX {
                    return Err(Failed::Request(format!(
                        "net/http: server response headers exceeded {HEAD_BYTES_MAX} bytes; aborted"
                    )));
                }
                let mut piece = [0; 4096];
                match stream.read(&mut piece).await.map_err(request_error)? {
                    0 if buffer.is_empty() => return Err(Failed::Request("EOF".into())),
                    0 => return Err(Failed::Request("unexpected EOF".into())),
                    read => buffer.extend_from_slice(&piece[..read]),
                }
            }
        }
    }
}

/// A complete head and its length; none when more is needed.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(format!(
                "net/http: more than {HEADERS_MAX} response headers"
            ));
        }
        Err(_) => {
            let line = bytes.split(|b| *b == b'\n').next().unwrap_or(bytes);
            let shown = &line[..line.len().min(SHOWN_BYTES_MAX)];
            return Err(format!(
                "net/http: HTTP/1.x transport connection broken: malformed HTTP response \"{}\"",
                shown.trim_ascii_end().escape_ascii()
            ));
        }
    };
    let status = response.code.unwrap_or(0);
    let values = |name: &'static str| {
        let named = response
            .headers
            .iter()
            .filter(move |h| h.name.eq_ignore_ascii_case(name));
        named.map(|h| String::from_utf8_lossy(h.value).trim().to_string())
    };
    let chunked = values("transfer-encoding")
        .last()
        .is_some_and(|v| v.to_ascii_lowercase().ends_with("chunked"));
    let framing = if matches!(status, 100..200 | 204 | 304) {
        Framing::Length(0)
    } else if chunked {
        Framing::Chunked
    } else {
        let mut lengths = values("content-length");
        match lengths.next() {
            None => Framing::End,
            Some(first) => {
                let number: Option<u64> = first.parse().ok();
                match number {
                    Some(number) if lengths.all(|other| other == first) => Framing::Length(number),
                    _ => return Err(format!("bad Content-Length {first:?}")),
                }
            }
        }
    };
    let head = Head {
        status,
        location: values("location").next(),
        framing,
    };
    Ok(Some((head, length)))
}

/// A body on its way, of which the first [`OUTPUT_BYTES_MAX`] bytes are kept and the rest is not read.
struct Body {
    framing: Framing,
    chunk: Chunk,
    kept: Vec<u8>,
    /// Of the framing of chunks: a bound on what is read beside the data.
    overhead: usize,
}

/// Where in the chunked coding (RFC 9112, 7.1) the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size {
        value: u64,
        digits: u8,
    },
    /// An extension, ignored, up to the end of the line.
    Extension {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataEnd,
    /// Trailers: `empty` so far is the line.
    Trailer {
        empty: bool,
    },
    Done,
}

impl Body {
    fn new(head: &Head) -> Self {
        Self {
            framing: head.framing,
            chunk: Chunk::Size {
                value: 0,
                digits: 0,
            },
            kept: Vec::new(),
            overhead: 0,
        }
    }

    async fn read(&mut self, stream: &mut Stream, rest: &[u8]) -> Result<(), Failed> {
        let mut done = self.feed(rest).map_err(Failed::Body)?;
        let mut piece = [0; 4096];
        while !done {
            let read = stream.read(&mut piece).await;
            done = match read.map_err(|error| Failed::Body(errno_text(&error)))? {
                0 if self.framing == Framing::End => true,
                0 => return Err(Failed::Body("unexpected EOF".into())),
                read => self.feed(&piece[..read]).map_err(Failed::Body)?,
            };
        }
        Ok(())
    }

    /// Takes what has come; true when there is no more, or enough.
    fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, String> {
        match &mut self.framing {
            Framing::End => self.keep(bytes),
            Framing::Length(left) => {
                let take = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                let last = *left == 0;
                self.keep(&bytes[..take]);
                return Ok(last || self.full());
            }
            Framing::Chunked => {
                while !bytes.is_empty() && self.chunk != Chunk::Done && !self.full() {
                    if let Chunk::Data { left } = &mut self.chunk {
                        let take = bytes
                            .len()
                            .min(usize::try_from(*left).unwrap_or(usize::MAX));
                        *left -= take as u64;
                        if *left == 0 {
                            self.chunk = Chunk::DataEnd;
                        }
                        self.keep(&bytes[..take]);
                        bytes = &bytes[take..];
                    } else {
                        self.chunk = step(self.chunk, bytes[0])?;
                        self.overhead += 1;
                        bytes = &bytes[1..];
                    }
                }
                return Ok(self.chunk == Chunk::Done || self.full());
            }
        }
        Ok(self.full())
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = OUTPUT_BYTES_MAX - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn full(&self) -> bool {
        self.kept.len() >= OUTPUT_BYTES_MAX || self.overhead >= HEAD_BYTES_MAX
    }
}

/// One byte of the chunked framing.
fn step(at: Chunk, byte: u8) -> Result<Chunk, String> {
    let bad = || Err("invalid byte in chunk length".to_string());
    let sized = |value| match value {
        0 => Chunk::Trailer { empty: true },
        left => Chunk::Data { left },
    };
    Ok(match (at, byte) {
        (Chunk::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
            if digits >= 15 {
                return Err("http chunk length too large".to_string());
            }
            let digit = char::from(byte).to_digit(16).unwrap_or(0);
            Chunk::Size {
                value: value * 16 + u64::from(digit),
                digits: digits + 1,
            }
        }
        (Chunk::Size { digits: 0, .. }, _) => return bad(),
        (Chunk::Size { value, .. } | Chunk::Extension { value }, b'\n') => sized(value),
        (Chunk::Size { value, .. }, b';' | b' ' | b'\t' | b'\r') => Chunk::Extension { value },
        (Chunk::Size { .. }, _) => return bad(),
        (Chunk::Extension { value }, _) => Chunk::Extension { value },
        (Chunk::DataEnd, b'\r') => Chunk::DataEnd,
        (Chunk::DataEnd, b'\n') => Chunk::Size {
            value: 0,
            digits: 0,
        },
        (Chunk::DataEnd, _) => return Err("malformed chunked encoding".to_string()),
        (Chunk::Trailer { empty: true }, b'\n') => Chunk::Done,
        (Chunk::Trailer { .. }, b'\n') => Chunk::Trailer { empty: true },
        (Chunk::Trailer { empty }, b'\r') => Chunk::Trailer { empty },
        (Chunk::Trailer { .. }, _) => Chunk::Trailer { empty: false },
        (Chunk::Data { .. } | Chunk::Done, _) => at,
    })
}

#[cfg(test)]
pub(super) mod probing {
    //! What the tests need to see.
    use super::{Body, Framing, Head};

    /// Decodes a chunked body given in pieces: whether it ended, and what it held.
    pub(in crate::probe) fn dechunk(pieces: &[&[u8]]) -> Result<(bool, Vec<u8>), String> {
        let head = Head {
            status: 200,
            location: None,
            framing: Framing::Chunked,
        };
        let mut body = Body::new(&head);
        let mut done = false;
        for piece in pieces {
            done = body.feed(piece)?;
        }
        Ok((done, body.kept))
    }
}
