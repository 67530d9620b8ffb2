//! Wake-ups of a worker under load, coalesced as network cards coalesce their interrupts.
//!
//! A worker that sleeps until the first of its sockets has something is woken for nearly every command: each pays alone for the wake-up,
//! for the look at the sockets and for a write to the server. Where many clients ask, a worker that has done all that was there sleeps a
//! moment by the clock first, and then finds several commands at once.
//!
//! How long is judged anew every [`WINDOW`]. A client of a full window has asked every so often; an eighth of that is what a command may
//! take longer, so clients that wait for each reply lose an eighth of their rate at most. A few clients that are answered fast are never
//! kept waiting: their eighth is less than a sleep costs ([`SHORTEST`]). And each sleep has to gather [`LEAST`] reads.

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

/// After so long the next sleeps are judged.
const WINDOW: Duration = Duration::from_millis(2);
/// Of the time in which a client asks again.
const SHARE: u32 = 8;
/// Sleeps are never longer.
const LONGEST: Duration = Duration::from_micros(200);
/// One that would be shorter costs more than it saves.
const SHORTEST: Duration = Duration::from_micros(20);
/// Reads that each sleep is to gather.
const LEAST: u32 = 3;

thread_local! {
    static SLEEPS: Sleeps = const { Sleeps::new() };
}

/// The sleeps of one thread.
struct Sleeps {
    /// Counts them, where the worker may.
    counter: RefCell<Option<Counter>>,
    length: Cell<Duration>,
    began: Cell<Option<Instant>>,
    /// The number of the window.
    window: Cell<u32>,
    /// In the window: reads of what clients have sent, and how many clients that were.
    reads: Cell<u32>,
    clients: Cell<u32>,
}

impl Sleeps {
    const fn new() -> Self {
        Self {
            counter: RefCell::new(None),
            length: Cell::new(Duration::ZERO),
            began: Cell::new(None),
            // A client that has asked in none has 0.
            window: Cell::new(1),
            reads: Cell::new(0),
            clients: Cell::new(0),
        }
    }

    /// How long to sleep now.
    fn judge(&self, now: Instant) -> Duration {
        let span = self.began.get().map_or(Duration::MAX, |began| now - began);
        if span >= WINDOW {
            let (reads, clients) = (self.reads.take(), self.clients.take());
            self.length.set(length(span, reads, clients));
            self.began.set(Some(now));
            self.window.set(self.window.get().wrapping_add(1).max(1));
        }
        self.length.get()
    }
}

/// How long to sleep after a window of `span` in which so many `clients` were read from so often. Zero: not at all.
fn length(span: Duration, reads: u32, clients: u32) -> Duration {
    // One that is far too long had hardly anything to do.
    if reads == 0 || span >= 2 * WINDOW {
        return Duration::ZERO;
    }
    let length = (span * clients / reads / SHARE).min(LONGEST);
    match length >= SHORTEST && length * reads >= span * LEAST {
        true => length,
        false => Duration::ZERO,
    }
}

/// A client whose number is in `seen` has sent something.
#[inline]
pub(crate) fn asked(seen: &mut u32) {
    SLEEPS.with(|sleeps| {
        sleeps.reads.set(sleeps.reads.get() + 1);
        if *seen != sleeps.window.get() {
            *seen = sleeps.window.get();
            sleeps.clients.set(sleeps.clients.get() + 1);
        }
    });
}

/// From now on this thread does so; counted as [`COALESCED`].
pub fn coalesce(metrics: &Registry) {
    let counter = metrics.counter(COALESCED.name, COALESCED.doc, &[]);
    // Sleeps end when they should, not up to 50 µs later.
    if let Err(why) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        tracing::debug!(%why, "a worker's sleeps are longer than they should be");
    }
    SLEEPS.with(|sleeps| sleeps.counter.replace(Some(counter)));
}

/// The thread has nothing to do.
pub(super) fn before_sleep() {
    SLEEPS.with(|sleeps| {
        if let Some(counter) = &*sleeps.counter.borrow() {
            let length = sleeps.judge(Instant::now());
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

    #[test]
    fn many_clients_wait_an_eighth_of_their_time() {
        // 50 clients that are answered after 1 ms.
        assert_eq!(length(2 * MS, 100, 50), MS / 8);
        // After 10 ms: no more than the longest.
        assert_eq!(length(2 * MS, 100, 100), LONGEST);
    }

    #[test]
    fn nobody_waits_where_little_is_gained() {
        // One client, or four, that are answered after 60 µs.
        assert_eq!(length(2 * MS, 33, 1), Duration::ZERO);
        assert_eq!(length(2 * MS, 132, 4), Duration::ZERO);
        // A thousand that seldom ask: less than three a sleep.
        assert_eq!(length(2 * MS, 28, 28), Duration::ZERO);
        assert_eq!(length(2 * MS, 31, 31), LONGEST);
        // Nothing, and little in a window that became long.
        assert_eq!(length(2 * MS, 0, 0), Duration::ZERO);
        assert_eq!(length(Duration::MAX, 5, 5), Duration::ZERO);
    }

    #[test]
    fn sleeps_begin_and_end_with_the_load() {
        let mut clients = [0; 50];
        let start = Instant::now();
        let judge = |after: u32| SLEEPS.with(|sleeps| sleeps.judge(start + after * MS));
        assert_eq!(judge(0), Duration::ZERO);
        for _ in 0..2 {
            clients.iter_mut().for_each(asked);
        }
        // Within the window nothing changes.
        assert_eq!(judge(1), Duration::ZERO);
        assert_eq!(judge(2), MS / 8);
        clients.iter_mut().for_each(asked);
        asked(&mut clients[0]);
        assert_eq!(judge(3), MS / 8);
        assert_eq!(judge(4), LONGEST);
        assert_eq!(judge(6), Duration::ZERO);
    }

    #[test]
    fn only_workers_that_were_told_to_sleep_by_the_clock() {
        let (metrics, mut clients) = (Registry::default(), [0; 50]);
        let slept = || metrics.counter(COALESCED.name, COALESCED.doc, &[]).get();
        let begun = Some(Instant::now() - WINDOW);
        clients.iter_mut().for_each(asked);
        SLEEPS.with(|sleeps| sleeps.began.set(begun));
        before_sleep();
        assert_eq!(SLEEPS.with(|sleeps| sleeps.reads.get()), 50);
        coalesce(&metrics);
        SLEEPS.with(|sleeps| sleeps.length.set(SHORTEST));
        SLEEPS.with(|sleeps| sleeps.began.set(Some(Instant::now())));
        before_sleep();
        assert_eq!(slept(), 1);
    }
}
