//! `--listen`: the application's endpoints, from memory.

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::local::{Answer, BodyUse, Handler, Request, Response};
use podkit_foundation::telemetry::metrics::{Format, Registry};
use std::time::Duration;
use tokio::time::Instant;

use super::board::Endpoint;
use super::report::{text, tree};
use super::runner::Shared;

/// The bounds of the listener.
pub(crate) fn limits() -> HttpLimits {
    HttpLimits::of_pages(1024, Duration::from_secs(75))
}

/// The listener's handler.
pub(crate) struct Door {
    pub(crate) shared: Shared,
    /// The application's metrics, without podkit's own.
    pub(crate) metrics: Registry,
}

impl Handler for Door {
    fn handle<'a>(&'a self, request: Request<'a>) -> Answer<'a> {
        Box::pin(async move { self.respond(request) })
    }

    fn body_use(&self) -> BodyUse {
        BodyUse::Collect(0)
    }
}

impl Door {
    fn respond(&self, request: Request<'_>) -> Response {
        if !matches!(request.method(), "GET" | "HEAD") {
            return Response::method_not_allowed("GET, HEAD");
        }
        let path = request.path();
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let (word, only) = (parts.next().unwrap_or_default(), parts.next());
        let word = if word == "healthz" { "readyz" } else { word };
        if let Some(endpoint) = Endpoint::ALL.into_iter().find(|one| one.word() == word) {
            return self.verdict(endpoint, only, request);
        }
        match path {
            "/metrics" => {
                let format = Format::accepted(request.header("Accept").unwrap_or_default());
                let body = self.metrics.encode(format).into_bytes();
                Response::bytes(200, format.content_type(), body).header("Vary", "Accept")
            }
            "/" => Response::text(
                200,
                "podkit health: /livez, /readyz, /startupz and /metrics are here\n",
            ),
            _ => Response::text(
                404,
                "not found; /livez, /readyz, /startupz and /metrics are here\n",
            ),
        }
    }

    fn verdict(&self, endpoint: Endpoint, only: Option<&str>, request: Request<'_>) -> Response {
        let verdict = self.shared.board().verdict(endpoint, only, Instant::now());
        let Some(verdict) = verdict else {
            return Response::text(404, "there is no probe of this name\n");
        };
        let asked = |key: &str| {
            request
                .query()
                .split('&')
                .any(|part| part.split('=').next() == Some(key))
        };
        let status = if verdict.passes { 200 } else { 503 };
        let json = request.query().split('&').any(|part| part == "format=json")
            || request
                .header("Accept")
                .is_some_and(|accept| accept.starts_with("application/json"));
        let response = match json {
            true => Response::bytes(
                status,
                "application/json",
                tree(endpoint.word(), &verdict).to_string().into_bytes(),
            ),
            false => Response::text(status, text(endpoint.word(), &verdict, asked("verbose"))),
        };
        response
            .header("Age", verdict.age.as_secs().to_string())
            .header("Cache-Control", "no-store")
    }
}
