//! A client that has shaken hands and may come in.

use std::rc::Rc;
use std::time::Duration;

use super::certificate::Certificate;
use super::client::forwarded_client_cert;
use super::metrics::Reason;
use super::server::ServerTls;
use super::stream::TlsStream;
use crate::net::{Peer, Socket, Worker};

/// A protected connection and who is at its other end.
#[derive(Debug)]
pub struct Opened {
    /// What it says.
    pub stream: TlsStream,
    /// What it has shown of itself.
    pub client: Option<Certificate>,
    /// It has chosen `h2` (RFC 9113, section 3.2).
    pub http2: bool,
}

impl Opened {
    /// The field line that tells an upstream of the client's certificate; empty without one.
    pub fn client_field(&self) -> String {
        self.client.as_ref().map_or_else(String::new, |client| {
            let value = forwarded_client_cert(client);
            format!("X-Forwarded-Client-Cert: {value}\r\n")
        })
    }
}

impl ServerTls {
    /// Shakes hands within `patience`. `None`: it came to nothing, which was counted and logged.
    pub async fn open(
        &self,
        socket: Socket,
        peer: Peer,
        worker: &Rc<Worker>,
        patience: Duration,
    ) -> Option<Opened> {
        let handshake = TlsStream::accept(socket, self.config(), worker, patience).await;
        let handshake = handshake
            .inspect_err(|error| {
                let reason = Reason::of_io(error);
                self.failed(reason);
                tracing::debug!(%peer, reason = reason.word(), why = %error, "a handshake failed");
            })
            .ok()?;
        let client = self.accepted(handshake.connection());
        let client = client
            .inspect_err(|reason| {
                tracing::debug!(%peer, reason = reason.word(), "a resumed client is not let in");
            })
            .ok()?;
        let http2 = handshake.connection().alpn_protocol() == Some(b"h2");
        let stream = handshake.into_stream();
        let stream = stream
            .inspect_err(|error| {
                tracing::error!(%peer, why = %error, "a connection can't be protected");
            })
            .ok()?;
        Some(Opened {
            stream,
            client,
            http2,
        })
    }
}
