//! Which clients are let in: names that a client's certificate must carry, one of them at least.
//!
//! Kept apart from the verifier because a resumed session shows no certificate anew and is judged by the same rules.

use std::fmt;
use std::net::IpAddr;

use podkit_foundation::params::ParamType;

use super::certificate::Certificate;

/// `--allow-san`: a subject alternative name, exact or with a leading `*.` (one label) for DNS names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SanRule {
    /// A DNS name, lower case.
    Dns(String),
    /// `*.` and this: any DNS name with exactly one label more.
    DnsBelow(String),
    /// A URI, compared byte by byte.
    Uri(String),
    /// A mail address; its domain is compared without regard to case.
    Email(String),
    /// An address.
    Ip(IpAddr),
}

impl ParamType for SanRule {
    const TYPE_NAME: &'static str = "name";
    const EXPECTED: &'static str =
        "a DNS name, *.DNS-NAME, a URI (spiffe://…), a mail address or an IP address";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains(char::is_whitespace) {
            return Err(String::new());
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        if text.contains("://") || text.starts_with("urn:") {
            return match text.contains('*') {
                true => Err("a URI is compared whole; it has no wildcard".to_owned()),
                false => Ok(Self::Uri(text.to_owned())),
            };
        }
        if let Some((local, domain)) = text.split_once('@') {
            return match local.is_empty() || domain.is_empty() || text.contains('*') {
                true => Err("a mail address is local@domain, without a wildcard".to_owned()),
                false => Ok(Self::Email(format!(
                    "{local}@{}",
                    domain.to_ascii_lowercase()
                ))),
            };
        }
        let name = text.to_ascii_lowercase();
        let (below, rest) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, name.as_str()),
        };
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if rest.is_empty() || !rest.bytes().all(good) {
            return Err("the wildcard is a leading *. and covers one label".to_owned());
        }
        Ok(match below {
            true => Self::DnsBelow(rest.to_owned()),
            false => Self::Dns(name),
        })
    }
}

impl fmt::Display for SanRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(text) | Self::Uri(text) | Self::Email(text) => f.write_str(text),
            Self::DnsBelow(rest) => write!(f, "*.{rest}"),
            Self::Ip(ip) => write!(f, "{ip}"),
        }
    }
}

impl SanRule {
    fn allows(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Dns(name) => certificate.dns.contains(name),
            Self::DnsBelow(rest) => certificate.dns.iter().any(|name| is_below(name, rest)),
            Self::Uri(uri) => certificate.uris.contains(uri),
            Self::Email(email) => certificate.emails.iter().any(|found| {
                found
                    .rsplit_once('@')
                    .is_some_and(|(l, d)| format!("{l}@{}", d.to_ascii_lowercase()) == *email)
            }),
            Self::Ip(ip) => certificate.ips.contains(ip),
        }
    }
}

/// `--allow-cn`: the subject's common name, exact or with a leading `*.` (one label).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CnRule(String);

impl ParamType for CnRule {
    // Nearly every text is a common name.
    const TYPE_NAME: &'static str = "text";
    const EXPECTED: &'static str = "a common name, or *. and a domain";

    fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("*.").unwrap_or(text);
        match rest.is_empty() || rest.contains('*') {
            true => Err("the wildcard is a leading *. and covers one label".to_owned()),
            false => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for CnRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl CnRule {
    fn allows(&self, certificate: &Certificate) -> bool {
        let Some(name) = &certificate.common_name else {
            return false;
        };
        match self.0.strip_prefix("*.") {
            Some(rest) => is_below(&name.to_ascii_lowercase(), &rest.to_ascii_lowercase()),
            None => *name == self.0,
        }
    }
}

/// `name` is one label and a dot in front of `rest`. A wildcard in the certificate is no label of the client's.
fn is_below(name: &str, rest: &str) -> bool {
    name.split_once('.')
        .is_some_and(|(label, parent)| parent == rest && !label.is_empty() && label != "*")
}

/// All the rules: a certificate must satisfy one; without rules every one that the authority signed is let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowRules {
    /// By subject alternative name.
    pub sans: Vec<SanRule>,
    /// By common name.
    pub common_names: Vec<CnRule>,
}

impl AllowRules {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.sans.is_empty() && self.common_names.is_empty()
    }

    /// Lets this certificate in.
    pub fn allow(&self, certificate: &Certificate) -> bool {
        self.is_empty()
            || self.sans.iter().any(|rule| rule.allows(certificate))
            || self
                .common_names
                .iter()
                .any(|rule| rule.allows(certificate))
    }
}
