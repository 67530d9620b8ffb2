//! Where a request goes: the stages that it passes, and what it is forwarded to.
//!
//! A listener asks its [`Router`] once for each request, so that what is in force changes between two requests of a kept
//! connection, and a request that is on its way ends as it began: it holds its [`Route`].

use std::rc::Rc;

use podkit_foundation::params::Cidr;

use super::access::Lines;
use super::retry::Budget;
use super::{AccessLog, KeySource, Retries};
use crate::http::stage::{Stages, View};
use crate::net::Peer;
use crate::upstream::Cluster;

/// Whose word about clients (`X-Forwarded-…`, `Forwarded`) is believed, and added to; otherwise it is replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Nobody's.
    #[default]
    Nobody,
    /// Everybody's.
    Everybody,
    /// That of peers in these blocks.
    These(Vec<Cidr>),
}

impl Trust {
    pub(super) fn has(&self, peer: Peer) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            Self::These(blocks) => peer
                .ip()
                .is_some_and(|ip| blocks.iter().any(|block| block.has(ip))),
        }
    }
}

/// How requests are forwarded.
#[derive(Debug, Clone)]
pub struct ForwardSettings {
    /// Whose word about clients is passed on.
    pub trust: Trust,
    /// Whole field lines (`Name: value\r\n`) added to every response, such as HSTS (which then replaces the upstream's).
    pub response_fields: String,
    /// When a request is sent again.
    pub retries: Retries,
    /// What decides where a request goes, for `--policy hash`.
    pub key: Option<KeySource>,
    /// Make a traceparent where none comes, sampled in so many of a hundred.
    pub make_traceparent: Option<u16>,
    /// Where requests are logged.
    pub access_log: Option<AccessLog>,
}

impl Default for ForwardSettings {
    /// Once, to whoever is picked; nothing is added, believed or logged.
    fn default() -> Self {
        Self {
            trust: Trust::Nobody,
            response_fields: String::new(),
            retries: Retries::NONE,
            key: None,
            make_traceparent: None,
            access_log: None,
        }
    }
}

/// A worker's forwarding to the endpoints of a cluster.
#[derive(Debug)]
pub struct Forward {
    pub(super) settings: ForwardSettings,
    pub(super) cluster: Rc<Cluster>,
    pub(super) budget: Budget,
    pub(super) lines: Option<Rc<Lines>>,
}

impl Forward {
    /// To the endpoints of `cluster`.
    pub fn new(settings: ForwardSettings, cluster: Rc<Cluster>) -> Rc<Self> {
        Rc::new(Self {
            budget: Budget::new(settings.retries),
            lines: settings.access_log.clone().map(Lines::new),
            settings,
            cluster,
        })
    }
}

/// The way of a request.
#[derive(Debug)]
pub struct Route {
    pub(super) stages: Stages,
    pub(super) forward: Rc<Forward>,
}

impl Route {
    /// Through `stages`, then on.
    pub fn new(stages: Stages, forward: Rc<Forward>) -> Rc<Self> {
        Rc::new(Self { stages, forward })
    }
}

/// Tells requests' ways. One per worker and listener.
pub trait Router {
    /// The way of a request; None: there is none for it, and it is answered with 404.
    fn route(&self, request: &View<'_>) -> Option<Rc<Route>>;
}

/// All requests go one way.
impl Router for Rc<Route> {
    fn route(&self, _: &View<'_>) -> Option<Rc<Route>> {
        Some(Self::clone(self))
    }
}
