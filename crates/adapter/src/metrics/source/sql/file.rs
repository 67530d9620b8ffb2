//! Queries from a YAML file, in the form of postgres_exporter's queries.yaml. What is not known in it is an error, with its line.
//!
//! ```yaml
//! pg_shop:                          # what the metrics' names begin with, unless name: says otherwise
//!   query: "SELECT state, count(*) AS orders FROM orders GROUP BY state"
//!   interval: 30s                   # (or cache_seconds: 30) without it: at each scrape
//!   timeout: 2s                     # the server gives up then; 5s unless given
//!   runonserver: ">=14.0.0"
//!   metrics:
//!     - state: {usage: LABEL, description: "State of the orders"}
//!     - orders: {usage: GAUGE, description: "Orders in that state"}
//! ```

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use podkit_foundation::params::ParamType;
use podkit_foundation::yaml::{
    Entry, Findings, Mark, Node, Schema, Value, documents_in, nearest, read,
};

use crate::metrics::batch::{Kind, metric_name};

use super::mapped::{Known, Mapped, Usage};
use super::range::Range;
use super::session::{Read, Unit};

/// Queries of a file at most.
const MOST: usize = 200;
/// How long one may take, unless it says.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One query of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    /// Its key.
    pub(super) key: String,
    pub(super) sql: String,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Duration,
    pub(super) runs_on: Option<Range>,
    pub(super) mapped: Mapped,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct File {
    pub(super) queries: Vec<Query>,
    pub(super) bytes: Vec<u8>,
}

/// Reads one. The error is one line with the file and the line.
pub(super) fn load(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let bytes = read::file(path).map_err(|why| format!("queries={shown}: {why}"))?;
    let text = read::text(&bytes)
        .map_err(|(line, column, why)| format!("queries={shown}:{line}:{column}: {why}"))?;
    let queries = parse(text, &shown.to_string()).map_err(|why| format!("queries={why}"))?;
    Ok(File { queries, bytes })
}

/// The queries of a text. Errors begin with `FILE:LINE:COLUMN`.
pub(super) fn parse(text: &str, file: &str) -> Result<Vec<Query>, String> {
    let mut findings = Findings::new();
    let documents = documents_in(Schema::Core, text, &Arc::from(file), &mut findings);
    if let Some(found) = findings.iter().next() {
        return Err(found.to_string());
    }
    let reader = Reader { file };
    let [document] = &documents[..] else {
        return Err(format!("{file}: expected one document with queries"));
    };
    let entries = reader.map(document, "queries by name")?;
    if entries.is_empty() || entries.len() > MOST {
        return Err(format!(
            "{file}: expected 1 to {MOST} queries, found {}",
            entries.len()
        ));
    }
    entries.iter().map(|entry| reader.query(entry)).collect()
}

struct Reader<'a> {
    file: &'a str,
}

impl Reader<'_> {
    fn wrong(&self, mark: Mark, why: impl std::fmt::Display) -> String {
        format!("{}:{}:{}: {why}", self.file, mark.line, mark.column)
    }

    fn expected<T>(&self, node: &Node, what: &str) -> Result<T, String> {
        Err(self.wrong(
            node.mark,
            format!("expected {what}, found {}", node.describe()),
        ))
    }

    fn map<'a>(&self, node: &'a Node, what: &str) -> Result<&'a [Entry], String> {
        match &node.value {
            Value::Map(entries) => Ok(entries),
            _ => self.expected(node, what),
        }
    }

    fn text<'a>(&self, node: &'a Node, what: &str) -> Result<&'a str, String> {
        match node.as_str().filter(|text| !text.is_empty()) {
            Some(text) => Ok(text),
            None => self.expected(node, what),
        }
    }

    fn known(&self, entries: &[Entry], keys: &[&str]) -> Result<(), String> {
        let Some(entry) = entries
            .iter()
            .find(|entry| !keys.contains(&entry.key.as_str()))
        else {
            return Ok(());
        };
        let hint = match nearest(&entry.key, keys.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("expected {}", keys.join(", ")),
        };
        Err(self.wrong(entry.mark, format!("unknown key {}; {hint}", entry.key)))
    }

    fn name(&self, mark: Mark, name: &str) -> Result<(), String> {
        let is_one = metric_name(name) == name && !name.is_empty() && !name.contains(':');
        match is_one {
            true => Ok(()),
            false => Err(self.wrong(
                mark,
                format!("\"{name}\" is no name of a metric: letters, digits and _"),
            )),
        }
    }

    fn query(&self, entry: &Entry) -> Result<Query, String> {
        const KEYS: [&str; 8] = [
            "query",
            "name",
            "metrics",
            "interval",
            "cache_seconds",
            "timeout",
            "runonserver",
            "master",
        ];
        let entries = self.map(&entry.node, "query: and metrics:")?;
        self.known(entries, &KEYS)?;
        let node = &entry.node;
        let needed = |key: &str| {
            node.get(key)
                .ok_or_else(|| self.wrong(entry.mark, format!("{} has no {key}:", entry.key)))
        };
        let sql = self.text(needed("query")?, "the text of a query")?;
        let sql = sql.trim().trim_end_matches(';').to_owned();
        let namespace = match node.entry("name") {
            Some(name) => self.text(&name.node, "what the metrics' names begin with")?,
            None => &entry.key,
        };
        self.name(
            node.entry("name").map_or(entry.mark, |name| name.mark),
            namespace,
        )?;
        let time = |key: &str| {
            let time = node.get(key).map(|node| {
                let text = self.text(node, "a time such as 30s")?;
                let time = Duration::parse(text)
                    .ok()
                    .filter(|time| *time >= Duration::from_millis(100));
                time.ok_or_else(|| {
                    self.wrong(node.mark, format!("{text} is not a time such as 30s"))
                })
            });
            time.transpose()
        };
        let mut interval = time("interval")?;
        if let Some(node) = node.get("cache_seconds") {
            interval = match node.value {
                Value::Int(0, _) => interval,
                Value::Int(seconds @ 1..=86_400, _) => {
                    Some(Duration::from_secs(seconds.try_into().unwrap_or(1)))
                }
                _ => return self.expected(node, "0 to 86400 seconds"),
            };
        }
        // Of several servers the one that counts: there is only one here.
        if let Some(node) = node.get("master")
            && !matches!(node.value, Value::Bool(..))
        {
            return self.expected(node, "true or false");
        }
        let runs_on = node.get("runonserver").map(|node| {
            let text = self.text(node, "versions such as \">=14.0.0\"")?;
            Range::parse(text).map_err(|why| self.wrong(node.mark, why))
        });
        let metrics = needed("metrics")?;
        let Value::Seq(items) = &metrics.value else {
            return self.expected(metrics, "a list of columns");
        };
        let mut columns: Vec<Known> = Vec::new();
        for item in items {
            for column in self.map(item, "a column with its usage")? {
                if columns.iter().any(|known| known.name == column.key) {
                    return Err(self.wrong(column.mark, format!("{} is there twice", column.key)));
                }
                columns.push(self.column(column)?);
            }
        }
        Ok(Query {
            key: entry.key.clone(),
            sql,
            interval,
            timeout: time("timeout")?.unwrap_or(TIMEOUT),
            runs_on: runs_on.transpose()?,
            mapped: Mapped {
                namespace: namespace.to_owned(),
                columns,
                fixed: Rc::new([]),
            },
        })
    }

    fn column(&self, entry: &Entry) -> Result<Known, String> {
        const USAGES: &str = "DISCARD, LABEL, COUNTER, GAUGE, MAPPEDMETRIC, DURATION or HISTOGRAM";
        self.name(entry.mark, &entry.key)?;
        let entries = self.map(&entry.node, "usage: and description:")?;
        self.known(entries, &["usage", "description", "metric_mapping"])?;
        let usage = entry.node.get("usage").ok_or_else(|| {
            self.wrong(
                entry.mark,
                format!("{} has no usage:; expected {USAGES}", entry.key),
            )
        })?;
        let mapping = entry.node.get("metric_mapping");
        let found = match (self.text(usage, USAGES)?, mapping) {
            ("MAPPEDMETRIC", Some(mapping)) => Usage::Words(self.words(mapping)?),
            ("MAPPEDMETRIC", None) => {
                return Err(self.wrong(
                    usage.mark,
                    "MAPPEDMETRIC needs metric_mapping: with words and numbers",
                ));
            }
            (_, Some(mapping)) => {
                return Err(self.wrong(mapping.mark, "metric_mapping: is for MAPPEDMETRIC"));
            }
            ("DISCARD", _) => Usage::Discard,
            ("LABEL", _) => Usage::Label,
            ("COUNTER", _) => Usage::Counter,
            ("GAUGE", _) => Usage::Gauge,
            ("DURATION", _) => Usage::Duration,
            ("HISTOGRAM", _) => Usage::Histogram,
            (other, _) => return Err(self.wrong(usage.mark, format!("{other} is not {USAGES}"))),
        };
        let help = match entry.node.get("description") {
            Some(node) if node.is_unset() => String::new(),
            Some(node) => self.text(node, "a text").map(str::to_owned)?,
            None => String::new(),
        };
        Ok(Known {
            name: entry.key.clone(),
            usage: found,
            help,
        })
    }

    fn words(&self, node: &Node) -> Result<Vec<(String, f64)>, String> {
        let words = self.map(node, "words and numbers")?.iter().map(|entry| {
            #[expect(clippy::cast_precision_loss, reason = "a metric is one")]
            let number = match &entry.node.value {
                Value::Int(number, _) => *number as f64,
                Value::Float(number, _) => *number,
                _ => return self.expected(&entry.node, "a number"),
            };
            Ok((entry.key.clone(), number))
        });
        words.collect()
    }
}

/// The queries that podkit comes with, as units. What follows `@` in a key only tells versions apart.
pub(super) fn built_in(text: &str, file: &str, fixed: &[(String, String)]) -> Vec<Unit> {
    let queries = parse(text, file).expect("it comes with podkit, and a test reads it");
    let fixed: Rc<[(String, String)]> = fixed.into();
    let unit = |query: Query| {
        let mut mapped = query.mapped;
        mapped.fixed = Rc::clone(&fixed);
        let name = query.key.split('@').next().unwrap_or_default().to_owned();
        let mut unit = Unit::new(name, query.sql, Read::Mapped(mapped));
        unit.runs_on = query.runs_on;
        unit
    };
    queries.into_iter().map(unit).collect()
}

/// The names and kinds of what their columns become.
pub(super) fn names(text: &str, file: &str) -> Vec<(String, Kind)> {
    let queries = parse(text, file).expect("it comes with podkit, and a test reads it");
    let mut names = Vec::new();
    for Mapped {
        namespace, columns, ..
    } in queries.into_iter().map(|query| query.mapped)
    {
        let kinds = columns.into_iter().filter_map(|column| {
            let kind = match column.usage {
                Usage::Discard | Usage::Label => return None,
                Usage::Counter => Kind::Counter,
                Usage::Histogram => Kind::Histogram,
                Usage::Gauge | Usage::Words(_) | Usage::Duration => Kind::Gauge,
            };
            let end = if column.usage == Usage::Duration {
                "_milliseconds"
            } else {
                ""
            };
            Some((format!("{namespace}_{}{end}", column.name), kind))
        });
        names.extend(kinds);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_come_with_podkit_are_read() {
        for (text, file, usual, more) in [
            (
                include_str!("mysql.yaml"),
                "mysql.yaml",
                super::super::mysql::USUAL,
                super::super::mysql::MORE,
            ),
            (
                include_str!("postgres.yaml"),
                "postgres.yaml",
                super::super::postgres::USUAL,
                super::super::postgres::MORE,
            ),
        ] {
            for unit in built_in(text, file, &[]) {
                assert!(
                    usual.contains(&&*unit.name) || more.contains(&&*unit.name),
                    "{}",
                    unit.name
                );
            }
        }
    }

    #[test]
    fn a_query_has_its_settings() {
        let text = "a_b:\n  query: SELECT 1;\n  cache_seconds: 30\n  timeout: 250ms\n  master: true\n  runonserver: '>=10'\n  \
                    metrics:\n    - x: {usage: GAUGE}\n";
        let query = parse(text, "q").unwrap().remove(0);
        assert_eq!((&*query.sql, &*query.mapped.namespace), ("SELECT 1", "a_b"));
        assert_eq!(query.interval, Some(Duration::from_secs(30)));
        assert_eq!(query.timeout, Duration::from_millis(250));
        assert!(query.runs_on.unwrap().has((10, 0, 0)));
    }

    #[test]
    fn columns_may_be_called_by_words_of_yaml_1_1() {
        let text =
            "a:\n  query: SELECT 1\n  metrics: [{y: {usage: GAUGE}}, {on: {usage: LABEL}}]\n";
        let names: Vec<String> = parse(text, "q")
            .unwrap()
            .remove(0)
            .mapped
            .columns
            .into_iter()
            .map(|one| one.name)
            .collect();
        assert_eq!(names, ["y", "on"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let check = |text: &str, why: &str| {
            let error = parse(text, "q.yaml").unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        };
        check("a: [", "q.yaml:");
        check("", "expected one document");
        check("[]", "q.yaml:1:1: expected queries by name");
        check("a:\n  metrics: []", "q.yaml:1:1: a has no query:");
        check("a:\n  query: SELECT 1\n", "q.yaml:1:1: a has no metrics:");
        check(
            "a:\n  query: SELECT 1\n  metric: []\n",
            "q.yaml:3:3: unknown key metric; did you mean metrics?",
        );
        check(
            "a b:\n  query: SELECT 1\n  metrics: []\n",
            "\"a b\" is no name of a metric",
        );
        let column = |text: &str| format!("a:\n  query: SELECT 1\n  metrics:\n    - x: {text}\n");
        check(
            &column("{usage: GAGUE}"),
            "q.yaml:4:18: GAGUE is not DISCARD, LABEL",
        );
        check(&column("{}"), "x has no usage:");
        check(&column("{usage: MAPPEDMETRIC}"), "needs metric_mapping:");
        check(
            &column("{usage: GAUGE, metric_mapping: {a: 1}}"),
            "is for MAPPEDMETRIC",
        );
        check(
            &column("{usage: GAUGE}\n    - x: {usage: GAUGE}"),
            "q.yaml:5:7: x is there twice",
        );
        check(
            "a:\n  query: SELECT 1\n  interval: 3\n  metrics: []\n",
            "q.yaml:3:13: expected a time",
        );
        check(
            "a:\n  query: SELECT 1\n  runonserver: v1\n  metrics: []\n",
            "\"v1\" is no version",
        );
    }
}
