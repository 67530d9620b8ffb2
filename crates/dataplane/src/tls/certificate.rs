//! What a certificate says: its names, its validity, its fingerprint. Read from DER, once, into owned text.
//!
//! Used for the server's own certificates (SNI, expiry, the page) and for clients' (allow rules, the header to the
//! application). Whether a certificate is *trusted* is webpki's business, inside rustls, never decided here.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// A certificate's contents that podkit uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The subject, as RFC 4514 writes it (`CN=app,O=Example`); may be empty.
    pub subject: String,
    /// The subject's last common name.
    pub common_name: Option<String>,
    /// The issuer, as RFC 4514 writes it.
    pub issuer: String,
    /// DNS names of the subject alternative name, lower case; may begin with `*.`.
    pub dns: Vec<String>,
    /// URIs of the subject alternative name (`spiffe://…`).
    pub uris: Vec<String>,
    /// Mail addresses of the subject alternative name.
    pub emails: Vec<String>,
    /// Addresses of the subject alternative name.
    pub ips: Vec<IpAddr>,
    /// Start of its validity, Unix seconds.
    pub not_before: i64,
    /// End of its validity, Unix seconds, inclusive.
    pub not_after: i64,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of the DER.
    pub sha256: [u8; 32],
    /// False when its extended key usage is there and lacks server authentication.
    pub for_servers: bool,
}

impl Certificate {
    /// Reads DER (RFC 5280). The error says what is malformed.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let (rest, parsed) = X509Certificate::from_der(der)
            .map_err(|error| format!("is not an X.509 certificate ({error})"))?;
        if !rest.is_empty() {
            return Err(format!("has {} bytes after its end", rest.len()));
        }
        let mut certificate = Self {
            subject: rfc4514(parsed.subject()),
            common_name: common_name(parsed.subject()),
            issuer: rfc4514(parsed.issuer()),
            dns: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
            ips: Vec::new(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            serial: hex(parsed.raw_serial()),
            sha256: sha256(der),
            for_servers: parsed
                .extended_key_usage()
                .ok()
                .flatten()
                .is_none_or(|usage| usage.value.server_auth || usage.value.any),
        };
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| format!("has a malformed subject alternative name ({error})"))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => certificate.dns.push(name.to_ascii_lowercase()),
                GeneralName::URI(uri) => certificate.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(email) => certificate.emails.push((*email).to_owned()),
                GeneralName::IPAddress(bytes) => certificate.ips.extend(ip(bytes)),
                _ => {}
            }
        }
        Ok(certificate)
    }

    /// The DNS names it serves: those of its subject alternative name, or its common name when it has none (old
    /// private authorities; RFC 6125 section 6.4.4).
    pub fn server_names(&self) -> Vec<String> {
        let has_names = !(self.dns.is_empty() && self.ips.is_empty() && self.uris.is_empty());
        match &self.common_name {
            Some(name) if !has_names && is_host(name) => vec![name.to_ascii_lowercase()],
            _ => self.dns.clone(),
        }
    }

    /// All its names for people: DNS names, addresses, URIs, mail addresses, or its subject.
    pub fn shown_names(&self) -> String {
        let ips = self.ips.iter().map(ToString::to_string);
        let texts = self.dns.iter().cloned().chain(ips);
        let texts = texts
            .chain(self.uris.iter().cloned())
            .chain(self.emails.iter().cloned());
        let all: Vec<String> = texts.collect();
        match all.len() {
            0 => self.subject.clone(),
            1..=8 => all.join(", "),
            more => format!("{} and {} more", all[..8].join(", "), more - 8),
        }
    }

    /// The fingerprint as `openssl x509 -fingerprint -sha256` writes it: pairs of digits, colons between.
    pub fn fingerprint(&self) -> String {
        let pairs: Vec<String> = self.sha256.iter().map(|b| format!("{b:02X}")).collect();
        pairs.join(":")
    }

    /// Whole days until it expires; negative once it has.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        (self.not_after - unix(now)).div_euclid(86_400)
    }

    /// Expires within a sixth of its lifetime (at most 30 days): by then whatever renews it should have.
    pub fn expires_soon(&self, now: SystemTime) -> bool {
        let lifetime = self.not_after.saturating_sub(self.not_before);
        self.not_after - unix(now) < (lifetime / 6).min(30 * 86_400)
    }

    /// Its validity is over.
    pub fn expired(&self, now: SystemTime) -> bool {
        unix(now) > self.not_after
    }
}

/// Unix seconds of a time; a clock before 1970 counts as 1970.
pub(crate) fn unix(at: SystemTime) -> i64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Unix seconds as RFC 3339; what is out of its range is shown as a number.
pub fn date(seconds: i64) -> String {
    let at = u64::try_from(seconds)
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    // humantime panics past the year 9999.
    match at {
        Some(at) if seconds < 253_402_300_800 => humantime::format_rfc3339_seconds(at).to_string(),
        _ => format!("{seconds} s since 1970"),
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String can't fail");
            text
        })
}

fn is_host(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'*');
    !name.is_empty() && name.bytes().all(good)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

fn common_name(name: &X509Name<'_>) -> Option<String> {
    let last = name.iter_common_name().last()?;
    last.as_str().ok().map(str::to_owned)
}

/// A distinguished name as RFC 4514 writes it: the last part first, `+` within a part, specials escaped.
fn rfc4514(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let attributes = rdn.iter().map(|attribute| {
                let kind = short_name(attribute.attr_type());
                match attribute.as_str() {
                    Ok(value) => format!("{kind}={}", escape(value)),
                    // RFC 4514 section 2.4: what is no text is the DER in hexadecimal.
                    Err(_) => format!("{kind}=#{}", hex(attribute.as_slice())),
                }
            });
            attributes.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn short_name(oid: &Oid<'_>) -> String {
    let text = oid.to_id_string();
    let short = match text.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return text,
    };
    short.to_owned()
}

fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    write!(text, "\\{byte:02x}").expect("writing to a String can't fail");
                }
            }
            c => text.push(c),
        }
    }
    text
}
