//! One repository's thread: looks, publishes, waits. Everything that it does blocks.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, info, warn};

use crate::publish::{Back, Engine, Published, Refused, Step};

use crate::proxy::Proxies;

use super::http::Client;
use super::source::Source;

/// A full disk is filled again after so long at the latest.
const FULL_MAX: Duration = Duration::from_secs(300);
/// It has room again when there is so much more.
const ROOM_BYTES: u64 = 1 << 20;

/// What a thread has come to, for pages and metrics.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The commit that is published.
    pub(super) commit: Option<String>,
    /// When it was.
    pub(super) published_at: Option<SystemTime>,
    /// The last look that found what is published, or published what it found.
    pub(super) success_at: Option<SystemTime>,
    /// The same, to reckon with.
    pub(super) fresh: Option<Instant>,
    /// Why the last look came to nothing.
    pub(super) trouble: Option<String>,
    /// Looks by how they ended.
    pub(super) published: u64,
    pub(super) unchanged: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
    /// Commits by the step that refused them; looks at them again do not count.
    pub(super) steps: BTreeMap<Step, u64>,
    /// Commits that were published and taken back.
    pub(super) rolled_back: u64,
    /// How long the last look took.
    pub(super) seconds: f64,
}

/// What is shared with the thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Seen>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the thread wakes before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// A push was told.
    Look,
    /// SIGHUP: what was refused is tried again.
    Again,
}

/// Wakes a thread. When the last is dropped the thread ends.
#[derive(Debug, Clone)]
pub(super) struct Bell(SyncSender<Wake>);

impl Bell {
    /// There may be something new.
    pub(super) fn look(&self) {
        self.ring(Wake::Look);
    }

    /// What was refused may be good now.
    pub(super) fn again(&self) {
        self.ring(Wake::Again);
    }

    fn ring(&self, wake: Wake) {
        // Full: it is to wake anyway. Gone: it has said why.
        match self.0.try_send(wake) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// A repository and where it goes.
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) engine: Engine,
    pub(super) shared: Shared,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    /// What decides on the files besides the commit, read each time.
    pub(super) sparse: Option<PathBuf>,
    pub(super) proxies: Arc<Proxies>,
}

/// How a look ended.
enum Look {
    Unchanged,
    Published(Published),
}

enum Failed {
    /// The source.
    Source(String),
    /// The engine: which version, and why.
    Refused(String, Refused),
}

impl Worker {
    /// Looks until the bell is gone.
    fn run(mut self, bell: &Receiver<Wake>) {
        let mut client = match Client::new(self.proxies.clone()) {
            Ok(client) => client,
            Err(error) => {
                self.shared.lock().trouble = Some(format!("starting: {error}"));
                return;
            }
        };
        if let Some(line) = self.engine.resume() {
            warn!(
                repo = self.name,
                why = line,
                "an unfinished version was taken back"
            );
        }
        let mut state = State::default();
        loop {
            let begun = Instant::now();
            drop(self.turn(&mut client, &mut state));
            let rest = spread(self.period, random()).saturating_sub(begun.elapsed());
            match bell.recv_timeout(rest) {
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) | Ok(Wake::Look) => {}
                Ok(Wake::Again) => state = State::default(),
            }
        }
    }

    /// Looks once.
    pub(super) fn once(mut self) -> Result<(), String> {
        let mut client = Client::new(self.proxies.clone()).map_err(|error| error.to_string())?;
        if let Some(line) = self.engine.resume() {
            warn!(
                repo = self.name,
                why = line,
                "an unfinished version was taken back"
            );
        }
        self.turn(&mut client, &mut State::default())
    }

    /// Looks, and tells how it went.
    fn turn(&mut self, client: &mut Client, state: &mut State) -> Result<(), String> {
        let begun = Instant::now();
        let looked = self.look(client, state);
        self.source.rest();
        let seconds = begun.elapsed().as_secs_f64();
        let commit = self.published_commit();
        let mut seen = self.shared.lock();
        seen.seconds = seconds;
        seen.commit = commit;
        let (repo, now) = (&self.name, SystemTime::now());
        let outcome = match looked {
            Ok(look) => {
                seen.success_at = Some(now);
                seen.fresh = Some(begun);
                if seen.trouble.take().is_some() {
                    info!(repo, "looking succeeds again");
                }
                match look {
                    Look::Unchanged => seen.unchanged += 1,
                    Look::Published(published) => {
                        seen.published += 1;
                        seen.published_at = Some(now);
                        let commit = seen.commit.as_deref().unwrap_or_default();
                        let ms = begun.elapsed().as_millis();
                        info!(repo, commit, files = published.files, ms, "published");
                    }
                }
                return Ok(());
            }
            Err(Failed::Source(why)) => {
                seen.failed += 1;
                why
            }
            Err(Failed::Refused(version, refused)) => {
                seen.refused += 1;
                format!("{version}: {refused} ({})", refused.back)
            }
        };
        match seen.trouble.as_ref() == Some(&outcome) {
            true => debug!(repo, why = outcome, "still not published"),
            false => warn!(repo, why = outcome, "not published"),
        }
        seen.trouble = Some(outcome.clone());
        Err(outcome)
    }

    fn look(&mut self, client: &mut Client, state: &mut State) -> Result<Look, Failed> {
        let deadline = Instant::now() + self.timeout;
        let commit = self.source.look(client, deadline).map_err(Failed::Source)?;
        let version = match &self.sparse {
            None => commit.to_string(),
            Some(path) => {
                let patterns = std::fs::read(path);
                let patterns = patterns
                    .map_err(|error| Failed::Source(format!("{}: {error}", path.display())))?;
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &patterns);
                let digits: String = digest.as_ref()[..6]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                format!("{commit}-{digits}")
            }
        };
        let current = self.engine.current();
        if current
            .as_deref()
            .is_some_and(|id| is_version(id, &version))
        {
            return Ok(Look::Unchanged);
        }
        // The same would be refused again, and the application reloaded twice each time.
        if let Some((refused, why)) = &state.refused
            && *refused == version
        {
            return Err(Failed::Refused(version, why.clone()));
        }
        // Nor is everything fetched again only to find the disk full.
        if let Some(full) = &state.full
            && Instant::now() < full.until
            && self.room() < full.needs
        {
            return Err(Failed::Source(full.why.clone()));
        }
        let staged = self.engine.stage();
        let staged = staged.map_err(|refused| Failed::Refused(version.clone(), refused))?;
        let filled = self.source.fill(client, deadline, commit, staged.path());
        if let Err(unfilled) = filled {
            // What it holds is room.
            drop(staged);
            let times = state.full.take().map_or(0, |full| full.times + 1);
            if !unfilled.full {
                return Err(Failed::Source(unfilled.why));
            }
            let (why, room) = (unfilled.why, self.room());
            let why = format!("{why}; it is tried again when there is room");
            state.full = Some(Full {
                why: why.clone(),
                needs: room + ROOM_BYTES.max(room / 16),
                until: Instant::now() + pause(self.period, times),
                times,
            });
            return Err(Failed::Source(why));
        }
        state.full = None;
        match self.engine.publish(staged, &version) {
            Ok(published) => {
                (state.refused, state.waits) = (None, None);
                Ok(Look::Published(published))
            }
            Err(refused) => {
                // One that waits for its judge counts once.
                let waits = refused.again.then(|| version.clone());
                let waited = std::mem::replace(&mut state.waits, waits);
                if waited.is_none() || waited != state.waits {
                    let mut seen = self.shared.lock();
                    *seen.steps.entry(refused.step).or_default() += 1;
                    seen.rolled_back += u64::from(refused.back != Back::Unseen);
                }
                // A full disk has room again some day.
                if refused.step != Step::Write && !refused.again {
                    state.refused = Some((version.clone(), refused.clone()));
                }
                Err(Failed::Refused(version, refused))
            }
        }
    }

    /// Bytes that are free where the store and the trees are.
    fn room(&self) -> u64 {
        let free = |path: &Path| match rustix::fs::statvfs(path) {
            Ok(stat) => stat.f_bavail * stat.f_frsize,
            Err(_) => 0,
        };
        free(self.source.store_path()) + free(self.engine.store())
    }

    /// The commit that is published, by the version's name.
    fn published_commit(&self) -> Option<String> {
        let id = self.engine.current()?;
        let (_, version) = id.split_once('-')?;
        Some(version.split('-').next().unwrap_or(version).to_owned())
    }
}

/// What a thread remembers from look to look.
#[derive(Default)]
struct State {
    refused: Option<(String, Refused)>,
    /// A version that nobody was there to judge.
    waits: Option<String>,
    full: Option<Full>,
}

/// A disk that was found full.
struct Full {
    why: String,
    /// Before so many bytes are free it is not worth trying,
    needs: u64,
    /// or before then: a quota does not show.
    until: Instant,
    /// How often it was tried in vain before.
    times: u32,
}

/// For how long a full disk is left alone.
fn pause(period: Duration, times: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(times.saturating_add(1));
    period.saturating_mul(doubled).min(FULL_MAX.max(period))
}

/// Whether an engine's id (a number, `-`, the version) is that of a version.
fn is_version(id: &str, version: &str) -> bool {
    id.split_once('-')
        .is_some_and(|(_, found)| found == version)
}

/// Up to a tenth more or less.
fn spread(period: Duration, random: u16) -> Duration {
    period.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u16::MAX))
}

fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without it all is as well, only less spread.
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u16::from_be_bytes(bytes),
        Err(_) => u16::MAX / 2,
    }
}

/// Starts the thread.
pub(super) fn start(worker: Worker) -> io::Result<Bell> {
    let (bell, heard) = sync_channel(1);
    std::thread::Builder::new()
        .name("git-sync".to_owned())
        .spawn(move || worker.run(&heard))?;
    Ok(Bell(bell))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_spread() {
        let period = Duration::from_secs(10);
        assert_eq!(spread(period, 0), Duration::from_secs(9));
        assert_eq!(spread(period, u16::MAX), Duration::from_secs(11));
    }

    #[test]
    fn a_full_disk_is_tried_ever_less_often() {
        let check = |period, times, expected| {
            let pause = pause(Duration::from_secs(period), times);
            assert_eq!(pause, Duration::from_secs(expected));
        };
        check(10, 0, 20);
        check(10, 1, 40);
        check(10, 9, 300);
        check(10, u32::MAX, 300);
        check(3600, 5, 3600);
    }

    #[test]
    fn a_version_is_told_by_its_name() {
        assert!(is_version("00000001-abc", "abc"));
        assert!(!is_version("00000001-abc-0102", "abc"));
        assert!(!is_version("abc", "abc"));
    }
}
