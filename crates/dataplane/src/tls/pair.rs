//! A certificate chain and its private key, checked as a unit. Bytes in, a usable pair or one line out: no file is
//! opened and no clock is read here.
//!
//! A half-written renewal must never be served, so whatever is wrong with any part refuses the whole pair, and
//! the caller keeps what it has. What only some clients mind (the order of intermediates, one that has expired) is a
//! warning: refusing it would take a working service down.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::certificate::{Certificate, date, unix};

/// A pair that can be served.
#[derive(Debug)]
pub(crate) struct Pair {
    /// What the leaf says.
    pub(crate) leaf: Certificate,
    /// What is odd and not wrong, in words.
    pub(crate) warnings: Vec<String>,
    /// What rustls serves.
    pub(crate) key: Arc<CertifiedKey>,
}

/// Which of the pair's files a problem is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The chain.
    Certificate,
    /// The private key.
    Key,
}

/// Why something was refused. The words are the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Not there, no permission, too large, no file.
    Unreadable,
    /// Not PEM, not X.509, nothing of the kind in it.
    Malformed,
    /// An encrypted key, or one of a kind or size that TLS does not use.
    UnusableKey,
    /// The key is not the leaf's.
    Mismatch,
    /// The leaf has expired.
    Expired,
    /// The leaf is not valid yet.
    NotYetValid,
    /// A certificate without a key, or a key without a certificate.
    Incomplete,
}

impl Cause {
    /// The label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Malformed => "malformed",
            Self::UnusableKey => "unusable_key",
            Self::Mismatch => "mismatch",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Incomplete => "incomplete",
        }
    }
}

/// What is wrong with a pair, without the files' names, which the caller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The kind.
    pub(crate) cause: Cause,
    /// Where.
    pub(crate) part: Part,
    /// A clause that follows the file's name: what is wrong and what would be right.
    pub(crate) text: String,
}

impl Problem {
    pub(crate) fn new(cause: Cause, part: Part, text: impl fmt::Display) -> Self {
        Self {
            cause,
            part,
            text: text.to_string(),
        }
    }
}

impl Pair {
    /// Checks PEM texts as a unit: both parse, the key is the leaf's, the leaf is valid now.
    pub(crate) fn check(
        chain_pem: &[u8],
        key_pem: &[u8],
        now: SystemTime,
        provider: &CryptoProvider,
    ) -> Result<Self, Problem> {
        let chain = read_chain(chain_pem)?;
        let key = read_key(key_pem)?;
        Self::from_der(chain, key, now, provider)
    }

    /// The same from DER.
    pub(crate) fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        now: SystemTime,
        provider: &CryptoProvider,
    ) -> Result<Self, Problem> {
        let bad = |cause, text: String| Problem::new(cause, Part::Certificate, text);
        let mut parsed = Vec::with_capacity(chain.len());
        for (at, der) in chain.iter().enumerate() {
            let nth = |text| bad(Cause::Malformed, format!("certificate {} {text}", at + 1));
            parsed.push(Certificate::from_der(der).map_err(nth)?);
        }
        let signing = provider.key_provider.load_private_key(key).map_err(|error| {
            let text = format!(
                "the private key can't be used ({error}); RSA of 2048 bits or more, ECDSA P-256, P-384, P-521 and \
                 Ed25519 can"
            );
            Problem::new(Cause::UnusableKey, Part::Key, text)
        })?;
        let leaf = parsed[0].clone();
        let key = CertifiedKey::new(chain, signing);
        match key.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(mismatch(&key, &parsed));
            }
            Err(error) => {
                let text = format!("certificate 1 can't be used for TLS ({error})");
                return Err(bad(Cause::Malformed, text));
            }
        }
        if leaf.expired(now) {
            let text = format!("expired at {}; renew it", date(leaf.not_after));
            return Err(bad(Cause::Expired, text));
        }
        if unix(now) < leaf.not_before {
            let text = format!(
                "is not valid before {}; is this machine's clock right ({})?",
                date(leaf.not_before),
                date(unix(now))
            );
            return Err(bad(Cause::NotYetValid, text));
        }
        Ok(Self {
            warnings: warnings(&parsed, now),
            leaf,
            key: Arc::new(key),
        })
    }

    /// Certificates in the chain that is sent, the leaf included.
    pub(crate) fn chain_len(&self) -> usize {
        self.key.cert.len()
    }
}

/// The certificates of a PEM text, in its order; at least one.
fn read_chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let bad = |what: String| Problem::new(Cause::Malformed, Part::Certificate, what);
    let mut chain = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let (kind, der) = section.map_err(|error| bad(pem_words(&error)))?;
        if kind == SectionKind::Certificate {
            chain.push(CertificateDer::from(der));
        }
    }
    if chain.is_empty() {
        return Err(bad(match text {
            [] => "is empty; expected PEM, the server's certificate first".to_owned(),
            [0x30, 0x80..=0xff, ..] => {
                "is DER; expected PEM: openssl x509 -inform der -in FILE -out FILE.pem".to_owned()
            }
            _ => {
                "has no CERTIFICATE block; expected PEM, the server's certificate first".to_owned()
            }
        }));
    }
    Ok(chain)
}

/// The first private key of a PEM text.
fn read_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Problem> {
    let has = |marker: &[u8]| memchr::memmem::find(text, marker).is_some();
    if has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
        let what = "the private key is encrypted; podkit takes no pass phrase: openssl pkey -in FILE -out PLAIN, readable \
                    by podkit's user only";
        return Err(Problem::new(Cause::UnusableKey, Part::Key, what));
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        let what = match (&error, text) {
            (_, []) => "is empty; expected a PEM block PRIVATE KEY".to_owned(),
            (_, [0x30, 0x80..=0xff, ..]) => {
                "is DER; expected PEM: openssl pkey -inform der -in FILE -out FILE.pem".to_owned()
            }
            (pem::Error::NoItemsFound, _) => {
                "has no private key; expected a PEM block PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY"
                    .to_owned()
            }
            _ => pem_words(&error),
        };
        Problem::new(Cause::Malformed, Part::Key, what)
    })
}

fn pem_words(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "ends inside a PEM block: it is cut short".to_owned()
        }
        other => format!("is not PEM ({other})"),
    }
}

/// The key is not the first certificate's: is it another's of the chain?
fn mismatch(key: &CertifiedKey, parsed: &[Certificate]) -> Problem {
    for (at, certificate) in parsed.iter().enumerate().skip(1) {
        let alone = CertifiedKey::new(vec![key.cert[at].clone()], Arc::clone(&key.key));
        if alone.keys_match().is_ok() {
            let text = format!(
                "the key belongs to certificate {} ({}), which must come first in the file",
                at + 1,
                certificate.subject
            );
            return Problem::new(Cause::Mismatch, Part::Certificate, text);
        }
    }
    let text = format!(
        "the private key does not match the certificate ({}, SHA-256 {}…)",
        parsed[0].shown_names(),
        &parsed[0].fingerprint()[..11]
    );
    Problem::new(Cause::Mismatch, Part::Key, text)
}

/// What some clients will mind.
fn warnings(chain: &[Certificate], now: SystemTime) -> Vec<String> {
    let mut warnings = Vec::new();
    for (at, pair) in chain.windows(2).enumerate() {
        if pair[0].issuer != pair[1].subject {
            warnings.push(format!(
                "certificate {} ({}) is not the issuer of certificate {} ({}): clients that want the chain in order will \
                 refuse it",
                at + 2,
                pair[1].subject,
                at + 1,
                pair[0].issuer
            ));
        }
    }
    for (at, certificate) in chain.iter().enumerate().skip(1) {
        if certificate.expired(now) {
            let when = date(certificate.not_after);
            let who = &certificate.subject;
            warnings.push(format!("certificate {} ({who}) expired at {when}", at + 1));
        }
    }
    if !chain[0].for_servers {
        warnings
            .push("its extended key usage does not allow servers: clients will refuse it".into());
    }
    if chain[0].server_names().is_empty() && chain[0].ips.is_empty() {
        warnings.push("it names no host: clients will refuse it".into());
    }
    warnings
}
