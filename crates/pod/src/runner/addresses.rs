//! The addresses to open: where the pod's ports are on this machine, and what is spoken there, as far as one can tell.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::net::Published;
use crate::plan::{ContainerPlan, ImageSource, PodPlan, Protocol};

/// An address for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) container: String,
    pub(super) name: Option<String>,
    /// `https://127.0.0.1:8443`; without a scheme where it isn't known.
    pub(super) url: String,
    local: SocketAddr,
}

/// One for each published port, in the order of the file.
pub(super) fn addresses(plan: &PodPlan, published: &[Published]) -> Vec<Address> {
    let mut addresses: Vec<Address> = Vec::new();
    for port in published {
        let local = reachable(port.local);
        let twice =
            |seen: &Address| seen.local.port() == local.port() && seen.container == port.container;
        if addresses.iter().any(twice) {
            continue;
        }
        let container = plan.containers.iter().find(|c| c.name == port.container);
        let url = match (port.protocol, scheme(container, port)) {
            (Protocol::Udp, _) => format!("udp {local}"),
            (Protocol::Tcp, Some(scheme)) => format!("{scheme}://{local}"),
            (Protocol::Tcp, None) => local.to_string(),
        };
        addresses.push(Address {
            container: port.container.clone(),
            name: port.name.clone(),
            url,
            local,
        });
    }
    addresses
}

/// Where this machine's people reach a listener.
fn reachable(local: SocketAddr) -> SocketAddr {
    if local.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), local.port())
    } else {
        local
    }
}

/// The port's name says it; otherwise podkit's own modules are known.
fn scheme(container: Option<&ContainerPlan>, port: &Published) -> Option<&'static str> {
    match port.name.as_deref() {
        Some(name) if name.starts_with("https") => return Some("https"),
        Some(name) if name.starts_with("http") || name.contains("admin") => return Some("http"),
        _ => {}
    }
    let container = container.filter(|container| container.source == ImageSource::Itself)?;
    let mut words = container.command.iter().chain(&container.args);
    let module = words.find(|word| !word.ends_with("podkit"))?;
    Some(if module == "tls" { "https" } else { "http" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::testing::{container, plan};

    fn published(container: &str, name: Option<&str>, local: &str) -> Published {
        let local: SocketAddr = local.parse().unwrap();
        Published {
            container: container.to_owned(),
            name: name.map(str::to_owned),
            port: local.port(),
            protocol: Protocol::Tcp,
            local,
            host: local.ip().is_unspecified(),
        }
    }

    #[test]
    fn the_scheme_is_the_names_or_the_modules() {
        let mut tls = container("tls");
        tls.args = vec!["tls".to_owned(), "--listen=:8443".to_owned()];
        let mut topz = container("topz");
        topz.command = vec!["/podkit".to_owned(), "topz".to_owned()];
        let mut db = container("db");
        db.source = ImageSource::Host;
        let plan = plan(vec![tls, topz, db]);
        let ports = [
            published("tls", None, "127.0.0.1:8443"),
            published("tls", None, "[::1]:8443"),
            published("tls", Some("http-redirect"), "127.0.0.1:8080"),
            published("topz", None, "127.0.0.1:9604"),
            published("db", Some("sql"), "[::]:5432"),
            published("db", Some("https-admin"), "127.0.0.1:5433"),
        ];
        let urls: Vec<String> = addresses(&plan, &ports)
            .into_iter()
            .map(|a| a.url)
            .collect();
        assert_eq!(
            urls,
            [
                "https://127.0.0.1:8443",
                "http://127.0.0.1:8080",
                "http://127.0.0.1:9604",
                "127.0.0.1:5432",
                "https://127.0.0.1:5433",
            ]
        );
    }
}
