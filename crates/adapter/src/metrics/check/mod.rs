//! `--check-dashboards`: which metrics of dashboards and rules would not be there.
//!
//! ```text
//!   dashboards, rules ──▶ files ──▶ promql ──▶ names ─╮
//!                                                     ├─▶ missing, and what is nearest
//!   sources ──▶ a scrape, and what their kinds can ───╯
//! ```
//!
//! What a scrape has is not all that a source can say: a primary has no link to a primary. So a name that its kind can say is there,
//! and a source that does not answer is judged by that alone; a database, whose names are those of its own variables, can't be.

mod files;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod promql;
mod service;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use podkit_foundation::telemetry::metrics::Format;
use podkit_foundation::yaml::{nearest, read};

use super::expose::{Style, served};
use super::own;
use super::scrape::{Member, ask_all, text};
use super::source::{knows_all, names};
use super::spec::{Spec, glob};
use files::Asked;
pub(crate) use service::Checking;

/// What Prometheus makes itself.
const PROMETHEUS: [&str; 8] = [
    "ALERTS",
    "ALERTS_FOR_STATE",
    "scrape_body_size_bytes",
    "scrape_duration_seconds",
    "scrape_samples_post_metric_relabeling",
    "scrape_samples_scraped",
    "scrape_series_added",
    "up",
];

/// What is to be checked, all of it read.
pub(crate) struct Check {
    files: Vec<(String, Asked)>,
    /// What is there whatever the sources say; `*` stands for any text.
    known: BTreeSet<String>,
    strict: bool,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// A line for each name that is missing.
    pub(crate) lines: String,
    /// How many names there are, and how many of them are missing.
    pub(crate) names: usize,
    pub(crate) missing: usize,
    /// Sources that did not answer, and of which nobody knows what they would have said.
    pub(crate) unknown: Vec<String>,
}

impl Check {
    /// Reads the files. An error says where and what is wrong.
    pub(crate) fn new(
        dashboards: &[PathBuf],
        lists: &[PathBuf],
        sources: &[Spec],
        strict: bool,
    ) -> Result<Self, String> {
        let mut check = Self {
            files: Vec::new(),
            known: PROMETHEUS.map(str::to_owned).into(),
            strict,
        };
        for path in dashboards {
            let asked = files::asked(path)?;
            check.known.extend(asked.recorded.iter().cloned());
            check.files.push((path.display().to_string(), asked));
        }
        for path in lists {
            check.known.extend(list(path)?);
        }
        for spec in sources {
            check.known.extend(own::names().map(str::to_owned));
            for (name, kind) in names(spec.scheme.kind) {
                match name.contains('*') {
                    true => check.known.extend([name]),
                    false => check.known.extend(served(&name, kind, strict)),
                }
            }
        }
        Ok(check)
    }

    /// Asks the sources, and looks each name up.
    pub(crate) async fn run(mut self, members: &[Member], until: tokio::time::Instant) -> Checked {
        ask_all(members, until).await;
        let mut unknown = Vec::new();
        for member in members {
            let went = member.keeper.seen().went;
            let why = match &went {
                None => Some("gave no answer in time"),
                Some(went) => went.why.as_deref(),
            };
            if why.is_some() && member.part.is_none() && !knows_all(member.kind) {
                unknown.push(format!("{}: {}", member.shown, why.unwrap_or_default()));
            } else if let Some(why) = why {
                tracing::warn!(
                    source = member.shown,
                    why,
                    "judged by what its kind can say"
                );
            }
        }
        let style = Style {
            format: Format::Prometheus,
            strict: self.strict,
        };
        let scrape = text(members, style, std::time::Duration::MAX);
        self.known.extend(named(&scrape).map(str::to_owned));
        let mut checked = self.look();
        checked.unknown = unknown;
        checked
    }

    fn look(&self) -> Checked {
        let mut lines = String::new();
        let (mut all, mut missing) = (BTreeSet::new(), BTreeSet::new());
        let patterns: Vec<&String> = self
            .known
            .iter()
            .filter(|name| name.contains('*'))
            .collect();
        for (file, asked) in &self.files {
            let mut told = BTreeSet::new();
            for (place, name) in asked
                .uses
                .iter()
                .flat_map(|one| one.names.iter().map(move |name| (&one.place, name)))
            {
                all.insert(name);
                let there = match name.contains('*') {
                    true => self.known.iter().any(|known| glob(name, known)),
                    false => {
                        self.known.contains(name)
                            || patterns.iter().any(|pattern| glob(pattern, name))
                    }
                };
                if there || !told.insert((place, name)) {
                    continue;
                }
                missing.insert(name);
                let near = nearest(
                    name,
                    self.known
                        .iter()
                        .map(String::as_str)
                        .filter(|known| !known.contains('*')),
                );
                let near = near
                    .map(|near| format!("; nearest is {near}"))
                    .unwrap_or_default();
                writeln!(lines, "{file}: {place}: {name} is missing{near}")
                    .expect("writing to a String can't fail");
            }
        }
        Checked {
            lines,
            names: all.len(),
            missing: missing.len(),
            unknown: Vec::new(),
        }
    }
}

/// The names of a list, or of what something else serves.
fn list(path: &Path) -> Result<Vec<String>, String> {
    let shown = path.display();
    let bytes = read::file(path).map_err(|why| format!("{shown}: {why}"))?;
    let text = read::text(&bytes)
        .map_err(|(line, column, why)| format!("{shown}:{line}:{column}: {why}"))?;
    Ok(named(text).map(str::to_owned).collect())
}

/// The names of samples.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let samples = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    samples.map(|line| line.split(['{', ' ', '\t']).next().unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use podkit_foundation::params::ParamType as _;

    use super::*;

    fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn what_is_missing_is_told_with_its_place_and_what_is_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let rules = file(
            &dir,
            "r.yaml",
            "groups:\n- rules:\n  - {record: a:b, expr: redis_memory_usd_bytes}\n  - {alert: B, expr: 'a:b + up + redis_${x}_slave_lag_seconds + own_total + h_count'}\n  \
             - {alert: C, expr: 'redis_cluster_state + redis_master_link_up + \"http_$x\" + http_$x + mysql_up'}\n",
        );
        let names = file(
            &dir,
            "names",
            "# HELP own_total x\nown_total{a=\"b\"} 1\nh_bucket 1\nh_count 2\n",
        );
        let sources = [Spec::parse("redis://h").unwrap()];
        let check = Check::new(&[rules], &[names], &sources, false).unwrap();
        let checked = check.look();
        let lines = checked
            .lines
            .replace(&format!("{}/", dir.path().display()), "");
        assert_eq!(
            lines,
            "r.yaml: record a:b: redis_memory_usd_bytes is missing; nearest is redis_memory_used_bytes\n\
             r.yaml: alert C: http_* is missing\n\
             r.yaml: alert C: mysql_up is missing\n"
        );
        assert_eq!((checked.names, checked.missing), (10, 3));
    }

    #[test]
    fn a_databases_names_are_those_of_its_collectors() {
        let dir = tempfile::tempdir().unwrap();
        // As the dashboards of the exporters' mixins ask.
        let good = [
            "mysql_slave_status_seconds_behind_master > 0",
            "sum by (command) (rate(mysql_info_schema_processlist_seconds[5m]))",
            "rate(mysql_perf_schema_events_statements_total[5m])",
            "sum(rate(pg_stat_database_xact_commit{datname=~\"$db\"}[5m]))",
            "pg_stat_activity_count + pg_locks_count + pg_database_size_bytes",
            "rate(pg_stat_bgwriter_buffers_alloc_total[5m])",
        ];
        let wrong = [
            "pg_stat_database_xact_comit",
            "pg_stat_activity_cuont",
            "mysql_info_schema_inodb_cmp_compress_ops_total",
            "mysql_perf_schema_events_statement_total",
        ];
        let rule = |(at, expr): (usize, &&str)| format!("  - {{alert: A{at}, expr: '{expr}'}}\n");
        let rules: String = good.iter().chain(&wrong).enumerate().map(rule).collect();
        let rules = file(&dir, "r.yaml", &format!("groups:\n- rules:\n{rules}"));
        let sources = ["mysql://h", "postgres://h"].map(|text| Spec::parse(text).unwrap());
        let check = Check::new(&[rules], &[], &sources, false).unwrap();
        let checked = check.look();
        assert_eq!(checked.missing, wrong.len(), "{}", checked.lines);
        assert!(
            checked
                .lines
                .contains("nearest is pg_stat_database_xact_commit")
        );
    }

    #[test]
    fn strict_names_are_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let rules = file(
            &dir,
            "r.yaml",
            "groups:\n- rules:\n  - {alert: A, expr: nginx_connections_accepted}\n  - {alert: B, expr: nginx_connections_accepted_total}\n",
        );
        let sources = [Spec::parse("nginx+http://h").unwrap()];
        for (strict, missing) in [(false, "alert B"), (true, "alert A")] {
            let check = Check::new(std::slice::from_ref(&rules), &[], &sources, strict).unwrap();
            let checked = check.look();
            assert_eq!(checked.missing, 1);
            assert!(checked.lines.contains(missing), "{}", checked.lines);
        }
    }
}
