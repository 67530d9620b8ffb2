//! A server and the connections to it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::keep::Watch;
use super::lane::{Greeting, Lane, ask, open};
use super::scan::put_command;
use super::wait::Waits;
use crate::upstream::{Pool, Wire};

/// Lanes for greetings other than the module's own (databases, users, RESP3), for each server, at most: clients choose them.
const MOST_LANES: usize = 256;

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
    lanes: RefCell<HashMap<Greeting, Rc<Lane>>>,
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
            lanes: RefCell::default(),
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
    pub fn lane(&self, greeting: Option<&Greeting>) -> Rc<Lane> {
        match greeting {
            None => Rc::clone(&self.main),
            Some(greeting) => self.other(greeting),
        }
    }

    fn other(&self, greeting: &Greeting) -> Rc<Lane> {
        if *greeting == self.greeting {
            return Rc::clone(&self.main);
        }
        let mut lanes = self.lanes.borrow_mut();
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

    /// Asks something on a connection of its own.
    pub async fn ask<A: AsRef<[u8]>>(&self, words: &[A]) -> Result<Vec<u8>, String> {
        let mut command = Vec::new();
        put_command(&mut command, words);
        let mut wire = self.open(None).await?;
        ask(&mut wire, &command, self.waits.patience).await
    }

    /// Ends all connections at once, those of one client's own too.
    pub fn retire(&self, why: &str) {
        self.retired.set(true);
        self.main.retire(why);
        self.lanes
            .borrow()
            .values()
            .for_each(|lane| lane.retire(why));
        self.told.notify_waiters();
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
        self.lanes.borrow().values().for_each(|lane| lane.close());
    }
}
