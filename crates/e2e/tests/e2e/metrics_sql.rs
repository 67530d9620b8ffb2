//! `podkit metrics` beside mysqld_exporter and postgres_exporter, of the same servers: every family, type, label and value of theirs is there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use podkit_testkit::certs::Authority;
use podkit_testkit::mariadb::MariaDb;
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::postgres::Postgres;
use podkit_testkit::process::Process;
use podkit_testkit::{Need, Turn, able, http, program, until};
use rustix::process::Signal;

use crate::metrics_redis::within_a_second;

const PASSWORD: &str = "it-is~secret";

/// A scrape: families with their types, samples with their values.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

/// What exporters tell of their own process is not of the server.
fn is_own(name: &str) -> bool {
    [
        "go_",
        "process_",
        "promhttp_",
        "mysqld_exporter_",
        "postgres_exporter_",
    ]
    .iter()
    .any(|begin| name.starts_with(begin))
}

/// Name and labels of a sample, the labels in order.
fn series(line: &str) -> (String, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
    let value = value.parse().expect("a number");
    let Some((name, labels)) = series
        .strip_suffix('}')
        .and_then(|text| text.split_once('{'))
    else {
        return (series.to_owned(), value);
    };
    // No label in these tests has a comma behind a quote.
    let mut labels: Vec<&str> = labels
        .split("\",")
        .map(|one| one.trim_end_matches('"'))
        .collect();
    labels.sort_unstable();
    (format!("{name}{{{}}}", labels.join(",")), value)
}

impl Scrape {
    fn of(addr: SocketAddr) -> Self {
        let answer = http::get(addr, "/metrics").expect("it answers");
        assert_eq!(answer.status, 200);
        let mut scrape = Self::default();
        for line in answer.text().lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').expect("a type");
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') && !line.is_empty() {
                scrape.samples.extend([series(line)]);
            }
        }
        scrape.types.retain(|name, _| !is_own(name));
        scrape.samples.retain(|name, _| !is_own(name));
        scrape
    }

    fn value(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }
}

/// Scrapes theirs, ours, and theirs again: what is not there, or is otherwise. A value that moves has to lie between, or near: both count what the
/// other asks, and have connections of their own. What begins with one of `exact` does not move.
fn differences(theirs: SocketAddr, ours: SocketAddr, exact: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let before = Scrape::of(theirs);
    let mine = Scrape::of(ours);
    let after = Scrape::of(theirs);
    for (name, kind) in &before.types {
        let other = mine.types.get(name);
        if other != Some(kind) {
            found.push(format!("{name}: {kind}, ours {other:?}"));
        }
    }
    for (series, first) in &before.samples {
        let last = after.value(series).unwrap_or(*first);
        let Some(value) = mine.value(series) else {
            found.push(format!("{series} is not there"));
            continue;
        };
        let (low, high) = (first.min(last), first.max(last));
        let room = match exact.iter().any(|begin| series.starts_with(begin)) {
            true => 0.0,
            false => 0.1 * high.abs() + 5.0,
        };
        let fits =
            (low - room..=high + room).contains(&value) || (first.is_nan() && value.is_nan());
        if !fits {
            found.push(format!("{series}: {first} to {last}, ours {value}"));
        }
    }
    found
}

/// An exporter of a server, once it answers.
fn exporter(name: &str, source: &str, args: &[&str]) -> (Process, SocketAddr) {
    let addr = free_addr();
    let mut command = Command::new(program(name).expect("it is installed"));
    command
        .arg(format!("--web.listen-address={addr}"))
        .args(args)
        .env("DATA_SOURCE_NAME", source);
    let process = Process::spawn(name, &mut command);
    until(name, || http::get(addr, "/metrics").ok());
    (process, addr)
}

/// podkit with these sources, and its `/metrics`.
fn metrics(args: &[&str]) -> (Module, SocketAddr) {
    let addr = free_addr();
    let listen = format!("--listen={addr}");
    let args: Vec<&str> = [listen.as_str()].iter().chain(args).copied().collect();
    (Module::start("metrics", &args, &[]), addr)
}

fn written(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a new file");
    path
}

/// Scrapes until this says that the server is there.
fn comes_up(addr: SocketAddr, up: &str) {
    until(up, || {
        (Scrape::of(addr).value(up) == Some(1.0)).then_some(())
    });
}

/// Its last values within a second, and what it says then.
fn hangs(addr: SocketAddr, up: &str, known: &str) {
    let scrape = within_a_second(|| Scrape::of(addr));
    assert_eq!(scrape.value(up), Some(0.0));
    assert!(scrape.value(known).is_some(), "{known} is gone");
}

const QUERIES: &str = "
PREFIX_shop:
  query: \"SELECT 'paid' AS state, 3 AS orders, 0.5 AS more, NULL AS nothing\"
  metrics:
    - state: {usage: LABEL, description: State of the orders}
    - orders: {usage: GAUGE, description: Orders in that state}
    - nothing: {usage: COUNTER, description: Nothing}
";

#[test]
fn mysql_is_as_its_exporter_has_it() {
    if !able(&[
        Need::Program("mariadbd"),
        Need::Program("prometheus-mysqld-exporter"),
    ]) {
        return;
    }
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("database");
    let (cert, key) = authority.server(&["127.0.0.1"]).write(dir.path(), "db");
    let ca = written(dir.path(), "ca.pem", &authority.pem());
    let password = written(dir.path(), "password", PASSWORD);
    let me = rustix::process::geteuid().is_root();
    let me = if me {
        "root".to_owned()
    } else {
        std::env::var("USER").expect("a user has a name")
    };
    let sql = format!(
        "INSTALL SONAME 'auth_ed25519';\n\
         CREATE USER ed@'127.0.0.1' IDENTIFIED VIA ed25519 USING PASSWORD(\"{PASSWORD}\");\n\
         CREATE USER exporter@'127.0.0.1' IDENTIFIED BY \"{PASSWORD}\";\n\
         GRANT PROCESS, BINLOG MONITOR, SLAVE MONITOR, SELECT ON *.* TO exporter@'127.0.0.1';\n\
         CREATE OR REPLACE USER '{me}'@localhost IDENTIFIED VIA unix_socket;\n\
         INSTALL SONAME 'query_response_time';\n\
         SET GLOBAL query_response_time_stats = ON;\n\
         CREATE DATABASE shop;\n\
         CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, state TEXT);\n\
         CHANGE MASTER 'other' TO MASTER_HOST='127.0.0.1', MASTER_PORT=1;\n"
    );
    let tls = [
        format!("--ssl-cert={}", cert.display()),
        format!("--ssl-key={}", key.display()),
    ];
    let database = MariaDb::start(&sql, &[&tls[0], &tls[1], "--log-bin=log", "--server-id=1"]);
    let more = "info_schema.tables+binlog_size+engine_innodb_status+auto_increment.columns";
    let flags: Vec<String> = more
        .split('+')
        .map(|one| format!("--collect.{one}"))
        .collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let data = format!("exporter:{PASSWORD}@tcp({})/", database.addr);
    let (_exporter, theirs) = exporter("prometheus-mysqld-exporter", &data, &flags);
    let queries = written(
        dir.path(),
        "queries.yaml",
        &QUERIES.replace("PREFIX", "mysql"),
    );
    let addr = database.addr;
    let user = format!("user=exporter;password-file={}", password.display());
    let source = format!(
        "mysql://{addr}/shop;{user};tls=off;collect={more}+info_schema.processlist;queries={}",
        queries.display()
    );
    let (_ours, ours) = metrics(&[&format!("--source={source}")]);
    // Its connection is there, and the server has seen both.
    Scrape::of(ours);
    assert_eq!(
        differences(
            theirs,
            ours,
            &[
                "mysql_global_variables_",
                "mysql_info_schema_table_",
                "mysql_binlog_"
            ]
        ),
        [""; 0]
    );
    let scrape = Scrape::of(ours);
    assert_eq!(scrape.value("mysql_shop_orders{state=\"paid}"), Some(3.0));
    assert_eq!(scrape.value("mysql_shop_more{state=\"paid}"), Some(0.5));
    // Each sees the other's connection and not its own.
    let went = "mysql_exporter_collector_success{collector=\"collect.info_schema.processlist}";
    assert_eq!(scrape.value(went), Some(1.0));

    // Who ends its connection is asked on another.
    let ids = database.sql("SELECT id FROM information_schema.processlist WHERE user = 'exporter'");
    for id in ids.split_ascii_whitespace() {
        database.sql(&format!("KILL {id}"));
    }
    comes_up(ours, "mysql_up");

    database.server.process.signal(Signal::STOP);
    hangs(ours, "mysql_up", "mysql_global_status_uptime");
    hangs(ours, "mysql_up", "mysql_global_status_uptime");
    database.server.process.signal(Signal::CONT);
    comes_up(ours, "mysql_up");

    // Every way in: another proof, TLS that is looked at, a socket; and who is not let in.
    let wrong = written(dir.path(), "wrong", "nothing");
    let sources = [
        format!(
            "ed=mysql://{addr};user=ed;tls=require;password-file={}",
            password.display()
        ),
        format!("verified=mysql://{addr};{user};tls=verify"),
        format!(
            "socket=mysql://unix:{};user={me}",
            database.socket.display()
        ),
        format!(
            "wrong=mysql://{addr};user=ed;password-file={}",
            wrong.display()
        ),
    ];
    let sources = sources.map(|source| format!("--source={source}"));
    let ca = format!("--upstream-ca={}", ca.display());
    let args: Vec<&str> = sources
        .iter()
        .map(String::as_str)
        .chain([ca.as_str(), "--source-timeout=5s"])
        .collect();
    let (module, several) = metrics(&args);
    let scrape = Scrape::of(several);
    for (name, up) in [
        ("ed", 1.0),
        ("verified", 1.0),
        ("socket", 1.0),
        ("wrong", 0.0),
    ] {
        let found = scrape.value(&format!("mysql_up{{source=\"{name}}}"));
        assert_eq!(found, Some(up), "{name}: {}", module.admin("/").text());
    }
    let page = module.admin("/").text();
    assert!(page.contains("Access denied for user"), "{page}");
}

#[test]
fn postgres_is_as_its_exporter_has_it() {
    if !able(&[
        Need::Program("pg_ctlcluster"),
        Need::Program("prometheus-postgres-exporter"),
    ]) {
        return;
    }
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("database");
    let ca = written(dir.path(), "ca.pem", &authority.pem());
    let password = written(dir.path(), "password", PASSWORD);
    let database = Postgres::start(PASSWORD, &[]);
    database.offer_tls(&authority.server(&["127.0.0.1"]));
    let set = |text: &str| database.sql(text).expect("it is done");
    set("SELECT pg_create_physical_replication_slot('spare')");
    set("CREATE DATABASE shop");
    set("CREATE TABLE orders (id int)");
    let addr = database.addr;
    let queries = format!(
        "{}
pg_clock:
  query: \"SELECT timestamptz '2026-11-29 04:17:25.5+01:30' AS at, true AS truth, '1h2s' AS took, 'a' AS word, \
          ARRAY[0.5, 1] AS spread, ARRAY[1, 2] AS spread_bucket, 7.5 AS spread_sum, 4 AS spread_count\"
  metrics:
    - at: {{usage: GAUGE, description: A time}}
    - truth: {{usage: GAUGE, description: A truth}}
    - took: {{usage: DURATION, description: A duration}}
    - word: {{usage: LABEL, description: A word}}
    - spread: {{usage: HISTOGRAM, description: A histogram}}
",
        QUERIES.replace("PREFIX", "pg")
    );
    let queries = written(dir.path(), "queries.yaml", &queries);
    let data = format!("postgresql://postgres:{PASSWORD}@{addr}/postgres?sslmode=disable");
    let extend = format!("--extend.query-path={}", queries.display());
    let (_exporter, theirs) = exporter("prometheus-postgres-exporter", &data, &[&extend]);
    let file = format!("password-file={}", password.display());
    let source = format!(
        "--source=postgres://{addr}/postgres;{file};tls=off;queries={}",
        queries.display()
    );
    let (_ours, ours) = metrics(&[&source]);
    Scrape::of(ours);
    let mut found = differences(
        theirs,
        ours,
        &[
            "pg_settings_",
            "pg_clock_",
            "pg_shop_",
            "pg_static",
            "pg_exporter_user",
        ],
    );
    // Its library sets this for its own session.
    found.retain(|one| !one.starts_with("pg_settings_extra_float_digits"));
    assert_eq!(found, [""; 0]);

    // Who ends its connection is asked on another.
    set("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'podkit'");
    comes_up(ours, "pg_up");

    database.signal_all(Signal::STOP);
    hangs(
        ours,
        "pg_up",
        "pg_settings_max_connections{server=\"ADDR}"
            .replace("ADDR", &addr.to_string())
            .as_str(),
    );
    database.signal_all(Signal::CONT);
    comes_up(ours, "pg_up");

    // A query that does not end is ended, one that writes is refused, and all else is there.
    let bad = written(
        dir.path(),
        "bad.yaml",
        "pg_slow:\n  query: SELECT pg_sleep(3600)\n  timeout: 100ms\n  metrics: []\n\
         pg_write:\n  query: INSERT INTO orders VALUES (1) RETURNING id\n  metrics: [{id: {usage: GAUGE}}]\n\
         pg_after:\n  query: SELECT 1 AS one\n  metrics: [{one: {usage: GAUGE}}]\n",
    );
    let sources = [
        format!("--source=verified=postgres://{addr}/shop;{file};tls=verify"),
        format!(
            "--source=socket=postgres://unix:{}:/postgres;queries={};collect=stat_user_tables@1h+postmaster+replication",
            database.socket.display(),
            bad.display()
        ),
    ];
    let ca = format!("--upstream-ca={}", ca.display());
    let (module, several) = metrics(&[&sources[0], &sources[1], &ca, "--source-timeout=5s"]);
    let scrape = Scrape::of(several);
    for name in ["verified", "socket"] {
        let up = scrape.value(&format!("pg_up{{source=\"{name}}}"));
        assert_eq!(up, Some(1.0), "{name}: {}", module.admin("/").text());
    }
    let went = |collector: &str| {
        scrape.value(&format!(
            "pg_scrape_collector_success{{collector=\"{collector},source=\"socket}}"
        ))
    };
    assert_eq!(went("queries.pg_slow"), Some(0.0));
    assert_eq!(went("queries.pg_write"), Some(0.0));
    assert_eq!(went("queries.pg_after"), Some(1.0));
    assert_eq!(went("postmaster"), Some(1.0));
    let ends = |begin: &str| {
        scrape
            .samples
            .keys()
            .any(|series| series.starts_with(begin))
    };
    assert!(ends("pg_after_one{") && ends("pg_postmaster_start_time_seconds{"));
    until("the part with an interval", || {
        let scrape = Scrape::of(several);
        scrape
            .samples
            .keys()
            .any(|series| series.starts_with("pg_stat_user_tables_n_live_tup{"))
            .then_some(())
    });
    assert_eq!(set("SELECT count(*) FROM orders").trim(), "0");
}
