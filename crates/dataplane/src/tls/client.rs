//! Clients' certificates: the authorities, the revocation lists and the rules, and who a client is once it is in.
//!
//! The authority and the lists are files like the server's own: read again when they change. What depends on them
//! (the verifier, and the tickets that let a session skip it) is made anew then, so that no ticket outlives the rules it was
//! given under.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::certificate::{Certificate, date, sha256, unix};
use super::pair::{Cause, Part, Problem};
use super::rules::AllowRules;
use super::source::read_file;

podkit_foundation::choices! {
    /// `--client-auth`.
    pub enum ClientAuth {
        /// A client without a certificate is refused.
        Required = "required",
        /// A client without a certificate is let in; one with a wrong certificate is not.
        Optional = "optional",
    }
}

/// What `--client-…` and `--allow-…` ask for.
#[derive(Debug, Clone)]
pub struct ClientRules {
    /// The authorities' certificates, PEM.
    pub ca: PathBuf,
    /// Revocation lists, PEM.
    pub crl: Option<PathBuf>,
    /// Whether one is needed.
    pub auth: ClientAuth,
    /// Who is let in.
    pub allow: AllowRules,
}

/// A state of the files that clients are verified by.
#[derive(Debug, Clone)]
pub(crate) struct ClientState {
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    /// SHA-256 of the files.
    pub(crate) digest: [u8; 32],
    /// The authorities, for the page.
    pub(crate) authorities: Vec<Certificate>,
    /// When the first revocation list runs out, Unix seconds.
    pub(crate) crl_until: Option<i64>,
}

impl ClientRules {
    /// Reads the files and makes the verifier. The error names the file.
    pub(crate) fn load(
        &self,
        now: SystemTime,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ClientState, (PathBuf, Problem)> {
        let read = |path: &PathBuf| {
            read_file(path).map_err(|why| {
                let problem = Problem::new(Cause::Unreadable, Part::Certificate, why);
                (path.clone(), problem)
            })
        };
        let ca = read(&self.ca)?;
        let crl = self.crl.as_ref().map(read).transpose()?;
        let bad = |path: &PathBuf, cause, text: String| {
            (path.clone(), Problem::new(cause, Part::Certificate, text))
        };
        let bad_ca = |cause, text| bad(&self.ca, cause, text);

        let mut roots = RootCertStore::empty();
        let mut authorities = Vec::new();
        for (at, der) in CertificateDer::pem_slice_iter(&ca).enumerate() {
            let der = der.map_err(|e| bad_ca(Cause::Malformed, format!("is not PEM ({e})")))?;
            let nth = |why| bad_ca(Cause::Malformed, format!("certificate {} {why}", at + 1));
            authorities.push(Certificate::from_der(&der).map_err(nth)?);
            roots
                .add(der)
                .map_err(|e| nth(format!("is no authority ({e})")))?;
        }
        if authorities.is_empty() {
            let text = "has no CERTIFICATE block; expected the PEM certificates of the authorities";
            return Err(bad_ca(Cause::Malformed, text.to_owned()));
        }
        if authorities.iter().all(|authority| authority.expired(now)) {
            let text = "holds only expired authorities: every client would be refused";
            return Err(bad_ca(Cause::Expired, text.to_owned()));
        }

        let mut builder =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
        let mut crl_until: Option<i64> = None;
        if let (Some(path), Some(bytes)) = (&self.crl, &crl) {
            let lists = CertificateRevocationListDer::pem_slice_iter(bytes)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| bad(path, Cause::Malformed, format!("is not PEM ({e})")))?;
            if lists.is_empty() {
                let text =
                    "has no X509 CRL block; expected the revocation lists of the authorities";
                return Err(bad(path, Cause::Malformed, text.to_owned()));
            }
            for list in &lists {
                let until = next_update(list).map_err(|why| bad(path, Cause::Malformed, why))?;
                if until.is_some_and(|until| until < unix(now)) {
                    let when = until.map(date).unwrap_or_default();
                    let text =
                        format!("holds a list that ran out at {when}; fetch the current one");
                    return Err(bad(path, Cause::Expired, text));
                }
                crl_until = crl_until.into_iter().chain(until).min();
            }
            // As nginx and OpenSSL do: a list that ran out, or none for an authority, lets nobody in.
            builder = builder.with_crls(lists).enforce_revocation_expiration();
        }
        if self.auth == ClientAuth::Optional {
            builder = builder.allow_unauthenticated();
        }
        let inner = builder.build().map_err(|error| {
            let path = self.crl.as_ref().unwrap_or(&self.ca);
            bad(path, Cause::Malformed, format!("can't be used ({error})"))
        })?;
        let digest = [sha256(&ca), sha256(crl.as_deref().unwrap_or_default())].concat();
        Ok(ClientState {
            verifier: Arc::new(Admission {
                inner,
                allow: self.allow.clone(),
            }),
            digest: sha256(&digest),
            authorities,
            crl_until,
        })
    }
}

fn next_update(list: &CertificateRevocationListDer<'_>) -> Result<Option<i64>, String> {
    let (_, parsed) = CertificateRevocationList::from_der(list.as_ref())
        .map_err(|error| format!("holds no revocation list ({error})"))?;
    Ok(parsed.next_update().map(|at| at.timestamp()))
}

/// webpki's verifier, then the allow rules.
#[derive(Debug)]
struct Admission {
    inner: Arc<dyn ClientCertVerifier>,
    allow: AllowRules,
}

impl ClientCertVerifier for Admission {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        if self.allow.is_empty() {
            return Ok(verified);
        }
        let certificate =
            Certificate::from_der(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        match self.allow.allow(&certificate) {
            true => Ok(verified),
            // rustls answers access_denied to this one (RFC 8446 section 6.2).
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// `X-Forwarded-Client-Cert` is at most this long: many applications take heads of 8 KiB.
const FORWARDED_BYTES_MAX: usize = 4_096;

/// The value of `X-Forwarded-Client-Cert` for a verified client, as Envoy writes it: `Hash=…;Subject="…";URI=…;DNS=…`.
/// What does not fit into 4 KiB is left out; the hash is always there.
/// <https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert>
pub fn forwarded_client_cert(client: &Certificate) -> String {
    let mut text = format!("Hash={}", super::certificate::hex(&client.sha256));
    // Envoy always quotes the subject, and a value with , ; = or " in it.
    let quoted = |value: &str| format!("\"{}\"", visible(value).replace('"', "\\\""));
    let value = |value: &str| match value.contains([',', ';', '=', '"']) {
        true => quoted(value),
        false => visible(value),
    };
    let mut add = |key: &str, value: String| {
        if text.len() + key.len() + value.len() + 2 <= FORWARDED_BYTES_MAX {
            write!(text, ";{key}={value}").expect("writing to a String can't fail");
        }
    };
    add("Subject", quoted(&client.subject));
    for uri in &client.uris {
        add("URI", value(uri));
    }
    for name in &client.dns {
        add("DNS", value(name));
    }
    text
}

/// Header-safe: what is not visible ASCII becomes `?`; a certificate must not be able to end the line.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
        .collect()
}
