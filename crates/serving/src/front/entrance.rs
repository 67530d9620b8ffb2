//! Where clients come in: addresses, the PROXY protocol, TLS, the bounds of HTTP.

use std::rc::Rc;

use podkit_dataplane::http::proxy::{Proxy, ProxySettings};
use podkit_dataplane::http::{Front, HttpLimits};
use podkit_dataplane::http2::{HTTP2, Http2Limits};
use podkit_dataplane::module::Setup;
use podkit_dataplane::net::{Listener, Worker, accept_from};
use podkit_dataplane::tls::{HTTP1, ServerTls, TlsParams};
use podkit_foundation::error::Failure;
use podkit_foundation::lifecycle::Lifecycle;
use podkit_foundation::params::{Addr, Cidr};
use podkit_foundation::telemetry::metrics::Registry;

/// What an entrance is made of.
#[derive(Debug, Clone)]
pub(crate) struct EntranceParams {
    pub(crate) listen: Vec<Addr>,
    pub(crate) accept_proxy: Vec<Cidr>,
    pub(crate) limits: HttpLimits,
    pub(crate) http2: Http2Limits,
    /// None: in the clear.
    pub(crate) tls: Option<TlsParams>,
}

/// An entrance, for all workers. It ends with its own lifecycle, a part of the process's.
#[derive(Debug)]
pub(crate) struct Entrance {
    params: EntranceParams,
    pub(crate) tls: Option<ServerTls>,
    listeners: Vec<Listener>,
    pub(super) lifecycle: Lifecycle,
    /// Holds its metrics as long as it is there.
    _registry: Registry,
}

impl Entrance {
    /// Loads certificates and binds the addresses; those that this process has already are had again.
    pub(crate) fn new(
        params: EntranceParams,
        setup: &Setup,
        registry: Registry,
    ) -> Result<Self, Failure> {
        let tls = match &params.tls {
            None => None,
            Some(tls) => {
                let protocols = if params.http2.http2 { HTTP2 } else { HTTP1 };
                Some(ServerTls::new(tls, protocols, &registry)?)
            }
        };
        let mut listeners = Vec::new();
        let mut fresh: Vec<&Addr> = Vec::new();
        for addr in &params.listen {
            let listener = match setup.listeners.again(addr, setup.workers) {
                Some(again) => again
                    .map_err(|cause| Failure::runtime(format!("listening on {addr} again"), cause)),
                None => {
                    fresh.push(addr);
                    setup.listeners.bind("listen", addr, setup.workers)
                }
            };
            match listener {
                Ok(listener) => listeners.push(listener),
                Err(failure) => {
                    fresh
                        .into_iter()
                        .for_each(|addr| setup.listeners.release(addr));
                    return Err(failure);
                }
            }
        }
        Ok(Self {
            params,
            tls,
            listeners,
            lifecycle: setup.lifecycle.part(),
            _registry: registry,
        })
    }

    pub(crate) fn addrs(&self) -> &[Addr] {
        &self.params.listen
    }

    /// How a worker serves it.
    pub(super) fn settings(&self) -> ProxySettings {
        ProxySettings {
            limits: self.params.limits.clone(),
            http2: self.params.http2.clone(),
            scheme: if self.tls.is_some() { "https" } else { "http" },
            port: self.listeners.iter().find_map(Listener::port),
        }
    }

    /// On a worker's thread: its accept loops.
    pub(super) fn start(&self, worker: &Rc<Worker>, proxy: &Rc<Proxy>) -> std::io::Result<()> {
        let patience = self.params.limits.head_timeout;
        let front = Front::new(self.tls.clone(), patience, Rc::clone(proxy));
        let proxies = &self.params.accept_proxy;
        accept_from(&self.listeners, proxies, patience, worker, &Rc::new(front))
    }
}
