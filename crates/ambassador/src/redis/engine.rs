//! Finds out who is what, on the main thread: each server is asked again and again, and what they say together makes the view.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podkit_dataplane::resp::{Greeting, Talk};
use podkit_dataplane::upstream::{Membership, Pool, Target};
use podkit_foundation::params::Addr;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::fence::place;
use super::params::MaxLag;
use super::roles::{self, Said};
use super::sentinel::{self, Answer};
use super::topology::{Member, Shared, View};

/// Servers at most.
pub(super) const MOST: usize = 64;
/// How often sentinels are asked when nothing happens.
const ASK: Duration = Duration::from_secs(1);
/// How soon a sentinel that is away is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// Places of the primary that are remembered, for lag in time.
const PAST: usize = 4096;

/// How a connection to a server is made.
pub(super) type Connect = Box<dyn Fn(&Addr) -> Rc<Pool>>;

/// What looks after the view.
pub(super) struct Engine {
    shared: Arc<Shared>,
    connect: Connect,
    greeting: Greeting,
    state: RefCell<State>,
    /// Told when a sentinel has said something by itself.
    news: Notify,
}

#[derive(Default)]
struct State {
    polls: BTreeMap<String, (Arc<Member>, JoinHandle<()>)>,
    /// Where servers are, in order.
    addrs: Vec<Addr>,
    answers: Vec<Option<Answer>>,
    /// Whom the sentinels agreed on (or the cluster's nodes say), and of which epoch.
    agreed: Option<(Addr, u64)>,
    /// Nodes of the cluster say that it does not answer.
    failing: bool,
    /// A replica that the sentinels' failover has made the primary, before they say so.
    heir: Option<Addr>,
    /// Where the primary was when.
    past: VecDeque<(Instant, u64)>,
}

impl State {
    /// Whether a sentinel's failover has made a replica the primary.
    fn look_for_heir(&mut self, members: &[Arc<Member>], said: &[Option<Said>], view: &View) {
        let all = || members.iter().zip(said);
        if let Some(heir) = &self.heir {
            // It was made a replica again: the sentinels know better.
            let back = |(member, said): (&Arc<Member>, &Option<Said>)| {
                member.addr == *heir && said.as_ref().is_some_and(|said| !said.primary)
            };
            if all().any(back) {
                self.heir = None;
            }
        } else if self.is_failing() {
            let goes_on = |(_, said): &(&Arc<Member>, &Option<Said>)| {
                let primary = said.as_ref().filter(|said| said.primary);
                primary.is_some_and(|said| said.former == view.id)
            };
            self.heir = all().find(goes_on).map(|(member, _)| member.addr.clone());
        }
    }

    /// A sentinel says that there is a failover.
    fn is_failing(&self) -> bool {
        self.failing || self.answers.iter().flatten().any(|answer| answer.failing)
    }

    /// Others say who the primary is. True when that is news.
    fn agree(&mut self, agreed: (Addr, u64)) -> bool {
        let before = self.agreed.as_ref().map(|(_, epoch)| *epoch);
        if before.is_none_or(|before| agreed.1 > before) || self.heir.as_ref() == Some(&agreed.0) {
            self.heir = None;
        }
        let changed = self.agreed.as_ref() != Some(&agreed);
        self.agreed = Some(agreed);
        changed
    }
}

impl Engine {
    pub(super) fn new(shared: Arc<Shared>, connect: Connect, greeting: Greeting) -> Rc<Self> {
        Rc::new(Self {
            shared,
            connect,
            greeting,
            state: RefCell::default(),
            news: Notify::new(),
        })
    }

    /// Follows these servers.
    pub(super) fn follow(self: &Rc<Self>, mut addrs: Vec<Addr>) {
        let mut seen = Vec::new();
        addrs.retain(|addr| {
            let name = addr.to_string();
            let fresh = !seen.contains(&name);
            seen.push(name);
            fresh
        });
        addrs.truncate(MOST);
        let mut state = self.state.borrow_mut();
        if state.addrs == addrs {
            return;
        }
        let names: Vec<String> = addrs.iter().map(ToString::to_string).collect();
        state.polls.retain(|name, (_, task)| {
            let stays = names.contains(name);
            if !stays {
                task.abort();
            }
            stays
        });
        for (addr, name) in addrs.iter().zip(&names) {
            if !state.polls.contains_key(name) {
                let member = Member::new(addr.clone(), &self.shared.registry);
                let task = tokio::task::spawn_local(Rc::clone(self).poll(Arc::clone(&member)));
                state.polls.insert(name.clone(), (member, task));
            }
        }
        state.addrs = addrs;
        drop(state);
        self.decide();
    }

    /// Follows the addresses of names.
    pub(super) async fn follow_names(self: Rc<Self>, membership: Membership) {
        let (mut epoch, mut before) = (0, Vec::<Target>::new());
        loop {
            let now = membership.epoch();
            if std::mem::replace(&mut epoch, now) != now {
                let view = membership.view();
                let all = view.endpoints.iter();
                let all: Vec<Target> = all.map(|one| one.target().clone()).collect();
                let addrs = |of: &[Target]| of.iter().map(|one| one.addr().clone()).collect();
                // One that is spoken to otherwise now is another one.
                before.retain(|one| all.contains(one));
                self.follow(addrs(&before));
                self.follow(addrs(&all));
                before = all;
            }
            tokio::time::sleep(self.shared.params.poll).await;
        }
    }

    /// Asks a server again and again.
    async fn poll(self: Rc<Self>, member: Arc<Member>) {
        let (pool, mut talk) = ((self.connect)(&member.addr), None);
        let patience = self.shared.params.connect_timeout;
        loop {
            let (asked, lost) = (Instant::now(), self.shared.fences.lost());
            let poked = self.shared.poke.notified();
            let mut said = self.ask(&pool, &mut talk, patience).await;
            // Sentinels close the connections of whom they make the primary: that is the moment to ask again.
            if said.is_err() && talk.take().is_some() && asked.elapsed() < patience {
                said = self.ask(&pool, &mut talk, patience).await;
            }
            if said.is_err() {
                talk = None;
            }
            // It is what it was; how far it is, is not known before the script has ended.
            let busy = said.as_ref().is_err_and(|why| why.starts_with("BUSY "));
            if busy && let Some(last) = member.said() {
                said = Ok(last);
            }
            let primary = said.as_ref().is_ok_and(|said| said.primary);
            let answered = member.is_alive();
            member.heard(said, asked);
            self.decide();
            if answered && !member.is_alive() {
                // What waits for it need not wait on.
                self.shared.view.send_modify(|_| ());
            }
            let view = self.shared.view();
            if !busy
                && let Some(said) = member.said()
                && view
                    .primary
                    .as_ref()
                    .is_some_and(|one| Arc::ptr_eq(one, &member))
                && said.id == view.id
            {
                let here = place(view.term, said.offset);
                self.shared.fences.make_up(lost, here);
            }
            let poll = self.shared.params.poll;
            let newest = self.shared.fences.newest();
            let behind = !primary
                && member.is_alive()
                && (newest.is_none_or(|newest| member.acked() < newest)
                    || self.state.borrow().is_failing());
            let pause = if behind { poll / 10 } else { poll };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = poked => {}
            }
        }
    }

    async fn ask(
        &self,
        pool: &Pool,
        talk: &mut Option<Talk>,
        patience: Duration,
    ) -> Result<Said, String> {
        let open = match talk {
            Some(talk) => talk,
            None => talk.insert(Talk::open(pool, &self.greeting).await?),
        };
        let reply = open.ask(&["INFO", "replication"], patience).await?;
        Said::parse(&reply).ok_or_else(|| "it is no Redis server: INFO says no role".to_owned())
    }

    /// Makes the view of what is known.
    fn decide(&self) {
        let mut state = self.state.borrow_mut();
        let members: Vec<Arc<Member>> = {
            let names = state.addrs.iter().map(ToString::to_string);
            names
                .filter_map(|name| Some(Arc::clone(&state.polls.get(&name)?.0)))
                .collect()
        };
        let said: Vec<Option<Said>> = members.iter().map(|member| member.said()).collect();
        let before = self.shared.view();
        state.look_for_heir(&members, &said, &before);
        let chosen = self.choose(&state, &members, &said, &before);
        let same = members.len() == before.members.len()
            && members
                .iter()
                .zip(&before.members)
                .all(|(one, other)| Arc::ptr_eq(one, other));
        let mut view = View {
            members,
            ..(*before).clone()
        };
        match chosen {
            Chosen::Stays => {}
            Chosen::Nobody => view.primary = None,
            Chosen::One(at, said) => {
                view.term += 1;
                view.id.clone_from(&said.id);
                view.primary = Some(Arc::clone(&view.members[at]));
                self.shared.fences.begin_term(place(view.term, said.offset));
                state.past.clear();
                self.announce(&before, &view);
            }
        }
        self.measure(&mut state, &view, &said);
        let changed =
            view.term != before.term || view.primary.is_some() != before.primary.is_some();
        if changed || !same {
            self.shared.view.send_replace(Arc::new(view));
        }
    }

    fn announce(&self, before: &View, view: &View) {
        let name = |view: &View| view.primary.as_ref().map(|member| member.name.clone());
        let (Some(now), term) = (name(view), view.term) else {
            return;
        };
        if before.term > 0 {
            self.shared.failovers.inc();
        }
        tracing::info!(primary = now, term, "the primary");
    }

    fn choose(
        &self,
        state: &State,
        members: &[Arc<Member>],
        said: &[Option<Said>],
        before: &View,
    ) -> Chosen {
        let position = |addr: &Addr| members.iter().position(|member| member.addr == *addr);
        let now = before.primary.as_ref();
        let at_now = now.and_then(|now| members.iter().position(|one| Arc::ptr_eq(one, now)));
        let params = &self.shared.params;
        let chosen = if params.sentinel.is_empty() && params.cluster.is_empty() {
            let all: Vec<Option<&Said>> = said.iter().map(Option::as_ref).collect();
            let named = params.primary.as_ref().and_then(|one| position(&one.addr));
            // Where the one of the term was, also when it is not the primary any more.
            let former = (before.term > 0).then(|| (at_now.unwrap_or(usize::MAX), &*before.id));
            roles::primary(&all, named, former)
        } else {
            let agreed = state.agreed.as_ref().map(|(addr, _)| addr);
            let Some(addr) = state.heir.as_ref().or(agreed) else {
                return Chosen::Stays;
            };
            let at = position(addr);
            if now.is_some_and(|now| now.addr != *addr) {
                // At once: it may not know yet that it is none any more.
                let ready = at.filter(|at| said[*at].as_ref().is_some_and(|said| said.primary));
                return ready.map_or(Chosen::Nobody, |at| {
                    Chosen::One(at, said[at].clone().unwrap_or_default())
                });
            }
            at.filter(|at| said[*at].as_ref().is_some_and(|said| said.primary))
        };
        match (chosen, at_now) {
            (Some(at), Some(now)) if at == now => {
                let said = said[at].clone().unwrap_or_default();
                let back = self.shared.is_back(before.term, members[at].state().asked);
                match said.id == before.id && !back {
                    true => Chosen::Stays,
                    false => Chosen::One(at, said),
                }
            }
            (Some(at), _) => Chosen::One(at, said[at].clone().unwrap_or_default()),
            // It says itself that it is a replica; one that is silent may come back.
            (None, Some(now)) if said[now].is_none() => Chosen::Stays,
            (None, _) => Chosen::Nobody,
        }
    }

    /// How far the replicas are.
    fn measure(&self, state: &mut State, view: &View, said: &[Option<Said>]) {
        let at = view.primary.as_ref();
        let of_primary = view.members.iter().zip(said).find_map(|(member, said)| {
            let is = at.is_some_and(|at| Arc::ptr_eq(at, member));
            is.then_some(said.as_ref()?.offset)
        });
        let now = Instant::now();
        if let Some(offset) = of_primary
            && state.past.back().is_none_or(|(_, last)| *last != offset)
        {
            state.past.push_back((now, offset));
            if state.past.len() > PAST {
                state.past.pop_front();
            }
        }
        let last = state.past.back().map(|(_, offset)| *offset);
        for (member, said) in view.members.iter().zip(said) {
            let is_primary = at.is_some_and(|at| Arc::ptr_eq(at, member));
            let Some(said) = said.as_ref().filter(|_| !is_primary) else {
                member.reached(0, false, is_primary.then_some(0));
                continue;
            };
            if said.primary || said.id != view.id {
                member.reached(0, false, None);
                continue;
            }
            let lag = last.map(|last| last.saturating_sub(said.offset));
            let near = match self.shared.params.max_lag {
                None => true,
                Some(MaxLag::Bytes(most)) => lag.is_some_and(|lag| lag <= most.0),
                Some(MaxLag::Time(most)) => {
                    // Since when the primary is farther.
                    let mut past = state.past.iter();
                    let since = past.find(|(_, offset)| *offset > said.offset);
                    since.is_none_or(|(since, _)| now.duration_since(*since) <= most)
                }
            };
            // What its primary wrote since the link broke it does not have, and how much that is nobody says.
            let cut = !said.linked && of_primary.is_some();
            let near = near && !cut && !said.syncing;
            member.reached(place(view.term, said.offset), near, lag);
        }
    }

    /// Asks a sentinel again and again; `at` is its place among them.
    pub(super) async fn ask_sentinel(self: Rc<Self>, at: usize, addr: Addr, greeting: Greeting) {
        let (pool, mut talk) = ((self.connect)(&addr), None);
        let mut problem = String::new();
        loop {
            let news = self.news.notified();
            let answer = self.question(&pool, &mut talk, &greeting).await;
            let answer = match answer {
                Ok(answer) => {
                    problem.clear();
                    Some(answer)
                }
                Err(why) => {
                    talk = None;
                    if problem != why {
                        tracing::warn!(sentinel = %addr, why, "a sentinel says nothing");
                        problem = why;
                    }
                    None
                }
            };
            self.answered(at, answer);
            tokio::select! {
                () = tokio::time::sleep(ASK) => {}
                () = news => {}
            }
        }
    }

    async fn question(
        &self,
        pool: &Pool,
        talk: &mut Option<Talk>,
        greeting: &Greeting,
    ) -> Result<Answer, String> {
        let params = &self.shared.params;
        let (name, patience) = (
            params.master_name.as_deref().unwrap_or_default(),
            params.connect_timeout,
        );
        let talk = match talk {
            Some(talk) => talk,
            None => talk.insert(Talk::open(pool, greeting).await?),
        };
        // The epoch first: an address that is newer than it is taken a moment later.
        let master = talk.ask(&["SENTINEL", "MASTER", name], patience).await?;
        let primary = talk
            .ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name], patience)
            .await?;
        let replicas = talk.ask(&["SENTINEL", "REPLICAS", name], patience).await?;
        let answer = || {
            let (epoch, failing, former) = sentinel::master(&master)?;
            let mut replicas = sentinel::replicas(&replicas)?;
            replicas.push(former);
            Some(Answer {
                primary: sentinel::primary(&primary)?,
                epoch,
                failing,
                replicas,
            })
        };
        answer().ok_or_else(|| format!("its answer about {name} can't be read"))
    }

    fn answered(self: &Rc<Self>, at: usize, answer: Option<Answer>) {
        let mut state = self.state.borrow_mut();
        if state.answers.len() <= at {
            state.answers.resize(at + 1, None);
        }
        state.answers[at] = answer;
        let answers: Vec<&Answer> = state.answers.iter().flatten().collect();
        let count = self.shared.params.sentinel.len();
        let now = state.agreed.as_ref().map(|(addr, epoch)| (addr, *epoch));
        let Some(agreed) = sentinel::agreed(&answers, count, now) else {
            return;
        };
        let mut addrs = vec![agreed.primary.clone()];
        for answer in &answers {
            addrs.push(answer.primary.clone());
            addrs.extend(answer.replicas.iter().cloned());
        }
        // In an order that does not change with who is the primary.
        addrs.sort_by_key(ToString::to_string);
        let agreed = (agreed.primary.clone(), agreed.epoch);
        let changed = state.agree(agreed.clone());
        if changed {
            tracing::info!(primary = %agreed.0, epoch = agreed.1, "the sentinels agree");
        }
        drop(state);
        self.follow(addrs);
        if changed {
            self.decide();
            self.shared.poke.notify_waiters();
        }
    }

    /// The nodes of a cluster say who its primary is, which other servers there are, and whether it answers them.
    pub(super) fn told(self: &Rc<Self>, primary: (Addr, u64), others: Vec<Addr>, failing: bool) {
        let mut state = self.state.borrow_mut();
        let mut addrs = others;
        addrs.push(primary.0.clone());
        addrs.sort_by_key(ToString::to_string);
        let changed = state.agree(primary) || state.failing != failing;
        state.failing = failing;
        drop(state);
        self.follow(addrs);
        if changed {
            self.decide();
            self.shared.poke.notify_waiters();
        }
    }

    /// Asks nobody any more, and nobody is the primary.
    pub(super) fn end(&self) {
        let mut state = self.state.borrow_mut();
        std::mem::take(&mut state.polls)
            .into_values()
            .for_each(|(_, task)| task.abort());
        state.addrs.clear();
        let view = View {
            primary: None,
            members: Vec::new(),
            ..(*self.shared.view()).clone()
        };
        self.shared.view.send_replace(Arc::new(view));
    }

    /// Listens to what a sentinel says by itself; whatever it is, all are asked.
    pub(super) async fn hear_sentinel(self: Rc<Self>, addr: Addr, greeting: Greeting) {
        let pool = (self.connect)(&addr);
        loop {
            // What it may have said before is asked for when the connection is there.
            if let Ok(mut talk) = Talk::open(&pool, &greeting).await
                && talk.say(&["PSUBSCRIBE", "*"]).await.is_ok()
            {
                while talk.hear().await.is_ok() {
                    self.news.notify_waiters();
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// What becomes of the primary.
enum Chosen {
    /// Nothing.
    Stays,
    /// There is none.
    Nobody,
    /// This is it, in a new term.
    One(usize, Said),
}
