//! Where endpoints come from: addresses, names, SRV records, files. Runs on the main thread, and tells the [`Membership`].
//!
//! ```text
//!   --upstream ─┬─ host:port, unix:/path ──────────────── one endpoint
//!               ├─ dns:name:port ── all A and AAAA ─────── one for each address, again when their time is over
//!               ├─ srv:_name._tcp.domain ── SRV, then A ── weight and priority as the records say
//!               └─ file:/path ── a line each, watched ──── any of the above
//! ```
//!
//! A name server that does not answer, and a file with a mistake in it, change nothing: what was known stays. Which of these it
//! was is a warning in the log, once, and on the page as long as it lasts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use podkit_foundation::error::Failure;
use podkit_foundation::params::{Addr, ParamError, ParamType as _, Upstream, Where};
use podkit_foundation::surface::common::generation;
use podkit_foundation::telemetry::metrics::{Gauge, Registry};

use super::membership::{Found, Membership};
use super::resolve::Names;
use super::target::Target;
use crate::watch::{Watch, places};

/// A file of upstreams has at most so many bytes.
const FILE_BYTES: u64 = 1 << 20;

/// How soon a name that could not be resolved is asked for again.
const AGAIN: Duration = Duration::from_secs(5);

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Finds the endpoints of a module. Clones share.
#[derive(Debug, Clone)]
pub struct Discovery(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    module: &'static str,
    upstreams: Vec<Upstream>,
    max: usize,
    membership: Membership,
    state: Mutex<State>,
    /// Told when files were read again by request.
    wake: tokio::sync::Notify,
    generation: Gauge,
}

#[derive(Debug, Default)]
struct State {
    /// What each file said when it was last right.
    files: BTreeMap<PathBuf, Vec<Upstream>>,
    /// What each name had for addresses when it was last resolved.
    names: BTreeMap<String, Answer>,
    /// What is wrong, by source.
    problems: BTreeMap<String, String>,
}

/// What a name was resolved to. Targets are made of it and of the upstream that names it.
#[derive(Debug, Clone)]
struct Answer {
    members: Vec<Resolved>,
    until: Instant,
}

/// One address of a name.
#[derive(Debug, Clone)]
struct Resolved {
    addr: Addr,
    /// Weight and priority, when an SRV record says them.
    share: Option<(u16, u16)>,
    /// The name that has the address.
    name: String,
}

impl Discovery {
    /// Checks `upstreams`, the value of the parameter `field` of `module`: their forms, and what files say. Endpoints that need no
    /// question are there when it returns. At most `max` endpoints.
    pub fn new(
        field: &str,
        module: &'static str,
        upstreams: &[Upstream],
        max: usize,
        membership: Membership,
        registry: &Registry,
    ) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::from(ParamError::new(field, why));
        if upstreams.is_empty() {
            return Err(wrong(
                "is required; expected host:port, :port, unix:/path, dns:name:port, srv:_name._tcp.domain or \
                 file:/path"
                    .to_owned(),
            ));
        }
        let mut state = State::default();
        for upstream in upstreams {
            check(field, module, upstream)?;
            if let Where::File(path) = &upstream.place {
                let listed = read(path, module, max)
                    .map_err(|why| wrong(format!("\"{upstream}\": {why}")))?;
                state.files.insert(path.clone(), listed);
            }
        }
        let discovery = Self(Arc::new(Shared {
            module,
            upstreams: upstreams.to_vec(),
            max,
            membership,
            state: Mutex::new(state),
            wake: tokio::sync::Notify::new(),
            generation: generation(registry),
        }));
        discovery.tell();
        Ok(discovery)
    }

    /// What is wrong with a source, one line each.
    pub fn problems(&self) -> Vec<String> {
        let state = self.lock();
        let line = |(source, why): (&String, &String)| format!("{source}: {why}");
        state.problems.iter().map(line).collect()
    }

    /// Reads the files again. What is wrong with one leaves all as they were.
    pub fn reload(&self) -> Result<(), String> {
        let fresh = self.read_files();
        let mut wrong = fresh
            .iter()
            .filter_map(|(path, read)| Some((path, read.as_ref().err()?)));
        if let Some((path, why)) = wrong.next() {
            return Err(format!("file:{}: {why}", path.display()));
        }
        self.take_files(fresh);
        self.tell();
        // The names that are new in them are asked for.
        self.0.wake.notify_one();
        Ok(())
    }

    /// Follows files and names, forever.
    pub async fn watch(self) {
        let paths: Vec<PathBuf> = self
            .0
            .upstreams
            .iter()
            .filter_map(|upstream| match &upstream.place {
                Where::File(path) => Some(path.clone()),
                _ => None,
            })
            .collect();
        let mut watch = (!paths.is_empty()).then(Watch::new);
        loop {
            if let Some(watch) = &mut watch {
                // Places first, then files: what changes in between wakes the watch.
                watch.follow(&places(&paths));
                self.take_files(self.read_files());
            }
            let next = self.resolve().await;
            self.tell();
            let sleep = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let changed = async {
                match &mut watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = changed => {}
                () = self.0.wake.notified() => {}
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_files(&self) -> Vec<(PathBuf, Result<Vec<Upstream>, String>)> {
        let files = self.0.upstreams.iter().filter_map(|one| match &one.place {
            Where::File(path) => Some(path),
            _ => None,
        });
        files
            .map(|path| (path.clone(), read(path, self.0.module, self.0.max)))
            .collect()
    }

    fn take_files(&self, fresh: Vec<(PathBuf, Result<Vec<Upstream>, String>)>) {
        let mut state = self.lock();
        for (path, read) in fresh {
            let source = format!("file:{}", path.display());
            match read {
                Ok(listed) => {
                    state.problems.remove(&source);
                    if state.files.get(&path) != Some(&listed) {
                        tracing::info!(file = %path.display(), upstreams = listed.len(), "upstreams read");
                        state.files.insert(path, listed);
                        self.0.generation.add(1);
                    }
                }
                Err(why) => state.problem(source, why),
            }
        }
    }

    /// All upstreams, files replaced by what they say.
    fn listed(&self) -> Vec<Upstream> {
        let state = self.lock();
        let mut all = Vec::new();
        for upstream in &self.0.upstreams {
            match &upstream.place {
                Where::File(path) => all.extend(state.files.get(path).cloned().unwrap_or_default()),
                _ => all.push(upstream.clone()),
            }
        }
        all
    }

    /// Asks for every name whose time is over. Returns when the next one is.
    async fn resolve(&self) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for upstream in self.listed() {
            let key = match &upstream.place {
                Where::Dns(name, port) => format!("dns:{name}:{port}"),
                Where::Srv(name) => format!("srv:{name}"),
                _ => continue,
            };
            let known = self.lock().names.get(&key).map(|answer| answer.until);
            let until = match known {
                Some(until) if until > Instant::now() => until,
                _ => {
                    let asked = tokio::time::timeout(PATIENCE, ask(&upstream.place)).await;
                    let answer = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                    self.take_answer(key, answer)
                }
            };
            next = Some(next.map_or(until, |next| next.min(until)));
        }
        next
    }

    fn take_answer(&self, key: String, answer: Result<Answer, String>) -> Instant {
        let mut state = self.lock();
        match answer {
            Ok(answer) => {
                let until = answer.until;
                state.problems.remove(&key);
                state.names.insert(key, answer);
                until
            }
            Err(why) => {
                let again = Instant::now() + AGAIN;
                if let Some(known) = state.names.get_mut(&key) {
                    known.until = again;
                }
                state.problem(key, why);
                again
            }
        }
    }

    /// Tells the membership what is known.
    fn tell(&self) {
        let mut found = Vec::new();
        for upstream in self.listed() {
            let state = self.lock();
            let key = match &upstream.place {
                Where::Dns(name, port) => format!("dns:{name}:{port}"),
                Where::Srv(name) => format!("srv:{name}"),
                _ => {
                    found.extend(self.found(&upstream, upstream.weight, upstream.priority));
                    continue;
                }
            };
            let members = state.names.get(&key).map(|answer| answer.members.clone());
            drop(state);
            for Resolved { addr, share, name } in members.unwrap_or_default() {
                // RFC 2782: a weight of 0 is a very small chance, not none.
                let (weight, priority) = match share {
                    Some((weight, priority)) => (weight.max(1), priority),
                    None => (upstream.weight, upstream.priority),
                };
                let server_name = upstream.server_name.clone();
                let member = Upstream {
                    place: Where::Addr(addr),
                    // The certificate is the name's, not the address's.
                    server_name: match upstream.scheme.is_tls() {
                        true => server_name.or(Some(name)),
                        false => server_name,
                    },
                    ..upstream.clone()
                };
                found.extend(self.found(&member, weight, priority));
            }
        }
        let many = found.len();
        found.truncate(self.0.max);
        let mut state = self.lock();
        let source = "upstreams".to_owned();
        match many > self.0.max {
            true => {
                let most = most(self.0.module, self.0.max);
                let why = format!("{many} are found, and the first are used: {most}");
                state.problem(source, why);
            }
            false => drop(state.problems.remove(&source)),
        }
        drop(state);
        let (came, went) = self.0.membership.set(&found);
        if came + went > 0 {
            tracing::info!(upstreams = found.len(), came, went, "upstreams");
        }
    }

    fn found(&self, upstream: &Upstream, weight: u16, priority: u16) -> Option<Found> {
        // Their forms were checked before; what a record says can still be a port that can't be dialled.
        let target = Target::new("upstream", self.0.module, upstream).ok()?;
        Some(Found {
            target,
            weight,
            priority,
        })
    }
}

impl State {
    fn problem(&mut self, source: String, why: String) {
        if self.problems.get(&source) != Some(&why) {
            tracing::warn!(source, why, "upstreams stay as they were");
            self.problems.insert(source, why);
        }
    }
}

/// How many there may be, and who says so.
fn most(module: &str, max: usize) -> String {
    match module {
        "balance" => format!("--max-upstreams is {max}"),
        _ => format!("there can be {max}"),
    }
}

/// Whether an upstream is of a form that is there.
fn check(field: &str, module: &str, upstream: &Upstream) -> Result<(), Failure> {
    let wrong = |why: &str| Failure::from(ParamError::new(field, format!("\"{upstream}\": {why}")));
    if module == "redis" && (upstream.weight != 1 || upstream.priority != 0) {
        return Err(wrong(
            "weight and priority mean nothing here: a server's role says what it gets",
        ));
    }
    let stand_in = |addr| Upstream {
        place: Where::Addr(addr),
        ..upstream.clone()
    };
    match &upstream.place {
        Where::Addr(_) => Target::new(field, module, upstream).map(drop),
        Where::Dns(name, port) => {
            Target::new(field, module, &stand_in(Addr::Name(name.clone(), *port))).map(drop)
        }
        Where::Srv(name) if name.is_empty() => Err(wrong("srv: takes _name._tcp.domain")),
        Where::Srv(name) => {
            Target::new(field, module, &stand_in(Addr::Name(name.clone(), 1))).map(drop)
        }
        Where::File(path) if !path.is_absolute() => Err(wrong("file: takes an absolute path")),
        Where::File(_) => match upstream.weight == 1
            && upstream.priority == 0
            && upstream.server_name.is_none()
            && upstream.scheme == podkit_foundation::params::Scheme::Plain
        {
            true => Ok(()),
            false => Err(wrong(
                "options and schemes go into the file, with each upstream",
            )),
        },
        Where::Kubernetes(_) => Err(wrong(
            "k8s: is not there yet; expected host:port, dns:name:port (a headless Service), srv:_name._tcp.domain or \
             file:/path",
        )),
    }
}

/// The upstreams of a file: one a line, `#` begins a comment. Nothing in it is taken when one line is wrong.
fn read(path: &Path, module: &str, max: usize) -> Result<Vec<Upstream>, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES {
        return Err("is larger than 1Mi".to_owned());
    }
    parse(&text, module, max)
}

/// The upstreams of a file's text.
pub(super) fn parse(text: &str, module: &str, max: usize) -> Result<Vec<Upstream>, String> {
    let mut all = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let wrong = |why: String| format!("line {number}: \"{line}\": {why}");
        let upstream = Upstream::parse(line).map_err(wrong)?;
        if matches!(upstream.place, Where::File(_)) {
            return Err(wrong("a file can't name another one".to_owned()));
        }
        if all.contains(&upstream) {
            return Err(wrong("is there twice".to_owned()));
        }
        check("upstream", module, &upstream)
            .map_err(|failure| format!("line {number}: {failure}"))?;
        all.push(upstream);
    }
    match all.len() {
        // What an editor or a script leaves for a moment; drain by weight=0 instead.
        0 => Err("names no upstream; the former ones stay (weight=0 takes one out)".to_owned()),
        count if count > max => Err(format!("names {count} upstreams; {}", most(module, max))),
        _ => Ok(all),
    }
}

async fn ask(place: &Where) -> Result<Answer, String> {
    let names = Names::new()?;
    match place {
        Where::Dns(name, port) => {
            let found = names.lookup(name).await?;
            let member = |ip| Resolved {
                addr: Addr::Ip(ip, *port),
                share: None,
                name: name.clone(),
            };
            Ok(Answer {
                members: found.ips.into_iter().map(member).collect(),
                until: found.until,
            })
        }
        Where::Srv(name) => {
            let (records, mut until) = names.services(name).await?;
            let mut members = Vec::new();
            for record in records {
                // A target without an address leaves out itself only.
                let Ok(found) = names.lookup(&record.target).await else {
                    continue;
                };
                until = until.min(found.until);
                members.extend(found.ips.into_iter().map(|ip| Resolved {
                    addr: Addr::Ip(ip, record.port),
                    share: Some((record.weight, record.priority)),
                    name: record.target.clone(),
                }));
            }
            match members.is_empty() {
                true => Err("no target has an address".to_owned()),
                false => Ok(Answer { members, until }),
            }
        }
        _ => Err("is not a name".to_owned()),
    }
}

#[cfg(test)]
mod tests;
