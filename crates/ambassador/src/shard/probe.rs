//! Asks shards and spares whether they are there, and makes those ready that are to serve.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use podkit_dataplane::{memcache, resp};

use super::failure::{Heard, Key, OnFailure, key};
use super::params::ShardSaid;
use super::shared::Shared;

/// Asks a server, as its protocol has it.
pub(super) enum Asker {
    Redis(resp::Asker),
    Memcached(memcache::Asker),
}

impl Asker {
    async fn ping(&mut self) -> Result<(), String> {
        match self {
            Self::Redis(asker) => asker.ping().await,
            Self::Memcached(asker) => asker.ping().await,
        }
    }

    async fn empty(&mut self) -> Result<(), String> {
        match self {
            Self::Redis(asker) => asker.empty().await,
            Self::Memcached(asker) => asker.empty().await,
        }
    }
}

/// Looks after all shards that are named, and all spares, for as long as the process lives.
pub(super) async fn probe_all(shared: Arc<Shared>, asker: impl Fn(&ShardSaid) -> Asker + 'static) {
    let (asker, asked) = (Rc::new(asker), Rc::new(RefCell::new(HashSet::new())));
    loop {
        let said = shared.said();
        for one in said.all.iter().chain(&shared.failures.spare) {
            if asked.borrow_mut().insert(key(one)) {
                let probe = Probe {
                    shared: Arc::clone(&shared),
                    who: key(one),
                    said: one.clone(),
                    asker: Rc::clone(&asker),
                    asked: Rc::clone(&asked),
                };
                drop(tokio::task::spawn_local(probe.live()));
            }
        }
        tokio::time::sleep(shared.failures.probe_period).await;
    }
}

/// Of one server.
struct Probe<F> {
    shared: Arc<Shared>,
    who: Key,
    said: ShardSaid,
    asker: Rc<F>,
    asked: Rc<RefCell<HashSet<Key>>>,
}

impl<F: Fn(&ShardSaid) -> Asker + 'static> Probe<F> {
    /// Until it is named no more.
    async fn live(self) {
        let mut asker = (self.asker)(&self.said);
        let (outages, out) = self.shared.outages(&self.said.name);
        while self.is_named() {
            let begun = tokio::time::Instant::now();
            let result = asker.ping().await;
            let params = &self.shared.failures;
            let heard = self
                .shared
                .table()
                .heard(&self.who, result, Instant::now(), params);
            match heard {
                Heard::Fell => {
                    outages.inc();
                    out.set(1);
                    self.tell("is out");
                    self.shared.apply();
                }
                Heard::MayReturn if self.may_serve(&mut asker).await => {
                    self.shared.table().back(&self.who);
                    out.set(0);
                    tracing::info!(shard = %self.said, "serves again");
                    self.shared.apply();
                }
                Heard::MayReturn | Heard::Same => {}
            }
            if !self.is_spare() && params.on_failure == OnFailure::Spare {
                self.stand_in().await;
            }
            tokio::time::sleep_until(begun + params.probe_period).await;
        }
        self.shared.table().forget(&self.who);
        self.asked.borrow_mut().remove(&self.who);
        out.set(0);
    }

    fn is_spare(&self) -> bool {
        self.shared.failures.spare.contains(&self.said)
    }

    fn is_named(&self) -> bool {
        let said = self.shared.said();
        self.is_spare() || said.all.iter().any(|one| key(one) == self.who)
    }

    fn tell(&self, what: &str) {
        let table = self.shared.table();
        let why = table.out(&self.who).unwrap_or_default();
        tracing::warn!(shard = %self.said, why, "{what}");
    }

    /// Nothing stale is on it. Twice: what lost connections had sent may be done only after the first time.
    async fn may_serve(&self, asker: &mut Asker) -> bool {
        if self.shared.failures.on_failure == OnFailure::Spare {
            return true;
        }
        self.empty(asker).await
    }

    async fn empty(&self, asker: &mut Asker) -> bool {
        let mut emptied = asker.empty().await;
        if emptied.is_ok() {
            tokio::time::sleep(self.shared.failures.probe_period).await;
            emptied = asker.empty().await;
        }
        let Err(why) = emptied else { return true };
        let line = format!("it can't be emptied: {why}");
        let mut table = self.shared.table();
        if table.out(&self.who) != Some(line.as_str()) {
            tracing::warn!(shard = %self.said, "{line}");
        }
        table.can_not(&self.who, &line);
        false
    }

    /// Sees to it that a spare serves while the shard is out.
    async fn stand_in(&self) {
        let spares = &self.shared.failures.spare;
        if self.shared.table().out(&self.who).is_none() {
            return;
        }
        let Some(spare) = self.shared.table().spare_for(&self.who, spares) else {
            // One that has it, or none: a lost one is given up either way.
            return self.shared.apply();
        };
        let emptied = (self.asker)(&spare).empty().await;
        let mut table = self.shared.table();
        match emptied {
            Ok(()) => {
                tracing::warn!(shard = %self.said, %spare, "a spare, emptied, has its keys");
                table.stands_in(&self.who, Some(spare));
            }
            Err(why) => {
                let line = format!("the spare {spare} can't be emptied: {why}");
                if table.out(&self.who) != Some(line.as_str()) {
                    tracing::warn!(shard = %self.said, "{line}");
                }
                table.can_not(&self.who, &line);
                table.stands_in(&self.who, None);
            }
        }
        drop(table);
        self.shared.apply();
    }
}
