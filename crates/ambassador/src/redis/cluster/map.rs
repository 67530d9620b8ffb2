//! Who has which slots, as all threads see it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use podkit_foundation::params::Addr;
use podkit_foundation::telemetry::metrics::{Counter, Registry};
use tokio::sync::{Notify, watch};

use crate::redis::params::Params;
use crate::redis::topology::Shared;
use crate::redis::{REDIRECTS, REFRESHES};
use crate::shard::place::slots::SLOTS;

/// Nobody's slot.
pub(super) const NOBODY: u16 = u16::MAX;
/// Slots that were seen to be moved, before the map is made anew, at most.
const MOST_MOVED: usize = SLOTS;
/// Fences of a shard: its slots share them.
const FENCES: usize = 1024;

/// A primary and its replicas.
#[derive(Debug)]
pub(in crate::redis) struct Shard {
    /// It stays when another becomes the primary.
    pub(in crate::redis) number: u64,
    pub(in crate::redis) shared: Arc<Shared>,
}

/// Who has which slots.
#[derive(Debug, Clone)]
pub(in crate::redis) struct Map {
    /// The place of each slot's shard; [`NOBODY`] where there is none.
    pub(super) slots: Vec<u16>,
    /// In the order of their numbers.
    pub(in crate::redis) shards: Vec<Arc<Shard>>,
    /// The places of shards by the addresses of their servers.
    pub(super) names: HashMap<String, u16>,
}

impl Default for Map {
    fn default() -> Self {
        Self {
            slots: vec![NOBODY; SLOTS],
            shards: Vec::new(),
            names: HashMap::new(),
        }
    }
}

impl Map {
    /// The place of the shard that has a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<usize> {
        let at = *self.slots.get(usize::from(slot))?;
        (at != NOBODY).then_some(usize::from(at))
    }

    /// How many slots nobody has.
    pub(in crate::redis) fn unserved(&self) -> usize {
        self.slots.iter().filter(|at| **at == NOBODY).count()
    }

    /// How many slots each shard has.
    pub(in crate::redis) fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.shards.len()];
        for at in self.slots.iter().filter(|at| **at != NOBODY) {
            counts[usize::from(*at)] += 1;
        }
        counts
    }
}

/// What all threads share.
#[derive(Debug)]
pub(in crate::redis) struct Cluster {
    pub(in crate::redis) params: Arc<Params>,
    pub(in crate::redis) map: watch::Sender<Arc<Map>>,
    /// Told when a node is to be asked at once.
    pub(super) wanted: Notify,
    /// What nodes said of slots that are others' now.
    moved: Mutex<Vec<(u16, Addr)>>,
    registry: Registry,
    pub(in crate::redis) redirects: Redirects,
    pub(in crate::redis) refreshes: Refreshes,
}

/// Commands that a node did not do, by what it said.
#[derive(Debug)]
pub(in crate::redis) struct Redirects {
    pub(in crate::redis) moved: Counter,
    pub(in crate::redis) ask: Counter,
    pub(in crate::redis) try_again: Counter,
    pub(in crate::redis) unserved: Counter,
}

/// Answers on who has which slots.
#[derive(Debug)]
pub(in crate::redis) struct Refreshes {
    pub(in crate::redis) same: Counter,
    pub(in crate::redis) changed: Counter,
    pub(in crate::redis) old: Counter,
}

impl Cluster {
    pub(in crate::redis) fn new(params: Arc<Params>, registry: &Registry) -> Self {
        let turn = |said| registry.counter(REDIRECTS.name, REDIRECTS.doc, &[("said", said)]);
        let view = |result| registry.counter(REFRESHES.name, REFRESHES.doc, &[("result", result)]);
        Self {
            params,
            map: watch::Sender::new(Arc::default()),
            wanted: Notify::new(),
            moved: Mutex::default(),
            registry: registry.clone(),
            redirects: Redirects {
                moved: turn("moved"),
                ask: turn("ask"),
                try_again: turn("tryagain"),
                unserved: turn("unserved"),
            },
            refreshes: Refreshes {
                same: view("same"),
                changed: view("changed"),
                old: view("old"),
            },
        }
    }

    pub(in crate::redis) fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.borrow())
    }

    /// A shard of which nothing is known yet.
    pub(super) fn shard(&self, number: u64) -> Arc<Shard> {
        let shared = Shared::new(Arc::clone(&self.params), FENCES, &self.registry);
        Arc::new(Shard {
            number,
            shared: Arc::new(shared),
        })
    }

    /// A node says that a slot is another's.
    pub(super) fn moved(&self, slot: u16, addr: Addr) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if moved.len() < MOST_MOVED && !moved.contains(&(slot, addr.clone())) {
            moved.push((slot, addr));
        }
        drop(moved);
        self.wanted.notify_one();
    }

    /// What they said since the last time.
    pub(super) fn take_moved(&self) -> Vec<(u16, Addr)> {
        std::mem::take(&mut *self.moved.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
