//! The stages that there are, and the keys of everything in a file: both derive from the modules' own tables, so that what a module
//! learns is a key here too.

use std::sync::Arc;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http2::Http2Limits;
use podkit_dataplane::net::ListenerLimits;
use podkit_dataplane::tls::{TlsParams, UpstreamHttp2Params, UpstreamTlsParams};
use podkit_dataplane::upstream::UpstreamLimits;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Param, ParamSet as _, Values};
use podkit_foundation::telemetry::metrics::Registry;

use super::params::ListenerKeys;
use crate::front::{ClusterPlan, StagePlan};
use crate::{balance, limit};

/// A stage that was made.
#[derive(Clone)]
pub(super) enum Made {
    /// Requests pass it.
    Pass(Arc<dyn StagePlan>),
    /// They end there.
    Cluster(Arc<ClusterPlan>),
}

/// What a stage is made with besides its keys.
pub(super) struct Ground {
    /// Connections at most.
    pub(super) connections: usize,
    /// Clients come by TLS.
    pub(super) secure: bool,
    pub(super) registry: Registry,
}

/// A kind of stage.
pub(super) struct Kind {
    /// The module that it is.
    pub(super) name: &'static str,
    params: fn() -> Vec<Param>,
    /// Its parameters are those of a listener, or of what a chain says elsewhere.
    left_out: fn(&Param) -> bool,
    /// A route ends with it.
    pub(super) is_end: bool,
    /// Looks at the parameters alone.
    pub(super) check: fn(&Values) -> Result<(), Failure>,
    pub(super) make: fn(&Values, Ground) -> Result<Made, Failure>,
}

pub(super) static KINDS: &[Kind] = &[
    Kind {
        name: "limit",
        params: || limit::MODULE.spec.params.concat(),
        left_out: |param| {
            // What stands behind it is the next stage.
            param.field == "upstream"
                || has(UpstreamLimits::PARAMS, param)
                || has(UpstreamTlsParams::PARAMS, param)
                || has(UpstreamHttp2Params::PARAMS, param)
                || of_listener(param)
        },
        is_end: false,
        check: limit::service::check,
        make: |values, ground| {
            let plan = limit::service::plan(values, ground.connections, ground.registry)?;
            Ok(Made::Pass(plan))
        },
    },
    Kind {
        name: "balance",
        params: || balance::MODULE.spec.params.concat(),
        left_out: of_listener,
        is_end: true,
        check: balance::service::check,
        make: |values, ground| {
            let cluster = balance::service::cluster(values, ground.secure, ground.registry)?;
            Ok(Made::Cluster(Arc::new(cluster)))
        },
    },
];

fn has(params: &[Param], param: &Param) -> bool {
    params.iter().any(|known| known.field == param.field)
}

fn of_listener(param: &Param) -> bool {
    [
        ListenerKeys::PARAMS,
        ListenerLimits::PARAMS,
        TlsParams::PARAMS,
        HttpLimits::PARAMS,
        Http2Limits::PARAMS,
    ]
    .into_iter()
    .any(|params| has(params, param))
}

impl Kind {
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// All parameters of the module: what a chain leaves out has its default.
    pub(super) fn params(&self) -> Vec<Param> {
        (self.params)()
    }

    /// Those that are keys of the stage.
    pub(super) fn keys(&self) -> Vec<Param> {
        let all = self.params().into_iter();
        all.filter(|param| !(self.left_out)(param)).collect()
    }
}

/// All parameters of a listener but those of TLS.
pub(super) fn listener_params() -> Vec<Param> {
    [
        ListenerKeys::PARAMS,
        HttpLimits::PARAMS,
        Http2Limits::PARAMS,
    ]
    .concat()
}

/// Those that are keys of a listener: connections are bounded for the process.
pub(super) fn listener_keys() -> Vec<Param> {
    let all = listener_params().into_iter();
    all.filter(|param| param.field != "max_connections")
        .collect()
}

/// The keys below `tls`.
pub(super) fn tls_keys() -> Vec<Param> {
    TlsParams::PARAMS.to_vec()
}
