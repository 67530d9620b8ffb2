//! One HTTP GET as the kubelet's prober makes it: no keep-alive, redirects to the same host followed, the body read up to 10 KiB.
//!
//! The data plane's HTTP is made for proxying, with pools and streaming; a probe wants Go's client and its words, and a
//! connection that is closed after one response. So this is a small client of its own, with everything bounded.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::response::{Body, Head, read_head};
use super::tls::Stream;
use super::url::Url;
use super::{Dial, Outcome, Step, connect, errno_text};

/// Requests, the first included. (Go's default, and the kubelet's)
const REQUESTS_MAX: usize = 10;

/// How far a request has come, for the words of a timeout.
#[derive(Debug, Clone)]
enum Phase {
    Dialing(Step),
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
pub(super) enum Failed {
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
            Phase::Dialing(step) => Outcome::Failure(at(format!(
                "{step}: i/o timeout (Client.Timeout exceeded while awaiting headers)"
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
    let begin = |step| progress.borrow_mut().phase = Phase::Dialing(step);
    let tcp = connect(Some(&url.host), url.port, dial, begin).await;
    let tcp = tcp.map_err(Failed::Request)?;
    progress.borrow_mut().phase = Phase::Waiting;
    let mut stream = match url.tls {
        true => Stream::tls(tcp, &url.host)
            .await
            .map_err(|e| request_error(&e))?,
        false => Stream::Plain(tcp),
    };
    stream
        .write_all(request)
        .await
        .map_err(|e| request_error(&e))?;
    let (head, rest) = read_head(&mut stream).await?;
    Ok((head, stream, rest))
}

pub(super) fn request_error(error: &io::Error) -> Failed {
    Failed::Request(match error.kind() {
        io::ErrorKind::UnexpectedEof => "EOF".to_string(),
        _ => errno_text(error),
    })
}
