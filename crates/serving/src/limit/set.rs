//! What is in force: the rules, and the lists of addresses that are refused or pass them by; read from files, and read again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use podkit_dataplane::watch::{look_after, read_file};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{CidrSet, ParamError, listed};
use podkit_foundation::surface::common::generation;
use podkit_foundation::telemetry::metrics::{Counter, Gauge, Registry};

use super::params::Params;
use super::rule::{KEYS, MAX_RULES, Rule};
use super::{RELOADS, Settled};

/// A file of rules has at most so many bytes.
const RULES_BYTES: u64 = 1 << 20;

/// A list of addresses has at most so many: two million of them.
const LIST_BYTES: u64 = 32 << 20;

/// Rules and lists, never changed.
#[derive(Debug, Default)]
pub(super) struct Set {
    pub(super) rules: Vec<Counted>,
    pub(super) allow: CidrSet,
    pub(super) deny: CidrSet,
}

/// A rule, what its answers begin with, and what it did.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) rule: Rule,
    /// `RateLimit-Policy` and the begin of `RateLimit` (draft-ietf-httpapi-ratelimit-headers, sections 3 and 4: structured fields).
    pub(super) ietf: String,
    /// The problem document of a refusal (section 5.1 of it; RFC 9457).
    pub(super) problem: String,
    counts: [Counter; 3],
}

impl Counted {
    /// `former`: the one of that name that was in force; it goes on counting.
    fn new(rule: Rule, former: Option<&Self>) -> Self {
        Self {
            ietf: {
                let name = &rule.name;
                let policy = match (rule.rate, rule.concurrency) {
                    (Some(rate), _) => format!("q={};w={}", rate.burst(), rate.window_seconds()),
                    (None, most) => {
                        format!("q={};qu=\"concurrent-requests\"", most.unwrap_or_default())
                    }
                };
                format!("RateLimit-Policy: \"{name}\";{policy}\r\nRateLimit: \"{name}\";r=")
            },
            problem: format!(
                "{{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\",\
                 \"title\":\"Too Many Requests\",\"status\":429,\"violated-policies\":[\"{}\"]}}\n",
                rule.name
            ),
            counts: former.map_or_else(Default::default, |former| former.counts.clone()),
            rule,
        }
    }

    pub(super) fn count(&self, settled: Settled) {
        self.counts[settled as usize].inc();
    }

    /// Allowed, limited, shadow.
    pub(super) fn counts(&self) -> [u64; 3] {
        self.counts.each_ref().map(Counter::get)
    }
}

/// The set in force, and the files that it is read from. One for all workers.
#[derive(Debug)]
pub(super) struct InForce {
    sources: Sources,
    current: RwLock<Arc<Set>>,
    /// Changes with the set.
    epoch: AtomicU64,
    state: Mutex<State>,
    changed: Counter,
    refused: Counter,
    generation: Gauge,
}

#[derive(Debug)]
struct State {
    /// What the files said when they were last right.
    read: Read,
    /// What is on disk and not in force.
    refusal: Option<String>,
}

#[derive(Debug)]
struct Sources {
    /// Of `--rule`.
    given: Vec<Rule>,
    rules: Option<PathBuf>,
    allow: Vec<PathBuf>,
    deny: Vec<PathBuf>,
}

/// What the files and flags say.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    rules: Vec<Rule>,
    allow: CidrSet,
    deny: CidrSet,
}

impl InForce {
    /// Reads the files. A fault is one line with the parameter, the file, and the line in it.
    pub(super) fn new(params: &Params, registry: &Registry) -> Result<Self, Failure> {
        let sources = Sources {
            given: params.rules().cloned().collect(),
            rules: params.rules_file.clone(),
            allow: params.allow.clone(),
            deny: params.deny.clone(),
        };
        let read = sources
            .read()
            .map_err(|(field, why)| Failure::from(ParamError::new(field, why)))?;
        let count = |result| registry.counter(RELOADS.name, RELOADS.doc, &[("result", result)]);
        Ok(Self {
            current: RwLock::new(Arc::new(read.set(&Set::default()))),
            epoch: AtomicU64::new(0),
            state: Mutex::new(State {
                read,
                refusal: None,
            }),
            changed: count("changed"),
            refused: count("refused"),
            generation: generation(registry),
            sources,
        })
    }

    /// What is in force.
    pub(super) fn current(&self) -> Arc<Set> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    /// A number that changes with what is in force.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What is on disk and not in force, and why.
    pub(super) fn refusal(&self) -> Option<String> {
        self.lock().refusal.clone()
    }

    /// Reads the files again and puts them in force when all are right.
    pub(super) fn reload(&self) -> Result<(), String> {
        let mut state = self.lock();
        let read = match self.sources.read() {
            Ok(read) => read,
            Err((field, why)) => {
                let line = format!("--{} {why}", field.replace('_', "-"));
                if state.refusal.as_ref() != Some(&line) {
                    self.refused.inc();
                    tracing::warn!("refused, the former rules and lists stay in force: {line}");
                    state.refusal = Some(line.clone());
                }
                return Err(line);
            }
        };
        state.refusal = None;
        if state.read == read {
            return Ok(());
        }
        let next = Arc::new(read.set(&self.current()));
        tracing::info!(
            rules = next.rules.len(),
            "rules and lists changed: in force"
        );
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        self.epoch.fetch_add(1, Ordering::Release);
        self.changed.inc();
        self.generation.add(1);
        state.read = read;
        Ok(())
    }

    /// Reloads when the files change, for as long as the process lives.
    pub(super) async fn watch(&self) {
        let sources = &self.sources;
        let lists = sources.allow.iter().chain(&sources.deny);
        let files: Vec<PathBuf> = sources.rules.iter().chain(lists).cloned().collect();
        if !files.is_empty() {
            // What is wrong is said by reload itself.
            look_after(&files, || drop(self.reload())).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sources {
    /// Reads the files. The error is the parameter and what is wrong.
    fn read(&self) -> Result<Read, (&'static str, String)> {
        let mut rules = self.given.clone();
        if let Some(path) = &self.rules {
            let read = read_rules(path);
            let named = |why| format!("{} {why}", path.display());
            rules.extend(read.map_err(|why| ("rules_file", named(why)))?);
            check(&rules).map_err(|why| ("rules_file", named(why)))?;
        } else {
            check(&rules).map_err(|why| ("rule", why))?;
        }
        Ok(Read {
            rules,
            allow: read_lists("allow", &self.allow)?,
            deny: read_lists("deny", &self.deny)?,
        })
    }
}

impl Read {
    fn set(&self, former: &Set) -> Set {
        let counted = |rule: &Rule| {
            let same = |other: &&Counted| other.rule.name == rule.name;
            Counted::new(rule.clone(), former.rules.iter().find(same))
        };
        Set {
            rules: self.rules.iter().map(counted).collect(),
            allow: self.allow.clone(),
            deny: self.deny.clone(),
        }
    }
}

/// Rules that go together.
fn check(rules: &[Rule]) -> Result<(), String> {
    if rules.is_empty() {
        return Err(
            "names no rule; expected one such as \"name=api key=ip rate=100/s\"".to_owned(),
        );
    }
    if rules.len() > MAX_RULES {
        let count = rules.len();
        return Err(format!("{count} rules are given; at most {MAX_RULES} fit"));
    }
    for (at, Rule { name, .. }) in rules.iter().enumerate() {
        if rules[..at].iter().any(|other| other.name == *name) {
            return Err(format!(
                "two rules have the name \"{name}\"; each needs its own"
            ));
        }
    }
    Ok(())
}

fn read_rules(path: &Path) -> Result<Vec<Rule>, String> {
    let text = read_text(path, RULES_BYTES)?;
    let items = listed(&text, KEYS)?;
    items
        .iter()
        .map(|item| Rule::of(&item.as_pairs()).map_err(|why| format!("line {}: {why}", item.line)))
        .collect()
}

fn read_lists(field: &'static str, paths: &[PathBuf]) -> Result<CidrSet, (&'static str, String)> {
    let mut all = CidrSet::default();
    for path in paths {
        let list = read_text(path, LIST_BYTES).and_then(|text| CidrSet::parse(&text));
        all = all.with(list.map_err(|why| (field, format!("{} {why}", path.display())))?);
    }
    Ok(all)
}

fn read_text(path: &Path, most: u64) -> Result<String, String> {
    String::from_utf8(read_file(path, most)?).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        format!("line {line}: is not UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use podkit_foundation::params::{ParamSet as _, Values};

    use super::*;

    fn in_force(dir: &Path, rule: &str) -> Result<InForce, Failure> {
        let text = |name: &str| dir.join(name).display().to_string();
        let values = Values::gather(
            Params::PARAMS.iter(),
            &|param| match param.field {
                "rule" => vec![rule.to_owned()],
                "rules_file" => vec![text("rules")],
                "deny" => vec![text("deny"), text("deny2")],
                "upstream" => vec![":1".to_owned()],
                _ => Vec::new(),
            },
            &|_| None,
        );
        InForce::new(&Params::from_values(&values).unwrap(), &Registry::default())
    }

    #[test]
    fn a_bad_file_is_named_with_its_line_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let refused = |expected: &str| {
            let line = in_force(dir.path(), "name=a key=ip rate=1/s")
                .unwrap_err()
                .to_string();
            assert!(line.contains(expected), "{line}");
        };
        refused("rules does not exist");
        write("rules", "- name: a\n  key: ip\n  rate: 1/s\n");
        refused("two rules have the name \"a\"");
        write(
            "rules",
            "- {name: b, key: ip, rate: 1/s}\n- name: c\n  key: ipp\n  rate: 1/s\n",
        );
        refused("rules line 2: key=ipp is not ip");
        write("rules", "- {name: b, key: ip, rate: 1/s}\n");
        write("deny", "10.0.0.0/8\n");
        write("deny2", "# none\n192.0.2.300\n");
        refused("deny2 line 2: \"192.0.2.300\" is not an IP address");
        write("deny2", "192.0.2.0/24\n");
        let in_force = in_force(dir.path(), "name=a key=ip rate=1/s").unwrap();
        let names = || -> Vec<String> {
            let set = in_force.current();
            let names = set.rules.iter().map(|one| one.rule.name.clone());
            names.collect()
        };
        let denies = |ip: &str| in_force.current().deny.has(ip.parse().unwrap());
        assert_eq!(names(), ["a", "b"]);
        assert!(denies("10.1.1.1") && denies("192.0.2.9") && !denies("11.0.0.0"));
        in_force.current().rules[1].count(Settled::Limited);
        let (id, epoch) = (in_force.current().rules[1].rule.id, in_force.epoch());

        write(
            "rules",
            "- {name: b, key: ip, rate: 1/s}\n- {name: a, key: ip, rate: 2/s}\n",
        );
        assert!(in_force.reload().is_err());
        assert_eq!(
            (names(), in_force.epoch()),
            (vec!["a".into(), "b".into()], epoch)
        );
        assert!(in_force.refusal().unwrap().contains("two rules"));

        write(
            "rules",
            "- {name: c, key: ip, rate: 1/s}\n- {path: /x, name: b, key: ip, rate: 1/s}\n",
        );
        write("deny2", "");
        in_force.reload().unwrap();
        assert_eq!(names(), ["a", "c", "b"]);
        assert_eq!(in_force.refusal(), None);
        assert!(!denies("192.0.2.9"));
        let set = in_force.current();
        assert_eq!(
            (set.rules[2].rule.id, set.rules[2].counts()),
            (id, [0, 1, 0])
        );
        let epoch = in_force.epoch();
        in_force.reload().unwrap();
        assert_eq!(in_force.epoch(), epoch, "nothing changed");
    }
}
