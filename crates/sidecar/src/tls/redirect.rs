//! `--redirect-from`: plain HTTP is answered with where the same thing is by HTTPS.
//!
//! GET and HEAD get 301, which everything understands; other methods 308, so that they are repeated with their body (RFC
//! 9110 section 15.4.9). The host is the one that was asked for: a client that sends a false one redirects only itself.

use podkit_dataplane::http::local::{Answer, BodyUse, Handler, Request, Response};

/// Answers every request with a redirect to HTTPS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Redirect {
    /// The port that clients reach HTTPS at.
    pub(crate) port: u16,
}

impl Handler for Redirect {
    fn handle<'a>(&'a self, request: Request<'a>) -> Answer<'a> {
        let response = match location(request.host(), request.target(), self.port) {
            Some(location) => {
                let status = match request.method() {
                    "GET" | "HEAD" => 301,
                    _ => 308,
                };
                Response::text(status, "this is served by HTTPS\n").header("Location", location)
            }
            None => Response::text(
                400,
                "the Host field is missing or no host: where to redirect to is unknown\n",
            ),
        };
        Box::pin(std::future::ready(response))
    }

    fn body_use(&self) -> BodyUse {
        BodyUse::Count
    }
}

/// Where the same is by HTTPS: host without its port, the port unless it is 443, path and query as they were. None when
/// there is no usable host.
pub(crate) fn location(host: Option<&str>, target: &str, port: u16) -> Option<String> {
    let host = host?;
    // `[::1]:80`, `name:80`, `name`.
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            &host[..end + 2]
        }
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let good =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    if name.is_empty() || !name.bytes().all(good) {
        return None;
    }
    // `*` asks about the server as a whole.
    let target = if target.starts_with('/') { target } else { "/" };
    Some(match port {
        443 => format!("https://{name}{target}"),
        port => format!("https://{name}:{port}{target}"),
    })
}
