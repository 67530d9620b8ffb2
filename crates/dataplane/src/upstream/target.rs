//! An upstream as configured.

use podkit_foundation::error::Failure;
use podkit_foundation::params::{Addr, ParamError, Scheme, Upstream, Where};

/// One address that is dialled in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    addr: Addr,
    host: String,
}

impl Target {
    /// Checks that `upstream`, the value of the parameter `field` of `module`, is a form that is there.
    pub fn new(field: &str, module: &str, upstream: &Upstream) -> Result<Self, Failure> {
        let refused = |what: &str| {
            let why = format!(
                "\"{upstream}\": {what} is not supported by {module} yet; expected host:port, :port or unix:/path"
            );
            Failure::from(ParamError::new(field, why))
        };
        match upstream.scheme {
            Scheme::Plain => {}
            Scheme::H2c => return Err(refused("h2c://")),
            Scheme::Https => return Err(refused("https://")),
        }
        if upstream.server_name.is_some() {
            return Err(refused("server-name="));
        }
        let addr = match &upstream.place {
            Where::Addr(addr) => addr.clone(),
            Where::Dns(..) => return Err(refused("dns:")),
            Where::Srv(_) => return Err(refused("srv:")),
            Where::File(_) => return Err(refused("file:")),
            Where::Kubernetes(_) => return Err(refused("k8s:")),
        };
        if addr.port() == Some(0) {
            let why = format!("\"{upstream}\": port 0 can't be dialled");
            return Err(ParamError::new(field, why).into());
        }
        Ok(Self::of(addr))
    }

    /// An address.
    pub fn of(addr: Addr) -> Self {
        let host = match &addr {
            Addr::Unix(_) => "localhost".to_owned(),
            Addr::Port(port) => format!("localhost:{port}"),
            other => other.to_string(),
        };
        Self { addr, host }
    }

    /// What is dialled.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// The Host of a request whose client named none.
    pub fn host(&self) -> &str {
        &self.host
    }
}
