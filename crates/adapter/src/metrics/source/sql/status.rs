//! The words and numbers of MySQL's statuses, variables and replication, as mysqld_exporter reads them.

use std::collections::HashMap;

use super::value::{openssl_time, time};
use crate::client::Table;
use crate::metrics::batch::{Batch, Kind, metric_name};

/// A word or a number of a status or a variable.
fn number(text: &str) -> Option<f64> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["yes", "on", "primary"]) {
        return Some(1.0);
    }
    if is(&[
        "no",
        "off",
        "disabled",
        "connecting",
        "non-primary",
        "disconnected",
    ]) {
        return Some(0.0);
    }
    let number = text.parse().ok();
    number
        .or_else(|| time(text).filter(|_| text.len() >= 19))
        .or_else(|| openssl_time(text))
}

/// `Innodb_rows.read` as a part of a name.
fn key(text: &str) -> String {
    let mut name = metric_name(text).replace(':', "_");
    name.make_ascii_lowercase();
    name
}

pub(super) fn global_status(table: &Table, batch: &mut Batch) {
    let mut wsrep = Wsrep::default();
    for row in table.rows() {
        let name = key(row.text(0));
        let text = row.text(1);
        match number(text) {
            Some(value) => one_status(&name, value, batch),
            None => wsrep.take(&name, text),
        }
    }
    wsrep.put(batch);
}

/// Families with a label, by what the names of their statuses begin with.
fn one_status(name: &str, value: f64, batch: &mut Batch) {
    const GROUPS: [(&str, &str, &str, &str); 5] = [
        (
            "com_",
            "commands_total",
            "command",
            "Total number of executed MySQL commands.",
        ),
        (
            "handler_",
            "handlers_total",
            "handler",
            "Total number of executed MySQL handlers.",
        ),
        (
            "connection_errors_",
            "connection_errors_total",
            "error",
            "Total number of MySQL connection errors.",
        ),
        (
            "innodb_rows_",
            "innodb_row_ops_total",
            "operation",
            "Total number of MySQL InnoDB row operations.",
        ),
        (
            "performance_schema_",
            "performance_schema_lost_total",
            "instrumentation",
            "Total number of MySQL instrumentations that could not be loaded or created due to memory constraints.",
        ),
    ];
    for (begin, family, label, help) in GROUPS {
        if let Some(rest) = name.strip_prefix(begin) {
            let family = format!("mysql_global_status_{family}");
            batch
                .family(&family, Kind::Counter, help)
                .put(&[(label, rest)], value);
            return;
        }
    }
    match name.strip_prefix("innodb_buffer_pool_pages_") {
        Some("total") => {}
        Some(state @ ("data" | "free" | "misc" | "old")) => {
            let help = "Innodb buffer pool pages by state.";
            batch
                .family("mysql_global_status_buffer_pool_pages", Kind::Gauge, help)
                .put(&[("state", state)], value);
        }
        Some("dirty") => batch.gauge(
            "mysql_global_status_buffer_pool_dirty_pages",
            "Innodb buffer pool dirty pages.",
            value,
        ),
        Some(operation) => {
            let help = "Innodb buffer pool page state changes.";
            batch
                .family(
                    "mysql_global_status_buffer_pool_page_changes_total",
                    Kind::Counter,
                    help,
                )
                .put(&[("operation", operation)], value);
        }
        None => {
            let help = "Generic metric from SHOW GLOBAL STATUS.";
            batch
                .family(&format!("mysql_global_status_{name}"), Kind::Untyped, help)
                .put(&[], value);
        }
    }
}

/// What Galera says in words.
#[derive(Default)]
struct Wsrep {
    state: String,
    cluster: String,
    provider: String,
    latency: String,
}

impl Wsrep {
    fn take(&mut self, name: &str, text: &str) {
        let place = match name {
            "wsrep_local_state_uuid" => &mut self.state,
            "wsrep_cluster_state_uuid" => &mut self.cluster,
            "wsrep_provider_version" => &mut self.provider,
            "wsrep_evs_repl_latency" => &mut self.latency,
            _ => return,
        };
        text.clone_into(place);
    }

    fn put(&self, batch: &mut Batch) {
        if !self.state.is_empty() {
            batch
                .family(
                    "mysql_galera_status_info",
                    Kind::Gauge,
                    "PXC/Galera status information.",
                )
                .put(
                    &[
                        ("wsrep_local_state_uuid", &self.state),
                        ("wsrep_cluster_state_uuid", &self.cluster),
                        ("wsrep_provider_version", &self.provider),
                    ],
                    1.0,
                );
        }
        let values: Option<Vec<f64>> = self
            .latency
            .split('/')
            .map(|one| one.parse().ok())
            .collect();
        let Some(&[min, avg, max, deviation, size]) = values.as_deref() else {
            return;
        };
        for (name, what, value) in [
            ("min_seconds", "Min value", min),
            ("avg_seconds", "Avg value", avg),
            ("max_seconds", "Max value", max),
            ("stdev", "Standard Deviation", deviation),
            ("sample_size", "Sample Size", size),
        ] {
            batch.gauge(
                &format!("mysql_galera_evs_repl_latency_{name}"),
                format!("PXC/Galera group communication latency. {what}."),
                value,
            );
        }
    }
}

pub(super) fn global_variables(table: &Table, batch: &mut Batch) {
    let mut words = HashMap::new();
    for row in table.rows() {
        let name = key(row.text(0));
        match number(row.text(1)) {
            Some(value) => batch.gauge(
                &format!("mysql_global_variables_{name}"),
                "Generic gauge metric from SHOW GLOBAL VARIABLES.",
                value,
            ),
            None => drop(words.insert(name, row.text(1))),
        }
    }
    let word = |name: &str| words.get(name).copied().unwrap_or_default();
    let mut info = |name: &str, help: &'static str, labels: &[(&str, &str)]| {
        batch.family(name, Kind::Gauge, help).put(labels, 1.0);
    };
    info(
        "mysql_version_info",
        "MySQL version and distribution.",
        &[
            ("innodb_version", word("innodb_version")),
            ("version", word("version")),
            ("version_comment", word("version_comment")),
        ],
    );
    let cluster = word("wsrep_cluster_name");
    if !cluster.is_empty() {
        info(
            "mysql_galera_variables_info",
            "PXC/Galera variables information.",
            &[("wsrep_cluster_name", cluster)],
        );
    }
    let levels = [word("transaction_isolation"), word("tx_isolation")];
    if let Some(level) = levels.into_iter().find(|level| !level.is_empty()) {
        info(
            "mysql_transaction_isolation",
            "MySQL transaction isolation.",
            &[("level", level)],
        );
    }
    let options = word("wsrep_provider_options");
    if !options.is_empty() {
        batch.gauge(
            "mysql_galera_gcache_size_bytes",
            "PXC/Galera gcache size.",
            gcache(options),
        );
    }
}

/// `…; gcache.size = 128M; …`
fn gcache(options: &str) -> f64 {
    let found = options
        .split(';')
        .find_map(|one| one.trim().strip_prefix("gcache.size = "));
    let text = found.unwrap_or_default();
    let (digits, unit) = match text.strip_suffix(['M', 'G']) {
        Some(digits) => (digits, if text.ends_with('M') { 20 } else { 30 }),
        None => (text, 0),
    };
    digits
        .parse::<f64>()
        .map_or(0.0, |size| size * f64::from(1 << unit))
}

/// MySQL 8.4 has other words, which would be other names: dashboards know these.
pub(super) fn slave_status(table: &Table, batch: &mut Batch) {
    let names: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            let name = column
                .name
                .replace("Replica", "Slave")
                .replace("Source", "Master");
            key(&name)
        })
        .collect();
    let at = |name: &str| {
        names
            .iter()
            .position(|known| known == name)
            .unwrap_or(usize::MAX)
    };
    let labels = [
        "master_host",
        "master_uuid",
        "channel_name",
        "connection_name",
    ];
    let places = labels.map(at);
    for row in table.rows() {
        let values = places.map(|place| row.text(place));
        let labels: Vec<(&str, &str)> = labels.into_iter().zip(values).collect();
        for (column, name) in names.iter().enumerate() {
            if let Some(value) = row.get(column).and_then(number) {
                let help = "Generic metric from SHOW SLAVE STATUS.";
                batch
                    .family(&format!("mysql_slave_status_{name}"), Kind::Untyped, help)
                    .put(&labels, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::table;

    fn shown(read: fn(&Table, &mut Batch), columns: &[&str], rows: &[&[&str]]) -> Vec<String> {
        let mut batch = Batch::default();
        read(&table(columns, rows), &mut batch);
        let families = batch.families().iter().flat_map(|family| {
            let kind = family.kind;
            let samples = family.samples.iter();
            samples
                .map(move |one| format!("{kind:?} {}{{{}}} {}", family.name, one.labels, one.value))
        });
        families.collect()
    }

    #[test]
    fn statuses_are_sorted_into_families() {
        let rows: &[&[&str]] = &[
            &["Com_select", "5"],
            &["Innodb_buffer_pool_pages_data", "7"],
            &["Innodb_buffer_pool_pages_total", "9"],
            &["Innodb_buffer_pool_pages_flushed", "2"],
            &["Ssl_server_not_after", "Nov 29 02:47:25 2026 GMT"],
            &["wsrep_cluster_status", "non-Primary"],
            &["wsrep_evs_repl_latency", "0.1/0.2/0.3/0.04/5"],
            &["Rsa.public-key", "none of a number"],
            &["Opened.files", "1e3"],
        ];
        assert_eq!(
            shown(global_status, &["Variable_name", "Value"], rows),
            [
                "Counter mysql_global_status_commands_total{command=\"select\"} 5",
                "Gauge mysql_global_status_buffer_pool_pages{state=\"data\"} 7",
                "Counter mysql_global_status_buffer_pool_page_changes_total{operation=\"flushed\"} 2",
                "Untyped mysql_global_status_ssl_server_not_after{} 1795920445",
                "Untyped mysql_global_status_wsrep_cluster_status{} 0",
                "Untyped mysql_global_status_opened_files{} 1000",
                "Gauge mysql_galera_evs_repl_latency_min_seconds{} 0.1",
                "Gauge mysql_galera_evs_repl_latency_avg_seconds{} 0.2",
                "Gauge mysql_galera_evs_repl_latency_max_seconds{} 0.3",
                "Gauge mysql_galera_evs_repl_latency_stdev{} 0.04",
                "Gauge mysql_galera_evs_repl_latency_sample_size{} 5",
            ]
        );
    }

    #[test]
    fn replication_has_the_names_of_old() {
        let columns = [
            "Source_Host",
            "Replica_IO_Running",
            "Seconds_Behind_Source",
            "Channel_Name",
        ];
        let rows: &[&[&str]] = &[&["db1", "Connecting", "12", "c"]];
        let labels = "master_host=\"db1\",master_uuid=\"\",channel_name=\"c\",connection_name=\"\"";
        assert_eq!(
            shown(slave_status, &columns, rows),
            [
                format!("Untyped mysql_slave_status_slave_io_running{{{labels}}} 0"),
                format!("Untyped mysql_slave_status_seconds_behind_master{{{labels}}} 12"),
            ]
        );
    }

    #[test]
    fn variables_have_words_too() {
        let rows: &[&[&str]] = &[
            &["version", "10.11.6-MariaDB"],
            &["tx_isolation", "READ-COMMITTED"],
            &["log_bin", "ON"],
            &["wsrep_provider_options", "a = 1; gcache.size = 128M; b = 2"],
        ];
        assert_eq!(
            shown(global_variables, &["Variable_name", "Value"], rows),
            [
                "Gauge mysql_global_variables_log_bin{} 1",
                "Gauge mysql_version_info{innodb_version=\"\",version=\"10.11.6-MariaDB\",version_comment=\"\"} 1",
                "Gauge mysql_transaction_isolation{level=\"READ-COMMITTED\"} 1",
                "Gauge mysql_galera_gcache_size_bytes{} 134217728",
            ]
        );
    }
}
