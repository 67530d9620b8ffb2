//! Where clients come in: addresses, the PROXY protocol, TLS, the bounds of HTTP.

use std::rc::Rc;
use std::time::Duration;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::proxy::{Proxy, ProxySettings};
use podkit_dataplane::http2::{HTTP2, Http2Limits};
use podkit_dataplane::module::Setup;
use podkit_dataplane::net::{AcceptProxy, Accepted, Listener, Port, Serve, Worker, accept};
use podkit_dataplane::tls::{
    Certificate, HTTP1, Reason, ServerTls, TlsParams, TlsStream, forwarded_client_cert,
};
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
        match &self.tls {
            None => self.listen(worker, proxy),
            Some(tls) => {
                let front = Front {
                    tls: tls.clone(),
                    patience: self.params.limits.head_timeout,
                    proxy: Rc::clone(proxy),
                };
                self.listen(worker, &Rc::new(front))
            }
        }
    }

    fn listen<S: Serve>(&self, worker: &Rc<Worker>, serve: &Rc<S>) -> std::io::Result<()> {
        let trusted = &self.params.accept_proxy;
        for listener in &self.listeners {
            let (port, worker) = (listener.take()?, Rc::clone(worker));
            if trusted.is_empty() {
                let accepting = accepting(port, worker, Rc::clone(serve));
                drop(tokio::task::spawn_local(accepting));
            } else {
                let patience = self.params.limits.head_timeout;
                let serve = AcceptProxy::new(trusted.clone(), patience, Rc::clone(serve));
                let accepting = accepting(port, worker, Rc::new(serve));
                drop(tokio::task::spawn_local(accepting));
            }
        }
        Ok(())
    }
}

async fn accepting<S: Serve>(port: Port, worker: Rc<Worker>, serve: Rc<S>) {
    if let Err(error) = accept(port, worker, serve).await {
        tracing::error!(why = %error, "a listener ended");
    }
}

/// What a worker does with a connection that comes by TLS.
struct Front {
    tls: ServerTls,
    /// For the handshake.
    patience: Duration,
    proxy: Rc<Proxy>,
}

impl Serve for Front {
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted {
            socket,
            peer,
            worker,
            guard,
        } = accepted;
        let handshake = TlsStream::accept(socket, self.tls.config(), &worker, self.patience);
        let handshake = match handshake.await {
            Ok(handshake) => handshake,
            Err(error) => {
                let reason = Reason::of_io(&error);
                self.tls.failed(reason);
                return tracing::debug!(%peer, reason = reason.word(), why = %error, "a handshake failed");
            }
        };
        let client = match self.tls.accepted(handshake.connection()) {
            Ok(client) => client,
            Err(reason) => {
                return tracing::debug!(%peer, reason = reason.word(), "a resumed client is not let in");
            }
        };
        let http2 = handshake.connection().alpn_protocol() == Some(b"h2");
        let stream = match handshake.into_stream() {
            Ok(stream) => stream,
            Err(error) => {
                return tracing::error!(%peer, why = %error, "a connection can't be protected");
            }
        };
        let fields = client.as_ref().map(client_field).unwrap_or_default();
        match http2 {
            true => {
                let serve = self
                    .proxy
                    .serve_http2(stream, None, peer, worker, fields.as_bytes());
                // Boxed, so that the others' tasks have no room for it.
                Box::pin(serve).await;
            }
            false => {
                let serve = self.proxy.serve_on(stream, peer, worker, fields.as_bytes());
                serve.await;
            }
        }
        drop(guard);
    }
}

fn client_field(client: &Certificate) -> String {
    format!(
        "X-Forwarded-Client-Cert: {}\r\n",
        forwarded_client_cert(client)
    )
}
