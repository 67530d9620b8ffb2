//! What INFO and CLUSTER INFO say, by the names of redis_exporter.
//!
//! Most fields are metrics as they are ([`super::names`]); here is what has labels, or is read out of a line.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::names;
use crate::metrics::batch::{Batch, Kind, Line, render};

/// Databases of a server that does not say how many it has.
const USUAL_DATABASES: u32 = 16;

/// Databases without keys that are shown at most.
const MOST_DATABASES: u32 = 10_000;

/// What a server is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// It is part of a cluster.
    pub(super) cluster: bool,
    pub(super) sentinel: bool,
    /// It has logs of commands that are large besides those that are slow (Valkey 8.1).
    pub(super) commandlog: bool,
}

/// Reads the text of INFO into `batch`. `now`: seconds since 1970.
pub(super) fn read(text: &str, now: f64, databases: Option<u32>, batch: &mut Batch) -> Facts {
    let mut reader = Reader {
        batch,
        now,
        master: (String::new(), String::new()),
        stats: HashMap::new(),
        seen: Vec::new(),
    };
    let mut fields: HashMap<&str, &str> = HashMap::new();
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("# ") {
            section = name;
        } else if let Some((field, value)) = line.split_once(':') {
            fields.insert(field, value);
            reader.field(section, field, value);
        }
    }
    let facts = Facts {
        cluster: fields.get("cluster_enabled") == Some(&"1"),
        sentinel: text.contains("# Sentinel"),
        commandlog: fields
            .get("valkey_version")
            .is_some_and(|version| has_commandlog(version)),
    };
    // A cluster has one database.
    let databases = match databases {
        _ if facts.cluster => 1,
        None | Some(0) => USUAL_DATABASES,
        Some(databases) => databases,
    };
    reader.empty_databases(databases);
    put_identity(&fields, batch);
    facts
}

/// Reads the text of CLUSTER INFO into `batch`.
pub(super) fn read_cluster(text: &str, batch: &mut Batch) {
    for (field, value) in text.lines().filter_map(|line| line.trim().split_once(':')) {
        put_field(field, value, batch);
    }
}

/// `8.1.0`, and later.
fn has_commandlog(version: &str) -> bool {
    let mut parts = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    (major, minor) >= (8, 1)
}

/// Who it is.
fn put_identity(fields: &HashMap<&str, &str>, batch: &mut Batch) {
    let value = |field: &str| fields.get(field).copied().unwrap_or_default();
    let mut labels: Vec<(&str, &str)> = [
        "role",
        "redis_version",
        "redis_build_id",
        "redis_mode",
        "os",
        "maxmemory_policy",
        "tcp_port",
        "run_id",
        "process_id",
    ]
    .iter()
    .map(|name| (*name, value(name)))
    .collect();
    for name in ["valkey_version", "valkey_release_stage"] {
        labels.extend(fields.get(name).map(|value| (name, *value)));
    }
    batch
        .family(
            "redis_instance_info",
            Kind::Gauge,
            "Information about the Redis instance",
        )
        .put(&labels, 1.0);
    if value("role") == "slave" {
        let labels = [
            ("master_host", value("master_host")),
            ("master_port", value("master_port")),
            ("read_only", value("slave_read_only")),
        ];
        batch
            .family(
                "redis_slave_info",
                Kind::Gauge,
                "Information about the Redis slave",
            )
            .put(&labels, 1.0);
    }
}

/// A field that is a metric as it is.
fn put_field(field: &str, value: &str, batch: &mut Batch) {
    if field == "latest_fork_usec" {
        if let Ok(micros) = value.parse::<f64>() {
            let help = "INFO: latest_fork_usec, in seconds";
            batch.gauge("redis_latest_fork_seconds", help, micros / 1e6);
        }
        return;
    }
    if let Some(thread) = field.strip_prefix("used_active_time_io_thread_") {
        if let Ok(seconds) = value.parse::<f64>() {
            let name = "redis_active_time_io_thread_seconds_total";
            let help = "INFO: used_active_time_io_thread_N";
            batch
                .family(name, Kind::Counter, help)
                .put(&[("thread", thread)], seconds);
        }
        return;
    }
    let number = match value {
        "ok" | "true" => 1.0,
        "err" | "fail" | "false" => 0.0,
        _ => match value.parse() {
            Ok(number) => number,
            Err(_) => return,
        },
    };
    match names::find(field) {
        Some(named) => {
            let family = batch.family(named.name, named.kind, named.help);
            family.put(&[], number);
        }
        // All that begins so is one.
        None if field.starts_with("cluster_") => {
            batch.gauge(&format!("redis_{field}"), format!("INFO: {field}"), number);
        }
        None => {}
    }
}

/// `a=1,b=2`.
fn parts(value: &str) -> impl Iterator<Item = (&str, &str)> {
    value.split(',').filter_map(|part| part.split_once('='))
}

/// The number behind one of the keys of `a=1,b=2`.
fn part(value: &str, key: &str) -> Option<f64> {
    let (_, number) = parts(value).find(|(name, _)| *name == key)?;
    number.parse().ok()
}

/// The text behind one of them.
fn word<'a>(value: &'a str, key: &str) -> &'a str {
    let found = parts(value).find(|(name, _)| *name == key);
    found.map_or("", |(_, word)| word)
}

struct Reader<'a> {
    batch: &'a mut Batch,
    now: f64,
    /// Host and port of the primary that the next lines are about: KeyDB has several.
    master: (String, String),
    /// Calls and microseconds by command.
    stats: HashMap<String, (f64, f64)>,
    /// Databases with keys.
    seen: Vec<String>,
}

impl Reader<'_> {
    fn field(&mut self, section: &str, field: &str, value: &str) {
        let taken = match section {
            "Server" => {
                self.server(field, value);
                false
            }
            "Replication" => self.replication(field, value).is_some(),
            "Commandstats" => {
                self.command(field, value);
                true
            }
            "Latencystats" => {
                self.percentiles(field, value);
                true
            }
            "Errorstats" => {
                self.error(field, value);
                true
            }
            "Keyspace" => self.database(field, value).is_some(),
            "Sentinel" => self.sentinel(field, value).is_some(),
            _ => false,
        };
        if !taken {
            put_field(field, value, self.batch);
        }
    }

    fn put(
        &mut self,
        name: &str,
        kind: Kind,
        help: &'static str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        self.batch.family(name, kind, help).put(labels, value);
    }

    fn server(&mut self, field: &str, value: &str) {
        if field == "uptime_in_seconds"
            && let Ok(uptime) = value.parse::<f64>()
        {
            let help = "Start time of the Redis instance since unix epoch in seconds";
            self.batch
                .gauge("redis_start_time_seconds", help, self.now - uptime);
        }
    }

    /// Some when the field was one of these.
    fn replication(&mut self, field: &str, value: &str) -> Option<()> {
        // `master_host`, and KeyDB's `master_1_host`.
        if let Some(rest) = field.strip_prefix("master_") {
            let digits = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
            let what = match digits.strip_prefix('_') {
                Some(what) if digits.len() < rest.len() => what,
                _ => rest,
            };
            let (name, help, number) = match what {
                "host" => {
                    value.clone_into(&mut self.master.0);
                    return None;
                }
                "port" => {
                    value.clone_into(&mut self.master.1);
                    return None;
                }
                "link_status" => {
                    let up = if value == "up" { 1.0 } else { 0.0 };
                    (
                        "redis_master_link_up",
                        "Master link status on Redis slave",
                        up,
                    )
                }
                "last_io_seconds_ago" => (
                    "redis_master_last_io_seconds_ago",
                    "Master last io seconds ago",
                    value.parse().unwrap_or(0.0),
                ),
                "sync_in_progress" => (
                    "redis_master_sync_in_progress",
                    "Master sync in progress",
                    value.parse().unwrap_or(0.0),
                ),
                _ => return None,
            };
            self.of_master(name, help, number);
            return Some(());
        }
        if field == "slave_repl_offset" {
            let help = "Slave replication offset";
            self.of_master("redis_slave_repl_offset", help, value.parse().ok()?);
            return Some(());
        }
        let number = field.strip_prefix("slave")?;
        if !number.starts_with(|digit: char| digit.is_ascii_digit()) {
            return None;
        }
        let offset = part(value, "offset")?;
        let labels = [
            ("slave_ip", word(value, "ip")),
            ("slave_port", word(value, "port")),
            ("slave_state", word(value, "state")),
        ];
        let name = "redis_connected_slave_offset_bytes";
        self.put(
            name,
            Kind::Gauge,
            "Offset of connected slave",
            &labels,
            offset,
        );
        if let Some(lag) = part(value, "lag") {
            let name = "redis_connected_slave_lag_seconds";
            self.put(name, Kind::Gauge, "Lag of connected slave", &labels, lag);
        }
        Some(())
    }

    fn of_master(&mut self, name: &str, help: &'static str, value: f64) {
        let (host, port) = std::mem::take(&mut self.master);
        let labels = [
            ("master_host", host.as_str()),
            ("master_port", port.as_str()),
        ];
        self.put(name, Kind::Gauge, help, &labels, value);
        self.master = (host, port);
    }

    /// `cmdstat_get:calls=21,usec=175,usec_per_call=8.33,rejected_calls=0,failed_calls=0`, the last two since 6.2.
    fn command(&mut self, field: &str, value: &str) {
        let (Some(command), Some(calls), Some(micros)) = (
            field.strip_prefix("cmdstat_"),
            part(value, "calls"),
            part(value, "usec"),
        ) else {
            return;
        };
        self.stats.insert(command.to_owned(), (calls, micros));
        let labels = render(&[("cmd", command)]);
        let mut put = |name: &str, help: &'static str, value: f64| {
            let family = self.batch.family(name, Kind::Counter, help);
            family.put_rendered(Line::Plain, labels.as_str().into(), value);
        };
        put(
            "redis_commands_total",
            "Total number of calls per command",
            calls,
        );
        put(
            "redis_commands_duration_seconds_total",
            "Total amount of time in seconds spent per command",
            micros / 1e6,
        );
        if let (Some(rejected), Some(failed)) =
            (part(value, "rejected_calls"), part(value, "failed_calls"))
        {
            put(
                "redis_commands_rejected_calls_total",
                "Total number of errors prior command execution per command",
                rejected,
            );
            put(
                "redis_commands_failed_calls_total",
                "Total number of errors within command execution per command",
                failed,
            );
        }
    }

    /// `latency_percentiles_usec_get:p50=0.001,p99=1.003,p99.9=3.007`; what was called is in the section before.
    fn percentiles(&mut self, field: &str, value: &str) {
        let Some(command) = field.strip_prefix("latency_percentiles_usec_") else {
            return;
        };
        let Some((calls, micros)) = self.stats.get(command).copied() else {
            return;
        };
        let name = "redis_latency_percentiles_usec";
        let help = "A summary of latency percentile distribution per command";
        let family = self.batch.family(name, Kind::Summary, help);
        for (percentile, micros) in parts(value) {
            let percentile = percentile.strip_prefix('p').map(str::parse::<f64>);
            if let (Some(Ok(percentile)), Ok(micros)) = (percentile, micros.parse()) {
                let quantile = percentile.to_string();
                family.put(&[("cmd", command), ("quantile", &quantile)], micros);
            }
        }
        let labels = [("cmd", command)];
        family.put_line(Line::Sum, &labels, micros);
        family.put_line(Line::Count, &labels, calls);
    }

    /// `errorstat_ERR:count=4`.
    fn error(&mut self, field: &str, value: &str) {
        if let (Some(error), Some(count)) = (field.strip_prefix("errorstat_"), part(value, "count"))
        {
            let help = "Total number of errors per error type";
            let labels = [("err", error)];
            self.put("redis_errors_total", Kind::Counter, help, &labels, count);
        }
    }

    /// `db0:keys=1,expires=0,avg_ttl=0`; KeyDB has `cached_keys` too.
    fn database(&mut self, field: &str, value: &str) -> Option<()> {
        let number = field.strip_prefix("db")?;
        number.parse::<u32>().ok()?;
        let (keys, expiring) = (part(value, "keys")?, part(value, "expires")?);
        let labels = [("db", field)];
        self.keys(field, keys, expiring);
        if let Some(cached) = part(value, "cached_keys") {
            let help = "Total number of cached keys by DB";
            self.put("redis_db_keys_cached", Kind::Gauge, help, &labels, cached);
        }
        if let Some(ttl) = part(value, "avg_ttl") {
            let help = "Avg TTL in seconds";
            let name = "redis_db_avg_ttl_seconds";
            self.put(name, Kind::Gauge, help, &labels, ttl / 1e3);
        }
        self.seen.push(field.to_owned());
        Some(())
    }

    fn keys(&mut self, database: &str, keys: f64, expiring: f64) {
        let labels = [("db", database)];
        let help = "Total number of keys by DB";
        self.put("redis_db_keys", Kind::Gauge, help, &labels, keys);
        let help = "Total number of expiring keys by DB";
        let name = "redis_db_keys_expiring";
        self.put(name, Kind::Gauge, help, &labels, expiring);
    }

    fn empty_databases(&mut self, databases: u32) {
        for number in 0..databases.min(MOST_DATABASES) {
            let name = format!("db{number}");
            if !self.seen.contains(&name) {
                self.keys(&name, 0.0, 0.0);
            }
        }
    }

    /// `master0:name=user02,status=ok,address=192.169.2.54:6380,slaves=1,sentinels=5`, and counts.
    fn sentinel(&mut self, field: &str, value: &str) -> Option<()> {
        let help = match field {
            "sentinel_masters" => "The number of masters this sentinel is watching",
            "sentinel_tilt" => "Sentinel is in TILT mode",
            "sentinel_running_scripts" => "Number of scripts in execution right now",
            "sentinel_scripts_queue_length" => "Queue of user scripts to execute",
            "sentinel_simulate_failure_flags" => "Failures simulations",
            _ => "",
        };
        if !help.is_empty() {
            let name = format!("redis_{field}");
            self.batch.gauge(&name, help, value.parse().unwrap_or(0.0));
            return Some(());
        }
        let number = field.strip_prefix("master")?;
        number.parse::<u32>().ok()?;
        let (slaves, sentinels) = (part(value, "slaves")?, part(value, "sentinels")?);
        let status = word(value, "status");
        let labels = [
            ("master_name", word(value, "name")),
            ("master_address", word(value, "address")),
            ("master_status", status),
        ];
        let ok = if status == "ok" { 1.0 } else { 0.0 };
        let name = "redis_sentinel_master_status";
        self.put(name, Kind::Gauge, "Master status on Sentinel", &labels, ok);
        let name = "redis_sentinel_master_slaves";
        let help = "The number of slaves of the master";
        self.put(name, Kind::Gauge, help, &labels[..2], slaves);
        let name = "redis_sentinel_master_sentinels";
        let help = "The number of sentinels monitoring this master";
        self.put(name, Kind::Gauge, help, &labels[..2], sentinels);
        Some(())
    }
}
