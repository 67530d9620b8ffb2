use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::UnixTime;
use rustls::{DigitallySignedStruct, HandshakeKind, NamedGroup, ProtocolVersion, SignatureScheme};

use super::*;

/// For a client that looks at certificates and does not judge them.
#[derive(Debug)]
pub(super) struct TrustAll;

impl ServerCertVerifier for TrustAll {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::ED25519,
        ]
    }
}

fn only(version: &'static rustls::SupportedProtocolVersion, roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn files(authority: &Authority) -> (Files, String, String) {
    let files = Files::new();
    files.pair("a", &authority.server(&["a.example"]));
    let (cert, key) = (shown(&files.path("a.crt")), shown(&files.path("a.key")));
    (files, cert, key)
}

#[test]
fn the_key_exchange_is_hybrid_where_the_client_can() {
    let authority = Authority::new("CA");
    let (_files, cert, key) = files(&authority);
    let (tls, registry) = server(&[("cert", &cert), ("key", &key)]);
    let joined = handshake(&tls, &Arc::new(client(authority.roots())), "a.example").unwrap();
    let group = joined
        .server
        .negotiated_key_exchange_group()
        .unwrap()
        .name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(
        joined.server.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    assert_eq!(tls.accepted(&joined.server), Ok(None));
    let text = metrics(&registry);
    assert!(
        text.contains("podkit_tls_handshakes_total{version=\"1.3\",resumed=\"false\"} 1"),
        "{text}"
    );
    assert!(
        text.contains("podkit_tls_key_exchanges_total{group=\"X25519MLKEM768\"} 1"),
        "{text}"
    );
}

#[test]
fn the_oldest_version_is_a_choice() {
    let authority = Authority::new("CA");
    let (_files, cert, key) = files(&authority);
    let old = Arc::new(only(&rustls::version::TLS12, authority.roots()));
    let (tls, _) = server(&[("cert", &cert), ("key", &key)]);
    let joined = handshake(&tls, &old, "a.example").unwrap();
    assert_eq!(
        joined.server.protocol_version(),
        Some(ProtocolVersion::TLSv1_2)
    );
    let (tls, registry) = server(&[("cert", &cert), ("key", &key), ("min-version", "1.3")]);
    let error = handshake(&tls, &old, "a.example").err().unwrap();
    assert_eq!(Reason::of(&error), Reason::Version, "{error}");
    tls.failed(Reason::of(&error));
    let text = metrics(&registry);
    assert!(
        text.contains("podkit_tls_handshake_failures_total{reason=\"version\"} 1"),
        "{text}"
    );
}

#[test]
fn sessions_resume_across_workers_and_renewals_in_both_versions() {
    let authority = Authority::new("CA");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (files, cert, key) = files(&authority);
        let (tls, _) = server(&[("cert", &cert), ("key", &key)]);
        let browser = Arc::new(only(version, authority.roots()));
        let kind = |joined: &Joined| joined.server.handshake_kind();
        let first = handshake(&tls, &browser, "a.example").unwrap();
        assert_ne!(kind(&first), Some(HandshakeKind::Resumed));
        let second = handshake(&tls, &browser, "a.example").unwrap();
        assert_eq!(kind(&second), Some(HandshakeKind::Resumed), "{version:?}");
        files.pair("a", &authority.server(&["a.example"]));
        assert_eq!(tls.reload(), Ok(true));
        let third = handshake(&tls, &browser, "a.example").unwrap();
        assert_eq!(kind(&third), Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[test]
fn alpn_is_http_1_and_a_client_of_another_protocol_is_told_so() {
    let authority = Authority::new("CA");
    let (_files, cert, key) = files(&authority);
    let (tls, _) = server(&[("cert", &cert), ("key", &key)]);
    let check = |offered: &[&[u8]], expected: Option<&[u8]>| {
        let mut config = client(authority.roots());
        config.alpn_protocols = offered.iter().map(|p| p.to_vec()).collect();
        let joined = handshake(&tls, &Arc::new(config), "a.example");
        match joined {
            Ok(joined) => assert_eq!(joined.server.alpn_protocol(), expected),
            Err(error) => assert_eq!(
                (Reason::of(&error), expected),
                (Reason::NothingInCommon, Some(&b"!"[..]))
            ),
        }
    };
    check(&[], None);
    check(&[b"h2", b"http/1.1"], Some(b"http/1.1"));
    check(&[b"http/1.0"], Some(b"http/1.0"));
    check(&[b"h2"], Some(b"!"));
}

#[test]
fn what_is_no_tls_is_known_as_such() {
    let authority = Authority::new("CA");
    let (_files, cert, key) = files(&authority);
    let (tls, _) = server(&[("cert", &cert), ("key", &key)]);
    let mut connection = ServerConnection::new(tls.config()).unwrap();
    connection
        .read_tls(&mut &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..])
        .unwrap();
    let error = connection.process_new_packets().unwrap_err();
    assert_eq!(Reason::of(&error), Reason::NotTls);
    let wrapped = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    assert_eq!(Reason::of_io(&wrapped), Reason::NotTls);
    assert_eq!(
        Reason::of_io(&std::io::ErrorKind::UnexpectedEof.into()),
        Reason::Closed
    );
    assert_eq!(
        Reason::of_io(&std::io::ErrorKind::TimedOut.into()),
        Reason::Timeout
    );
}

#[test]
fn a_client_that_does_not_trust_us_is_counted_as_such() {
    let authority = Authority::new("CA");
    let (_files, cert, key) = files(&authority);
    let (tls, _) = server(&[("cert", &cert), ("key", &key)]);
    let stranger = Arc::new(client(Authority::new("Other").roots()));
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = ClientConnection::new(stranger, name).unwrap();
    let mut server = ServerConnection::new(tls.config()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    server.read_tls(&mut bytes.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    let mut bytes = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() && client.process_new_packets().is_ok() {
        client.read_tls(&mut rest).unwrap();
    }
    assert!(client.process_new_packets().is_err());
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    server.read_tls(&mut bytes.as_slice()).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert_eq!(Reason::of(&error), Reason::RefusedByClient, "{error}");
}
