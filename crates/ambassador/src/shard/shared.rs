//! What all workers have in common: the shards as they were named, those that are out, and what follows from both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use podkit_foundation::error::Failure;
use podkit_foundation::params::ParamError;
use podkit_foundation::surface::common::generation;
use podkit_foundation::telemetry::metrics::{Counter, Gauge, Registry};
use tokio::sync::watch;

use super::failure::{FailureParams, Table};
use super::hot::Hot;
use super::params::{Params, ShardSaid, Shards};
use super::{COMMANDS, OUT, OUTAGES, REFUSED, RELOADS};

/// What all workers have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) params: Params,
    pub(super) failures: FailureParams,
    pub(super) hot: Hot,
    /// TLS can be spoken.
    pub(super) has_tls: bool,
    /// As they were named.
    said: RwLock<Arc<Shards>>,
    /// As they are used: without those that are out.
    shards: RwLock<Arc<Shards>>,
    table: Mutex<Table>,
    changes: AtomicU64,
    /// Tells workers of changes before a command makes them look.
    news: watch::Sender<u64>,
    /// Why the file is not in force.
    refusal: Mutex<Option<String>>,
    registry: Registry,
    changed: Counter,
    kept: Counter,
    generation: Gauge,
}

impl Shared {
    pub(super) fn new(
        params: Params,
        failures: FailureParams,
        hot: Hot,
        registry: &Registry,
    ) -> Result<Self, Failure> {
        let shards = Arc::new(Shards::of(&params)?);
        failures
            .check(&shards.all)
            .map_err(|why| Failure::from(ParamError::new("spare", why)))?;
        let count = |result| registry.counter(RELOADS.name, RELOADS.doc, &[("result", result)]);
        Ok(Self {
            params,
            failures,
            hot,
            has_tls: false,
            said: RwLock::new(Arc::clone(&shards)),
            shards: RwLock::new(shards),
            table: Mutex::default(),
            changes: AtomicU64::new(0),
            news: watch::Sender::new(0),
            refusal: Mutex::new(None),
            registry: registry.clone(),
            changed: count("changed"),
            kept: count("refused"),
            generation: generation(registry),
        })
    }

    pub(super) fn shards(&self) -> Arc<Shards> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&shards)
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The shards as they were named.
    pub(super) fn said(&self) -> Arc<Shards> {
        Arc::clone(&self.said.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who is out.
    pub(super) fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready at each change of the shards.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Puts in force what follows from what was named and from who is out.
    pub(super) fn apply(&self) {
        let fresh = self
            .table()
            .in_force(&self.said(), self.failures.on_failure);
        match fresh {
            Ok(fresh) => {
                let now = self.shards();
                if fresh.all != now.all || fresh.left_out != now.left_out {
                    self.put_in_force(Arc::new(fresh));
                }
            }
            Err(why) => tracing::error!("the shards can't be placed anew: {why}"),
        }
    }

    pub(super) fn check_tls(&self, all: &[ShardSaid]) -> Result<(), String> {
        match all.iter().find(|one| one.server.is_tls && !self.has_tls) {
            Some(one) => Err(format!(
                "\"{one}\" is the first with TLS: that takes --upstream-ca from the start"
            )),
            None => Ok(()),
        }
    }

    pub(super) fn put_in_force(&self, fresh: Arc<Shards>) {
        *self.shards.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        let changes = self.changes.fetch_add(1, Ordering::Release) + 1;
        self.generation.add(1);
        self.news.send_replace(changes);
    }

    /// How often a shard was taken out, and whether it is.
    pub(super) fn outages(&self, shard: &str) -> (Counter, Gauge) {
        let labels = [("shard", shard)];
        let count = self.registry.counter(OUTAGES.name, OUTAGES.doc, &labels);
        (count, self.registry.gauge(OUT.name, OUT.doc, &labels))
    }

    /// Commands that a shard was sent.
    pub(super) fn commands(&self, shard: &str) -> Counter {
        self.registry
            .counter(COMMANDS.name, COMMANDS.doc, &[("shard", shard)])
    }

    /// Commands that can't be done over several shards.
    pub(super) fn refused(&self) -> Counter {
        self.registry.counter(REFUSED.name, REFUSED.doc, &[])
    }

    pub(super) fn refusal(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the shards again.
    pub(super) fn reload(&self) -> Result<(), String> {
        let checked = Shards::of(&self.params).and_then(|fresh| {
            let fault = self.failures.check(&fresh.all);
            let fault = fault.and_then(|()| self.check_tls(&fresh.all));
            fault.map_err(|why| Failure::from(ParamError::new("shards_file", why)))?;
            Ok(fresh)
        });
        let fresh = match checked {
            Ok(fresh) => fresh,
            Err(failure) => {
                let line = failure.to_string();
                let mut refusal = self.refusal();
                if refusal.as_ref() != Some(&line) {
                    self.kept.inc();
                    tracing::warn!("refused, the former shards stay in force: {line}");
                    *refusal = Some(line.clone());
                }
                return Err(line);
            }
        };
        *self.refusal() = None;
        if fresh.all == self.said().all {
            return Ok(());
        }
        let count = fresh.all.len();
        *self.said.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        self.apply();
        self.changed.inc();
        tracing::info!(shards = count, "the shards changed: in force");
        Ok(())
    }
}
