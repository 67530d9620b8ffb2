//! Wake-ups of a worker under load, coalesced as network cards coalesce their interrupts.
//!
//! A worker that sleeps until the first of its sockets has something is woken for nearly every command: each pays alone for the wake-up,
//! for the look at the sockets and for a write to the server. A worker that has done all that was there may sleep a moment by the clock
//! first, and then find several commands at once.
//!
//! How long is judged anew every [`WINDOW`] (see [`Coalesce`]), and each sleep has to gather [`LEAST`] reads. That commands queue is seen as
//! TCP Vegas sees it (Brakmo and Peterson, 1995): they are at their servers for longer than the fastest of late. Who is answered as fast
//! as can be is not kept waiting, however many ask and however far the servers are.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Counter, Registry};

/// Times that a worker slept by the clock.
pub const COALESCED: Metric = Metric {
    name: "podkit_coalesced_sleeps_total",
    kind: "counter",
    labels: &[],
    doc: "Times that a worker waited for several commands before it looked at its sockets again (--coalesce).",
};

podkit_foundation::choices! {
    /// `--coalesce`: where a worker waits for several commands.
    pub enum Coalesce {
        /// Nowhere.
        Never = "never",
        /// Where commands queue, for half as long as they do.
        Queued = "queued",
        /// Where many clients ask, for an eighth of the time after which they ask again.
        Eager = "eager",
    }
}

/// After so long the next sleeps are judged.
const WINDOW: Duration = Duration::from_millis(2);
/// Sleeps are never longer.
const LONGEST: Duration = Duration::from_micros(200);
/// One that would be shorter costs more than it saves.
const SHORTEST: Duration = Duration::from_micros(20);
/// Reads that each sleep is to gather.
const LEAST: u32 = 3;
/// What one command may say of a queue: it may be a slow one.
const MOST: Duration = Duration::from_millis(1);

thread_local! {
    static SLEEPS: Sleeps = const { Sleeps::new() };
}

/// The sleeps of one thread.
struct Sleeps {
    /// Where the worker may, and what counts them.
    allowed: RefCell<Option<(Coalesce, Counter)>>,
    length: Cell<Duration>,
    began: Cell<Option<Instant>>,
    /// The number of the window.
    window: Cell<u32>,
    seen: Cell<Seen>,
}

/// What there was in a window.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// Reads of what clients have sent, and how many clients that were.
    reads: u32,
    clients: u32,
    /// Commands that were looked at, and how long they queued together.
    commands: u32,
    queued: Duration,
}

impl Seen {
    /// How long to sleep after a window of `span`. Zero: not at all.
    fn length(self, how: Coalesce, span: Duration) -> Duration {
        // One that is far too long had hardly anything to do.
        if span >= 2 * WINDOW {
            return Duration::ZERO;
        }
        let length = match how {
            Coalesce::Never => None,
            Coalesce::Queued => (self.queued / 2).checked_div(self.commands),
            Coalesce::Eager => (span * self.clients / 8).checked_div(self.reads),
        };
        let length = length.unwrap_or_default().min(LONGEST);
        match length >= SHORTEST && length * self.reads >= span * LEAST {
            true => length,
            false => Duration::ZERO,
        }
    }
}

impl Sleeps {
    const fn new() -> Self {
        Self {
            allowed: RefCell::new(None),
            length: Cell::new(Duration::ZERO),
            began: Cell::new(None),
            // A client that has asked in none has 0.
            window: Cell::new(1),
            seen: Cell::new(Seen {
                reads: 0,
                clients: 0,
                commands: 0,
                queued: Duration::ZERO,
            }),
        }
    }

    /// How long to sleep now.
    fn judge(&self, how: Coalesce, now: Instant) -> Duration {
        let span = self.began.get().map_or(Duration::MAX, |began| now - began);
        if span >= WINDOW {
            self.length.set(self.seen.take().length(how, span));
            self.began.set(Some(now));
            self.window.set(self.window.get().wrapping_add(1).max(1));
        }
        self.length.get()
    }
}

/// A client that was last heard of in window `heard` has sent something.
#[inline]
pub(crate) fn asked(heard: &mut u32) {
    SLEEPS.with(|sleeps| {
        let (mut seen, window) = (sleeps.seen.get(), sleeps.window.get());
        seen.reads += 1;
        seen.clients += u32::from(*heard != window);
        *heard = window;
        sleeps.seen.set(seen);
    });
}

/// A command was answered after so long; the fastest of late after `least`.
pub(crate) fn took(trip: Duration, least: Duration) {
    SLEEPS.with(|sleeps| {
        let mut seen = sleeps.seen.get();
        seen.commands += 1;
        // A reply may have been there for as long as the worker slept.
        seen.queued += trip.saturating_sub(least + sleeps.length.get()).min(MOST);
        sleeps.seen.set(seen);
    });
}

/// From now on this thread does so, as is said; counted as [`COALESCED`].
pub fn coalesce(how: Coalesce, metrics: &Registry) {
    if how == Coalesce::Never {
        return;
    }
    let counter = metrics.counter(COALESCED.name, COALESCED.doc, &[]);
    // Sleeps end when they should, not up to 50 µs later.
    if let Err(why) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        tracing::debug!(%why, "a worker's sleeps are longer than they should be");
    }
    SLEEPS.with(|sleeps| sleeps.allowed.replace(Some((how, counter))));
}

/// The thread has nothing to do.
pub(super) fn before_sleep() {
    SLEEPS.with(|sleeps| {
        if let Some((how, counter)) = &*sleeps.allowed.borrow() {
            let length = sleeps.judge(*how, Instant::now());
            if !length.is_zero() {
                counter.inc();
                std::thread::sleep(length);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn seen(reads: u32, clients: u32, queued: Duration) -> Seen {
        Seen {
            reads,
            clients,
            commands: 10,
            queued: queued * 10,
        }
    }

    #[test]
    fn half_of_the_queue_is_waited_for() {
        let length = |reads, queued| seen(reads, reads, queued).length(Coalesce::Queued, 2 * MS);
        assert_eq!(length(100, MS / 4), MS / 8);
        assert_eq!(length(100, MS), LONGEST);
        // They are answered as fast as ever.
        assert_eq!(length(200, Duration::ZERO), Duration::ZERO);
        assert_eq!(length(200, SHORTEST), Duration::ZERO);
        // Few ask: less than three a sleep.
        assert_eq!(length(28, MS), Duration::ZERO);
        assert_eq!(length(31, MS), LONGEST);
    }

    #[test]
    fn eagerly_an_eighth_of_the_clients_time_is_waited_for() {
        let length = |reads, clients| seen(reads, clients, MS).length(Coalesce::Eager, 2 * MS);
        // 50 clients that are answered after 1 ms; after 10 ms.
        assert_eq!(length(100, 50), MS / 8);
        assert_eq!(length(100, 100), LONGEST);
        // One client, or four, that are answered after 60 µs.
        assert_eq!(length(33, 1), Duration::ZERO);
        assert_eq!(length(132, 4), Duration::ZERO);
        // A thousand that seldom ask.
        assert_eq!(length(28, 28), Duration::ZERO);
    }

    #[test]
    fn after_little_nobody_waits() {
        for how in [Coalesce::Never, Coalesce::Queued, Coalesce::Eager] {
            assert_eq!(Seen::default().length(how, 2 * MS), Duration::ZERO);
            assert_eq!(seen(9, 9, MS).length(how, Duration::MAX), Duration::ZERO);
        }
    }

    #[test]
    fn sleeps_begin_and_end_with_the_queue() {
        let start = Instant::now();
        let judge =
            |after: u32| SLEEPS.with(|sleeps| sleeps.judge(Coalesce::Queued, start + after * MS));
        let mut clients = [0; 100];
        let mut all = |trip: Duration| {
            clients.iter_mut().for_each(asked);
            (0..100).for_each(|_| took(trip, MS / 10));
        };
        assert_eq!(judge(0), Duration::ZERO);
        all(MS / 10 + MS / 4);
        // Within the window nothing changes.
        assert_eq!(judge(1), Duration::ZERO);
        assert_eq!(judge(2), MS / 8);
        // What a reply may have waited for the worker is not counted.
        all(MS / 10 + MS / 8 + MS / 4);
        assert_eq!(judge(4), MS / 8);
        all(MS / 10 + MS / 8);
        assert_eq!(judge(6), Duration::ZERO);
        // One command that takes long says little.
        all(MS / 10);
        took(1000 * MS, MS / 10);
        assert_eq!(judge(8), Duration::ZERO);
    }

    #[test]
    fn only_workers_that_were_told_to_sleep_by_the_clock() {
        let metrics = Registry::default();
        let slept = || metrics.counter(COALESCED.name, COALESCED.doc, &[]).get();
        let sleep = || {
            SLEEPS.with(|sleeps| {
                sleeps.length.set(SHORTEST);
                sleeps.began.set(Some(Instant::now()));
            });
            before_sleep();
        };
        sleep();
        coalesce(Coalesce::Never, &metrics);
        sleep();
        assert_eq!(slept(), 0);
        coalesce(Coalesce::Queued, &metrics);
        sleep();
        assert_eq!(slept(), 1);
    }
}
