//! What a client hears of several servers: subscriptions, and MONITOR.
//!
//! Messages meet at the first server: there they are published and subscribed to. What servers say of their own keys (`__keyspace@0__:…`,
//! `__keyevent@0__:…`) each says itself, so that who may hear of that listens to all. A channel of a slot is heard at the server of the slot. All
//! that comes goes to the client as it comes, between the replies to its commands; podkit counts its subscriptions, as no server knows of them all.
//!
//! When a server is lost the client's connection ends, as with one server: it can't know what it missed otherwise.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use super::ear::{Ear, Fault, Said, read};
use super::lane::Greeting;
use super::node::Node;
use super::reply::Outbox;
use super::route::{Elsewhere, Request, Router};
use super::scan::{put_bulk, put_command};
use super::session::Taken;
use super::track::Tracker;

/// What channels of servers' own begin with.
const OF_KEYS: &[u8] = b"__key";
/// How soon what has to wait is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// What is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sort {
    Channel,
    Pattern,
    /// A channel of a slot.
    Slot,
}

impl Sort {
    /// Of the commands for it; the other one with `un`.
    pub(super) fn of(name: &str) -> Option<(Self, bool)> {
        Some(match name {
            "subscribe" => (Self::Channel, true),
            "psubscribe" => (Self::Pattern, true),
            "ssubscribe" => (Self::Slot, true),
            "unsubscribe" => (Self::Channel, false),
            "punsubscribe" => (Self::Pattern, false),
            "sunsubscribe" => (Self::Slot, false),
            _ => return None,
        })
    }

    fn command(self, begins: bool) -> &'static str {
        match (self, begins) {
            (Self::Channel, true) => "subscribe",
            (Self::Pattern, true) => "psubscribe",
            (Self::Slot, true) => "ssubscribe",
            (Self::Channel, false) => "unsubscribe",
            (Self::Pattern, false) => "punsubscribe",
            (Self::Slot, false) => "sunsubscribe",
        }
    }

    /// What all servers say may be of it.
    fn is_of_all(self, name: &[u8]) -> bool {
        match self {
            Self::Channel => name.starts_with(OF_KEYS),
            Self::Pattern => may_begin(name, OF_KEYS),
            Self::Slot => false,
        }
    }
}

/// Something that begins so may match the pattern. What is in brackets or behind a backslash may be anything.
fn may_begin(pattern: &[u8], begin: &[u8]) -> bool {
    for (at, byte) in begin.iter().enumerate() {
        match pattern.get(at) {
            Some(b'*' | b'[' | b'\\') => return true,
            Some(one) if *one == b'?' || one == byte => {}
            _ => return false,
        }
    }
    true
}

/// A client that hears of several servers.
#[derive(Default)]
pub(super) struct Hearing {
    ears: Vec<Ear>,
    /// What is subscribed to, and where.
    subscriptions: BTreeMap<(Sort, Vec<u8>), Vec<Rc<Node>>>,
    monitors: bool,
    /// It is told what it has to forget.
    tracker: Option<Tracker>,
    /// Where messages of all other channels come from.
    main: Option<Rc<Node>>,
    /// What came before the client was told that it has subscribed.
    held: Vec<u8>,
    /// Ready when there may be other servers.
    news: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Channels of slots that are at another server now.
    gone: Vec<Vec<u8>>,
    stale: bool,
}

impl Hearing {
    pub(super) fn is_empty(&self) -> bool {
        !self.listens() && self.tracker.is_none()
    }

    /// It may be silent for as long as it likes.
    pub(super) fn listens(&self) -> bool {
        !self.subscriptions.is_empty() || self.monitors
    }

    /// CLIENT TRACKING ON or, with none, OFF.
    pub(super) fn track(&mut self, tracker: Option<Tracker>) {
        self.tracker = tracker;
    }

    pub(super) fn tracker(&self) -> Option<&Tracker> {
        self.tracker.as_ref()
    }

    pub(super) fn monitors(&self) -> bool {
        self.monitors
    }

    /// So many, as replies say it: those of slots are counted apart.
    pub(super) fn count(&self, sort: Sort) -> usize {
        let of_slots = sort == Sort::Slot;
        let keys = self.subscriptions.keys();
        keys.filter(|(sort, _)| (*sort == Sort::Slot) == of_slots)
            .count()
    }

    /// What came before a reply was there.
    pub(super) fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Where it has to be subscribed to; the first has what is not of its keys.
    fn places(router: &impl Router, sort: Sort, name: &[u8]) -> Result<Vec<Rc<Node>>, Vec<u8>> {
        if sort == Sort::Slot {
            let mut bytes = Vec::new();
            put_command(&mut bytes, &[b"SSUBSCRIBE", name]);
            let node = router.stays(&Taken::again(&bytes).request())?;
            return Ok(vec![node.unwrap_or_else(|| router.first())]);
        }
        let first = router.first();
        let mut places = vec![Rc::clone(&first)];
        if sort.is_of_all(name) {
            let all = router.all().into_iter();
            places.extend(all.filter(|node| !Rc::ptr_eq(node, &first)));
        }
        Ok(places)
    }

    /// The connection to a server.
    async fn ear<R: Router>(
        &mut self,
        router: &R,
        greeting: Option<&Greeting>,
        node: &Rc<Node>,
    ) -> Result<&mut Ear, Fault> {
        let known = self.ears.iter().position(|ear| Rc::ptr_eq(&ear.node, node));
        let at = match known {
            Some(at) => at,
            None => {
                let opened = router.open(Rc::clone(node), greeting.cloned()).await;
                let line = |why: String| Fault::Refused(format!("-ERR {why}\r\n").into_bytes());
                let (node, wire) = opened.map_err(line)?;
                self.ears.push(Ear::new(node, wire));
                self.ears.len() - 1
            }
        };
        Ok(&mut self.ears[at])
    }

    /// Begins or ends some at a server; the one at which that was done.
    async fn tell<R: Router>(
        &mut self,
        router: &R,
        greeting: Option<&Greeting>,
        node: &Rc<Node>,
        command: (&str, &[Vec<u8>]),
    ) -> Result<Rc<Node>, Fault> {
        let (name, channels) = command;
        let mut words: Vec<&[u8]> = vec![name.as_bytes()];
        words.extend(channels.iter().map(Vec::as_slice));
        let mut bytes = Vec::new();
        put_command(&mut bytes, &words);
        let (began, mut node) = (Instant::now(), Rc::clone(node));
        loop {
            let (mut held, mut gone) = (Vec::new(), Vec::new());
            let at = Rc::clone(&self.ear(router, greeting, &node).await?.node);
            if matches!(name, "subscribe" | "psubscribe") {
                // That is asked first.
                self.main.get_or_insert_with(|| Rc::clone(&at));
            }
            let main = self.main.clone();
            let ear = self.ear(router, greeting, &at).await?;
            let times = channels.len().max(1);
            let hear = |from: &Rc<Node>, said: &[u8]| {
                admit(from, main.as_ref(), said, &mut held, &mut gone)
            };
            let told = ear.tell(name.as_bytes(), &bytes, times, hear).await;
            self.held.append(&mut held);
            self.gone.append(&mut gone);
            let line = match told {
                Err(Fault::Refused(line)) => line,
                other => return other.map(|()| at),
            };
            match router.elsewhere(&line, &at) {
                Some(Elsewhere::At(to, _)) if began.elapsed() < router.hold() => node = to,
                Some(_) if began.elapsed() < router.hold() => {
                    tokio::time::sleep(AGAIN).await;
                    let place = Taken::again(&bytes);
                    if let Ok(Some(to)) = router.stays(&place.request()) {
                        node = to;
                    }
                }
                _ => return Err(Fault::Refused(line)),
            }
        }
    }

    /// SUBSCRIBE and its like. The replies.
    pub(super) async fn subscribe<R: Router>(
        &mut self,
        router: &R,
        greeting: Option<&Greeting>,
        sort: Sort,
        request: &Request<'_>,
        resp3: bool,
    ) -> Result<Vec<u8>, Fault> {
        self.begin(router);
        let names: Vec<Vec<u8>> = request.words.iter().skip(1).map(<[u8]>::to_vec).collect();
        let mut steps = Vec::new();
        for name in &names {
            for node in Self::places(router, sort, name).map_err(Fault::Refused)? {
                add(&mut steps, sort, node, name);
            }
        }
        let mut done: Vec<Step> = Vec::new();
        for (node, names) in steps {
            match self
                .tell(router, greeting, &node, (sort.command(true), &names))
                .await
            {
                Ok(at) => done.push((at, names)),
                Err(Fault::Refused(line)) => {
                    // Those that did it: as if they had not.
                    for (at, mut names) in done {
                        names
                            .retain(|name| !self.subscriptions.contains_key(&(sort, name.clone())));
                        if !names.is_empty() {
                            let end = (sort.command(false), names.as_slice());
                            self.tell(router, greeting, &at, end).await?;
                        }
                    }
                    self.hang_up();
                    return Err(Fault::Refused(line));
                }
                Err(lost) => return Err(lost),
            }
        }
        let mut out = Vec::new();
        for name in names {
            let has = |(_, names): &&Step| names.contains(&name);
            let at = done.iter().filter(has).map(|(node, _)| Rc::clone(node));
            self.subscriptions
                .insert((sort, name.clone()), at.collect());
            put(
                &mut out,
                resp3,
                sort.command(true),
                Some(&name),
                self.count(sort),
            );
        }
        Ok(out)
    }

    /// UNSUBSCRIBE and its like. The replies.
    pub(super) async fn unsubscribe<R: Router>(
        &mut self,
        router: &R,
        greeting: Option<&Greeting>,
        sort: Sort,
        request: &Request<'_>,
        resp3: bool,
    ) -> Result<Vec<u8>, Fault> {
        let mut names: Vec<Vec<u8>> = request.words.iter().skip(1).map(<[u8]>::to_vec).collect();
        if names.is_empty() {
            let all = self.subscriptions.keys().filter(|(of, _)| *of == sort);
            names = all.map(|(_, name)| name.clone()).collect();
        }
        let (name, mut out) = (sort.command(false), Vec::new());
        if names.is_empty() {
            put(&mut out, resp3, name, None, self.count(sort));
        }
        let mut steps = Vec::new();
        for channel in names {
            let places = self.subscriptions.remove(&(sort, channel.clone()));
            for node in places.into_iter().flatten() {
                add(&mut steps, sort, node, &channel);
            }
            put(&mut out, resp3, name, Some(&channel), self.count(sort));
        }
        // Where nothing else is heard too: who publishes is told of how many heard it.
        for (node, channels) in steps {
            self.tell(router, greeting, &node, (name, &channels))
                .await?;
        }
        self.hang_up();
        Ok(out)
    }

    /// MONITOR, at all of them.
    pub(super) async fn monitor<R: Router>(
        &mut self,
        router: &R,
        greeting: Option<&Greeting>,
    ) -> Result<(), Fault> {
        self.begin(router);
        for (at, node) in router.all().iter().enumerate() {
            let told = self.tell(router, greeting, node, ("monitor", &[])).await;
            match told {
                // What has begun there goes on by the same connections as subscriptions.
                Err(Fault::Refused(line)) if at > 0 && !self.is_empty() => {
                    let line = String::from_utf8_lossy(&line);
                    return Err(Fault::Lost(line.trim_end().to_owned()));
                }
                told => drop(told?),
            }
        }
        self.monitors = true;
        Ok(())
    }

    /// Changes from now on are told of.
    pub(super) fn begin(&mut self, router: &impl Router) {
        self.news.get_or_insert_with(|| router.news());
    }

    fn is_used(&self, node: &Rc<Node>) -> bool {
        let mut places = self.subscriptions.values().flatten();
        self.monitors || places.any(|place| Rc::ptr_eq(place, node))
    }

    /// Ends connections on which nothing is heard any more.
    fn hang_up(&mut self) {
        let mut ears = std::mem::take(&mut self.ears);
        ears.retain(|ear| self.is_used(&ear.node));
        self.ears = ears;
        if self.count(Sort::Channel) == 0 {
            self.main = None;
        }
    }

    /// There may be other servers now: all is heard where it is said.
    pub(super) async fn renew<R: Router>(
        &mut self,
        router: &R,
        greeting: Option<&Greeting>,
    ) -> Result<(), Fault> {
        (self.stale, self.news) = (false, Some(router.news()));
        let gone = std::mem::take(&mut self.gone);
        for channel in gone {
            if let Some(places) = self.subscriptions.get_mut(&(Sort::Slot, channel)) {
                places.clear();
            }
        }
        if self.monitors {
            let all = router.all();
            self.ears.retain(|ear| is_in(&all, &ear.node));
            let before: Vec<Rc<Node>> = self.ears.iter().map(|ear| Rc::clone(&ear.node)).collect();
            for node in all.iter().filter(|node| !is_in(&before, node)) {
                self.tell(router, greeting, node, ("monitor", &[])).await?;
            }
            return Ok(());
        }
        let names: Vec<(Sort, Vec<u8>)> = self.subscriptions.keys().cloned().collect();
        for key in names {
            let (sort, name) = (key.0, &key.1);
            let before = self.subscriptions.get(&key).cloned().unwrap_or_default();
            let mut places = Self::places(router, sort, name).map_err(Fault::Refused)?;
            let is_in =
                |all: &[Rc<Node>], one: &Rc<Node>| all.iter().any(|node| Rc::ptr_eq(node, one));
            for place in &mut places {
                if !is_in(&before, place) {
                    let begin = (sort.command(true), std::slice::from_ref(name));
                    *place = self.tell(router, greeting, place, begin).await?;
                }
            }
            if sort != Sort::Slot {
                self.main = places.first().cloned();
            }
            self.subscriptions.insert(key.clone(), places.clone());
            for former in before.iter().filter(|one| !is_in(&places, one)) {
                if self.is_used(former) {
                    let end = (sort.command(false), std::slice::from_ref(&key.1));
                    self.tell(router, greeting, former, end).await?;
                }
            }
        }
        self.hang_up();
        Ok(())
    }

    /// Hands on what has come. True when it has to be renewed; the error is why the client's connection ends.
    pub(super) fn poll(&mut self, outbox: &Outbox, cx: &mut Context<'_>) -> Result<bool, String> {
        if let Some(news) = &mut self.news
            && news.as_mut().poll(cx).is_ready()
        {
            (self.stale, self.news) = (true, None);
        }
        let (main, mut out) = (self.main.as_ref(), Vec::new());
        for ear in &mut self.ears {
            ear.poll(cx, |from, said, _| {
                admit(from, main, said, &mut out, &mut self.gone)
            })?;
        }
        self.stale |= !self.gone.is_empty();
        if !out.is_empty() {
            outbox.push(&out);
        }
        Ok(self.stale)
    }
}

/// What a server is told in one command.
type Step = (Rc<Node>, Vec<Vec<u8>>);

fn add(steps: &mut Vec<Step>, sort: Sort, node: Rc<Node>, name: &[u8]) {
    match steps.iter_mut().find(|(known, _)| Rc::ptr_eq(known, &node)) {
        // Those of several slots a node takes one by one only.
        Some((_, names)) if sort != Sort::Slot => names.push(name.to_vec()),
        _ => steps.push((node, vec![name.to_vec()])),
    }
}

fn is_in(all: &[Rc<Node>], one: &Rc<Node>) -> bool {
    all.iter().any(|node| Rc::ptr_eq(node, one))
}

/// Takes what a server says, if the client is to hear it from this one.
fn admit(
    from: &Rc<Node>,
    main: Option<&Rc<Node>>,
    said: &[u8],
    out: &mut Vec<u8>,
    gone: &mut Vec<Vec<u8>>,
) {
    match read(said) {
        // The nodes of a cluster pass on what is published.
        Some(Said::Message(Some(channel)))
            if !channel.starts_with(OF_KEYS)
                && !main.is_some_and(|main| Rc::ptr_eq(main, from)) => {}
        Some(Said::Message(_)) => out.extend_from_slice(said),
        Some(Said::Gone(channel)) => gone.push(channel.to_vec()),
        Some(Said::Begun(_)) | None => {}
    }
}

/// The reply to one channel of a command.
pub(super) fn put(
    out: &mut Vec<u8>,
    resp3: bool,
    name: &str,
    channel: Option<&[u8]>,
    count: usize,
) {
    out.extend_from_slice(if resp3 { b">3\r\n" } else { b"*3\r\n" });
    put_bulk(out, name.as_bytes());
    match channel {
        Some(channel) => put_bulk(out, channel),
        None => out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" }),
    }
    out.extend_from_slice(format!(":{count}\r\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_of_keys_is_heard_of_all() {
        let check = |sort: Sort, name: &str, expected: bool| {
            assert_eq!(sort.is_of_all(name.as_bytes()), expected, "{name}");
        };
        for name in ["__keyspace@0__:a", "__keyevent@0__:expired", "__key"] {
            check(Sort::Channel, name, true);
            check(Sort::Pattern, name, true);
            check(Sort::Slot, name, false);
        }
        for name in ["", "news", "_key", "__sentinel__:hello", "*"] {
            check(Sort::Channel, name, false);
        }
        for name in [
            "*",
            "__key*__:*",
            "__*",
            "?_key*",
            "_[_a]x",
            "\\_\\_key*",
            "__k*",
        ] {
            check(Sort::Pattern, name, true);
        }
        for name in ["", "news*", "_key*", "__sentinel*", "__ke", "?news"] {
            check(Sort::Pattern, name, false);
        }
    }
}
