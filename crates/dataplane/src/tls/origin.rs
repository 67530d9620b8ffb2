//! TLS towards upstreams: whom we trust, and the certificate that we show.
//!
//! The server's certificate is always verified, against the authorities of `--upstream-ca` or those of the system, and for the name
//! that was configured: there is no way to turn that off, since whoever needs it wants `--upstream-ca` with the server's own
//! certificate. Files are watched and reloaded as a server's are: what is no good is refused, with the reason, and what was in
//! force stays. Sessions are resumed; a change of the files begins anew, and connections that were opened before it get no more requests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet as _, Values};
use podkit_foundation::surface::Metric;
use podkit_foundation::surface::common::generation;
use podkit_foundation::telemetry::metrics::{Counter, Gauge, Registry};
use rustls::RootCertStore;
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SingleCertAndKey;

use super::certificate::sha256;
use super::pair::Pair;
use super::source::read_file;
use crate::watch::look_after;

/// Sessions that are remembered, over all upstreams and workers.
const SESSIONS: usize = 1024;

podkit_foundation::params! {
    /// How TLS is spoken to upstreams.
    pub struct UpstreamTlsParams {
        /// Authorities that upstreams' certificates must come from, PEM; those of the system unless given. Watched.
        ///
        /// A certificate is always verified, for the host of the upstream or its `;server-name=`. For a server with a
        /// certificate of its own making this is that certificate.
        upstream_ca: Option<PathBuf> { live: true },
        /// Certificate chain that is shown to upstreams that ask for one, PEM. Watched.
        upstream_cert: Option<PathBuf> { live: true },
        /// Its private key, PEM, not encrypted; without it --upstream-cert holds the key too. Watched.
        upstream_key: Option<PathBuf> { live: true },
    }
}

podkit_foundation::params! {
    /// What is spoken by TLS to upstreams that are asked by HTTP.
    pub struct UpstreamHttp2Params {
        /// Offer HTTP/2 by ALPN to `https://` upstreams, and send many requests on one connection where it is taken.
        ///
        /// For gRPC. Off unless given, since a request that asks for an upgrade (WebSocket) can't be sent that way. `h2c://`
        /// is HTTP/2 in the clear.
        upstream_http2: bool { default: Some("false") },
    }
}

impl UpstreamTlsParams {
    /// For when TLS is spoken to no upstream: what was given would do nothing. `needs` is what it takes.
    pub fn refuse_unused(&self, needs: &str) -> Result<(), ParamError> {
        let given = [
            (self.upstream_ca.is_some(), "upstream_ca"),
            (self.upstream_cert.is_some(), "upstream_cert"),
            (self.upstream_key.is_some(), "upstream_key"),
        ];
        match given.iter().find(|(given, _)| *given) {
            Some((_, field)) => Err(ParamError::new(field, format!("needs {needs}"))),
            None => Ok(()),
        }
    }
}

/// What TLS towards upstreams of HTTP needs.
const NEEDS_HTTPS: &str = "an https:// upstream";

/// Counters of what became of the files.
pub const ORIGIN_METRICS: [Metric; 1] = [Metric {
    name: "podkit_upstream_tls_reloads_total",
    kind: "counter",
    labels: &["result"],
    doc: "Changes of --upstream-ca, -cert and -key: changed (now in force) or refused (the former state stays).",
}];

/// TLS towards upstreams. Clones share.
#[derive(Debug, Clone)]
pub struct UpstreamTls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    params: UpstreamTlsParams,
    offers_http2: bool,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<Configs>>,
    /// How often that has changed.
    changes: AtomicU64,
    state: Mutex<State>,
    changed: Counter,
    refused: Counter,
    generation: Gauge,
}

/// The files of TLS towards a server.
#[derive(Debug, Clone, Default)]
pub struct OriginFiles {
    /// Authorities that its certificate must come from, PEM; those of the system when there is none.
    pub ca: Option<PathBuf>,
    /// Certificate chain that is shown to it, PEM.
    pub cert: Option<PathBuf>,
    /// The chain's private key, PEM; without it `cert` holds the key too.
    pub key: Option<PathBuf>,
}

/// One of these files, to which whoever owns them gives the parameter's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginFile {
    /// The authorities.
    Ca,
    /// The chain.
    Cert,
    /// The key.
    Key,
}

/// A configuration for connections, and what it was made of.
pub type MadeOf<T> = (T, [u8; 32]);

/// What connections begin with.
#[derive(Debug)]
struct Configs {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    /// No protocol is named: bytes as they are.
    any: Arc<ClientConfig>,
}

#[derive(Debug)]
struct State {
    /// Of the files in force.
    digest: [u8; 32],
    /// What is on disk and not in force.
    refusal: Option<String>,
}

/// What is spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, or HTTP/1.1 where that is not taken.
    Http2,
    /// Anything.
    Any,
}

impl UpstreamTls {
    /// For a module that asks by HTTP: None when TLS is not spoken to its upstreams (`needed`), and what was given for it is refused then.
    /// The system's authorities are read only when they are needed.
    pub fn if_needed(
        values: &Values,
        needed: bool,
        registry: &Registry,
    ) -> Result<Option<Self>, Failure> {
        let params = UpstreamTlsParams::from_values(values)?;
        let http2 = UpstreamHttp2Params::from_values(values)?.upstream_http2;
        if needed {
            return Self::new(&params, http2, registry).map(Some);
        }
        params.refuse_unused(NEEDS_HTTPS)?;
        match http2 {
            true => {
                let why = format!("needs {NEEDS_HTTPS}");
                Err(ParamError::new("upstream_http2", why).into())
            }
            false => Ok(None),
        }
    }

    /// Reads the files. Every fault is one line with the parameter, the file, and what would be right.
    pub fn new(
        params: &UpstreamTlsParams,
        offers_http2: bool,
        registry: &Registry,
    ) -> Result<Self, Failure> {
        if params.upstream_key.is_some() && params.upstream_cert.is_none() {
            let why = "needs --upstream-cert, the certificate that it is the key of";
            return Err(ParamError::new("upstream_key", why).into());
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (configs, digest) = load(params, &provider)
            .map_err(|(field, why)| Failure::from(ParamError::new(field, why)))?;
        let [reloads] = ORIGIN_METRICS;
        let count = |result| registry.counter(reloads.name, reloads.doc, &[("result", result)]);
        Ok(Self(Arc::new(Shared {
            params: params.clone(),
            offers_http2,
            provider,
            current: RwLock::new(Arc::new(configs)),
            changes: AtomicU64::new(0),
            state: Mutex::new(State {
                digest,
                refusal: None,
            }),
            changed: count("changed"),
            refused: count("refused"),
            generation: generation(registry),
        })))
    }

    /// `--upstream-http2`.
    pub fn offers_http2(&self) -> bool {
        self.0.offers_http2
    }

    /// `--upstream-ca` is given.
    pub fn has_ca(&self) -> bool {
        self.0.params.upstream_ca.is_some()
    }

    /// What a connection that begins now is opened with.
    pub fn config(&self, inside: Inside) -> Arc<ClientConfig> {
        let current = self.0.current.read();
        let current = current.unwrap_or_else(PoisonError::into_inner);
        Arc::clone(match inside {
            Inside::Http1 => &current.http1,
            Inside::Http2 => &current.http2,
            Inside::Any => &current.any,
        })
    }

    /// How often the files have changed. A connection belongs to the count from before it was opened.
    pub fn generation(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }

    /// What is on disk and not in force, and why.
    pub fn refusal(&self) -> Option<String> {
        self.lock().refusal.clone()
    }

    /// Reads the files again and puts them in force when they are good. True when something changed.
    pub fn reload(&self) -> Result<bool, String> {
        let shared = &*self.0;
        let mut state = self.lock();
        let (configs, digest) = match load(&shared.params, &shared.provider) {
            Ok(loaded) => loaded,
            Err((field, why)) => {
                let line = format!("--{} {why}", field.replace('_', "-"));
                if state.refusal.as_ref() != Some(&line) {
                    shared.refused.inc();
                    tracing::warn!("refused, the former state stays in force: {line}");
                    state.refusal = Some(line.clone());
                }
                return Err(line);
            }
        };
        state.refusal = None;
        if digest == state.digest {
            return Ok(false);
        }
        state.digest = digest;
        let mut current = shared
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(configs);
        shared.changes.fetch_add(1, Ordering::Release);
        shared.changed.inc();
        shared.generation.add(1);
        tracing::info!("the authorities or the certificate for upstreams changed: in force");
        Ok(true)
    }

    /// Reloads when the files change, for as long as the process lives.
    pub async fn watch(self) {
        let params = &self.0.params;
        let files = [
            &params.upstream_ca,
            &params.upstream_cert,
            &params.upstream_key,
        ];
        let files: Vec<PathBuf> = files.into_iter().flatten().cloned().collect();
        if files.is_empty() {
            return;
        }
        // What is wrong is said by reload itself.
        look_after(&files, || drop(self.reload())).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the files and makes the configurations. The error is the parameter, and what is wrong with its file.
fn load(
    params: &UpstreamTlsParams,
    provider: &Arc<CryptoProvider>,
) -> Result<MadeOf<Configs>, (&'static str, String)> {
    let files = OriginFiles {
        ca: params.upstream_ca.clone(),
        cert: params.upstream_cert.clone(),
        key: params.upstream_key.clone(),
    };
    let made = files.config(provider, None).map_err(|(file, why)| {
        let field = match file {
            OriginFile::Ca => "upstream_ca",
            OriginFile::Cert => "upstream_cert",
            OriginFile::Key => "upstream_key",
        };
        (field, why)
    })?;
    let (config, digest) = made.expect("nothing was known");
    let with = |protocols: &[&[u8]]| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    };
    let configs = Configs {
        http1: with(&[b"http/1.1"]),
        http2: with(&[b"h2", b"http/1.1"]),
        any: with(&[]),
    };
    Ok((configs, digest))
}

impl OriginFiles {
    /// Reads them and makes a configuration that names no protocol; None when they are what `known` was made of.
    pub fn config(
        &self,
        provider: &Arc<CryptoProvider>,
        known: Option<[u8; 32]>,
    ) -> Result<Option<MadeOf<ClientConfig>>, (OriginFile, String)> {
        let read = |file, path: &Option<PathBuf>| {
            let bytes = path.as_ref().map(|path| {
                read_file(path).map_err(|why| (file, format!("{} {why}", path.display())))
            });
            bytes.transpose()
        };
        let ca = read(OriginFile::Ca, &self.ca)?;
        let cert = read(OriginFile::Cert, &self.cert)?;
        let key = read(OriginFile::Key, &self.key)?;
        let digests: Vec<u8> = [&ca, &cert, &key]
            .into_iter()
            .flat_map(|bytes| sha256(bytes.as_deref().unwrap_or_default()))
            .collect();
        let digest = sha256(&digests);
        if known == Some(digest) {
            return Ok(None);
        }

        let wrong = |why| (OriginFile::Ca, why);
        let roots = match (&ca, &self.ca) {
            (Some(ca), Some(path)) => {
                authorities(ca).map_err(|why| wrong(format!("{} {why}", path.display())))?
            }
            _ => system().map_err(wrong)?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(format!("TLS can't be configured ({error})")))?
            .with_root_certificates(roots);
        let mut config = match (&cert, &self.cert) {
            (Some(cert), Some(path)) => {
                let key = key.as_deref().unwrap_or(cert);
                let pair = Pair::check(cert, key, SystemTime::now(), provider);
                let pair = pair.map_err(|problem| {
                    let why = format!("{} {}", path.display(), problem.text);
                    (OriginFile::Cert, why)
                })?;
                let shown = SingleCertAndKey::from(Arc::clone(&pair.key));
                builder.with_client_cert_resolver(Arc::new(shown))
            }
            _ => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        // The records of an open connection are protected by `stream`.
        config.enable_secret_extraction = true;
        Ok(Some((config, digest)))
    }
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (at, der) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let der = der.map_err(|error| format!("is not PEM ({error})"))?;
        roots
            .add(der)
            .map_err(|error| format!("certificate {} is no authority ({error})", at + 1))?;
    }
    match roots.is_empty() {
        true => Err(
            "has no CERTIFICATE block; expected the PEM certificates of the authorities".to_owned(),
        ),
        false => Ok(roots),
    }
}

/// Those of the machine, or of the image (`SSL_CERT_FILE`, `/etc/ssl`). Some that can't be read are no fault; none is.
fn system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        true => Err(
            "is not given and the system has no authorities (/etc/ssl/certs, SSL_CERT_FILE); name a file with theirs"
                .to_owned(),
        ),
        false => Ok(roots),
    }
}
