//! `--webhook`: a push that the server tells of. The signature is checked in constant time, the answer is 202 at once, and
//! the polls are made on their own threads.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::local::{Answer, BodyUse, Handler, Local, Request, Response};
use podkit_dataplane::net::{Connections, Listener, ListenerLimits, Worker, accept};
use podkit_foundation::error::Failure;
use podkit_foundation::lifecycle::Lifecycle;
use podkit_foundation::params::Size;
use podkit_foundation::telemetry::metrics::{Counter, Registry};
use tracing::{debug, warn};

use super::credentials;

/// A push of many commits has a long body; GitHub's limit is 25 MB.
const BODY_BYTES_MAX: usize = 25 << 20;
const CONNECTIONS_MAX: u32 = 16;

/// What is done when a push was told.
pub(super) type Wake = Box<dyn Fn()>;

/// The listener's handler.
pub(super) struct Webhook {
    pub(super) secret: PathBuf,
    pub(super) wake: Wake,
    pub(super) taken: Counter,
    pub(super) refused: Counter,
}

impl Webhook {
    /// Accepts on this thread: pushes are rare and checking one takes microseconds.
    pub(super) fn serve(
        self,
        listener: &Listener,
        lifecycle: &Lifecycle,
        listener_limits: &ListenerLimits,
    ) -> Result<(), Failure> {
        let limits = HttpLimits {
            max_body_bytes: Size(BODY_BYTES_MAX as u64),
            ..HttpLimits::of_pages(CONNECTIONS_MAX, Duration::from_secs(60))
        };
        let connections = Connections::new(limits.connections(), listener_limits, &[]);
        let worker = Worker::new(lifecycle, &Registry::default(), &connections);
        drop(tokio::task::spawn_local(Rc::clone(&worker).watch()));
        let port = listener
            .take()
            .map_err(|error| Failure::runtime("listening", error))?;
        let local = Rc::new(Local::new(self, limits));
        drop(tokio::task::spawn_local(accept(port, worker, local)));
        Ok(())
    }

    fn respond(&self, request: &Request<'_>) -> Response {
        if request.method() != "POST" {
            return Response::method_not_allowed("POST");
        }
        let secret = match credentials::read("--webhook-secret-file", &self.secret) {
            Ok(secret) => secret,
            Err(why) => {
                warn!(why, "webhook refused: its secret can't be read");
                self.refused.inc();
                return Response::text(503, "the secret can't be read\n");
            }
        };
        let header = |name: &str| request.header(name);
        match is_signed(secret.as_bytes(), request.body(), &header) {
            Ok(by) => {
                debug!(by, "webhook");
                self.taken.inc();
                (self.wake)();
                Response::text(202, "accepted\n")
            }
            Err(why) => {
                warn!(why, "webhook refused");
                self.refused.inc();
                Response::text(401, format!("{why}\n"))
            }
        }
    }
}

impl Handler for Webhook {
    fn handle<'a>(&'a self, request: Request<'a>) -> Answer<'a> {
        Box::pin(std::future::ready(self.respond(&request)))
    }

    fn body_use(&self) -> BodyUse {
        BodyUse::Collect(BODY_BYTES_MAX)
    }
}

/// Whose form of signature it is that fits, or why none does.
pub(super) fn is_signed<'a>(
    secret: &[u8],
    body: &[u8],
    header: &dyn Fn(&str) -> Option<&'a str>,
) -> Result<&'static str, &'static str> {
    // GitLab sends the secret itself.
    if let Some(token) = header("X-Gitlab-Token") {
        // Hashed first, so that the time tells nothing of the length either.
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let (ours, theirs) = (hmac::sign(&key, secret), hmac::sign(&key, token.as_bytes()));
        return match verify_slices_are_equal(ours.as_ref(), theirs.as_ref()) {
            Ok(()) => Ok("gitlab"),
            Err(_) => Err("X-Gitlab-Token is not the secret"),
        };
    }
    let github =
        header("X-Hub-Signature-256").map(|value| ("github", value.strip_prefix("sha256=")));
    let gitea = header("X-Gitea-Signature").map(|value| ("gitea", Some(value)));
    let Some((by, digits)) = github.or(gitea) else {
        return Err(
            "not signed: expected X-Hub-Signature-256, X-Gitea-Signature or X-Gitlab-Token",
        );
    };
    let tag = digits
        .and_then(unhex)
        .ok_or("the signature is no SHA-256 in hexadecimal digits")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    match hmac::verify(&key, body, &tag) {
        Ok(()) => Ok(by),
        Err(_) => Err("the signature does not fit"),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"It's a Secret to Everybody";
    /// The example of GitHub's documentation, "Validating webhook deliveries".
    const DIGITS: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn check(headers: &[(&str, &str)], body: &[u8]) -> Result<&'static str, &'static str> {
        let find = |name: &str| {
            headers
                .iter()
                .find(|(header, _)| *header == name)
                .map(|(_, value)| *value)
        };
        is_signed(SECRET, body, &find)
    }

    #[test]
    fn the_signatures_of_the_three_are_taken() {
        let github = format!("sha256={DIGITS}");
        let body = b"Hello, World!";
        assert_eq!(
            check(&[("X-Hub-Signature-256", &github)], body),
            Ok("github")
        );
        assert_eq!(check(&[("X-Gitea-Signature", DIGITS)], body), Ok("gitea"));
        let token = std::str::from_utf8(SECRET).unwrap();
        assert_eq!(check(&[("X-Gitlab-Token", token)], body), Ok("gitlab"));
    }

    #[test]
    fn anything_else_is_refused() {
        let github = format!("sha256={DIGITS}");
        assert!(check(&[], b"Hello, World!").is_err());
        assert!(check(&[("X-Hub-Signature-256", &github)], b"Hello, World?").is_err());
        assert!(check(&[("X-Hub-Signature-256", DIGITS)], b"Hello, World!").is_err());
        assert!(check(&[("X-Hub-Signature-256", "sha256=")], b"Hello, World!").is_err());
        assert!(check(&[("X-Gitea-Signature", &DIGITS[..63])], b"Hello, World!").is_err());
        assert!(check(&[("X-Gitea-Signature", "")], b"Hello, World!").is_err());
        assert!(check(&[("X-Gitlab-Token", "It's a Secret")], b"Hello, World!").is_err());
        assert!(check(&[("X-Gitlab-Token", "")], b"Hello, World!").is_err());
        // A wrong token is not made good by a signature.
        let both = [("X-Gitlab-Token", "x"), ("X-Hub-Signature-256", &github)];
        assert!(check(&both, b"Hello, World!").is_err());
    }
}
