//! Forwards requests to the endpoints of a cluster.
//!
//! ```text
//!  client ─► Conn ─ head ─► put_request ─► out ──────────────► upstream      one send, the body's begin included
//!              ╰──── body ─► Pump ───────────────────────────►
//!         ◄──────────────────────── Relay ◄─ put_response ◄─ head, body     one send, when the body is small
//! ```
//!
//! The router tells each request's way: stages, and a cluster. The cluster picks an endpoint; when that fails before anything of an answer went to the client, and the
//! request was not sent or may be sent twice, another one is tried (`exchange`).
//!
//! A request on kept connections costs four system calls and no allocation: receive, send, receive, send. The answer may
//! come while the body is still being sent. What the upstream breaks off is broken off for the client too: never a body
//! that looks complete and is not.

mod access;
mod attempt;
mod choice;
mod exchange;
mod grpc;
mod metrics;
mod multi;
mod pace;
mod pump;
mod relay;
mod retry;
mod rewrite;
mod route;
mod trace;
mod watch;

use std::cell::RefCell;
use std::rc::Rc;

use crate::http::conn::{Conn, Cut};
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::limits::HttpLimits;
use crate::http2::Http2Limits;
use crate::net::{Accepted, Peer, Serve, Transport, Worker};

pub use access::{AccessLog, AccessTo};
pub use choice::KeySource;
pub use metrics::{Fault, HttpMetrics};
pub use retry::Retries;
pub use route::{Forward, ForwardSettings, Route, Router, Trust};
pub use trace::Traceparent;

/// How a listener forwards.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// The bounds.
    pub limits: HttpLimits,
    /// Whether HTTP/2 is served, and its bounds.
    pub http2: Http2Limits,
    /// What clients speak to this listener: `http` or `https`.
    pub scheme: &'static str,
    /// The port that clients connected to, for `X-Forwarded-Port`.
    pub port: Option<u16>,
}

/// A worker's service to the clients of a listener.
pub struct Proxy {
    settings: ProxySettings,
    router: RefCell<Rc<dyn Router>>,
    ids: trace::Ids,
    metrics: HttpMetrics,
    /// Room for heads, used by one request at a time: parsing and rewriting never wait.
    request: RefCell<RequestHead>,
    response: RefCell<ResponseHead>,
}

impl Proxy {
    /// Requests go where `router` says.
    pub fn new(settings: ProxySettings, router: Rc<dyn Router>, metrics: HttpMetrics) -> Rc<Self> {
        Rc::new(Self {
            ids: trace::Ids::new(),
            settings,
            router: RefCell::new(router),
            metrics,
            request: RefCell::default(),
            response: RefCell::default(),
        })
    }

    /// From the next request on, on connections that are open too, requests go where `router` says.
    pub fn set_router(&self, router: Rc<dyn Router>) {
        self.router.replace(router);
    }

    /// The bounds.
    pub fn limits(&self) -> &HttpLimits {
        &self.settings.limits
    }

    /// Serves a connection to its end. `request_fields`: whole field lines added to each of its requests.
    ///
    /// Not an `async fn`: that would keep room for `io` twice in every connection's task.
    pub fn serve_on<T: Transport + Unpin>(
        self: &Rc<Self>,
        io: T,
        peer: Peer,
        worker: Rc<Worker>,
        request_fields: &[u8],
    ) -> impl Future<Output = ()> + use<'_, T> {
        let client = self.client(peer, request_fields);
        let mut conn = Conn::new(io, worker);
        async move {
            match self.requests(&mut conn, &client).await {
                Err(Cut::Http2) => {
                    let first = conn.take_input();
                    let Conn { io, worker, .. } = conn;
                    let fields = client.own_fields().to_vec();
                    // Boxed: most connections are not, and should not have room for it.
                    Box::pin(self.serve_http2(io, first, peer, worker, &fields)).await;
                }
                Ok(()) => conn.finish().await,
                Err(Cut::Closed) => conn.close().await,
                // A client whose message was refused was told where that was found.
                Err(Cut::Timeout | Cut::Broken(_) | Cut::Rejected(_)) => conn.io.abort(),
            }
        }
    }

    fn client(&self, peer: Peer, request_fields: &[u8]) -> rewrite::Client {
        let settings = &self.settings;
        rewrite::Client::new(peer, settings.scheme, settings.port, request_fields)
    }

    /// A client may begin with HTTP/2 without having agreed on it by ALPN (RFC 9113 section 3.3).
    fn takes_preface(&self) -> bool {
        self.settings.http2.http2 && self.settings.scheme == "http"
    }
}

impl Serve for Proxy {
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted {
            socket,
            peer,
            worker,
            guard,
        } = accepted;
        self.serve_on(socket, peer, worker, &[]).await;
        drop(guard);
    }
}

#[cfg(test)]
mod tests;
