//! HTTP proxies, by the variables that everybody knows: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, in small letters too.
//!
//! To https a tunnel is asked for (CONNECT, RFC 9110 9.3.6). Of http the proxy is shown the whole URL, as proxies rarely let
//! tunnels through to its port. This machine is never asked for by a proxy: there it would be another machine.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{Method, Request};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use podkit_foundation::params::{Cidr, ParamType as _};
use rustls::ClientConfig;

use crate::dial::{self, Stream};

/// Which servers are asked by which proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    straight: Vec<Straight>,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// It is spoken to by TLS itself.
    pub(crate) tls: bool,
    host: String,
    port: u16,
    /// Of the Proxy-Authorization field.
    authorization: Option<String>,
}

/// Without what opens it: it is shown in logs.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whom NO_PROXY names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Straight {
    /// `*`: everybody.
    All,
    /// Addresses, at one port or all.
    Addresses(Cidr, Option<u16>),
    /// A domain and what is below it, in small letters; at one port or all.
    Domain(String, Option<u16>),
}

impl Proxies {
    /// By the variables of the process.
    pub(crate) fn of_the_environment() -> Result<Self, String> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |names: &[&'static str]| {
            let found = names.iter().map(|name| (*name, variable(name)));
            found
                .filter_map(|(name, text)| Some((name, text?)))
                .find(|(_, text)| !text.is_empty())
        };
        let proxy = |names: &[&'static str]| {
            let found = set(names);
            let parsed = found.map(|(name, text)| {
                Proxy::parse(&text).map_err(|why| {
                    format!("{name}: {why}; expected http://HOST:PORT or https://HOST:PORT")
                })
            });
            parsed.transpose()
        };
        let straight = set(&["no_proxy", "NO_PROXY"]);
        let straight = straight.map_or_else(Vec::new, |(_, text)| {
            let names = text.split([',', ' ']).filter(|name| !name.is_empty());
            names.map(Straight::parse).collect()
        });
        Ok(Self {
            http: proxy(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])?,
            https: proxy(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?,
            straight,
        })
    }

    /// The proxy by which a server is asked; None: straight.
    pub(crate) fn of(&self, tls: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if tls { &self.https } else { &self.http };
        let proxy = proxy.as_ref()?;
        let host = host.trim_end_matches('.').to_lowercase();
        let ip = host.parse::<IpAddr>().ok();
        let is_here = host == "localhost"
            || host.ends_with(".localhost")
            || ip.is_some_and(|ip| ip.to_canonical().is_loopback());
        let named = self.straight.iter().any(|one| one.has(&host, ip, port));
        (!is_here && !named).then_some(proxy)
    }
}

impl Straight {
    fn parse(text: &str) -> Self {
        if text == "*" {
            return Self::All;
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(block) = Cidr::parse(bare) {
            return Self::Addresses(block, None);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => (text, None),
            },
            None => (text, None),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(block) = Cidr::parse(bare) {
            return Self::Addresses(block, port);
        }
        // `*.example.com`, `.example.com` and `example.com` are one, as with curl.
        let domain = host.trim_start_matches("*.").trim_matches('.');
        Self::Domain(domain.to_lowercase(), port)
    }

    fn has(&self, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Addresses(block, at) => {
                ip.is_some_and(|ip| block.has(ip)) && at.is_none_or(|at| at == port)
            }
            Self::Domain(domain, at) => {
                let below = host.strip_suffix(domain.as_str());
                below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
                    && at.is_none_or(|at| at == port)
            }
        }
    }
}

impl Proxy {
    fn parse(text: &str) -> Result<Self, String> {
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => return Err(format!("{scheme}:// is not spoken")),
            None => (false, text),
        };
        let rest = rest.trim_end_matches('/');
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let no_place = || format!("\"{place}\" is no host and port");
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(no_place)?,
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| no_place())?,
            None if port.is_empty() && tls => 443,
            None if port.is_empty() => 80,
            None => return Err(no_place()),
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(no_place());
        }
        let user = user.map(|user| percent_decode_str(user).collect::<Vec<u8>>());
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            authorization: user.map(|user| format!("Basic {}", STANDARD.encode(user))),
        })
    }

    /// The Proxy-Authorization field, for requests that the proxy reads itself.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// A connection to the proxy itself. The configuration is for one that is spoken to by TLS.
    pub(crate) async fn reach(
        &self,
        config: Option<Arc<ClientConfig>>,
    ) -> Result<Box<dyn Stream>, String> {
        let shown = |why: String| format!("the proxy {self}: {why}");
        let tcp = dial::tcp(&self.host, self.port).await.map_err(shown)?;
        match config.filter(|_| self.tls) {
            None => Ok(Box::new(tcp)),
            Some(config) => dial::tls(config, &self.host, Box::new(tcp))
                .await
                .map_err(|why| format!("the proxy {self}: TLS: {why}")),
        }
    }

    /// A connection to a server through the proxy.
    pub(crate) async fn tunnel(
        &self,
        config: Option<Arc<ClientConfig>>,
        host: &str,
        port: u16,
    ) -> Result<Box<dyn Stream>, String> {
        let stream = self.reach(config).await?;
        let shown = |why: &dyn fmt::Display| format!("the proxy {self}: {why}");
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| shown(&error))?;
        drop(tokio::spawn(async move {
            // What goes wrong is told where the answer is read.
            drop(connection.with_upgrades().await);
        }));
        let to = authority(host, port);
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(&to)
            .header(HOST, &to);
        if let Some(authorization) = &self.authorization {
            request = request.header(PROXY_AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::<Bytes>::new());
        let request = request.map_err(|error| shown(&error))?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| shown(&error))?;
        if !answer.status().is_success() {
            return Err(shown(&format!(
                "no tunnel to {to}: it answers {}",
                answer.status()
            )));
        }
        let stream = hyper::upgrade::on(answer).await;
        let stream = stream.map_err(|error| shown(&error))?;
        Ok(Box::new(TokioIo::new(stream)))
    }
}

fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, String> {
        Proxies::read(|name| {
            let found = variables.iter().find(|(found, _)| *found == name);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn variables_choose_a_proxy() {
        let check = |variables: &[(&str, &str)], tls: bool, expected: Option<&str>| {
            let proxies = proxies(variables).unwrap();
            let found = proxies.of(tls, "host", 1).map(ToString::to_string);
            assert_eq!(found.as_deref(), expected, "{variables:?}");
        };
        check(&[], true, None);
        check(&[("HTTPS_PROXY", "http://p:1")], true, Some("http://p:1"));
        check(&[("HTTPS_PROXY", "http://p:1")], false, None);
        check(&[("HTTP_PROXY", "p:1")], false, Some("http://p:1"));
        check(&[("all_proxy", "https://p")], true, Some("https://p:443"));
        check(
            &[("ALL_PROXY", "http://[::1]/")],
            false,
            Some("http://[::1]:80"),
        );
        let two = [("https_proxy", "small"), ("HTTPS_PROXY", "large")];
        check(&two, true, Some("http://small:80"));
        check(
            &[("https_proxy", ""), ("HTTPS_PROXY", "p")],
            true,
            Some("http://p:80"),
        );
    }

    #[test]
    fn no_proxy_leaves_out() {
        let check = |names: &str, host: &str, port: u16, straight: bool| {
            let proxies = proxies(&[("ALL_PROXY", "p"), ("NO_PROXY", names)]).unwrap();
            assert_eq!(
                proxies.of(true, host, port).is_none(),
                straight,
                "{names} {host}:{port}"
            );
        };
        check("", "host", 443, false);
        for here in ["localhost", "a.localhost", "127.0.0.1", "127.1.2.3", "::1"] {
            check("", here, 443, true);
        }
        check("*", "host", 443, true);
        check("a, host", "host", 443, true);
        for domain in [
            "example.com",
            ".example.com",
            "*.example.com",
            "EXAMPLE.com.",
        ] {
            check(domain, "git.Example.com", 443, true);
            check(domain, "example.com.", 443, true);
            check(domain, "notexample.com", 443, false);
        }
        check("host:443", "host", 443, true);
        check("host:443", "host", 80, false);
        check("10.0.0.0/8", "10.1.2.3", 443, true);
        check("10.0.0.0/8", "11.1.2.3", 443, false);
        check("10.1.2.3:80", "10.1.2.3", 443, false);
        check("[fd00::1]:443,fd01::/16", "fd00::1", 443, true);
        check("[fd00::1]:443,fd01::/16", "fd01::2", 80, true);
        check("[fd00::1]:443", "fd00::1", 80, false);
    }

    #[test]
    fn a_proxy_may_want_a_password_and_shows_it_to_nobody() {
        let proxies = proxies(&[("HTTPS_PROXY", "http://me:p%40ss@p:8080")]).unwrap();
        let proxy = proxies.of(true, "host", 443).unwrap();
        let expected = format!("Basic {}", STANDARD.encode("me:p@ss"));
        assert_eq!(proxy.authorization(), Some(expected.as_str()));
        assert_eq!(format!("{proxy} {proxies:?}").matches("ss").count(), 0);
    }

    #[test]
    fn what_is_no_proxy_is_named() {
        let check = |text: &str, expected: &str| {
            let why = proxies(&[("HTTPS_PROXY", text)]).unwrap_err();
            assert!(
                why.starts_with("HTTPS_PROXY: ") && why.contains(expected),
                "{text}: {why}"
            );
            assert!(!why.contains("secret"), "{why}");
        };
        check("socks5://me:secret@p:1", "socks5:// is not spoken");
        check("http://me:secret@p:x", "\"p:x\" is no host and port");
        check("http://", "no host");
    }
}
