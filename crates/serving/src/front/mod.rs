//! What serves: listeners, the routes of their requests, stages on the way, clusters at its end. `balance` and `limit` are chains
//! of one route, `chain` reads many from a file; all are made of this.
//!
//! ```text
//!   Serving ── Generation: [(Entrance, Table of Way)] ──▶ each worker: Site
//!                                                          Entrance ─▶ accept ─▶ TLS ─▶ Proxy ─▶ Table ─▶ stages ─▶ Forward
//! ```
//!
//! A generation is replaced as a whole. What is the same object in two generations goes on as it was: sockets and connections
//! of an [`Entrance`], health, counters and connections of a [`Cluster`](ClusterPlan).

mod cluster;
mod entrance;
mod serving;
mod site;
mod table;

pub(crate) use cluster::ClusterPlan;
pub(crate) use entrance::{Entrance, EntranceParams};
pub(crate) use serving::{Generation, Serving};
pub(crate) use table::{HostPattern, PathPattern, Table};

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use podkit_dataplane::http::stage::Stage;
use podkit_dataplane::module::Section;
use podkit_foundation::params::Cidr;
use serde_json::Value;

/// A stage that requests pass, for all workers.
pub(crate) trait StagePlan: Send + Sync {
    /// That of one worker.
    fn stage(self: Arc<Self>) -> Rc<dyn Stage>;

    /// Proxies whose word about clients it believes: what is behind it is told as well.
    fn trusted(&self) -> &[Cidr];

    /// Follows its files, for as long as it is in force.
    fn watch(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()>>>;

    /// Reads its files again; what is no good is refused.
    fn reload(&self) -> Result<(), String>;

    /// Whom it limits now, for `/limited`; None for a stage that limits nobody.
    fn limited(&self) -> Option<Value>;

    /// Its state and figures.
    fn page(&self) -> Vec<Section>;
}

/// The way of requests: stages, then a cluster.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) stages: Vec<Arc<dyn StagePlan>>,
    pub(crate) cluster: Arc<ClusterPlan>,
}
