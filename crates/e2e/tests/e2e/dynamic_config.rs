//! examples/dynamic-config, as its README uses it.

use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::{http, repository, until};
use rustix::process::{Pid, Signal, kill_process};

use crate::ground::{Ground, log_of, process_of};

/// Gives the API another document.
fn put(document: &str) {
    let json = "application/json";
    let answer = http::send(loopback(8000), "PUT", "/site", json, document.as_bytes()).unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text());
}

fn page() -> Option<String> {
    Some(http::get(loopback(8080), "/").ok()?.text())
}

fn wait_page(text: &str) {
    until(text, || (page()?.trim() == text).then_some(()));
}

/// Gives a document that is to be refused at this step for this reason; the page stays.
fn refused(pod: &Pod, document: &str, step: &str, why: &str) {
    put(document);
    let line = until("the refusal", || {
        let lines = log_of(pod, "config");
        lines.into_iter().find(|line| line.contains(why))
    });
    let metrics = http::get(loopback(9602), "/metrics").unwrap().text();
    let sample = format!("podkit_config_refused_total{{step=\"{step}\"}} 1");
    assert!(metrics.contains(&sample), "{line}\n{metrics}");
    let shown = http::get(loopback(9602), "/").unwrap().text();
    assert!(shown.contains("is refused"), "{shown}");
    wait_page("Good day.");
}

#[test]
fn a_bad_configuration_never_reaches_nginx() {
    let Some(ground) = Ground::with(&["nginx", "python3"]) else {
        return;
    };
    let file = repository().join("examples/dynamic-config/pod.yaml");
    let mut pod = Pod::run(&file, &["--backoff", "100ms"]);
    pod.wait_ready();
    wait_page("Hello.");
    put(r#"{"greeting": "Good day.", "redirects": {"/old": "/new"}}"#);
    wait_page("Good day.");
    // A worker of the former configuration may still answer.
    until("the redirect", || {
        let old = http::get(loopback(8080), "/old").unwrap();
        assert_eq!(old.status, 302);
        (old.header("location") == Some("/new")).then_some(())
    });
    let quotes = r#"{"greeting": "They said \"hello\".", "redirects": {}}"#;
    refused(&pod, quotes, "validate", r#"[emerg] "#);
    refused(
        &pod,
        r#"{"greeting": "No redirects."}"#,
        "render",
        "`site.redirects` is undefined",
    );
    // Not even an nginx that starts anew sees any of it.
    let master = process_of(&pod, "nginx: master").unwrap();
    let master = Pid::from_raw(i32::try_from(master).unwrap()).unwrap();
    let mark = pod.mark();
    kill_process(master, Signal::KILL).unwrap();
    pod.wait_from(mark, "nginx to be back", |said| {
        said["type"] == "container" && said["container"] == "web" && said["ready"] == true
    });
    wait_page("Good day.");
    put(r#"{"greeting": "Well.", "redirects": {}}"#);
    wait_page("Well.");
    assert!(
        !log_of(&pod, "web")
            .iter()
            .any(|line| line.starts_with("nginx: ") || line.contains("[emerg]")),
        "{}",
        pod.process.shown()
    );
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}
