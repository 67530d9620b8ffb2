//! As much of a URL as probes need: where a request goes, and where a redirect leads. (RFC 3986)

use std::fmt;

/// An `http` or `https` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The port was written: then it is in the Host header too, even where it is the scheme's own.
    explicit_port: bool,
    /// The path and the query, never empty.
    pub(super) path: String,
}

impl Url {
    /// A probe's: the port is always shown, as Kubernetes' `FormatURL` has it.
    pub(super) fn new(tls: bool, host: &str, port: u16, path: &str) -> Self {
        let path = path.split('#').next().unwrap_or("");
        let slash = if path.starts_with('/') { "" } else { "/" };
        Self {
            tls,
            host: host.to_string(),
            port,
            explicit_port: true,
            path: escape(&format!("{slash}{path}")),
        }
    }

    /// The same, not encrypted.
    pub(super) fn plain(&self) -> Self {
        Self {
            tls: false,
            ..self.clone()
        }
    }

    /// What the Host header says.
    pub(super) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.explicit_port {
            true => format!("{host}:{}", self.port),
            false => host,
        }
    }

    /// Where a Location leads from here; none when it is no http or https URL.
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or("").trim();
        if let Some((scheme, rest)) = location.split_once(':')
            && !scheme.is_empty()
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        {
            let tls = match scheme.to_ascii_lowercase().as_str() {
                "http" => false,
                "https" => true,
                _ => return None,
            };
            return Self::with_authority(tls, rest.strip_prefix("//")?);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::with_authority(self.tls, rest);
        }
        let (own, _) = split_query(&self.path);
        let (path, query) = split_query(location);
        let path = if path.starts_with('/') {
            remove_dots(path)
        } else if path.is_empty() {
            own.to_string()
        } else {
            let parent = own.rfind('/').map_or("/", |at| &own[..=at]);
            remove_dots(&format!("{parent}{path}"))
        };
        let query = match (location.is_empty(), query) {
            (true, _) => split_query(&self.path).1,
            (false, query) => query,
        };
        Some(Self {
            path: escape(&format!("{path}{query}")),
            ..self.clone()
        })
    }

    fn with_authority(tls: bool, rest: &str) -> Option<Self> {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let authority = authority.rsplit('@').next().unwrap_or(authority);
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, rest) = v6.split_once(']')?;
                (host, rest.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.filter(|port| !port.is_empty());
        let (path, query) = split_query(path);
        let path = if path.is_empty() {
            "/".to_string()
        } else {
            remove_dots(path)
        };
        (!host.is_empty()).then_some(())?;
        Some(Self {
            tls,
            host: host.to_string(),
            port: match port {
                Some(port) => port.parse().ok()?,
                None if tls => 443,
                None => 80,
            },
            explicit_port: port.is_some(),
            path: escape(&format!("{path}{query}")),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// The path, and the query with its question mark.
fn split_query(path: &str) -> (&str, &str) {
    path.split_at(path.find('?').unwrap_or(path.len()))
}

/// What may not be in a request line is escaped: it must not be able to end it.
fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            0x21..=0x7e if !b"\"<>\\^`{|}".contains(&byte) => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// RFC 3986, 5.2.4, for an absolute path.
fn remove_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." => {}
            ".." => {
                kept.pop();
            }
            other => {
                kept.push(other);
                continue;
            }
        }
        if last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}
