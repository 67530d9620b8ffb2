//! A server and the connections to it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;

use super::keep::Watch;
use super::lane::{Greeting, Lane, ask, open};
use super::scan::put_command;
use super::wait::Waits;
use super::way::Way;
use crate::net::{Buf, Transport as _};
use crate::upstream::{Pool, Wire};

/// Lanes for greetings other than the module's own (databases, users, RESP3), for each server, at most: clients choose them.
const MOST_LANES: usize = 256;

/// Connections of one client's own that nobody has now, for each server, at most.
const MOST_SPARE: usize = 16;

type Lanes = HashMap<Greeting, Rc<Lane>>;

/// A server, as one worker sees it.
#[derive(Debug)]
pub struct Node {
    name: Rc<str>,
    pool: Rc<Pool>,
    /// How connections begin unless their client asked for something else.
    greeting: Greeting,
    waits: Waits,
    watch: Option<Rc<dyn Watch>>,
    /// Nothing may go there any more.
    retired: Cell<bool>,
    told: Notify,
    main: Rc<Lane>,
    /// All others, by their way.
    lanes: [RefCell<Lanes>; 3],
    /// Connections of one client's own that nobody has now: who is to wait gets in line at once.
    spare: RefCell<Vec<(Greeting, Wire)>>,
}

impl Node {
    /// `name` is for messages. Spawns the task of its main lane.
    pub fn new(name: &str, pool: Rc<Pool>, greeting: Greeting, waits: Waits) -> Rc<Self> {
        Self::make(name, pool, greeting, waits, None)
    }

    /// The same, with a module that looks at its connections.
    pub fn watched(
        name: &str,
        pool: Rc<Pool>,
        greeting: Greeting,
        waits: Waits,
        watch: Rc<dyn Watch>,
    ) -> Rc<Self> {
        Self::make(name, pool, greeting, waits, Some(watch))
    }

    fn make(
        name: &str,
        pool: Rc<Pool>,
        greeting: Greeting,
        waits: Waits,
        watch: Option<Rc<dyn Watch>>,
    ) -> Rc<Self> {
        let name: Rc<str> = name.into();
        let main = Lane::new(
            Rc::clone(&name),
            Rc::clone(&pool),
            greeting.clone(),
            waits,
            watch.clone(),
        );
        Rc::new(Self {
            name,
            pool,
            greeting,
            waits,
            watch,
            retired: Cell::new(false),
            told: Notify::new(),
            main,
            lanes: Default::default(),
            spare: RefCell::default(),
        })
    }

    /// For messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its connections begin with unless a client asked for something else.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// The connection that is shared by those who were greeted so (none: as the module says).
    #[inline]
    pub fn lane(&self, greeting: Option<&Greeting>, way: Way) -> Rc<Lane> {
        match (greeting, way) {
            (None, Way::Common) => Rc::clone(&self.main),
            _ => self.other(greeting.unwrap_or(&self.greeting), way),
        }
    }

    /// The way of a script before which its client has nothing that waits.
    pub fn script_way(&self, greeting: Option<&Greeting>) -> Way {
        let lanes = self.lanes[Way::Scripts as usize].borrow();
        match lanes.get(greeting.unwrap_or(&self.greeting)) {
            Some(lane) if lane.is_stuck() => Way::Beside,
            _ => Way::Scripts,
        }
    }

    fn other(&self, greeting: &Greeting, way: Way) -> Rc<Lane> {
        if *greeting == self.greeting && way == Way::Common {
            return Rc::clone(&self.main);
        }
        let mut lanes = self.lanes[way as usize].borrow_mut();
        if let Some(lane) = lanes.get(greeting) {
            return Rc::clone(lane);
        }
        if lanes.len() >= MOST_LANES {
            // Those that nobody holds any more.
            lanes.retain(|_, lane| {
                let used = Rc::strong_count(lane) > 2 || lane.waiting() > 0;
                if !used {
                    lane.close();
                }
                used
            });
        }
        let lane = Lane::new(
            Rc::clone(&self.name),
            Rc::clone(&self.pool),
            greeting.clone(),
            self.waits,
            self.watch.clone(),
        );
        lanes.insert(greeting.clone(), Rc::clone(&lane));
        lane
    }

    /// A connection of one client's own.
    pub async fn open(&self, greeting: Option<&Greeting>) -> Result<Wire, String> {
        let opened = open(
            &self.pool,
            greeting.unwrap_or(&self.greeting),
            self.watch.as_deref(),
        )
        .await;
        opened.map_err(|why| format!("{} can't be reached: {why}", self.name))
    }

    /// A connection of one client's own that is open already.
    pub(super) async fn spare(&self, greeting: Option<&Greeting>) -> Option<Wire> {
        let greeting = greeting.unwrap_or(&self.greeting);
        loop {
            let mut wire = {
                let mut spare = self.spare.borrow_mut();
                let at = spare.iter().rposition(|(of, _)| of == greeting)?;
                spare.swap_remove(at).1
            };
            // One that says something, or that it ends, is of no use.
            let mut buf = Buf::small();
            let is_quiet = poll_fn(|cx| Poll::Ready(wire.poll_read(cx, &mut buf).is_pending()));
            if is_quiet.await {
                return Some(wire);
            }
        }
    }

    /// Takes one back on which nothing is left.
    pub(super) fn put_back(&self, greeting: Option<&Greeting>, wire: Wire) {
        let mut spare = self.spare.borrow_mut();
        if !self.retired.get() && spare.len() < MOST_SPARE {
            let greeting = greeting.unwrap_or(&self.greeting);
            spare.push((greeting.clone(), wire));
        }
    }

    /// Has one ready for the next who needs it.
    pub(super) fn prepare(self: &Rc<Self>, greeting: Option<&Greeting>) {
        let greeting = greeting.unwrap_or(&self.greeting).clone();
        if self.spare.borrow().iter().any(|(of, _)| *of == greeting) {
            return;
        }
        let node = Rc::clone(self);
        drop(tokio::task::spawn_local(async move {
            // Who needs it dials again, and says what is wrong.
            if let Ok(wire) = node.open(Some(&greeting)).await {
                node.put_back(Some(&greeting), wire);
            }
        }));
    }

    /// Asks something on a connection of its own.
    pub async fn ask<A: AsRef<[u8]>>(&self, words: &[A]) -> Result<Vec<u8>, String> {
        self.ask_as(None, words).await
    }

    /// The same, as one who was greeted so (none: as the module says).
    pub async fn ask_as<A: AsRef<[u8]>>(
        &self,
        greeting: Option<&Greeting>,
        words: &[A],
    ) -> Result<Vec<u8>, String> {
        let mut command = Vec::new();
        put_command(&mut command, words);
        let mut wire = self.open(greeting).await?;
        ask(&mut wire, &command, self.waits.patience).await
    }

    /// Ends all connections at once, those of one client's own too.
    pub fn retire(&self, why: &str) {
        self.retired.set(true);
        self.spare.borrow_mut().clear();
        self.main.retire(why);
        self.each(|lane| lane.retire(why));
        self.told.notify_waiters();
    }

    /// All but the main one.
    fn each(&self, does: impl Fn(&Lane)) {
        for lanes in &self.lanes {
            lanes.borrow().values().for_each(|lane| does(lane));
        }
    }

    /// Ends when nothing may go there any more.
    pub async fn retirement(self: Rc<Self>) {
        let told = self.told.notified();
        if !self.retired.get() {
            told.await;
        }
    }

    /// How long a reply may take.
    pub fn patience(&self) -> Duration {
        self.waits.patience
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.main.close();
        self.each(Lane::close);
    }
}
