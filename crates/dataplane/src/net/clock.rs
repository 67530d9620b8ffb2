//! Deadlines of many connections by one sleep.
//!
//! A connection arms its [`Timer`] several times per request. That is a store into a cell: nothing is registered with
//! tokio and nothing is cancelled. One task per thread sleeps until the earliest deadline it saw, then looks at all of
//! them, wakes the tasks whose time is over, and sleeps until what is now the earliest. A deadline armed before the
//! end of the sleep shortens it, which is rare: most are as long as the last. Deadlines are met up to `SLACK` late.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

/// How late a deadline may be noticed; bounds how often all timers are looked at.
const SLACK: Duration = Duration::from_millis(10);

/// The timers of one thread. Clones share.
#[derive(Debug, Clone, Default)]
pub struct Clock(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    timers: RefCell<Vec<Rc<Slot>>>,
    /// Until when the sweep sleeps; None: until a timer is armed.
    sleeping_until: Cell<Option<Instant>>,
    sweeper: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Slot {
    index: Cell<usize>,
    deadline: Cell<Option<Instant>>,
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Clock {
    /// A timer that is not armed.
    pub fn timer(&self) -> Timer {
        let mut timers = self.0.timers.borrow_mut();
        let slot = Rc::new(Slot {
            index: Cell::new(timers.len()),
            deadline: Cell::new(None),
            fired: Cell::new(false),
            waker: RefCell::new(None),
        });
        timers.push(Rc::clone(&slot));
        Timer {
            clock: self.clone(),
            slot,
        }
    }

    /// Wakes every task that has looked at its timer: something that all of them look at has changed.
    pub fn wake_all(&self) {
        for slot in self.0.timers.borrow().iter() {
            slot.wake();
        }
    }

    /// No timer is left.
    pub(super) fn is_unused(&self) -> bool {
        self.0.timers.borrow().is_empty()
    }

    /// Notices deadlines, forever. One task per thread runs this.
    pub async fn sweep(self) {
        loop {
            let next = self.pass(Instant::now());
            self.0.sleeping_until.set(next);
            let mut sleep = next.map(|at| Box::pin(tokio::time::sleep_until(at)));
            std::future::poll_fn(|cx| {
                // Woken by the sleep, or by a timer that was armed with an earlier deadline.
                if self.0.sleeping_until.get() != next {
                    return Poll::Ready(());
                }
                *self.0.sweeper.borrow_mut() = Some(cx.waker().clone());
                match &mut sleep {
                    Some(sleep) => pin!(sleep).poll(cx),
                    None => Poll::Pending,
                }
            })
            .await;
        }
    }

    /// Fires what is due; says when to look again.
    fn pass(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for slot in self.0.timers.borrow().iter() {
            let Some(at) = slot.deadline.get() else {
                continue;
            };
            if at <= now {
                slot.deadline.set(None);
                slot.fired.set(true);
                slot.wake();
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        next.map(|at| at.max(now + SLACK))
    }
}

impl Slot {
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// One connection's deadline.
#[derive(Debug)]
pub struct Timer {
    clock: Clock,
    slot: Rc<Slot>,
}

impl Timer {
    /// Sets the deadline to `at`, in place of any other.
    pub fn arm(&self, at: Instant) {
        self.slot.fired.set(false);
        self.slot.deadline.set(Some(at));
        let shared = &self.clock.0;
        if shared.sleeping_until.get().is_none_or(|until| at < until) {
            shared.sleeping_until.set(Some(at));
            if let Some(sweeper) = shared.sweeper.borrow_mut().take() {
                sweeper.wake();
            }
        }
    }

    /// The deadline, while it is to come.
    pub fn deadline(&self) -> Option<Instant> {
        self.slot.deadline.get()
    }

    /// Sets the deadline to `after` from now.
    pub fn arm_for(&self, after: Duration) {
        self.arm(Instant::now() + after);
    }

    /// Brings the deadline forward to `after` from now; a sooner one stays.
    pub fn shorten(&self, after: Duration) {
        let at = Instant::now() + after;
        let later = self
            .slot
            .deadline
            .get()
            .is_none_or(|deadline| at < deadline);
        if later && !self.slot.fired.get() {
            self.arm(at);
        }
    }

    /// No deadline.
    pub fn disarm(&self) {
        self.slot.fired.set(false);
        self.slot.deadline.set(None);
    }

    /// Whether the deadline has passed. Otherwise the task that polls with `cx` is woken when it does, and by
    /// [`Clock::wake_all`].
    pub fn expired(&self, cx: &Context<'_>) -> bool {
        if self.slot.fired.get() {
            return true;
        }
        let mut waker = self.slot.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        false
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut timers = self.clock.0.timers.borrow_mut();
        let index = self.slot.index.get();
        timers.swap_remove(index);
        if let Some(moved) = timers.get(index) {
            moved.index.set(index);
        }
    }
}
