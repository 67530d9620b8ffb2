//! The module: parameters in, listeners bound, workers that shake hands and forward.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::local::Local;
use podkit_dataplane::http::proxy::{
    Forward, ForwardSettings, HttpMetrics, Proxy, ProxySettings, Route, Trust,
};
use podkit_dataplane::http::stage::Stages;
use podkit_dataplane::http2::{HTTP2, Http2Limits};
use podkit_dataplane::module::{Section, Service, Setup};
use podkit_dataplane::net::{
    AcceptProxy, Accepted, Connections, Listener, ListenerLimits, Path, Peer, Port, SendProxy,
    Serve, Transport, Worker, Workers, accept, tunnel,
};
use podkit_dataplane::tls::{
    Certificate, HTTP1, Reason, ServerTls, TlsParams, TlsStream, UpstreamTls, forwarded_client_cert,
};
use podkit_dataplane::upstream::{Cluster, Outward, Pool, Target, UpstreamLimits, UpstreamMetrics};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamSet as _, Values};

use super::page;
use super::params::{Mode, Params};
use super::redirect::Redirect;

/// Checks the parameters, loads the certificates, binds the listeners.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::checked(values)?;
    let limits = HttpLimits::from_values(values)?;
    let http2 = Http2Limits::from_values(values)?;
    let listener_limits = ListenerLimits::from_values(values)?;
    let upstream_limits = UpstreamLimits::from_values(values)?;
    let tls_params = TlsParams::from_values(values)?;
    let target = params.target()?;
    let protocols = match params.mode {
        Mode::Http if http2.http2 => HTTP2,
        Mode::Http => HTTP1,
        // Whatever the application speaks, it is not ours to choose.
        Mode::Tcp => &[],
    };
    let upstream_tls = UpstreamTls::if_needed(values, target.is_tls(), &setup.metrics)?;
    let tls = match params.originate {
        true => None,
        false => Some(ServerTls::new(&tls_params, protocols, &setup.metrics)?),
    };

    let bind = |addr| setup.listeners.bind("listen", addr, setup.workers);
    let listeners = params
        .listen
        .iter()
        .map(bind)
        .collect::<Result<Vec<_>, _>>()?;
    let bind = |addr| setup.listeners.bind("redirect_from", addr, setup.workers);
    let redirect = params.redirect_from.as_ref().map(bind).transpose()?;
    let listening = listeners.iter().find_map(Listener::port);
    let rules = tls_params.allow_san.iter().map(ToString::to_string);
    let rules = rules.chain(tls_params.allow_cn.iter().map(ToString::to_string));
    Ok(Rc::new(Tls {
        rules: rules.collect(),
        plan: Arc::new(Plan {
            public_port: params.redirect_port.or(listening),
            params,
            limits,
            http2,
            listener_limits,
            upstream_limits,
            target,
            tls,
            upstream_tls,
            listeners,
            redirect,
            upstream_metrics: UpstreamMetrics::new(&setup.metrics),
            http_metrics: HttpMetrics::new(&setup.metrics),
        }),
        setup: setup.clone(),
        workers: RefCell::new(None),
    }))
}

/// What each worker is made from.
#[derive(Debug)]
struct Plan {
    params: Params,
    limits: HttpLimits,
    http2: Http2Limits,
    listener_limits: ListenerLimits,
    upstream_limits: UpstreamLimits,
    target: Target,
    /// None when it is originated only.
    tls: Option<ServerTls>,
    upstream_tls: Option<UpstreamTls>,
    listeners: Vec<Listener>,
    redirect: Option<Listener>,
    /// The port that clients come to.
    public_port: Option<u16>,
    upstream_metrics: UpstreamMetrics,
    http_metrics: HttpMetrics,
}

/// The running module.
struct Tls {
    plan: Arc<Plan>,
    /// Who is let in, for the page.
    rules: Vec<String>,
    setup: Setup,
    workers: RefCell<Option<Workers>>,
}

impl Service for Tls {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        let plan = Arc::clone(&self.plan);
        let connections = Connections::new(
            plan.limits.connections(),
            &plan.listener_limits,
            &plan.params.accept_proxy,
        );
        let workers = Workers::start(
            "tls",
            self.setup.workers,
            &self.setup.lifecycle,
            &self.setup.metrics,
            &connections,
            move |worker| plan.start(worker),
        )?;
        *self.workers.borrow_mut() = Some(workers);
        if let Some(tls) = &self.plan.tls {
            drop(tokio::task::spawn_local(tls.clone().watch()));
        }
        if let Some(tls) = &self.plan.upstream_tls {
            drop(tokio::task::spawn_local(tls.clone().watch()));
        }
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        let served = self.plan.tls.as_ref().map(ServerTls::reload);
        let spoken = self.plan.upstream_tls.as_ref().map(UpstreamTls::reload);
        let faults = [served, spoken].into_iter().flatten();
        let lines: Vec<String> = faults.filter_map(Result::err).collect();
        match lines.is_empty() {
            true => Ok(()),
            false => Err(lines.join("; ")),
        }
    }

    fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        let tls = self.plan.tls.iter();
        tls.map(|tls| ("certificate", tls.usable())).collect()
    }

    fn page(&self) -> Vec<Section> {
        let plan = &self.plan;
        let view = plan.tls.as_ref().map(ServerTls::view);
        let mut sections = Vec::new();
        if let Some(view) = &view {
            sections.push(page::certificates(view, SystemTime::now()));
            sections.extend(page::clients(view, &self.rules));
        }
        sections.push(self.application());
        let open = self.setup.lifecycle.in_flight();
        let mut live = vec![
            (
                "Connections open",
                format!("{open} of at most {}", plan.limits.connections()),
            ),
            (
                "Connections so far",
                self.setup.lifecycle.begun().to_string(),
            ),
        ];
        if plan.params.mode == Mode::Http {
            live.push((
                "Requests answered",
                plan.http_metrics.answered().to_string(),
            ));
        }
        if let Some(view) = &view {
            live.push((
                "Handshakes",
                format!("{}, {} of them resumed", view.handshakes, view.resumed),
            ));
            live.push(("Handshakes that failed", view.failed.to_string()));
        }
        sections.push(page::list("Live", live));
        sections
    }
}

impl Tls {
    fn application(&self) -> Section {
        let plan = &self.plan;
        let metric = &UpstreamMetrics::METRICS[0];
        let count = |result: &str| {
            let labels = [("result", result)];
            self.setup
                .metrics
                .counter(metric.name, metric.doc, &labels)
                .get()
        };
        let mut rows = vec![
            ("Upstream", plan.target.addr().to_string()),
            ("Mode", plan.params.mode.word().to_owned()),
            ("Connections opened", count("opened").to_string()),
            ("Connections that failed", count("failed").to_string()),
        ];
        if plan.params.mode == Mode::Http {
            let [client, upstream, podkit] = plan.http_metrics.faulted();
            rows.push(("Requests on kept connections", count("reused").to_string()));
            rows.push((
                "Requests in error",
                format!("{upstream} by the upstream, {client} by clients, {podkit} by podkit"),
            ));
        }
        let mut section = page::list("Application", rows);
        let refusal = plan.upstream_tls.as_ref().and_then(UpstreamTls::refusal);
        section.alert =
            refusal.map(|line| format!("Refused, the former state stays in force: {line}"));
        section
    }
}

impl Plan {
    /// On a worker's thread: its accept loops.
    fn start(&self, worker: &Rc<Worker>) -> std::io::Result<()> {
        let front = Rc::new(self.front());
        let trusted = self.params.accept_proxy.clone();
        for listener in &self.listeners {
            let port = listener.take()?;
            if trusted.is_empty() {
                serve(port, worker, Rc::clone(&front));
            } else {
                let patience = self.limits.head_timeout;
                let front = AcceptProxy::new(trusted.clone(), patience, Rc::clone(&front));
                serve(port, worker, Rc::new(front));
            }
        }
        if let (Some(listener), Some(port)) = (&self.redirect, self.public_port) {
            let local = Local::new(Redirect { port }, self.limits.clone());
            serve(listener.take()?, worker, Rc::new(local));
        }
        Ok(())
    }

    fn front(&self) -> Front {
        let (limits, metrics) = (self.upstream_limits.clone(), self.upstream_metrics.clone());
        let target = self.target.clone();
        let onward = match self.params.mode {
            Mode::Tcp => {
                let idle = limits.tunnel_timeout;
                let pool = Pool::new(target, limits, metrics, self.outward(true));
                Onward::Tcp(pool, idle, self.params.send_proxy)
            }
            Mode::Http => {
                let hsts = self
                    .params
                    .hsts
                    .map(|hsts| format!("Strict-Transport-Security: {}\r\n", hsts.value()));
                let settings = ProxySettings {
                    limits: self.limits.clone(),
                    http2: self.http2.clone(),
                    scheme: if self.tls.is_some() { "https" } else { "http" },
                    port: self.public_port,
                };
                let forward = ForwardSettings {
                    trust: match self.params.trust_forwarded {
                        true => Trust::Everybody,
                        false => Trust::Nobody,
                    },
                    response_fields: hsts.unwrap_or_default(),
                    ..ForwardSettings::default()
                };
                let cluster = Cluster::of(target, limits, metrics, self.outward(false));
                let route = Route::new(Stages::none(), Forward::new(forward, cluster));
                let metrics = self.http_metrics.clone();
                Onward::Http(Proxy::new(settings, Rc::new(route), metrics))
            }
        };
        Front {
            tls: self.tls.clone(),
            patience: self.limits.head_timeout,
            onward,
        }
    }

    fn outward(&self, raw: bool) -> Outward {
        Outward {
            tls: self.upstream_tls.clone(),
            raw,
        }
    }
}

fn serve<S: Serve>(port: Port, worker: &Rc<Worker>, serve: Rc<S>) {
    let worker = Rc::clone(worker);
    drop(tokio::task::spawn_local(async move {
        if let Err(error) = accept(port, worker, serve).await {
            tracing::error!(why = %error, "a listener ended");
        }
    }));
}

/// What a worker does with a connection.
struct Front {
    /// None when clients come in the clear.
    tls: Option<ServerTls>,
    /// For the handshake.
    patience: Duration,
    onward: Onward,
}

/// Where it goes once it is open.
enum Onward {
    Http(Rc<Proxy>),
    Tcp(Rc<Pool>, Duration, Option<SendProxy>),
}

impl Serve for Front {
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted {
            socket,
            peer,
            worker,
            guard,
        } = accepted;
        // Asked only where it is told on.
        let to = match &self.onward {
            Onward::Tcp(_, _, Some(_)) => socket.local_addr(),
            _ => None,
        };
        let Some(tls) = &self.tls else {
            match &self.onward {
                Onward::Http(proxy) => proxy.serve_on(socket, peer, worker, &[]).await,
                Onward::Tcp(..) => self.tunnel(socket, peer, to, &worker).await,
            }
            return drop(guard);
        };
        let handshake = TlsStream::accept(socket, tls.config(), &worker, self.patience);
        let handshake = match handshake.await {
            Ok(handshake) => handshake,
            Err(error) => {
                let reason = Reason::of_io(&error);
                tls.failed(reason);
                return tracing::debug!(%peer, reason = reason.word(), why = %error, "a handshake failed");
            }
        };
        let client = match tls.accepted(handshake.connection()) {
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
        match &self.onward {
            Onward::Http(proxy) => {
                let fields = client.as_ref().map(client_field).unwrap_or_default();
                if http2 {
                    // Boxed, so that the others' tasks have no room for it.
                    let serve = proxy.serve_http2(stream, None, peer, worker, fields.as_bytes());
                    Box::pin(serve).await;
                    return drop(guard);
                }
                proxy
                    .serve_on(stream, peer, worker, fields.as_bytes())
                    .await;
            }
            Onward::Tcp(..) => self.tunnel(stream, peer, to, &worker).await,
        }
        drop(guard);
    }
}

impl Front {
    /// Passes bytes on, whatever they are. `to`: where the client came to.
    async fn tunnel<T: Transport>(
        &self,
        mut io: T,
        peer: Peer,
        to: Option<SocketAddr>,
        worker: &Rc<Worker>,
    ) {
        let Onward::Tcp(pool, idle, send_proxy) = &self.onward else {
            return;
        };
        let proxied = send_proxy.map(|version| (version, Path::between(peer, to)));
        match pool.connect_alone(proxied).await {
            Ok(mut upstream) => {
                // How it ends is for the two sides to know.
                drop(tunnel(&mut io, None, &mut upstream, None, worker, *idle).await);
            }
            Err(error) => {
                tracing::debug!(%peer, upstream = %pool.target().addr(), why = %error, "can't connect");
            }
        }
    }
}

fn client_field(client: &Certificate) -> String {
    format!(
        "X-Forwarded-Client-Cert: {}\r\n",
        forwarded_client_cert(client)
    )
}
