//! The shards as one worker sees them, and what becomes of a command that a node did not do.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use podkit_dataplane::resp::{Elsewhere, Failure, Greeting, Node, Ticket};
use podkit_dataplane::upstream::Wire;
use podkit_foundation::params::Addr;
use tokio::sync::watch;

use super::map::{Cluster, Map, Shard};
use super::said::{Turn, turn};
use crate::redis::commands::Class;
use crate::redis::held::Kept;
use crate::redis::router::{AGAIN, Local};

/// A command that was sent elsewhere so often waits a moment before it is again.
const TURNS: u8 = 8;

/// How a worker's part of a shard is made.
type Make = Box<dyn Fn(&Shard, Weak<Nodes>) -> Rc<Local>>;

/// The shards of one worker.
pub(in crate::redis) struct Nodes {
    pub(super) me: Weak<Self>,
    pub(super) cluster: Arc<Cluster>,
    make: Make,
    /// What is named where no node is known.
    pub(super) nobody: Rc<Node>,
    changes: RefCell<watch::Receiver<Arc<Map>>>,
    state: RefCell<State>,
    order: Cell<u64>,
    /// Counts changes after which a client that waits for replies has to wait for all of them.
    era: Cell<u32>,
    pub(super) numbers: RefCell<Vec<u16>>,
    /// Clients that wait until a node is known.
    pub(super) crowd: RefCell<Vec<Waker>>,
    pub(super) began: Instant,
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nodes").finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) map: Arc<Map>,
    /// As in the map.
    pub(super) shards: Vec<Rc<Local>>,
}

impl State {
    /// Where a command for a slot goes; one that nobody has: to any, which knows better or says so.
    pub(super) fn owner(&self, slot: u16) -> Option<Rc<Local>> {
        let at = self.map.owner(slot).unwrap_or(0);
        self.shards.get(at).map(Rc::clone)
    }
}

impl Nodes {
    /// Spawns the task that follows changes.
    pub(in crate::redis) fn new(
        cluster: Arc<Cluster>,
        nobody: Rc<Node>,
        make: impl Fn(&Shard, Weak<Self>) -> Rc<Local> + 'static,
    ) -> Rc<Self> {
        let mut changes = cluster.map.subscribe();
        changes.mark_changed();
        let nodes = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            cluster,
            make: Box::new(make),
            nobody,
            changes: RefCell::new(changes),
            state: RefCell::default(),
            order: Cell::new(0),
            era: Cell::new(0),
            numbers: RefCell::default(),
            crowd: RefCell::default(),
            began: Instant::now(),
        });
        nodes.follow();
        drop(tokio::task::spawn_local(Rc::clone(&nodes).live()));
        nodes
    }

    async fn live(self: Rc<Self>) {
        let mut changes = self.cluster.map.subscribe();
        loop {
            let waits = self.state().shards.is_empty();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(AGAIN), if waits => {}
            }
            self.follow();
            self.crowd.borrow_mut().drain(..).for_each(Waker::wake);
        }
    }

    /// Those that were in force when `follow` was called.
    pub(super) fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    /// The place of the next command among all of the worker's.
    pub(super) fn next(&self) -> u64 {
        let order = self.order.get();
        self.order.set(order + 1);
        order
    }

    /// In 24 bits.
    pub(super) fn era(&self) -> u32 {
        self.era.get() & 0x00ff_ffff
    }

    fn begin_era(&self) {
        self.era.set(self.era.get().wrapping_add(1));
    }

    /// Takes over a change. What waits goes where it belongs now.
    pub(super) fn follow(&self) {
        if !self.changes.borrow().has_changed().unwrap_or(false) {
            return;
        }
        let map = Arc::clone(&self.changes.borrow_mut().borrow_and_update());
        let mut state = self.state.borrow_mut();
        let before = std::mem::replace(&mut state.map, Arc::clone(&map));
        let locals = std::mem::take(&mut state.shards);
        let mut former: HashMap<u64, Rc<Local>> = before
            .shards
            .iter()
            .map(|shard| shard.number)
            .zip(locals)
            .collect();
        for shard in &map.shards {
            let local = former.remove(&shard.number);
            let local = local.unwrap_or_else(|| (self.make)(shard, self.me.clone()));
            state.shards.push(local);
        }
        let shards = state.shards.clone();
        drop(state);
        self.begin_era();
        // Nothing is borrowed: what was on their connections comes back here.
        for gone in former.values() {
            for (kept, ticket) in gone.end() {
                self.place(kept, ticket, None);
            }
        }
        for local in &shards {
            let waiting: Vec<_> = local.held.borrow_mut().take().collect();
            for (kept, ticket) in waiting {
                match kept.course.told {
                    // What its client sent behind it is told so next, and must not come before it.
                    true => local.turned(kept, ticket),
                    false => self.place(kept, ticket, Some(local)),
                }
            }
        }
    }

    /// Has one wait at the shard that has its slot; where that is not known, where it is.
    fn place(&self, mut kept: Box<Kept>, ticket: Ticket, here: Option<&Rc<Local>>) {
        let owner = kept.course.slot.and_then(|slot| self.state().owner(slot));
        match owner.as_ref().or(here) {
            Some(local) => {
                kept.course.asking &= here.is_some_and(|here| Rc::ptr_eq(here, local));
                local.turned(kept, ticket);
            }
            None => {
                let line = "-ERR the node is none of the cluster any more: it was not done\r\n";
                ticket.reply(line.as_bytes());
            }
        }
    }

    /// The shard whose primary a node is, or is named for.
    pub(super) fn shard_of(&self, node: &Rc<Node>) -> Option<Rc<Local>> {
        let state = self.state();
        let mut all = state.shards.iter();
        all.find(|local| local.is_of(node)).map(Rc::clone)
    }

    /// A command was not done, or nobody knows. Gives it back where that has nothing to do with the cluster.
    pub(in crate::redis) fn turned(
        &self,
        mut kept: Box<Kept>,
        failure: Failure<'_>,
        ticket: Ticket,
    ) -> Option<(Box<Kept>, Ticket)> {
        let Failure::Error(line) = failure else {
            self.cluster.wanted.notify_one();
            return Some((kept, ticket));
        };
        if line.starts_with(b"-CLUSTERDOWN ") {
            self.cluster.wanted.notify_one();
        }
        let here = kept.local.upgrade();
        let from = here.as_ref().and_then(|local| local.answered(&kept));
        let Some(turn) = turn(line, &from.unwrap_or(Addr::Port(0))) else {
            return Some((kept, ticket));
        };
        kept.why = String::from_utf8_lossy(line)
            .trim_start_matches('-')
            .trim_end()
            .to_owned();
        let replica = kept.replica.take();
        if kept.class == Class::Read {
            // What the slot brings along its replicas may not have yet.
            kept.class = Class::Own;
        }
        kept.course.turns = kept.course.turns.wrapping_add(1);
        kept.course.asking = false;
        let counts = &self.cluster.redirects;
        let addr = match turn {
            Turn::TryAgain | Turn::Unserved => {
                let tries = turn == Turn::TryAgain;
                if tries {
                    &counts.try_again
                } else {
                    &counts.unserved
                }
                .inc();
                self.later(kept, ticket);
                return None;
            }
            Turn::Moved(slot, addr) => {
                counts.moved.inc();
                kept.course.slot = Some(slot);
                self.cluster.moved(slot, addr.clone());
                addr
            }
            Turn::Ask(addr) => {
                counts.ask.inc();
                kept.course.asking = true;
                addr
            }
        };
        let Some(to) = self.at(&addr) else {
            // One that has come just now.
            kept.course.asking = false;
            self.cluster.wanted.notify_one();
            self.later(kept, ticket);
            return None;
        };
        let same = here.is_some_and(|here| Rc::ptr_eq(&here, &to));
        kept.local = to.me.clone();
        kept.course.told = true;
        // It is the primary no more, and names the one that is.
        let demoted = same && !kept.course.asking && replica.is_none() && !to.is_primary(&addr);
        if demoted {
            to.refused(kept.term);
        }
        match demoted || kept.course.turns.is_multiple_of(TURNS) {
            true => to.wait(kept, ticket),
            false => to.turned(kept, ticket),
        }
        None
    }

    /// The same for a connection of one client's own.
    pub(super) fn elsewhere(&self, error: &[u8], node: &Rc<Node>) -> Option<Elsewhere> {
        let here = self.shard_of(node);
        if error.starts_with(b"-CLUSTERDOWN ") || error.starts_with(b"-LOADING ") {
            self.cluster.wanted.notify_one();
            return Some(Elsewhere::Later);
        }
        let from = here.as_ref().and_then(|local| local.primary_at());
        let counts = &self.cluster.redirects;
        let (addr, asking) = match turn(error, &from.unwrap_or(Addr::Port(0)))? {
            Turn::TryAgain | Turn::Unserved => {
                counts.try_again.inc();
                return Some(Elsewhere::Later);
            }
            Turn::Moved(slot, addr) => {
                counts.moved.inc();
                self.cluster.moved(slot, addr.clone());
                (addr, false)
            }
            Turn::Ask(addr) => {
                counts.ask.inc();
                (addr, true)
            }
        };
        let Some(to) = self.at(&addr) else {
            self.cluster.wanted.notify_one();
            return Some(Elsewhere::Later);
        };
        if here.is_some_and(|here| Rc::ptr_eq(&here, &to)) && !to.is_primary(&addr) {
            to.refused(to.term());
        }
        Some(Elsewhere::At(to.stands(), asking))
    }

    /// The shard that has a node.
    fn at(&self, addr: &Addr) -> Option<Rc<Local>> {
        let state = self.state();
        let at = state.map.names.get(&addr.to_string())?;
        state.shards.get(usize::from(*at)).map(Rc::clone)
    }

    /// Tries it again in a moment. Others need not wait behind it, but its client's.
    fn later(&self, mut kept: Box<Kept>, ticket: Ticket) {
        kept.course.alone = true;
        self.begin_era();
        let owner = kept.course.slot.and_then(|slot| self.state().owner(slot));
        match owner.or_else(|| kept.local.upgrade()) {
            Some(local) => {
                kept.local = local.me.clone();
                local.wait(kept, ticket);
            }
            None => ticket.reply(format!("-{}\r\n", kept.why).as_bytes()),
        }
    }

    /// Opens a connection of one client's own to any node, once one is known.
    pub(super) async fn open_any(
        self: Rc<Self>,
        greeting: Option<Greeting>,
    ) -> Result<(Rc<Node>, Wire), String> {
        let began = Instant::now();
        loop {
            self.follow();
            let first = self.state().shards.first().map(Rc::clone);
            match first {
                Some(local) => return local.open(greeting).await,
                None if began.elapsed() >= self.cluster.params.hold => {
                    return Err(UNKNOWN.to_owned());
                }
                None => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}

/// Why nothing can be done yet.
pub(super) const UNKNOWN: &str = "no node of the cluster has said who has which slots";
