//! The thread that follows the sources and publishes: nothing that it waits for holds up the admin server.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use podkit_dataplane::module::Setup;
use podkit_foundation::lifecycle::Lifecycle;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{error, info, warn};

use super::metrics::Counts;
use super::params::{Params, Publish};
use super::set::{Limits, Set};
use super::source::{Reading, Source, SourceSpec};
use super::template::render;
use crate::publish::{Back, Client, Engine, Refused, Step};

/// After an error a source is asked again in this time, then twice that, and so on.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_MOST: Duration = Duration::from_secs(15);
/// A first version that was refused, one that could not be written, and one that nobody was there to judge, is tried again in this time.
const RETRY: Duration = Duration::from_secs(5);
/// When nothing was to be done for so long, what making and publishing a set took of memory is given back.
const QUIET: Duration = Duration::from_secs(1);

/// What the page, the metrics and the checks show. Clones share.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sources: Vec<SourceState>,
    /// The version in force, since when, and how many files it has when this process published it.
    pub(super) version: Option<String>,
    pub(super) since: Option<SystemTime>,
    pub(super) files: Option<usize>,
    /// Why the latest state of the sources is not in force.
    pub(super) refused: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct SourceState {
    pub(super) name: String,
    /// When it last answered.
    pub(super) contact: Option<SystemTime>,
    /// When it last had news.
    pub(super) change: Option<SystemTime>,
    pub(super) trouble: Option<String>,
}

/// What a source told.
struct Told {
    index: usize,
    /// None: the same as before.
    what: Result<Option<Set>, String>,
}

/// What the thread needs.
pub(super) struct Sync {
    pub(super) params: Params,
    pub(super) engine: Arc<Mutex<Engine>>,
    pub(super) shared: Shared,
    pub(super) counts: Counts,
    pub(super) lifecycle: Lifecycle,
    settled: fn(),
    /// Asks HTTP servers.
    pub(super) client: Client,
    /// Told when everything is to be read anew.
    pub(super) anew: watch::Receiver<u64>,
}

/// How `--once` ended.
pub(super) type Once = Result<(), String>;

impl Sync {
    pub(super) fn new(
        params: Params,
        engine: Engine,
        counts: Counts,
        setup: &Setup,
        client: Client,
        anew: watch::Receiver<u64>,
    ) -> Self {
        let shared = Shared::default();
        let names = params.source.iter().map(|spec| SourceState {
            name: spec.to_string(),
            contact: None,
            change: None,
            trouble: None,
        });
        {
            let mut state = shared.lock();
            state.sources = names.collect();
            state.version = engine.current();
            let published = engine.place().symlink_metadata();
            state.since = published
                .and_then(|meta| meta.modified())
                .ok()
                .filter(|_| state.version.is_some());
        }
        Self {
            params,
            engine: Arc::new(Mutex::new(engine)),
            shared,
            counts,
            lifecycle: setup.lifecycle.clone(),
            settled: setup.settled,
            client,
            anew,
        }
    }

    /// Starts the thread. Dropping what is returned ends it at its next step; of `--once` it gives the end.
    pub(super) fn start(self) -> std::io::Result<tokio::sync::oneshot::Receiver<Once>> {
        let (done, ended) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_stack_size(512 * 1024)
            .build()?;
        std::thread::Builder::new()
            .name("config-sync".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || {
                let once = tokio::task::LocalSet::new().block_on(&runtime, self.run());
                // Nobody may be waiting any more.
                drop(done.send(once));
            })?;
        Ok(ended)
    }

    async fn run(self) -> Once {
        let (tell, mut told) = mpsc::channel(16);
        let reading = Reading {
            limits: Limits {
                files: self.params.max_files as usize,
                bytes: self.params.max_bytes.0,
            },
            client: self.client.clone(),
            token_file: self.params.token_file.clone(),
            etcd_login: (self.params.etcd_user.clone()).zip(self.params.etcd_password_file.clone()),
            period: self.params.period,
        };
        for (index, spec) in self.params.source.iter().enumerate() {
            let follow = Follow {
                index,
                resync: self.params.resync,
                tell: tell.clone(),
                anew: self.anew.clone(),
            };
            drop(tokio::task::spawn_local(
                follow.run(spec.clone(), reading.clone()),
            ));
        }
        let templates = self
            .params
            .template
            .iter()
            .filter_map(|spec| Some(spec.path()?.to_owned()));
        let templates: Vec<PathBuf> = templates.collect();
        let touched = Rc::new(Notify::new());
        if !templates.is_empty() {
            let touched = Rc::clone(&touched);
            drop(tokio::task::spawn_local(async move {
                let tell = || touched.notify_one();
                podkit_dataplane::watch::look_after(&templates, tell).await;
            }));
        }
        let (once, patience) = (self.params.once, self.params.once_timeout);
        let mut work = Work::new(self).await;
        if once {
            let all = async {
                while let Some(told) = told.recv().await {
                    work.hear(told);
                    if work.complete() {
                        break;
                    }
                }
            };
            return match tokio::time::timeout(patience, all).await {
                Ok(()) => work.apply().await,
                Err(_) => work.without_sources(),
            };
        }
        let settled = work.sync.settled;
        let mut worked = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(QUIET), if worked => {
                    settled();
                    worked = false;
                    continue;
                }
                Some(one) = told.recv() => {
                    let mut news = work.hear(one);
                    // What has come meanwhile goes with it.
                    while let Ok(one) = told.try_recv() {
                        news |= work.hear(one);
                    }
                    if !news {
                        continue;
                    }
                }
                () = touched.notified() => {}
                // The application, or who judges for it, may not have been there yet; the disk may have been full.
                () = tokio::time::sleep(RETRY), if work.may_pass_now() => {}
            }
            // Whatever came of it is told where people look.
            drop(work.apply().await);
            worked = true;
        }
    }
}

/// Follows one source.
struct Follow {
    index: usize,
    resync: Duration,
    tell: mpsc::Sender<Told>,
    anew: watch::Receiver<u64>,
}

impl Follow {
    async fn run(mut self, spec: SourceSpec, reading: Reading) {
        let mut source = Source::new(&spec, &reading);
        let mut again = AGAIN;
        let mut anew = true;
        loop {
            let what = source.fetch(anew).await;
            let failed = what.is_err();
            let index = self.index;
            if self.tell.send(Told { index, what }).await.is_err() {
                return;
            }
            anew = false;
            if failed {
                tokio::select! {
                    () = tokio::time::sleep(super::source::spread(again)) => {}
                    changed = self.anew.changed() => anew = changed.is_ok(),
                }
                again = (again * 2).min(AGAIN_MOST);
                continue;
            }
            again = AGAIN;
            tokio::select! {
                () = source.changed() => {}
                () = tokio::time::sleep(super::source::spread(self.resync)) => anew = true,
                changed = self.anew.changed() => anew = changed.is_ok(),
            }
        }
    }
}

/// The sets as they were told, and what became of them.
struct Work {
    sync: Sync,
    sets: Vec<Option<Set>>,
    env: Vec<(String, String)>,
    /// The version that was last refused, and whether somebody saw it.
    refused: Option<(String, bool)>,
    /// It was not judged: nobody was there.
    again: bool,
    /// What refused it is the file system.
    unwritten: bool,
    /// The round of `Sync::anew` that was seen last.
    round: u64,
}

impl Work {
    async fn new(sync: Sync) -> Self {
        let names = sync.params.template_env.iter();
        let env = names.filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
        let round = *sync.anew.borrow();
        let work = Self {
            env: env.collect(),
            sets: vec![None; sync.params.source.len()],
            refused: None,
            again: false,
            unwritten: false,
            round,
            sync,
        };
        if let Some(line) = work.blocking(Engine::resume).await {
            warn!(
                why = line,
                "a version that was never confirmed is taken back"
            );
            work.sync.counts.rolled_back.inc();
            work.sync.shared.lock().refused = Some(line);
        }
        work
    }

    /// Something with the engine, in a thread that may block; the process does not end in the middle of it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> T {
        let engine = Arc::clone(&self.sync.engine);
        let guard = self.sync.lifecycle.begin();
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut engine.lock().unwrap_or_else(PoisonError::into_inner));
            drop(guard);
            done
        });
        done.await.expect("the engine does not panic")
    }

    /// Takes what a source told. Whether there may be something to publish.
    fn hear(&mut self, told: Told) -> bool {
        let mut state = self.sync.shared.lock();
        let source = &mut state.sources[told.index];
        let now = SystemTime::now();
        match told.what {
            Err(why) => {
                if source.trouble.as_ref() != Some(&why) {
                    warn!(
                        source = source.name,
                        why, "a source can't be read; what it had stays"
                    );
                }
                source.trouble = Some(why);
                self.sync.counts.source(told.index).failed.inc();
                false
            }
            Ok(set) => {
                if source.trouble.take().is_some() {
                    info!(source = source.name, "the source can be read again");
                }
                source.contact = Some(now);
                let counts = self.sync.counts.source(told.index);
                counts.answered.inc();
                counts.contact.set(unix(now));
                let known = &mut self.sets[told.index];
                let whole = set.is_some();
                let news = whole && *known != set;
                if news {
                    source.change = Some(now);
                    *known = set;
                }
                // A resync or SIGHUP tries again what was refused.
                news || whole && self.refused.is_some()
            }
        }
    }

    /// A version was refused, and there is no other, or nobody has judged it yet.
    fn may_pass_now(&self) -> bool {
        self.refused.is_some()
            && (self.again || self.unwritten || self.sync.shared.lock().version.is_none())
    }

    /// Every source has told what it has.
    fn complete(&self) -> bool {
        self.sets.iter().all(Option::is_some)
    }

    /// Publishes what the sources have now, if it is not in force already.
    async fn apply(&mut self) -> Once {
        if !self.complete() {
            return Err("not every source has answered yet".to_owned());
        }
        let set = match self.made() {
            Ok(set) => set,
            Err(why) => {
                self.sync.counts.refused("render").inc();
                self.say_refused(&why, "what the sources have makes no set");
                return Err(why);
            }
        };
        let version = set.version();
        let current = self.blocking(|engine| engine.current()).await;
        if current
            .as_deref()
            .is_some_and(|current| current.ends_with(&format!("-{version}")))
        {
            (self.refused, self.again) = (None, false);
            let mut state = self.sync.shared.lock();
            state.refused = None;
            state.version = current;
            state.files = Some(set.files().count());
            return Ok(());
        }
        let round = *self.sync.anew.borrow();
        let asked = std::mem::replace(&mut self.round, round) != round;
        // What the application itself refused is tried again when somebody asks, or when there is nothing else.
        if let Some((refused, true)) = &self.refused
            && *refused == version
            && !asked
            && current.is_some()
        {
            return Err("this version was refused before".to_owned());
        }
        let begun = std::time::Instant::now();
        let done = {
            let (version, out) = (version.clone(), self.sync.params.out.clone());
            self.blocking(move |engine| {
                let staged = engine.stage()?;
                set.write(staged.path(), &out)
                    .map_err(|why| Refused::unseen(Step::Write, why))?;
                engine.publish(staged, &version)
            })
            .await
        };
        let counts = &self.sync.counts;
        self.unwritten = matches!(&done, Err(refused) if refused.step == Step::Write);
        match done {
            Ok(published) => {
                info!(version = published.id, files = published.files, "published");
                (self.refused, self.again) = (None, false);
                counts.published.inc();
                counts.seconds.observe(begun.elapsed());
                counts.at.set(unix(SystemTime::now()));
                let mut state = self.sync.shared.lock();
                state.refused = None;
                state.version = Some(published.id);
                state.since = Some(SystemTime::now());
                state.files = Some(published.files);
                Ok(())
            }
            Err(refused) => {
                // One that waits for its judge counts once.
                if !(self.again && refused.again) {
                    counts.refused(refused.step.word()).inc();
                }
                self.again = refused.again;
                let why = refused.to_string();
                let after = refused.back.to_string();
                if refused.back != Back::Unseen {
                    counts.rolled_back.inc();
                }
                let seen = refused.back != Back::Unseen;
                self.refused = Some((version, seen));
                let current = self.blocking(|engine| engine.current()).await;
                self.sync.shared.lock().version = current;
                self.say_refused(&why, &after);
                Err(format!("{why}; {after}"))
            }
        }
    }

    fn say_refused(&mut self, why: &str, after: &str) {
        let line = format!("{why} ({after})");
        let known = self.sync.shared.lock().refused.replace(line.clone());
        // A resync says it again only when it is another.
        if known.as_ref() != Some(&line) {
            error!(why, "{after}");
        }
        if self.refused.is_none() {
            self.refused = Some((String::new(), false));
        }
    }

    /// The set to publish.
    fn made(&self) -> Result<Set, String> {
        let sources = Set::merged(self.sets.iter().flatten())?;
        let params = &self.sync.params;
        let made = render(&params.template, &sources, &self.env)?;
        let mut set = match params.publish {
            Publish::All => sources,
            Publish::Templates => Set::default(),
        };
        for (name, file) in made {
            set.insert(&name, file);
        }
        set.check()?;
        Ok(set)
    }

    /// The end of `--once` when a source stayed away.
    fn without_sources(&self) -> Once {
        let state = self.sync.shared.lock();
        let away = state
            .sources
            .iter()
            .zip(&self.sets)
            .find(|(_, set)| set.is_none());
        let why = match away {
            Some((source, _)) => {
                let trouble = source.trouble.as_deref().unwrap_or("it has not answered");
                format!("no set within --once-timeout: {trouble}")
            }
            None => "no set within --once-timeout".to_owned(),
        };
        match &state.version {
            Some(version) => {
                warn!(why, version, "the version that was published before stays");
                Ok(())
            }
            None => Err(why),
        }
    }
}

fn unix(at: SystemTime) -> i64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
