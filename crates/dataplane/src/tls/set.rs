//! The pairs in force, and which of them a client gets.
//!
//! The name that the client asks for (SNI, RFC 6066) is looked up exactly, then with its first label replaced by
//! `*`. Several pairs may cover one name (ECDSA beside RSA): the first that the client can verify is taken. A
//! client that names no host, or one that nothing covers, gets the first pair, or is refused with `--sni-strict`.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::pair::Pair;

/// A pair with the name that pages and metrics know it by.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) pair: Arc<Pair>,
    /// SHA-256 of both files, so that an unchanged pair is known as such.
    pub(crate) digest: [u8; 32],
    /// Made in memory.
    pub(crate) made: bool,
}

/// The pairs by the names that they cover.
#[derive(Debug)]
pub(crate) struct CertificateSet {
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    defaults: Vec<Arc<CertifiedKey>>,
    strict: bool,
}

impl CertificateSet {
    /// `pairs` has at least one; the first is the default.
    pub(crate) fn new(pairs: &[Named], strict: bool) -> Self {
        let mut by_name: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        for named in pairs {
            for name in named.pair.leaf.server_names() {
                by_name
                    .entry(name)
                    .or_default()
                    .push(Arc::clone(&named.pair.key));
            }
        }
        // Who names no host gets the first pair, or one for the same names with another kind of key.
        let first = pairs.first().map(|named| named.pair.leaf.server_names());
        let same = pairs
            .iter()
            .filter(|named| first.as_ref() == Some(&named.pair.leaf.server_names()));
        Self {
            defaults: same.map(|named| Arc::clone(&named.pair.key)).collect(),
            by_name,
            strict,
        }
    }

    /// The pair for a name (lower case) and what the client can verify.
    pub(crate) fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let covering = name.and_then(|name| {
            let wildcard = || {
                let (_, parent) = name.split_once('.')?;
                self.by_name.get(&format!("*.{parent}"))
            };
            self.by_name.get(name).or_else(wildcard)
        });
        let candidates = match covering {
            Some(candidates) => candidates,
            None if self.strict => return None,
            None => &self.defaults,
        };
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        candidates
            .iter()
            .find(usable)
            .or(candidates.first())
            .cloned()
    }
}

impl ResolvesServerCert for CertificateSet {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case.
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}
