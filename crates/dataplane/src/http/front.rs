//! What a worker does with a connection: TLS where that is served, then the requests on it.

use std::rc::Rc;
use std::time::Duration;

use crate::http::proxy::Proxy;
use crate::net::{Accepted, Peer, Serve, Socket, Worker};
use crate::tls::ServerTls;

/// Serves HTTP, and HTTPS where there are certificates.
pub struct Front {
    tls: Option<ServerTls>,
    /// For the handshake.
    patience: Duration,
    proxy: Rc<Proxy>,
}

impl Front {
    /// `patience`: for the handshake.
    pub fn new(tls: Option<ServerTls>, patience: Duration, proxy: Rc<Proxy>) -> Self {
        Self {
            tls,
            patience,
            proxy,
        }
    }

    /// Shakes hands, and serves the requests of who passes.
    async fn secured(&self, tls: &ServerTls, socket: Socket, peer: Peer, worker: Rc<Worker>) {
        let Some(opened) = tls.open(socket, peer, &worker, self.patience).await else {
            return;
        };
        let (proxy, fields) = (&self.proxy, opened.client_field());
        let (stream, fields) = (opened.stream, fields.as_bytes());
        match opened.http2 {
            true => {
                let serve = proxy.serve_http2(stream, None, peer, worker, fields);
                // Boxed, so that the others' tasks have no room for it.
                Box::pin(serve).await;
            }
            false => proxy.serve_on(stream, peer, worker, fields).await,
        }
    }
}

impl Serve for Front {
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted {
            socket,
            peer,
            worker,
            guard,
        } = accepted;
        match &self.tls {
            None => self.proxy.serve_on(socket, peer, worker, &[]).await,
            // Boxed: connections in the clear should not have room for it.
            Some(tls) => Box::pin(self.secured(tls, socket, peer, worker)).await,
        }
        drop(guard);
    }
}
