//! examples/redis-metrics, as its README uses it.

use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::redis::Client;
use podkit_testkit::{http, repository, until};

use crate::ground::{Ground, read};

/// What Prometheus has for a query, when it is one series.
pub(crate) fn asked(query: &str) -> Option<f64> {
    let answer = http::get(loopback(9090), &format!("/api/v1/query?query={query}")).ok()?;
    let answer = answer.json();
    let result = answer["data"]["result"].as_array()?;
    match result.as_slice() {
        [one] => one["value"][1].as_str()?.parse().ok(),
        _ => None,
    }
}

#[test]
fn the_example_is_as_its_readme_says() {
    let programs = ["redis-server", "redis-cli", "prometheus"];
    let Some(ground) = Ground::with(&programs) else {
        return;
    };
    let example = repository().join("examples/redis-metrics/pod.yaml");
    let mut pod = Pod::run_text(&read(&example), &[]);
    pod.wait_ready();
    let mut client = Client::connect(loopback(6379));
    assert_eq!(client.line("set one 1"), "OK");
    let seen = |query: &'static str, value: f64| {
        until(query, || (asked(query) == Some(value)).then_some(()));
    };
    seen("redis_db_keys%7Bdb=%22db0%22%7D", 1.0);
    seen("redis_up", 1.0);
    // Both jobs are scraped, and each source is told of by both.
    seen("sum(up)", 2.0);
    seen(
        "count(podkit_metrics_source_up%7Bsource=%22redis%22%7D)",
        2.0,
    );
    assert_eq!(client.line("client pause 12000"), "OK");
    seen("redis_up", 0.0);
    seen(
        "count(ALERTS%7Balertname=%22RedisDown%22,alertstate=%22firing%22%7D)",
        1.0,
    );
    assert_eq!(asked("redis_db_keys%7Bdb=%22db0%22%7D"), Some(1.0));
    assert_eq!(asked("up%7Bjob=%22redis%22%7D"), Some(1.0));
    assert!(asked("max(podkit_metrics_source_age_seconds)") > Some(0.5));
    seen("redis_up", 1.0);
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}
