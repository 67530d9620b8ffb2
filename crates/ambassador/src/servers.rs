//! Towards servers: how connections to them are opened, and the password that they are told.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use podkit_dataplane::resp::Credentials;
use podkit_dataplane::tls::UpstreamTls;
use podkit_dataplane::upstream::{Outward, Pool, Target, UpstreamLimits, UpstreamMetrics};
use podkit_foundation::error::Failure;
use podkit_foundation::params::ParamError;

/// How connections that stay, and carry the commands of many clients, are opened.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) metrics: UpstreamMetrics,
    /// For those that are spoken to by TLS.
    pub(crate) tls: Option<UpstreamTls>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
}

impl Servers {
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
        let outward = Outward {
            tls: self.tls.clone(),
            raw: true,
        };
        Pool::new(target, limits, self.metrics.clone(), outward)
    }
}

/// A user (the default one unless given) and the password in a file, the value of the parameter `field`.
pub(crate) fn credentials(
    field: &str,
    path: &Path,
    user: Option<&str>,
) -> Result<Credentials, Failure> {
    let wrong = |why: String| Failure::from(ParamError::new(field, why));
    let mut password = std::fs::read(path)
        .map_err(|error| wrong(format!("{} can't be read ({error})", path.display())))?;
    while matches!(password.last(), Some(b'\n' | b'\r')) {
        password.pop();
    }
    if password.is_empty() {
        return Err(wrong(format!("{} is empty", path.display())));
    }
    Ok((user.unwrap_or_default().as_bytes().to_vec(), password))
}
