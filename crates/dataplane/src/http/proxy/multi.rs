//! Clients that speak HTTP/2: each stream goes the way of a connection that carries one request.

use std::rc::Rc;

use super::rewrite::Client;
use super::{Fault, Proxy};
use crate::http::conn::{Conn, Cut};
use crate::http2::{End, Open, Stream, serve};
use crate::net::{Buf, Peer, Transport, Worker};

impl Proxy {
    /// Serves a connection of HTTP/2 to its end. `first`: bytes of it that were read already; `request_fields`: whole
    /// field lines added to each of its requests.
    pub async fn serve_http2<T: Transport + Unpin>(
        self: &Rc<Self>,
        io: T,
        first: Option<Buf>,
        peer: Peer,
        worker: Rc<Worker>,
        request_fields: &[u8],
    ) {
        let client = Rc::new(self.client(peer, request_fields).of_http2());
        let settings = &self.settings;
        let start = |stream, open| {
            let (proxy, client, worker) = (Rc::clone(self), Rc::clone(&client), Rc::clone(&worker));
            drop(tokio::task::spawn_local(
                proxy.stream(stream, open, client, worker),
            ));
        };
        let malformed = |why| {
            tracing::debug!(%peer, why, "a request is malformed");
            self.metrics.fault(Fault::Client);
        };
        self.metrics.http2_connections.inc();
        let (limits, http) = (&settings.http2, &settings.limits);
        let end = serve(io, first, &worker, limits, http, start, malformed).await;
        match end {
            End::Closed => {}
            End::Protocol => self.metrics.fault(Fault::Client),
            End::Flood => {
                tracing::debug!(%peer, "a client sends frames of control without end");
                self.metrics.floods.inc();
                self.metrics.fault(Fault::Client);
            }
        }
    }

    async fn stream(
        self: Rc<Self>,
        stream: Stream,
        open: Open,
        client: Rc<Client>,
        worker: Rc<Worker>,
    ) {
        let mut conn = Conn::new(stream, worker);
        match self.requests(&mut conn, &client).await {
            Ok(()) => conn.finish().await,
            Err(Cut::Closed) => conn.close().await,
            Err(Cut::Timeout | Cut::Broken(_) | Cut::Rejected(_) | Cut::Http2) => conn.io.abort(),
        }
        drop(open);
    }
}
