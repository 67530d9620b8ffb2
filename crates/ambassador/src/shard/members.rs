//! The shards as one worker sees them, and how a change of them is taken over.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use podkit_foundation::telemetry::metrics::Counter;
use tokio::sync::watch;

use super::failure::{Key, key};
use super::params::{ShardSaid, Shards};
use super::shared::Shared;

/// How the way to a shard that is new is made.
type Make<T> = Box<dyn Fn(&ShardSaid) -> T>;

/// `T` is the way to a shard: what holds its connections.
pub(super) struct Members<T> {
    shared: Arc<Shared>,
    make: Make<T>,
    /// What is done with the way to a shard that is out.
    cut: fn(&T),
    state: RefCell<State<T>>,
    /// Which change of the shards the state is of.
    seen: Cell<u64>,
    refused: Counter,
}

/// The shards in force.
pub(super) struct State<T> {
    pub(super) shards: Arc<Shards>,
    members: Vec<Member<T>>,
}

/// A shard.
pub(super) struct Member<T> {
    said: ShardSaid,
    way: T,
    sent: Counter,
}

impl<T: Clone> State<T> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// It can have keys now.
    pub(super) fn is_there(&self, at: usize) -> bool {
        !self.shards.left_out[at]
    }

    /// The first shard that is there.
    pub(super) fn least(&self) -> usize {
        let found = (0..self.len()).find(|at| self.is_there(*at));
        found.unwrap_or_default()
    }

    /// The way to one, without a command being sent.
    pub(super) fn way(&self, at: usize) -> T {
        self.members[at].way.clone()
    }

    /// The way to one for a command that is sent there.
    pub(super) fn send(&self, at: usize) -> T {
        self.members[at].sent.inc();
        self.way(at)
    }
}

impl<T> Members<T> {
    /// `make` opens nothing yet.
    pub(super) fn new(
        shared: Arc<Shared>,
        make: impl Fn(&ShardSaid) -> T + 'static,
        cut: fn(&T),
    ) -> Self {
        let members = Self {
            state: RefCell::new(State {
                members: Vec::new(),
                shards: shared.shards(),
            }),
            seen: Cell::new(u64::MAX),
            make: Box::new(make),
            cut,
            refused: shared.refused(),
            shared,
        };
        members.follow();
        members
    }

    /// Those that were in force when `follow` was called.
    pub(super) fn state(&self) -> Ref<'_, State<T>> {
        self.state.borrow()
    }

    /// Takes over a change of the shards. Those that stay keep their connections.
    pub(super) fn follow(&self) {
        let now = self.shared.changes();
        if self.seen.replace(now) == now {
            return;
        }
        let shards = self.shared.shards();
        let mut state = self.state.borrow_mut();
        let mut known: HashMap<Key, Member<T>> = HashMap::new();
        for member in state.members.drain(..) {
            known.insert(key(&member.said), member);
        }
        for away in &shards.away {
            // One that comes back is a new one.
            if let Some(member) = known.remove(away) {
                (self.cut)(&member.way);
            }
        }
        for said in &shards.all {
            let member = match known.remove(&key(said)) {
                Some(known) => Member {
                    said: said.clone(),
                    ..known
                },
                None => Member {
                    way: (self.make)(said),
                    sent: self.shared.commands(&said.name),
                    said: said.clone(),
                },
            };
            state.members.push(member);
        }
        state.shards = shards;
    }

    /// Told of the next change.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.shared.news()
    }

    /// A command was refused.
    pub(super) fn refused(&self) {
        self.refused.inc();
    }
}
