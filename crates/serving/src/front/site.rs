//! A worker's side of what is served: the objects that it makes of a generation, and keeps from one to the next.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use podkit_dataplane::http::proxy::{Forward, HttpMetrics, Proxy, Route, Router};
use podkit_dataplane::http::stage::{Stage, Stages, View};
use podkit_dataplane::net::Worker;
use podkit_dataplane::upstream::Cluster;
use podkit_foundation::params::Cidr;

use super::{ClusterPlan, Entrance, Generation, StagePlan, Table, Way};

/// What one worker has in force.
pub(super) struct Site {
    worker: Rc<Worker>,
    metrics: HttpMetrics,
    entrances: Vec<(Arc<Entrance>, Rc<Proxy>)>,
    made: Made,
}

/// What was made, by what it was made of.
#[derive(Default)]
struct Made {
    clusters: Vec<(Arc<ClusterPlan>, Rc<Cluster>)>,
    forwards: Vec<(Arc<ClusterPlan>, Vec<Cidr>, Rc<Forward>)>,
    stages: Vec<(Arc<dyn StagePlan>, Rc<dyn Stage>)>,
}

impl Made {
    fn route(&mut self, former: &Self, way: &Way) -> Rc<Route> {
        let trusted: Vec<Cidr> = way
            .stages
            .iter()
            .flat_map(|stage| stage.trusted().iter().copied())
            .collect();
        let stages = way.stages.iter().map(|plan| self.stage(former, plan));
        let stages: Vec<Rc<dyn Stage>> = stages.collect();
        let stages = match stages.is_empty() {
            true => Stages::none(),
            false => Stages::new(stages),
        };
        Route::new(stages, self.forward(former, &way.cluster, trusted))
    }

    fn stage(&mut self, former: &Self, plan: &Arc<dyn StagePlan>) -> Rc<dyn Stage> {
        let mut known = self.stages.iter().chain(&former.stages);
        if let Some((_, stage)) = known.find(|(known, _)| Arc::ptr_eq(known, plan)) {
            let stage = Rc::clone(stage);
            if !self
                .stages
                .iter()
                .any(|(known, _)| Arc::ptr_eq(known, plan))
            {
                self.stages.push((Arc::clone(plan), Rc::clone(&stage)));
            }
            return stage;
        }
        let stage = Arc::clone(plan).stage();
        self.stages.push((Arc::clone(plan), Rc::clone(&stage)));
        stage
    }

    fn forward(
        &mut self,
        former: &Self,
        plan: &Arc<ClusterPlan>,
        trusted: Vec<Cidr>,
    ) -> Rc<Forward> {
        let is_it = |known: &&(Arc<ClusterPlan>, Vec<Cidr>, Rc<Forward>)| {
            Arc::ptr_eq(&known.0, plan) && known.1 == trusted
        };
        if let Some((.., forward)) = self.forwards.iter().find(is_it) {
            return Rc::clone(forward);
        }
        let cluster = self.cluster(former, plan);
        let forward = match former.forwards.iter().find(is_it) {
            Some((.., forward)) => Rc::clone(forward),
            None => plan.forward(cluster, &trusted),
        };
        self.forwards
            .push((Arc::clone(plan), trusted, Rc::clone(&forward)));
        forward
    }

    fn cluster(&mut self, former: &Self, plan: &Arc<ClusterPlan>) -> Rc<Cluster> {
        if let Some((_, cluster)) = self.clusters.iter().find(|it| Arc::ptr_eq(&it.0, plan)) {
            return Rc::clone(cluster);
        }
        let known = former.clusters.iter().find(|it| Arc::ptr_eq(&it.0, plan));
        let cluster = known.map_or_else(|| plan.cluster(), |(_, cluster)| Rc::clone(cluster));
        self.clusters.push((Arc::clone(plan), Rc::clone(&cluster)));
        cluster
    }
}

/// The routes of an entrance.
struct Routes(Table<Rc<Route>>);

impl Router for Routes {
    fn route(&self, request: &View<'_>) -> Option<Rc<Route>> {
        self.0.find(request.authority(), request.path()).cloned()
    }
}

impl Site {
    pub(super) fn new(worker: &Rc<Worker>, metrics: HttpMetrics) -> Self {
        Self {
            worker: Rc::clone(worker),
            metrics,
            entrances: Vec::new(),
            made: Made::default(),
        }
    }

    /// Serves as `generation` says, from the next request on.
    pub(super) fn apply(&mut self, generation: &Generation) -> io::Result<()> {
        let former = std::mem::take(&mut self.made);
        let mut made = Made::default();
        let mut entrances = Vec::new();
        for (entrance, table) in &generation.entrances {
            let routes = Rc::new(Routes(table.map(|way| made.route(&former, way))));
            let known = self
                .entrances
                .iter()
                .find(|it| Arc::ptr_eq(&it.0, entrance));
            let proxy = match known {
                Some((_, proxy)) => {
                    proxy.set_router(routes);
                    Rc::clone(proxy)
                }
                None => {
                    let proxy = Proxy::new(entrance.settings(), routes, self.metrics.clone());
                    let part = self.worker.part(&entrance.lifecycle);
                    drop(tokio::task::spawn_local(Rc::clone(&part).watch()));
                    entrance.start(&part, &proxy)?;
                    proxy
                }
            };
            entrances.push((Arc::clone(entrance), proxy));
        }
        self.made = made;
        self.entrances = entrances;
        Ok(())
    }
}
