//! `podkit metrics` with real Redis servers and a sentinel, beside the real redis_exporter.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use podkit_testkit::certs::Authority;
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::{Server, directory, launch, pinned};
use podkit_testkit::podkit::{Module, podkit};
use podkit_testkit::redis::{Client, Redis, Sentinel};
use podkit_testkit::{Need, Turn, able, http, program, until};
use rustix::process::Signal;

use crate::openmetrics;

const EXPORTER: &str = "prometheus-redis-exporter";

/// Families of redis_exporter that are about itself, or about what podkit does not have.
const LEFT_OUT: [&str; 3] = [
    "redis_exporter_build_info",
    "redis_last_key_groups_scrape_duration_milliseconds",
    "redis_target_scrape_request_errors_total",
];

/// How the names of gauges begin that are another at each look, or that the look itself changes.
const MOVES: [&str; 19] = [
    "redis_allocator_",
    "redis_client_recent_max_",
    "redis_connected_clients",
    "redis_connected_slave_",
    "redis_exporter_last_",
    "redis_last_slow_",
    "redis_latency_spike_",
    "redis_master_last_io_",
    "redis_master_repl_offset",
    "redis_mem_",
    "redis_memory_used_",
    "redis_repl_backlog_history_",
    "redis_sentinel_master_last_ok_",
    "redis_slave_repl_offset",
    "redis_slowlog_",
    "redis_start_time_",
    "redis_uptime_",
    "redis_io_threads_active",
    "redis_expired_stale_",
];

/// What an exporter said: kinds by family, values by series.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) kinds: BTreeMap<String, String>,
    pub(crate) values: BTreeMap<String, f64>,
    pub(crate) text: String,
}

impl Scrape {
    /// Of `/metrics` there.
    pub(crate) fn of(addr: SocketAddr) -> Self {
        let text = http::get(addr, "/metrics").expect("it answers").text();
        let (mut kinds, mut values) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a kind");
                kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                values.insert(in_order(series), value.parse().expect("a number"));
            }
        }
        Self {
            kinds,
            values,
            text,
        }
    }

    /// The value of a series, its labels by name.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        self.values.get(series).copied()
    }

    fn kind(&self, series: &str) -> &str {
        let name = series.split('{').next().unwrap_or(series);
        let ends = ["", "_bucket", "_sum", "_count"];
        let bases = ends.iter().filter_map(|end| name.strip_suffix(end));
        let mut kinds = bases.filter_map(|base| self.kinds.get(base));
        kinds.next().map_or("", String::as_str)
    }
}

/// A series with its labels by name: no order is promised.
fn in_order(series: &str) -> String {
    let Some((name, labels)) = series.split_once('{') else {
        return series.to_owned();
    };
    let labels = labels.trim_end_matches('}');
    let mut labels: Vec<&str> = labels.split_inclusive("\",").collect();
    for label in &mut labels {
        *label = label.trim_end_matches(',');
    }
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

/// What is scraped while a server hangs. It takes less than a second; where the machine has something else to do, one of three does.
pub(crate) fn within_a_second<T>(scrape: impl Fn() -> T) -> T {
    let mut times = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let scraped = scrape();
        let took = begun.elapsed();
        if took < Duration::from_secs(1) {
            return scraped;
        }
        times.push(took);
    }
    panic!("{times:?}");
}

/// A scrape in which this says that the server is there.
pub(crate) fn comes_up(ours: SocketAddr, up: &str) -> Scrape {
    until(up, || {
        let scrape = Scrape::of(ours);
        (scrape.value(up) == Some(1.0)).then_some(scrape)
    })
}

/// How long a server may be silent where one is to hang: the default.
pub(crate) const QUICK: &str = "--source-timeout=750ms";

/// The module with these sources, and where it is scraped.
pub(crate) fn metrics(sources: &[String], more: &[&str]) -> (Module, SocketAddr) {
    let listen = free_addr();
    let mut args = vec![format!("--listen={listen}")];
    if !more.contains(&QUICK) {
        // The machine may be slow.
        args.push("--source-timeout=5s".to_owned());
    }
    args.extend(sources.iter().map(|source| format!("--source={source}")));
    let args: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    (Module::start("metrics", &args, &[]), listen)
}

fn exporter(redis: SocketAddr) -> (Server, SocketAddr) {
    let found = program(EXPORTER).expect("it was looked for");
    let addr = free_addr();
    let mut command = pinned(None, &found);
    command.args([
        &format!("-redis.addr=redis://{redis}"),
        &format!("-web.listen-address={addr}"),
    ]);
    (launch(EXPORTER, directory(None), &mut command, addr), addr)
}

/// What the exporter says is said by podkit: `before` and `after` are its scrapes on either side of `theirs`.
#[track_caller]
fn same(before: &Scrape, theirs: &Scrape, after: &Scrape) {
    let mut wrong = String::new();
    let about_redis = |name: &str| name.starts_with("redis_");
    let missing: BTreeSet<&str> = theirs
        .kinds
        .keys()
        .map(String::as_str)
        .filter(|name| about_redis(name) && !after.kinds.contains_key(*name))
        .collect();
    if !missing.iter().all(|name| LEFT_OUT.contains(name)) {
        writeln!(wrong, "families are missing: {missing:?}").expect("a String");
    }
    for (name, kind) in &theirs.kinds {
        if let Some(ours) = after.kinds.get(name)
            && ours != kind
        {
            writeln!(wrong, "{name} is {ours}, not {kind}").expect("a String");
        }
    }
    for (series, value) in theirs.values.iter().filter(|(name, _)| about_redis(name)) {
        if LEFT_OUT.iter().any(|name| series.starts_with(name)) {
            continue;
        }
        let Some(high) = after.value(series) else {
            writeln!(wrong, "{series} is missing").expect("a String");
            continue;
        };
        // What came between the scrapes was not there before.
        let low = before.value(series);
        let counts = theirs.kind(series) == "counter" || series.contains("_usec_");
        let good = match counts {
            _ if series.contains("_exporter_") || series.contains("quantile=") => true,
            true => low.unwrap_or(0.0) <= *value && *value <= high,
            false => {
                MOVES.iter().any(|begin| series.starts_with(begin))
                    || low == Some(*value)
                    || high == *value
            }
        };
        if !good {
            writeln!(wrong, "{series} is {low:?} to {high}, theirs {value}").expect("a String");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Every database a little, errors of some kinds, entries of the logs.
fn use_it(client: &mut Client) {
    for line in [
        "SET a 1",
        "SET b 2 EX 1000",
        "LPUSH a 1",
        "NO SUCH COMMAND",
        "GET nothing",
        "HSET h f v",
        "SELECT 3",
        "MSET a 1 b 2 c 3",
        "SELECT 0",
        "EVAL return(1) 0",
        "DEBUG SLEEP 0.01",
    ] {
        client.line(line);
    }
}

#[test]
fn everything_that_redis_exporter_says_is_there() {
    if !able(&[Need::Program("redis-server"), Need::Program(EXPORTER)]) {
        return;
    }
    let _turn = Turn::shared();
    let logs = [
        "--slowlog-log-slower-than",
        "1000",
        "--latency-monitor-threshold",
        "5",
        "--enable-debug-command",
        "yes",
    ];
    let primary = Redis::start(&logs);
    use_it(&mut primary.client());
    let (host, port) = (
        primary.addr.ip().to_string(),
        primary.addr.port().to_string(),
    );
    let replica = Redis::start(&["--replicaof", &host, &port]);
    let sentinel = Sentinel::start(primary.addr, 1, Duration::from_secs(5));
    until("the replica", || {
        let info = replica.client().line("INFO replication");
        let seen = sentinel.client().line("INFO sentinel");
        (info.contains("master_link_status:up") && seen.contains("slaves=1")).then_some(())
    });
    let cluster = Redis::start(&["--cluster-enabled", "yes"]);
    let servers = [
        ("cluster", cluster.addr),
        ("primary", primary.addr),
        ("replica", replica.addr),
        ("sentinel", sentinel.addr),
    ];
    for (name, addr) in servers {
        let (_module, ours) = metrics(&[format!("redis://{addr}")], &[]);
        let (_exporter, theirs) = exporter(addr);
        let before = Scrape::of(ours);
        let theirs = Scrape::of(theirs);
        let after = Scrape::of(ours);
        assert_eq!(after.value("redis_up"), Some(1.0), "{name}");
        same(&before, &theirs, &after);
        // There are the newer ones too.
        let newer = match name {
            "sentinel" => "redis_sentinel_master_setting_ckquorum",
            _ => "redis_commands_latencies_usec",
        };
        assert!(after.kinds.contains_key(newer), "{name}: {newer}");
        // Two scrapes were one connection.
        let connections = |scrape: &Scrape| scrape.value("redis_connections_received_total");
        let between = connections(&after).zip(connections(&before));
        let between = between.map_or(0.0, |(after, before)| after - before);
        assert!(name != "primary" || between < 3.0, "{between}");
    }
}

#[test]
fn a_server_that_hangs_costs_a_scrape_less_than_a_second() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let redis = Redis::start(&[]);
    redis.client().line("SET a 1");
    let (_module, ours) = metrics(&[format!("cache=redis://{}", redis.addr)], &[QUICK]);
    let up = "redis_up{source=\"cache\"}";
    let keys = "redis_db_keys{db=\"db0\",source=\"cache\"}";
    let age = "podkit_metrics_source_age_seconds{source=\"cache\"}";
    assert_eq!(comes_up(ours, up).value(keys), Some(1.0));
    redis.server.process.signal(Signal::STOP);
    for _ in 0..2 {
        let scrape = within_a_second(|| Scrape::of(ours));
        assert_eq!(
            (scrape.value(up), scrape.value(keys)),
            (Some(0.0), Some(1.0))
        );
        assert!(scrape.value(age) > Some(0.7), "{:?}", scrape.value(age));
        assert!(scrape.text.contains("err=\"gave no answer for 750 ms\""));
    }
    redis.server.process.signal(Signal::CONT);
    redis.client().line("SET b 1");
    let scrape = comes_up(ours, up);
    assert_eq!(scrape.value(keys), Some(2.0));
    assert!(scrape.value(age) < Some(0.7), "{:?}", scrape.value(age));
}

#[test]
fn who_asks_is_read_anew_and_what_is_refused_is_not_asked_again() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let redis = Redis::start(&["--requirepass", "one"]);
    let mut admin = redis.client();
    admin.line("AUTH one");
    let dir = directory(None);
    let file = dir.path().join("password");
    let say = |password: &str| std::fs::write(&file, format!("{password}\n")).expect("a file");
    say("wrong");
    let source = format!("redis://{};password-file={}", redis.addr, file.display());
    let (_module, ours) = metrics(&[source], &[]);
    let scrape = Scrape::of(ours);
    assert_eq!(scrape.value("redis_up"), Some(0.0));
    assert!(scrape.text.contains("err=\"WRONGPASS "), "{}", scrape.text);
    say("one");
    assert_eq!(Scrape::of(ours).value("redis_up"), Some(1.0));
    // The connection that is there stays; a new one says what is in the file then.
    admin.line("CONFIG SET requirepass two");
    assert_eq!(Scrape::of(ours).value("redis_up"), Some(1.0));
    say("two");
    admin.line("CLIENT KILL TYPE normal");
    assert_eq!(Scrape::of(ours).value("redis_up"), Some(1.0));

    let mut admin = redis.client();
    admin.line("AUTH two");
    admin.line("ACL SETUSER watcher on >two +info +client|setname");
    let path = file.display();
    let source = format!("redis://{};user=watcher;password-file={path}", redis.addr);
    let (_module, ours) = metrics(&[source], &[]);
    let refused = || {
        let scrape = Scrape::of(ours);
        assert_eq!(scrape.value("redis_up"), Some(1.0));
        scrape.value("redis_errors_total{err=\"NOPERM\"}")
    };
    refused();
    let second = refused();
    assert!(second > Some(5.0), "{second:?}");
    assert_eq!(refused(), second);
    // Beside a source that is there, one that is not.
    let away = free_addr();
    let source = format!("redis://{};password-file={path}", redis.addr);
    let sources = [format!("a={source}"), format!("b=redis://{away}")];
    let (_module, ours) = metrics(&sources, &[]);
    let scrape = Scrape::of(ours);
    assert_eq!(scrape.value("redis_up{source=\"a\"}"), Some(1.0));
    assert_eq!(scrape.value("redis_up{source=\"b\"}"), Some(0.0));
}

const QUERIES: &str = "\
- name: jobs_waiting
  command: [LLEN, jobs]
  labels: {queue: mail}
- name: stock
  script: return redis.call('HGETALL', KEYS[1])
  keys: [stock]
  each: item
  database: 1
- name: all_keys
  command: [DBSIZE]
  interval: 1s
- name: broken
  command: [LLEN, stream]
";

#[test]
fn keys_streams_clients_and_queries() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let dir = directory(None);
    let socket = dir.path().join("redis.sock");
    let redis = Redis::start(&["--unixsocket", &socket.display().to_string()]);
    let mut client = redis.client();
    for line in [
        "RPUSH jobs a b c",
        "SET user:1 17",
        "SET user:2 seventeen",
        "PFADD seen a b",
        "XADD stream 5-0 f v",
        "XGROUP CREATE stream g 0",
        "XREADGROUP GROUP g me STREAMS stream >",
        "SELECT 1",
        "HSET stock pens 5 ink 2",
    ] {
        client.line(line);
    }
    let file = dir.path().join("queries.yml");
    std::fs::write(&file, QUERIES).expect("a file");
    let source = format!(
        "redis://unix:{}:/0;check-keys=user:*|seen|none|db1=stock;count-keys=user:*;check-streams=str*;clients=on;queries={}",
        socket.display(),
        file.display()
    );
    let (_module, ours) = metrics(&[source], &[]);
    let expected = [
        ("jobs_waiting{queue=\"mail\"}", 3.0),
        ("stock{item=\"pens\"}", 5.0),
        ("stock{item=\"ink\"}", 2.0),
        ("all_keys", 5.0),
        ("podkit_metrics_query_up{query=\"broken\"}", 0.0),
        ("podkit_metrics_query_up{query=\"stock\"}", 1.0),
        ("redis_keys_count{db=\"db0\",key=\"user:*\"}", 2.0),
        ("redis_key_size{db=\"db0\",key=\"user:1\"}", 2.0),
        ("redis_key_value{db=\"db0\",key=\"user:1\"}", 17.0),
        (
            "redis_key_value_as_string{db=\"db0\",key=\"user:2\",val=\"seventeen\"}",
            1.0,
        ),
        ("redis_key_size{db=\"db0\",key=\"seen\"}", 2.0),
        ("redis_key_size{db=\"db0\",key=\"none\"}", 0.0),
        ("redis_key_size{db=\"db1\",key=\"stock\"}", 2.0),
        ("redis_stream_length{db=\"db0\",stream=\"stream\"}", 1.0),
        (
            "redis_stream_last_entry_id{db=\"db0\",stream=\"stream\"}",
            5.0,
        ),
        (
            "redis_stream_group_messages_pending{db=\"db0\",group=\"g\",stream=\"stream\"}",
            1.0,
        ),
        (
            "redis_stream_group_consumer_messages_pending{consumer=\"me\",db=\"db0\",group=\"g\",stream=\"stream\"}",
            1.0,
        ),
    ];
    let mut left = Vec::new();
    let scrape = until("what is asked beside scrapes", || {
        let scrape = Scrape::of(ours);
        left = expected
            .iter()
            .filter(|(series, value)| scrape.value(series) != Some(*value))
            .collect();
        // The last look shows what is left.
        left.is_empty().then_some(scrape)
    });
    let clients = "redis_connected_client_info{";
    let clients = scrape.values.keys().filter(|one| one.starts_with(clients));
    assert!(clients.count() >= 2);
    // Strings were not asked for what only others have: nothing but the broken query is an error, which the next scrape tells of.
    let next = Scrape::of(ours);
    let errors: Vec<&String> = next
        .values
        .keys()
        .filter(|one| one.starts_with("redis_errors_total"))
        .collect();
    assert_eq!(errors, ["redis_errors_total{err=\"WRONGTYPE\"}"]);
    let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let open = http::get_with(ours, "/metrics", accept).expect("it answers");
    let samples = openmetrics::parse(&open.text(), true).expect("OpenMetrics");
    assert!(samples.len() > 100, "{}", samples.len());
}

#[test]
fn a_server_by_tls() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let dir = directory(None);
    let authority = Authority::new("test");
    let redis = Redis::start_tls(&authority, dir.path());
    let (cert, key) = authority.peer(&["podkit"]).write(dir.path(), "podkit");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("a file");
    let files = [("ca", &ca), ("cert", &cert), ("key", &key)];
    let files = files.map(|(name, path)| format!("--upstream-{name}={}", path.display()));
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let sources = [
        format!("a=rediss://{}", redis.addr),
        format!("b=rediss://{};server-name=other.test", redis.addr),
    ];
    let (_module, ours) = metrics(&sources, &files);
    let scrape = Scrape::of(ours);
    assert_eq!(scrape.value("redis_up{source=\"a\"}"), Some(1.0));
    assert_eq!(scrape.value("redis_up{source=\"b\"}"), Some(0.0));
}

#[test]
fn a_source_that_is_wrong_is_told() {
    let _turn = Turn::shared();
    for (source, why) in [
        ("redis://h/x", "\"x\" is not the number of a database"),
        ("redis://h;user=me", "user needs password-file"),
        ("redis://h;clients=yes", "clients=yes is neither on nor off"),
        (
            "redis://h;check-keys=dbx=a",
            "\"dbx\" is not a database such as db0",
        ),
        ("redis://h;queries=/none.yml", "/none.yml: no such file"),
        (
            "redis://h;keys-interval=0s",
            "keys-interval=0s is not a time",
        ),
        ("redis://h;server-name=x", "server-name"),
        ("memcached://h/x", "a memcached has no /x"),
    ] {
        let listen = format!("--listen={}", free_addr());
        let finished = podkit(&["metrics", &listen, "--source", source]);
        assert_ne!(finished.code, Some(0), "{source}");
        assert!(finished.err.contains(why), "{source}: {}", finished.err);
    }
}
