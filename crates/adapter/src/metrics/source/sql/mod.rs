//! MySQL, MariaDB and PostgreSQL, by the names of mysqld_exporter and postgres_exporter.
//!
//! ```text
//!   units (a statement, and what its rows mean) ──▶ session: one question for all that is asked at a scrape
//!                                                     ╰─ each part with an interval has a session of its own
//!   queries=FILE ──▶ units, each alone, read-only and bounded, on one more session
//! ```

mod file;
mod mapped;
mod mysql;
mod options;
mod postgres;
mod range;
mod session;
mod status;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{Ground, Planned};
use crate::client::Login;
use crate::metrics::batch::{Batch, Kind};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};
use crate::metrics::spec::Spec;
use options::{Chosen, login};
pub(crate) use options::{KEYS, uses_tls_files};
use session::{Dialect, Done, Purpose, Read, Session, Unit};

/// The collectors of a MySQL or MariaDB.
pub(super) fn mysql(spec: &Spec, ground: &Ground) -> Result<Vec<Planned>, String> {
    let login = login(spec, ground, "root")?;
    let chosen = Chosen::of(spec, mysql::USUAL, mysql::MORE)?;
    let follow = chosen.interval(mysql::RESPONSE_TIME).is_some();
    plan(
        spec,
        Dialect::MySql,
        &login,
        &chosen,
        mysql::units(),
        follow,
    )
}

/// Those of a PostgreSQL.
pub(super) fn postgres(spec: &Spec, ground: &Ground) -> Result<Vec<Planned>, String> {
    let login = login(spec, ground, "postgres")?;
    let chosen = Chosen::of(spec, postgres::USUAL, postgres::MORE)?;
    let server = postgres::server(&spec.addr);
    plan(
        spec,
        Dialect::Postgres,
        &login,
        &chosen,
        postgres::units(&server),
        false,
    )
}

/// What a MySQL or MariaDB says by its role, its load, and what it is asked besides the usual; the rest is what it has.
pub(super) fn mysql_names() -> Vec<(String, Kind)> {
    let mut names = file::names(include_str!("mysql.yaml"), "mysql.yaml");
    names.extend(gauges(&[
        "mysql_binlog_*",
        "mysql_engine_innodb_*",
        "mysql_exporter_*",
        "mysql_galera_*",
        "mysql_info_schema_processlist_*",
        "mysql_info_schema_query_response_time_seconds*",
        "mysql_info_schema_read_query_response_time_seconds*",
        "mysql_info_schema_table_*",
        "mysql_info_schema_write_query_response_time_seconds*",
        "mysql_slave_status_*",
        "mysql_up",
        "mysql_version_info",
    ]));
    names
}

/// The same of a PostgreSQL.
pub(super) fn postgres_names() -> Vec<(String, Kind)> {
    let mut names = file::names(include_str!("postgres.yaml"), "postgres.yaml");
    names.extend(gauges(&[
        "pg_exporter_*",
        "pg_scrape_*",
        "pg_static",
        "pg_up",
    ]));
    names
}

fn gauges(names: &[&str]) -> Vec<(String, Kind)> {
    let kinds = names.iter().map(|name| ((*name).to_owned(), Kind::Gauge));
    kinds.collect()
}

/// The text of `;queries=FILE`.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) const FUZZ: podkit_foundation::fuzz::Target = podkit_foundation::fuzz::Target {
    name: "queries-yaml",
    seeds: &[
        b"a:\n  query: SELECT 1\n  cache_seconds: 3\n  runonserver: '>=10 <13 || 9.6'\n  metrics:\n    - x: {usage: GAUGE, description: y}\n",
        b"b:\n  name: c\n  query: q\n  timeout: 2s\n  metrics:\n    - w: {usage: MAPPEDMETRIC, metric_mapping: {a: 1}}\n",
    ],
    run: |bytes| drop(file::parse(&String::from_utf8_lossy(bytes), "queries.yaml")),
};

/// Units of one interval, asked on a session of their own.
struct Group {
    units: Vec<Unit>,
    purpose: Purpose,
}

fn plan(
    spec: &Spec,
    dialect: Dialect,
    login: &Login,
    chosen: &Chosen,
    units: Vec<Unit>,
    follow: bool,
) -> Result<Vec<Planned>, String> {
    let mut always = vec![dialect.first(spec)];
    // By name, so that statements of one collector are asked together.
    let mut parts: BTreeMap<String, (Duration, Group)> = BTreeMap::new();
    for unit in units {
        match chosen.interval(&unit.name) {
            None => {}
            Some(None) => always.push(unit),
            Some(Some(interval)) => {
                let empty = || Group {
                    units: Vec::new(),
                    purpose: Purpose::BuiltIn,
                };
                let part = parts.entry(unit.name.clone());
                part.or_insert_with(|| (interval, empty()))
                    .1
                    .units
                    .push(unit);
            }
        }
    }
    let mut custom = Vec::new();
    let mut file = None;
    if let Some(path) = spec.file("queries") {
        let loaded = file::load(&path)?;
        for query in loaded.queries {
            let mut mapped = query.mapped;
            mapped.fixed = dialect.fixed(spec);
            if let Some(name) = mapped.taken() {
                return Err(format!(
                    "queries={}: {}: the label {name} is podkit's own; name the column otherwise, such as {name} AS my_{name}",
                    path.display(),
                    query.key
                ));
            }
            let name = format!("queries.{}", query.key);
            let mut unit = Unit::new(name.clone(), query.sql, Read::Mapped(mapped));
            unit.runs_on = query.runs_on;
            unit.limit = query.timeout;
            match query.interval {
                None => custom.push(unit),
                Some(interval) => {
                    let group = Group {
                        units: vec![unit],
                        purpose: Purpose::Custom,
                    };
                    parts.insert(name, (interval, group));
                }
            }
        }
        file = Some((path.display().to_string(), loaded.bytes));
    }
    let told = || Told {
        source: spec.label().to_owned(),
        failing: BTreeSet::new(),
    };
    let session = |purpose| Session::new(login.clone(), dialect, purpose);
    let mut planned = vec![Planned::always(Sql {
        dialect,
        session: session(Purpose::BuiltIn),
        units: always,
        follow: follow.then(mysql::response_time),
        custom: (!custom.is_empty()).then(|| (session(Purpose::Custom), custom)),
        file: file.map(|(name, bytes)| (name, postgres::hash(&bytes))),
        counts: Counts::default(),
        told: told(),
    })];
    planned.extend(parts.into_iter().map(|(name, (interval, group))| Planned {
        part: Some((name, interval)),
        collector: Box::new(Part {
            dialect,
            told: told(),
            session: session(group.purpose),
            units: group.units,
        }),
    }));
    Ok(planned)
}

/// Everything that is asked at each scrape.
struct Sql {
    dialect: Dialect,
    session: Session,
    units: Vec<Unit>,
    /// Asked when what was said before shows that there is something of the kind.
    follow: Option<Vec<Unit>>,
    custom: Option<(Session, Vec<Unit>)>,
    /// That of the queries, and its hash.
    file: Option<(String, String)>,
    counts: Counts,
    told: Told,
}

/// What is remembered of all scrapes.
#[derive(Debug, Default)]
struct Counts {
    scrapes: f64,
    errors: BTreeMap<String, f64>,
    /// Something of the last one went wrong.
    failed: bool,
}

impl Collector for Sql {
    fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a> {
        Box::pin(async move {
            self.counts.scrapes += 1.0;
            self.counts.failed = true;
            let mut batch = Batch::default();
            let mut done = self.session.run(&self.units, &mut batch, answered).await?;
            match &self.follow {
                Some(units) if mysql::counts_response_time(&batch) => {
                    done.extend(self.session.run(units, &mut batch, answered).await?);
                }
                // There is nothing of the kind, which is no fault.
                Some(_) => done.push(Done {
                    name: mysql::RESPONSE_TIME.to_owned(),
                    took: Duration::ZERO,
                    why: None,
                }),
                None => {}
            }
            if let Some((session, units)) = &mut self.custom {
                let since = Instant::now();
                match session.run(units, &mut batch, answered).await {
                    Ok(more) => done.extend(more),
                    Err(why) => done.extend(units.iter().map(|unit| Done {
                        name: unit.name.clone(),
                        took: since.elapsed(),
                        why: Some(why.clone()),
                    })),
                }
            }
            self.counts.failed = false;
            let names: BTreeSet<&str> = done
                .iter()
                .filter(|one| one.why.is_some())
                .map(|one| one.name.as_str())
                .collect();
            for name in names {
                *self.counts.errors.entry(name.to_owned()).or_default() += 1.0;
                self.counts.failed = true;
            }
            self.told.hear(&done);
            self.dialect.report(&done, &mut batch);
            Ok(batch)
        })
    }

    fn status(&self, went: &Went) -> Batch {
        let mut batch = Batch::default();
        let failed = f64::from(self.counts.failed || went.why.is_some());
        match self.dialect {
            Dialect::MySql => mysql::status(went, failed, &self.counts, &mut batch),
            Dialect::Postgres => {
                postgres::status(went, failed, &self.counts, &mut batch);
                if let Some((name, hash)) = &self.file {
                    postgres::queries_loaded(name, hash, &mut batch);
                }
            }
        }
        batch
    }
}

/// Collectors that fail, for the log to have each once.
#[derive(Debug, Default)]
struct Told {
    source: String,
    failing: BTreeSet<String>,
}

impl Told {
    fn hear(&mut self, done: &[Done]) {
        let source = &self.source;
        for one in done {
            let collector = &one.name;
            match &one.why {
                Some(why) if self.failing.insert(collector.clone()) => {
                    tracing::warn!(source, collector, "a collector fails: {why}");
                }
                None if self.failing.remove(collector) => {
                    tracing::info!(source, collector, "the collector is well again");
                }
                _ => {}
            }
        }
    }
}

/// What is asked beside scrapes.
struct Part {
    dialect: Dialect,
    told: Told,
    session: Session,
    units: Vec<Unit>,
}

impl Collector for Part {
    fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a> {
        Box::pin(async move {
            let mut batch = Batch::default();
            let done = self.session.run(&self.units, &mut batch, answered).await?;
            self.told.hear(&done);
            self.dialect.report(&done, &mut batch);
            Ok(batch)
        })
    }

    fn status(&self, _: &Went) -> Batch {
        Batch::default()
    }
}

impl Dialect {
    /// What is answered before anything that may take its time.
    fn first(self, spec: &Spec) -> Unit {
        match self {
            Self::MySql => Unit::new(mysql::FIRST, "DO 1", Read::Nothing),
            Self::Postgres => postgres::first(&postgres::server(&spec.addr)),
        }
    }

    /// Labels of all that is mapped.
    fn fixed(self, spec: &Spec) -> std::rc::Rc<[(String, String)]> {
        match self {
            Self::MySql => std::rc::Rc::new([]),
            Self::Postgres => postgres::fixed(&postgres::server(&spec.addr)),
        }
    }

    /// How each collector went.
    fn report(self, done: &[Done], batch: &mut Batch) {
        let mut by_name: BTreeMap<&str, (Duration, bool)> = BTreeMap::new();
        for one in done {
            let sum = by_name.entry(&one.name).or_insert((Duration::ZERO, true));
            sum.0 += one.took;
            sum.1 &= one.why.is_none();
        }
        let (took, went, before) = match self {
            Self::MySql => (
                (
                    "mysql_exporter_collector_duration_seconds",
                    "Collector time duration.",
                ),
                (
                    "mysql_exporter_collector_success",
                    "mysqld_exporter: Whether a collector succeeded.",
                ),
                "collect.",
            ),
            Self::Postgres => (
                (
                    "pg_scrape_collector_duration_seconds",
                    "postgres_exporter: Duration of a collector scrape.",
                ),
                (
                    "pg_scrape_collector_success",
                    "postgres_exporter: Whether a collector succeeded.",
                ),
                "",
            ),
        };
        for (name, (time, success)) in by_name {
            let label = match name {
                mysql::FIRST => name.to_owned(),
                _ => format!("{before}{name}"),
            };
            let labels = [("collector", label.as_str())];
            batch
                .family(took.0, Kind::Gauge, took.1)
                .put(&labels, time.as_secs_f64());
            if name != mysql::FIRST {
                batch
                    .family(went.0, Kind::Gauge, went.1)
                    .put(&labels, f64::from(success));
            }
        }
    }
}
