//! What is counted of handshakes. Every label value is known when the process starts.

use std::io;

use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Counter, Registry};
use rustls::{
    AlertDescription, CertificateError, CommonState, Error, HandshakeKind, NamedGroup,
    PeerIncompatible, ProtocolVersion,
};

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It took too long.
    Timeout,
    /// The client went away.
    Closed,
    /// What came is not TLS (plain HTTP on the TLS port, a port scan).
    NotTls,
    /// The client speaks only versions that are off.
    Version,
    /// No cipher suite, group, signature scheme or application protocol in common.
    NothingInCommon,
    /// `--sni-strict`, and no certificate covers the name.
    UnknownName,
    /// The client sent no certificate.
    ClientCertificateMissing,
    /// The client's certificate is not from an authority of `--client-ca`, or is malformed, or for another purpose.
    ClientCertificateUntrusted,
    /// The client's certificate has expired, or is not valid yet.
    ClientCertificateExpired,
    /// The client's certificate is revoked, or that can't be known.
    ClientCertificateRevoked,
    /// The client's certificate is good, and no `--allow-…` lets it in.
    ClientCertificateNotAllowed,
    /// The client refused our certificate (an alert: it does not trust it, or it names another host).
    RefusedByClient,
    /// The client ended it with another alert.
    Alert,
    /// Anything else.
    Other,
}

impl Reason {
    /// All, in the order of their counters.
    const ALL: [Self; 14] = [
        Self::Timeout,
        Self::Closed,
        Self::NotTls,
        Self::Version,
        Self::NothingInCommon,
        Self::UnknownName,
        Self::ClientCertificateMissing,
        Self::ClientCertificateUntrusted,
        Self::ClientCertificateExpired,
        Self::ClientCertificateRevoked,
        Self::ClientCertificateNotAllowed,
        Self::RefusedByClient,
        Self::Alert,
        Self::Other,
    ];

    /// The label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::NothingInCommon => "nothing_in_common",
            Self::UnknownName => "unknown_name",
            Self::ClientCertificateMissing => "client_certificate_missing",
            Self::ClientCertificateUntrusted => "client_certificate_untrusted",
            Self::ClientCertificateExpired => "client_certificate_expired",
            Self::ClientCertificateRevoked => "client_certificate_revoked",
            Self::ClientCertificateNotAllowed => "client_certificate_not_allowed",
            Self::RefusedByClient => "refused_by_client",
            Self::Alert => "alert",
            Self::Other => "other",
        }
    }

    /// Of an error while a handshake was driven; rustls's own are found inside.
    pub fn of_io(error: &io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        match (inner, error.kind()) {
            (Some(inner), _) => Self::of(inner),
            (None, io::ErrorKind::TimedOut) => Self::Timeout,
            (
                None,
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe,
            ) => Self::Closed,
            _ => Self::Other,
        }
    }

    /// Of rustls's error.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerSentOversizedRecord => Self::NotTls,
            Error::PeerIncompatible(
                PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            )
            | Error::AlertReceived(AlertDescription::ProtocolVersion) => Self::Version,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::NothingInCommon,
            // The only thing that rustls says in words alone during a server's handshake.
            Error::General(what) if what.contains("no server certificate chain") => {
                Self::UnknownName
            }
            Error::NoCertificatesPresented => Self::ClientCertificateMissing,
            Error::InvalidCertificate(certificate) => match certificate {
                CertificateError::ApplicationVerificationFailure => {
                    Self::ClientCertificateNotAllowed
                }
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::ClientCertificateExpired,
                CertificateError::Revoked
                | CertificateError::UnknownRevocationStatus
                | CertificateError::ExpiredRevocationList
                | CertificateError::ExpiredRevocationListContext { .. } => {
                    Self::ClientCertificateRevoked
                }
                _ => Self::ClientCertificateUntrusted,
            },
            Error::InvalidCertRevocationList(_) => Self::ClientCertificateRevoked,
            Error::AlertReceived(
                AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::UnknownCA
                | AlertDescription::UnsupportedCertificate,
            ) => Self::RefusedByClient,
            Error::AlertReceived(_) => Self::Alert,
            _ => Self::Other,
        }
    }
}

/// Key exchange groups that are told apart.
const GROUPS: [&str; 6] = [
    "X25519MLKEM768",
    "X25519",
    "secp256r1",
    "secp384r1",
    "other",
    "none",
];

/// Counters of handshakes.
#[derive(Debug)]
pub(crate) struct Handshakes {
    /// By version (1.2, 1.3), then resumed.
    done: [[Counter; 2]; 2],
    groups: [Counter; GROUPS.len()],
    failed: [Counter; Reason::ALL.len()],
}

impl Handshakes {
    pub(crate) fn new(registry: &Registry) -> Self {
        let done = |version, resumed| {
            let labels = [("version", version), ("resumed", resumed)];
            registry.counter(HANDSHAKES.name, HANDSHAKES.doc, &labels)
        };
        Self {
            done: ["1.2", "1.3"].map(|v| ["false", "true"].map(|resumed| done(v, resumed))),
            groups: GROUPS
                .map(|g| registry.counter(KEY_EXCHANGES.name, KEY_EXCHANGES.doc, &[("group", g)])),
            failed: Reason::ALL.map(|reason| {
                registry.counter(FAILURES.name, FAILURES.doc, &[("reason", reason.word())])
            }),
        }
    }

    pub(crate) fn count(&self, connection: &CommonState) {
        let version = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        self.done[usize::from(version)][usize::from(resumed)].inc();
        let group = match connection.negotiated_key_exchange_group().map(|g| g.name()) {
            Some(NamedGroup::X25519MLKEM768) => 0,
            Some(NamedGroup::X25519) => 1,
            Some(NamedGroup::secp256r1) => 2,
            Some(NamedGroup::secp384r1) => 3,
            Some(_) => 4,
            // A resumed TLS 1.2 session has none.
            None => 5,
        };
        self.groups[group].inc();
    }

    pub(crate) fn fail(&self, reason: Reason) {
        let at = Reason::ALL.iter().position(|known| *known == reason);
        self.failed[at.expect("every reason is in ALL")].inc();
    }

    /// Handshakes that succeeded, those of them that were resumed, and those that failed.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let sum = |counters: &mut dyn Iterator<Item = &Counter>| counters.map(Counter::get).sum();
        let resumed = sum(&mut self.done.iter().map(|by_resumed| &by_resumed[1]));
        let full: u64 = sum(&mut self.done.iter().map(|by_resumed| &by_resumed[0]));
        (full + resumed, resumed, sum(&mut self.failed.iter()))
    }
}

pub(crate) const HANDSHAKES: Metric = Metric {
    name: "podkit_tls_handshakes_total",
    kind: "counter",
    labels: &["version", "resumed"],
    doc: "TLS handshakes that succeeded.",
};
pub(crate) const KEY_EXCHANGES: Metric = Metric {
    name: "podkit_tls_key_exchanges_total",
    kind: "counter",
    labels: &["group"],
    doc: "TLS handshakes by key exchange group; X25519MLKEM768 is safe from quantum computers.",
};
pub(crate) const FAILURES: Metric = Metric {
    name: "podkit_tls_handshake_failures_total",
    kind: "counter",
    labels: &["reason"],
    doc: "TLS handshakes that failed, by reason; client certificates that were refused are among them.",
};
pub(crate) const NOT_AFTER: Metric = Metric {
    name: "podkit_tls_certificate_not_after_seconds",
    kind: "gauge",
    labels: &["name"],
    doc: "When the certificate in force expires, Unix time.",
};
pub(crate) const NOT_BEFORE: Metric = Metric {
    name: "podkit_tls_certificate_not_before_seconds",
    kind: "gauge",
    labels: &["name"],
    doc: "When the validity of the certificate in force began, Unix time.",
};
pub(crate) const REFUSED: Metric = Metric {
    name: "podkit_tls_certificate_refused",
    kind: "gauge",
    labels: &["name", "reason"],
    doc: "1 while what is on disk was refused and the former state stays in force.",
};
pub(crate) const RELOADS: Metric = Metric {
    name: "podkit_tls_certificate_reloads_total",
    kind: "counter",
    labels: &["result"],
    doc: "Changes of the certificate files: changed (now in force) or refused (the former state stays).",
};
pub(crate) const CHECKED: Metric = Metric {
    name: "podkit_tls_certificate_checked_seconds",
    kind: "gauge",
    labels: &[],
    doc: "When the certificate files were last read, Unix time; at least once a minute while the watch lives.",
};

/// What a module that serves TLS declares.
pub const METRICS: [Metric; 8] = [
    HANDSHAKES,
    KEY_EXCHANGES,
    FAILURES,
    NOT_AFTER,
    NOT_BEFORE,
    REFUSED,
    RELOADS,
    CHECKED,
];
