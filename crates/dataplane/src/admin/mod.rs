//! The admin server that every module has: probes, metrics, the parameters in force, a page for people, the module's own
//! endpoints. It runs on the main thread, beside the data path's workers and never in their way.
//!
//! Whoever comes over the pod's own address gets the probes and `/metrics`; the rest answers on the pod's loopback, which
//! port-forwarding reaches, or everywhere with `--admin-open`. State is changed over `--admin-socket` only. A page on the
//! loopback could be read by any web site through a name that it points at 127.0.0.1 (DNS rebinding), so the Host
//! must be an address or `localhost`.

mod endpoints;
mod page;
mod process;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::rc::Rc;
use std::time::Duration;

use podkit_foundation::error::Failure;
use podkit_foundation::lifecycle::{Lifecycle, Phase};
use podkit_foundation::params::{Addr, ParamSet as _, Values};
use podkit_foundation::surface::common::Common;
use podkit_foundation::telemetry::metrics::Registry;
use tokio::sync::mpsc;

pub(crate) use endpoints::{Change, Endpoints, Peer};
pub use page::{STYLE, escape};
pub(crate) use process::collect as process_metrics;

use crate::http::HttpLimits;
use crate::http::local::{Answer, Handler, Local, Request, Response};
use crate::net::{Connections, Listener, Listeners, Worker, accept};

/// Connections at most, so that whoever scrapes too often can't take the descriptors of the data path.
const CONNECTIONS: usize = 256;

/// How long answers in flight may take when another process has taken over.
const FAREWELL: Duration = Duration::from_secs(1);

/// The admin server's listeners, bound and not yet accepting.
pub(crate) struct Admin {
    tcp: Listener,
    socket: Option<Listener>,
    lifecycle: Lifecycle,
}

/// Binds `--admin` and `--admin-socket`.
pub(crate) fn bind(common: &Common, listeners: &Listeners) -> Result<Admin, Failure> {
    let tcp = listeners.bind("admin", &common.admin, 1)?;
    let socket = match &common.admin_socket {
        None => None,
        Some(path) => {
            let listener = listeners.bind("admin_socket", &Addr::Unix(path.clone()), 1)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(
                |cause| {
                    Failure::runtime(format!("--admin-socket {}: chmod", path.display()), cause)
                },
            )?;
            Some(listener)
        }
    };
    Ok(Admin {
        tcp,
        socket,
        lifecycle: Lifecycle::new(),
    })
}

impl Admin {
    /// Starts to answer. What is asked for on the socket goes to `changes`. Keep what is returned: it holds the listeners.
    pub(crate) fn start(
        self,
        endpoints: &Rc<Endpoints>,
        open: bool,
        changes: &mpsc::Sender<Change>,
    ) -> Result<Self, Failure> {
        // It answers until the process ends, also while the data path drains, and is not counted with the data path.
        let worker = Worker::new(
            &self.lifecycle,
            &Registry::default(),
            &Connections::at_most(CONNECTIONS),
        );
        tokio::task::spawn_local(Rc::clone(&worker).watch());
        let limits = HttpLimits::from_values(&Values::gather(
            HttpLimits::PARAMS.iter(),
            &|_| vec![],
            &|_| None,
        ))?;
        let doors = [(Some(&self.tcp), false), (self.socket.as_ref(), true)];
        for (listener, socket) in doors
            .into_iter()
            .filter_map(|(listener, socket)| Some((listener?, socket)))
        {
            let port = listener
                .take()
                .map_err(|cause| Failure::runtime("starting the admin server", cause))?;
            let handler = Door {
                endpoints: Rc::clone(endpoints),
                open,
                socket,
                changes: changes.clone(),
            };
            let local = Rc::new(Local::new(handler, limits.clone()));
            let worker = Rc::clone(&worker);
            tokio::task::spawn_local(async move {
                let ended: io::Result<()> = accept(port, worker, local).await;
                if let Err(error) = ended {
                    tracing::error!(why = %error, "the admin server ended");
                }
            });
        }
        Ok(self)
    }

    /// Another process answers from now on. Returns when what is in flight was answered.
    pub(crate) async fn leave(&self) {
        self.lifecycle.advance(Phase::Draining);
        drop(tokio::time::timeout(FAREWELL, self.lifecycle.idle()).await);
    }
}

/// One of the admin server's listeners.
struct Door {
    endpoints: Rc<Endpoints>,
    open: bool,
    socket: bool,
    changes: mpsc::Sender<Change>,
}

impl Door {
    fn peer(&self, request: &Request<'_>) -> Peer {
        match self.socket {
            true => Peer::Socket,
            false if self.open => Peer::Near,
            false if request.peer().is_local() && host_is_local(request.host()) => Peer::Near,
            false => Peer::Far,
        }
    }
}

impl Handler for Door {
    fn handle<'a>(&'a self, request: Request<'a>) -> Answer<'a> {
        let peer = self.peer(&request);
        let query = crate::module::Query {
            path: request.path(),
            query: request.query(),
            accept: request.header("accept").unwrap_or_default(),
        };
        Box::pin(async move {
            let answer = match request.method() {
                "GET" | "HEAD" => self.endpoints.get(&query, peer),
                "POST" => {
                    let (answer, change) = self.endpoints.post(&query, peer);
                    if let Some(change) = change
                        && self.changes.try_send(change).is_err()
                    {
                        tracing::debug!("asked for again before the last was done");
                    }
                    answer
                }
                _ => return Response::method_not_allowed("GET, HEAD, POST"),
            };
            Response::bytes(answer.status, answer.content_type, answer.body)
                .header("Cache-Control", "no-store")
                .header("X-Content-Type-Options", "nosniff")
                .header("Content-Security-Policy", POLICY)
        })
    }
}

/// Pages load nothing from elsewhere and are not framed. A page may narrow it by a policy of its own.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self' 'unsafe-inline'; \
                      connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'";

/// Whether a Host is one that no foreign web site can have: an address, or `localhost`.
pub fn host_is_local(host: Option<&str>) -> bool {
    let Some(host) = host else { return true };
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            let ip = rest.split_once(']').map_or("", |(ip, _)| ip);
            return ip.parse::<std::net::Ipv6Addr>().is_ok();
        }
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::Ipv4Addr>().is_ok()
}
