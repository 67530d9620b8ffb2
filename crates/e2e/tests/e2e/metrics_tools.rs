//! `podkit metrics` as Prometheus' own tools and other people's parsers read it, `/probe`, and `--check-dashboards`, with real servers.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use podkit_testkit::memcached::Memcached;
use podkit_testkit::net::free_addr;
use podkit_testkit::peers;
use podkit_testkit::podkit::podkit;
use podkit_testkit::redis::Redis;
use podkit_testkit::{Need, Turn, able, http, program, repository, skip, until};
use rustix::process::Signal;

use crate::metrics_redis::{QUICK, Scrape, metrics, within_a_second};

/// Reads OpenMetrics as prometheus_client does, and prints how many families there are.
const CLIENT: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
print(len(list(families(sys.stdin.read()))))
";

/// Runs a program with that on its standard input: whether it was content, and what it said.
fn fed(command: &mut Command, text: &str) -> (bool, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let done = child.wait_with_output().expect("it ends");
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// python3 that has prometheus_client.
fn client() -> Option<Command> {
    let mut command = Command::new(program("python3")?);
    command.env("PYTHONPATH", repository().join("target/prometheus-client"));
    command.args(["-c", CLIENT]);
    let (there, _) = fed(&mut command, "# EOF\n");
    there.then_some(command)
}

#[test]
fn promtool_and_prometheus_client_read_it() {
    let needs = ["redis-server", "memcached", "nginx", "promtool"];
    if !able(&needs.map(Need::Program)) {
        return;
    }
    let _turn = Turn::shared();
    let (redis, memcached, web) = (Redis::start(&[]), Memcached::start(), free_addr());
    redis.client().line("set a 1");
    memcached.client().lines("set a 0 0 1|1");
    let config = format!("server {{ listen {web}; location /stub_status {{ stub_status; }} }}");
    let _nginx = peers::nginx(&config, None, web, None);
    let sources = [
        format!("cache=redis://{}", redis.addr),
        format!("memcached://{}", memcached.addr),
        format!("nginx+http://{web}"),
    ];
    let open = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let client = client();
    if client.is_none() {
        skip("the Python package prometheus_client in target/ (cargo xtask test puts it there)");
    }
    let mut client = client;
    for more in [&["--strict-names"][..], &[]] {
        let (_module, addr) = metrics(&sources, more);
        let text = Scrape::of(addr).text;
        for up in [
            "redis_up{source=\"cache\"} 1",
            "memcached_up 1",
            "nginx_up 1",
        ] {
            assert!(text.contains(up), "{up}: {text}");
        }
        if !more.is_empty() {
            let mut command = Command::new("promtool");
            let (good, said) = fed(command.args(["check", "metrics"]), &text);
            assert!(good, "{said}");
        }
        if let Some(client) = &mut client {
            let text = http::get_with(addr, "/metrics", open)
                .expect("it answers")
                .text();
            let (good, said) = fed(client, &text);
            assert!(good, "{said}");
            assert!(
                said.trim()
                    .parse::<u32>()
                    .is_ok_and(|families| families > 150),
                "{said}"
            );
        }
    }
}

#[test]
fn targets_are_asked_as_a_file_says() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: &str| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a new file");
        path
    };
    let (one, two) = (
        Redis::start(&["--requirepass", "pw-one"]),
        Redis::start(&[]),
    );
    let targets = |password: &str| {
        let password = file("one", password);
        let text = format!(
            "- match: redis://{}\n  password-file: {}\n- match: redis://{}\n- match: redis://{}\n  module: keys\n  count-keys: '*'\n",
            one.addr,
            password.display(),
            two.addr,
            two.addr
        );
        file("targets.yaml", &text)
    };
    let path = targets("wrong\n");
    let (_module, addr) = metrics(&[], &[QUICK, &format!("--targets-file={}", path.display())]);
    let probe = |query: &str| http::get(addr, &format!("/probe?{query}")).expect("it answers");
    let of = |redis: &Redis| probe(&format!("target=redis%3A%2F%2F{}", redis.addr));
    for (query, status, why) in [
        (String::new(), 400, "which?"),
        (
            format!("target=redis://{}", free_addr()),
            403,
            "no entry of --targets-file matches it",
        ),
        (
            format!("target=redis://{}&module=x", two.addr),
            403,
            "with module \"x\"",
        ),
        (
            format!("target=redis://{};password-file=/etc/passwd", two.addr),
            400,
            "--targets-file alone",
        ),
    ] {
        let answer = probe(&query);
        assert_eq!(answer.status, status, "{query}");
        assert!(answer.text().contains(why), "{}", answer.text());
        assert_eq!(answer.text().lines().count(), 1);
    }
    assert!(
        of(&one).text().contains("\nredis_up 0\n"),
        "{}",
        of(&one).text()
    );
    targets("pw-one\n");
    let up = |redis: &Redis| {
        until("it is up", || {
            of(redis).text().contains("\nredis_up 1\n").then_some(())
        });
    };
    up(&one);
    up(&two);
    let connections = |redis: &Redis| {
        let text = of(redis).text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("redis_connections_received_total "));
        line.map(str::to_owned).expect("it is told")
    };
    assert_eq!(
        connections(&two),
        connections(&two),
        "the connection is kept"
    );
    two.server.process.signal(Signal::STOP);
    let hanging = within_a_second(|| of(&two).text());
    two.server.process.signal(Signal::CONT);
    assert!(
        hanging.contains("\nredis_up 0\n") && hanging.contains("\nredis_connected_clients "),
        "{hanging}"
    );
    up(&two);
}

/// A rule for each name.
fn rules(dir: &Path, names: impl IntoIterator<Item = String>) -> String {
    let mut text = "groups:\n- name: g\n  rules:\n".to_owned();
    for name in names {
        writeln!(text, "  - {{alert: A, expr: '{name} > 0'}}").expect("a String");
    }
    let path = dir.join("rules.yaml");
    std::fs::write(&path, text).expect("a new file");
    format!("--check-dashboards={}", path.display())
}

#[test]
fn dashboards_are_checked_against_what_is_said_and_what_could_be() {
    if !able(&["redis-server", "memcached"].map(Need::Program)) {
        return;
    }
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (redis, memcached) = (Redis::start(&[]), Memcached::start());
    redis.client().line("set a 1");
    memcached.client().lines("set a 0 0 1|1");
    let sources = [
        format!("redis://{}", redis.addr),
        format!("memcached://{}", memcached.addr),
    ];
    let (_module, addr) = metrics(&sources, &[]);
    let scrape = Scrape::of(addr);
    let name = |series: &String| series.split('{').next().unwrap_or(series).to_owned();
    let file = rules(dir.path(), scrape.values.keys().map(name));
    // Nobody is there: what their kinds can say is what they say.
    let dead = free_addr();
    let (one, two) = (
        format!("--source=redis://{dead}"),
        format!("--source=memcached://{dead}"),
    );
    let checked = podkit(&["metrics", &one, &two, &file]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    assert!(checked.out.contains("names are there"), "{}", checked.out);
    let database = format!("--source=mysql://{dead}");
    let checked = podkit(&["metrics", &one, &database, &file]);
    assert_eq!(checked.code, Some(1), "{}{}", checked.out, checked.err);
    let why = format!("is known from its answer only: mysql://{dead}");
    assert!(checked.err.contains(&why), "{}", checked.err);
    let source = format!("--source={}", sources[0]);
    let file = rules(
        dir.path(),
        [
            "redis_memory_usd_bytes",
            "redis_master_link_up",
            "memcached_up",
        ]
        .map(str::to_owned),
    );
    let checked = podkit(&["metrics", &source, &file]);
    assert_eq!(checked.code, Some(1), "{}{}", checked.out, checked.err);
    let lines: Vec<&str> = checked.out.lines().collect();
    assert_eq!(lines.len(), 2, "{}", checked.out);
    assert!(lines[0].ends_with("rules.yaml: alert A: redis_memory_usd_bytes is missing; nearest is redis_memory_used_bytes"), "{}", lines[0]);
    assert!(
        checked.err.contains("2 of 3 names are missing"),
        "{}",
        checked.err
    );
    let wrong = podkit(&["metrics", &source, "--check-names=/x"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
}

/// examples/observability asks for what podkit has.
#[test]
fn alerts_and_the_dashboard_of_podkit_itself_know_its_names() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let surface: serde_json::Value =
        serde_json::from_str(&podkit(&["explain", "-o", "json"]).ok()).expect("JSON");
    let mut names = String::new();
    for module in surface["modules"].as_array().expect("modules") {
        for metric in module["metrics"].as_array().expect("metrics") {
            let name = metric["name"].as_str().expect("a name");
            let ends: &[&str] = match metric["type"].as_str() {
                Some("histogram") => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            for end in ends {
                writeln!(names, "{name}{end}").expect("a String");
            }
        }
    }
    let list = dir.path().join("names");
    std::fs::write(&list, names).expect("a new file");
    let list = format!("--check-names={}", list.display());
    let statsd = "--source=statsd://:9125";
    let example = |name: &str| repository().join("examples/observability").join(name);
    let (alerts, dashboard) = (example("alerts.yaml"), example("dashboard.json"));
    let file = |path: &Path| format!("--check-dashboards={}", path.display());
    let checked = podkit(&["metrics", &list, statsd, &file(&alerts), &file(&dashboard)]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    // It would be seen.
    for (path, from, to, line) in [
        (
            &dashboard,
            "podkit_shard_out",
            "podkit_shard_ot",
            "panel \"Shards that are out\": podkit_shard_ot is missing; nearest is podkit_shard_out\n",
        ),
        (
            &alerts,
            "statsd_bad_lines",
            "statsd_bad_line",
            "alert PodkitStatsdUnread: podkit_metrics_statsd_bad_line_total is missing; nearest is podkit_metrics_statsd_bad_lines_total\n",
        ),
    ] {
        let other = dir.path().join(path.file_name().expect("a file"));
        let text = std::fs::read_to_string(path).expect("it is there");
        std::fs::write(&other, text.replace(from, to)).expect("a new file");
        let checked = podkit(&["metrics", &list, statsd, &file(&other)]);
        assert_eq!(checked.code, Some(1), "{}{}", checked.out, checked.err);
        assert!(checked.out.ends_with(line), "{}", checked.out);
    }
    if program("promtool").is_some() {
        let (good, said) = fed(
            Command::new("promtool")
                .args(["check", "rules"])
                .arg(&alerts),
            "",
        );
        assert!(good, "{said}");
        let (good, said) = fed(
            Command::new("promtool")
                .args(["test", "rules"])
                .arg(repository().join("crates/e2e/tests/rules/health.yaml")),
            "",
        );
        assert!(good, "{said}");
    }
}
