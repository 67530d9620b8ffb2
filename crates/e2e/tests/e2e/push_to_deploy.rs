//! examples/push-to-deploy, as its README uses it.

use std::process::Command;
use std::time::Instant;

use podkit_testkit::git::git;
use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::process::run;
use podkit_testkit::{http, repository, until};

use crate::ground::{Ground, events, read};

#[test]
fn what_is_pushed_is_served() {
    let Some(ground) = Ground::with(&["nginx", "git", "curl"]) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("repositories");
    let example = repository().join("examples/push-to-deploy");
    let text = read(&example.join("pod.yaml"));
    assert!(text.contains("path: /run/push-to-deploy"));
    let text = text.replace("/run/push-to-deploy", &here.display().to_string());
    let mut setup = Command::new(example.join("setup.sh"));
    run("setup.sh", setup.env("PUSH_TO_DEPLOY", &here)).ok();
    let mut pod = Pod::run_text(&text, &[]);
    pod.wait_ready();
    let page = || http::get(loopback(8080), "/").unwrap();
    assert!(
        page().text().contains("The first page"),
        "{}",
        pod.process.shown()
    );
    assert_eq!(events(&pod, &["Started"]), ["sync Started", "web Started"]);

    git(
        dir.path(),
        &[
            "clone",
            "-q",
            &here.join("site.git").to_string_lossy(),
            "work",
        ],
    );
    let work = dir.path().join("work");
    for n in 2..6 {
        let text = format!("<p>Page {n}.");
        std::fs::write(work.join("index.html"), &text).unwrap();
        git(&work, &["commit", "-q", "-a", "-m", "next"]);
        let pushed = Instant::now();
        git(&work, &["push", "-q"]);
        until("the page", || (page().text() == text).then_some(()));
        // The period alone would take ten seconds.
        assert!(pushed.elapsed().as_secs() < 5, "{:?}", pushed.elapsed());
    }
    assert_eq!(
        http::get(loopback(8080), "/.git/config").unwrap().status,
        404
    );
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}
