//! `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, as Go's programs read them. (golang.org/x/net/http/httpproxy)

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::http::Url;

/// A proxy that speaks plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    userinfo: Option<String>,
}

impl Proxy {
    fn parse(variable: &str, text: &str) -> Result<Self, String> {
        let with_scheme = match text.split_once("://") {
            None => format!("http://{text}"),
            Some(("http", _)) => text.to_owned(),
            Some((scheme, _)) => {
                return Err(format!(
                    "{variable}: proxies of the kind {scheme:?} are not spoken; http is"
                ));
            }
        };
        let rest = with_scheme.trim_start_matches("http://");
        let authority = rest.split('/').next().unwrap_or_default();
        let (userinfo, authority) = match authority.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(decoded(userinfo)), authority),
            None => (None, authority),
        };
        let url = Url::parse(&format!("http://{authority}/"))
            .map_err(|_| format!("{variable}: it is no URL of a proxy"))?;
        Ok(Self {
            host: url.host,
            port: url.port,
            userinfo,
        })
    }

    /// `Proxy-Authorization`.
    pub(super) fn authorization(&self) -> Option<String> {
        let userinfo = self.userinfo.as_ref()?;
        Some(format!("Basic {}", BASE64_STANDARD.encode(userinfo)))
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |bytes: &[u8]| u8::from_str_radix(std::str::from_utf8(bytes).ok()?, 16).ok();
        let ahead: Vec<u8> = rest.clone().take(2).collect();
        match hex(&ahead).filter(|_| byte == b'%' && ahead.len() == 2) {
            Some(decoded) => {
                bytes.push(decoded);
                rest.nth(1);
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Which proxy for what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    none: Vec<String>,
}

impl Proxies {
    pub(super) fn of_environment() -> Result<Self, String> {
        Self::of(&|name| std::env::var(name).ok())
    }

    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let either = |name: &str| {
            let lower = name.to_lowercase();
            [name, &lower]
                .into_iter()
                .find_map(|name| variable(name).filter(|value| !value.is_empty()))
        };
        let proxy = |name: &str| {
            either(name)
                .map(|text| Proxy::parse(name, &text))
                .transpose()
        };
        Ok(Self {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            none: either("NO_PROXY")
                .unwrap_or_default()
                .split(',')
                .map(|entry| entry.trim().to_lowercase())
                .filter(|entry| !entry.is_empty())
                .collect(),
        })
    }
}

impl Proxies {
    /// The proxy for a URL. What is on this machine is asked directly.
    pub(super) fn of_url(&self, url: &Url) -> Option<&Proxy> {
        let proxy = if url.tls { &self.https } else { &self.http };
        proxy
            .as_ref()
            .filter(|_| !url.is_loopback() && !self.is_excepted(url))
    }

    fn is_excepted(&self, url: &Url) -> bool {
        let host = url
            .host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_lowercase();
        let ip = host.parse::<IpAddr>().ok();
        self.none.iter().any(|entry| {
            if entry == "*" {
                return true;
            }
            if let Some((network, bits)) = entry.split_once('/') {
                return ip.is_some_and(|ip| within(ip, network, bits));
            }
            let (name, port) = match entry.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
                    (name, Some(port))
                }
                _ => (entry.as_str(), None),
            };
            if port.is_some_and(|port| port.parse() != Ok(url.port)) {
                return false;
            }
            let name = name
                .trim_start_matches('[')
                .trim_end_matches(']')
                .trim_start_matches('*');
            match name.strip_prefix('.') {
                Some(domain) => host
                    .strip_suffix(domain)
                    .is_some_and(|rest| rest.ends_with('.')),
                None => host == name || ip.is_none() && host.ends_with(&format!(".{name}")),
            }
        })
    }
}

fn within(ip: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    let (ip, network, width) = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (
            u128::from(u32::from(ip)),
            u128::from(u32::from(network)),
            32,
        ),
        (IpAddr::V6(ip), IpAddr::V6(network)) => (u128::from(ip), u128::from(network), 128),
        _ => return false,
    };
    match width - bits.min(width) {
        128 => true,
        shift => ip >> shift == network >> shift,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_proxy_for_what() {
        let variables = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://joe:p%40ss@proxy.corp:3128/".to_owned()),
            "http_proxy" => Some("plain".to_owned()),
            "NO_PROXY" => {
                Some("corp.example, .only.sub, 10.0.0.0/8, reg.io:5000, [::2]".to_owned())
            }
            _ => None,
        };
        let proxies = Proxies::of(&variables).unwrap();
        let of = |url: &str| {
            proxies
                .of_url(&Url::parse(url).unwrap())
                .map(|proxy| proxy.port)
        };
        assert_eq!(of("https://ghcr.io/"), Some(3128));
        assert_eq!(of("http://ghcr.io/"), Some(80));
        for direct in [
            "https://corp.example/",
            "https://a.corp.example/",
            "https://x.only.sub/",
            "https://10.2.3.4/",
            "https://reg.io:5000/",
            "https://localhost/",
            "https://127.0.0.9/",
            "https://[::1]:5000/",
            "https://[::2]/",
        ] {
            assert_eq!(of(direct), None, "{direct}");
        }
        for through in [
            "https://only.sub/",
            "https://notcorp.example/",
            "https://11.0.0.1/",
            "https://reg.io/",
        ] {
            assert!(of(through).is_some(), "{through}");
        }
        let authorization = proxies.https.unwrap().authorization().unwrap();
        assert_eq!(
            authorization,
            format!("Basic {}", BASE64_STANDARD.encode("joe:p@ss"))
        );
        let socks = |name: &str| (name == "HTTPS_PROXY").then(|| "socks5://x".to_owned());
        assert!(Proxies::of(&socks).unwrap_err().contains("socks5"));
    }
}
