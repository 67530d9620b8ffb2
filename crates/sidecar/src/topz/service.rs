//! The module: parameters in, a thread that looks, pages on the admin server or on a listener of their own.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use podkit_dataplane::admin::{POLICY, host_is_local};
use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::local::{self, BodyUse, Handler, Local, Request, Response};
use podkit_dataplane::module::{Answer, Query, Route, Section, Service, Setup};
use podkit_dataplane::net::{Connections, Listener, ListenerLimits, Worker, accept};
use podkit_foundation::error::Failure;
use podkit_foundation::lifecycle::Lifecycle;
use podkit_foundation::params::{Addr, ParamError, ParamSet as _, Size, Values};
use podkit_foundation::surface::common::Common;
use podkit_foundation::telemetry::metrics::Registry;

use super::params::Params;
use super::procfs::Proc;
use super::ring::Ring;
use super::watch::{Places, Shared, Watcher, check_pod_state, now};
use super::{metrics, pages};

/// Reads the parameters, opens `/proc`, binds the listener where there is one.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::from_values(values)?;
    let open = Common::from_values(values)?.admin_open;
    let door = Door::choose(&params.listen, &setup.admin, open)?;
    let listener_limits = ListenerLimits::from_values(values)?;
    if door == Door::Admin && listener_limits.max_connections_per_ip > 0 {
        let why = "needs a --listen that is not the admin server's, which has its own bounds";
        return Err(ParamError::new("max_connections_per_ip", why).into());
    }
    let listener = match door {
        Door::Admin => None,
        Door::Own => Some(setup.listeners.bind("listen", &params.listen, 1)?),
    };
    let places = Places {
        proc: PathBuf::from("/proc"),
        cgroup: PathBuf::from("/sys/fs/cgroup"),
        pod_state: params.pod_state.clone(),
    };
    let failed = |error| Failure::runtime("opening /proc", error);
    let span_ms = u64::try_from(params.history.as_millis()).unwrap_or(u64::MAX);
    let limit = usize::try_from(params.history_memory.0).unwrap_or(usize::MAX);
    let ring = Ring::new(span_ms, limit);
    let watcher = Watcher::new(&places, ring, params.max_processes as usize).map_err(failed)?;
    let shared = watcher.shared();
    let for_metrics = shared.clone();
    setup.metrics.collect(move |encoder| {
        let seen = for_metrics.lock();
        metrics::encode(encoder, &seen.source(now()), seen.cost);
    });
    let pages = Rc::new(Pages {
        shared,
        door,
        proc: Proc::open(&places.proc).map_err(failed)?,
    });
    Ok(Rc::new(Topz {
        interval: params.interval,
        listener_limits,
        listen: params.listen,
        pod_state: params.pod_state,
        pages,
        start: RefCell::new(Some((watcher, listener))),
        lifecycle: setup.lifecycle.clone(),
        metrics: setup.metrics.clone(),
        listener: RefCell::new(None),
        stop: RefCell::new(None),
    }))
}

/// Who serves the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// The admin server: `--listen` is an address of its own.
    Admin,
    /// A listener.
    Own,
}

impl Door {
    /// Decides. The admin server shows pages to the loopback only, unless it is open: where `--listen` asks for more
    /// than that on the admin server's port, it can't have it, and must hear so.
    pub(super) fn choose(listen: &Addr, admin: &Addr, open: bool) -> Result<Self, Failure> {
        let admin_covers = listen == admin
            || listen.port().is_some()
                && listen.port() == admin.port()
                && match admin {
                    Addr::Port(_) => true,
                    Addr::Ip(ip, _) => {
                        ip.is_unspecified() || is_loopback(admin) && is_loopback(listen)
                    }
                    Addr::Name(..) => is_loopback(admin) && is_loopback(listen),
                    Addr::Unix(_) => false,
                };
        // Port 0 is a port of the kernel's choice: never the same twice.
        if !admin_covers || listen.port() == Some(0) {
            return Ok(Self::Own);
        }
        if open || is_loopback(listen) || matches!(listen, Addr::Unix(_)) {
            return Ok(Self::Admin);
        }
        Err(Failure::Usage(format!(
            "--listen (PODKIT_LISTEN) {listen} has the port of --admin {admin}, which shows processes to the loopback \
             only; expected another port, an address on the loopback, or --admin-open"
        )))
    }
}

fn is_loopback(addr: &Addr) -> bool {
    match addr {
        Addr::Ip(ip, _) => ip.is_loopback(),
        Addr::Name(name, _) => name == "localhost",
        Addr::Port(_) | Addr::Unix(_) => false,
    }
}

/// The endpoints, on whichever server.
struct Pages {
    shared: Shared,
    proc: Proc,
    door: Door,
}

impl Pages {
    fn answer(&self, query: &Query<'_>) -> Answer {
        pages::answer(&self.shared, &self.proc, self.door, query, now())
    }
}

/// The running module.
struct Topz {
    listener_limits: ListenerLimits,
    interval: Duration,
    listen: Addr,
    pod_state: PathBuf,
    pages: Rc<Pages>,
    /// What `start` takes: who looks, and the listener where there is one.
    start: RefCell<Option<(Watcher, Option<Listener>)>>,
    lifecycle: Lifecycle,
    metrics: Registry,
    /// Held for as long as it is accepted from.
    listener: RefCell<Option<Listener>>,
    /// Dropped at the end: then the thread that looks ends too.
    stop: RefCell<Option<mpsc::Sender<()>>>,
}

impl Service for Topz {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        let Some((watcher, listener)) = self.start.borrow_mut().take() else {
            return Ok(());
        };
        let (stop, stopped) = mpsc::channel::<()>();
        self.stop.replace(Some(stop));
        let interval = self.interval;
        // It goes on until the sender is gone; nothing is ever sent.
        let rest = move |time| {
            matches!(
                stopped.recv_timeout(time),
                Err(mpsc::RecvTimeoutError::Timeout)
            )
        };
        let thread = std::thread::Builder::new()
            .name("topz-look".to_owned())
            .stack_size(256 * 1024);
        let spawned = thread.spawn(move || watcher.run(interval, rest));
        spawned.map_err(|error| Failure::runtime("starting the thread that looks", error))?;
        if let Some(listener) = listener {
            self.serve(&listener)?;
            self.listener.replace(Some(listener));
        }
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        // The pod state is followed as it is replaced; whoever asks hears whether it can be used.
        check_pod_state(&self.pod_state)
    }

    fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        let seen = self.pages.shared.lock();
        let patience = (self.interval * 5).max(Duration::from_secs(10));
        let looks = match seen.age_ms(now()).map(Duration::from_millis) {
            None => Err("no look was taken yet".to_owned()),
            Some(age) if age > patience => {
                Err(format!("the last look was {} s ago", age.as_secs()))
            }
            Some(_) => Ok(()),
        };
        vec![("looks", looks)]
    }

    fn page(&self) -> Vec<Section> {
        // The admin page when the live page is elsewhere.
        let seen = self.pages.shared.lock();
        let history = seen.source(now()).history();
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        vec![Section {
            title: "Processes".to_owned(),
            columns: Vec::new(),
            rows: vec![
                row("the live page", format!("on --listen {}", self.listen)),
                row(
                    "history",
                    format!("{:.0} s of {:.0} s", history.seconds, history.seconds_max),
                ),
                row(
                    "its memory",
                    format!(
                        "{} of {}",
                        Size(history.bytes as u64),
                        Size(history.bytes_max as u64)
                    ),
                ),
                row(
                    "CPU time of looks",
                    format!("{:.2} s", seen.cost.cpu_seconds),
                ),
            ],
            alert: seen.trouble.clone(),
        }]
    }

    fn routes(&self) -> Vec<Route> {
        if self.pages.door == Door::Own {
            return Vec::new();
        }
        let route = |path: &'static str| {
            let pages = Rc::clone(&self.pages);
            Route {
                path,
                answer: Rc::new(move |query| pages.answer(query)),
            }
        };
        pages::PATHS.iter().map(|path| route(path)).collect()
    }
}

impl Topz {
    /// Accepts on the module's own listener, on this thread: pages are few and small.
    fn serve(&self, listener: &Listener) -> Result<(), Failure> {
        let failed = |error| Failure::runtime("listening", error);
        let limits = limits();
        let worker = Worker::new(
            &self.lifecycle,
            &self.metrics,
            &Connections::new(limits.connections(), &self.listener_limits, &[]),
        );
        drop(tokio::task::spawn_local(Rc::clone(&worker).watch()));
        let port = listener.take().map_err(failed)?;
        let handler = OwnDoor {
            pages: Rc::clone(&self.pages),
            by_name: !is_loopback(&self.listen),
        };
        let local = Rc::new(Local::new(handler, limits));
        drop(tokio::task::spawn_local(accept(port, worker, local)));
        Ok(())
    }
}

/// The bounds of the module's own listener.
fn limits() -> HttpLimits {
    HttpLimits::of_pages(128, Duration::from_secs(60))
}

/// The listener's handler.
struct OwnDoor {
    pages: Rc<Pages>,
    /// May be asked for by any host name, since others than this machine reach it.
    by_name: bool,
}

impl Handler for OwnDoor {
    fn handle<'a>(&'a self, request: Request<'a>) -> local::Answer<'a> {
        let response = self.respond(&request);
        Box::pin(std::future::ready(response))
    }

    fn body_use(&self) -> BodyUse {
        BodyUse::Collect(0)
    }
}

impl OwnDoor {
    fn respond(&self, request: &Request<'_>) -> Response {
        if !matches!(request.method(), "GET" | "HEAD") {
            return Response::method_not_allowed("GET, HEAD");
        }
        // A web site could point a name of its own at 127.0.0.1 and read the page through its visitor's browser.
        if !self.by_name && !host_is_local(request.host()) {
            return Response::text(403, "ask for this by an IP address or as localhost\n");
        }
        let query = Query {
            path: request.path(),
            query: request.query(),
            accept: request.header("Accept").unwrap_or_default(),
        };
        let Answer {
            status,
            content_type,
            body,
        } = self.pages.answer(&query);
        Response::bytes(status, content_type, body)
            .header("Cache-Control", "no-store")
            .header("X-Content-Type-Options", "nosniff")
            .header("Content-Security-Policy", POLICY)
    }
}
