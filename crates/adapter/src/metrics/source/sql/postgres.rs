//! What postgres_exporter collects.

use std::rc::Rc;

use aws_lc_rs::digest::{SHA256, digest};
use podkit_foundation::params::Addr;

use super::Counts;
use super::file;
use super::session::{Read, Unit};
use crate::client::Table;
use crate::metrics::batch::{Batch, Kind};
use crate::metrics::keeper::Went;

/// The collectors of the default scrape.
pub(super) const USUAL: &[&str] = &[
    "settings",
    "stat_database",
    "stat_database_conflicts",
    "locks",
    "stat_replication",
    "replication_slots",
    "stat_archiver",
    "stat_activity",
    "bgwriter",
    "database",
];
/// Those that are asked for.
pub(super) const MORE: &[&str] = &[
    "replication",
    "postmaster",
    "stat_user_tables",
    "statio_user_tables",
    "stat_statements",
];

/// The label `server` as the exporter has it: host and port.
pub(super) fn server(addr: &Addr) -> String {
    match addr {
        Addr::Port(port) => format!("localhost:{port}"),
        Addr::Unix(path) => {
            let path = path.to_string_lossy();
            match path.rsplit_once("/.s.PGSQL.") {
                Some((folder, port)) => format!("{folder}:{port}"),
                None => path.into_owned(),
            }
        }
        other => other.to_string(),
    }
}

pub(super) fn fixed(server: &str) -> Rc<[(String, String)]> {
    Rc::new([("server".to_owned(), server.to_owned())])
}

/// The version, which costs the server nothing.
pub(super) fn first(server: &str) -> Unit {
    let server = server.to_owned();
    let read = move |table: &Table, batch: &mut Batch| {
        let version = table.rows().next().map_or("", |row| row.text(0));
        let labels = [
            ("server", server.as_str()),
            ("short_version", &short_version(version)),
            ("version", version),
        ];
        let help = "Version string as reported by postgres";
        batch
            .family("pg_static", Kind::Untyped, help)
            .put(&labels, 1.0);
        Ok(())
    };
    Unit::new("version", "SELECT version()", Read::With(Box::new(read)))
}

/// `PostgreSQL 15.8 (Debian …` as `15.8.0`.
fn short_version(version: &str) -> String {
    let word = version.split(' ').nth(1).unwrap_or_default();
    let numbers = word.split(|part: char| !part.is_ascii_digit());
    let mut numbers: Vec<&str> = numbers
        .take(3)
        .take_while(|part| !part.is_empty())
        .collect();
    numbers.resize(3, "0");
    numbers.join(".")
}

/// All but the version.
pub(super) fn units(server: &str) -> Vec<Unit> {
    let fixed = fixed(server);
    let mut units = file::built_in(include_str!("postgres.yaml"), "postgres.yaml", &fixed);
    let server = server.to_owned();
    let read = move |table: &Table, batch: &mut Batch| settings(table, &server, batch);
    units.insert(
        0,
        Unit::new("settings", SETTINGS, Read::With(Box::new(read))),
    );
    units
}

/// Two of them are what this session has set for itself.
const SETTINGS: &str = "SELECT name, CASE WHEN name IN ('statement_timeout', 'lock_timeout') THEN reset_val ELSE setting END, \
     COALESCE(unit, ''), short_desc, vartype FROM pg_settings \
     WHERE vartype IN ('bool', 'integer', 'real') AND name != 'sync_commit_cancel_wait'";

fn settings(table: &Table, server: &str, batch: &mut Batch) -> Result<(), String> {
    let mut wrong = None;
    for row in table.rows() {
        let (setting, unit) = (row.text(1), row.text(2));
        let mut name = format!("pg_settings_{}", row.text(0).replace('.', "_"));
        let mut help = row.text(3).to_owned();
        let value = match row.text(4) {
            "bool" => Some(f64::from(setting == "on")),
            _ => in_units(setting, unit).map(|(value, unit)| {
                if !unit.is_empty() {
                    name = format!("{name}_{unit}");
                    help = format!("{help} [Units converted to {unit}.]");
                }
                value
            }),
        };
        match value {
            Some(value) => drop(
                batch
                    .family(&name, Kind::Gauge, help)
                    .put(&[("server", server)], value),
            ),
            None => {
                wrong = Some(format!(
                    "{} is {setting} of an unknown unit {unit}",
                    row.text(0)
                ))
            }
        }
    }
    wrong.map_or(Ok(()), Err)
}

/// A setting in seconds or bytes, and which of them; -1 says something else than a size.
fn in_units(setting: &str, unit: &str) -> Option<(f64, &'static str)> {
    // Some services answer with the unit behind the number.
    let digits = setting.trim_end_matches(|part: char| part.is_ascii_alphabetic());
    let number = setting.parse().or_else(|_| digits.parse::<f64>()).ok()?;
    let (factor, word) = match unit {
        "" => return Some((number, "")),
        "ms" => (1e-3, "seconds"),
        "s" => (1.0, "seconds"),
        "min" => (60.0, "seconds"),
        "h" => (3600.0, "seconds"),
        "d" => (86_400.0, "seconds"),
        bytes => (size(bytes)?, "bytes"),
    };
    match number {
        -1.0 => Some((number, word)),
        // Exactly what a division gives, not what a factor does.
        number if unit == "ms" => Some((number / 1000.0, word)),
        number => Some((number * factor, word)),
    }
}

/// `8kB`.
fn size(unit: &str) -> Option<f64> {
    let at = unit.find(|part: char| !part.is_ascii_digit())?;
    let (count, word) = unit.split_at(at);
    let count: f64 = match count {
        "" => 1.0,
        digits => digits.parse().ok()?,
    };
    let power = ["B", "kB", "MB", "GB", "TB"]
        .iter()
        .position(|known| *known == word)?;
    Some(count * 1024_f64.powi(i32::try_from(power).ok()?))
}

/// What is told of the server and of asking it.
pub(super) fn status(went: &Went, failed: f64, counts: &Counts, batch: &mut Batch) {
    batch.gauge(
        "pg_up",
        "Whether the last scrape of metrics from PostgreSQL was able to connect to the server (1 for yes, 0 for no).",
        went.up(),
    );
    batch.gauge(
        "pg_exporter_last_scrape_duration_seconds",
        "Duration of the last scrape of metrics from PostgreSQL.",
        went.took.as_secs_f64(),
    );
    batch.gauge(
        "pg_exporter_last_scrape_error",
        "Whether the last scrape of metrics from PostgreSQL resulted in an error (1 for error, 0 for success).",
        failed,
    );
    batch.counter(
        "pg_exporter_scrapes_total",
        "Total number of times PostgreSQL was scraped for metrics.",
        counts.scrapes,
    );
}

/// A file of queries that could not be read would have kept the module from its start.
pub(super) fn queries_loaded(name: &str, hash: &str, batch: &mut Batch) {
    let help = "Whether the user queries file was loaded and parsed successfully (1 for error, 0 for success).";
    batch
        .family("pg_exporter_user_queries_load_error", Kind::Gauge, help)
        .put(&[("filename", name), ("hashsum", hash)], 0.0);
}

/// SHA-256 in hexadecimal.
pub(super) fn hash(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
