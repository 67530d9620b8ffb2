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
use std::time::Duration;

use podkit_dataplane::resp::{self, Questions, Value};
use podkit_foundation::params::ParamType as _;
use podkit_foundation::yaml::Path;

use super::keys::select;
use crate::client::redis::{Redis, refusal};
use crate::metrics::batch::{Batch, Kind};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};
use crate::metrics::source::words::{self, MANY, Words, is_label, is_metric};

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

/// The queries of a file. The error has a line for each thing that is wrong.
pub(super) fn file(path: &FilePath) -> Result<Vec<Query>, String> {
    words::file("queries", path, queries)
}

pub(super) fn queries(words: &mut Words<'_>) -> Vec<Query> {
    let root = Path::root();
    let items = words.list(&root, MOST);
    if !words.has(&root) {
        words.expected(&root, "a list: \"- name: …\"");
    }
    let mut queries: Vec<Query> = Vec::new();
    for path in items {
        let Some(query) = query(words, &path) else {
            continue;
        };
        let other = queries.iter().find(|other| {
            other.name == query.name && (other.kind != query.kind || other.labels == query.labels)
        });
        if let Some(other) = other {
            let why = match other.kind == query.kind {
                true => "is there twice; other labels would tell them apart",
                false => "is there twice, with another type",
            };
            words.wrong(&path, format!("{} {why}", query.name));
        }
        queries.push(query);
    }
    queries
}

fn query(words: &mut Words<'_>, path: &Path) -> Option<Query> {
    const KINDS: [(&str, Kind); 3] = [
        ("gauge", Kind::Gauge),
        ("counter", Kind::Counter),
        ("untyped", Kind::Untyped),
    ];
    if !words.object(path, &KEYS) {
        words.wrong(path, "expected an object with name and command");
        return None;
    }
    let at = |key: &'static str| path.key(key);
    let name = words.text(&at("name"));
    match &name {
        None => words.wrong(path, "has no name"),
        Some(name) if !is_metric(name) => words.wrong(
            &at("name"),
            "is no name for a metric: letters, digits, _ and :, no digit first",
        ),
        Some(_) => {}
    }
    let labels = words.pairs(&at("labels"));
    for (name, _) in labels.iter().filter(|(name, _)| !is_free(name)) {
        words.wrong(&at("labels").key(name.clone()), "is no name for a label");
    }
    let each = words.text(&at("each"));
    if let Some(each) = &each {
        if !is_free(each) {
            words.wrong(&at("each"), "is no name for a label");
        } else if labels.iter().any(|(name, _)| name == each) {
            words.wrong(&at("each"), "is one of labels too");
        }
    }
    Some(Query {
        help: words.text(&at("help")).unwrap_or_default(),
        kind: words.word(&at("type"), &KINDS).unwrap_or(Kind::Gauge),
        words: command(words, path),
        database: words.parsed(&at("database"), "a number such as 1", |text| {
            text.parse().ok()
        }),
        value: match words.text(&at("value")) {
            Some(text) => text.split('.').map(str::to_owned).collect(),
            None => Vec::new(),
        },
        each,
        labels,
        interval: words.parsed(&at("interval"), "a time such as 30s", |text| {
            Duration::parse(text).ok().filter(|time| !time.is_zero())
        }),
        name: name?,
    })
}

/// What is sent.
fn command(words: &mut Words<'_>, path: &Path) -> Vec<String> {
    let at = path.key("command");
    let keys = words.texts(&path.key("keys"), MANY);
    match (words.has(&at), words.text(&path.key("script"))) {
        (true, None) => {
            if !keys.is_empty() {
                words.wrong(&path.key("keys"), "are for a script");
            }
            let command = words.texts(&at, MANY);
            let known = command
                .first()
                .map(|name| (resp::find(name.as_bytes()), name));
            match known {
                None => words.wrong(&at, "has no words: [LLEN, jobs]"),
                Some((Some(known), name)) if !is_reading(known.kind, &command) => {
                    let why = format!("{name} may do more than read; a query reads");
                    words.wrong(&at, why);
                }
                Some((Some(known), name)) if !known.takes(command.len()) => {
                    words.wrong(&at, format!("{name} does not take {} words", command.len()));
                }
                // What is not known may be a module's.
                Some(_) => {}
            }
            command
        }
        (false, Some(script)) => {
            // The server holds it to reading.
            let mut sent = vec!["EVAL_RO".to_owned(), script, keys.len().to_string()];
            sent.extend(keys);
            sent
        }
        _ => {
            words.wrong(path, "expected one of command and script");
            Vec::new()
        }
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

/// Of a label, none of those that Prometheus has for itself.
fn is_free(name: &str) -> bool {
    is_label(name) && !name.starts_with("__")
}
