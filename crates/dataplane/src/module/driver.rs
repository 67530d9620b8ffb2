//! The life of a module's process, from its parameters to its exit code: config, bind, build, run, drain with a
//! deadline. Every module is driven by this one function, so every module keeps the contract the same way.

use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use podkit_foundation::error::Failure;
use podkit_foundation::lifecycle::{Lifecycle, Phase};
use podkit_foundation::params::{ParamSet as _, Values, unknown_variables};
use podkit_foundation::secret::masked;
use podkit_foundation::surface::common::{Common, DataPath, generation};
use podkit_foundation::telemetry::log::{self, LogFormat};
use podkit_foundation::telemetry::metrics::{Counter, Gauge, Kind, Registry};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::takeover::{self, Former};
use super::{Module, Service, Setup};
use crate::admin::{self, Change, Endpoints};
use crate::net::Listeners;

/// Runs a module to its end. What is wrong at the start goes to standard error as one line. `settled` is called once,
/// when the module serves.
pub fn run(module: &'static Module, values: &Values, settled: fn()) -> ExitCode {
    match drive(module, values, settled) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("podkit {}: {failure}", module.spec.name);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn drive(module: &'static Module, values: &Values, settled: fn()) -> Result<ExitCode, Failure> {
    let common = Common::from_values(values)?;
    let (workers, takeover) = match module.spec.data_path {
        true => {
            let params = DataPath::from_values(values)?;
            (params.workers, params.takeover)
        }
        false => (None, None),
    };
    let by_terminal = if std::io::stderr().is_terminal() {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    log::init(
        module.spec.name,
        common.log_level,
        common.log_format.unwrap_or(by_terminal),
    );
    warn_of_unknown_variables(module);
    let setup = Setup {
        lifecycle: Lifecycle::new(),
        metrics: Registry::default(),
        workers: workers.map_or_else(crate::net::default_workers, |count| count as usize),
        listeners: Listeners::default(),
        admin: common.admin.clone(),
        drain_timeout: common.drain_timeout,
        settled,
    };
    let former = match &takeover {
        None => None,
        Some(path) => {
            setup.listeners.keep();
            Former::find(path, module.spec.name, &setup.listeners)?
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::runtime("starting", cause))?;
    let start = Start {
        module,
        values,
        common: &common,
        setup: &setup,
        takeover: takeover.as_deref(),
        former,
    };
    tokio::task::LocalSet::new().block_on(&runtime, live(start))
}

/// What a process begins with.
struct Start<'a> {
    module: &'static Module,
    values: &'a Values,
    common: &'a Common,
    setup: &'a Setup,
    takeover: Option<&'a Path>,
    /// The process whose place this one takes.
    former: Option<Former>,
}

async fn live(start: Start<'_>) -> Result<ExitCode, Failure> {
    let Start {
        module,
        values,
        common,
        setup,
        ..
    } = start;
    let mut signals = Signals::new().map_err(|cause| Failure::runtime("taking signals", cause))?;
    let service = (module.build)(values, setup)?;
    if let Some(work) = service.once() {
        return tokio::select! {
            done = work => done.map(|()| ExitCode::SUCCESS),
            () = signals.stop() => Err(Failure::Runtime("told to stop before it was done".to_owned())),
        };
    }
    let reloads = Reloads::new(module, values, setup);
    let endpoints = Rc::new(Endpoints {
        spec: module.spec,
        service: Rc::clone(&service),
        routes: service.routes(),
        actions: service.actions(),
        lifecycle: setup.lifecycle.clone(),
        metrics: setup.metrics.clone(),
        values: values.clone(),
        started: Instant::now(),
        refused: RefCell::new(None),
    });
    let (changes, mut asked) = mpsc::channel(1);
    let admin = admin::bind(common, &setup.listeners)?;
    let admin = admin.start(&endpoints, common.admin_open, &changes)?;
    Rc::clone(&service).start()?;
    if start.former.is_some() {
        // Until then the former one serves, and nothing is accepted here.
        tokio::select! {
            able = takeover::able(service.as_ref()) => able?,
            _ = signals.stop() => return Ok(ExitCode::SUCCESS),
        }
    }
    setup.listeners.open();
    setup.lifecycle.advance(Phase::Ready);
    if let Some(former) = start.former {
        former.dismiss();
    }
    let offer = |path| takeover::offer(path, module.spec.name, &setup.listeners, changes.clone());
    let _offered = start.takeover.map(offer).transpose()?;
    info!(version = podkit_foundation::VERSION, admin = %common.admin, workers = setup.workers, "started");
    (setup.settled)();
    loop {
        let change = tokio::select! {
            change = signals.next() => change,
            Some(change) = asked.recv() => change,
        };
        match change {
            Change::Reload => reloads.reload(service.as_ref(), &endpoints),
            Change::Drain => break,
            Change::HandOver => {
                setup.listeners.leave();
                let drained = drain(common, setup, &mut signals);
                return Ok(tokio::join!(drained, admin.leave()).0);
            }
        }
    }
    Ok(drain(common, setup, &mut signals).await)
}

/// Lame duck, then draining, then the end. A second SIGTERM skips what is left of the present step.
async fn drain(common: &Common, setup: &Setup, signals: &mut Signals) -> ExitCode {
    let lifecycle = &setup.lifecycle;
    info!(in_flight = lifecycle.in_flight(), "stopping");
    lifecycle.advance(Phase::LameDuck);
    tokio::select! {
        () = tokio::time::sleep(common.lame_duck) => {}
        () = signals.stop() => {}
    }
    lifecycle.advance(Phase::Draining);
    setup.listeners.close();
    tokio::select! {
        () = lifecycle.idle() => {}
        () = tokio::time::sleep(common.drain_timeout) => {}
        () = signals.stop() => {}
    }
    let cut = lifecycle.in_flight();
    lifecycle.advance(Phase::Stopped);
    match cut {
        0 => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        cut => {
            warn!(cut, "stopped; what was still in flight was cut");
            ExitCode::FAILURE
        }
    }
}

/// The contract's signals, as changes.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Change {
        tokio::select! {
            _ = self.hangup.recv() => Change::Reload,
            _ = self.terminate.recv() => Change::Drain,
            _ = self.interrupt.recv() => Change::Drain,
        }
    }

    /// The next SIGTERM or SIGINT.
    async fn stop(&mut self) {
        while self.next().await != Change::Drain {}
    }
}

/// The contract's account of reloads.
struct Reloads {
    taken: Counter,
    refused: Counter,
    generation: Gauge,
    at: Gauge,
    good: Gauge,
}

impl Reloads {
    fn new(module: &'static Module, values: &Values, setup: &Setup) -> Self {
        let metrics = &setup.metrics;
        let help = "Reloads asked for by signal or socket.";
        let count = |result| metrics.counter("podkit_reloads_total", help, &[("result", result)]);
        let reloads = Self {
            taken: count("success"),
            refused: count("failure"),
            generation: generation(metrics),
            at: metrics.gauge(
                "podkit_last_reload_timestamp_seconds",
                "Unix time of the last reload taken.",
                &[],
            ),
            good: metrics.gauge(
                "podkit_last_reload_success",
                "1 when the last reload was taken.",
                &[],
            ),
        };
        reloads.generation.set(1);
        reloads.at.set(unix_now());
        reloads.good.set(1);
        let (lifecycle, name, hash) = (
            setup.lifecycle.clone(),
            module.spec.name,
            format!("{:016x}", values.hash()),
        );
        metrics.collect(move |encoder| {
            encoder.family("podkit_build_info", Kind::Info, "This build.");
            let build = [("module", name), ("version", podkit_foundation::VERSION)];
            encoder.sample("podkit_build_info", &build, 1.0);
            encoder.family(
                "podkit_config_info",
                Kind::Info,
                "Hash of the parameters in force.",
            );
            encoder.sample("podkit_config_info", &[("hash", &hash)], 1.0);
            encoder.family(
                "podkit_ready",
                Kind::Gauge,
                "1 while the process serves and is not stopping.",
            );
            let ready = lifecycle.phase() == Phase::Ready;
            encoder.sample("podkit_ready", &[], f64::from(u8::from(ready)));
            encoder.family("podkit_in_flight", Kind::Gauge, "Connections in flight.");
            let in_flight = u32::try_from(lifecycle.in_flight()).unwrap_or(u32::MAX);
            encoder.sample("podkit_in_flight", &[], f64::from(in_flight));
            admin::process_metrics(encoder);
        });
        reloads
    }

    fn reload(&self, service: &dyn Service, endpoints: &Endpoints) {
        let before = self.generation.get();
        match service.reload() {
            Ok(()) => {
                self.taken.inc();
                // What has changed was counted by who took it into force.
                if self.generation.get() == before {
                    self.generation.add(1);
                }
                self.at.set(unix_now());
                self.good.set(1);
                endpoints.refused.replace(None);
                info!("reloaded");
            }
            Err(why) => {
                let why = masked(&why).into_owned();
                self.refused.inc();
                self.good.set(0);
                error!(why, "reload refused; the old state stays");
                endpoints.refused.replace(Some(why));
            }
        }
    }
}

fn unix_now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn warn_of_unknown_variables(module: &Module) {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (name, near) in unknown_variables(module.spec.all_params().iter(), names) {
        match near {
            Some(near) => warn!(
                name,
                near, "no parameter has this variable; did you mean the near one?"
            ),
            None => warn!(name, "no parameter has this variable"),
        }
    }
}
