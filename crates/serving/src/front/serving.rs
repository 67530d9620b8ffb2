//! The workers, what they serve, and how that is replaced while they do.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podkit_dataplane::http::proxy::HttpMetrics;
use podkit_dataplane::module::Setup;
use podkit_dataplane::net::{Connections, ListenerLimits, Worker, Workers};
use podkit_foundation::error::Failure;
use podkit_foundation::lifecycle::{Lifecycle, Phase};
use podkit_foundation::params::Cidr;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::site::Site;
use super::{ClusterPlan, Entrance, StagePlan, Table, Way};

/// How long new clusters may take until they take requests, before those go there anyway.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often that is looked at.
const AGAIN: Duration = Duration::from_millis(10);

/// Everything that is served at a time.
pub(crate) struct Generation {
    pub(crate) entrances: Vec<(Arc<Entrance>, Arc<Table<Way>>)>,
}

impl Generation {
    /// One entrance, and one way for all requests.
    pub(crate) fn of(entrance: &Arc<Entrance>, way: Way) -> Self {
        Self {
            entrances: vec![(Arc::clone(entrance), Arc::new(Table::of(way)))],
        }
    }

    fn ways(&self) -> impl Iterator<Item = &Way> {
        self.entrances.iter().flat_map(|(_, table)| table.routes())
    }
}

/// What runs on the main thread for something that is in force; ends with it.
struct Tasks(Vec<AbortHandle>);

impl Tasks {
    fn start(futures: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>>) -> Self {
        let start = |future| tokio::task::spawn_local(future).abort_handle();
        Self(futures.into_iter().map(start).collect())
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// The workers and what they serve.
pub(crate) struct Serving {
    name: &'static str,
    setup: Setup,
    /// `--max-connections`.
    most: usize,
    connections: Arc<Connections>,
    http_metrics: HttpMetrics,
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    workers: Option<Workers>,
    /// Counts generations: one that waits for its clusters is out of date when another one has come.
    turn: u64,
    to_workers: Vec<mpsc::UnboundedSender<Arc<Generation>>>,
    /// One that waits for its clusters.
    waiting: Option<Arc<Generation>>,
    clusters: Vec<(Arc<ClusterPlan>, Tasks)>,
    stages: Vec<(Arc<dyn StagePlan>, Tasks)>,
    entrances: Vec<(Arc<Entrance>, Tasks)>,
}

impl Serving {
    /// Nothing yet; `name` is that of the threads. `most` connections at a time, and of one address as `limits` say, but of
    /// `proxies`.
    pub(crate) fn new(
        name: &'static str,
        setup: &Setup,
        most: usize,
        limits: &ListenerLimits,
        proxies: &[Cidr],
    ) -> Self {
        Self {
            name,
            most,
            connections: Connections::new(most, limits, proxies),
            http_metrics: HttpMetrics::new(&setup.metrics),
            setup: setup.clone(),
            state: Rc::default(),
        }
    }

    pub(crate) fn http_metrics(&self) -> &HttpMetrics {
        &self.http_metrics
    }

    /// Connections at most.
    pub(crate) fn connections(&self) -> usize {
        self.most
    }

    /// Starts the workers.
    pub(crate) fn start(&self, first: Generation) -> Result<(), Failure> {
        let first = Arc::new(first);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..self.setup.workers)
            .map(|_| mpsc::unbounded_channel())
            .unzip();
        let receivers = Mutex::new(receivers);
        let (metrics, generation) = (self.http_metrics.clone(), Arc::clone(&first));
        let start = move |worker: &Rc<Worker>| {
            let mut receivers = receivers.lock().unwrap_or_else(PoisonError::into_inner);
            let receiver = receivers.pop();
            drop(receivers);
            let mut site = Site::new(worker, metrics.clone());
            site.apply(&generation)?;
            drop(tokio::task::spawn_local(follow(site, receiver)));
            Ok(())
        };
        let workers = Workers::start(
            self.name,
            self.setup.workers,
            &self.setup.lifecycle,
            &self.setup.metrics,
            &self.connections,
            start,
        )?;
        let mut state = self.state.borrow_mut();
        state.workers = Some(workers);
        state.to_workers = senders;
        state.keep(&first, Vec::new(), &self.setup);
        Ok(())
    }

    /// Serves `next` from now on; where it has new clusters, once they take requests, or after a while. Requests in flight end as
    /// they began; entrances that are no longer there drain.
    pub(crate) fn replace(&self, next: Generation) {
        let mut state = self.state.borrow_mut();
        state.turn += 1;
        let mut fresh: Vec<(Arc<ClusterPlan>, Tasks)> = Vec::new();
        for way in next.ways() {
            let cluster = &way.cluster;
            let mut known = state.clusters.iter().chain(&fresh);
            if !known.any(|it| Arc::ptr_eq(&it.0, cluster)) {
                fresh.push((Arc::clone(cluster), Tasks::start(cluster.tasks())));
            }
        }
        let next = Arc::new(next);
        if let Some(overtaken) = state.waiting.take() {
            state.release(&overtaken, &next, &self.setup);
        }
        if fresh.is_empty() {
            return state.switch(&next, fresh, &self.setup);
        }
        state.waiting = Some(Arc::clone(&next));
        let (turn, held, setup) = (state.turn, Rc::clone(&self.state), self.setup.clone());
        drop(tokio::task::spawn_local(async move {
            let usable = async {
                let ready = |one: &(Arc<ClusterPlan>, Tasks)| {
                    one.0.membership.usable(tokio::time::Instant::now()).is_ok()
                };
                while !fresh.iter().all(ready) {
                    tokio::time::sleep(AGAIN).await;
                }
            };
            // One that is away must not hold up the rest.
            drop(tokio::time::timeout(PATIENCE, usable).await);
            let mut state = held.borrow_mut();
            if state.turn == turn {
                state.switch(&next, fresh, &setup);
            }
        }));
    }

    /// What is served now, each once: clusters, stages, entrances.
    pub(crate) fn each(
        &self,
        mut cluster: impl FnMut(&ClusterPlan),
        mut stage: impl FnMut(&dyn StagePlan),
        mut entrance: impl FnMut(&Entrance),
    ) {
        let state = self.state.borrow();
        state.clusters.iter().for_each(|it| cluster(&it.0));
        state.stages.iter().for_each(|it| stage(&*it.0));
        state.entrances.iter().for_each(|it| entrance(&it.0));
    }

    /// Reads certificates, lists and files again. Each is tried whatever becomes of the others.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let faults = RefCell::new(Vec::new());
        let note = |result: Result<(), String>| faults.borrow_mut().extend(result.err());
        self.each(
            |cluster| note(cluster.reload()),
            |stage| note(stage.reload()),
            |entrance| {
                let tls = entrance.tls.as_ref();
                note(tls.map_or(Ok(()), |tls| tls.reload().map(drop)));
            },
        );
        let faults = faults.into_inner();
        match faults.is_empty() {
            true => Ok(()),
            false => Err(faults.join("; ")),
        }
    }
}

impl State {
    /// Workers serve `next` from now on.
    fn switch(
        &mut self,
        next: &Arc<Generation>,
        fresh: Vec<(Arc<ClusterPlan>, Tasks)>,
        setup: &Setup,
    ) {
        for worker in &self.to_workers {
            // A worker that has ended serves nothing any more.
            drop(worker.send(Arc::clone(next)));
        }
        self.keep(next, fresh, setup);
    }

    /// Gives back the addresses of a generation that was never served and that `next` does without.
    fn release(&self, overtaken: &Generation, next: &Generation, setup: &Setup) {
        let served = self.entrances.iter().map(|(entrance, _)| entrance);
        let wanted = next.entrances.iter().map(|(entrance, _)| entrance);
        let kept: Vec<&Arc<Entrance>> = served.chain(wanted).collect();
        for (entrance, _) in &overtaken.entrances {
            for addr in entrance.addrs() {
                if !kept.iter().any(|one| one.addrs().contains(addr)) {
                    setup.listeners.release(addr);
                }
            }
        }
    }

    /// Keeps what is in `next`, starts what is new in it and not in `fresh`, and ends the rest.
    fn keep(
        &mut self,
        next: &Arc<Generation>,
        fresh: Vec<(Arc<ClusterPlan>, Tasks)>,
        setup: &Setup,
    ) {
        let mut former = std::mem::take(&mut self.clusters);
        former.extend(fresh);
        for way in next.ways() {
            let cluster = &way.cluster;
            if !self.clusters.iter().any(|it| Arc::ptr_eq(&it.0, cluster)) {
                let known = former.iter().position(|it| Arc::ptr_eq(&it.0, cluster));
                let kept = match known {
                    Some(at) => former.swap_remove(at),
                    None => (Arc::clone(cluster), Tasks::start(cluster.tasks())),
                };
                self.clusters.push(kept);
            }
        }
        let mut former = std::mem::take(&mut self.stages);
        for stage in next.ways().flat_map(|way| &way.stages) {
            if !self.stages.iter().any(|it| Arc::ptr_eq(&it.0, stage)) {
                let known = former.iter().position(|it| Arc::ptr_eq(&it.0, stage));
                let kept = match known {
                    Some(at) => former.swap_remove(at),
                    None => {
                        let watch = Arc::clone(stage).watch();
                        (Arc::clone(stage), Tasks::start(vec![watch]))
                    }
                };
                self.stages.push(kept);
            }
        }
        let mut former = std::mem::take(&mut self.entrances);
        for (entrance, _) in &next.entrances {
            let known = former.iter().position(|it| Arc::ptr_eq(&it.0, entrance));
            let kept = match known {
                Some(at) => former.swap_remove(at),
                None => {
                    let mut tasks: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
                    if let Some(tls) = &entrance.tls {
                        tasks.push(Box::pin(tls.clone().watch()));
                    }
                    let lifecycles = (setup.lifecycle.clone(), entrance.lifecycle.clone());
                    drop(tokio::task::spawn_local(with(lifecycles.0, lifecycles.1)));
                    (Arc::clone(entrance), Tasks::start(tasks))
                }
            };
            self.entrances.push(kept);
        }
        self.waiting = None;
        let stays = |addr| self.entrances.iter().any(|it| it.0.addrs().contains(addr));
        for (entrance, _) in &former {
            for addr in entrance.addrs().iter().filter(|addr| !stays(*addr)) {
                setup.listeners.release(addr);
            }
            entrance.lifecycle.advance(Phase::Draining);
            // A tunnel would go on for as long as its two ends like.
            let (part, patience) = (entrance.lifecycle.clone(), setup.drain_timeout);
            drop(tokio::task::spawn_local(async move {
                tokio::time::sleep(patience).await;
                part.advance(Phase::Stopped);
            }));
        }
    }
}

/// On a worker: takes what is to be served, again and again.
async fn follow(mut site: Site, receiver: Option<mpsc::UnboundedReceiver<Arc<Generation>>>) {
    let Some(mut receiver) = receiver else { return };
    while let Some(next) = receiver.recv().await {
        if let Err(error) = site.apply(&next) {
            tracing::error!(why = %error, "a worker can't serve what is new in the file");
        }
    }
}

/// Moves a part on with the process.
async fn with(process: Lifecycle, part: Lifecycle) {
    let mut phases = process.subscribe();
    loop {
        let now = *phases.borrow_and_update();
        part.advance(now);
        if now >= Phase::Stopped || phases.changed().await.is_err() {
            return;
        }
    }
}
