//! The processes of the pod, live and back in time.

pub(crate) mod census;
pub(crate) mod cgroup;
pub(crate) mod container;
pub(crate) mod detail;
pub(crate) mod mask;
pub(crate) mod metrics;
pub(crate) mod params;
pub(crate) mod procfs;
pub(crate) mod query;
pub(crate) mod ring;
pub(crate) mod series;
pub(crate) mod snapshot;
pub(crate) mod stat;
pub(crate) mod text;
pub(crate) mod watch;

#[cfg(test)]
mod tests;
