//! Files of a pod: `text+file:/PATH`, read anew at each scrape. With rules they are lines of any kind, without them pages in the text
//! format of Prometheus, as node_exporter's textfile collector reads them.
//!
//! A file is read on a thread of the runtime's own for what blocks: a mount that hangs holds up nothing but its source.

mod rules;

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::prometheus::relabel::Rule as Relabel;
use super::prometheus::text::Dialect;
use super::{Ground, Planned, Spec, glob, prometheus, words};
use crate::metrics::batch::{Batch, Kind};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};
use rules::{Rule, Sums};
use tokio::task::JoinHandle;

pub(crate) const KEYS: &[&str] = &["rules", "relabel"];

/// Bytes of a file at most: what is beyond is an error.
const MOST_BYTES: u64 = 32 << 20;

/// Files that a pattern stands for, at most.
const MOST_FILES: usize = 1000;

pub(super) fn plan(spec: &Spec, _: &Ground) -> Result<Vec<Planned>, String> {
    if !spec.path.starts_with('/') {
        return Err("a file has a whole path: text+file:/var/lib/app/stats".to_owned());
    }
    let is_named = spec.name.is_some();
    let meaning = match (spec.file("rules"), spec.option("relabel")) {
        (Some(_), Some(_)) => return Err("rules and relabel are not for one file".to_owned()),
        (Some(path), None) => Meaning::Lines(words::file("rules", &path, |words| {
            rules::read(words, is_named)
        })?),
        (None, _) => Meaning::Page(prometheus::rules(spec)?),
    };
    Ok(vec![Planned::always(Files {
        plan: Arc::new(Plan {
            pattern: spec.path.clone(),
            meaning,
            is_named,
        }),
        reading: None,
    })])
}

/// What is in the files.
#[derive(Debug)]
enum Meaning {
    Lines(Vec<Rule>),
    Page(Vec<Relabel>),
}

#[derive(Debug)]
struct Plan {
    pattern: String,
    meaning: Meaning,
    is_named: bool,
}

struct Files {
    plan: Arc<Plan>,
    /// One that was not waited for to the end: there is never a second one beside it.
    reading: Option<JoinHandle<Result<Batch, String>>>,
}

impl Collector for Files {
    fn collect<'a>(&'a mut self, _: &'a Answered) -> Collected<'a> {
        Box::pin(async {
            let plan = &self.plan;
            let reading = self.reading.get_or_insert_with(|| {
                let plan = Arc::clone(plan);
                tokio::task::spawn_blocking(move || plan.read())
            });
            let done = reading.await;
            self.reading = None;
            done.map_err(|_| "could not be read: podkit is ending".to_owned())?
        })
    }

    fn status(&self, _: &Went) -> Batch {
        Batch::default()
    }
}

impl Plan {
    fn read(&self) -> Result<Batch, String> {
        let paths = match glob::is_pattern(&self.pattern) {
            true => glob::find(&self.pattern, MOST_FILES)?,
            false => vec![PathBuf::from(&self.pattern)],
        };
        let is_one = paths.len() == 1 && !glob::is_pattern(&self.pattern);
        let mut batch = Batch::default();
        let mut files = Vec::new();
        let mut sums = Sums::default();
        for path in paths {
            let shown = path.display().to_string();
            let done = open(&path).and_then(|(text, changed)| {
                match &self.meaning {
                    Meaning::Lines(rules) => sums.add(&text, rules)?,
                    Meaning::Page(rules) => {
                        let text = String::from_utf8(text).map_err(|_| "is not UTF-8")?;
                        // Nothing of a page that is not right is taken.
                        let mut page = Batch::default();
                        prometheus::add(&text, Dialect::Plain, rules, self.is_named, &mut page)?;
                        merge(&mut batch, &page);
                    }
                }
                Ok(changed)
            });
            match done {
                Err(why) if is_one => return Err(format!("{shown}: {why}")),
                done => files.push((shown, done)),
            }
        }
        if let Meaning::Lines(rules) = &self.meaning {
            sums.put(rules, &mut batch);
        }
        for (shown, done) in &files {
            let labels = [("file", shown.as_str())];
            let error = if done.is_ok() { 0.0 } else { 1.0 };
            let help = "1 if there was an error opening or reading a file, 0 otherwise";
            batch
                .family("podkit_metrics_file_error", Kind::Gauge, help)
                .put(&labels, error);
            match done {
                Ok(changed) => {
                    let help = "When the file was changed";
                    batch
                        .family("podkit_metrics_file_mtime_seconds", Kind::Gauge, help)
                        .put(&labels, *changed);
                }
                Err(why) => tracing::warn!(file = shown, why, "a file of metrics is left out"),
            }
        }
        Ok(batch)
    }
}

/// What it holds, and when it was changed.
fn open(path: &std::path::Path) -> Result<(Vec<u8>, f64), String> {
    let wrong = |error: std::io::Error| format!("can't be read: {error}");
    // A FIFO would be waited for.
    let told = std::fs::metadata(path).map_err(wrong)?;
    if !told.is_file() {
        return Err("is no file".to_owned());
    }
    let changed = told.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut text = Vec::new();
    let file = File::open(path).map_err(wrong)?;
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(wrong)?;
    match text.len() as u64 > MOST_BYTES {
        true => Err(format!("has more than {} MiB", MOST_BYTES >> 20)),
        false => Ok((text, changed.as_secs_f64())),
    }
}

fn merge(into: &mut Batch, page: &Batch) {
    for family in page.families() {
        let mine = into.family(&family.name, family.kind, family.help.clone());
        mine.samples.extend(family.samples.iter().cloned());
    }
}

/// No bytes upset it.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz {
    use podkit_foundation::fuzz::Target;

    use super::rules::{self, Sums};
    use crate::metrics::batch::Batch;
    use crate::metrics::source::words;

    const RULES: &str = "- {name: a, regex: '(?P<l>\\w+)=(?P<value>\\S+)', aggregate: sum}\n- {name: b, regex: x, aggregate: count}\n";

    pub(crate) const TARGET: Target = Target {
        name: "metrics-lines",
        seeds: &[b"a=1\nb=2.5 x\na=x\n\xff=1\n"],
        run: |bytes| {
            let rules = words::parse("rules", "f", RULES, |words| rules::read(words, false));
            let rules = rules.expect("they are right");
            let mut sums = Sums::default();
            sums.add(bytes, &rules).ok();
            sums.put(&rules, &mut Batch::default());
        },
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::source::shown;

    fn plan(pattern: &str) -> Plan {
        Plan {
            pattern: pattern.to_owned(),
            meaning: Meaning::Page(Vec::new()),
            is_named: false,
        }
    }

    #[test]
    fn pages_of_many_files_are_one_and_a_wrong_one_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("a.prom"), "# TYPE a counter\na{x=\"1\"} 1\n").unwrap();
        std::fs::write(path("b.prom"), "# TYPE a counter\na{x=\"2\"} 2\n").unwrap();
        std::fs::write(path("c.prom"), "c 1\n<>\n").unwrap();
        std::fs::write(path("d.txt"), "d 1\n").unwrap();
        let batch = plan(&path("*.prom")).read().unwrap();
        let text = shown(&batch);
        assert!(
            text.starts_with("a{x=\"1\"} counter 1\na{x=\"2\"} counter 2\n"),
            "{text}"
        );
        for (name, error) in [("a", 0), ("b", 0), ("c", 1)] {
            let line = format!(
                "podkit_metrics_file_error{{file=\"{}\"}} gauge {error}\n",
                path(&format!("{name}.prom"))
            );
            assert!(text.contains(&line), "{text}");
        }
        assert_eq!(text.matches("mtime").count(), 2, "{text}");
        assert!(
            !text.contains("c untyped") && !text.contains("d.txt"),
            "{text}"
        );
        let why = plan(&path("c.prom")).read().unwrap_err();
        assert!(why.ends_with("/c.prom: line 2: no name at \"<>\""), "{why}");
        let why = plan(&path("e.prom")).read().unwrap_err();
        assert!(
            why.contains("/e.prom: can't be read: No such file"),
            "{why}"
        );
        assert_eq!(shown(&plan(&path("*.none")).read().unwrap()), "");
        assert!(
            plan(dir.path().to_str().unwrap())
                .read()
                .unwrap_err()
                .ends_with("is no file")
        );
    }
}
