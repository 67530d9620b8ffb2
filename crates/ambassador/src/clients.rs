//! Towards clients: what an ambassador listens on, and the threads that serve those who come.

use std::io;
use std::rc::Rc;

use podkit_dataplane::module::Setup;
use podkit_dataplane::net::{
    Connections, Listener, ListenerLimits, Serve, Worker, Workers, accept, coalesce, ebb,
};
use podkit_dataplane::resp::RespLimits;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Addr, ParamSet as _, Values};

/// Where clients come, and how much of them is borne.
#[derive(Debug)]
pub(crate) struct Clients {
    listeners: Vec<Listener>,
    listener_limits: ListenerLimits,
    pub(crate) limits: RespLimits,
}

impl Clients {
    /// Binds `listen`, and reads the bounds.
    pub(crate) fn bind(listen: &[Addr], values: &Values, setup: &Setup) -> Result<Self, Failure> {
        let (limits, listener_limits) = (
            RespLimits::from_values(values)?,
            ListenerLimits::from_values(values)?,
        );
        let bind = |addr| setup.listeners.bind("listen", addr, setup.workers);
        Ok(Self {
            listeners: listen.iter().map(bind).collect::<Result<_, _>>()?,
            listener_limits,
            limits,
        })
    }

    /// Starts the threads of `module`; each calls `begin`, which is to [`serve`](Self::serve).
    pub(crate) fn start(
        &self,
        module: &'static str,
        setup: &Setup,
        begin: impl Fn(&Rc<Worker>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Workers, Failure> {
        let most = self.limits.max_connections as usize;
        let connections = Connections::new(most, &self.listener_limits, &[]);
        let settled = setup.settled;
        let (how, metrics) = (self.limits.coalesce, setup.metrics.clone());
        let begin = move |worker: &Rc<Worker>| {
            coalesce(how, &metrics);
            drop(tokio::task::spawn_local(ebb(settled)));
            begin(worker)
        };
        Workers::start(
            module,
            setup.workers,
            &setup.lifecycle,
            &setup.metrics,
            &connections,
            begin,
        )
    }

    /// On a worker's thread: `front` serves those who come.
    pub(crate) fn serve<S: Serve>(&self, worker: &Rc<Worker>, front: &Rc<S>) -> io::Result<()> {
        for listener in &self.listeners {
            let (port, worker, front) = (listener.take()?, Rc::clone(worker), Rc::clone(front));
            drop(tokio::task::spawn_local(async move {
                if let Err(error) = accept(port, worker, front).await {
                    tracing::error!(why = %error, "a listener ended");
                }
            }));
        }
        Ok(())
    }

    /// The first port that is listened on, if there is one.
    pub(crate) fn port(&self) -> Option<u16> {
        self.listeners.iter().find_map(Listener::port)
    }

    /// How many are there, for the page.
    pub(crate) fn open(&self, setup: &Setup) -> String {
        let open = setup.lifecycle.in_flight();
        format!("{open} of at most {}", self.limits.max_connections)
    }
}
