//! The TLS side of HTTPS and gRPC probes. The certificate is not verified: the probe asks whether the container answers, not who
//! it is (Kubernetes: "skipping certificate verification").
//!
//! A configuration is made for the first probe that needs it and then kept: a pod without one pays nothing.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection, encrypted or not.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

pub(super) struct Tls {
    tcp: TcpStream,
    session: ClientConnection,
}

impl Stream {
    /// Makes the handshake; `host` is the name or address that is asked for.
    pub(super) async fn tls(tcp: TcpStream, host: &str) -> io::Result<Self> {
        let name = match host.parse::<IpAddr>() {
            Ok(ip) => ServerName::IpAddress(ip.into()),
            Err(_) => ServerName::try_from(host.to_string()).map_err(io::Error::other)?,
        };
        let session = ClientConnection::new(config()?, name).map_err(io::Error::other)?;
        let mut tls = Tls { tcp, session };
        while tls.session.is_handshaking() {
            tls.flush().await?;
            if tls.session.is_handshaking() && !tls.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self::Tls(Box::new(tls)))
    }

    /// Writes everything.
    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => {
                while !bytes.is_empty() {
                    tcp.writable().await?;
                    match tcp.try_write(bytes) {
                        Ok(written) => bytes = &bytes[written..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
            Self::Tls(tls) => {
                while !bytes.is_empty() {
                    let taken = tls.session.writer().write(bytes)?;
                    bytes = &bytes[taken..];
                    tls.flush().await?;
                }
                Ok(())
            }
        }
    }

    /// Reads some; 0 at the end.
    pub(super) async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => loop {
                tcp.readable().await?;
                match tcp.try_read(into) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return other,
                }
            },
            Self::Tls(tls) => loop {
                match tls.session.reader().read(into) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // Many servers close without saying so; what is missing shows in the response's own framing.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                    other => return other,
                }
                tls.flush().await?;
                tls.fill().await?;
            },
        }
    }
}

impl Tls {
    async fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.tcp.writable().await?;
            match self.session.write_tls(&mut NonBlocking(&self.tcp)) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// False at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        self.tcp.readable().await?;
        let mut first = [0u8; 5];
        if self.session.is_handshaking() {
            // Someone who speaks plain HTTP is better told so than "InvalidContentType".
            match self.tcp.peek(&mut first).await {
                Ok(5) if first == *b"HTTP/" => {
                    return Err(io::Error::other(
                        "http: server gave HTTP response to HTTPS client",
                    ));
                }
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        let read = match self.session.read_tls(&mut NonBlocking(&self.tcp)) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        self.session
            .process_new_packets()
            .map_err(|error| io::Error::other(format!("tls: {error}")))?;
        Ok(read > 0)
    }
}

struct NonBlocking<'a>(&'a TcpStream);

impl Read for NonBlocking<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection for HTTP/2, which the server has to agree to (ALPN), as Go's gRPC demands it.
pub(super) async fn http2(tcp: TcpStream, target: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = kept(&CONFIG, &[b"h2"])?;
    let name = ServerName::IpAddress(target.ip().into());
    let stream = TlsConnector::from(config).connect(name, tcp).await?;
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Ok(stream),
        _ => Err(io::Error::other("tls: the server does not offer HTTP/2")),
    }
}

fn config() -> io::Result<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    kept(&CONFIG, &[])
}

fn kept(place: &OnceLock<Arc<ClientConfig>>, protocols: &[&[u8]]) -> io::Result<Arc<ClientConfig>> {
    if let Some(config) = place.get() {
        return Ok(Arc::clone(config));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        .with_no_client_auth();
    // Each probe is a handshake of its own: that is part of what is probed.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::clone(place.get_or_init(|| Arc::new(config))))
}

/// Takes any certificate.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
