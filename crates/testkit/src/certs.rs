//! Certificates of every kind a TLS server must accept or refuse. All keys are ECDSA P-256.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// A certificate authority of a test's own.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, as PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

impl Authority {
    /// A new authority called `name`.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(name);
        let issuer = CertifiedIssuer::self_signed(params, new_key());
        Self(issuer.expect("the parameters are complete"))
    }

    /// Its certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its certificate, as DER.
    pub fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// A server's certificate for these names and addresses.
    pub fn server(&self, names: &[&str]) -> Pair {
        self.issue(&server_params(names))
    }

    /// A server's certificate that ended in the year 2020.
    pub fn expired(&self, names: &[&str]) -> Pair {
        let mut params = server_params(names);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.issue(&params)
    }

    /// A certificate for these names that is good for a server and for a client.
    pub fn peer(&self, names: &[&str]) -> Pair {
        let mut params = server_params(names);
        let client = ExtendedKeyUsagePurpose::ClientAuth;
        params.extended_key_usages.push(client);
        self.issue(&params)
    }

    /// A client's certificate with this common name and these subject alternative names.
    pub fn client(&self, common_name: &str, names: &[&str]) -> Pair {
        let mut params = server_params(names);
        params.distinguished_name = named(common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Pair {
        let key = new_key();
        let cert = params.signed_by(&key, &self.0);
        Pair {
            cert: cert.expect("the parameters are complete").pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Pair {
    /// This certificate with a key that is not its own.
    pub fn mismatched(&self) -> Self {
        Self {
            cert: self.cert.clone(),
            key: new_key().serialize_pem(),
        }
    }

    /// Writes `NAME.crt` and `NAME.key` into `dir`, each by rename, so that no reader sees half a file.
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (
            dir.join(format!("{name}.crt")),
            dir.join(format!("{name}.key")),
        );
        replace(&cert, &self.cert);
        replace(&key, &self.key);
        (cert, key)
    }
}

/// Writes a file by writing another and renaming it.
pub fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("P-256 keys can be made")
}

fn named(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn server_params(names: &[&str]) -> CertificateParams {
    let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(owned).expect("the names are names or addresses");
    params.distinguished_name = named(names.first().copied().unwrap_or("podkit test"));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}
