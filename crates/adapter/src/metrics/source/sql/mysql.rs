//! What mysqld_exporter collects, and how its values are read.

use std::collections::BTreeMap;

use super::Counts;
use super::file;
use super::range::Range;
use super::session::{Read, Unit};
use super::status::{global_status, global_variables, slave_status};
use super::value::bound;
use crate::client::{Row, Table};
use crate::metrics::batch::{Batch, Kind, Line};
use crate::metrics::keeper::Went;

/// The collectors of the default scrape.
pub(super) const USUAL: &[&str] = &[
    "global_status",
    "global_variables",
    "slave_status",
    "info_schema.innodb_cmp",
    "info_schema.innodb_cmpmem",
    RESPONSE_TIME,
];
/// Those that are asked for.
pub(super) const MORE: &[&str] = &[
    "info_schema.processlist",
    "info_schema.tables",
    "perf_schema.eventsstatements",
    "binlog_size",
    "engine_innodb_status",
    "auto_increment.columns",
    "heartbeat",
];

/// Named as the exporter names connecting.
pub(super) const FIRST: &str = "connection";
pub(super) const RESPONSE_TIME: &str = "info_schema.query_response_time";

/// Servers say so when they write no binary log (ER_NO_BINARY_LOGGING).
const NO_BINARY_LOG: &str = "1381";

/// All but what follows from others.
pub(super) fn units() -> Vec<Unit> {
    let with = |name: &str, sql: &str, read: fn(&Table, &mut Batch)| {
        let read = move |table: &Table, batch: &mut Batch| {
            read(table, batch);
            Ok(())
        };
        Unit::new(name, sql, Read::With(Box::new(read)))
    };
    let mut units = vec![
        with("global_status", "SHOW GLOBAL STATUS", global_status),
        with(
            "global_variables",
            "SHOW GLOBAL VARIABLES",
            global_variables,
        ),
    ];
    units.push(with("info_schema.processlist", PROCESSES, processes));
    units.push(with("info_schema.tables", TABLES, tables));
    units.push(with(
        "engine_innodb_status",
        "SHOW ENGINE INNODB STATUS",
        innodb_status,
    ));
    let mut binlog = with("binlog_size", "SHOW BINARY LOGS", binlog);
    binlog.nothing = Some(NO_BINARY_LOG);
    units.push(binlog);
    units.extend(file::built_in(
        include_str!("mysql.yaml"),
        "mysql.yaml",
        &[],
    ));
    // What may be refused for want of a privilege comes last, since others would have to be asked again.
    for (mariadb, versions, sql) in REPLICA {
        let mut unit = with("slave_status", sql, slave_status);
        unit.mariadb = Some(mariadb);
        unit.runs_on = versions.map(|text| Range::parse(text).expect("it is one"));
        units.push(unit);
    }
    units
}

/// How each server is asked for its primaries.
const REPLICA: [(bool, Option<&str>, &str); 3] = [
    (true, None, "SHOW ALL SLAVES STATUS"),
    (false, Some("<8.4.0"), "SHOW SLAVE STATUS"),
    (false, Some(">=8.4.0"), "SHOW REPLICA STATUS"),
];

/// What is asked when the server counts by time.
pub(super) fn response_time() -> Vec<Unit> {
    let tables = [
        (
            "QUERY_RESPONSE_TIME",
            "mysql_info_schema_query_response_time_seconds",
            "The number of all queries by duration they took to execute.",
        ),
        (
            "QUERY_RESPONSE_TIME_READ",
            "mysql_info_schema_read_query_response_time_seconds",
            "The number of read queries by duration they took to execute.",
        ),
        (
            "QUERY_RESPONSE_TIME_WRITE",
            "mysql_info_schema_write_query_response_time_seconds",
            "The number of write queries by duration they took to execute.",
        ),
    ];
    let unit = |(table, name, help): (&str, &'static str, &'static str)| {
        let sql = format!("SELECT TIME, COUNT, TOTAL FROM INFORMATION_SCHEMA.{table}");
        let read = move |table: &Table, batch: &mut Batch| {
            histogram(table, name, help, batch);
            Ok(())
        };
        let mut unit = Unit::new(RESPONSE_TIME, sql, Read::With(Box::new(read)));
        // Only Percona Server 5.6 and 5.7 tell reads and writes apart (ER_UNKNOWN_TABLE).
        unit.nothing = (table != "QUERY_RESPONSE_TIME").then_some("1109");
        unit
    };
    tables.map(unit).into()
}

/// The variable by which that is switched on is there and is on.
pub(super) fn counts_response_time(batch: &Batch) -> bool {
    let name = "mysql_global_variables_query_response_time_stats";
    let mut families = batch.families().iter();
    families
        .any(|family| &*family.name == name && family.samples.iter().any(|one| one.value != 0.0))
}

/// What is told of the server and of asking it.
pub(super) fn status(went: &Went, failed: f64, counts: &Counts, batch: &mut Batch) {
    batch.gauge("mysql_up", "Whether the MySQL server is up.", went.up());
    batch.gauge(
        "mysql_exporter_last_scrape_error",
        "Whether the last scrape of metrics from MySQL resulted in an error (1 for error, 0 for success).",
        failed,
    );
    batch.counter(
        "mysql_exporter_scrapes_total",
        "Total number of times MySQL was scraped for metrics.",
        counts.scrapes,
    );
    for (name, count) in &counts.errors {
        let help = "Total number of times an error occurred scraping a MySQL.";
        batch
            .family("mysql_exporter_scrape_errors_total", Kind::Counter, help)
            .put(&[("collector", &format!("collect.{name}"))], *count);
    }
}

/// Counts of a range each, which become those up to a bound.
fn histogram(table: &Table, name: &str, help: &'static str, batch: &mut Batch) {
    let family = batch.family(name, Kind::Histogram, help);
    let (mut count, mut sum) = (0.0, 0.0);
    for row in table.rows() {
        count += row.number(1).unwrap_or(0.0);
        sum += row.number(2).unwrap_or(0.0);
        // The row TOO LONG has no bound.
        if let Some(le) = row.number(0).filter(|le| *le != 0.0) {
            family.put_line(Line::Bucket, &[("le", &bound(le))], count);
        }
    }
    family.put_line(Line::Bucket, &[("le", "+Inf")], count);
    family.put_line(Line::Sum, &[], sum);
    family.put_line(Line::Count, &[], count);
}

const PROCESSES: &str = "SELECT user, SUBSTRING_INDEX(host, ':', 1) AS host, COALESCE(command, '') AS command, \
     COALESCE(state, '') AS state, COUNT(*) AS processes, SUM(time) AS seconds FROM information_schema.processlist \
     WHERE ID != connection_id() AND TIME >= 0 GROUP BY user, SUBSTRING_INDEX(host, ':', 1), command, state";

fn processes(table: &Table, batch: &mut Batch) {
    let mut states: BTreeMap<(String, String), (f64, f64)> = BTreeMap::new();
    let (mut users, mut hosts) = (BTreeMap::<&str, f64>::new(), BTreeMap::<&str, f64>::new());
    for row in table.rows() {
        let (count, seconds) = (row.number(4).unwrap_or(0.0), row.number(5).unwrap_or(0.0));
        let state = states
            .entry((state_word(row.text(2)), state_word(row.text(3))))
            .or_default();
        state.0 += count;
        state.1 += seconds;
        *users.entry(row.text(0)).or_default() += count;
        let host = if row.text(1).is_empty() {
            "unknown"
        } else {
            row.text(1)
        };
        *hosts.entry(host).or_default() += count;
    }
    let mut put = |name: &str, help: &'static str, labels: &[(&str, &str)], value: f64| {
        let name = format!("mysql_info_schema_processlist_{name}");
        batch.family(&name, Kind::Gauge, help).put(labels, value);
    };
    for ((command, state), (count, seconds)) in &states {
        let labels = [("command", command.as_str()), ("state", state.as_str())];
        put(
            "threads",
            "The number of threads split by current state.",
            &labels,
            *count,
        );
        let help = "The number of seconds threads have used split by current state.";
        put("seconds", help, &labels, *seconds);
    }
    for (user, count) in users {
        put(
            "processes_by_user",
            "The number of processes by user.",
            &[("mysql_user", user)],
            count,
        );
    }
    for (host, count) in hosts {
        put(
            "processes_by_host",
            "The number of processes by host.",
            &[("client_host", host)],
            count,
        );
    }
}

/// `Waiting for commit lock (1)` as `waiting_for_commit_lock_1`.
fn state_word(text: &str) -> String {
    if text.is_empty() {
        return "unknown".to_owned();
    }
    let lower = text.to_lowercase();
    let kept = lower.chars().filter(|part| !";,:.()".contains(*part));
    kept.map(|part| {
        if part == ' ' || part == '-' {
            '_'
        } else {
            part
        }
    })
    .collect()
}

const TABLES: &str = "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ifnull(ENGINE, 'NONE'), ifnull(VERSION, '0'), \
     ifnull(ROW_FORMAT, 'NONE'), ifnull(TABLE_ROWS, '0'), ifnull(DATA_LENGTH, '0'), ifnull(INDEX_LENGTH, '0'), \
     ifnull(DATA_FREE, '0'), ifnull(CREATE_OPTIONS, 'NONE') FROM information_schema.tables \
     WHERE TABLE_SCHEMA NOT IN ('mysql', 'performance_schema', 'information_schema')";

fn tables(table: &Table, batch: &mut Batch) {
    for row in table.rows() {
        let number = |column| row.number(column).unwrap_or(0.0);
        let of = [("schema", row.text(0)), ("table", row.text(1))];
        let more = [
            ("type", row.text(2)),
            ("engine", row.text(3)),
            ("row_format", row.text(5)),
            ("create_options", row.text(10)),
        ];
        let mut put = |name: &str, help: &'static str, labels: &[(&str, &str)], value: f64| {
            let name = format!("mysql_info_schema_table_{name}");
            batch.family(&name, Kind::Gauge, help).put(labels, value);
        };
        let labels = [&of[..], &more].concat();
        put(
            "version",
            "The version number of the table's .frm file",
            &labels,
            number(4),
        );
        let help = "The estimated number of rows in the table from information_schema.tables";
        put("rows", help, &of, number(6));
        for (component, column) in [("data_length", 7), ("index_length", 8), ("data_free", 9)] {
            let labels = [&of[..], &[("component", component)]].concat();
            let help = "The size of the table components from information_schema.tables";
            put("size", help, &labels, number(column));
        }
    }
}

fn binlog(table: &Table, batch: &mut Batch) {
    let rows: Vec<Row<'_>> = table.rows().collect();
    if table.columns.is_empty() {
        return;
    }
    let size: f64 = rows.iter().filter_map(|row| row.number(1)).sum();
    let last = rows
        .last()
        .and_then(|row| row.text(0).rsplit('.').next()?.parse().ok());
    #[expect(clippy::cast_precision_loss, reason = "a server has a few files")]
    let count = rows.len() as f64;
    batch.gauge(
        "mysql_binlog_size_bytes",
        "Combined size of all registered binlog files.",
        size,
    );
    batch.gauge(
        "mysql_binlog_files",
        "Number of registered binlog files.",
        count,
    );
    batch.gauge(
        "mysql_binlog_file_number",
        "The last binlog file number.",
        last.unwrap_or(0.0),
    );
}

fn innodb_status(table: &Table, batch: &mut Batch) {
    let text = table.rows().next().map_or("", |row| row.text(2));
    let mut put = |name: &str, help: &'static str, number: &str| {
        if let Ok(value) = number.trim().parse() {
            batch.gauge(&format!("mysql_engine_innodb_{name}"), help, value);
        }
    };
    for line in text.lines() {
        if let Some((inside, rest)) = line.split_once(" queries inside InnoDB, ") {
            put("queries_inside_innodb", "Queries inside InnoDB.", inside);
            let waiting = rest.split(' ').next().unwrap_or_default();
            put("queries_in_queue", "Queries in queue.", waiting);
        } else if let Some(views) = line.strip_suffix(" read views open inside InnoDB") {
            put(
                "read_views_open_inside_innodb",
                "Read views open inside InnoDB.",
                views,
            );
        }
    }
}
