//! config as an application meets it: files that change as one set, from a directory, an HTTP server.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use podkit_testkit::podkit::{Module, podkit};
use podkit_testkit::{Turn, http, machine, stats, until};
use tempfile::TempDir;

/// A source and a place to publish to.
pub(crate) struct Ground {
    pub(crate) dir: TempDir,
    pub(crate) source: PathBuf,
    pub(crate) out: PathBuf,
}

impl Ground {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let (source, out) = (dir.path().join("source"), dir.path().join("out"));
        std::fs::create_dir(&source).unwrap();
        let ground = Self { dir, source, out };
        for (name, text) in files {
            ground.write(name, text);
        }
        ground
    }

    /// Moves a file into the source.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let beside = self.dir.path().join("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.source.join(name)).unwrap();
    }

    fn start(&self, args: &[&str]) -> Module {
        let module = self.spawn(args);
        module.wait_ready();
        module
    }

    fn spawn(&self, args: &[&str]) -> Module {
        let source = format!("--source=file:{}", self.source.display());
        self.spawn_from(&[&source], args)
    }

    pub(crate) fn spawn_from(&self, sources: &[&str], args: &[&str]) -> Module {
        let out = format!("--out={}", self.out.display());
        Module::spawn("config", &[&[out.as_str()], sources, args].concat(), &[])
    }

    pub(crate) fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.out.join(name)).ok()
    }

    /// Changes a file a hundred times, and asserts that each text is published soon after the moment that `change` returns. Of three
    /// series one has to be quick: the machine may have something else to do.
    pub(crate) fn assert_quick(
        &self,
        what: &str,
        module: &Module,
        name: &str,
        change: impl Fn(&str) -> Instant,
    ) {
        let mut all = Vec::new();
        for series in 0..3 {
            let times = self.times(module, name, series * 100 + 1, &change);
            let p99 = stats::percentile(&times, 0.99);
            println!(
                "{what}: p50 {:.1} ms, p99 {p99:.1} ms",
                stats::median(&times)
            );
            if p99 <= 50.0 || !optimised() {
                return;
            }
            all.push(times);
        }
        panic!("{what}: {all:?}");
    }

    /// How long it takes in ms, a hundred times.
    fn times(
        &self,
        module: &Module,
        name: &str,
        first: usize,
        change: &impl Fn(&str) -> Instant,
    ) -> Vec<f64> {
        let mut times = Vec::new();
        for round in first..first + 100 {
            let text = round.to_string();
            let begun = change(&text);
            while self.read(name).as_deref() != Some(&text) {
                assert!(
                    begun.elapsed() < Duration::from_secs(10),
                    "{}",
                    module.process.shown()
                );
                std::thread::sleep(Duration::from_micros(200));
            }
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        times
    }

    pub(crate) fn wait(&self, name: &str, text: &str) {
        until(&format!("{name} to say {text:?}"), || {
            (self.read(name)? == text).then_some(())
        });
    }
}

#[test]
fn a_change_of_a_file_is_published_at_once() {
    let _turn = Turn::alone();
    let ground = Ground::new(&[("a", "0"), ("b", "0")]);
    let module = ground.start(&[]);
    ground.assert_quick("file to applied", &module, "a", |text| {
        // Nothing of the former round's quiet time.
        std::thread::sleep(Duration::from_millis(20));
        let begun = Instant::now();
        ground.write("a", text);
        begun
    });
    until("the count", || {
        (module.metric("podkit_config_published_total") == Some(101.0)).then_some(())
    });
    let rss = machine::rss_kib(module.process.pid());
    println!("resident: {rss} KiB");
}

#[test]
fn templates_are_made_of_what_the_sources_have() {
    let _turn = Turn::shared();
    let ground = Ground::new(&[
        ("db.json", r#"{"host": "h1", "port": 1}"#),
        ("nginx.conf.j2", "server {{ db.host }}:{{ db.port }};\n"),
    ]);
    let module = ground.start(&["--template=nginx.conf.j2=nginx.conf", "--publish=templates"]);
    assert_eq!(ground.read("nginx.conf").as_deref(), Some("server h1:1;\n"));
    assert_eq!(ground.read("db.json"), None);
    ground.write("db.json", r#"{"host": "h2", "port": 1}"#);
    ground.wait("nginx.conf", "server h2:1;\n");
    // A variable that is gone is no blank.
    ground.write("db.json", r#"{"port": 1}"#);
    let line = module
        .process
        .wait_line("the refusal", |line| line.contains("undefined value"));
    assert!(line.text.contains("(in nginx.conf.j2:1)"), "{}", line.text);
    assert_eq!(ground.read("nginx.conf").as_deref(), Some("server h2:1;\n"));
    assert_eq!(
        module.metric(r#"podkit_config_refused_total{step="render"}"#),
        Some(1.0)
    );
    let page = module.admin("/").text();
    assert!(
        page.contains("The latest state of the sources is refused"),
        "{page}"
    );
}

#[test]
fn what_the_application_does_not_take_goes_back() {
    let _turn = Turn::shared();
    let ground = Ground::new(&[("app.conf", "good 1")]);
    let loaded = ground.dir.path().join("loaded");
    // The application: what it has loaded, and whether it is content.
    let reload = format!("--reload=exec:cp {{}}/app.conf {}", loaded.display());
    let confirm = format!("--confirm=exec:grep -q good {}", loaded.display());
    let module = ground.start(&[
        "--validate=exec:sh -c '! grep -q syntax {}/app.conf'",
        &reload,
        &confirm,
        "--confirm-timeout=3s",
    ]);
    let has = |text: &str| std::fs::read_to_string(&loaded).unwrap() == text;
    assert!(has("good 1"));
    ground.write("app.conf", "syntax error");
    module.process.wait_line("the refusal", |line| {
        line.contains("refused; what is published stays")
    });
    assert!(has("good 1"));
    ground.write("app.conf", "bad");
    module
        .process
        .wait_line("the way back", |line| line.contains(" is back"));
    until("the former version to be loaded", || {
        has("good 1").then_some(())
    });
    assert_eq!(ground.read("app.conf").as_deref(), Some("good 1"));
    let count =
        |step: &str| module.metric(&format!("podkit_config_refused_total{{step=\"{step}\"}}"));
    assert_eq!(
        (count("validate"), count("confirm")),
        (Some(1.0), Some(1.0))
    );
    assert_eq!(module.metric("podkit_config_rolled_back_total"), Some(1.0));
    assert_eq!(module.admin("/readyz").status, 200);
    ground.write("app.conf", "good 2");
    until("the next version", || has("good 2").then_some(()));
    until("the page to be content", || {
        (!module.admin("/").text().contains("is refused")).then_some(())
    });
}

#[test]
fn a_first_version_waits_for_the_application() {
    let _turn = Turn::shared();
    let ground = Ground::new(&[("a", "1")]);
    let there = ground.dir.path().join("there");
    let confirm = format!("--confirm=exec:test -e {}", there.display());
    let module = ground.spawn(&[&confirm, "--confirm-timeout=100ms"]);
    module
        .process
        .wait_line("the refusal", |line| line.contains("nothing is published"));
    assert_eq!(module.admin("/readyz").status, 503);
    std::fs::write(there, "").unwrap();
    module.wait_ready();
    assert_eq!(ground.read("a").as_deref(), Some("1"));
}

#[test]
fn a_version_waits_for_an_agent_that_is_away() {
    let _turn = Turn::shared();
    let ground = Ground::new(&[("a", "1")]);
    let socket = ground.dir.path().join("agent.sock");
    let agent = || crate::agent::around(&socket, "--allow=test -f *", "sleep 60");
    let mut first = agent();
    let module = ground.start(&[
        "--validate=agent:test -f {}/a",
        &format!("--agent-socket={}", socket.display()),
    ]);
    first.stop();
    ground.write("a", "2");
    module
        .process
        .wait_line("the reason", |line| line.contains("validate: no agent at "));
    let _again = agent();
    ground.wait("a", "2");
    let count = r#"podkit_config_refused_total{step="validate"}"#;
    assert_eq!(module.metric(count), Some(1.0));
}

#[test]
fn a_source_that_is_away_takes_nothing() {
    let _turn = Turn::shared();
    let ground = Ground::new(&[("a", "1")]);
    drop(ground.start(&[]));
    std::fs::remove_dir_all(&ground.source).unwrap();
    let module = ground.start(&[]);
    assert_eq!(ground.read("a").as_deref(), Some("1"));
    std::fs::create_dir(&ground.source).unwrap();
    module.process.wait_line("the refusal", |line| {
        line.contains("the source has no files")
    });
    assert_eq!(ground.read("a").as_deref(), Some("1"));
    ground.write("a", "2");
    ground.wait("a", "2");
    // Nothing at all is not ready.
    let ground = Ground::new(&[]);
    let module = ground.spawn(&[]);
    until("the reason", || {
        let answer = http::get(module.admin, "/readyz?verbose").ok()?;
        (answer.status == 503 && answer.text().contains("the source has no files")).then_some(())
    });
}

#[test]
fn once_publishes_and_ends() {
    let _turn = Turn::shared();
    let ground = Ground::new(&[("a", "1")]);
    let (source, out) = (
        format!("file:{}", ground.source.display()),
        ground.out.display().to_string(),
    );
    let once = |more: &[&str]| {
        let args = [
            "config",
            "--once",
            "--once-timeout=500ms",
            "--source",
            &source,
            "--out",
            &out,
        ];
        podkit(&[&args, more].concat())
    };
    assert_eq!(once(&[]).code, Some(0));
    assert_eq!(ground.read("a").as_deref(), Some("1"));
    ground.write("a", "2");
    let refused = once(&["--validate=exec:false {}"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(
        refused
            .err
            .contains("podkit config: validate: exec:false {}: exit status: 1"),
        "{}",
        refused.err
    );
    std::fs::remove_dir_all(&ground.source).unwrap();
    let last = once(&[]);
    assert_eq!(
        (last.code, ground.read("a").as_deref()),
        (Some(0), Some("1")),
        "{}",
        last.err
    );
    std::fs::remove_dir_all(&ground.out).unwrap();
    let none = once(&[]);
    assert_eq!(none.code, Some(1));
    assert!(
        none.err.contains("no set within --once-timeout: "),
        "{}",
        none.err
    );
}

#[test]
fn in_place_is_a_real_directory() {
    let _turn = Turn::shared();
    let ground = Ground::new(&[("a", "1")]);
    let _module = ground.start(&["--in-place", "--chmod=0600"]);
    let held = std::fs::File::open(&ground.out).unwrap();
    assert!(!ground.out.is_symlink() && !ground.out.join("a").is_symlink());
    ground.write("a", "2");
    ground.wait("a", "2");
    // Who holds the former directory still reads the former version.
    let path = format!("/proc/self/fd/{}/a", std::os::fd::AsRawFd::as_raw_fd(&held));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "1");
}

#[test]
fn bad_input_is_one_clear_line() {
    let check = |args: &[&str], part: &str| {
        let end = podkit(&[&["config"], args].concat());
        assert_eq!(end.code, Some(2), "{args:?}: {}", end.err);
        assert_eq!(end.err.lines().count(), 1, "{}", end.err);
        assert!(end.err.contains(part), "{args:?}: {}", end.err);
    };
    let out = "--out=/tmp/none";
    let file = "--source=file:/tmp/none";
    check(&[out], "--source (PODKIT_SOURCE): is required");
    check(&[file], "--out (PODKIT_OUT): is required");
    check(
        &[out, "--source=consul://h"],
        "expected file:PATH, http(s)://",
    );
    check(&[out, "--source=http://h/"], "expected ;name=FILE");
    check(
        &[out, file, "--validate=exec:nginx -t"],
        "never names the staged files",
    );
    check(&[out, file, "--reload=tcp::80"], "is for --confirm");
    check(&[out, file, "--template=a"], "the = is missing");
    check(
        &[out, file, "--template=/none/t=x"],
        "/none/t can't be read",
    );
    check(&[out, file, "--template-env=HOME"], "needs a --template");
    check(
        &[out, file, "--token-file=/none"],
        "needs an http(s):// source",
    );
    check(
        &[out, "--source=http://h/a", "--token-file=/none"],
        "/none can't be read",
    );
    check(&[out, file, "--publish=templates"], "needs a --template");
    check(&[out, file, "--chown=nginx"], "is not a user or group id");
    check(
        &["--out=/etc/passwd", file],
        "/etc/passwd is a file; expected a directory",
    );
}

/// A server that holds a request with the present ETag until there is news, if it `holds`.
struct Server {
    addr: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    version: u64,
    body: Vec<u8>,
    status: u16,
    asked: Vec<BTreeMap<String, String>>,
}

impl Server {
    fn start(holds: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || drop(Self::answer(&stream, &shared, holds)));
            }
        });
        Self { addr, state }
    }

    fn answer(
        mut stream: &TcpStream,
        shared: &(Mutex<State>, Condvar),
        holds: bool,
    ) -> std::io::Result<()> {
        let mut fields = BTreeMap::new();
        for line in BufReader::new(stream).lines() {
            let line = line?;
            match line.split_once(": ") {
                Some((name, value)) => drop(fields.insert(name.to_lowercase(), value.to_owned())),
                None if line.is_empty() => break,
                None => {}
            }
        }
        let known = fields.get("if-none-match").cloned();
        let applied = match holds && fields.contains_key("prefer") {
            true => "Preference-Applied: wait\r\n",
            false => "",
        };
        let mut state = shared.0.lock().unwrap();
        state.asked.push(fields);
        let tag = |state: &State| format!("\"{}\"", state.version);
        if holds && known == Some(tag(&state)) {
            let patience = Duration::from_secs(3);
            let same = |state: &mut State| known == Some(tag(state));
            state = shared
                .1
                .wait_timeout_while(state, patience, same)
                .unwrap()
                .0;
        }
        let head = match (state.status, known == Some(tag(&state))) {
            (200, false) => format!(
                "200 OK\r\n{applied}ETag: {}\r\nContent-Length: {}",
                tag(&state),
                state.body.len()
            ),
            (200, true) => "304 Not Modified".to_owned(),
            (status, _) => format!("{status} No\r\nContent-Length: 0"),
        };
        let mut answer = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").into_bytes();
        if head.starts_with("200") {
            answer.extend(&state.body);
        }
        drop(state);
        stream.write_all(&answer)
    }

    fn set(&self, status: u16, body: &[u8]) {
        let mut state = self.state.0.lock().unwrap();
        state.version += 1;
        state.status = status;
        state.body = body.to_vec();
        self.state.1.notify_all();
    }
}

#[test]
fn an_http_server_is_followed() {
    let _turn = Turn::shared();
    for holds in [true, false] {
        let server = Server::start(holds);
        server.set(200, br#"{"a": "1", "d/b": "1"}"#);
        let ground = Ground::new(&[("a", "file")]);
        let token = ground.dir.path().join("token");
        std::fs::write(&token, "secret\n").unwrap();
        let sources = [
            format!("--source=file:{}", ground.source.display()),
            format!("--source=http://{}/state?x=1;as=map", server.addr),
        ];
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        let token = format!("--token-file={}", token.display());
        let module = ground.spawn_from(&sources, &[&token, "--period=200ms"]);
        module.wait_ready();
        assert_eq!(
            (ground.read("a").as_deref(), ground.read("d/b").as_deref()),
            (Some("1"), Some("1"))
        );
        std::thread::sleep(Duration::from_millis(500));
        server.set(200, br#"{"a": "2", "d/b": "2"}"#);
        ground.wait("a", "2");
        // What is no map, and a server in trouble, take nothing.
        server.set(200, b"oops");
        module.process.wait_line("the reason", |line| {
            line.contains("is no JSON object of names and texts")
        });
        server.set(503, b"");
        module
            .process
            .wait_line("the reason", |line| line.contains("answered 503"));
        assert_eq!(ground.read("a").as_deref(), Some("2"));
        assert!(
            !module.process.shown().contains("x=1"),
            "{}",
            module.process.shown()
        );
        server.set(200, br#"{"a": "3", "d/b": "2"}"#);
        ground.wait("a", "3");
        let asked = &server.state.0.lock().unwrap().asked;
        assert!(
            asked
                .iter()
                .all(|fields| fields["authorization"] == "Bearer secret")
        );
        assert!(
            asked
                .iter()
                .any(|fields| fields.get("prefer").is_some_and(|wait| wait == "wait=50"))
        );
    }
}

#[test]
fn a_server_that_holds_requests_is_followed_from_the_first_answer() {
    let _turn = Turn::shared();
    for holds in [true, false] {
        let server = Server::start(holds);
        server.set(200, b"1");
        let ground = Ground::new(&[]);
        let source = format!("--source=http://{}/a", server.addr);
        let module = ground.spawn_from(&[&source], &["--period=1h"]);
        module.wait_ready();
        let asked = || server.state.0.lock().unwrap().asked.len();
        until("the question whether it holds", || {
            (asked() == 2).then_some(())
        });
        if holds {
            // However soon one comes after the other: a second between them would make five of these.
            let begun = Instant::now();
            for text in ["2", "3", "4", "5", "6", "7"] {
                server.set(200, text.as_bytes());
                ground.wait("a", text);
            }
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(4), "{took:?}");
        } else {
            // It does not, and is left alone for the period.
            std::thread::sleep(Duration::from_millis(500));
            assert_eq!(asked(), 2);
        }
    }
}

/// Figures are of a release build, as people have it.
fn optimised() -> bool {
    let mut parts = podkit_testkit::podkit::binary().components();
    parts.any(|part| part.as_os_str() == "release")
}

/// What it takes of the machine while nothing happens.
#[test]
fn it_is_small_while_nothing_happens() {
    let _turn = Turn::alone();
    let ground = Ground::new(&[("a", "1"), ("t", "{{ a }}")]);
    let source = format!("--source=file:{}", ground.source.display());
    let module = ground.spawn_from(&[&source], &["--template=t=made"]);
    // What it takes at most, until it is ready.
    let mut busy = 0;
    until("it is ready", || {
        busy = busy.max(machine::rss_kib(module.process.pid()));
        (http::get(module.admin, "/readyz").ok()?.status == 200).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    let before = machine::cpu_time(module.process.pid());
    std::thread::sleep(Duration::from_secs(3));
    let used = machine::cpu_time(module.process.pid()) - before;
    assert!(used <= Duration::from_millis(10), "{used:?} of CPU in 3 s");
    let rss = machine::rss_kib(module.process.pid());
    println!("idle: {rss} KiB resident, {busy} after it published");
    assert!(
        rss < busy * 3 / 4,
        "{rss} KiB resident, {busy} after it published"
    );
    if optimised() {
        assert!(rss <= 6 * 1024, "{rss} KiB resident");
    }
}
