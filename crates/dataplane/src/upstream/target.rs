//! An upstream as configured.

use podkit_foundation::error::Failure;
use podkit_foundation::params::{Addr, ParamError, Scheme, Upstream, Where};
use rustls::pki_types::ServerName;

/// How an upstream is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speech {
    /// HTTP/1.1, or plain bytes, in the clear.
    Plain,
    /// HTTP/2 in the clear, by prior knowledge.
    H2c,
    /// TLS, with a server whose certificate is for this name.
    Tls(ServerName<'static>),
}

/// One address, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    addr: Addr,
    host: String,
    speech: Speech,
}

impl Target {
    /// Checks that `upstream`, the value of the parameter `field` of `module`, is a form that is there.
    pub fn new(field: &str, module: &str, upstream: &Upstream) -> Result<Self, Failure> {
        let wrong = |what: &str| {
            let why = format!("\"{upstream}\": {what}");
            Failure::from(ParamError::new(field, why))
        };
        let refused = |what: &str| {
            wrong(&format!(
                "{what} is not supported by {module} yet; expected host:port, :port or unix:/path"
            ))
        };
        let addr = match &upstream.place {
            Where::Addr(addr) => addr.clone(),
            Where::Dns(..) => return Err(refused("dns:")),
            Where::Srv(_) => return Err(refused("srv:")),
            Where::File(_) => return Err(refused("file:")),
            Where::Kubernetes(_) => return Err(refused("k8s:")),
        };
        if addr.port() == Some(0) {
            return Err(wrong("port 0 can't be dialled"));
        }
        match (upstream.scheme, module == "redis") {
            (Scheme::H2c | Scheme::Https, true) => {
                return Err(wrong(
                    "that is HTTP; expected no scheme, or rediss:// for TLS",
                ));
            }
            (Scheme::Rediss, false) => {
                return Err(wrong(
                    "rediss:// is for podkit redis and podkit shard; expected https:// for TLS",
                ));
            }
            _ => {}
        }
        let speech = match (upstream.scheme, &upstream.server_name) {
            (Scheme::Https | Scheme::Rediss, name) => {
                return Self::tls(addr, name.as_deref()).map_err(|why| wrong(&why));
            }
            (_, Some(_)) if module == "redis" => {
                return Err(wrong(
                    "server-name= is for rediss://, whose certificate is verified for it",
                ));
            }
            (_, Some(_)) => {
                return Err(wrong(
                    "server-name= is for https://, whose certificate is verified for it",
                ));
            }
            (Scheme::Plain, None) => Speech::Plain,
            (Scheme::H2c, None) => Speech::H2c,
        };
        Ok(Self {
            speech,
            ..Self::of(addr)
        })
    }

    /// The one upstream of a module that stands in front of one.
    pub fn only(module: &str, upstreams: &[Upstream]) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::from(ParamError::new("upstream", why));
        let expected = "expected host:port, :port or unix:/path";
        match upstreams {
            [one] if one.weight != 1 || one.priority != 0 => Err(wrong(format!(
                "\"{one}\": weight and priority mean nothing for one upstream; {expected}"
            ))),
            [one] => Self::new("upstream", module, one),
            [] => Err(wrong(format!("is required; {expected}"))),
            many => Err(wrong(format!(
                "{} are given, and {module} stands in front of one application; {expected}, once (several are for \
                 podkit balance)",
                many.len()
            ))),
        }
    }

    /// An address, in the clear.
    pub fn of(addr: Addr) -> Self {
        let host = match &addr {
            Addr::Unix(_) => "localhost".to_owned(),
            Addr::Port(port) => format!("localhost:{port}"),
            other => other.to_string(),
        };
        Self {
            addr,
            host,
            speech: Speech::Plain,
        }
    }

    /// An address, by TLS: the certificate must be for `name`, or for the host. The error is what is wrong with these.
    pub fn tls(addr: Addr, name: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            speech: Speech::Tls(server_name(&addr, name)?),
            ..Self::of(addr)
        })
    }

    /// What is dialled.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// The Host of a request whose client named none.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// How it is spoken to.
    pub fn speech(&self) -> &Speech {
        &self.speech
    }

    /// TLS is spoken to it.
    pub fn is_tls(&self) -> bool {
        matches!(self.speech, Speech::Tls(_))
    }
}

/// What a certificate must be for: the name that was given, else the host.
fn server_name(addr: &Addr, given: Option<&str>) -> Result<ServerName<'static>, String> {
    let name = match (given, addr) {
        (Some(name), _) => name.to_owned(),
        (None, Addr::Name(name, _)) => name.clone(),
        (None, Addr::Ip(ip, _)) => return Ok(ServerName::IpAddress((*ip).into())),
        (None, Addr::Port(_)) => "localhost".to_owned(),
        (None, Addr::Unix(_)) => {
            return Err(
                "needs ;server-name=NAME, which the server's certificate is for: a path names no host"
                    .to_owned(),
            );
        }
    };
    ServerName::try_from(name.clone()).map_err(|_| {
        format!("\"{name}\" is neither a host name nor an address that a certificate could be for")
    })
}
