//! The kinds of probes. Each makes a prober of a [`Spec`].

mod disk;
mod dns;
mod exec;
mod grpc;
mod http;
mod memcached;
mod redis;
mod sql;
mod tcp;

use std::pin::Pin;
use std::time::Duration;

use super::link::Ground;
use super::phases::Phases;
use super::spec::{Kind, Spec};

/// A try that goes on. What was found, for people; or why it failed, a clause.
pub(crate) type Probing<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + 'a>>;

/// Tries.
pub(crate) trait Prober {
    /// One try. It is dropped in the middle when it takes too long: a connection on which an answer is awaited must not be there for the
    /// next one.
    fn probe<'a>(&'a mut self, phases: &'a Phases) -> Probing<'a>;

    /// A try was dropped in the middle: ends what it left on the other side.
    fn give_up(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {})
    }
}

/// The prober of a probe; `patience` is how long a try of it may take. Asks nobody. An error says what of the probe is wrong.
pub(crate) fn prober(
    spec: &Spec,
    ground: &Ground,
    patience: Duration,
) -> Result<Box<dyn Prober>, String> {
    Ok(match spec.scheme.kind {
        Kind::Tcp => Box::new(tcp::Tcp::new(spec, ground)?),
        Kind::Http => Box::new(http::Http::new(spec, ground)?),
        Kind::Redis => Box::new(redis::Redis::new(spec, ground)?),
        Kind::Exec => Box::new(exec::Exec::new(spec)?),
        Kind::Dns => Box::new(dns::Dns::new(spec)?),
        Kind::Disk => Box::new(disk::Disk::new(spec)?),
        Kind::Memcached => Box::new(memcached::Memcached::new(spec, ground)?),
        Kind::Grpc => Box::new(grpc::Grpc::new(spec, ground)?),
        Kind::MySql | Kind::Postgres => Box::new(sql::Sql::new(spec, ground, patience)?),
    })
}
