//! Finds out who has which slots, on the main thread: a node is asked again and again, and at once when a command was sent elsewhere or a
//! connection was lost. Each shard's servers are asked what they are by an engine of its own.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use podkit_dataplane::resp::{Greeting, Talk};
use podkit_dataplane::upstream::Pool;
use podkit_foundation::params::Addr;

use super::map::{Cluster, Map, NOBODY, Shard};
use super::said::{Seen, nodes};
use crate::redis::engine::Engine;

/// Between two questions at least.
const PAUSE: Duration = Duration::from_millis(10);
/// Shards at most, as Redis says a cluster should have nodes.
const MOST_SHARDS: usize = 1000;

type Connect = Rc<dyn Fn(&Addr) -> Rc<Pool>>;

/// What looks after the map.
pub(in crate::redis) struct Finder {
    cluster: Arc<Cluster>,
    connect: Connect,
    greeting: Greeting,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    shards: Vec<Known>,
    /// How many there ever were.
    numbers: u64,
    /// The newest view that was believed.
    newest: Age,
    /// Who is asked first: the one that answered last.
    last: Option<Addr>,
    talks: HashMap<String, Talk>,
    problem: String,
}

/// How new what a node says is: that slots are someone's at all, and the greatest epoch.
type Age = (bool, u64);

fn age(seen: &[Seen]) -> Age {
    let has_slots = seen.iter().any(|one| !one.slots.is_empty());
    (
        has_slots,
        seen.iter().map(|one| one.epoch).max().unwrap_or(0),
    )
}

/// A shard, and who looks after it.
struct Known {
    shard: Arc<Shard>,
    engine: Rc<Engine>,
    /// Its nodes'.
    ids: HashSet<String>,
}

/// A primary, as a view says, and those who are with it.
#[derive(Debug, PartialEq, Eq)]
struct Group<'a> {
    primary: &'a Seen,
    others: Vec<&'a Seen>,
    /// Its place among those that were known; None: it is new.
    known: Option<usize>,
}

/// Which primaries there are, with who follows them, and which of the shards that are known (by their nodes' ids) each is. The one that had
/// a shard and was replaced stays with it, without a say.
fn groups<'a>(seen: &'a [Seen], known: &[&HashSet<String>]) -> Vec<Group<'a>> {
    let mut primaries: Vec<&Seen> = seen.iter().filter(|one| one.primary).collect();
    // Who has slots, by the newest word, comes first.
    primaries.sort_by_key(|one| (one.slots.is_empty(), std::cmp::Reverse(one.epoch)));
    let mut groups: Vec<Group<'_>> = Vec::new();
    for primary in primaries {
        let of = known.iter().position(|ids| ids.contains(&primary.id));
        let taken = groups
            .iter()
            .position(|one| of.is_some() && one.known == of);
        if primary.slots.is_empty() {
            if let Some(taken) = taken {
                groups[taken].others.push(primary);
                continue;
            }
            if primary.failed {
                continue;
            }
        }
        let followers = seen
            .iter()
            .filter(|one| !one.primary && one.of == primary.id);
        groups.push(Group {
            primary,
            others: followers.collect(),
            known: of.filter(|_| taken.is_none()),
        });
    }
    groups.truncate(MOST_SHARDS);
    groups
}

impl Finder {
    pub(in crate::redis) fn new(
        cluster: Arc<Cluster>,
        connect: impl Fn(&Addr) -> Rc<Pool> + 'static,
        greeting: Greeting,
    ) -> Rc<Self> {
        Rc::new(Self {
            cluster,
            connect: Rc::new(connect),
            greeting,
            state: RefCell::default(),
        })
    }

    /// Looks after the map for good.
    pub(in crate::redis) async fn live(self: Rc<Self>) {
        loop {
            let moved = self.cluster.take_moved();
            self.patch(&moved);
            self.refresh(moved.last().map(|(_, addr)| addr)).await;
            tokio::time::sleep(PAUSE).await;
            let poll = self.cluster.params.poll;
            let pause = if self.is_whole() { poll } else { poll / 10 };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.cluster.wanted.notified() => {}
            }
        }
    }

    /// Every shard has a primary that answers.
    fn is_whole(&self) -> bool {
        let map = self.cluster.map();
        let answers = |shard: &Arc<Shard>| {
            let view = shard.shared.view();
            view.primary.as_ref().is_some_and(|one| one.is_alive())
        };
        !map.shards.is_empty() && map.shards.iter().all(answers)
    }

    /// Takes over what nodes said of slots that are others' now, before somebody is asked.
    fn patch(&self, moved: &[(u16, Addr)]) {
        let before = self.cluster.map();
        let mut map = (*before).clone();
        for (slot, addr) in moved {
            if let Some(at) = map.names.get(&addr.to_string()) {
                map.slots[usize::from(*slot)] = *at;
            }
        }
        self.publish(&before, map);
    }

    /// What was written to a slot that came from elsewhere is before what its new primary says from now on.
    fn publish(&self, before: &Map, map: Map) -> bool {
        let number = |map: &Map, at: u16| map.shards.get(usize::from(at)).map(|one| one.number);
        let same_shards = before.shards.len() == map.shards.len()
            && before
                .shards
                .iter()
                .zip(&map.shards)
                .all(|(one, other)| Arc::ptr_eq(one, other));
        let mut gained = HashSet::new();
        let mut same = same_shards && before.names == map.names;
        for (was, is) in before.slots.iter().zip(&map.slots) {
            let differs = match same_shards {
                true => was != is,
                false => number(before, *was) != number(&map, *is),
            };
            if differs {
                same = false;
                gained.insert(*is);
            }
        }
        for at in gained.into_iter().filter(|at| *at != NOBODY) {
            map.shards[usize::from(at)].shared.fences.lose();
        }
        if !same {
            self.cluster.map.send_replace(Arc::new(map));
        }
        !same
    }

    /// Whom to ask, in order: who is said to know best, who answered last, the others that answer, those that were named.
    fn order(&self, first: Option<&Addr>) -> Vec<Addr> {
        let map = self.cluster.map();
        let mut all: Vec<Addr> = first.into_iter().cloned().collect();
        let alive = |addr: &Addr| {
            let name = addr.to_string();
            map.shards.iter().any(|shard| {
                let view = shard.shared.view();
                view.members
                    .iter()
                    .any(|one| one.name == name && one.is_alive())
            })
        };
        all.extend(self.state.borrow().last.clone().filter(alive));
        for shard in &map.shards {
            let view = shard.shared.view();
            let members = view.members.iter().filter(|one| one.is_alive());
            all.extend(members.map(|one| one.addr.clone()));
        }
        let named = self.cluster.params.cluster.iter();
        all.extend(named.map(|one| one.addr.clone()));
        let mut seen = HashSet::new();
        all.retain(|addr| seen.insert(addr.to_string()));
        all
    }

    /// Asks until one says what is not older than what is known. When all do, the newest of that is believed: the cluster was made anew.
    async fn refresh(self: &Rc<Self>, first: Option<&Addr>) {
        let newest = self.state.borrow().newest;
        let (mut best, mut problem): (Option<Vec<Seen>>, _) = (None, String::new());
        for addr in self.order(first) {
            match self.ask(&addr).await {
                Ok(seen) if age(&seen) >= newest => {
                    self.state.borrow_mut().last = Some(addr);
                    return self.apply(&seen);
                }
                Ok(seen) => {
                    self.cluster.refreshes.old.inc();
                    if best.as_ref().is_none_or(|best| age(best) < age(&seen)) {
                        best = Some(seen);
                    }
                }
                Err(why) => problem = format!("{addr}: {why}"),
            }
        }
        match best {
            Some(best) => self.apply(&best),
            None => {
                let mut state = self.state.borrow_mut();
                if state.problem != problem {
                    tracing::warn!(
                        why = problem,
                        "no node of the cluster says who has which slots"
                    );
                    state.problem = problem;
                }
            }
        }
    }

    async fn ask(&self, addr: &Addr) -> Result<Vec<Seen>, String> {
        let name = addr.to_string();
        // Others can be asked meanwhile that answer sooner.
        let patience = (self.cluster.params.connect_timeout / 4).max(Duration::from_millis(1));
        let known = self.state.borrow_mut().talks.remove(&name);
        let exchange = async {
            let mut talk = match known {
                Some(talk) => talk,
                None => Talk::open(&(self.connect)(addr), &self.greeting).await?,
            };
            let reply = talk.ask(&["CLUSTER", "NODES"], patience).await?;
            Ok::<_, String>((talk, reply))
        };
        let asked = tokio::time::timeout(patience, exchange).await;
        let late = || Err(format!("no reply for {} ms", patience.as_millis()));
        let (talk, reply) = asked.unwrap_or_else(|_| late())?;
        let seen = nodes(&reply, addr).ok_or("its answer to CLUSTER NODES can't be read")?;
        let mut state = self.state.borrow_mut();
        // Those of nodes that are gone are not kept.
        if state.talks.len() >= 64 {
            state.talks.clear();
        }
        state.talks.insert(name, talk);
        Ok(seen)
    }

    /// Makes the map of a view.
    fn apply(self: &Rc<Self>, seen: &[Seen]) {
        let mut state = self.state.borrow_mut();
        state.newest = age(seen);
        state.problem.clear();
        let mut former: Vec<Option<Known>> = std::mem::take(&mut state.shards)
            .into_iter()
            .map(Some)
            .collect();
        let ids: Vec<&HashSet<String>> = former.iter().flatten().map(|one| &one.ids).collect();
        let groups = groups(seen, &ids);
        let mut shards: Vec<(Known, Group<'_>)> = Vec::new();
        for group in groups {
            let known = group.known.and_then(|at| former[at].take());
            let mut known = known.unwrap_or_else(|| {
                state.numbers += 1;
                self.begin(state.numbers)
            });
            let all = std::iter::once(group.primary).chain(group.others.iter().copied());
            known.ids = all.map(|one| one.id.clone()).collect();
            shards.push((known, group));
        }
        // A cursor of SCAN counts on their order.
        shards.sort_by_key(|(known, _)| known.shard.number);
        let mut map = Map::default();
        let mut by_epoch: Vec<usize> = (0..shards.len()).collect();
        by_epoch.sort_by_key(|at| shards[*at].1.primary.epoch);
        for at in by_epoch {
            for (first, last) in &shards[at].1.primary.slots {
                map.slots[usize::from(*first)..=usize::from(*last)].fill(at as u16);
            }
        }
        for (at, (known, group)) in shards.iter().enumerate() {
            map.shards.push(Arc::clone(&known.shard));
            for one in std::iter::once(&group.primary).chain(&group.others) {
                for addr in std::iter::once(&one.addr).chain(&one.named) {
                    map.names.insert(addr.to_string(), at as u16);
                }
            }
        }
        let told: Vec<_> = shards
            .iter()
            .map(|(known, group)| {
                let others = group.others.iter().map(|one| one.addr.clone()).collect();
                let primary = (group.primary.addr.clone(), group.primary.epoch);
                (
                    Rc::clone(&known.engine),
                    primary,
                    others,
                    group.primary.failing,
                )
            })
            .collect();
        state.shards = shards.into_iter().map(|(known, _)| known).collect();
        drop(state);
        let before = self.cluster.map();
        match self.publish(&before, map) {
            true => self.cluster.refreshes.changed.inc(),
            false => self.cluster.refreshes.same.inc(),
        }
        for (engine, primary, others, failing) in told {
            engine.told(primary, others, failing);
        }
        former
            .into_iter()
            .flatten()
            .for_each(|gone| gone.engine.end());
    }

    fn begin(&self, number: u64) -> Known {
        let shard = self.cluster.shard(number);
        let connect = Rc::clone(&self.connect);
        let engine = Engine::new(
            Arc::clone(&shard.shared),
            Box::new(move |addr| connect(addr)),
            self.greeting.clone(),
        );
        Known {
            shard,
            engine,
            ids: HashSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use podkit_foundation::params::ParamType as _;

    use super::*;

    fn seen(id: &str, of: &str, epoch: u64, slots: &[(u16, u16)]) -> Seen {
        Seen {
            id: id.to_owned(),
            addr: Addr::parse("10.0.0.1:7000").unwrap(),
            named: None,
            primary: of.is_empty(),
            failing: false,
            failed: false,
            of: of.to_owned(),
            epoch,
            slots: slots.to_vec(),
        }
    }

    /// Each group as `primary+others=known`.
    fn check(seen: &[Seen], known: &[&[&str]], expected: &[&str]) {
        let known: Vec<HashSet<String>> = known
            .iter()
            .map(|ids| ids.iter().map(|id| (*id).to_owned()).collect())
            .collect();
        let known: Vec<&HashSet<String>> = known.iter().collect();
        let shown: Vec<String> = groups(seen, &known)
            .iter()
            .map(|group| {
                let others: Vec<&str> = group.others.iter().map(|one| &*one.id).collect();
                let known = group.known.map_or("new".to_owned(), |at| at.to_string());
                format!("{}+{}={known}", group.primary.id, others.join(","))
            })
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_shard_stays_the_same_whoever_is_its_primary() {
        let a = seen("a", "", 1, &[(0, 99)]);
        let (b, c) = (seen("b", "a", 0, &[]), seen("c", "", 2, &[(100, 199)]));
        check(&[a, b.clone(), c.clone()], &[], &["c+=new", "a+b=new"]);
        // b has taken its place; a is away, or back and does not know it yet.
        let heir = seen("b", "", 3, &[(0, 99)]);
        let mut former = seen("a", "", 1, &[]);
        let known: &[&[&str]] = &[&["a", "b"], &["c"]];
        let all = [former.clone(), heir.clone(), c.clone()];
        check(&all, known, &["b+a=0", "c+=1"]);
        former.failed = true;
        check(
            &[former.clone(), heir.clone(), c.clone()],
            known,
            &["b+a=0", "c+=1"],
        );
        let back = seen("a", "b", 1, &[]);
        check(&[back, heir, c.clone()], known, &["b+a=0", "c+=1"]);
        // It was forgotten, and is away.
        check(&[former, c.clone()], &[&["c"]], &["c+=0"]);
        // One that has come, without slots yet; and one that is gone.
        check(&[c, seen("d", "", 0, &[])], known, &["c+=1", "d+=new"]);
    }

    #[test]
    fn a_view_without_slots_is_older_than_any_with() {
        let some = [seen("a", "", 1, &[(0, 0)])];
        assert!(age(&some) > age(&[seen("a", "", 9, &[])]));
        assert!(age(&[seen("a", "", 2, &[(0, 0)])]) > age(&some));
    }
}
