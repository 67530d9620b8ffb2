//! Redis, Valkey and their sentinels, by the names of redis_exporter.
//!
//! ```text
//!   scrape ──▶ INFO ALL, CONFIG GET …, SLOWLOG …, LATENCY …, queries ──▶ one write, one batch of replies
//! ```
//!
//! What a server does not know, or does not allow, is asked once a connection: it counts such commands as errors, which people have
//! alerts on. What goes through keys ([`keys`]) has an interval and a connection of its own.

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod info;
mod keys;
mod more;
mod names;
mod queries;
mod sentinel;
mod streams;

use std::cell::Cell;
use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use podkit_dataplane::resp::{Questions, Value};
use podkit_foundation::params::ParamType as _;

use super::{Ground, Planned, Spec};
use crate::client::redis::{Login, Redis, refusal};
use crate::metrics::batch::{Batch, Kind, Line};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};
use info::Facts;
pub(super) use names::all as names;
use queries::Query;

/// What a source that is spoken to by TLS may say besides where it is.
pub(crate) const TLS_KEYS: &[&str] = &[
    "server-name",
    "user",
    "password-file",
    "latency-histogram",
    "clients",
    "check-keys",
    "check-streams",
    "count-keys",
    "keys-interval",
    "queries",
];

/// The same of one in the clear, which has no certificate that a name could be for.
pub(crate) const KEYS: &[&str] = TLS_KEYS.split_at(1).1;

pub(super) fn plan(spec: &Spec, ground: &Ground) -> Result<Vec<Planned>, String> {
    let database = match spec.path.strip_prefix('/').unwrap_or(&spec.path) {
        "" => 0,
        number => number
            .parse()
            .map_err(|_| format!("\"{number}\" is not the number of a database"))?,
    };
    let pool = ground.pool(spec)?;
    let login = Login::of(spec.option("user"), spec.file("password-file"))?;
    let client = || Redis::new(std::rc::Rc::clone(&pool), login.clone(), database);
    let interval = match spec.option("keys-interval") {
        None => Duration::from_secs(60),
        Some(text) => Duration::parse(text)
            .ok()
            .filter(|time| !time.is_zero())
            .ok_or_else(|| format!("keys-interval={text} is not a time such as 1m"))?,
    };
    let queries = match spec.file("queries") {
        None => Vec::new(),
        Some(path) => queries::file(&path)?,
    };
    let (own, always): (Vec<Query>, Vec<Query>) = queries
        .into_iter()
        .partition(|query| query.interval.is_some());
    let mut planned = vec![Planned::always(Source {
        redis: client(),
        wants: Wants {
            histogram: switch(spec, "latency-histogram", true)?,
            clients: switch(spec, "clients", false)?,
        },
        queries: always,
        known: None,
        scrapes: Cell::default(),
    })];
    let mut part = |name: &str, interval: Duration, collector: Box<dyn Collector>| {
        let part = Some((name.to_owned(), interval));
        planned.push(Planned { part, collector });
    };
    if let Some(text) = spec.option("check-keys") {
        let patterns = keys::patterns("check-keys", text, database)?;
        let check = keys::Check::new(client(), patterns);
        part("check-keys", interval, Box::new(check));
    }
    if let Some(text) = spec.option("check-streams") {
        let patterns = keys::patterns("check-streams", text, database)?;
        let check = streams::Check::new(client(), patterns);
        part("check-streams", interval, Box::new(check));
    }
    if let Some(text) = spec.option("count-keys") {
        let patterns = keys::patterns("count-keys", text, database)?;
        let count = keys::Count::new(client(), patterns);
        part("count-keys", interval, Box::new(count));
    }
    for query in own {
        let name = query.name.clone();
        let interval = query.interval.unwrap_or(interval);
        let alone = queries::Alone::new(client(), query);
        part(&name, interval, Box::new(alone));
    }
    Ok(planned)
}

fn switch(spec: &Spec, key: &str, usual: bool) -> Result<bool, String> {
    match spec.option(key) {
        None => Ok(usual),
        Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(format!("{key}={other} is neither on nor off")),
    }
}

/// What is asked besides what always is.
struct Wants {
    histogram: bool,
    clients: bool,
}

/// What is asked at each scrape.
struct Source {
    redis: Redis,
    wants: Wants,
    queries: Vec<Query>,
    /// Of the connection at hand.
    known: Option<Known>,
    /// How many there were, and the seconds that they took.
    scrapes: Cell<(f64, f64)>,
}

/// What was learnt on a connection.
struct Known {
    /// Its number.
    connection: u64,
    facts: Facts,
    refused: HashSet<Topic>,
}

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    Info,
    Setting(&'static str),
    SlowLogLength,
    SlowLogLast,
    LatencyLatest,
    LatencyHistogram,
    CommandLog(&'static str),
    Cluster,
    Masters,
    Clients,
    /// By its place among them.
    Query(usize),
}

impl Collector for Source {
    fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a> {
        Box::pin(self.ask(answered))
    }

    fn status(&self, went: &Went) -> Batch {
        let mut batch = Batch::default();
        let took = went.took.as_secs_f64();
        let (scrapes, seconds) = self.scrapes.get();
        let (scrapes, seconds) = (scrapes + 1.0, seconds + took);
        self.scrapes.set((scrapes, seconds));
        batch.gauge("redis_up", "Whether Redis answers", went.up());
        let help = "The last scrape error status";
        batch
            .family("redis_exporter_last_scrape_error", Kind::Gauge, help)
            .put(
                &[("err", went.why.as_deref().unwrap_or_default())],
                1.0 - went.up(),
            );
        batch.gauge(
            "redis_exporter_last_scrape_duration_seconds",
            "How long asking Redis took the last time",
            took,
        );
        batch.gauge(
            "redis_exporter_last_scrape_connect_time_seconds",
            "How long opening the connection took, which is kept",
            self.redis.connection().1.as_secs_f64(),
        );
        let help = "How often Redis was asked";
        batch.counter("redis_exporter_scrapes_total", help, scrapes);
        let name = "redis_exporter_scrape_duration_seconds";
        batch
            .family(name, Kind::Summary, "How long asking Redis took")
            .put_line(Line::Sum, &[], seconds)
            .put_line(Line::Count, &[], scrapes);
        batch
    }
}

impl Source {
    async fn ask(&mut self, answered: &Answered) -> Result<Batch, String> {
        if self.known.is_none() {
            self.learn(answered).await?;
        }
        let (questions, topics) = self.questions();
        let answers = self.redis.ask(&questions, || answered.yes()).await?;
        let answer = |wanted: Topic| {
            let found = topics.iter().find(|(topic, _)| *topic == wanted);
            found.map_or(Value::Nothing, |(_, at)| answers.get(*at))
        };
        let now = unix_seconds();
        let mut batch = Batch::default();
        let databases = more::databases(&answer(Topic::Setting("databases")));
        match read_info(&answer(Topic::Info), databases, now, &mut batch) {
            Ok(facts) => self.learnt(facts),
            Err(why) => {
                self.known = None;
                self.redis.forget();
                return Err(why);
            }
        }
        let (length, last) = (answer(Topic::SlowLogLength), answer(Topic::SlowLogLast));
        more::slow_log(&length, &last, &mut batch);
        let mut masters = Vec::new();
        let mut refused = Vec::new();
        for (topic, at) in topics {
            let answer = answers.get(at);
            if is_refused(&answer) && !matches!(topic, Topic::Query(_)) {
                refused.push(topic);
            }
            match topic {
                Topic::Info | Topic::SlowLogLength | Topic::SlowLogLast => {}
                Topic::Setting(_) => {
                    more::config(&answer, &mut batch);
                }
                Topic::LatencyLatest => more::latency_latest(&answer, &mut batch),
                Topic::LatencyHistogram => more::latency_histogram(&answer, &mut batch),
                Topic::CommandLog(log) => more::command_log(log, &answer, &mut batch),
                Topic::Cluster => {
                    if let Some(text) = answer.text() {
                        info::read_cluster(&String::from_utf8_lossy(text), &mut batch);
                    }
                }
                Topic::Masters => masters = sentinel::masters(&answer, &mut batch),
                Topic::Clients => more::clients(&answer, now, &mut batch),
                Topic::Query(number) => self.queries[number].read(&answer, &mut batch),
            }
        }
        if let Some(known) = &mut self.known {
            known.refused.extend(refused);
        }
        if !masters.is_empty() {
            let answers = self
                .redis
                .ask(&sentinel::ask(&masters), || answered.yes())
                .await?;
            sentinel::read(&masters, &answers, &mut batch);
        }
        Ok(batch)
    }

    /// What it is, which decides what it is asked.
    async fn learn(&mut self, answered: &Answered) -> Result<(), String> {
        let mut questions = Questions::default();
        questions.put(&["INFO", "ALL"]);
        let answers = self.redis.ask(&questions, || answered.yes()).await?;
        match read_info(&answers.get(0), None, 0.0, &mut Batch::default()) {
            Ok(facts) => {
                self.learnt(facts);
                Ok(())
            }
            Err(why) => {
                // Who asks is read again.
                self.redis.forget();
                Err(why)
            }
        }
    }

    fn learnt(&mut self, facts: Facts) {
        let connection = self.redis.connection().0;
        match &mut self.known {
            Some(known) if known.connection == connection => known.facts = facts,
            // Another server may be there, or this one with other rights.
            _ => {
                self.known = Some(Known {
                    connection,
                    facts,
                    refused: HashSet::new(),
                });
            }
        }
    }

    /// All in one, and what is where among the answers.
    fn questions(&self) -> (Questions, Vec<(Topic, usize)>) {
        let mut questions = Questions::default();
        let mut topics = Vec::new();
        let nothing = (Facts::default(), HashSet::new());
        let (facts, refused) = match &self.known {
            Some(known) => (&known.facts, &known.refused),
            None => (&nothing.0, &nothing.1),
        };
        let mut put = |topic: Topic, words: &[&str]| {
            if !refused.contains(&topic) {
                topics.push((topic, questions.put(words)));
            }
        };
        put(Topic::Info, &["INFO", "ALL"]);
        for name in more::SETTINGS {
            put(Topic::Setting(name), &["CONFIG", "GET", name]);
        }
        put(Topic::SlowLogLength, &["SLOWLOG", "LEN"]);
        put(Topic::SlowLogLast, &["SLOWLOG", "GET", "1"]);
        put(Topic::LatencyLatest, &["LATENCY", "LATEST"]);
        if self.wants.histogram {
            put(Topic::LatencyHistogram, &["LATENCY", "HISTOGRAM"]);
        }
        if facts.commandlog {
            for log in more::COMMANDLOGS {
                put(Topic::CommandLog(log), &["COMMANDLOG", "LEN", log]);
            }
            for name in more::COMMANDLOG_SETTINGS {
                put(Topic::Setting(name), &["CONFIG", "GET", name]);
            }
        }
        if facts.cluster {
            put(Topic::Cluster, &["CLUSTER", "INFO"]);
        }
        if facts.sentinel {
            put(Topic::Masters, &["SENTINEL", "MASTERS"]);
        }
        if self.wants.clients {
            put(Topic::Clients, &["CLIENT", "LIST"]);
        }
        for (number, query) in self.queries.iter().enumerate() {
            let at = query.ask(self.redis.database(), &mut questions);
            topics.push((Topic::Query(number), at));
        }
        (questions, topics)
    }
}

/// The reply to INFO.
fn read_info(
    answer: &Value<'_>,
    databases: Option<u32>,
    now: f64,
    batch: &mut Batch,
) -> Result<Facts, String> {
    match (refusal(answer), answer.text()) {
        (Some(why), _) => Err(format!("answered {why}")),
        (None, None) => Err("answered INFO with something else than a text".to_owned()),
        (None, Some(text)) => {
            let text = String::from_utf8_lossy(text);
            Ok(info::read(&text, now, databases, batch))
        }
    }
}

/// It will not be answered on this connection at all.
fn is_refused(answer: &Value<'_>) -> bool {
    refusal(answer).is_some_and(|why| {
        let why = why.to_ascii_lowercase();
        ["noperm", "err unknown"]
            .iter()
            .any(|begin| why.starts_with(begin))
    })
}

/// Now, in whole seconds since 1970.
#[expect(clippy::cast_precision_loss, reason = "it is far below 2^53")]
fn unix_seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs() as f64)
}
