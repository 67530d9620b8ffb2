//! Tries a probe again and again, and tells the board.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::board::Board;
use super::check::{Outcome, State};
use super::phases::Phases;
use super::probe::Prober;

/// How long ending what was given up may take.
const GIVE_UP: Duration = Duration::from_secs(2);

/// The board, for all who write to it or read from it. It is never held while something is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    board: Mutex<Board>,
    changed: watch::Sender<()>,
}

impl Shared {
    pub(crate) fn new(board: Board) -> Self {
        Self(Arc::new(Inner {
            board: Mutex::new(board),
            changed: watch::channel(()).0,
        }))
    }

    /// The board, to be read.
    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the board, and tells who watches.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Board) -> T) -> T {
        let done = change(&mut self.board());
        self.0.changed.send_replace(());
        done
    }

    /// Hears of changes.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }
}

/// Tries for as long as it is let. Tries begin at multiples of the period from the first one; one that takes longer skips some.
pub(crate) async fn run(
    name: String,
    period: Duration,
    patience: Duration,
    mut prober: Box<dyn Prober>,
    shared: Shared,
) {
    let mut turns = interval(period);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        turns.tick().await;
        let (outcome, given_up) = attempt(prober.as_mut(), patience).await;
        let now = Instant::now();
        let changed = shared.board().record(&name, now, outcome);
        if let Some((state, why)) = changed {
            shared.change(|_| ());
            tell(&name, state, &why);
        }
        if given_up && timeout(GIVE_UP, prober.give_up()).await.is_err() {
            warn!(probe = name, "what was given up does not end");
        }
    }
}

/// One try; whether it was given up.
async fn attempt(prober: &mut dyn Prober, patience: Duration) -> (Outcome, bool) {
    let phases = Phases::default();
    let since = Instant::now();
    let done = timeout(patience, prober.probe(&phases)).await;
    let took = since.elapsed();
    let stage = phases.current();
    let times = phases.end();
    let given_up = done.is_err();
    // An answer that is late is none: MariaDB may end a statement at its limit with an answer as if all were well (`BENCHMARK`,
    // `SLEEP`), and the limit is the probe's own patience, begun a little later.
    let said = done.ok().filter(|_| took <= patience);
    let said = said.unwrap_or_else(|| {
        let millis = patience.as_millis();
        Err(match stage {
            Some(phase) => format!("no answer within {millis} ms (in {})", phase.word()),
            None => format!("no answer within {millis} ms"),
        })
    });
    (Outcome { said, took, times }, given_up)
}

fn tell(probe: &str, state: State, why: &str) {
    let state = state.word();
    match state {
        "healthy" => info!(probe, state, "the state has changed"),
        _ => warn!(probe, state, why, "the state has changed"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::health::board::{Endpoint, Entry};
    use crate::health::check::Rules;
    use crate::health::latency::Budget;
    use crate::health::phases::Phase;
    use crate::health::probe::Probing;
    use crate::health::spec::CountsFor;

    /// Does as it is told: how long its turns take, and how they end.
    #[derive(Default)]
    struct Fake {
        begun: Cell<Option<Instant>>,
        count: Cell<u64>,
        takes: Cell<Duration>,
        /// How much later than it is ready its answer is seen.
        late: Cell<Duration>,
        fails: Cell<bool>,
        given_up: Cell<u32>,
    }

    struct Probe(Rc<Fake>);

    impl Prober for Probe {
        fn probe<'a>(&'a mut self, phases: &'a Phases) -> Probing<'a> {
            Box::pin(async {
                let fake = &self.0;
                fake.count.set(fake.count.get() + 1);
                fake.begun.set(Some(Instant::now()));
                phases.enter(Phase::Connect);
                phases.enter(Phase::Query);
                tokio::time::sleep(fake.takes.get()).await;
                let mut later = std::pin::pin!(tokio::time::advance(fake.late.get()));
                std::future::poll_fn(|context| {
                    assert!(later.as_mut().poll(context).is_pending(), "the clock is on");
                    std::task::Poll::Ready(())
                })
                .await;
                match fake.fails.get() {
                    true => Err("no".to_owned()),
                    false => Ok("yes".to_owned()),
                }
            })
        }

        fn give_up(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
            Box::pin(async { self.0.given_up.set(self.0.given_up.get() + 1) })
        }
    }

    fn rules() -> Rules {
        Rules {
            period: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            failure: 3,
            success: 1,
            budget: Budget {
                p50: Some(Duration::from_millis(100)),
                p99: None,
                window: Duration::from_secs(60),
            },
            history: 20,
        }
    }

    /// Runs a probe beside `test`, with a paused clock.
    fn beside(test: impl AsyncFnOnce(Rc<Fake>, Shared)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let fake = Rc::new(Fake::default());
            let counts_for = CountsFor {
                live: false,
                ready: true,
                startup: false,
            };
            let mut board = Board::default();
            board.put("a", Entry::new(String::new(), counts_for, false, rules()));
            let shared = Shared::new(board);
            let (period, patience) = (rules().period, rules().timeout);
            let prober = Box::new(Probe(Rc::clone(&fake)));
            let running = run("a".to_owned(), period, patience, prober, shared.clone());
            let running = tokio::task::spawn_local(running);
            test(fake, shared).await;
            running.abort();
        });
    }

    fn ready(shared: &Shared) -> bool {
        let board = shared.board();
        board
            .verdict(Endpoint::Ready, None, Instant::now())
            .unwrap()
            .passes
    }

    async fn pass(millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    #[test]
    fn a_day_passes_without_drift_or_leak() {
        beside(async |fake, shared| {
            let start = Instant::now();
            fake.takes.set(Duration::from_millis(7));
            for hour in 0..24_u64 {
                // It works for 59 minutes, and fails in the last one.
                pass(59 * 60 * 1000).await;
                assert!(ready(&shared), "hour {hour}");
                fake.fails.set(true);
                pass(1010).await;
                assert!(ready(&shared), "hour {hour}: two failures are none");
                pass(1000).await;
                assert!(!ready(&shared), "hour {hour}");
                pass(57_990).await;
                fake.fails.set(false);
            }
            pass(500).await;
            let elapsed = start.elapsed();
            assert_eq!(elapsed, Duration::from_millis(24 * 3600 * 1000 + 500));
            assert_eq!(fake.count.get(), 24 * 3600 + 1);
            // To the millisecond, which is what tokio's timers have.
            let offset = fake.begun.get().unwrap().duration_since(start).as_millis() % 1000;
            assert!(offset <= 1, "{offset}");
            let board = shared.board();
            let (_, entry) = board.entries().next().unwrap();
            assert_eq!(entry.check.kept().count(), 20);
            assert!(entry.check.latencies().len() <= 60);
            let all = entry.check.succeeded + entry.check.failed;
            assert_eq!(all, fake.count.get());
            assert!(entry.check.failed >= 24 * 59);
        });
    }

    #[test]
    fn a_hundred_readers_cost_one_try_a_period() {
        beside(async |fake, shared| {
            pass(10).await;
            for _ in 0..100 {
                for _ in 0..100 {
                    assert!(ready(&shared));
                }
                pass(100).await;
            }
            assert_eq!(fake.count.get(), 11);
        });
    }

    #[test]
    fn who_hangs_is_given_up_and_where_is_told() {
        beside(async |fake, shared| {
            pass(10).await;
            assert!(ready(&shared));
            fake.takes.set(Duration::from_secs(3600));
            pass(3500).await;
            assert!(!ready(&shared), "three of them in three seconds and a half");
            assert_eq!(fake.given_up.get(), 3);
            let verdict = shared
                .board()
                .verdict(Endpoint::Ready, None, Instant::now());
            let line = &verdict.unwrap().lines[0];
            assert_eq!(line.why, "no answer within 500 ms (in query)");
            fake.takes.set(Duration::from_millis(1));
            pass(520).await;
            assert!(ready(&shared));
        });
    }

    #[test]
    fn an_answer_that_comes_late_is_none() {
        beside(async |fake, shared| {
            pass(10).await;
            assert!(ready(&shared));
            fake.late.set(Duration::from_millis(501));
            pass(3500).await;
            assert!(!ready(&shared));
            assert_eq!(fake.given_up.get(), 0, "nothing is left to be ended");
        });
    }

    #[test]
    fn changes_are_told_to_who_watches() {
        beside(async |fake, shared| {
            let mut watch = shared.watch();
            watch.changed().await.unwrap();
            assert!(ready(&shared));
            fake.fails.set(true);
            let since = Instant::now();
            watch.changed().await.unwrap();
            assert!(!ready(&shared));
            assert!(since.elapsed() >= Duration::from_secs(3));
        });
    }
}
