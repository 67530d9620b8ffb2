//! Upstreams: what is dialled for a client, and the connections that are kept for the next one.
//!
//! A [`Cluster`] is a worker's view of the endpoints among which requests are shared out; which endpoints there are and how
//! they fare is the [`Membership`], of which a process has one. Each worker has a [`Pool`] of its own for each endpoint: no
//! lock, and a connection's bytes stay in one core's cache. The connection that was used last is used first, so that under light
//! load the others grow old and are closed. Whether a kept connection is still good is read off what epoll has already told,
//! without a system call.
//!
//! Names are resolved by hickory (`/etc/hosts`, `/etc/resolv.conf`) and again when their time to live is over: the static
//! binary can't load glibc's resolver.

mod affinity;
mod cluster;
mod connect;
mod discover;
mod endpoint;
mod health;
mod limits;
mod membership;
mod mux;
mod outward;
pub mod pick;
mod pool;
mod report;
mod resolve;
mod target;
mod wire;

pub use affinity::{Affinity, AffinityCookie};
pub use cluster::{Cluster, Picked, Tried, Wanted};
pub use connect::{ConnectError, dial};
pub use discover::Discovery;
pub use endpoint::{Endpoint, EndpointCounts, Readiness, State};
pub use health::{Check, Checks, HealthParams, grpc_check};
pub use limits::UpstreamLimits;
pub use membership::{Ejection, Found, Membership, Settings, View};
pub use outward::Outward;
pub use pool::{Pool, UpstreamMetrics};
pub use report::{Shown, Unknown};
pub use resolve::{lookup, lookup_at};
pub use target::{Speech, Target};
pub use wire::Wire;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod tests;
