//! The sources that were given, and what is asked of each: as its files say, and anew when they say something else.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::time::Duration;

use podkit_foundation::telemetry::metrics::Registry;
use podkit_foundation::yaml::read;
use tokio::task::AbortHandle;

use super::keeper::{Keeper, Patience};
use super::own::Board;
use super::scrape::Member;
use super::source::{Ground, Reload, plan};
use super::spec::Spec;

/// Keys whose files say what is asked, or what becomes of the answers.
const FILES: [&str; 3] = ["queries", "relabel", "rules"];

/// What is asked of a source.
pub(crate) struct Asked {
    pub(crate) members: Rc<[Member]>,
    /// Beside scrapes, and how long after the last time.
    beside: Vec<(Rc<Keeper>, Duration)>,
    tasks: RefCell<Vec<AbortHandle>>,
}

impl Asked {
    /// Opens nothing, and asks nobody yet. `labels`: rendered, for all samples.
    pub(crate) fn plan(
        spec: &Spec,
        labels: &str,
        patience: Patience,
        ground: &Ground,
    ) -> Result<Self, String> {
        let mut beside = Vec::new();
        let member = |planned: super::source::Planned| {
            let keeper = Keeper::new(planned.collector, patience);
            let part = planned.part.map(|(part, interval)| {
                beside.push((Rc::clone(&keeper), interval));
                part
            });
            Member::new(spec, part, labels.to_owned(), keeper)
        };
        let members = plan(spec, ground)?.into_iter().map(member).collect();
        Ok(Self {
            members,
            beside,
            tasks: RefCell::default(),
        })
    }

    /// From now on what has an interval is asked, until this is dropped.
    pub(crate) fn start(&self) {
        let every = |(keeper, interval): &(Rc<Keeper>, Duration)| {
            let task = tokio::task::spawn_local(Rc::clone(keeper).every(*interval));
            task.abort_handle()
        };
        self.tasks
            .borrow_mut()
            .extend(self.beside.iter().map(every));
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

/// One that was given.
struct Source {
    spec: Spec,
    labels: String,
    patience: Patience,
    asked: RefCell<Asked>,
    /// Of what its files said.
    hash: Cell<u64>,
}

/// All of them.
pub(crate) struct Sources {
    ground: Rc<Ground>,
    all: Vec<Source>,
    members: RefCell<Rc<[Member]>>,
    board: Board,
    hasher: RandomState,
    /// Of those that follow their files by themselves.
    reloads: Vec<Reload>,
}

impl Sources {
    /// `patience` of each.
    pub(crate) fn new(
        specs: &[Spec],
        ground: Rc<Ground>,
        patience: impl Fn(&Spec) -> Patience,
    ) -> Result<Self, String> {
        let hasher = RandomState::new();
        let source = |spec: &Spec| {
            let name = spec.name.as_deref();
            let labels = name.map(|name| super::batch::render(&[("source", name)]));
            let (labels, patience) = (labels.unwrap_or_default(), patience(spec));
            let hash = files(spec, &hasher);
            let asked = Asked::plan(spec, &labels, patience, &ground)
                .map_err(|why| format!("\"{spec}\": {why}"))?;
            Ok(Source {
                spec: spec.clone(),
                labels,
                patience,
                asked: RefCell::new(asked),
                hash: Cell::new(hash),
            })
        };
        let all = specs
            .iter()
            .map(source)
            .collect::<Result<Vec<_>, String>>()?;
        let reloads = ground.reloads.take();
        let sources = Self {
            ground,
            all,
            members: RefCell::new(Rc::new([])),
            board: Board::default(),
            hasher,
            reloads,
        };
        sources.show();
        Ok(sources)
    }

    /// What is asked now.
    pub(crate) fn members(&self) -> Rc<[Member]> {
        Rc::clone(&self.members.borrow())
    }

    /// How they are goes to the admin server's `/metrics`.
    pub(crate) fn register(&self, registry: &Registry) {
        self.board.register(registry);
    }

    pub(crate) fn start(&self) {
        for source in &self.all {
            source.asked.borrow().start();
        }
    }

    /// Reads their files again. Each that is wrong leaves its source as it was.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let mut wrong: Vec<String> = self
            .reloads
            .iter()
            .filter_map(|reload| reload().err())
            .collect();
        for source in &self.all {
            let hash = files(&source.spec, &self.hasher);
            if hash == source.hash.get() {
                continue;
            }
            match Asked::plan(&source.spec, &source.labels, source.patience, &self.ground) {
                Ok(asked) => {
                    asked.start();
                    source.asked.replace(asked);
                    source.hash.set(hash);
                }
                Err(why) => wrong.push(why),
            }
        }
        self.show();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.join("; ")),
        }
    }

    fn show(&self) {
        let asked = self.all.iter().map(|source| source.asked.borrow());
        let members: Rc<[Member]> = asked.flat_map(|asked| asked.members.to_vec()).collect();
        self.board.show(&members);
        self.members.replace(members);
    }
}

/// Of what they say; what can't be read says nothing.
fn files(spec: &Spec, hasher: &RandomState) -> u64 {
    let paths = FILES.iter().map(|key| spec.file(key));
    let texts: Vec<Option<Vec<u8>>> = paths.map(|path| read::file(&path?).ok()).collect();
    hasher.hash_one(texts)
}

#[cfg(test)]
mod tests {
    use podkit_dataplane::upstream::UpstreamMetrics;
    use podkit_foundation::params::ParamType as _;

    use super::*;

    #[tokio::test]
    async fn files_are_followed_and_a_wrong_one_changes_nothing() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let dir = tempfile::tempdir().unwrap();
                let (queries, rules) = (dir.path().join("q"), dir.path().join("r"));
                let one = "- {name: a, command: [DBSIZE]}\n";
                let two = "- {name: a, command: [DBSIZE]}\n- {name: b, command: [LASTSAVE], interval: 1h}\n";
                std::fs::write(&queries, one).unwrap();
                std::fs::write(&rules, "- {action: drop, source_labels: [a], regex: b}\n").unwrap();
                let specs = [
                    format!("redis://127.0.0.1:1;queries={}", queries.display()),
                    format!("text+file:/none;relabel={}", rules.display()),
                ];
                let specs = specs.map(|text| Spec::parse(&text).unwrap());
                let ground = Rc::new(Ground {
                    tls: None,
                    metrics: UpstreamMetrics::new(&Registry::default()),
                    starts: RefCell::default(),
                    reloads: RefCell::default(),
                });
                let patience = Patience {
                    answer: Duration::from_secs(1),
                    whole: Duration::from_secs(1),
                };
                let sources = Sources::new(&specs, ground, |_| patience).unwrap();
                sources.start();
                let same = |before: &Rc<[Member]>, at: usize| {
                    Rc::ptr_eq(&before[at].keeper, &sources.members()[at].keeper)
                };
                let before = sources.members();
                assert_eq!(before.len(), 2);
                sources.reload().unwrap();
                assert!(same(&before, 0) && same(&before, 1), "nothing has changed");

                std::fs::write(&queries, "- {nam: a}\n").unwrap();
                std::fs::write(&rules, "- {action: keep, source_labels: [a], regex: b}\n").unwrap();
                let why = sources.reload().unwrap_err();
                assert!(why.contains("queries="), "{why}");
                assert!(same(&before, 0) && !same(&before, 1));

                std::fs::write(&queries, two).unwrap();
                sources.reload().unwrap();
                let parts: Vec<Option<String>> = sources
                    .members()
                    .iter()
                    .map(|member| member.part.clone())
                    .collect();
                assert_eq!(parts.len(), 3);
                assert!(parts[1].as_ref().is_some_and(|part| part.contains('b')));
            })
            .await;
    }
}
