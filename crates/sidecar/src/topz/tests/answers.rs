//! What is asked, what is answered, and who serves it.

use podkit_dataplane::module::{Answer, Query};
use podkit_foundation::params::{Addr, ParamType as _};
use podkit_foundation::telemetry::metrics::{Format, Registry};

use crate::topz::detail::inet_line;
use crate::topz::metrics;
use crate::topz::pages;
use crate::topz::procfs::Proc;
use crate::topz::query::{At, parse};
use crate::topz::service::Door;
use crate::topz::snapshot::Sort;
use crate::topz::text::{size, utc};
use crate::topz::watch::Watcher;

use super::proc::{Tree, second};

const NAMES: &[&str] = &["at", "sort", "pid", "limit", "container"];

#[test]
fn queries_that_are_right() {
    let at = |query: &str| parse(query, NAMES).unwrap().at;
    assert_eq!(at(""), At::Now);
    assert_eq!(at("at=-40s"), At::Ago(40_000));
    assert_eq!(
        (at("at=-1.5m"), at("at=-250ms"), at("at=-2h"), at("at=-7")),
        (
            At::Ago(90_000),
            At::Ago(250),
            At::Ago(7_200_000),
            At::Ago(7000)
        )
    );
    assert_eq!(at("at=1700000000.25"), At::Wall(1_700_000_000_250));
    let asked = parse("sort=memory&pid=7&limit=3&container=a%20b+c", NAMES).unwrap();
    assert_eq!(
        (
            asked.sort,
            asked.pid,
            asked.limit,
            asked.container.as_deref()
        ),
        (Sort::Memory, Some(7), Some(3), Some("a b c"))
    );
}

#[test]
fn queries_that_are_wrong_get_one_line() {
    let check = |query: &str, expected: &str| {
        let line = parse(query, &["at", "sort", "pid"]).unwrap_err();
        assert!(
            line.contains(expected) && !line.contains('\n'),
            "{query}: {line}"
        );
    };
    check(
        "at=40s",
        "at=\"40s\" is not right; expected -40s, -5m or a Unix time",
    );
    check("at=-", "at=\"-\"");
    check("at=-1e9s", "at=\"-1e9s\"");
    check("at=-NaNs", "expected -40s");
    check("at=99999999999999999999", "expected -40s");
    check(
        "sort=size",
        "sort=\"size\" is not right; expected cpu, memory, pid",
    );
    check("pid=-1", "expected a process id");
    check(
        "limit=3",
        "\"limit\" is not a parameter here; there are: at, sort, pid",
    );
    check("x%0ay=1", "is not a parameter here");
    check("sort=%zz", "sort: not a well-formed %-encoding");
    check("sort=%0Aevil", "sort=\"?evil\"");
}

struct Site {
    watcher: Watcher,
    proc: Proc,
}

impl Site {
    fn new() -> Self {
        let tree = Tree::new();
        tree.process(5, 0, 100, "app one", "0::/podkit/web/app\n");
        tree.process(6, 5, 200, "app <two>", "0::/podkit/web/app\n");
        tree.process(7, 0, 300, "sidecar", "0::/podkit/web/tls\n");
        tree.put("pod.json", r#"{"pod":"web"}"#);
        let mut watcher = tree.watcher();
        watcher.look(second(100));
        tree.process(6, 5, 250, "app <two>", "0::/podkit/web/app\n");
        watcher.look(second(101));
        tree.process(6, 5, 251, "app <two>", "0::/podkit/web/app\n");
        watcher.look(second(102));
        Self {
            watcher,
            proc: Proc::open("/proc".as_ref()).unwrap(),
        }
    }

    fn get(&self, path: &str, query: &str) -> (u16, String) {
        let asked = Query {
            path,
            query,
            accept: "",
        };
        let Answer { status, body, .. } = pages::answer(
            &self.watcher.shared(),
            &self.proc,
            Door::Admin,
            &asked,
            second(102),
        );
        (status, String::from_utf8(body).unwrap())
    }

    fn json(&self, path: &str, query: &str) -> serde_json::Value {
        let (status, body) = self.get(path, query);
        assert_eq!(status, 200, "{path}?{query}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[test]
fn the_table_of_text() {
    let site = Site::new();
    let (status, text) = site.get("/topz", "sort=cpu");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(status, 200);
    assert_eq!(
        lines[0],
        "web: 3 processes, 6 threads, CPU 1.0, memory 120Ki at 2023-11-14T22:15:02Z"
    );
    assert!(
        lines[2].starts_with("CONTAINER     PID    PPID USER S   CPU%"),
        "{text}"
    );
    let columns: Vec<&str> = lines[3].split_whitespace().collect();
    assert_eq!(
        columns[..8],
        ["app", "6", "5", "1000", "S", "1.0", "40.0Ki", "2"].map(|word| if word == "40.0Ki" {
            "40Ki"
        } else {
            word
        })
    );
    assert!(lines[3].ends_with("app <two>"));
    let (_, past) = site.get("/topz", "at=-1s&limit=1");
    assert!(
        past.contains("CPU 50.0") && past.contains(", 1 s ago") && past.lines().count() == 4,
        "{past}"
    );
    assert_eq!(
        site.get("/topz", "at=-1h"),
        (404, "the history goes back 2 s only\n".to_owned())
    );
    assert_eq!(site.get("/topz", "sort=x").0, 400);
}

#[test]
fn json_of_now_and_then() {
    let site = Site::new();
    let now = site.json("/api/processes", "sort=pid&container=app");
    assert_eq!(
        (
            now["total"].as_u64(),
            now["processes"].as_array().unwrap().len()
        ),
        (Some(3), 2)
    );
    assert_eq!(
        (&now["at"], &now["latest"], &now["pod"]),
        (&1_700_000_102.0.into(), &true.into(), &"web".into())
    );
    assert_eq!(now["processes"][1]["cpu_percent"], 1.0);
    assert_eq!(now["containers"][0]["name"], "app");
    let then = site.json("/api/processes", "at=1700000101.9&pid=6");
    assert_eq!(
        (&then["at"], &then["latest"], &then["age_seconds"]),
        (&1_700_000_101.0.into(), &false.into(), &1.0.into())
    );
    assert_eq!(then["processes"][0]["cpu_percent"], 50.0);
    let first = site.json("/api/processes", "at=-2s&pid=6");
    assert_eq!(
        first["processes"][0]["cpu_percent"],
        serde_json::Value::Null
    );
}

#[test]
fn series_for_the_plots() {
    let site = Site::new();
    let all = site.json("/api/history", "");
    assert_eq!(
        all["at"],
        serde_json::json!([1_700_000_100.0, 1_700_000_101.0, 1_700_000_102.0])
    );
    assert_eq!(
        (&all["lines"][0]["name"], &all["lines"][1]["name"]),
        (&"app".into(), &"tls".into())
    );
    assert_eq!(
        all["lines"][0]["cpu_percent"],
        serde_json::json!([null, 50.0, 1.0])
    );
    let one = site.json("/api/history", "pid=6");
    assert_eq!(
        one["lines"][0]["cpu_percent"],
        serde_json::json!([null, 50.0, 1.0])
    );
    assert_eq!(
        site.get("/api/history", "pid=99"),
        (404, "the history knows no process 99\n".to_owned())
    );
    assert_eq!(site.get("/api/history", "at=-1s").0, 400);
}

#[test]
fn paths_that_are_wrong() {
    let site = Site::new();
    assert_eq!(
        site.get("/api/processes/99", ""),
        (404, "there is no process 99\n".to_owned())
    );
    assert_eq!(
        site.get("/api/processes/x", ""),
        (400, "a process id follows /api/processes/\n".to_owned())
    );
    assert_eq!(site.get("/nothing", "").0, 404);
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let (status, page) = Site::new().get("/", "");
    assert_eq!(status, 200);
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("/*STYLE*/"));
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("src=\"topz.js\""));
    let (_, script) = Site::new().get("/topz.js", "");
    // Its one address is the name of SVG, which nobody fetches.
    assert_eq!(script.matches("://").count(), 1);
    assert!(!script.contains("innerHTML") && !script.contains("eval("));
}

#[test]
fn metrics_by_container() {
    let site = Site::new();
    let registry = Registry::default();
    let shared = site.watcher.shared();
    registry.collect(move |encoder| {
        let seen = shared.lock();
        metrics::encode(encoder, &seen.source(second(102)), seen.cost);
    });
    let text = registry.encode(Format::OpenMetrics);
    for line in [
        "podkit_topz_container_cpu_seconds_total{container=\"app\"} 3.51",
        "podkit_topz_container_cpu_seconds_total{container=\"tls\"} 3",
        "podkit_topz_container_memory_bytes{container=\"app\"} 81920",
        "podkit_topz_container_processes{container=\"app\"} 2",
        "podkit_topz_container_threads{container=\"tls\"} 2",
        "podkit_topz_looks_total 3",
        "podkit_topz_history_seconds 2",
        "podkit_topz_short_lived_total 0",
    ] {
        assert!(
            text.contains(&format!("{line}\n")),
            "{line} is not in\n{text}"
        );
    }
    let documented: Vec<&str> = metrics::METRICS.iter().map(|metric| metric.name).collect();
    for name in text
        .lines()
        .filter_map(|line| line.strip_prefix("podkit_")?.split([' ', '{']).next())
    {
        assert!(
            documented.contains(&format!("podkit_{name}").as_str()),
            "{name} is not documented"
        );
    }
}

#[test]
fn who_serves_the_pages() {
    let addr = |text: &str| Addr::parse(text).unwrap();
    let check = |listen: &str, admin: &str, expected: Option<Door>| {
        let door = Door::choose(&addr(listen), &addr(admin), false).ok();
        assert_eq!(door, expected, "--listen {listen} --admin {admin}");
    };
    check("127.0.0.1:9604", ":9604", Some(Door::Admin));
    check("[::1]:9604", ":9604", Some(Door::Admin));
    check("localhost:9604", "0.0.0.0:9604", Some(Door::Admin));
    check("127.0.0.1:9604", "127.0.0.1:9604", Some(Door::Admin));
    check("127.0.0.1:9604", ":9704", Some(Door::Own));
    check("127.0.0.1:9604", "10.0.0.5:9604", Some(Door::Own));
    check("unix:/run/topz", ":9604", Some(Door::Own));
    check("unix:/run/topz", "unix:/run/topz", Some(Door::Admin));
    check(":8080", ":9604", Some(Door::Own));
    check("127.0.0.1:0", ":0", Some(Door::Own));
    // More than the loopback was asked for, and the admin server would not give it.
    check(":9604", ":9604", None);
    check("10.0.0.5:9604", ":9604", None);
    let line = Door::choose(&addr(":9604"), &addr(":9604"), false)
        .unwrap_err()
        .to_string();
    assert!(
        line.contains("--listen (PODKIT_LISTEN) :9604")
            && line.contains("--admin-open")
            && !line.contains('\n')
    );
    assert_eq!(
        Door::choose(&addr(":9604"), &addr(":9604"), true).ok(),
        Some(Door::Admin)
    );
}

#[test]
fn sizes_and_times() {
    let shown = [0, 1023, 10 << 10, 1 << 20, 1536 << 10, 999 << 20, 5 << 30].map(size);
    assert_eq!(
        shown,
        ["0Ki", "1Ki", "10Ki", "1.0Mi", "1.5Mi", "999Mi", "5.0Gi"]
    );
    assert_eq!(utc(1_700_000_102.9), "2023-11-14T22:15:02Z");
}

#[test]
#[cfg(target_endian = "little")]
fn sockets_of_the_kernel_s_tables() {
    let check = |local: &str, remote: &str, state: &str, expected: &str| {
        let line = format!(
            "  3: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  1000 0 4711 1 0"
        );
        assert_eq!(inet_line(&line, "tcp"), Some((4711, expected.to_owned())));
    };
    check(
        "0100007F:1F90",
        "00000000:0000",
        "0A",
        "tcp 127.0.0.1:8080 listening",
    );
    check(
        "0100007F:1F90",
        "0200000A:01BB",
        "01",
        "tcp 127.0.0.1:8080 → 10.0.0.2:443 established",
    );
    let (mapped, six) = (
        "0000000000000000FFFF00000100007F",
        "00000000000000000000000001000000",
    );
    check(
        &format!("{mapped}:0050"),
        &format!("{mapped}:0051"),
        "08",
        "tcp 127.0.0.1:80 → 127.0.0.1:81 closed by the peer",
    );
    check(
        &format!("{six}:0050"),
        &format!("{six}:0000"),
        "0A",
        "tcp [::1]:80 listening",
    );
    assert_eq!(inet_line("sl local_address rem_address", "tcp"), None);
    assert_eq!(inet_line("0: é:1 x 01 a b c d e f", "tcp"), None);
}
