//! Which keys a server may have, by a file of OpenSSH's form (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).
//!
//! russh's own reader was weighed and left out: it takes a file that can't be read for an empty one, and knows neither
//! patterns nor @revoked.

use std::fs;
use std::path::Path;

use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, verify};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// ssh's own port, which names have without saying so.
const PORT: u16 = 22;

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::git) struct KnownHosts {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    line: usize,
    marker: Marker,
    hosts: Hosts,
    kind: String,
    /// The key as it goes over the wire.
    key: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    /// Certificates are not asked for, so what signs them says nothing of a key.
    Authority,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    /// A name's HMAC with a salt.
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
    /// In lower case; true: such a host is left out.
    Patterns(Vec<(bool, String)>),
}

/// What is to be thought of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the host's.
    Known,
    /// Nothing is known of it.
    Unknown,
    /// The line has another one of its kind.
    Changed { line: usize, expected: Vec<u8> },
    /// The line says that it may not be used any more.
    Revoked { line: usize },
}

impl KnownHosts {
    /// Of a file.
    pub(in crate::git) fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    pub(in crate::git) fn parse(text: &str) -> Result<Self, String> {
        let mut entries = Vec::new();
        for (index, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let line = index + 1;
            entries.push(Entry::parse(line, text).map_err(|why| format!("line {line}: {why}"))?);
        }
        Ok(Self { entries })
    }

    /// Whether the key (as it goes over the wire) is that of the host.
    pub(super) fn check(&self, host: &str, port: u16, key: &[u8]) -> Verdict {
        let own = name(host, port);
        let bare = host.to_lowercase();
        let revoked = self.entries.iter().find(|entry| {
            entry.marker == Marker::Revoked
                && entry.key == key
                && (entry.hosts.has(&own) || entry.hosts.has(&bare))
        });
        if let Some(entry) = revoked {
            return Verdict::Revoked { line: entry.line };
        }
        if self.of(&own).any(|entry| entry.key == key) {
            return Verdict::Known;
        }
        let kind = kind(key);
        let other = self
            .of(&own)
            .find(|entry| Some(entry.kind.as_str()) == kind);
        if let Some(entry) = other {
            return Verdict::Changed {
                line: entry.line,
                expected: entry.key.clone(),
            };
        }
        // A key that the host has at its usual port is believed at another one, as ssh does.
        match self.of(&bare).any(|entry| entry.key == key) {
            true => Verdict::Known,
            false => Verdict::Unknown,
        }
    }

    /// The kinds of keys that are known of a host: it is asked for these first, or it might show one that nobody knows.
    pub(super) fn kinds(&self, host: &str, port: u16) -> Vec<&str> {
        let own: Vec<&str> = self
            .of(&name(host, port))
            .map(|entry| entry.kind.as_str())
            .collect();
        match own.is_empty() {
            true => self
                .of(&host.to_lowercase())
                .map(|entry| entry.kind.as_str())
                .collect(),
            false => own,
        }
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &Entry> {
        let plain = self
            .entries
            .iter()
            .filter(|entry| entry.marker == Marker::None);
        plain.filter(move |entry| entry.hosts.has(name))
    }
}

impl Entry {
    fn parse(line: usize, text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace().peekable();
        let marker = match words.peek() {
            Some(&"@revoked") => Marker::Revoked,
            Some(&"@cert-authority") => Marker::Authority,
            Some(word) if word.starts_with('@') => {
                return Err(format!(
                    "{word} is no marker; expected @revoked or @cert-authority"
                ));
            }
            _ => Marker::None,
        };
        if marker != Marker::None {
            words.next();
        }
        let (Some(hosts), Some(kind_word), Some(key)) = (words.next(), words.next(), words.next())
        else {
            return Err("expected hosts, a kind of key, and the key".to_owned());
        };
        let bytes = STANDARD
            .decode(key)
            .map_err(|error| format!("the key is not base64: {error}"))?;
        if kind(&bytes) != Some(kind_word) {
            return Err(format!("the key is not of the kind {kind_word}"));
        }
        Ok(Self {
            line,
            marker,
            hosts: Hosts::parse(hosts)?,
            kind: kind_word.to_owned(),
            key: bytes,
        })
    }
}

impl Hosts {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(hashed) = text.strip_prefix("|1|") {
            let decode = |part: &str| STANDARD.decode(part).ok();
            let parts = hashed.split_once('|');
            let parts = parts.and_then(|(salt, hash)| Some((decode(salt)?, decode(hash)?)));
            let (salt, hash) = parts.ok_or("the hashed name is not |1|SALT|HASH in base64")?;
            return Ok(Self::Hashed { salt, hash });
        }
        let patterns = text
            .split(',')
            .map(|pattern| match pattern.strip_prefix('!') {
                Some(pattern) => (true, pattern.to_lowercase()),
                None => (false, pattern.to_lowercase()),
            });
        Ok(Self::Patterns(patterns.collect()))
    }

    /// Whether a name in lower case is among them.
    fn has(&self, name: &str) -> bool {
        match self {
            Self::Hashed { salt, hash } => {
                let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                verify(&key, name.as_bytes(), hash).is_ok()
            }
            Self::Patterns(patterns) => {
                let matches = |wanted: bool| {
                    patterns.iter().any(|(out, pattern)| {
                        *out == wanted && glob(pattern.as_bytes(), name.as_bytes())
                    })
                };
                matches(false) && !matches(true)
            }
        }
    }
}

/// A host's name in the file: with its port unless that is ssh's own.
fn name(host: &str, port: u16) -> String {
    match port {
        PORT => host.to_lowercase(),
        port => format!("[{}]:{port}", host.to_lowercase()),
    }
}

/// The kind that a key names first, as all of them do (RFC 4253, 6.6).
pub(super) fn kind(key: &[u8]) -> Option<&str> {
    let (length, rest) = key.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    std::str::from_utf8(rest.get(..length)?).ok()
}

/// `*` is any number of characters, `?` is one. Steps back to the last `*` only, so a pattern costs no more than its length
/// times that of the name.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                None => return false,
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const TWO: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

    fn bytes(key: &str) -> Vec<u8> {
        STANDARD.decode(key).unwrap()
    }

    fn check(text: &str, host: &str, port: u16, expected: &Verdict) {
        let known = KnownHosts::parse(text).unwrap();
        assert_eq!(
            &known.check(host, port, &bytes(ONE)),
            expected,
            "{text} {host}:{port}"
        );
    }

    fn changed(line: usize) -> Verdict {
        let expected = bytes(TWO);
        Verdict::Changed { line, expected }
    }

    #[test]
    fn a_key_is_known_by_its_host() {
        let text = format!("# keys\n\nhost,10.0.0.1 ssh-ed25519 {ONE} a comment\n");
        check(&text, "host", 22, &Verdict::Known);
        check(&text, "HOST", 22, &Verdict::Known);
        check(&text, "10.0.0.1", 22, &Verdict::Known);
        check(&text, "host.example", 22, &Verdict::Unknown);
        check(&text, "hos", 22, &Verdict::Unknown);
    }

    #[test]
    fn ports_are_part_of_names() {
        let text = format!("[host]:2222,[::1]:2222 ssh-ed25519 {ONE}");
        check(&text, "host", 2222, &Verdict::Known);
        check(&text, "::1", 2222, &Verdict::Known);
        check(&text, "host", 22, &Verdict::Unknown);
        check(&text, "host", 2223, &Verdict::Unknown);
        // As ssh has it: the host's own key is good at any port, unless that port has one of its own.
        let text = format!("host ssh-ed25519 {ONE}");
        check(&text, "host", 2222, &Verdict::Known);
        let text = format!("host ssh-ed25519 {ONE}\n[host]:2222 ssh-ed25519 {TWO}");
        check(&text, "host", 2222, &changed(2));
        let text = format!("host ssh-ed25519 {TWO}");
        check(&text, "host", 2222, &Verdict::Unknown);
    }

    #[test]
    fn patterns_take_and_leave_out() {
        let text = format!("*.example.com,!bad.example.com ssh-ed25519 {ONE}");
        check(&text, "git.example.com", 22, &Verdict::Known);
        check(&text, "a.b.example.com", 22, &Verdict::Known);
        check(&text, "bad.example.com", 22, &Verdict::Unknown);
        check(&text, "example.com", 22, &Verdict::Unknown);
        check(
            &format!("10.0.0.? ssh-ed25519 {ONE}"),
            "10.0.0.7",
            22,
            &Verdict::Known,
        );
        check(
            &format!("10.0.0.? ssh-ed25519 {ONE}"),
            "10.0.0.70",
            22,
            &Verdict::Unknown,
        );
        check(
            &format!("* ssh-ed25519 {ONE}"),
            "host",
            2222,
            &Verdict::Known,
        );
        check(
            &format!("!host ssh-ed25519 {ONE}"),
            "other",
            22,
            &Verdict::Unknown,
        );
    }

    #[test]
    fn hashed_names_are_found() {
        let line = |name: &str| {
            let salt = [7; 20];
            let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
            let hash = aws_lc_rs::hmac::sign(&key, name.as_bytes());
            let (salt, hash) = (STANDARD.encode(salt), STANDARD.encode(hash.as_ref()));
            format!("|1|{salt}|{hash} ssh-ed25519 {ONE}")
        };
        check(&line("host"), "Host", 22, &Verdict::Known);
        check(&line("host"), "other", 22, &Verdict::Unknown);
        check(&line("[host]:2222"), "host", 2222, &Verdict::Known);
        check(&line("[host]:2222"), "host", 22, &Verdict::Unknown);
        assert!(KnownHosts::parse(&format!("|1|x ssh-ed25519 {ONE}")).is_err());
    }

    #[test]
    fn another_key_is_a_change() {
        check(&format!("host ssh-ed25519 {TWO}"), "host", 22, &changed(1));
        let both = format!("host ssh-ed25519 {TWO}\nhost ssh-ed25519 {ONE}");
        check(&both, "host", 22, &Verdict::Known);
    }

    #[test]
    fn a_revoked_key_is_refused_wherever_it_stands() {
        let text = format!("host ssh-ed25519 {ONE}\n@revoked * ssh-ed25519 {ONE}");
        check(&text, "host", 22, &Verdict::Revoked { line: 2 });
        let text = format!("host ssh-ed25519 {ONE}\n@revoked other ssh-ed25519 {ONE}");
        check(&text, "host", 22, &Verdict::Known);
        let text = format!("host ssh-ed25519 {ONE}\n@revoked host ssh-ed25519 {TWO}");
        check(&text, "host", 22, &Verdict::Known);
    }

    #[test]
    fn an_authority_is_no_host_key() {
        check(
            &format!("@cert-authority * ssh-ed25519 {ONE}"),
            "host",
            22,
            &Verdict::Unknown,
        );
    }

    #[test]
    fn kinds_are_those_of_the_host() {
        let text = format!("host ssh-ed25519 {ONE}\n@revoked host ssh-ed25519 {TWO}");
        let known = KnownHosts::parse(&text).unwrap();
        assert_eq!(known.kinds("host", 22), ["ssh-ed25519"]);
        assert_eq!(known.kinds("host", 2222), ["ssh-ed25519"]);
        assert!(known.kinds("other", 22).is_empty());
    }

    #[test]
    fn a_wrong_line_is_named() {
        let check = |text: &str, expected: &str| {
            let why = KnownHosts::parse(text).unwrap_err();
            assert!(why.contains(expected), "{text}: {why}");
        };
        check("# x\nhost ssh-ed25519", "line 2: expected hosts");
        check("host ssh-ed25519 !", "not base64");
        check(&format!("host ssh-rsa {ONE}"), "not of the kind ssh-rsa");
        check(
            &format!("@trusted host ssh-ed25519 {ONE}"),
            "@trusted is no marker",
        );
    }
}
