//! Certificates are made here, in memory or in a temporary directory; handshakes run over buffers, not sockets.

mod clients;
mod handshakes;
mod names;
mod pairs;
mod reloads;
mod watching;

use std::fs;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use podkit_foundation::params::{ParamSet, Values};
use podkit_foundation::telemetry::metrics::{Format, Registry};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

use super::certificate::unix;
use super::*;

/// A certificate authority.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

/// A certificate with its key, PEM.
#[derive(Clone)]
struct Made {
    chain: String,
    key: String,
}

/// Seconds from now, for validity.
fn at(seconds: i64) -> time_of::At {
    time_of::at(unix(std::time::SystemTime::now()) + seconds)
}

/// rcgen's time type has no name here: it is reached through its arithmetic.
mod time_of {
    use std::time::Duration;

    pub(super) struct At(pub(super) u64);

    pub(super) fn at(seconds: i64) -> At {
        At(u64::try_from(seconds).unwrap())
    }

    pub(super) fn valid(params: &mut rcgen::CertificateParams, from: &At, to: &At) {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(from.0);
        params.not_after = epoch + Duration::from_secs(to.0);
    }
}

const DAY: i64 = 86_400;

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    fn leaf(&self, params: &CertificateParams) -> Made {
        self.leaf_with(params, &KeyPair::generate().unwrap())
    }

    fn leaf_with(&self, params: &CertificateParams, key: &KeyPair) -> Made {
        Made {
            chain: params.signed_by(key, &self.issuer()).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// A server's, valid for 90 days.
    fn server(&self, names: &[&str]) -> Made {
        self.leaf(&server_params(names, -DAY, 90 * DAY))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap())
            .unwrap();
        roots
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn server_params(names: &[&str], from: i64, to: i64) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).unwrap();
    params.distinguished_name = common_name(names.first().map_or("nobody", String::as_str));
    time_of::valid(&mut params, &at(from), &at(to));
    params
}

fn client_params(name: &str, sans: Vec<SanType>) -> CertificateParams {
    let mut params = server_params(&[], -DAY, DAY);
    params.distinguished_name = common_name(name);
    params.subject_alt_names = sans;
    params
}

/// A temporary directory with files in it.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn pair(&self, name: &str, made: &Made) {
        self.write(&format!("{name}.crt"), &made.chain);
        self.write(&format!("{name}.key"), &made.key);
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn params(flags: &[(&str, &str)]) -> TlsParams {
    let given = |param: &podkit_foundation::params::Param| -> Vec<String> {
        let mine = flags.iter().filter(|(name, _)| *name == param.flag());
        mine.map(|(_, value)| (*value).to_owned()).collect()
    };
    TlsParams::from_values(&Values::gather(TlsParams::PARAMS.iter(), &given, &|_| None)).unwrap()
}

fn server(flags: &[(&str, &str)]) -> (ServerTls, Registry) {
    let registry = Registry::default();
    let tls = ServerTls::new(&params(flags), HTTP1, &registry).unwrap();
    (tls, registry)
}

/// The line with which a start is refused.
fn start_error(flags: &[(&str, &str)]) -> String {
    let failure = ServerTls::new(&params(flags), HTTP1, &Registry::default()).unwrap_err();
    assert_eq!(failure.exit_code(), 2, "{failure}");
    let line = failure.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

fn metrics(registry: &Registry) -> String {
    registry.encode(Format::Prometheus)
}

fn client(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn client_with(roots: RootCertStore, made: &Made) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(made.chain.as_bytes()).map(Result::unwrap);
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            chain.collect(),
            PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap(),
        )
        .unwrap()
}

/// Both ends after a handshake.
struct Joined {
    client: ClientConnection,
    server: ServerConnection,
}

/// Runs a handshake, tickets included. The error is the server's, or else the client's.
fn handshake(
    tls: &ServerTls,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<Joined, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(tls.config()).unwrap();
    for _ in 0..20 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if !client.wants_write() && !client.is_handshaking() && !server.is_handshaking() {
            return Ok(Joined { client, server });
        }
    }
    panic!("no end of the handshake");
}

/// The first name of the certificate that a client gets.
fn served(tls: &ServerTls, client: &Arc<ClientConfig>, name: &str) -> String {
    let joined = handshake(tls, client, name).unwrap();
    let der = &joined.client.peer_certificates().unwrap()[0];
    Certificate::from_der(der).unwrap().server_names()[0].clone()
}

/// Lets the watch go on until that has come: it is looked at whenever the watch was woken.
async fn eventually(what: &str, watch: &mut Pin<Box<impl Future>>, mut done: impl FnMut() -> bool) {
    let come = poll_fn(|cx| {
        let ended = watch.as_mut().poll(cx).is_ready();
        assert!(!ended, "it watches for as long as the process lives");
        match done() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    let patience = Duration::from_secs(20);
    let in_time = tokio::time::timeout(patience, come).await;
    assert!(in_time.is_ok(), "it never came: {what}");
}
