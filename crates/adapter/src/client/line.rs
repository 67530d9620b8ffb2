//! A connection as bytes: sent whole, received by the count.

use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::Arc;

use podkit_dataplane::net::{Buf, Socket, Transport};
use podkit_dataplane::tls::TlsStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::{Fault, Login, TlsMode};

/// What a message may have at most.
const MOST_BYTES: usize = 16 << 20;

enum Io {
    Plain(Socket),
    Tls(Box<TlsStream>),
    /// In the middle of a handshake that did not come to its end.
    Gone,
}

/// A connection, and what of it was received and not looked at.
pub(crate) struct Line {
    io: Io,
    input: Buf,
}

impl Line {
    pub(super) fn plain(socket: Socket) -> Self {
        Self {
            io: Io::Plain(socket),
            input: Buf::small(),
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.io, Io::Tls(_))
    }

    /// Shakes hands; what comes next is TLS.
    pub(super) async fn secure(&mut self, login: &Login) -> Result<(), Fault> {
        // What somebody slipped in before the handshake must not be taken for what came within.
        if !self.input.is_empty() {
            return Err(Fault::lost("said more than that it speaks TLS"));
        }
        let Io::Plain(socket) = std::mem::replace(&mut self.io, Io::Gone) else {
            return Err(Fault::lost("speaks TLS already"));
        };
        let (config, name) = login.tls()?;
        let wrong = |error: std::io::Error| Fault::Lost(format!("TLS: {error}"));
        let done = TlsStream::connect(socket, config, name).await;
        let stream = done.and_then(|done| done.into_stream()).map_err(wrong)?;
        self.io = Io::Tls(Box::new(stream));
        Ok(())
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let sent = match &mut self.io {
            Io::Plain(io) => send(io, bytes).await,
            Io::Tls(io) => send(&mut **io, bytes).await,
            Io::Gone => return Err(Fault::lost("is gone")),
        };
        sent.map_err(broke)
    }

    /// Waits until there are `count` bytes.
    pub(super) async fn fill(&mut self, count: usize) -> Result<(), Fault> {
        if count > MOST_BYTES {
            return Err(Fault::Lost(format!(
                "sent a message of more than {} MiB",
                MOST_BYTES >> 20
            )));
        }
        while self.input.len() < count {
            self.input.reserve(count - self.input.len());
            let input = &mut self.input;
            let read = match &mut self.io {
                Io::Plain(io) => poll_fn(|cx| io.poll_read(cx, input)).await,
                Io::Tls(io) => poll_fn(|cx| io.poll_read(cx, input)).await,
                Io::Gone => return Err(Fault::lost("is gone")),
            };
            if read.map_err(broke)? == 0 {
                return Err(Fault::lost("closed the connection"));
            }
        }
        Ok(())
    }

    /// What is there.
    pub(super) fn filled(&self) -> &[u8] {
        self.input.filled()
    }

    /// Takes the first `count` bytes of it.
    pub(super) fn consume(&mut self, count: usize) {
        self.input.consume(count);
    }

    /// Room for what a busy time needed is not held through a quiet one.
    pub(super) fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = Buf::small();
        }
    }
}

async fn send(io: &mut impl Transport, bytes: &[u8]) -> std::io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        let part = [IoSlice::new(&bytes[sent..])];
        sent += poll_fn(|cx| io.poll_write(cx, &part)).await?;
    }
    poll_fn(|cx| io.poll_flush(cx)).await
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn broke(error: std::io::Error) -> Fault {
    Fault::Lost(format!("broke off: {error}"))
}

/// A configuration that takes any certificate; with what of `files` is shown to the server.
pub(super) fn unverified(files: Option<Arc<ClientConfig>>) -> Result<Arc<ClientConfig>, Fault> {
    let provider = match &files {
        Some(files) => Arc::clone(files.crypto_provider()),
        None => Arc::new(aws_lc_rs::default_provider()),
    };
    let anyone = Arc::new(Anyone(Arc::clone(&provider)));
    if let Some(files) = files {
        let mut config = (*files).clone();
        config.dangerous().set_certificate_verifier(anyone);
        return Ok(Arc::new(config));
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::Lost(format!("TLS can't be configured: {error}")))?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(anyone)
        .with_no_client_auth();
    // The records of an open connection are protected by `stream`.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// Takes any certificate whose key the server has: nobody listens, whoever it is.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS begins, or is not there: what a server's offer means for who wants it so.
pub(super) fn begins(login: &Login, offered: bool) -> Result<bool, Fault> {
    match (login.tls, login.wants_tls() && offered) {
        (_, true) => Ok(true),
        (TlsMode::Off | TlsMode::Prefer, false) => Ok(false),
        _ if !login.wants_tls() => Ok(false),
        _ => Err(Fault::lost(
            "does not speak TLS; tls=prefer and tls=off do without",
        )),
    }
}
