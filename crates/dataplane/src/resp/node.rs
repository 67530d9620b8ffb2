//! A server and the connections to it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use super::lane::{Greeting, Lane, open};
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
    patience: Duration,
    main: Rc<Lane>,
    lanes: RefCell<HashMap<Greeting, Rc<Lane>>>,
    cut: Cell<bool>,
}

impl Node {
    /// `name` is for messages. Spawns the task of its main lane.
    pub fn new(name: &str, pool: Rc<Pool>, greeting: Greeting, patience: Duration) -> Rc<Self> {
        let name: Rc<str> = name.into();
        let main = Lane::new(
            Rc::clone(&name),
            Rc::clone(&pool),
            greeting.clone(),
            patience,
        );
        Rc::new(Self {
            name,
            pool,
            greeting,
            patience,
            main,
            lanes: RefCell::default(),
            cut: Cell::new(false),
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
            self.patience,
        );
        if self.is_cut() {
            lane.cut();
        }
        lanes.insert(greeting.clone(), Rc::clone(&lane));
        lane
    }

    /// A connection of one client's own.
    pub async fn open(&self, greeting: Option<&Greeting>) -> Result<Wire, String> {
        let opened = open(&self.pool, greeting.unwrap_or(&self.greeting)).await;
        opened.map_err(|why| format!("{} can't be reached: {why}", self.name))
    }

    /// From now on nothing reaches the server by this: what waits gets an error, and clients' own connections to it end.
    pub fn cut(&self) {
        self.cut.set(true);
        self.main.cut();
        self.lanes.borrow().values().for_each(|lane| lane.cut());
    }

    /// It was cut off.
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// How long a reply may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.main.close();
        self.lanes.borrow().values().for_each(|lane| lane.close());
    }
}
