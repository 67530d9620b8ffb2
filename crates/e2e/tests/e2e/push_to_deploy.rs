//! examples/push-to-deploy, as its README uses it.

use std::time::Instant;

use podkit_testkit::net::loopback;
use podkit_testkit::{http, until};

use crate::ground::events;
use crate::pushed::Pushed;

#[test]
fn what_is_pushed_is_served() {
    let programs = &["nginx", "git", "curl"];
    let Some(mut site) = Pushed::start("push-to-deploy", "site.git", programs) else {
        return;
    };
    let first = site.page();
    assert!(first.contains("The first page"), "{first}");
    assert_eq!(
        events(&site.pod, &["Started"]),
        ["sync Started", "web Started"]
    );
    for n in 2..6 {
        let text = format!("<p>Page {n}.");
        let pushed = Instant::now();
        site.push("index.html", &text);
        until("the page", || (site.page() == text).then_some(()));
        // The period alone would take ten seconds.
        assert!(pushed.elapsed().as_secs() < 5, "{:?}", pushed.elapsed());
    }
    let config = http::get(loopback(8080), "/.git/config").unwrap();
    assert_eq!(config.status, 404);
    assert_eq!(site.pod.stop(), 0, "{}", site.pod.process.shown());
    site.ground.assert_clean();
}
