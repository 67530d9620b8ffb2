//! A request whose whole answer is wanted: what adapters ask of applications. Connections are kept by the pool.

use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;

use tokio::time::Instant;

use super::chunked::{Chunks, Step};
use super::head::{BodyKind, ResponseHead, Scanner};
use crate::net::{Buf, Transport};
use crate::upstream::{Pool, Wire};

/// Bytes of an answer's head at most.
const HEAD_BYTES: usize = 64 * 1024;

/// Fields of an answer's head at most.
const FIELDS: usize = 200;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query, beginning with `/`.
    pub target: &'a str,
    /// Fields besides Host, User-Agent and Content-Length.
    pub fields: &'a [(&'a str, &'a str)],
    /// The body; its length is told when it is not empty.
    pub body: &'a [u8],
    /// Bytes of the answer's body at most: a longer one is an error.
    pub most: usize,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The status code.
    pub status: u16,
    /// Content-Type; empty when absent.
    pub content_type: String,
    /// All fields, names and values as they were written.
    pub fields: Vec<(String, String)>,
    /// The body, its framing taken off.
    pub body: Vec<u8>,
}

/// Asks the server behind `pool`. A kept connection that was closed meanwhile is tried once more on a new one. An error is a clause
/// that says what the server did. Has no deadline of its own; dropped in the middle, it leaves no connection behind.
pub async fn fetch(pool: &Rc<Pool>, ask: Ask<'_>) -> Result<Fetched, String> {
    if let Some(mut wire) = pool.take()
        && let Ok(done) = ask_on(&mut wire, pool.target().host(), ask).await
    {
        return Ok(finish(pool, wire, done));
    }
    let mut wire = pool.connect().await.map_err(|error| error.to_string())?;
    let done = ask_on(&mut wire, pool.target().host(), ask).await?;
    Ok(finish(pool, wire, done))
}

fn finish(pool: &Rc<Pool>, wire: Wire, (fetched, clean): (Fetched, bool)) -> Fetched {
    if clean {
        pool.keep(wire, Instant::now());
    }
    fetched
}

/// The same over a connection of one's own: the answer, and whether the connection can carry another request.
pub async fn ask_on<T: Transport>(
    io: &mut T,
    host: &str,
    ask: Ask<'_>,
) -> Result<(Fetched, bool), String> {
    send(io, host, ask).await?;
    let mut input = Buf::small();
    let mut head = ResponseHead::default();
    loop {
        let len = read_head(io, &mut input).await?;
        let parsed = head.parse(&input.filled()[..len], FIELDS, ask.method == "HEAD");
        parsed.map_err(|why| format!("gave no valid answer: {why}"))?;
        let bytes = &input.filled()[..len];
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let fields: Vec<(String, String)> = head
            .fields
            .iter()
            .map(|field| {
                (
                    text(field.name.bytes(bytes)),
                    text(field.value.bytes(bytes)),
                )
            })
            .collect();
        input.consume(len);
        if head.status() < 200 {
            continue;
        }
        let (body, ended) = read_body(io, &mut input, head.body(), ask.most).await?;
        let clean = ended && head.keep_alive() && input.is_empty();
        let fetched = Fetched {
            status: head.status(),
            content_type: fields
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
                .map(|(_, value)| value.clone())
                .unwrap_or_default(),
            fields,
            body,
        };
        return Ok((fetched, clean));
    }
}

async fn send<T: Transport>(io: &mut T, host: &str, ask: Ask<'_>) -> Result<(), String> {
    let Ask { method, target, .. } = ask;
    let version = podkit_foundation::VERSION;
    let mut out =
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: podkit/{version}\r\n")
            .into_bytes();
    for (name, value) in ask.fields {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !ask.body.is_empty() {
        out.extend_from_slice(format!("Content-Length: {}\r\n", ask.body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(ask.body);
    let mut sent = 0;
    while sent < out.len() {
        let part = [IoSlice::new(&out[sent..])];
        sent += poll_fn(|cx| io.poll_write(cx, &part))
            .await
            .map_err(|error| error.to_string())?;
    }
    let flushed = poll_fn(|cx| io.poll_flush(cx)).await;
    flushed.map_err(|error| error.to_string())
}

/// More bytes behind `input`; 0 is the end.
async fn more<T: Transport>(io: &mut T, input: &mut Buf) -> Result<usize, String> {
    if input.spare().is_empty() {
        input.reserve(HEAD_BYTES);
    }
    let read = poll_fn(|cx| io.poll_read(cx, input)).await;
    read.map_err(|error| format!("broke off: {error}"))
}

/// The length of the head at the start of the input, once it is whole.
async fn read_head<T: Transport>(io: &mut T, input: &mut Buf) -> Result<usize, String> {
    let mut scanner = Scanner::default();
    loop {
        let found = scanner.find(input.filled(), false);
        if let Some(len) = found.map_err(|why| why.to_string())? {
            return Ok(len);
        }
        if input.len() >= HEAD_BYTES {
            return Err("gave an answer with a head that is too large".to_owned());
        }
        if more(io, input).await? == 0 {
            return Err("closed without an answer".to_owned());
        }
    }
}

/// The body, and whether it ended before the connection did.
async fn read_body<T: Transport>(
    io: &mut T,
    input: &mut Buf,
    kind: BodyKind,
    most: usize,
) -> Result<(Vec<u8>, bool), String> {
    let mut body = Vec::new();
    let mut chunks = Chunks::default();
    let mut left = match kind {
        BodyKind::None => 0,
        BodyKind::Length(length) => length,
        BodyKind::Chunked | BodyKind::UntilClose => u64::MAX,
    };
    loop {
        if kind == BodyKind::Chunked {
            match chunks
                .step(input.filled())
                .map_err(|_| "gave a chunked body that is not valid".to_owned())?
            {
                Step::Data(count) => take(input, count, &mut body),
                Step::Framing(count) => input.consume(count),
                Step::Last(count) => {
                    input.consume(count);
                    // The trailers say nothing here.
                    let empty = loop {
                        let ends = input.filled().starts_with(b"\r\n");
                        let found = Scanner::default().find(input.filled(), true);
                        match (ends, found.map_err(|why| why.to_string())?) {
                            (true, _) => break 2,
                            (false, Some(len)) => break len,
                            (false, None) if input.len() >= HEAD_BYTES => {
                                return Err("gave trailers without end".to_owned());
                            }
                            (false, None) => {}
                        }
                        if more(io, input).await? == 0 {
                            return Err("broke off its answer".to_owned());
                        }
                    };
                    input.consume(empty);
                    return Ok((body, true));
                }
                Step::More => match more(io, input).await? {
                    0 => return Err("broke off its answer".to_owned()),
                    _ => continue,
                },
            }
        } else {
            let here = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
            take(input, here, &mut body);
            left -= here as u64;
            if left == 0 {
                return Ok((body, true));
            }
        }
        if body.len() > most {
            return Err(format!("answers with more than {most} bytes"));
        }
        if kind != BodyKind::Chunked && more(io, input).await? == 0 {
            return match kind {
                BodyKind::UntilClose => Ok((body, false)),
                _ => Err("broke off its answer".to_owned()),
            };
        }
    }
}

fn take(input: &mut Buf, count: usize, body: &mut Vec<u8>) {
    body.extend_from_slice(&input.filled()[..count]);
    input.consume(count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::memory;

    const ASK: Ask<'_> = Ask {
        method: "POST",
        target: "/a?b",
        fields: &[("Accept", "text/plain")],
        body: b"hello",
        most: 100,
    };

    /// What comes of an answer whose bytes come so many at a time, and what was asked.
    async fn asked(answer: &[u8], piece: usize) -> (Result<(Fetched, bool), String>, String) {
        let (mut near, mut far) = memory::pair(&[piece], 1 << 16);
        let server = async move {
            let got = far.get_until(b"hello").await;
            far.put(answer).await;
            far.end().await;
            String::from_utf8(got).unwrap()
        };
        tokio::join!(ask_on(&mut near, "h:1", ASK), server)
    }

    #[tokio::test]
    async fn answers_are_read_whole_however_they_are_cut() {
        let cases: [(&str, &str, bool); 5] = [
            (
                "HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nContent-Length: 3\r\n\r\nabc",
                "abc",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nt: v\r\n\r\n",
                "abc",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: x/y\r\n\r\nabc",
                "abc",
                false,
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: x/y\r\nConnection: close\r\nContent-Length: 1\r\n\r\na",
                "a",
                false,
            ),
        ];
        for (answer, body, clean) in cases {
            for piece in [1, 7, 1000] {
                let (got, request) = asked(answer.as_bytes(), piece).await;
                let (fetched, kept) = got.unwrap();
                assert_eq!(fetched.body, body.as_bytes(), "{answer}");
                assert_eq!((fetched.status, kept), (200, clean), "{answer}");
                assert_eq!(fetched.content_type, "x/y");
                assert!(request.starts_with("POST /a?b HTTP/1.1\r\nHost: h:1\r\n"));
                assert!(request.ends_with("Accept: text/plain\r\nContent-Length: 5\r\n\r\nhello"));
            }
        }
    }

    #[tokio::test]
    async fn what_is_cut_or_too_long_is_told() {
        let check = async |answer: &str, why: &str| {
            let (got, _) = asked(answer.as_bytes(), 50).await;
            assert_eq!(got.unwrap_err(), why, "{answer}");
        };
        check("", "closed without an answer").await;
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na",
            "broke off its answer",
        )
        .await;
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na",
            "broke off its answer",
        )
        .await;
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(200));
        check(&long, "answers with more than 100 bytes").await;
    }
}
