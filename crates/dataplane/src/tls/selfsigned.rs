//! A certificate made in memory, for a laptop and for tests: ECDSA P-256, signed by itself, never written anywhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::unix;
use super::pair::Pair;

/// How long it is valid. It is made anew at each start, and by a running process when it would expire soon.
const VALID: Duration = Duration::from_secs(365 * 86_400);

/// Makes one for localhost, this host's name, the loopback addresses and `more` (DNS names or addresses).
pub(crate) fn make(
    more: &[String],
    now: SystemTime,
    provider: &CryptoProvider,
) -> Result<Pair, String> {
    let mut names = vec![SanType::DnsName(
        "localhost".try_into().map_err(|e| format!("{e}"))?,
    )];
    names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    names.push(SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    // A host name that is no DNS name is left out; one that was asked for is an error.
    if let Ok(host) = san(&host)
        && !names.contains(&host)
    {
        names.push(host);
    }
    for name in more {
        let name = san(name).map_err(|why| format!("\"{name}\" {why}"))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "podkit self-signed");
    params.distinguished_name = subject;
    params.subject_alt_names = names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // An hour ago, for clients whose clocks are behind.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let start = u64::try_from(unix(now))
        .unwrap_or_default()
        .saturating_sub(3_600);
    params.not_before = epoch + Duration::from_secs(start);
    params.not_after = params.not_before + VALID;

    let key = KeyPair::generate().map_err(|error| format!("no key could be made ({error})"))?;
    let certificate = params
        .self_signed(&key)
        .map_err(|error| format!("could not be signed ({error})"))?;
    let chain: Vec<CertificateDer<'static>> = vec![certificate.into()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Pair::from_der(chain, key, now, provider).map_err(|problem| problem.text)
}

fn san(name: &str) -> Result<SanType, &'static str> {
    if let Ok(ip) = name.parse() {
        return Ok(SanType::IpAddress(ip));
    }
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let fine = !rest.is_empty() && name.len() <= 253 && rest.bytes().all(good);
    let name = fine
        .then(|| name.to_ascii_lowercase().try_into().ok())
        .flatten();
    name.map(SanType::DnsName)
        .ok_or("is not a DNS name or an address")
}
