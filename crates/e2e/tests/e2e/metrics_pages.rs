//! `podkit metrics` with what speaks HTTP or is a file: another exporter, a document, files, and Jolokia.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::metrics_redis::{Scrape, metrics};

const EXPORTER: &str = "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\njobs_total{source=\"mail\"} 3\n\
    # TYPE go_threads gauge\ngo_threads 7\n# TYPE t_seconds histogram\nt_seconds_bucket{le=\"+Inf\"} 2\nt_seconds_sum 1.5\nt_seconds_count 2\n";

const DOCUMENT: &str = r#"{"rack": 7, "workers": [{"id": 1, "state": "ACTIVE", "jobs": 4}, {"id": 2, "state": "IDLE", "jobs": 0}]}"#;

/// Answers as Jolokia's protocol says to a bulk request: `version`, `search`, and `read`, here with the properties of names sorted.
fn jolokia(body: &str) -> String {
    let asked: serde_json::Value = serde_json::from_str(body).expect("JSON is asked");
    let answers = asked.as_array().expect("a list").iter().map(|one| {
        let value = match (one["type"].as_str(), one["mbean"].as_str()) {
            (Some("version"), _) => serde_json::json!({"agent": "1.7.1", "protocol": "7.2"}),
            (Some("search"), Some("*:*")) => {
                serde_json::json!(["kafka.server:type=Topics,name=BytesIn"])
            }
            (Some("read"), Some("*:*")) => {
                serde_json::json!({"kafka.server:name=BytesIn,type=Topics": {"Count": 42}})
            }
            (Some("read"), Some("java.lang:type=Memory")) => {
                serde_json::json!({"HeapMemoryUsage": {"used": 1024}})
            }
            _ => return serde_json::json!({"request": one, "status": 404, "error": "none"}),
        };
        serde_json::json!({"request": one, "value": value, "status": 200})
    });
    serde_json::Value::from_iter(answers).to_string()
}

fn page(request: &str, body: &str) -> (u16, String) {
    match request {
        "GET /metrics" => (200, EXPORTER.to_owned()),
        "GET /stats" => (200, DOCUMENT.to_owned()),
        "POST /jolokia/" => (200, jolokia(body)),
        "GET /broken" => (200, "a 1\n<html>\n".to_owned()),
        _ => (404, String::new()),
    }
}

/// A server of these pages, for as long as the test runs.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || talk(stream));
        }
    });
    addr
}

/// Until the other side has done.
fn talk(mut stream: TcpStream) {
    let mut input = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&input).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let fields: HashMap<String, &str> = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value))
                .collect();
            let length = fields
                .get("content-length")
                .map_or(0, |text| text.parse().expect("a length"));
            if body.len() >= length {
                let request = head.split(" HTTP/").next().unwrap_or_default();
                let (status, answer) = page(request, body);
                let length = answer.len();
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
                );
                if stream.write_all((head + &answer).as_bytes()).is_err() {
                    return;
                }
                input.clear();
                continue;
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => input.extend(&buffer[..count]),
            _ => return,
        }
    }
}

#[test]
fn pages_documents_files_and_jolokia_are_one_endpoint() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path.display().to_string()
    };
    let relabel = file(
        "relabel",
        "- {source_labels: [__name__], regex: go_.*, action: drop}\n",
    );
    let json = file(
        "json",
        "metrics:\n- {name: worker, type: object, path: '{.workers[?(@.state == \"ACTIVE\")]}', labels: {id: '{.id}', rack: 'r{.rack}'}, values: {jobs: '{.jobs}'}}\n",
    );
    let lines = file(
        "lines",
        "- {name: req_total, regex: '^(?P<path>/\\S*) (?P<value>\\d+)', type: counter, aggregate: sum}\n",
    );
    let jmx = file(
        "jmx",
        "rules:\n- {pattern: 'kafka.server<type=(.+), name=(.+)><>Count', name: kafka_$1_$2, type: COUNTER}\n",
    );
    let log = file("log", "/a 1\n/a 2\n");
    file("a.prom", "batch_runs 5\n");
    let glob = dir.path().join("*.prom").display().to_string();
    let at = serve();
    let sources = [
        format!("shop=prometheus+http://{at};relabel={relabel}"),
        format!("broken=prometheus+http://{at}/broken"),
        format!("json+http://{at}/stats;rules={json}"),
        format!("log=text+file:{log};rules={lines}"),
        format!("text+file:{glob}"),
        format!("jmx+http://{at};rules={jmx}"),
    ];
    let (module, ours) = metrics(&sources, &[]);
    let scrape = Scrape::of(ours);
    for (series, value) in [
        ("jobs_total{exported_source=\"mail\",source=\"shop\"}", 3.0),
        ("t_seconds_count{source=\"shop\"}", 2.0),
        ("worker_jobs{id=\"1\",rack=\"r\"}", 4.0),
        ("req_total{path=\"/a\",source=\"log\"}", 3.0),
        ("batch_runs", 5.0),
        ("kafka_Topics_BytesIn", 42.0),
        ("jvm_memory_used_bytes{area=\"heap\"}", 1024.0),
        ("jmx_scrape_error", 0.0),
        ("podkit_metrics_source_up{source=\"shop\"}", 1.0),
        ("podkit_metrics_source_up{source=\"broken\"}", 0.0),
        ("podkit_metrics_rule_up{rule=\"worker\"}", 1.0),
    ] {
        assert_eq!(
            scrape.value(series),
            Some(value),
            "{series}\n{}",
            scrape.text
        );
    }
    assert_eq!(scrape.kinds["t_seconds"], "histogram");
    assert_eq!(scrape.value("go_threads{source=\"shop\"}"), None);
    // Files are read anew.
    file("log", "/a 1\n");
    file("b.prom", "batch_runs{b=\"2\"} 6\n");
    let scrape = Scrape::of(ours);
    assert_eq!(
        scrape.value("req_total{path=\"/a\",source=\"log\"}"),
        Some(1.0)
    );
    assert_eq!(scrape.value("batch_runs{b=\"2\"}"), Some(6.0));
    drop(module);
}
