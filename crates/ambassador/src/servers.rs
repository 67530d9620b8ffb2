//! Towards servers: where they are, how connections to them are opened, and the password that they are told.

use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use podkit_dataplane::resp::{Auth, Greeting, Secret};
use podkit_dataplane::tls::{UpstreamTls, UpstreamTlsParams};
use podkit_dataplane::upstream::{Outward, Pool, Target, UpstreamLimits, UpstreamMetrics};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Addr, ParamError, ParamSet as _, ParamType, Values};
use podkit_foundation::telemetry::metrics::Registry;

/// What stands before the address of a server that is spoken to by TLS.
const REDISS: &str = "rediss://";

/// Where a server is, and how it is spoken to: `[rediss://]ADDR[;server-name=NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) addr: Addr,
    pub(crate) is_tls: bool,
    /// What its certificate is for, where that is not the host of the address.
    server_name: Option<String>,
}

impl ParamType for Server {
    const TYPE_NAME: &'static str = "server";
    const EXPECTED: &'static str = "host:port, rediss://host:port or unix:/path";

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(';');
        let place = parts.next().unwrap_or_default();
        let secure = place.strip_prefix(REDISS);
        let mut server = Self::plain(Addr::parse(secure.unwrap_or(place))?);
        server.is_tls = secure.is_some();
        for option in parts {
            match option.split_once('=') {
                Some(("server-name", name)) if server.is_tls => {
                    server.server_name = Some(name.to_owned());
                }
                Some(("server-name", _)) => {
                    let why = "server-name= is for rediss://, whose certificate is verified for it";
                    return Err(why.to_owned());
                }
                _ => return Err(format!("{option:?} is no option here")),
            }
        }
        if server.addr.port() == Some(0) {
            return Err("port 0 can't be dialled".to_owned());
        }
        server.checked_target()?;
        Ok(server)
    }
}

impl Server {
    /// In the clear.
    pub(crate) fn plain(addr: Addr) -> Self {
        Self {
            addr,
            is_tls: false,
            server_name: None,
        }
    }

    /// What its certificate is for, where that is not the host of the address.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// What is dialled.
    pub(crate) fn target(&self) -> Target {
        self.checked_target()
            .expect("it was checked when it was read")
    }

    fn checked_target(&self) -> Result<Target, String> {
        match self.is_tls {
            true => Target::tls(self.addr.clone(), self.server_name.as_deref()),
            false => Ok(Target::of(self.addr.clone())),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { REDISS } else { "" };
        write!(f, "{scheme}{}", self.addr)?;
        match &self.server_name {
            Some(name) => write!(f, ";server-name={name}"),
            None => Ok(()),
        }
    }
}

/// How connections that stay, and carry the commands of many clients, are opened.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) metrics: UpstreamMetrics,
    /// For those that are spoken to by TLS.
    pub(crate) tls: Option<UpstreamTls>,
    /// What they are told.
    pub(crate) secrets: Vec<Arc<Secret>>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
}

impl Servers {
    /// How connections are opened.
    pub(crate) fn outward(&self) -> Outward {
        Outward {
            tls: self.tls.clone(),
            raw: true,
        }
    }

    /// Opens nothing yet.
    pub(crate) fn pool(&self, target: Target) -> Rc<Pool> {
        let limits = UpstreamLimits {
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout,
            tunnel_timeout: Duration::MAX,
            upstream_idle_timeout: Duration::MAX,
            upstream_idle: 0,
            upstream_h2_connections: 0,
        };
        Pool::new(target, limits, self.metrics.clone(), self.outward())
    }

    /// Follows the files of TLS. On the main thread.
    pub(crate) fn watch(&self) {
        if let Some(tls) = &self.tls {
            drop(tokio::task::spawn_local(tls.clone().watch()));
        }
    }

    /// Reads the files of TLS and the passwords again: all of them, whatever is wrong with one.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let tls = self.tls.iter().map(|tls| tls.reload().map(drop));
        let secrets = self.secrets.iter().map(|secret| secret.reload());
        let failed: Vec<String> = tls.chain(secrets).filter_map(Result::err).collect();
        match failed.is_empty() {
            true => Ok(()),
            false => Err(failed.join("; ")),
        }
    }

    /// What of the files is not in force, for the page.
    pub(crate) fn refusal(&self) -> Option<String> {
        let tls = self.tls.as_ref().and_then(UpstreamTls::refusal);
        let of_secrets = || self.secrets.iter().find_map(|secret| secret.refusal());
        let refusal = tls.or_else(of_secrets)?;
        Some(format!(
            "Refused, the former state stays in force: {refusal}"
        ))
    }
}

/// The secrets in these.
pub(crate) fn secrets<'a>(greetings: impl IntoIterator<Item = &'a Greeting>) -> Vec<Arc<Secret>> {
    let auths = greetings.into_iter().filter_map(|one| one.auth.as_ref());
    let secret = |auth: &Auth| match auth {
        Auth::Own(secret) => Some(Arc::clone(secret)),
        Auth::Client(_) => None,
    };
    auths.filter_map(secret).collect()
}

/// TLS, if it `is_spoken`, or may be; what is given for it is refused otherwise, since it takes what it `needs`.
pub(crate) fn tls(
    values: &Values,
    is_spoken: bool,
    needs: &str,
    registry: &Registry,
) -> Result<Option<UpstreamTls>, Failure> {
    let params = UpstreamTlsParams::from_values(values)?;
    if is_spoken {
        return UpstreamTls::new(&params, false, registry).map(Some);
    }
    params.refuse_unused(needs)?;
    Ok(None)
}

/// A user (the default one unless given) and the password in a file, the value of the parameter `field`.
pub(crate) fn credentials(
    field: &'static str,
    path: &Path,
    user: Option<&str>,
    registry: &Registry,
) -> Result<Auth, Failure> {
    let path = path.to_owned();
    secret(field, user, registry, move || password(&path))
}

/// The same, with the password as `read` says it.
pub(crate) fn secret(
    field: &'static str,
    user: Option<&str>,
    registry: &Registry,
    read: impl Fn() -> Result<Vec<u8>, String> + Send + Sync + 'static,
) -> Result<Auth, Failure> {
    let password = read().map_err(|why| Failure::from(ParamError::new(field, why)))?;
    let again = move || read().map_err(|why| ParamError::new(field, why).to_string());
    let user = user.unwrap_or_default().as_bytes();
    Ok(Auth::Own(Secret::new(user, password, registry, again)))
}

fn password(path: &Path) -> Result<Vec<u8>, String> {
    let mut password = std::fs::read(path)
        .map_err(|error| format!("{} can't be read ({error})", path.display()))?;
    while matches!(password.last(), Some(b'\n' | b'\r')) {
        password.pop();
    }
    match password.is_empty() {
        true => Err(format!("{} is empty", path.display())),
        false => Ok(password),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_they_are_shown() {
        for text in [
            "127.0.0.1:6379",
            "unix:/run/redis.sock",
            "rediss://redis.example:6380",
            "rediss://10.0.0.1:6380;server-name=r.example",
            "rediss://unix:/run/redis.sock;server-name=r.example",
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!(server.to_string(), text);
            assert_eq!(server.target().is_tls(), text.starts_with(REDISS));
        }
        let check = |text, expected: &str| {
            let why = Server::parse(text).unwrap_err();
            assert!(why.contains(expected), "{text}: {why}");
        };
        check("a:1;server-name=b", "is for rediss://");
        check("a:1;weight=2", "no option here");
        check("a:0", "port 0");
        check("rediss://unix:/s", "needs ;server-name=NAME");
        check("rediss://:1;server-name=a b", "neither a host name");
        check("redis://a:1", "");
    }
}
