//! A TLS client (rustls, blocking) whose every choice is the test's: trust, key exchange group, resumption, versions.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
};

use crate::certs::{Authority, Pair};
use crate::http;

/// An established connection.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// How to connect.
#[derive(Debug, Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
}

/// What a client differs in from the plainest one.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Trust only certificates of this authority; any, when none.
    pub authority: Option<&'a Authority>,
    /// Show this certificate when asked.
    pub certificate: Option<&'a Pair>,
    /// X25519 alone, as the peers of a benchmark have it; otherwise the hybrid with ML-KEM comes first.
    pub x25519_only: bool,
    /// Keep tickets and use them.
    pub resume: bool,
    /// TLS 1.2 alone.
    pub tls12_only: bool,
}

impl Client {
    /// A client with these choices.
    pub fn new(options: &Options<'_>) -> Self {
        let mut provider = aws_lc_rs::default_provider();
        if options.x25519_only {
            provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        }
        let provider = Arc::new(provider);
        let versions: &[_] = if options.tls12_only {
            &[&rustls::version::TLS12]
        } else {
            rustls::ALL_VERSIONS
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("the provider has suites for both versions");
        let builder = match options.authority {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots
                    .add(authority.der().into())
                    .expect("an authority of our own");
                builder.with_root_certificates(roots)
            }
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        };
        let mut config = match options.certificate {
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes())
                    .collect::<Result<_, _>>()
                    .expect("a certificate of our own");
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
                builder
                    .with_client_auth_cert(chain, key.expect("a key of our own"))
                    .expect("a pair of our own")
            }
            None => builder.with_no_client_auth(),
        };
        if !options.resume {
            config.resumption = Resumption::disabled();
        }
        Self {
            config: Arc::new(config),
        }
    }

    /// The plainest client: trusts any certificate.
    pub fn trusting() -> Self {
        Self::new(&Options::default())
    }

    /// Connects to `addr` and shakes hands, asking for `name`.
    pub fn connect(&self, addr: SocketAddr, name: &str) -> io::Result<Stream> {
        self.over(http::dial(addr)?, name)
    }

    /// Shakes hands over a connection that is there.
    pub fn over(&self, stream: TcpStream, name: &str) -> io::Result<Stream> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connection =
            ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// GET on a connection of its own.
    pub fn get(&self, addr: SocketAddr, name: &str, path: &str) -> io::Result<http::Response> {
        let mut stream = self.connect(addr, name)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        http::exchange(&mut stream, request.as_bytes())
    }

    /// A handshake and nothing else: closes, and returns when the server has closed too, so that all its work is done.
    pub fn shake(&self, addr: SocketAddr, name: &str) -> io::Result<()> {
        let mut stream = self.connect(addr, name)?;
        stream.conn.send_close_notify();
        stream.flush()?;
        stream.sock.shutdown(std::net::Shutdown::Write)?;
        let mut rest = Vec::new();
        match stream.sock.read_to_end(&mut rest) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The certificate that the server of this connection showed, as DER.
pub fn shown_certificate(stream: &Stream) -> Vec<u8> {
    let chain = stream.conn.peer_certificates();
    chain
        .and_then(<[_]>::first)
        .expect("a server shows a certificate")
        .to_vec()
}

/// The first certificate of a PEM text, as DER.
pub fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .expect("a certificate of our own")
        .to_vec()
}

/// Accepts any chain; signatures are checked all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        rustls::crypto::verify_tls12_signature(
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
        rustls::crypto::verify_tls13_signature(
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
