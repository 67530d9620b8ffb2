//! examples/chain, as its README uses it.

use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::{http, repository, until};

use crate::ground::Ground;

const HTTP: u16 = 8080;
const ADMIN: u16 = 9641;

#[test]
fn requests_find_their_application_and_logins_are_limited() {
    let Some(ground) = Ground::new() else { return };
    let mut pod = Pod::run(&repository().join("examples/chain/pod.yaml"), &[]);
    pod.wait_ready();
    until("all replicas are ready", || {
        let json = http::get(loopback(ADMIN), "/upstreams").ok()?.json();
        let clusters = json["clusters"].as_object()?;
        let mut all = clusters
            .values()
            .flat_map(|one| one["upstreams"].as_array());
        let ready = all.all(|list| list.iter().all(|one| one["state"] == "ready"));
        (clusters.len() == 2 && ready).then_some(())
    });
    let get = |path: &str| http::get(loopback(HTTP), path).unwrap();
    let shop = get("/");
    assert_eq!(shop.status, 200);
    assert!(shop.header("set-cookie").is_some());
    let api = get("/api/x");
    assert_eq!(api.status, 201);
    assert_eq!(api.header("set-cookie"), None);
    assert!(api.header("ratelimit").is_some());
    let logins = [(); 4].map(|()| get("/login").status);
    assert_eq!(logins, [200, 200, 200, 429]);
    let limited = http::get(loopback(ADMIN), "/limited?format=json")
        .unwrap()
        .json();
    assert_eq!(limited["limited"][0]["stage"], "/login limit", "{limited}");
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}
