//! `/probe`: many servers, each asked when somebody asks about it, as the first entry of a file says that matches it.
//!
//! ```text
//!   ?target=redis://a.cache ──▶ entry: match, keys ──▶ kept target: keepers, their connections ──▶ as a scrape
//!                                 ╰─ none: 403            ╰─ too many, or idle: forgotten
//! ```
//!
//! The keys are the file's alone: a request that could say them could have any file sent to any server as a password.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use podkit_foundation::params::{Addr, listed};
use podkit_foundation::telemetry::metrics::{Counter, Gauge, Registry};
use podkit_foundation::yaml::read;
use tokio::time::Instant;

use super::keeper::Patience;
use super::scrape::Member;
use super::source::{Ground, plan};
use super::sources::Asked;
use super::spec::{Pattern, SCHEMES, Spec};

/// An entry of the file.
#[derive(Debug)]
struct Entry {
    pattern: Pattern,
    module: String,
    /// What is said of a source that matches.
    keys: Vec<(String, String)>,
}

impl Entry {
    fn spec(&self, target: &str) -> Result<Spec, String> {
        let keys: Vec<(&str, &str)> = self
            .keys
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        Spec::of(target, &keys)
    }
}

/// Why a target is not asked; a line for who asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is none.
    Bad(String),
    /// No entry matches.
    Unlisted(String),
    /// It can't be asked as its entry says.
    Broken(String),
}

/// What bounds targets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) most: usize,
    pub(crate) idle: Duration,
    pub(crate) answer: Duration,
    pub(crate) whole: Duration,
}

/// A target that was asked about.
struct Kept {
    asked: Asked,
    used: Cell<Instant>,
}

/// Its URL, and the module that it is asked as.
type Key = (String, String);

/// All that may be asked about, and those that were.
pub(crate) struct Targets {
    path: PathBuf,
    ground: Rc<Ground>,
    limits: Limits,
    entries: RefCell<Vec<Entry>>,
    kept: RefCell<HashMap<Key, Kept>>,
    count: Gauge,
    asked: Counter,
    refused: Counter,
}

/// The entries of `--targets-file`, for whoever makes the ground.
pub(crate) struct Entries(Vec<Entry>);

/// Reads the text of --targets-file, for the fuzzer.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn read_entries(text: &str) {
    drop(parse(text));
}

impl Entries {
    /// An error says where and what is wrong.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let bytes = read::file(path).map_err(|why| format!("{shown}: {why}"))?;
        let text = read::text(&bytes)
            .map_err(|(line, column, why)| format!("{shown}:{line}:{column}: {why}"))?;
        parse(text)
            .map(Self)
            .map_err(|why| format!("{shown}: {why}"))
    }

    /// A source of each.
    pub(crate) fn samples(&self) -> Vec<Spec> {
        let samples = self
            .0
            .iter()
            .map(|entry| entry.spec(&entry.pattern.sample()));
        samples.flatten().collect()
    }

    /// All can be asked as they say. Opens nothing.
    fn check(&self, ground: &Ground) -> Result<(), String> {
        for entry in &self.0 {
            let sample = entry.pattern.sample();
            let spec = entry.spec(&sample)?;
            if spec.scheme.tls && ground.tls.is_none() {
                return Err(format!(
                    "{}: an entry speaks TLS, which none did when podkit was started; start it anew",
                    spec.scheme.word
                ));
            }
            plan(&spec, ground).map_err(|why| format!("match {sample}: {why}"))?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let mut keys = vec!["match", "module", "timeout"];
    keys.extend(SCHEMES.iter().flat_map(|scheme| scheme.keys()));
    keys.sort_unstable();
    keys.dedup();
    let mut entries: Vec<Entry> = Vec::new();
    for item in listed(text, &keys)? {
        let line = item.line;
        let wrong = |why: String| format!("line {line}: {why}");
        let (mut pattern, mut module, mut own) = (None, String::new(), Vec::new());
        for (key, value) in item.pairs {
            match key.as_str() {
                "match" => {
                    let read = Pattern::parse(&value);
                    let why = |why| wrong(format!("match {value}: {why}"));
                    pattern = Some(read.map_err(why)?);
                }
                "module" => module = value,
                _ => own.push((key, value)),
            }
        }
        let why = "there is no match, such as redis://*.cache.svc:6379";
        let entry = Entry {
            pattern: pattern.ok_or_else(|| wrong(why.to_owned()))?,
            module,
            keys: own,
        };
        entry.spec(&entry.pattern.sample()).map_err(wrong)?;
        entries.push(entry);
    }
    match entries.is_empty() {
        true => Err("there is no entry: \"- match: redis://*.cache.svc:6379\"".to_owned()),
        false => Ok(entries),
    }
}

impl Targets {
    pub(crate) fn new(
        path: PathBuf,
        entries: Entries,
        ground: Rc<Ground>,
        limits: Limits,
        registry: &Registry,
    ) -> Result<Self, String> {
        entries.check(&ground)?;
        let name = "podkit_metrics_probes_total";
        let help = "Requests for /probe.";
        Ok(Self {
            path,
            ground,
            limits,
            entries: RefCell::new(entries.0),
            kept: RefCell::default(),
            count: registry.gauge("podkit_metrics_targets", "Targets that are kept.", &[]),
            asked: registry.counter(name, help, &[("result", "asked")]),
            refused: registry.counter(name, help, &[("result", "refused")]),
        })
    }

    /// The target's members; new ones when it is not kept.
    pub(crate) fn find(&self, target: &str, module: &str) -> Result<Rc<[Member]>, Refusal> {
        let found = self.look(target, module);
        match &found {
            Ok(_) => self.asked.inc(),
            Err(_) => self.refused.inc(),
        }
        found
    }

    fn look(&self, target: &str, module: &str) -> Result<Rc<[Member]>, Refusal> {
        if target.contains(';') {
            let why = "what follows ; is said by --targets-file alone".to_owned();
            return Err(Refusal::Bad(why));
        }
        let spec = Spec::of(target, &[]).map_err(Refusal::Bad)?;
        if matches!(spec.addr, Addr::Port(_)) {
            return Err(Refusal::Bad("names no host".to_owned()));
        }
        if target.contains("/../") {
            return Err(Refusal::Bad("goes up by ..".to_owned()));
        }
        let key = (spec.to_string(), module.to_owned());
        if let Some(kept) = self.kept.borrow().get(&key) {
            kept.used.set(Instant::now());
            return Ok(Rc::clone(&kept.asked.members));
        }
        let kept = self.make(target, &spec, module)?;
        let members = Rc::clone(&kept.asked.members);
        let mut all = self.kept.borrow_mut();
        if all.len() >= self.limits.most
            && let Some(oldest) = all.iter().min_by_key(|(_, kept)| kept.used.get())
        {
            let oldest = oldest.0.clone();
            all.remove(&oldest);
        }
        all.insert(key, kept);
        self.show(&all);
        Ok(members)
    }

    fn make(&self, target: &str, spec: &Spec, module: &str) -> Result<Kept, Refusal> {
        let entries = self.entries.borrow();
        let entry = entries
            .iter()
            .find(|entry| entry.module == module && entry.pattern.matches(spec));
        let entry = entry.ok_or_else(|| {
            Refusal::Unlisted(match module {
                "" => "no entry of --targets-file matches it".to_owned(),
                module => format!("no entry of --targets-file with module {module:?} matches it"),
            })
        })?;
        let spec = entry.spec(target).map_err(Refusal::Broken)?;
        let patience = Patience {
            answer: spec.timeout().unwrap_or(self.limits.answer),
            whole: self.limits.whole,
        };
        let asked = Asked::plan(&spec, "", patience, &self.ground).map_err(Refusal::Broken)?;
        asked.start();
        let used = Cell::new(Instant::now());
        Ok(Kept { asked, used })
    }

    /// Forgets who is idle, again and again.
    pub(crate) async fn tidy(self: Rc<Self>) {
        loop {
            tokio::time::sleep(self.limits.idle / 4).await;
            let mut all = self.kept.borrow_mut();
            all.retain(|_, kept| kept.used.get().elapsed() < self.limits.idle);
            self.show(&all);
        }
    }

    /// Reads the file again. On an error all stays.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let entries = Entries::read(&self.path)?;
        entries.check(&self.ground)?;
        self.entries.replace(entries.0);
        let mut all = self.kept.borrow_mut();
        // Who is asked as somebody else, or may no longer be asked.
        all.clear();
        self.show(&all);
        Ok(())
    }

    /// Some of those that are kept, for the page.
    pub(crate) fn some(&self, most: usize) -> Vec<Rc<[Member]>> {
        let all = self.kept.borrow();
        let mut keys: Vec<&Key> = all.keys().collect();
        keys.sort_unstable();
        let some = keys.into_iter().take(most);
        some.map(|key| Rc::clone(&all[key].asked.members)).collect()
    }

    fn show(&self, all: &HashMap<Key, Kept>) {
        self.count.set(i64::try_from(all.len()).unwrap_or(i64::MAX));
    }
}

/// The value of a field of a query, decoded; None when it is not there, or no text.
pub(crate) fn field(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(known, _)| *known == name)?;
    // The form's own sign for a blank; a plus is %2B.
    let value = value.replace('+', " ");
    let bytes = percent_encoding::percent_decode_str(&value);
    bytes.decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests;
