//! The module: parameters in, listeners bound, workers that answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http::local::{Answer, BodyUse, Handler, Local, Request, Response};
use podkit_dataplane::module::{Section, Service, Setup};
use podkit_dataplane::net::{Connections, Listener, ListenerLimits, Workers, accept};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamSet as _, Values};
use podkit_foundation::telemetry::metrics::Counter;

use super::REQUESTS;
use super::answer::{Manner, answer};
use super::params::Params;

/// Checks the parameters and binds the listeners.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::from_values(values)?;
    let limits = HttpLimits::from_values(values)?;
    let listener_limits = ListenerLimits::from_values(values)?;
    let bind = |addr| setup.listeners.bind("listen", addr, setup.workers);
    let listeners = params
        .listen
        .iter()
        .map(bind)
        .collect::<Result<Vec<_>, _>>()?;
    let manner = Manner {
        delay: params.delay,
        status: params.status,
        size: params.body_size,
    };
    let name = rustix::system::uname();
    let echo = Echo {
        manner,
        host: name.nodename().to_string_lossy().into(),
        requests: setup.metrics.counter(REQUESTS.name, REQUESTS.doc, &[]),
    };
    let plan = Arc::new(Plan {
        echo,
        limits,
        listener_limits,
        listeners,
    });
    Ok(Rc::new(Running {
        plan,
        setup: setup.clone(),
        workers: RefCell::new(None),
    }))
}

/// What each worker is made from.
struct Plan {
    echo: Echo,
    limits: HttpLimits,
    listener_limits: ListenerLimits,
    listeners: Vec<Listener>,
}

/// The running module.
struct Running {
    plan: Arc<Plan>,
    setup: Setup,
    workers: RefCell<Option<Workers>>,
}

impl Service for Running {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        let (plan, setup) = (Arc::clone(&self.plan), &self.setup);
        let connections = Connections::new(plan.limits.connections(), &plan.listener_limits, &[]);
        let workers = Workers::start(
            "echo",
            setup.workers,
            &setup.lifecycle,
            &setup.metrics,
            &connections,
            move |worker| {
                let local = Rc::new(Local::new(plan.echo.clone(), plan.limits.clone()));
                for listener in &plan.listeners {
                    let serving = accept(listener.take()?, Rc::clone(worker), Rc::clone(&local));
                    drop(tokio::task::spawn_local(serving));
                }
                Ok(())
            },
        )?;
        self.workers.replace(Some(workers));
        Ok(())
    }

    /// There is nothing that could be read again.
    fn reload(&self) -> Result<(), String> {
        Ok(())
    }

    fn page(&self) -> Vec<Section> {
        let Manner {
            delay,
            status,
            size,
        } = self.plan.echo.manner;
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let body = size.map_or("what was asked".to_owned(), |size| {
            format!("{size} bytes of filler")
        });
        let answers = Section {
            title: "Answers".to_owned(),
            columns: Vec::new(),
            rows: vec![
                row("Status", status.to_string()),
                row("Delay", format!("{delay:?}")),
                row("Body", body),
                row(
                    "Requests answered",
                    self.plan.echo.requests.get().to_string(),
                ),
                row(
                    "Connections so far",
                    self.setup.lifecycle.begun().to_string(),
                ),
            ],
            alert: None,
        };
        vec![answers]
    }
}

/// Answers requests.
#[derive(Clone)]
struct Echo {
    manner: Manner,
    host: Arc<str>,
    requests: Counter,
}

impl Handler for Echo {
    fn handle<'a>(&'a self, request: Request<'a>) -> Answer<'a> {
        Box::pin(async move {
            self.requests.inc();
            let manner = match self.manner.with_query(request.query()) {
                Ok(manner) => manner,
                Err(why) => return Response::text(400, why),
            };
            if !manner.delay.is_zero() {
                tokio::time::sleep(manner.delay).await;
            }
            answer(&request, manner, &self.host)
        })
    }

    fn body_use(&self) -> BodyUse {
        BodyUse::Count
    }
}
