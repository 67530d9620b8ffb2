//! examples/redis-shards, as its README uses it.

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
    let example = repository().join("examples/redis-shards/pod.yaml");
    let mut pod = Pod::run_text(&read(&example), &[]);
    pod.wait_ready();
    let mut client = Client::connect(loopback(6379));
    assert_eq!(client.line("mset one 1 two 2 three 3"), "OK");
    assert_eq!(client.line("mget one two three"), "[1 2 3]");
    until("the application writes", || {
        (client.line("get visit:2") == "here").then_some(())
    });
    assert_eq!(client.line("set {user:7}name x"), "OK");
    assert_eq!(client.line("rename {user:7}name {user:7}former"), "OK");
    let page = http::get(loopback(9611), "/").unwrap();
    assert!(page.text().contains("127.0.0.1:6382"), "{}", page.text());
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}
