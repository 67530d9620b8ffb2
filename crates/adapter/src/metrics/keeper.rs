//! Keeps what a source said last, and asks it anew, for however many scrapes at a time.
//!
//! ```text
//!   scrape ──▶ begin, unless it is being asked ──▶ wait ──▶ what it said, and how old that is
//!                       │                            ▲
//!                       ╰──▶ collect ── answered ── done ── status
//!                                 ╰─ silent for the source's patience, or endless: given up
//! ```
//!
//! A source that hangs costs a scrape the patience and no more; one that answers, and is slow, is waited for until the scrape's own
//! budget ends, and what it says then is there for the next.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::batch::Batch;
use super::own::Told;

/// What is being collected.
pub(crate) type Collected<'a> = Pin<Box<dyn Future<Output = Result<Batch, String>> + 'a>>;

/// Asks a source.
pub(crate) trait Collector {
    /// Everything that it is asked for, without what [`status`](Self::status) tells. `answered` is to hear of the first answer. It is
    /// dropped in the middle when that takes too long: a connection on which an answer is awaited must not be there for the next call.
    /// An error is a clause that follows the source's name.
    fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a>;

    /// What the usual exporter tells of the source and of itself, such as `redis_up`.
    fn status(&self, went: &Went) -> Batch;
}

/// Hears that a source is there: from now on it is slow, if anything, and does not hang.
#[derive(Debug, Default)]
pub(crate) struct Answered(Cell<bool>);

impl Answered {
    /// It is.
    pub(crate) fn yes(&self) {
        self.0.set(true);
    }
}

/// How asking went.
#[derive(Debug, Clone)]
pub(crate) struct Went {
    /// Why it did not.
    pub(crate) why: Option<String>,
    pub(crate) took: Duration,
}

impl Went {
    /// 1 when it did, else 0.
    pub(crate) fn up(&self) -> f64 {
        if self.why.is_none() { 1.0 } else { 0.0 }
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until the first answer.
    pub(crate) answer: Duration,
    /// Until the last.
    pub(crate) whole: Duration,
}

/// What was said, and when.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) batch: Batch,
    pub(crate) at: Instant,
}

/// A source as a scrape finds it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// None before it was asked once.
    pub(crate) went: Option<Went>,
    pub(crate) status: Rc<Batch>,
    /// What it said last, however old.
    pub(crate) taken: Option<Rc<Taken>>,
}

/// One source, or a part of it that has an interval of its own.
pub(crate) struct Keeper {
    /// Taken by who asks.
    collector: RefCell<Option<Box<dyn Collector>>>,
    patience: Patience,
    seen: RefCell<Seen>,
    told: Arc<Told>,
    done: Notify,
}

impl Keeper {
    pub(crate) fn new(collector: Box<dyn Collector>, patience: Patience) -> Rc<Self> {
        Rc::new(Self {
            collector: RefCell::new(Some(collector)),
            patience,
            seen: RefCell::default(),
            told: Arc::default(),
            done: Notify::new(),
        })
    }

    /// How it was the last time.
    pub(crate) fn told(&self) -> &Arc<Told> {
        &self.told
    }

    /// What is known now.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Asks it, unless that is being done, and waits for the end of it, or for `until`.
    pub(crate) async fn fresh(self: &Rc<Self>, until: Instant) -> Seen {
        let done = self.done.notified();
        self.begin();
        // What is not there by then is there for the next scrape.
        timeout_at(until, done).await.ok();
        self.seen()
    }

    /// Asks it again and again, with `interval` between.
    pub(crate) async fn every(self: Rc<Self>, interval: Duration) {
        loop {
            let done = self.done.notified();
            self.begin();
            done.await;
            tokio::time::sleep(interval).await;
        }
    }

    fn begin(self: &Rc<Self>) {
        let Some(mut collector) = self.collector.borrow_mut().take() else {
            return;
        };
        let me = Rc::clone(self);
        drop(tokio::task::spawn_local(async move {
            let since = Instant::now();
            let result = collect(&mut *collector, me.patience, since).await;
            let (batch, why) = match result {
                Ok(batch) => (Some(batch), None),
                Err(why) => (None, Some(why)),
            };
            let took = since.elapsed();
            let went = Went { why, took };
            let status = Rc::new(collector.status(&went));
            {
                let mut seen = me.seen.borrow_mut();
                seen.status = status;
                if let Some(batch) = batch {
                    let at = Instant::now();
                    seen.taken = Some(Rc::new(Taken { batch, at }));
                }
                me.told
                    .set(&went, seen.taken.as_ref().map(|taken| taken.at));
                seen.went = Some(went);
            }
            *me.collector.borrow_mut() = Some(collector);
            me.done.notify_waiters();
        }));
    }
}

async fn collect(
    collector: &mut dyn Collector,
    patience: Patience,
    since: Instant,
) -> Result<Batch, String> {
    let answered = Answered::default();
    let mut collecting = collector.collect(&answered);
    tokio::select! {
        done = &mut collecting => return done,
        () = sleep_until(since + patience.answer) => {}
    }
    if !answered.0.get() {
        return Err(format!(
            "gave no answer for {} ms",
            patience.answer.as_millis()
        ));
    }
    match timeout_at(since + patience.whole, collecting).await {
        Ok(done) => done,
        Err(_) => Err(format!(
            "did not come to an end within {} s",
            patience.whole.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers after `first`, ends after `last`; counts how often it was asked.
    struct Slow {
        first: Duration,
        last: Duration,
        asked: Rc<Cell<u32>>,
    }

    impl Collector for Slow {
        fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a> {
            Box::pin(async {
                self.asked.set(self.asked.get() + 1);
                tokio::time::sleep(self.first).await;
                answered.yes();
                tokio::time::sleep(self.last - self.first).await;
                let mut batch = Batch::default();
                batch.gauge("asked", "", self.asked.get().into());
                Ok(batch)
            })
        }

        fn status(&self, went: &Went) -> Batch {
            let mut batch = Batch::default();
            batch.gauge("up", "", went.up());
            batch
        }
    }

    const PATIENCE: Patience = Patience {
        answer: Duration::from_millis(500),
        whole: Duration::from_secs(20),
    };

    fn slow(first: u64, last: u64) -> (Rc<Keeper>, Rc<Cell<u32>>) {
        let asked = Rc::default();
        let collector = Slow {
            first: Duration::from_millis(first),
            last: Duration::from_millis(last),
            asked: Rc::clone(&asked),
        };
        (Keeper::new(Box::new(collector), PATIENCE), asked)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    fn within(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    fn value(batch: &Batch) -> f64 {
        batch.families()[0].samples[0].value
    }

    #[test]
    fn scrapes_at_the_same_time_ask_once() {
        run(async {
            let (keeper, asked) = slow(100, 200);
            let (one, two) = tokio::join!(keeper.fresh(within(10)), keeper.fresh(within(10)));
            assert_eq!(asked.get(), 1);
            for seen in [one, two] {
                assert_eq!(value(&seen.taken.unwrap().batch), 1.0);
                assert_eq!(value(&seen.status), 1.0);
            }
            keeper.fresh(within(10)).await;
            assert_eq!(asked.get(), 2);
        });
    }

    #[test]
    fn who_hangs_is_given_up_and_what_it_said_is_kept() {
        run(async {
            let (keeper, _) = slow(100, 200);
            let first = keeper.fresh(within(10)).await;
            let taken = first.taken.unwrap();
            if let Some(collector) = keeper.collector.borrow_mut().as_mut() {
                *collector = Box::new(Slow {
                    first: Duration::from_secs(3600),
                    last: Duration::from_secs(3600),
                    asked: Rc::default(),
                });
            }
            let begun = Instant::now();
            let seen = keeper.fresh(within(10)).await;
            assert_eq!(begun.elapsed(), Duration::from_millis(500));
            assert_eq!(
                seen.went.unwrap().why.as_deref(),
                Some("gave no answer for 500 ms")
            );
            assert_eq!(value(&seen.status), 0.0);
            assert!(Rc::ptr_eq(&seen.taken.unwrap(), &taken));
        });
    }

    #[test]
    fn who_is_slow_is_waited_for_and_is_there_the_next_time() {
        run(async {
            let (keeper, asked) = slow(100, 15_000);
            let seen = keeper.fresh(within(10)).await;
            assert!(seen.taken.is_none() && seen.went.is_none());
            let seen = keeper.fresh(within(10)).await;
            assert_eq!(asked.get(), 1, "it was still being asked");
            assert_eq!(value(&seen.taken.unwrap().batch), 1.0);
            assert!(seen.went.unwrap().why.is_none());
        });
    }

    #[test]
    fn who_never_ends_is_given_up() {
        run(async {
            let (keeper, _) = slow(100, 3_600_000);
            keeper.fresh(within(60)).await;
            let seen = keeper.seen();
            let why = seen.went.unwrap().why;
            assert_eq!(why.as_deref(), Some("did not come to an end within 20 s"));
        });
    }
}
