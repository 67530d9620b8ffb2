//! examples/redis-replicas, as its README uses it.

use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::redis::Client;
use podkit_testkit::{http, repository, until};

use crate::ground::{Ground, read};

#[test]
fn the_example_is_as_its_readme_says() {
    let Some(ground) = Ground::with(&["redis-server", "redis-cli"]) else {
        return;
    };
    let example = repository().join("examples/redis-replicas/pod.yaml");
    let mut pod = Pod::run_text(&read(&example), &[]);
    pod.wait_ready();
    let mut client = Client::connect(loopback(6379));
    assert_eq!(client.line("set one 1"), "OK");
    assert_eq!(client.line("get one"), "1");
    // A replica that has nothing yet would forget all when it becomes the primary.
    until("the replicas have all", || {
        let metrics = http::get(loopback(9612), "/metrics").ok()?.text();
        let has = |port| {
            let lag = format!("podkit_redis_lag_bytes{{server=\"127.0.0.1:{port}\"}} 0");
            metrics.contains(&lag)
        };
        (has(6382) && has(6383)).then_some(())
    });
    let mut sentinel = Client::connect(loopback(26379));
    let visits = |client: &mut Client| client.line("get visits").parse::<u32>().ok();
    let before = until("the application counts", || visits(&mut client));
    until("the sentinel knows a replica that can take over", || {
        let reply = sentinel.line("sentinel failover main");
        (reply == "OK").then_some(())
    });
    let page = until("another is the primary", || {
        let page = http::get(loopback(9612), "/").ok()?.text();
        page.contains("replica of 127.0.0.1:6382")
            .then_some(page.clone())
            .or_else(|| page.contains("replica of 127.0.0.1:6383").then_some(page))
    });
    assert!(page.contains("127.0.0.1:6381"), "{page}");
    until("the application counts on", || {
        (visits(&mut client) > Some(before)).then_some(())
    });
    assert_eq!(client.line("get one"), "1");
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}
