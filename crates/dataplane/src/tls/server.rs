//! A server's TLS: the configuration in force, and how it is replaced while connections come in.
//!
//! All workers take the `ServerConfig` in force when a connection begins ([`ServerTls::config`]: a read lock and a
//! reference count, once a handshake, which itself costs a thousand times as much). A reload reads everything, judges
//! each pair, and puts a new configuration in place at once; connections that are open keep theirs. A pair that is no good
//! leaves the former one of that name in force, and does not hold back the others.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use podkit_foundation::error::Failure;
use podkit_foundation::params::ParamError;
use podkit_foundation::surface::common::generation;
use podkit_foundation::telemetry::metrics::{Counter, Encoder, Gauge, Kind, Registry};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{CommonState, ServerConfig};

use super::certificate::{Certificate, date, unix};
use super::client::{ClientAuth, ClientRules, ClientState};
use super::look::{Former, Refusal, changes, look, refusals};
use super::metrics::{self, Handshakes, Reason};
use super::params::{MinVersion, TlsParams};
use super::set::{CertificateSet, Named};
use super::source::Source;
use crate::module::Section;
use crate::watch::{Watch, places};

/// The application protocols (ALPN) of a server of HTTP/1.
pub const HTTP1: &[&[u8]] = &[b"http/1.1", b"http/1.0"];

/// A server's TLS. Clones share.
#[derive(Debug, Clone)]
pub struct ServerTls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    source: Source,
    rules: Option<ClientRules>,
    strict: bool,
    min_version: MinVersion,
    protocols: &'static [&'static [u8]],
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<ServerConfig>>,
    state: Mutex<State>,
    handshakes: Handshakes,
    changed: Counter,
    refused: Counter,
    generation: Gauge,
}

/// What the configuration in force was made of, and what was refused since.
#[derive(Debug)]
struct State {
    pairs: Vec<Named>,
    client: Option<ClientState>,
    tickets: Arc<dyn ProducesTickets>,
    refused: BTreeMap<String, Refusal>,
    /// The pairs whose expiry was logged, with the day it was.
    expiry_told: BTreeMap<String, i64>,
    depends: Vec<PathBuf>,
    checked: SystemTime,
}

/// A certificate in force, for pages.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The pair's name.
    pub name: String,
    /// What the leaf says.
    pub leaf: Certificate,
    /// Certificates in the chain, the leaf included.
    pub chain_len: usize,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// What pages show of a server's TLS.
#[derive(Debug, Clone)]
pub struct View {
    /// The pairs; the first is the default.
    pub certificates: Vec<InForce>,
    /// What is on disk and not in force.
    pub refused: Vec<Refusal>,
    /// Authorities whose clients are let in.
    pub authorities: Vec<Certificate>,
    /// When the first revocation list runs out, Unix seconds.
    pub crl_until: Option<i64>,
    /// Handshakes that succeeded.
    pub handshakes: u64,
    /// Those of them that resumed a session.
    pub resumed: u64,
    /// Handshakes that failed.
    pub failed: u64,
}

impl View {
    /// The certificates in force, and what was refused, for a module's page.
    pub fn section(&self) -> Section {
        let rows = self.certificates.iter().map(|one| {
            vec![
                one.name.clone(),
                one.leaf.shown_names(),
                date(one.leaf.not_after),
            ]
        });
        let refused: Vec<String> = self
            .refused
            .iter()
            .map(|refusal| {
                format!(
                    "Refused, the former state stays in force: {}.",
                    refusal.line()
                )
            })
            .collect();
        Section {
            title: "Certificates".to_owned(),
            columns: ["Name", "For", "Expires"].map(str::to_owned).to_vec(),
            rows: rows.collect(),
            alert: (!refused.is_empty()).then(|| refused.join(" ")),
        }
    }
}

impl ServerTls {
    /// Checks the parameters and loads everything. `protocols` are offered by ALPN, in this order; none: a client's wish
    /// is ignored. Every fault is a `Usage` failure: one line with the parameter, the file, and what would be right.
    pub fn new(
        params: &TlsParams,
        protocols: &'static [&'static [u8]],
        registry: &Registry,
    ) -> Result<Self, Failure> {
        let source = params.source()?;
        let rules = params.client_rules()?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let now = SystemTime::now();
        let look = look(&source, rules.as_ref(), &provider, None, now);
        if let Some(refusal) = look.refused.values().next() {
            return Err(ParamError::new(refusal.field, refusal.line()).into());
        }
        if look.pairs.is_empty() {
            let why = "holds no pair; expected tls.crt with tls.key, fullchain.pem with privkey.pem, or NAME.crt with NAME.key";
            return Err(ParamError::new(source.field(), why).into());
        }
        let tickets = aws_lc_rs::Ticketer::new()
            .map_err(|error| Failure::runtime("ticket keys can't be made", error))?;
        let state = State {
            pairs: look.pairs,
            client: look.client,
            tickets,
            refused: look.refused,
            expiry_told: BTreeMap::new(),
            depends: look.depends,
            checked: now,
        };
        let reloads = |result| {
            let metric = metrics::RELOADS;
            registry.counter(metric.name, metric.doc, &[("result", result)])
        };
        let (strict, min_version) = (params.sni_strict, params.min_version);
        let config = configure(&state, strict, min_version, protocols, &provider)?;
        let tls = Self(Arc::new(Shared {
            source,
            rules,
            strict,
            min_version,
            protocols,
            provider,
            current: RwLock::new(Arc::new(config)),
            state: Mutex::new(state),
            handshakes: Handshakes::new(registry),
            changed: reloads("changed"),
            refused: reloads("refused"),
            generation: generation(registry),
        }));
        tls.tell_start();
        let shared = Arc::clone(&tls.0);
        registry.collect(move |encoder| shared.encode(encoder));
        Ok(tls)
    }

    /// What a connection that begins now is served with.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(
            &self
                .0
                .current
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Must be called once for each connection, after its handshake and before anything is read from it: counts
    /// it, and gives the client's certificate when it showed one. The error is that the client is not let in: a resumed
    /// session shows no certificate anew, so it is judged here by the rules and the clock of now.
    pub fn accepted(&self, connection: &CommonState) -> Result<Option<Certificate>, Reason> {
        let client = self.admit(connection, SystemTime::now());
        match &client {
            Ok(_) => self.0.handshakes.count(connection),
            Err(reason) => self.0.handshakes.fail(*reason),
        }
        client
    }

    pub(super) fn admit(
        &self,
        connection: &CommonState,
        now: SystemTime,
    ) -> Result<Option<Certificate>, Reason> {
        let Some(rules) = &self.0.rules else {
            return Ok(None);
        };
        let Some(der) = connection.peer_certificates().and_then(<[_]>::first) else {
            return match rules.auth {
                ClientAuth::Optional => Ok(None),
                ClientAuth::Required => Err(Reason::ClientCertificateMissing),
            };
        };
        let client = Certificate::from_der(der).map_err(|_| Reason::ClientCertificateUntrusted)?;
        if client.expired(now) {
            return Err(Reason::ClientCertificateExpired);
        }
        match rules.allow.allow(&client) {
            true => Ok(Some(client)),
            false => Err(Reason::ClientCertificateNotAllowed),
        }
    }

    /// Counts a handshake that failed.
    pub fn failed(&self, reason: Reason) {
        self.0.handshakes.fail(reason);
    }

    /// Clients are asked for a certificate.
    pub fn asks_clients(&self) -> bool {
        self.0.rules.is_some()
    }

    /// Reads all files again and puts what is good in force. True when something changed. The error names what was
    /// refused and why; the rest is in force all the same.
    pub fn reload(&self) -> Result<bool, String> {
        let shared = &*self.0;
        let now = SystemTime::now();
        let mut state = shared.lock();
        let fresh = look(
            &shared.source,
            shared.rules.as_ref(),
            &shared.provider,
            Some(state.former()),
            now,
        );
        state.checked = now;
        state.depends = fresh.depends;
        let news = refusals(&mut state.refused, fresh.refused);
        for refusal in &news {
            shared.refused.inc();
            tracing::warn!(
                name = refusal.name, file = %refusal.file.display(), reason = refusal.cause.word(),
                "refused, the former state stays in force: {}", refusal.line()
            );
        }

        let tls_changed = changes(&state.pairs, &fresh.pairs);
        let client_changed =
            state.client.as_ref().map(|c| c.digest) != fresh.client.as_ref().map(|c| c.digest);
        let changed = !tls_changed.is_empty() || client_changed;
        if changed {
            state.pairs = fresh.pairs;
            state.client = fresh.client;
            if client_changed {
                // A ticket must not outlive the rules it was given under.
                state.tickets = aws_lc_rs::Ticketer::new()
                    .map_err(|error| format!("ticket keys can't be made: {error}"))?;
                tracing::info!("the authorities or revocation lists for clients changed: in force");
            }
            let config = configure(
                &state,
                shared.strict,
                shared.min_version,
                shared.protocols,
                &shared.provider,
            )
            .map_err(|failure| failure.to_string())?;
            *shared
                .current
                .write()
                .unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
            shared.changed.inc();
            shared.generation.add(1);
            for line in tls_changed {
                tracing::info!("{line}");
            }
        }
        state.tell_expiry(now);
        match state.refused.is_empty() {
            true => Ok(changed),
            false => {
                let lines: Vec<String> = state.refused.values().map(Refusal::line).collect();
                Err(lines.join("; "))
            }
        }
    }

    /// Reloads when files change, for as long as the process lives. What is refused is logged, counted and shown.
    pub async fn watch(self) {
        let mut watch = Watch::new();
        loop {
            // Places first, then files: what changes in between wakes the watch.
            let before = places(&self.0.lock().depends);
            watch.follow(&before);
            // Said by reload itself.
            drop(self.reload());
            let after = places(&self.0.lock().depends);
            if after != before {
                // A directory came, or a link points elsewhere: what happened there before it was watched may be missed.
                watch.follow(&after);
                drop(self.reload());
            }
            watch.changed().await;
        }
    }

    /// What pages show.
    pub fn view(&self) -> View {
        let state = self.0.lock();
        let in_force = |named: &Named| InForce {
            name: named.name.clone(),
            leaf: named.pair.leaf.clone(),
            chain_len: named.pair.chain_len(),
            warnings: named.pair.warnings.clone(),
        };
        let (handshakes, resumed, failed) = self.0.handshakes.totals();
        View {
            certificates: state.pairs.iter().map(in_force).collect(),
            refused: state.refused.values().cloned().collect(),
            authorities: state
                .client
                .iter()
                .flat_map(|c| c.authorities.clone())
                .collect(),
            crl_until: state.client.as_ref().and_then(|c| c.crl_until),
            handshakes,
            resumed,
            failed,
        }
    }

    /// Why no client can be served: every certificate has expired.
    pub fn usable(&self) -> Result<(), String> {
        let now = SystemTime::now();
        let state = self.0.lock();
        match state.pairs.iter().all(|named| named.pair.leaf.expired(now)) {
            true => Err("every certificate has expired".to_owned()),
            false => Ok(()),
        }
    }

    fn tell_start(&self) {
        let mut state = self.0.lock();
        for named in &state.pairs {
            let leaf = &named.pair.leaf;
            let what = match named.made {
                true => {
                    "made a self-signed certificate in memory; clients have no reason to trust it"
                }
                false => "serving this certificate",
            };
            tracing::info!(
                name = named.name,
                names = leaf.shown_names(),
                expires = date(leaf.not_after),
                sha256 = leaf.fingerprint(),
                "{what}"
            );
            for warning in &named.pair.warnings {
                tracing::warn!(name = named.name, "odd certificate: {warning}");
            }
        }
        state.tell_expiry(SystemTime::now());
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "the text formats carry floating point"
    )]
    fn encode(&self, encoder: &mut Encoder) {
        let state = self.lock();
        for (metric, value) in [
            (
                metrics::NOT_AFTER,
                (|leaf| leaf.not_after) as fn(&Certificate) -> i64,
            ),
            (metrics::NOT_BEFORE, |leaf| leaf.not_before),
        ] {
            encoder.family(metric.name, Kind::Gauge, metric.doc);
            for named in &state.pairs {
                let at = value(&named.pair.leaf) as f64;
                encoder.sample(metric.name, &[("name", &named.name)], at);
            }
        }
        let metric = metrics::REFUSED;
        encoder.family(metric.name, Kind::Gauge, metric.doc);
        for refusal in state.refused.values() {
            let labels = [
                ("name", refusal.name.as_str()),
                ("reason", refusal.cause.word()),
            ];
            encoder.sample(metric.name, &labels, 1.0);
        }
        let metric = metrics::CHECKED;
        encoder.family(metric.name, Kind::Gauge, metric.doc);
        encoder.sample(metric.name, &[], unix(state.checked) as f64);
    }
}

impl State {
    fn former(&self) -> Former<'_> {
        Former {
            pairs: &self.pairs,
            client: self.client.as_ref(),
            depends: &self.depends,
        }
    }

    /// Logs what expires soon or has expired, once a day each.
    fn tell_expiry(&mut self, now: SystemTime) {
        let today = unix(now) / 86_400;
        let mut told = BTreeMap::new();
        for named in &self.pairs {
            let leaf = &named.pair.leaf;
            if !leaf.expires_soon(now) {
                continue;
            }
            told.insert(named.name.clone(), today);
            if self.expiry_told.get(&named.name) == Some(&today) {
                continue;
            }
            let (name, expires) = (&named.name, date(leaf.not_after));
            match leaf.expired(now) {
                true => tracing::error!(name, expires, "this certificate has expired; renew it"),
                false => tracing::warn!(name, expires, "this certificate expires soon; renew it"),
            }
        }
        self.expiry_told = told;
    }
}

fn configure(
    state: &State,
    strict: bool,
    min_version: MinVersion,
    protocols: &[&[u8]],
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, Failure> {
    let versions: &[&rustls::SupportedProtocolVersion] = match min_version {
        MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| Failure::runtime("TLS can't be configured", error))?;
    let builder = match &state.client {
        Some(client) => builder.with_client_cert_verifier(Arc::clone(&client.verifier)),
        None => builder.with_no_client_auth(),
    };
    let set = CertificateSet::new(&state.pairs, strict);
    let mut config = builder.with_cert_resolver(Arc::new(set));
    config.ticketer = Arc::clone(&state.tickets);
    // Sessions are in the clients' tickets; a cache on our side would be shared by all workers and locked.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // The records of an open connection are protected by `stream`.
    config.enable_secret_extraction = true;
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}
