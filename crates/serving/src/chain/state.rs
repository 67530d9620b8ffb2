//! What is in force of a file: made of what it says, and of what was in force before, for all that says the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use podkit_dataplane::module::Setup;
use podkit_foundation::error::Failure;
use podkit_foundation::params::Addr;

use super::file::{ChainFile, RouteSaid, Said};
use super::kinds::{Ground, Made};
use crate::front::{ClusterPlan, Entrance, Generation, StagePlan, Table, Way};

/// The objects that a file became.
#[derive(Default)]
pub(super) struct State {
    entrances: Vec<Opened>,
    stages: BTreeMap<String, Built>,
}

/// A listener in force.
struct Opened {
    said: Said,
    entrance: Arc<Entrance>,
    table: Arc<Table<Way>>,
    routes: Arc<Vec<RouteSaid>>,
}

/// A stage in force.
struct Built {
    kind: &'static str,
    said: Said,
    secure: bool,
    made: Made,
}

impl State {
    /// Makes what is new and keeps what is as it was. After an error nothing has changed.
    pub(super) fn new(
        file: &ChainFile,
        former: &Self,
        setup: &Setup,
        connections: usize,
    ) -> Result<Self, Failure> {
        let mut stages = BTreeMap::new();
        for (name, stage) in &file.stages {
            let leads_here =
                |routes: &[RouteSaid]| routes.iter().any(|route| route.stages.contains(name));
            let mut listeners = file.listeners.iter();
            let secure = listeners.all(|one| one.params.tls.is_some() || !leads_here(&one.routes));
            let known = former.stages.get(name).filter(|built| {
                built.kind == stage.kind.name && built.said == stage.said && built.secure == secure
            });
            let made = match known {
                Some(built) => built.made.clone(),
                None => {
                    let ground = Ground {
                        connections,
                        secure,
                        registry: setup.metrics.part(&[("stage", name)]),
                    };
                    (stage.kind.make)(&stage.values, ground)
                        .map_err(|failure| within(&format!("stage {name}"), failure))?
                }
            };
            let built = Built {
                kind: stage.kind.name,
                said: stage.said.clone(),
                secure,
                made,
            };
            stages.insert(name.clone(), built);
        }
        let mut entrances: Vec<Opened> = Vec::new();
        for listener in &file.listeners {
            let known = former
                .entrances
                .iter()
                .find(|one| one.said == listener.said);
            let entrance = match known {
                Some(known) => Arc::clone(&known.entrance),
                None => {
                    let name = listener.params.listen.iter().map(ToString::to_string);
                    let name = name.collect::<Vec<_>>().join(",");
                    let registry = setup.metrics.part(&[("listener", &name)]);
                    match Entrance::new(listener.params.clone(), setup, registry) {
                        Ok(entrance) => Arc::new(entrance),
                        Err(failure) => {
                            // What was bound for this state only is given back.
                            let bound = entrances.iter().flat_map(|one| one.entrance.addrs());
                            let fresh: Vec<&Addr> =
                                bound.filter(|addr| !former.listens(addr)).collect();
                            fresh
                                .into_iter()
                                .for_each(|addr| setup.listeners.release(addr));
                            return Err(within(&format!("listener {name}"), failure));
                        }
                    }
                }
            };
            entrances.push(Opened {
                said: listener.said.clone(),
                entrance,
                table: Arc::new(table(&listener.routes, &stages)),
                routes: Arc::clone(&listener.routes),
            });
        }
        Ok(Self { entrances, stages })
    }

    fn listens(&self, addr: &Addr) -> bool {
        let mut all = self.entrances.iter();
        all.any(|one| one.entrance.addrs().contains(addr))
    }

    /// As workers take it.
    pub(super) fn generation(&self) -> Generation {
        let entrances = self.entrances.iter();
        Generation {
            entrances: entrances
                .map(|one| (Arc::clone(&one.entrance), Arc::clone(&one.table)))
                .collect(),
        }
    }

    /// The clusters by name.
    pub(super) fn clusters(&self) -> impl Iterator<Item = (&str, &Arc<ClusterPlan>)> {
        self.stages
            .iter()
            .filter_map(|(name, built)| match &built.made {
                Made::Cluster(cluster) => Some((name.as_str(), cluster)),
                Made::Pass(_) => None,
            })
    }

    /// The stages that requests pass, by name.
    pub(super) fn passed(&self) -> impl Iterator<Item = (&str, &Arc<dyn StagePlan>)> {
        self.stages
            .iter()
            .filter_map(|(name, built)| match &built.made {
                Made::Pass(stage) => Some((name.as_str(), stage)),
                Made::Cluster(_) => None,
            })
    }

    /// The listeners, with where their routes lead: hosts, path, stages.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (&Entrance, &[RouteSaid])> {
        let all = self.entrances.iter();
        all.map(|one| (&*one.entrance, one.routes.as_slice()))
    }
}

fn table(routes: &[RouteSaid], stages: &BTreeMap<String, Built>) -> Table<Way> {
    let way = |route: &RouteSaid| {
        let made = route.stages.iter().filter_map(|name| stages.get(name));
        let (mut passed, mut end) = (Vec::new(), None);
        for built in made {
            match &built.made {
                Made::Pass(stage) => passed.push(Arc::clone(stage)),
                Made::Cluster(cluster) => end = Some(Arc::clone(cluster)),
            }
        }
        end.map(|cluster| Way {
            stages: passed,
            cluster,
        })
    };
    Table::new(routes.iter().flat_map(|route| {
        // The file was found right: every route has an end.
        let way = way(route);
        let hosts = route.hosts.iter().cloned();
        hosts.filter_map(move |host| Some((host, route.path.clone(), way.clone()?)))
    }))
}

/// The same failure, with where it is from; a parameter is a key here.
fn within(place: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Parameter(error) => {
            Failure::Usage(format!("{place}: {}: {}", error.flag(), error.why()))
        }
        Failure::Usage(line) => Failure::Usage(format!("{place}: {line}")),
        Failure::Runtime(line) => Failure::Runtime(format!("{place}: {line}")),
    }
}
