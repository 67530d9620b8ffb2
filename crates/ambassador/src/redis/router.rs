//! Which server a command goes to, as one worker decides it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use podkit_dataplane::resp::{Greeting, Node, Request, Sender, Ticket, Waits, Watch, Way};
use podkit_dataplane::upstream::{Pool, Wire};
use podkit_foundation::params::Addr;
use tokio::sync::{Notify, watch};

use super::cluster::Nodes;
use super::commands::Class;
use super::fence::ALL;
use super::held::{Held, Kept};
use super::params::ReadFrom;
use super::topology::{Member, Shared, View};
use super::watch::{OfPrimary, OfReplica};
use crate::known::{Known, Look, Said};

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// How often what waits is tried again.
pub(super) const AGAIN: Duration = Duration::from_millis(20);

/// A client's note: nothing of it is on its way.
pub(super) const NOWHERE: u8 = 0;
/// Something is at the primary.
pub(super) const AT_PRIMARY: u8 = 1;
/// Something is at the replica whose place among the members this and the rest is.
pub(super) const AT_REPLICA: u8 = 2;

/// How connections to a server are made.
type Connect = Box<dyn Fn(&Member) -> Rc<Pool>>;

/// The servers as one worker sees them.
pub(super) struct Local {
    pub(super) me: Weak<Self>,
    pub(super) shared: Arc<Shared>,
    pub(super) known: Arc<Known>,
    /// Of which this is a shard, if of any.
    cluster: Weak<Nodes>,
    /// It is none any more.
    pub(super) over: Cell<bool>,
    connect: Connect,
    greeting: Greeting,
    changes: RefCell<watch::Receiver<Arc<View>>>,
    pub(super) state: RefCell<State>,
    pub(super) held: RefCell<Held>,
    /// Told when something waits that may be sent at once.
    pub(super) news: Notify,
    /// Told when something waits again.
    pub(super) again: Notify,
    order: Cell<u64>,
    turn: Cell<usize>,
    pub(super) numbers: RefCell<Vec<u16>>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

pub(super) struct State {
    view: Arc<View>,
    pub(super) primary: Option<Rc<Node>>,
    pub(super) replicas: HashMap<String, (Arc<Member>, Rc<Node>)>,
    /// What is named where there is no primary.
    pub(super) nobody: Rc<Node>,
}

/// Where a command may go now.
enum To {
    Primary(Rc<Node>),
    /// Its place among the members too.
    Replica(Rc<Node>, usize),
    /// Nowhere yet.
    Later,
}

impl Local {
    /// Spawns the task that sees to what waits.
    pub(super) fn new(
        shared: Arc<Shared>,
        known: Arc<Known>,
        cluster: Weak<Nodes>,
        greeting: Greeting,
        connect: impl Fn(&Member) -> Rc<Pool> + 'static,
        nobody: Rc<Node>,
    ) -> Rc<Self> {
        let changes = shared.view.subscribe();
        let local = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            known,
            cluster,
            over: Cell::new(false),
            connect: Box::new(connect),
            greeting,
            changes: RefCell::new(changes),
            state: RefCell::new(State {
                view: Arc::default(),
                primary: None,
                replicas: HashMap::new(),
                nobody,
            }),
            held: RefCell::default(),
            news: Notify::new(),
            again: Notify::new(),
            order: Cell::new(0),
            turn: Cell::new(0),
            numbers: RefCell::default(),
            shared,
        });
        local.follow(true);
        drop(tokio::task::spawn_local(Rc::clone(&local).live()));
        local
    }

    /// Sees to what waits, and to what changes.
    async fn live(self: Rc<Self>) {
        let mut changes = self.shared.view.subscribe();
        loop {
            let waits = !self.held.borrow().is_empty();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.news.notified() => {}
                // Not at once: it was just tried.
                () = self.again.notified() => continue,
                () = tokio::time::sleep(AGAIN), if waits => {}
            }
            if self.over.get() {
                return;
            }
            self.follow(false);
            self.release();
        }
    }

    /// Takes over a change. A server that is the primary no more gets nothing more from then on.
    pub(super) fn follow(&self, first: bool) {
        if !first && !self.changes.borrow().has_changed().unwrap_or(false) {
            return;
        }
        let view = Arc::clone(&self.changes.borrow_mut().borrow_and_update());
        let mut state = self.state.borrow_mut();
        let same = |one: Option<&Arc<Member>>, other: Option<&Arc<Member>>| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        let mut former = None;
        let before = &state.view;
        if before.term != view.term || !same(before.primary.as_ref(), view.primary.as_ref()) {
            former = state.primary.take();
            state.primary = view
                .primary
                .as_ref()
                .map(|member| self.of_primary(member, &view));
        }
        let (stay, gone) =
            std::mem::take(&mut state.replicas)
                .into_iter()
                .partition(|(_, (member, _))| {
                    let mut members = view.members.iter();
                    // One that left and came back is another one, which may be spoken to otherwise.
                    members.any(|one| Arc::ptr_eq(one, member) && one.is_alive())
                });
        state.replicas = stay;
        let gone: HashMap<String, (Arc<Member>, Rc<Node>)> = gone;
        state.view = view;
        drop(state);
        if let Some(former) = former {
            former.retire("it is not the primary any more");
            self.news.notify_one();
        }
        for (_, node) in gone.values() {
            node.retire("it does not answer");
            self.news.notify_one();
        }
    }

    fn of_primary(&self, member: &Arc<Member>, view: &View) -> Rc<Node> {
        let watch = OfPrimary {
            shared: Arc::clone(&self.shared),
            member: Arc::clone(member),
            term: view.term,
            id: view.id.clone(),
        };
        let name = format!("the primary ({})", member.name);
        self.node(&name, member, Rc::new(watch))
    }

    fn node(&self, name: &str, member: &Member, watch: Rc<dyn Watch>) -> Rc<Node> {
        let params = &self.shared.params;
        let waits = Waits {
            patience: params.response_timeout,
            busy_poll: params.busy_poll,
        };
        Node::watched(
            name,
            (self.connect)(member),
            self.greeting.clone(),
            waits,
            watch,
        )
    }

    fn of_replica(&self, state: &mut State, at: usize) -> Rc<Node> {
        let member = Arc::clone(&state.view.members[at]);
        if let Some((_, node)) = state.replicas.get(&member.name) {
            return Rc::clone(node);
        }
        let watch = OfReplica {
            shared: Arc::clone(&self.shared),
            member: Arc::clone(&member),
        };
        let name = format!("replica {}", member.name);
        let node = self.node(&name, &member, Rc::new(watch));
        let entry = (Arc::clone(&member), Rc::clone(&node));
        state.replicas.insert(member.name.clone(), entry);
        node
    }

    /// The primary, if it may be sent something.
    pub(super) fn primary(&self) -> Option<Rc<Node>> {
        let state = self.state.borrow();
        match self.shared.is_refused(state.view.term) {
            true => None,
            false => state.primary.clone(),
        }
    }

    /// Where a read goes. `note`: where the client's commands before it are.
    fn choose(&self, numbers: &[u16], note: u8) -> To {
        let params = &self.shared.params;
        let needed = match params.read_your_writes {
            true => self.shared.fences.needed(numbers),
            // The history has to be the primary's all the same.
            false => Some(1),
        };
        let mut state = self.state.borrow_mut();
        let view = Arc::clone(&state.view);
        let primary = state
            .primary
            .clone()
            .filter(|_| !self.shared.is_refused(view.term));
        // One that was silent, or refused a write, may come back; replicas that answer do so now.
        let alive = view
            .primary
            .as_ref()
            .is_some_and(|member| member.is_alive());
        let answers = alive && primary.is_some();
        let mut best: Option<(u64, usize)> = None;
        let (count, mut farther) = (view.members.len(), false);
        if params.read != ReadFrom::Primary {
            let turn = self.turn.get();
            self.turn.set(turn.wrapping_add(1));
            for step in 0..count {
                let at = (turn + step) % count;
                let member = &view.members[at];
                if !member.is_near() || member.acked() == 0 {
                    continue;
                }
                farther |= needed.is_none_or(|needed| member.acked() < needed);
                if needed.is_none_or(|needed| member.acked() < needed) {
                    continue;
                }
                // The one that has the client's commands before this, then the nearest or the next.
                let rank = match params.read {
                    _ if usize::from(note) == at + usize::from(AT_REPLICA) => 0,
                    ReadFrom::Nearest => 1 + u64::from(member.trip_us()),
                    _ => 1,
                };
                if best.is_none_or(|(least, _)| rank < least) {
                    best = Some((rank, at));
                }
            }
        }
        if params.read == ReadFrom::Nearest
            && let (Some((rank, _)), Some(node), Some(member)) = (best, &primary, &view.primary)
            && answers
            && rank > 1 + u64::from(member.trip_us())
        {
            return To::Primary(Rc::clone(node));
        }
        if let Some((_, at)) = best {
            return To::Replica(self.of_replica(&mut state, at), at);
        }
        let only_replicas = params.read == ReadFrom::Replica && !farther;
        if let Some(node) = primary.filter(|_| answers && !only_replicas) {
            if farther {
                self.shared.fenced.inc();
            }
            return To::Primary(node);
        }
        // Nobody knows more than the replicas now.
        if params.read != ReadFrom::Primary && !answers {
            let alive = |at: &usize| {
                let member = &view.members[*at];
                let is_primary = view
                    .primary
                    .as_ref()
                    .is_some_and(|one| Arc::ptr_eq(one, member));
                !is_primary
                    && member.is_alive()
                    && member
                        .said()
                        .is_some_and(|said| !said.primary && !said.syncing)
            };
            let farthest = (0..count)
                .filter(alive)
                .max_by_key(|at| view.members[*at].acked());
            if let Some(at) = farthest {
                self.shared.stale.inc();
                return To::Replica(self.of_replica(&mut state, at), at);
            }
        }
        match &state.primary {
            // It may only be slow to say how it is.
            Some(node) if !only_replicas && !self.shared.is_refused(view.term) => {
                To::Primary(Rc::clone(node))
            }
            _ => To::Later,
        }
    }

    /// Sends it if there is a server for it, and says where it is; gives it back otherwise.
    pub(super) fn try_send(
        &self,
        mut kept: Box<Kept>,
        ticket: Ticket,
        note: u8,
    ) -> Result<(u8, Way), (Box<Kept>, Ticket)> {
        let to = match kept.class {
            Class::Read if note != AT_PRIMARY && !kept.course.asking => {
                self.choose(&kept.numbers, note)
            }
            _ => self.primary().map_or(To::Later, To::Primary),
        };
        let (node, note) = match to {
            To::Primary(node) => (node, AT_PRIMARY),
            To::Replica(node, at) => (node, u8::try_from(at).map_or(u8::MAX, |at| at + AT_REPLICA)),
            To::Later => return Err((kept, ticket)),
        };
        if kept.is_first {
            kept.way = node.script_way(kept.greeting.as_ref());
        }
        let way = kept.way;
        let lane = node.lane(kept.greeting.as_ref(), way);
        let state = self.state.borrow();
        kept.term = state.view.term;
        match note {
            AT_PRIMARY => {
                if let Some(member) = &state.view.primary {
                    member.as_primary.inc();
                }
                kept.replica = None;
            }
            note => {
                let member = &state.view.members[usize::from(note - AT_REPLICA)];
                member.as_replica.inc();
                kept.replica = Some(member.name.clone());
            }
        }
        drop(state);
        let bytes = Rc::clone(&kept.bytes);
        let marked = (kept.class == Class::Write).then(|| kept.numbers.clone());
        let lead = if kept.course.asking { ASKING } else { &[] };
        if let Some(marked) = &marked {
            self.shared.fences.begin(marked);
        }
        lane.send_behind(lead, &bytes, ticket.kept(kept));
        if let Some(marked) = &marked {
            lane.mark(marked);
        }
        Ok((note, way))
    }

    /// Those on which a script of this worker's clients may run.
    pub(super) fn busy(&self) -> Vec<Rc<Node>> {
        let primary = self.primary();
        let state = self.state.borrow();
        let replicas = state.replicas.values().map(|(_, node)| Rc::clone(node));
        primary.into_iter().chain(replicas).collect()
    }

    /// The place of the next command among all of the worker's.
    pub(super) fn next(&self) -> u64 {
        let order = self.order.get();
        self.order.set(order + 1);
        order
    }

    /// What is said where there is no server for a command.
    pub(super) fn nobody(&self, class: Class) -> &'static str {
        match (class, self.shared.params.read) {
            (Class::Read, ReadFrom::Replica) => "no replica can be read from",
            _ => "there is no primary",
        }
    }

    /// The primary's lane has room for another command; or it would wait elsewhere.
    pub(super) fn has_room(&self, sender: &Sender<'_>, cx: &Context<'_>) -> bool {
        if self.held.borrow().has_writes() {
            return true;
        }
        self.primary()
            .is_none_or(|primary| primary.lane(sender.greeting, sender.way.get()).has_room(cx))
    }

    /// A node is what stands for its primary.
    pub(super) fn is_of(&self, node: &Rc<Node>) -> bool {
        let state = self.state.borrow();
        let primary = state.primary.as_ref();
        primary.is_some_and(|one| Rc::ptr_eq(one, node)) || Rc::ptr_eq(&state.nobody, node)
    }

    /// Its primary is at an address.
    pub(super) fn is_primary(&self, addr: &Addr) -> bool {
        let state = self.state.borrow();
        let primary = state.view.primary.as_ref();
        primary.is_some_and(|member| member.addr == *addr)
    }

    /// What stands for its primary.
    pub(super) fn stands(&self) -> Rc<Node> {
        self.follow(false);
        let nobody = || Rc::clone(&self.state.borrow().nobody);
        self.primary().unwrap_or_else(nobody)
    }

    pub(super) fn term(&self) -> u64 {
        self.state.borrow().view.term
    }

    /// Where its primary is.
    pub(super) fn primary_at(&self) -> Option<Addr> {
        let state = self.state.borrow();
        state
            .view
            .primary
            .as_ref()
            .map(|member| member.addr.clone())
    }

    /// Where a command was answered.
    pub(super) fn answered(&self, kept: &Kept) -> Option<Addr> {
        let state = self.state.borrow();
        let member = match &kept.replica {
            None => state.view.primary.as_ref(),
            Some(name) => state.view.members.iter().find(|one| one.name == *name),
        };
        member.map(|member| member.addr.clone())
    }

    /// The cluster that this is a shard of.
    pub(super) fn cluster(&self) -> Option<Rc<Nodes>> {
        self.cluster.upgrade()
    }

    /// Whatever is read from now on, a replica has what was written by now.
    pub(super) fn fence_all(&self) {
        let Some(primary) = self.primary() else {
            return;
        };
        self.shared.fences.begin(&[ALL]);
        primary.lane(None, Way::Common).mark(&[ALL]);
    }

    /// Opens a connection of one client's own to the primary, once there is one.
    pub(super) async fn open(
        self: Rc<Self>,
        greeting: Option<Greeting>,
    ) -> Result<(Rc<Node>, Wire), String> {
        let began = Instant::now();
        loop {
            self.follow(false);
            let why = match self.primary() {
                None => "there is no primary".to_owned(),
                Some(node) => match node.open(greeting.as_ref()).await {
                    Ok(wire) => return Ok((node, wire)),
                    Err(why) => why,
                },
            };
            if began.elapsed() >= self.shared.params.hold {
                return Err(why);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The primary says that it is a replica.
    pub(super) fn refused(&self, term: u64) {
        self.shared.refuse(term);
    }

    /// A write was sent and not answered.
    pub(super) fn uncertain(&self) {
        self.shared.uncertain.inc();
    }

    /// A replica that failed is not read from before it has said how far it is.
    pub(super) fn avoid(&self, name: &str) {
        let state = self.state.borrow();
        if let Some(member) = state
            .view
            .members
            .iter()
            .find(|member| member.name == *name)
        {
            member.unfit();
        }
    }

    /// What the primary has said of a command that podkit does not know. It is asked when it never was.
    pub(super) fn said(&self, request: &Request<'_>) -> Option<Said> {
        match self.known.look(request) {
            Look::Said(said) => Some(said),
            Look::Ask(name) => {
                match self.primary() {
                    Some(node) => Arc::clone(&self.known).ask(name, node),
                    None => self.known.fail(name, "there is no primary".to_owned()),
                }
                None
            }
            Look::Nobody | Look::Asked | Look::Unanswered(_) => None,
        }
    }
}
