//! Addresses and upstreams, as DESIGN's command line writes them. Parsing only: nothing is resolved here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use super::types::ParamType;

/// Where something listens or is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Addr {
    /// `:port`: all addresses, IPv4 and IPv6, when listening; the loopback when dialling.
    Port(u16),
    /// `1.2.3.4:port` or `[::1]:port`.
    Ip(IpAddr, u16),
    /// `name:port`.
    Name(String, u16),
    /// `unix:/path`.
    Unix(PathBuf),
}

impl Addr {
    /// The TCP port, if it is one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Port(port) | Self::Ip(_, port) | Self::Name(_, port) => Some(*port),
            Self::Unix(_) => None,
        }
    }
}

impl ParamType for Addr {
    const TYPE_NAME: &'static str = "address";
    const EXPECTED: &'static str = "host:port, :port, [::1]:port or unix:/path";

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("the path is missing".to_owned()),
                // sun_path has 108 bytes with the final NUL (unix(7)).
                _ if path.len() > 107 => {
                    Err("a unix socket's path has at most 107 bytes".to_owned())
                }
                _ => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
        let port: u16 = port
            .parse()
            .map_err(|_| format!("\"{port}\" is not a port (0 to 65535)"))?;
        if host.is_empty() {
            return Ok(Self::Port(port));
        }
        if let Some(inner) = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            let ip: Ipv6Addr = inner
                .parse()
                .map_err(|_| format!("\"{inner}\" is not IPv6"))?;
            return Ok(Self::Ip(ip.into(), port));
        }
        if host.contains(':') {
            return Err("an IPv6 address goes in brackets".to_owned());
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Self::Ip(ip, port));
        }
        let name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if host.len() > 253 || !host.bytes().all(name_byte) {
            return Err(format!("\"{host}\" is not a host name"));
        }
        Ok(Self::Name(host.to_owned(), port))
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, ":{port}"),
            Self::Ip(IpAddr::V6(ip), port) => write!(f, "[{ip}]:{port}"),
            Self::Ip(ip, port) => write!(f, "{ip}:{port}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1 (or plain bytes) in the clear.
    Plain,
    /// HTTP/2 in the clear, by prior knowledge.
    H2c,
    /// TLS.
    Https,
    /// What Redis speaks, by TLS.
    Rediss,
}

impl Scheme {
    /// It is TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Rediss)
    }

    /// What stands before an address.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::H2c => "h2c://",
            Self::Https => "https://",
            Self::Rediss => "rediss://",
        }
    }
}

/// Where an upstream's members come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Where {
    /// One address.
    Addr(Addr),
    /// `dns:name:port`: every A and AAAA record.
    Dns(String, u16),
    /// `srv:_name._tcp.domain`.
    Srv(String),
    /// `file:/path`: one address a line, watched.
    File(PathBuf),
    /// `k8s:namespace/service:port`.
    Kubernetes(String),
}

/// `[http://|h2c://|https://|rediss://]WHERE[;weight=N][;priority=N][;server-name=NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Where its members come from.
    pub place: Where,
    /// Its share among the upstreams; 1 unless given.
    pub weight: u16,
    /// Lower is used first; 0 unless given.
    pub priority: u16,
    /// The name for SNI and certificate verification.
    pub server_name: Option<String>,
}

impl ParamType for Upstream {
    const TYPE_NAME: &'static str = "upstream";
    const EXPECTED: &'static str =
        "[h2c://|https://]host:port or unix:/path, then ;weight=N ;priority=N ;server-name=NAME";

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(';');
        let head = parts.next().unwrap_or_default();
        let (scheme, rest) = match head.split_once("://") {
            Some(("http", rest)) => (Scheme::Plain, rest),
            Some(("h2c", rest)) => (Scheme::H2c, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("rediss", rest)) => (Scheme::Rediss, rest),
            Some((other, _)) => return Err(format!("\"{other}://\" is not h2c:// or https://")),
            None => (Scheme::Plain, head),
        };
        if rest.contains('@') && !rest.starts_with("unix:") && !rest.starts_with("file:") {
            return Err("credentials don't belong on a command line; name a file".to_owned());
        }
        let mut upstream = Self {
            scheme,
            place: parse_place(rest)?,
            weight: 1,
            priority: 0,
            server_name: None,
        };
        for option in parts {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| format!("\"{option}\" has no ="))?;
            let number = || {
                value
                    .parse()
                    .map_err(|_| format!("{key}=\"{value}\" is not a whole number"))
            };
            match key {
                "weight" => upstream.weight = number()?,
                "priority" => upstream.priority = number()?,
                "server-name" => upstream.server_name = Some(value.to_owned()),
                _ => return Err(format!("\"{key}\" is not weight, priority or server-name")),
            }
        }
        Ok(upstream)
    }
}

fn parse_place(text: &str) -> Result<Where, String> {
    if let Some(name) = text.strip_prefix("dns:") {
        return match Addr::parse(name)? {
            Addr::Name(name, port) => Ok(Where::Dns(name, port)),
            _ => Err("dns: takes name:port".to_owned()),
        };
    }
    if let Some(name) = text.strip_prefix("srv:") {
        return Ok(Where::Srv(name.to_owned()));
    }
    if let Some(path) = text.strip_prefix("file:") {
        return Ok(Where::File(PathBuf::from(path)));
    }
    if let Some(service) = text.strip_prefix("k8s:") {
        return Ok(Where::Kubernetes(service.to_owned()));
    }
    Addr::parse(
        text.strip_suffix('/')
            .filter(|_| !text.starts_with("unix:"))
            .unwrap_or(text),
    )
    .map(Where::Addr)
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme.prefix())?;
        match &self.place {
            Where::Addr(addr) => write!(f, "{addr}")?,
            Where::Dns(name, port) => write!(f, "dns:{name}:{port}")?,
            Where::Srv(name) => write!(f, "srv:{name}")?,
            Where::File(path) => write!(f, "file:{}", path.display())?,
            Where::Kubernetes(service) => write!(f, "k8s:{service}")?,
        }
        if self.weight != 1 {
            write!(f, ";weight={}", self.weight)?;
        }
        if self.priority != 0 {
            write!(f, ";priority={}", self.priority)?;
        }
        match &self.server_name {
            Some(name) => write!(f, ";server-name={name}"),
            None => Ok(()),
        }
    }
}
