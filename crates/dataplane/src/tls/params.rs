//! The parameters of a server that speaks TLS, shared by every module that does.

use std::path::PathBuf;

use podkit_foundation::params::{Origin, ParamError, ParamSet as _, Values};

use super::client::{ClientAuth, ClientRules};
use super::rules::{AllowRules, CnRule, SanRule};
use super::source::Source;

podkit_foundation::choices! {
    /// `--min-version`.
    pub enum MinVersion {
        /// TLS 1.2 and 1.3.
        Tls12 = "1.2",
        /// TLS 1.3 only.
        Tls13 = "1.3",
    }
}

podkit_foundation::params! {
    /// How TLS is served.
    pub struct TlsParams {
        /// Certificate chain, PEM, the server's own certificate first; repeatable.
        ///
        /// Each goes with the `--key` in the same place. Without any `--key` the file holds the key too. Of several
        /// the client's SNI chooses; the first is for clients that name no host. Watched: a new pair is checked as a
        /// unit, and served from the next handshake on; one that is no good is refused with the reason in the log, in
        /// a metric and on `/`, and the old pair stays.
        cert: Vec<PathBuf> { live: true },
        /// Private key of the `--cert` in the same place, PEM, not encrypted; repeatable.
        key: Vec<PathBuf> { live: true },
        /// Directory of pairs, instead of `--cert` and `--key`.
        ///
        /// `tls.crt` with `tls.key` (Kubernetes, cert-manager), `fullchain.pem` with `privkey.pem` (certbot), `NAME.crt` or
        /// `NAME.pem` with `NAME.key`, `NAME.pem` with the key inside; directories in it are read the same way, one level
        /// deep. Names that begin with a dot are left out. `tls` is the default, else the first by name. Watched.
        cert_dir: Option<PathBuf> { live: true },
        /// Make a certificate in memory, for trying out.
        ///
        /// ECDSA P-256, for localhost, the host's name, 127.0.0.1 and ::1, new at each start; its SHA-256
        /// fingerprint is in the log. Clients have no reason to trust it. With `--cert-dir` it serves until there is a pair.
        self_signed: bool { default: Some("false") },
        /// A further DNS name or address in the self-signed certificate; repeatable.
        self_signed_name: Vec<String> {},
        /// Refuse clients whose SNI no certificate covers, and those that send none.
        sni_strict: bool { default: Some("false") },
        /// Oldest TLS version that is spoken.
        min_version: MinVersion { default: Some("1.2") },
        /// Authorities whose clients are let in, PEM; asks clients for a certificate. Watched.
        client_ca: Option<PathBuf> { live: true },
        /// What to do with clients that have no certificate.
        client_auth: ClientAuth { default: Some("required") },
        /// Revocation lists of those authorities, PEM. Watched.
        ///
        /// As with nginx and OpenSSL, a list that has run out, or an authority without a list, lets nobody in.
        client_crl: Option<PathBuf> { live: true },
        /// Let in clients with this subject alternative name; repeatable.
        ///
        /// A DNS name, `*.` and a domain (one label), a URI such as `spiffe://cluster.local/ns/shop/sa/web`, a mail
        /// address or an IP address. With any `--allow-…` a client must match one of them; resumed sessions too.
        allow_san: Vec<SanRule> {},
        /// Let in clients with this common name, exact or `*.` and a domain (one label); repeatable.
        allow_cn: Vec<CnRule> {},
    }
}

impl TlsParams {
    /// For modules that serve in the clear without a certificate: None then, and a flag of TLS that would do nothing is
    /// refused. (A variable may be there for all containers of a pod.)
    pub fn if_given(values: &Values) -> Result<Option<Self>, ParamError> {
        let params = Self::from_values(values)?;
        if !params.cert.is_empty()
            || !params.key.is_empty()
            || params.cert_dir.is_some()
            || params.self_signed
        {
            return Ok(Some(params));
        }
        let ours = |field: &str| Self::PARAMS.iter().any(|param| param.field == field);
        let idle = values.shown().find(|(param, raws)| {
            ours(param.field) && raws.iter().any(|raw| raw.origin == Origin::Flag)
        });
        match idle {
            Some((param, _)) => {
                let why = "needs a certificate: --cert, --cert-dir or --self-signed";
                Err(ParamError::new(param.field, why))
            }
            None => Ok(None),
        }
    }

    /// Where the certificates come from; an error when none or more than one place is given.
    pub fn source(&self) -> Result<Source, ParamError> {
        let files = !(self.cert.is_empty() && self.key.is_empty());
        let others = [
            (self.cert_dir.is_some(), "cert_dir"),
            (self.self_signed, "self_signed"),
        ];
        if let Some((_, other)) = others.iter().find(|(given, _)| files && *given) {
            let why = "can't go with --cert and --key: give one source of certificates";
            return Err(ParamError::new(other, why));
        }
        if !self.self_signed_name.is_empty() && !self.self_signed {
            return Err(ParamError::new("self_signed_name", "needs --self-signed"));
        }
        if let Some(directory) = &self.cert_dir {
            return Ok(Source::Directory {
                path: directory.clone(),
                until: self.self_signed.then(|| self.self_signed_name.clone()),
            });
        }
        if self.self_signed {
            return Ok(Source::SelfSigned(self.self_signed_name.clone()));
        }
        if !files {
            let why = "no certificate is given; expected --cert FILE with --key FILE, --cert-dir DIR, or --self-signed";
            return Err(ParamError::new("cert", why));
        }
        if !self.key.is_empty() && self.key.len() != self.cert.len() {
            let why = format!(
                "{} given for {} of --cert; expected one each, in the same order (or none, when each --cert file holds \
                 its key)",
                self.key.len(),
                self.cert.len()
            );
            return Err(ParamError::new("key", why));
        }
        for (at, cert) in self.cert.iter().enumerate() {
            if self.cert[..at].contains(cert) {
                let why = format!("{} is given twice", cert.display());
                return Err(ParamError::new("cert", why));
            }
        }
        let keys = self.key.iter().cloned().map(Some);
        let keys = keys.chain(std::iter::repeat(None));
        Ok(Source::Files(self.cert.iter().cloned().zip(keys).collect()))
    }

    /// What clients must show, if they must.
    pub fn client_rules(&self) -> Result<Option<ClientRules>, ParamError> {
        let allow = AllowRules {
            sans: self.allow_san.clone(),
            common_names: self.allow_cn.clone(),
        };
        let Some(ca) = &self.client_ca else {
            let orphan = [
                (!self.allow_san.is_empty(), "allow_san"),
                (!self.allow_cn.is_empty(), "allow_cn"),
                (self.client_crl.is_some(), "client_crl"),
                (self.client_auth == ClientAuth::Optional, "client_auth"),
            ];
            return match orphan.iter().find(|(given, _)| *given) {
                Some((_, field)) => Err(ParamError::new(
                    field,
                    "needs --client-ca, by which clients' certificates are verified",
                )),
                None => Ok(None),
            };
        };
        Ok(Some(ClientRules {
            ca: ca.clone(),
            crl: self.client_crl.clone(),
            auth: self.client_auth,
            allow,
        }))
    }
}
