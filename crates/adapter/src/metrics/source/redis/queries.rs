//! Metrics of one's own: what `;queries=FILE` asks.
//!
//! ```yaml
//! - name: jobs_waiting                 # the metric's name
//!   help: Jobs that nobody has taken
//!   command: [LLEN, jobs]              # reads only
//!   labels: {queue: mail}
//! - name: stock
//!   type: counter                      # gauge unless said
//!   script: return redis.call('HGETALL', KEYS[1])
//!   keys: [stock]
//!   each: item                         # keys and values in turn: a sample for each, with its key as this label
//!   database: 1
//!   interval: 30s                      # beside scrapes; at each without it
//! - name: oldest_entry_ms
//!   command: [XINFO, STREAM, jobs]
//!   value: first-entry.0               # into the reply: places from 0, or names
//! ```

#[cfg(test)]
mod tests;

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use podkit_dataplane::resp::{self, Questions, Value};
use podkit_foundation::params::ParamType as _;
use podkit_foundation::yaml::{
    self, Findings, Node, Path, Severity, Source, documents, nearest, read,
};

use super::keys::select;
use crate::client::redis::{Redis, refusal};
use crate::metrics::batch::{Batch, Kind};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};

/// Queries of a file at most.
const MOST: usize = 1000;

/// Samples of a query at most.
const MOST_SAMPLES: usize = 10_000;

const KEYS: [&str; 11] = [
    "name", "help", "type", "command", "script", "keys", "value", "each", "labels", "database",
    "interval",
];

/// A question, and what its answer means.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    pub(super) name: String,
    help: String,
    kind: Kind,
    words: Vec<String>,
    database: Option<u32>,
    /// Into the reply.
    value: Vec<String>,
    /// The label of keys, when the reply has them and values in turn.
    each: Option<String>,
    labels: Vec<(String, String)>,
    /// None: at each scrape.
    pub(super) interval: Option<Duration>,
}

impl Query {
    /// Asks it on a connection that is in `database`, and stays there; its place among the answers.
    pub(super) fn ask(&self, database: u32, questions: &mut Questions) -> usize {
        let other = self.database.filter(|other| *other != database);
        if let Some(other) = other {
            select(other, questions);
        }
        let at = questions.put(&self.words);
        if other.is_some() {
            select(database, questions);
        }
        at
    }

    /// The samples of a reply, and whether it was one that has them.
    pub(super) fn read(&self, reply: &Value<'_>, batch: &mut Batch) {
        let done = self.samples(reply, batch);
        if let Err(why) = &done {
            tracing::debug!(query = self.name, why, "a query has no value");
        }
        let up = if done.is_ok() { 1.0 } else { 0.0 };
        batch
            .family(
                "podkit_metrics_query_up",
                Kind::Gauge,
                "The query was answered with a value",
            )
            .put(&[("query", &self.name)], up);
    }

    fn samples(&self, reply: &Value<'_>, batch: &mut Batch) -> Result<(), String> {
        if let Some(why) = refusal(reply) {
            return Err(why);
        }
        let mut value = reply;
        for step in &self.value {
            let place = step.parse::<usize>().ok();
            value = place
                .and_then(|place| value.list().get(place))
                .or_else(|| value.field(step))
                .ok_or_else(|| format!("the reply has no {step}"))?;
        }
        let family = batch.family(&self.name, self.kind, self.help.clone());
        let labels: Vec<(&str, &str)> = self
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let Some(each) = &self.each else {
            let number = value
                .number()
                .ok_or_else(|| "the value is no number".to_owned())?;
            family.put(&labels, number);
            return Ok(());
        };
        for pair in value.list().chunks_exact(2).take(MOST_SAMPLES) {
            let (Some(key), Some(number)) = (pair[0].text(), pair[1].number()) else {
                return Err("the reply is not keys and numbers in turn".to_owned());
            };
            let key = String::from_utf8_lossy(key);
            let mut labels = labels.clone();
            labels.push((each, &key));
            family.put(&labels, number);
        }
        Ok(())
    }
}

/// A query that has an interval, on a connection of its own.
pub(super) struct Alone {
    redis: Redis,
    query: Query,
}

impl Alone {
    pub(super) fn new(redis: Redis, query: Query) -> Self {
        Self { redis, query }
    }
}

impl Collector for Alone {
    fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a> {
        Box::pin(async {
            let mut questions = Questions::default();
            // Is it there at all? A script may take its time.
            questions.put(&["PING"]);
            self.redis.ask(&questions, || answered.yes()).await?;
            let mut questions = Questions::default();
            let at = self.query.ask(self.redis.database(), &mut questions);
            let answers = self.redis.ask(&questions, || answered.yes()).await?;
            let mut batch = Batch::default();
            self.query.read(&answers.get(at), &mut batch);
            Ok(batch)
        })
    }

    fn status(&self, _: &Went) -> Batch {
        Batch::default()
    }
}

/// The queries of a file. The error names everything that is wrong with it.
pub(super) fn file(path: &FilePath) -> Result<Vec<Query>, String> {
    let shown = path.display().to_string();
    let bytes = read::file(path).map_err(|why| format!("queries={shown}: {why}"))?;
    let text = read::text(&bytes)
        .map_err(|(line, column, why)| format!("queries={shown}:{line}:{column}: {why}"))?;
    parse(&shown, text)
}

fn parse(name: &str, text: &str) -> Result<Vec<Query>, String> {
    let mut findings = Findings::new();
    let file: Arc<str> = Arc::from(name);
    let mut roots = documents(text, &file, &mut findings);
    let mut queries = Vec::new();
    if roots.len() == 1 {
        let source = Source::new(file, Arc::new(roots.remove(0)), Path::root());
        let mut reader = Reader {
            source: &source,
            findings,
        };
        queries = reader.queries();
        findings = reader.findings;
    } else if !findings.has_errors() {
        return Err(format!("queries={name}: expected one list: \"- name: …\""));
    }
    findings.sort();
    match findings.is_empty() {
        true => Ok(queries),
        false => Err(format!("queries can't be used:\n{findings}")),
    }
}

struct Reader<'a> {
    source: &'a Source,
    findings: Findings,
}

impl Reader<'_> {
    fn wrong(&mut self, path: &Path, why: impl Into<String>) {
        let place = self.source.place(path);
        self.findings.add(Severity::Error, place, path, why);
    }

    fn queries(&mut self) -> Vec<Query> {
        let root = Path::root();
        let yaml::Value::Seq(items) = self
            .source
            .find(&root)
            .map_or(&yaml::Value::Null, |node| &node.value)
        else {
            self.wrong(&root, "expected a list: \"- name: …\"");
            return Vec::new();
        };
        if items.len() > MOST {
            self.wrong(&root, format!("more than {MOST} queries"));
            return Vec::new();
        }
        let queries: Vec<Query> = items
            .iter()
            .enumerate()
            .filter_map(|(at, node)| self.query(node, &root.index(at)))
            .collect();
        for (at, query) in queries.iter().enumerate() {
            let other = queries[..at].iter().find(|other| {
                other.name == query.name
                    && (other.kind != query.kind || other.labels == query.labels)
            });
            if let Some(other) = other {
                let why = match other.kind == query.kind {
                    true => "is there twice; other labels would tell them apart",
                    false => "is there twice, with another type",
                };
                self.wrong(&root.index(at), format!("{} {why}", query.name));
            }
        }
        queries
    }

    fn query(&mut self, node: &Node, path: &Path) -> Option<Query> {
        let yaml::Value::Map(entries) = &node.value else {
            self.wrong(
                path,
                format!("is {}; expected name, command, …", node.describe()),
            );
            return None;
        };
        let before = self.findings.iter().len();
        for entry in entries {
            if !KEYS.contains(&entry.key.as_str()) {
                let why = match nearest(&entry.key, KEYS) {
                    Some(near) => format!("there is no such key; did you mean {near}?"),
                    None => format!("there is no such key; there are {}", KEYS.join(", ")),
                };
                self.wrong(&path.key(entry.key.clone()), why);
            }
        }
        let name = self.text(node, path, "name");
        if name.is_none() {
            self.wrong(path, "has no name");
        }
        let name = name.unwrap_or_default();
        if !name.is_empty() && crate::metrics::batch::metric_name(&name) != name {
            let why = "is no name for a metric: letters, digits, _ and :, no digit first";
            self.wrong(&path.key("name"), why);
        }
        let query = Query {
            help: self.text(node, path, "help").unwrap_or_default(),
            kind: self.kind(node, path),
            words: self.words(node, path),
            database: self.parsed(node, path, "database", "a number such as 1", |text| {
                text.parse().ok()
            }),
            value: match self.text(node, path, "value") {
                Some(text) => text.split('.').map(str::to_owned).collect(),
                None => Vec::new(),
            },
            each: self.text(node, path, "each"),
            labels: self.labels(node, path),
            interval: self.parsed(node, path, "interval", "a time such as 30s", |text| {
                Duration::parse(text).ok().filter(|time| !time.is_zero())
            }),
            name,
        };
        if let Some(each) = &query.each {
            if !is_label(each) {
                self.wrong(&path.key("each"), "is no name for a label");
            } else if query.labels.iter().any(|(name, _)| name == each) {
                self.wrong(&path.key("each"), "is one of labels too");
            }
        }
        (self.findings.iter().len() == before).then_some(query)
    }

    /// A text, or a number as it is written.
    fn text(&mut self, node: &Node, path: &Path, key: &'static str) -> Option<String> {
        let node = node.get(key)?;
        match written(node) {
            Some(text) if !text.is_empty() => Some(text),
            _ => {
                let why = format!("is {}; expected a text", node.describe());
                self.wrong(&path.key(key), why);
                None
            }
        }
    }

    fn parsed<T>(
        &mut self,
        node: &Node,
        path: &Path,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(node, path, key)?;
        let value = parse(&text);
        if value.is_none() {
            self.wrong(&path.key(key), format!("{text:?} is not {expected}"));
        }
        value
    }

    fn kind(&mut self, node: &Node, path: &Path) -> Kind {
        let kind = self.parsed(node, path, "type", "gauge, counter or untyped", |text| {
            Some(match text {
                "gauge" => Kind::Gauge,
                "counter" => Kind::Counter,
                "untyped" => Kind::Untyped,
                _ => return None,
            })
        });
        kind.unwrap_or(Kind::Gauge)
    }

    /// Texts in a list.
    fn list(&mut self, node: &Node, path: &Path, key: &'static str) -> Vec<String> {
        let Some(node) = node.get(key) else {
            return Vec::new();
        };
        let items = match &node.value {
            yaml::Value::Seq(items) => items.iter().map(written).collect(),
            _ => None,
        };
        items.unwrap_or_else(|| {
            self.wrong(&path.key(key), "expected a list of texts: [LLEN, jobs]");
            Vec::new()
        })
    }

    /// What is sent.
    fn words(&mut self, node: &Node, path: &Path) -> Vec<String> {
        let keys = self.list(node, path, "keys");
        match (node.get("command"), self.text(node, path, "script")) {
            (Some(_), None) => {
                if !keys.is_empty() {
                    self.wrong(&path.key("keys"), "are for a script");
                }
                let words = self.list(node, path, "command");
                match words
                    .first()
                    .map(|name| (resp::find(name.as_bytes()), name))
                {
                    None => self.wrong(&path.key("command"), "has no words"),
                    Some((Some(command), name)) if !is_reading(command.kind, &words) => {
                        let why = format!("{name} may do more than read; a query reads");
                        self.wrong(&path.key("command"), why);
                    }
                    Some((Some(command), name)) if !command.takes(words.len()) => {
                        let why = format!("{name} does not take {} words", words.len());
                        self.wrong(&path.key("command"), why);
                    }
                    // What is not known may be a module's.
                    Some(_) => {}
                }
                words
            }
            (None, Some(script)) => {
                // The server holds it to reading.
                let mut words = vec!["EVAL_RO".to_owned(), script, keys.len().to_string()];
                words.extend(keys);
                words
            }
            _ => {
                self.wrong(path, "expected one of command and script");
                Vec::new()
            }
        }
    }

    fn labels(&mut self, node: &Node, path: &Path) -> Vec<(String, String)> {
        let path = path.key("labels");
        let entries = match node.get("labels").map(|node| &node.value) {
            None => return Vec::new(),
            Some(yaml::Value::Map(entries)) => entries,
            Some(_) => {
                self.wrong(&path, "expected names and texts: {queue: mail}");
                return Vec::new();
            }
        };
        let mut labels = Vec::new();
        for entry in entries {
            match written(&entry.node) {
                Some(text) if is_label(&entry.key) => labels.push((entry.key.clone(), text)),
                Some(_) => self.wrong(&path.key(entry.key.clone()), "is no name for a label"),
                None => self.wrong(&path.key(entry.key.clone()), "expected a text"),
            }
        }
        labels
    }
}

/// Commands that change nothing, neither data nor the connection nor the server.
fn is_reading(kind: resp::Kind, words: &[String]) -> bool {
    let word = |at: usize| words.get(at).map(|word| word.to_ascii_uppercase());
    match kind {
        resp::Kind::Read => true,
        // The server's own commands have subcommands that tell, and others.
        resp::Kind::Other => match word(0).as_deref() {
            Some("INFO" | "LASTSAVE" | "PING" | "ECHO" | "ROLE" | "TIME") => true,
            _ => word(1).is_some_and(|word| {
                [
                    "COUNT",
                    "GET",
                    "GETKEYS",
                    "INFO",
                    "LEN",
                    "NUMPAT",
                    "NUMSUB",
                    "SHARDNUMSUB",
                    "LATEST",
                ]
                .contains(&word.as_str())
            }),
        },
        _ => false,
    }
}

/// A scalar as it stands there.
fn written(node: &Node) -> Option<String> {
    match &node.value {
        yaml::Value::Str(text)
        | yaml::Value::Bool(_, text)
        | yaml::Value::Int(_, text)
        | yaml::Value::Float(_, text) => Some(text.clone()),
        _ => None,
    }
}

/// Of a label, none of those that Prometheus has for itself.
fn is_label(name: &str) -> bool {
    let right = |part: char| part.is_ascii_alphanumeric() || part == '_';
    !name.is_empty()
        && !name.starts_with("__")
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(right)
}
