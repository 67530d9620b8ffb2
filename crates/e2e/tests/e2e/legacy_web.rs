//! examples/legacy-web, as its README and the first five minutes of the project's README use it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use podkit_testkit::net::loopback;
use podkit_testkit::podkit::{Pod, podkit};
use podkit_testkit::process::run;
use podkit_testkit::tls::{Client, shown_certificate};
use podkit_testkit::{http, machine, repository, until};
use rustix::process::Signal;

use crate::ground::{Ground, events, is_ready, process_of, read};

const HTTPS: u16 = 8443;
const TLS_ADMIN: u16 = 9601;
const TOPZ: u16 = 9604;
const APP: u16 = 8080;

/// The example as it is, but for the directory of the certificates: the machine's own is its user's.
struct Example {
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Example {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = read(&repository().join("examples/legacy-web/pod.yaml"));
        let certs = dir.path().join("certs").display().to_string();
        assert!(text.contains("path: /run/legacy-web"));
        let file = dir.path().join("pod.yaml");
        std::fs::write(&file, text.replace("/run/legacy-web", &certs)).unwrap();
        Self { dir, file }
    }

    fn certs(&self, what: &str) {
        let script = repository().join("examples/legacy-web/certs.sh");
        let mut command = Command::new(script);
        command
            .arg(what)
            .env("LEGACY_WEB_CERTS", self.dir.path().join("certs"));
        run("certs.sh", &mut command).ok();
    }
}

fn https(path: &str) -> std::io::Result<http::Response> {
    Client::trusting().get(loopback(HTTPS), "localhost", path)
}

#[test]
fn it_starts_in_order_answers_over_https_and_stops_in_reverse() {
    let Some(ground) = Ground::new() else { return };
    let example = Example::new();
    let mut pod = Pod::run(&example.file, &[]);
    pod.wait_ready();
    let answer = https("/hello?a=1").unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("/hello?a=1"), "{}", answer.text());
    assert!(
        answer
            .text()
            .to_lowercase()
            .contains("x-forwarded-proto: https"),
        "{}",
        answer.text()
    );
    assert_eq!(http::get(loopback(APP), "/").unwrap().status, 200);
    let addresses: Vec<String> = pod
        .said()
        .iter()
        .filter(|said| said["type"] == "address")
        .map(|said| said["url"].as_str().unwrap().to_owned())
        .collect();
    for port in [HTTPS, TLS_ADMIN, TOPZ, APP] {
        assert!(
            addresses
                .iter()
                .any(|url| url.ends_with(&format!(":{port}"))),
            "{port} in {addresses:?}"
        );
    }
    assert_eq!(
        events(&pod, &["Started"]),
        ["tls Started", "app Started", "topz Started"]
    );

    pod.process.signal(Signal::INT);
    assert_eq!(
        pod.process.wait().code(),
        Some(0),
        "{}",
        pod.process.shown()
    );
    let killing = events(&pod, &["Killing"]);
    let place = |name: &str| {
        killing
            .iter()
            .position(|event| event == &format!("{name} Killing"))
    };
    assert!(
        place("tls") > place("app") && place("tls") > place("topz"),
        "{killing:?}"
    );
    let ended: Vec<String> = pod
        .said()
        .iter()
        .filter(|said| said["type"] == "container" && said["state"] == "terminated")
        .map(|said| said["container"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ended.last().map(String::as_str), Some("tls"), "{ended:?}");
    assert_eq!(pod.said().last().unwrap()["type"], "end");
    ground.assert_clean();
}

/// A loop of curl beside it: asks all the time, on connections of its own, and counts what went wrong.
struct Loop {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    asking: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Loop {
    fn start() -> Self {
        let (stop, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&asked));
        let asking = std::thread::spawn(move || {
            let mut wrong = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match https("/") {
                    Ok(answer) if answer.status == 200 => {}
                    Ok(answer) => wrong.push(format!("{} {}", answer.status, answer.text())),
                    Err(error) => wrong.push(error.to_string()),
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            wrong
        });
        Self {
            stop,
            asked,
            asking: Some(asking),
        }
    }

    /// Returns after this many more answers.
    fn goes_on(&self, count: usize) {
        let until_count = self.asked.load(Ordering::Relaxed) + count;
        until("the loop to go on", || {
            (self.asked.load(Ordering::Relaxed) >= until_count).then_some(())
        });
    }

    fn wrong(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.take().unwrap().join().unwrap()
    }
}

#[test]
fn a_mismatched_certificate_is_refused_and_a_good_one_is_live_without_a_failed_request() {
    let Some(ground) = Ground::with(&["openssl"]) else {
        return;
    };
    let example = Example::new();
    let mut pod = Pod::run(&example.file, &[]);
    pod.wait_ready();
    let served = || {
        let stream = Client::trusting()
            .connect(loopback(HTTPS), "localhost")
            .unwrap();
        shown_certificate(&stream)
    };
    let page = || http::get(loopback(TLS_ADMIN), "/").unwrap().text();
    let first = served();
    let asking = Loop::start();
    asking.goes_on(5);

    example.certs("mismatched");
    pod.wait("the reason in the log", |said| {
        said["container"] == "tls"
            && said["line"]
                .as_str()
                .is_some_and(|line| line.contains("match"))
    });
    assert_eq!(served(), first);
    assert!(page().contains("match"), "{}", page());
    let metrics = http::get(loopback(TLS_ADMIN), "/metrics").unwrap().text();
    assert!(metrics.contains("podkit_tls_"), "{metrics}");
    asking.goes_on(20);

    example.certs("good");
    let good = std::fs::read_to_string(example.dir.path().join("certs/tls.crt")).unwrap();
    let good = podkit_testkit::tls::der(&good);
    until("the good certificate", || (served() == good).then_some(()));
    asking.goes_on(20);
    until("the page without the alert", || {
        (!page().contains("does not match")).then_some(())
    });

    // Another mismatched one: now the good one stays.
    example.certs("mismatched");
    until("the page with the alert", || {
        page().contains("match").then_some(())
    });
    assert_eq!(served(), good);
    asking.goes_on(20);
    let wrong = asking.wrong();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(pod.stop(), 0);
    ground.assert_clean();
}

#[test]
fn a_killed_application_is_restarted_and_topz_shows_it() {
    let Some(ground) = Ground::new() else { return };
    let example = Example::new();
    let mut pod = Pod::run(&example.file, &[]);
    pod.wait_ready();
    let seen = || -> Vec<u64> {
        let all = http::get(loopback(TOPZ), "/api/processes").unwrap().json();
        let all = all["processes"].as_array().unwrap().clone();
        let of_app = all.iter().filter(|process| process["container"] == "app");
        of_app
            .map(|process| process["pid"].as_u64().unwrap())
            .collect()
    };
    let before = until("topz to see the application", || {
        Some(seen()).filter(|pids| !pids.is_empty())
    });
    let pid = process_of(&pod, "echo --listen").expect("the application runs");
    let mark = pod.mark();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    pod.wait_from(mark, "its end", |said| {
        said["type"] == "container"
            && said["container"] == "app"
            && said.to_string().contains("137")
    });
    let (down, _) = pod.wait_from(mark, "not ready", |said| is_ready(said, false));
    pod.wait_from(mark, "its restart", |said| {
        said["container"] == "app" && said["state"] == "running" && said["restarts"] == 1
    });
    pod.wait_from(down, "ready again", |said| is_ready(said, true));
    assert_eq!(https("/").unwrap().status, 200);
    until("topz to show the new process", || {
        let now = seen();
        (!now.is_empty() && now.iter().all(|pid| !before.contains(pid))).then_some(())
    });
    assert_eq!(pod.stop(), 0);
    ground.assert_clean();
}

#[test]
fn topz_shows_the_processes_of_all_containers() {
    let Some(ground) = Ground::new() else { return };
    let example = Example::new();
    let mut pod = Pod::run(&example.file, &[]);
    pod.wait_ready();
    for (container, part) in [("app", "echo"), ("tls", "tls --listen"), ("topz", "topz")] {
        until(container, || {
            let all = http::get(loopback(TOPZ), "/api/processes").ok()?.json();
            let all = all["processes"].as_array()?.clone();
            let of = all
                .iter()
                .filter(|process| process["container"] == container);
            of.into_iter()
                .find(|process| process.to_string().contains(part))
                .map(|_| ())
        });
    }
    let text = http::get(loopback(TOPZ), "/topz").unwrap().text();
    for container in ["app", "tls", "topz"] {
        assert!(text.contains(container), "{text}");
    }
    // The machine's own processes are not seen from within the pod.
    let me = std::process::id();
    let mine = machine::command(me);
    let own = mine.split(' ').next().unwrap();
    assert!(!text.contains(own), "{text}");
    assert_eq!(pod.stop(), 0);
    ground.assert_clean();
}

#[test]
fn without_leaves_a_container_out() {
    let Some(ground) = Ground::new() else { return };
    let example = Example::new();
    let mut pod = Pod::run(&example.file, &["--without", "tls"]);
    pod.wait_ready();
    assert!(std::net::TcpStream::connect(loopback(HTTPS)).is_err());
    assert_eq!(http::get(loopback(APP), "/").unwrap().status, 200);
    assert_eq!(events(&pod, &["Started"]), ["app Started", "topz Started"]);
    assert_eq!(pod.stop(), 0);
    ground.assert_clean();
    let wrong = podkit(&["run", example.file.to_str().unwrap(), "--without", "tsl"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
    assert!(
        wrong.err.contains("tsl") && wrong.err.contains("tls"),
        "{}",
        wrong.err
    );
}

#[test]
fn a_typo_is_named_with_its_line_and_the_nearest_name() {
    let file = repository().join("examples/legacy-web/pod.yaml");
    let text = read(&file);
    let line = 1 + text
        .lines()
        .position(|line| line.contains("containerPort"))
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let typo = dir.path().join("typo.yaml");
    std::fs::write(&typo, text.replacen("containerPort", "containerprt", 1)).unwrap();
    let checked = podkit(&["check", typo.to_str().unwrap()]);
    assert_eq!(checked.code, Some(2));
    let said = format!("{}{}", checked.out, checked.err);
    for part in [
        format!("typo.yaml:{line}"),
        "containerprt".to_owned(),
        "containerPort".to_owned(),
    ] {
        assert!(said.contains(&part), "no {part} in {said}");
    }
    let good = podkit(&["check", file.to_str().unwrap()]);
    assert_eq!(good.code, Some(0), "{}{}", good.out, good.err);
}

/// The lines of both READMEs that a reader types are lines that work: they name files, ports and options that are there.
#[test]
fn the_readmes_name_what_is_there() {
    for readme in ["README.md", "examples/legacy-web/README.md"] {
        let text = read(&repository().join(readme));
        for word in text.split([' ', '\n', '`', '(', ')', ',']) {
            let word = word.trim_matches(['\'', '"', '.', ';', ':']);
            if word.starts_with("examples/") {
                let path = word.split('#').next().unwrap();
                assert!(Path::exists(&repository().join(path)), "{readme}: {word}");
            }
            if let Some(port) = word.split("127.0.0.1:").nth(1) {
                let port: String = port.chars().take_while(char::is_ascii_digit).collect();
                let there = [HTTPS, TLS_ADMIN, TOPZ, APP]
                    .iter()
                    .any(|known| known.to_string() == port);
                assert!(there, "{readme}: {word}");
            }
        }
    }
}
