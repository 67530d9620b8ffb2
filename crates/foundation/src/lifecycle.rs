//! The life of a process: starting, ready, lame duck, draining, stopped; and reloads.
//!
//! One [`Lifecycle`] is made per process and handed to everything that accepts work. Whoever drives the
//! process (the module driver) moves it on; whoever accepts work looks at the [`Phase`] and keeps an
//! [`InFlight`] guard for as long as a piece of work must not be cut. No signal, clock or socket is known here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

/// Where a process stands. It only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not all listeners and first states are there: `/readyz` is 503.
    Starting,
    /// Serving.
    Ready,
    /// Told to stop; `/readyz` is 503; still accepting, so that whoever balances can notice.
    LameDuck,
    /// No longer accepting; what is in flight finishes; kept-alive connections close after their answer.
    Draining,
    /// The drain timeout is over: cut what is left.
    Stopped,
}

impl Phase {
    /// The word for logs and pages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::LameDuck => "lame duck",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// The phase of this process and what is in flight in it. Cheap to clone; clones share.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
    in_flight: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    now: AtomicUsize,
    total: AtomicU64,
    /// Who may still begin some.
    sources: AtomicUsize,
    /// Told each time a count reaches zero.
    idle: tokio::sync::Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// A process that is starting.
    pub fn new() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Starting)),
            in_flight: Arc::default(),
        }
    }

    /// A part of the process that can end before it: in flight together, with a phase of its own. Whoever makes it moves it on
    /// with the process.
    pub fn part(&self) -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(self.phase())),
            in_flight: Arc::clone(&self.in_flight),
        }
    }

    /// Where it stands now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on to `next`; a step back is ignored.
    pub fn advance(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = next > *phase;
            if forward {
                *phase = next;
            }
            forward
        });
    }

    /// Returns once `phase` is reached or passed.
    pub async fn reached(&self, phase: Phase) {
        let mut seen = self.phase.subscribe();
        // The sender lives in self, so waiting can't fail.
        drop(seen.wait_for(|now| *now >= phase).await);
    }

    /// A watcher of the phase, for loops that select on it.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Counts a piece of work (a connection) until the guard is dropped.
    pub fn begin(&self) -> InFlight {
        self.in_flight.now.fetch_add(1, Ordering::Relaxed);
        self.in_flight.total.fetch_add(1, Ordering::Relaxed);
        InFlight {
            count: Arc::clone(&self.in_flight),
        }
    }

    /// Counts something that begins pieces of work (an accept loop) until the guard is dropped.
    pub fn source(&self) -> Source {
        self.in_flight.sources.fetch_add(1, Ordering::Relaxed);
        Source {
            count: Arc::clone(&self.in_flight),
        }
    }

    /// How much is in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.now.load(Ordering::Relaxed)
    }

    /// How much was begun since the start.
    pub fn begun(&self) -> u64 {
        self.in_flight.total.load(Ordering::Relaxed)
    }

    /// Returns once nothing is in flight and nothing can begin any more.
    pub async fn idle(&self) {
        loop {
            let told = self.in_flight.idle.notified();
            // In this order: a source that is gone begins nothing.
            if self.in_flight.sources.load(Ordering::Acquire) == 0 && self.in_flight() == 0 {
                return;
            }
            told.await;
        }
    }
}

/// Something that begins pieces of work, such as an accept loop.
#[derive(Debug)]
pub struct Source {
    count: Arc<Count>,
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.count.sources.fetch_sub(1, Ordering::Release) == 1 {
            self.count.idle.notify_waiters();
        }
    }
}

/// A piece of work that must not be cut while the process drains.
#[derive(Debug)]
pub struct InFlight {
    count: Arc<Count>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.count.now.fetch_sub(1, Ordering::Release) == 1 {
            self.count.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn ready<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        matches!(
            future.poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(_)
        )
    }

    #[test]
    fn a_phase_never_goes_back() {
        let lifecycle = Lifecycle::new();
        lifecycle.advance(Phase::Draining);
        lifecycle.advance(Phase::Ready);
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }

    #[test]
    fn idle_comes_when_the_last_guard_goes() {
        let lifecycle = Lifecycle::new();
        let (first, second) = (lifecycle.begin(), lifecycle.begin());
        let mut idle = pin!(lifecycle.idle());
        assert!(!ready(idle.as_mut()));
        drop(first);
        assert!(!ready(idle.as_mut()));
        drop(second);
        assert!(ready(idle.as_mut()));
        assert_eq!((lifecycle.in_flight(), lifecycle.begun()), (0, 2));
    }

    #[test]
    fn what_can_still_begin_is_waited_for() {
        let lifecycle = Lifecycle::new();
        let source = lifecycle.source();
        let mut idle = pin!(lifecycle.idle());
        assert!(!ready(idle.as_mut()));
        let last = lifecycle.begin();
        drop(source);
        assert!(!ready(idle.as_mut()));
        drop(last);
        assert!(ready(idle.as_mut()));
    }

    #[test]
    fn reached_counts_a_phase_that_was_passed() {
        let lifecycle = Lifecycle::new();
        let mut reached = pin!(lifecycle.reached(Phase::LameDuck));
        assert!(!ready(reached.as_mut()));
        lifecycle.advance(Phase::Stopped);
        assert!(ready(reached.as_mut()));
    }
}
