//! What a module is to the rest: its surface, how it is built, and what the driver and the admin server ask of it.

mod driver;
mod takeover;

pub use driver::run;

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use podkit_foundation::error::Failure;
use podkit_foundation::lifecycle::Lifecycle;
use podkit_foundation::params::Values;
use podkit_foundation::telemetry::metrics::Registry;

use crate::net::Listeners;

/// A module in the registry: what it shows and how it comes to be.
#[derive(Clone, Copy)]
pub struct Module {
    /// Its surface, as `explain` shows it.
    pub spec: &'static podkit_foundation::surface::ModuleSpec,
    /// Checks the parameters (a `Usage` failure, exit 2), binds the listeners (a `Runtime` failure, exit 1), starts
    /// nothing. Runs inside the main thread's tokio runtime.
    pub build: Build,
}

/// How a module comes to be.
pub type Build = fn(&Values, &Setup) -> Result<Rc<dyn Service>, Failure>;

/// What a module is built with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The process's phases and what is in flight.
    pub lifecycle: Lifecycle,
    /// The process's metrics.
    pub metrics: Registry,
    /// `--workers`: threads for the data path.
    pub workers: usize,
    /// Where listeners are bound.
    pub listeners: Listeners,
    /// `--admin`, so that a module can put its pages there.
    pub admin: podkit_foundation::params::Addr,
    /// `--drain-timeout`: what a part that ends before the process gets too.
    pub drain_timeout: Duration,
    /// Gives back what the work until now needed of the program and what is to come does not; called by itself when the module has
    /// started, and by a module that does much at once and then nothing for long (see [`crate::net::ebb`]).
    pub settled: fn(),
}

/// What is done once.
pub type Once = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// A module that is built. Everything here runs on the main thread; workers are threads of its own.
pub trait Service {
    /// Starts accepting: spawns its tasks (`tokio::task::spawn_local`) and worker threads, which watch the lifecycle:
    /// they stop accepting at `Draining` and cut at `Stopped`. Errors end the process with exit 1.
    fn start(self: Rc<Self>) -> Result<(), Failure>;

    /// Asked first. What is to be done once instead of serving: the process ends with it, without an admin server.
    fn once(&self) -> Option<Once> {
        None
    }

    /// SIGHUP: reads certificates, lists and files again. On an error the old state stays and the line is logged,
    /// counted, and shown on `/`.
    fn reload(&self) -> Result<(), String>;

    /// What `/readyz` depends on besides the lifecycle: name, and why not when it isn't ready.
    fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        Vec::new()
    }

    /// The state and live figures for the page at `/`.
    fn page(&self) -> Vec<Section>;

    /// Admin endpoints besides those of the contract, tried in order before them (`/` too).
    fn routes(&self) -> Vec<Route> {
        Vec::new()
    }

    /// What changes the module's state, by POST: served on `--admin-socket` only.
    fn actions(&self) -> Vec<Route> {
        Vec::new()
    }
}

/// A part of the page at `/`: a heading and rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// Names of the columns; empty for a list of name and value.
    pub columns: Vec<String>,
    /// The cells.
    pub rows: Vec<Vec<String>>,
    /// A line that needs attention, shown first (a certificate that was refused, and why).
    pub alert: Option<String>,
}

/// An admin endpoint of a module's own.
pub struct Route {
    /// The exact path; one that ends in `/` covers what is below it.
    pub path: &'static str,
    /// The answer. Served to loopback peers only (or with `--admin-open`); of an action, to `--admin-socket` only.
    pub answer: Rc<dyn Fn(&Query<'_>) -> Answer>,
}

/// What was asked of an admin endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The path, undecoded.
    pub path: &'a str,
    /// What follows the `?`, undecoded; empty when absent.
    pub query: &'a str,
    /// The Accept header, empty when absent.
    pub accept: &'a str,
}

/// An answer of an admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The Content-Type.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}
