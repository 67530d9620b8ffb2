//! The module: parameters in, a thread for each repository, the webhook's listener.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use podkit_dataplane::module::{Once, Section, Service, Setup};
use podkit_dataplane::net::{Listener, ListenerLimits};
use podkit_foundation::error::Failure;
use podkit_foundation::lifecycle::Lifecycle;
use podkit_foundation::params::{Param, ParamError, ParamSet as _, Values};
use podkit_foundation::telemetry::metrics::Registry;
use tracing::warn;

use crate::proxy::Proxies;
use crate::publish::{Engine, Place, PublishParams, PublishSettings};

use super::location::Repo;
use super::params::Params;
use super::source::Source;
use super::webhook::Webhook;
use super::worker::{Bell, Shared, Worker, start};
use super::{SPEC, metrics};

/// Reads the parameters, opens the places, binds the webhook's listener.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::checked(values)?;
    let publish = PublishParams::from_values(values)?;
    publish.check()?;
    params.read_files()?;
    let listener_limits = ListenerLimits::from_values(values)?;
    if params.webhook.is_none() && listener_limits.max_connections_per_ip > 0 {
        return Err(ParamError::new("max_connections_per_ip", "needs --webhook").into());
    }
    warn_of_foreign_variables();
    if !params.ssh_known_hosts {
        warn!("--ssh-known-hosts=false: whoever answers is believed to be the ssh server");
    }
    std::fs::create_dir_all(&params.root)
        .map_err(|error| Failure::runtime(format!("--root {}", params.root.display()), error))?;
    let proxies = Arc::new(Proxies::of_the_environment().map_err(Failure::Usage)?);
    let mut workers = Vec::new();
    for repo in &params.repo {
        workers.push(worker(&params, &publish, repo, proxies.clone())?);
    }
    let all: Vec<Repository> = workers
        .iter()
        .map(|worker| Repository {
            name: worker.name.clone(),
            shared: worker.shared.clone(),
        })
        .collect();
    let shown = all.clone();
    setup.metrics.collect(move |encoder| {
        let seen: Vec<_> = shown
            .iter()
            .map(|one| (one.name.clone(), one.shared.lock().clone()))
            .collect();
        metrics::encode(encoder, &seen);
    });
    let listener = match &params.webhook {
        Some(addr) => Some(setup.listeners.bind("webhook", addr, 1)?),
        None => None,
    };
    Ok(Rc::new(GitSync {
        params,
        all,
        listener_limits,
        lifecycle: setup.lifecycle.clone(),
        metrics: setup.metrics.clone(),
        start: RefCell::new(Some(workers)),
        listener,
        bells: RefCell::default(),
    }))
}

fn worker(
    params: &Params,
    publish: &PublishParams,
    repo: &Repo,
    proxies: Arc<Proxies>,
) -> Result<Worker, Failure> {
    let wish = params.wish(repo)?;
    let link = params.link_of(repo);
    let place = match publish.in_place {
        true => Place::InPlace(link),
        false => Place::Link {
            root: params.root.join(".podkit-git").join(&repo.name),
            link,
        },
    };
    let settings = PublishSettings {
        place,
        params: publish.clone(),
    };
    let engine = Engine::open(settings).map_err(|why| Failure::runtime("--root", why))?;
    Ok(Worker {
        name: repo.name.clone(),
        source: Source::new(wish),
        shared: Shared::default(),
        period: params.period,
        timeout: params.sync_timeout,
        sparse: params.sparse.clone(),
        proxies,
        engine,
    })
}

/// kubernetes/git-sync's variables that mean nothing here are named, with what there is instead.
fn warn_of_foreign_variables() {
    let params = SPEC.all_params();
    let known: BTreeSet<&str> = params
        .iter()
        .flat_map(|param: &Param| param.also.iter().copied())
        .collect();
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with("GITSYNC_") && !known.contains(name.as_str()))
    {
        let instead = match name.as_str() {
            "GITSYNC_EXECHOOK_COMMAND" => "--reload exec:CMD",
            "GITSYNC_WEBHOOK_URL" => "--reload http:POST:URL",
            "GITSYNC_PASSWORD" => "--password-file",
            "GITSYNC_HTTP_BIND" | "GITSYNC_HTTP_METRICS" => "--admin",
            "GITSYNC_STALE_WORKTREE_TIMEOUT" => "--keep",
            "GITSYNC_GROUP_WRITE" => "--chmod",
            _ => "nothing",
        };
        warn!(
            name,
            instead, "this variable of kubernetes/git-sync is not understood"
        );
    }
}

/// A repository, for those who look.
#[derive(Clone)]
struct Repository {
    name: String,
    shared: Shared,
}

/// The running module.
struct GitSync {
    params: Params,
    all: Vec<Repository>,
    listener_limits: ListenerLimits,
    lifecycle: Lifecycle,
    metrics: Registry,
    /// What `start` takes.
    start: RefCell<Option<Vec<Worker>>>,
    listener: Option<Listener>,
    /// Dropped at the end: then the threads end too.
    bells: RefCell<Vec<Bell>>,
}

impl Service for GitSync {
    fn once(&self) -> Option<Once> {
        if !self.params.once {
            return None;
        }
        let workers = self.start.borrow_mut().take().unwrap_or_default();
        Some(Box::pin(async {
            let all = tokio::task::spawn_blocking(|| {
                let one = |worker: Worker| {
                    let name = worker.name.clone();
                    worker.once().map_err(|why| format!("{name}: {why}"))
                };
                // Every repository has its turn, also when one before it failed.
                let ends: Vec<Result<(), String>> = workers.into_iter().map(one).collect();
                ends.into_iter().collect::<Result<(), String>>()
            });
            match all.await {
                Ok(ended) => ended.map_err(Failure::Runtime),
                Err(error) => Err(Failure::runtime("looking", error)),
            }
        }))
    }

    fn start(self: Rc<Self>) -> Result<(), Failure> {
        let workers = self.start.borrow_mut().take().unwrap_or_default();
        let failed = |error| Failure::runtime("starting a thread", error);
        let mut bells = Vec::new();
        for worker in workers {
            bells.push(start(worker).map_err(failed)?);
        }
        self.bells.replace(bells.clone());
        if let (Some(listener), Some(secret)) = (&self.listener, &self.params.webhook_secret_file) {
            let count = |result| {
                self.metrics.counter(
                    metrics::WEBHOOKS,
                    metrics::WEBHOOKS_DOC,
                    &[("result", result)],
                )
            };
            let webhook = Webhook {
                secret: secret.clone(),
                wake: Box::new(move || bells.iter().for_each(Bell::look)),
                taken: count("taken"),
                refused: count("refused"),
            };
            webhook.serve(listener, &self.lifecycle, &self.listener_limits)?;
        }
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        self.params
            .read_files()
            .map_err(|error| error.to_string())?;
        self.bells.borrow().iter().for_each(Bell::again);
        Ok(())
    }

    fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        let mut trees = Ok(());
        let mut fresh = Ok(());
        let limit = self.params.stale_after;
        for one in &self.all {
            let seen = one.shared.lock();
            if seen.commit.is_none() {
                let why = seen
                    .trouble
                    .as_deref()
                    .unwrap_or("nothing was published yet");
                trees = Err(format!("{}: {why}", one.name));
            }
            // Before the first success it counts from the start: there is no tree then, or an old one.
            let age = seen.fresh.map(|at| at.elapsed());
            if !limit.is_zero() && age.is_none_or(|age| age > limit) {
                let why = seen.trouble.as_deref().unwrap_or("no look has ended");
                let since =
                    age.map_or("never".to_owned(), |age| format!("{} s ago", age.as_secs()));
                fresh = Err(format!("{}: last in step {since}: {why}", one.name));
            }
        }
        match limit.is_zero() {
            true => vec![("tree", trees)],
            false => vec![("tree", trees), ("fresh", fresh)],
        }
    }

    fn page(&self) -> Vec<Section> {
        let mut rows = Vec::new();
        let mut alert = None;
        for (one, repo) in self.all.iter().zip(&self.params.repo) {
            let seen = one.shared.lock();
            rows.push(vec![
                one.name.clone(),
                repo.location.to_string(),
                seen.commit.clone().unwrap_or_else(|| "none".to_owned()),
                seen.published_at
                    .map_or_else(|| "before the start".to_owned(), ago),
                seen.success_at.map_or_else(|| "never".to_owned(), ago),
                format!("{:.0} ms", seen.seconds * 1000.0),
            ]);
            if let Some(why) = &seen.trouble {
                alert = Some(format!("{}: {why}", one.name));
            }
        }
        let columns = [
            "name",
            "repository",
            "commit",
            "published",
            "in step",
            "last look took",
        ];
        vec![Section {
            title: "Repositories".to_owned(),
            columns: columns.map(str::to_owned).to_vec(),
            rows,
            alert,
        }]
    }
}

fn ago(time: SystemTime) -> String {
    let age = SystemTime::now().duration_since(time).unwrap_or_default();
    let at = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    match age < Duration::from_secs(120) {
        true => format!("{} s ago", age.as_secs()),
        false => format!("{} min ago (at {})", age.as_secs() / 60, at.as_secs()),
    }
}
