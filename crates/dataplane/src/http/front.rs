//! What a worker does with a connection: TLS where that is served, then the requests on it.

use std::rc::Rc;
use std::time::Duration;

use crate::http::proxy::Proxy;
use crate::net::{Accepted, Peer, Serve, Socket, Worker};
use crate::tls::{Certificate, Reason, ServerTls, TlsStream, forwarded_client_cert};

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
}

impl Serve for Front {
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted {
            socket,
            peer,
            worker,
            guard,
        } = accepted;
        let proxy = Rc::clone(&self.proxy);
        match &self.tls {
            None => proxy.serve_on(socket, peer, worker, &[]).await,
            // Boxed: connections in the clear should not have room for it.
            Some(tls) => {
                Box::pin(secured(tls, self.patience, proxy, socket, peer, worker)).await;
            }
        }
        drop(guard);
    }
}

/// Shakes hands within `patience`, and serves the requests of who passes.
async fn secured(
    tls: &ServerTls,
    patience: Duration,
    proxy: Rc<Proxy>,
    socket: Socket,
    peer: Peer,
    worker: Rc<Worker>,
) {
    let handshake = TlsStream::accept(socket, tls.config(), &worker, patience);
    let handshake = match handshake.await {
        Ok(handshake) => handshake,
        Err(error) => {
            let reason = Reason::of_io(&error);
            tls.failed(reason);
            return tracing::debug!(%peer, reason = reason.word(), why = %error, "a handshake failed");
        }
    };
    let client = match tls.accepted(handshake.connection()) {
        Ok(client) => client,
        Err(reason) => {
            return tracing::debug!(%peer, reason = reason.word(), "a resumed client is not let in");
        }
    };
    let http2 = handshake.connection().alpn_protocol() == Some(b"h2");
    let stream = match handshake.into_stream() {
        Ok(stream) => stream,
        Err(error) => {
            return tracing::error!(%peer, why = %error, "a connection can't be protected");
        }
    };
    let fields = client.as_ref().map(client_field).unwrap_or_default();
    match http2 {
        true => {
            let serve = proxy.serve_http2(stream, None, peer, worker, fields.as_bytes());
            // Boxed, so that the others' tasks have no room for it.
            Box::pin(serve).await;
        }
        false => {
            let serve = proxy.serve_on(stream, peer, worker, fields.as_bytes());
            serve.await;
        }
    }
}

fn client_field(client: &Certificate) -> String {
    format!(
        "X-Forwarded-Client-Cert: {}\r\n",
        forwarded_client_cert(client)
    )
}
