//! examples/host-nginx: a real application that knows nothing of podkit.

use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::repository;
use podkit_testkit::tls::Client;

use crate::ground::{Ground, events};

#[test]
fn nginx_is_served_over_https_and_ends_by_its_hook() {
    let Some(ground) = Ground::with(&["nginx"]) else {
        return;
    };
    let file = repository().join("examples/host-nginx/pod.yaml");
    let mut pod = Pod::run(&file, &[]);
    pod.wait_ready();
    let get = |path: &str| {
        Client::trusting()
            .get(loopback(8444), "localhost", path)
            .unwrap()
    };
    let page = get("/");
    assert_eq!(page.status, 200, "{}", pod.process.shown());
    assert!(
        page.text().contains("knows nothing of HTTPS"),
        "{}",
        page.text()
    );
    let forwarded = get("/forwarded").text();
    assert!(forwarded.starts_with("https from "), "{forwarded}");
    assert_eq!(get("/not-there").status, 404);
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    assert_eq!(events(&pod, &["Started"]), ["tls Started", "app Started"]);
    let failed = events(
        &pod,
        &["FailedPreStopHook", "BackOff", "Unhealthy", "Failed"],
    );
    assert!(failed.is_empty(), "{failed:?}\n{}", pod.process.shown());
    // nginx ended by its hook, with its own exit code and not by SIGKILL.
    let ended = pod.said();
    let ended = ended
        .iter()
        .find(|said| said["container"] == "app" && said["state"] == "terminated");
    assert_eq!(
        ended.map(|said| said["exitCode"].clone()),
        Some(0.into()),
        "{}",
        pod.process.shown()
    );
    ground.assert_clean();
}
