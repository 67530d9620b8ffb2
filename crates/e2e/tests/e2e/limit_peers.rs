//! Replicas of `podkit limit` that enforce one rate together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::{Turn, http, until};

/// Replicas in front of one application, each with a listener for clients and one for its peers.
struct Replicas {
    modules: Vec<Module>,
    fronts: Vec<SocketAddr>,
    _echo: Module,
    _dir: tempfile::TempDir,
    _turn: Turn,
}

fn secret(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

impl Replicas {
    /// One for each of `secrets`.
    fn start(rule: &str, timeout: &str, secrets: &[&str]) -> Self {
        let turn = Turn::shared();
        let dir = tempfile::tempdir().unwrap();
        let back = free_addr();
        let echo = Module::start("echo", &[&format!("--listen={back}")], &[]);
        let peers: Vec<SocketAddr> = secrets.iter().map(|_| free_addr()).collect();
        let fronts: Vec<SocketAddr> = secrets.iter().map(|_| free_addr()).collect();
        let all: Vec<String> = peers.iter().map(ToString::to_string).collect();
        let modules = secrets.iter().enumerate().map(|(at, text)| {
            let file = secret(dir.path(), &format!("secret{at}"), text);
            let args = [
                format!("--listen={}", fronts[at]),
                format!("--upstream={back}"),
                format!("--rule={rule}"),
                format!("--peers={}", all.join(",")),
                format!("--peers-secret-file={}", file.display()),
                format!("--peers-listen={}", peers[at]),
                format!("--peers-timeout={timeout}"),
                "--workers=2".to_owned(),
            ];
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Module::start("limit", &args, &[])
        });
        Self {
            modules: modules.collect(),
            fronts,
            _echo: echo,
            _dir: dir,
            _turn: turn,
        }
    }

    fn connected(&self) {
        for module in &self.modules {
            until("all peers are connected", || {
                let page = module.admin("/").text();
                let others = page.matches("<td>connected</td>").count();
                (others + 1 == self.modules.len()).then_some(())
            });
        }
    }
}

const SECRET: &str = "not a secret that anybody would keep\n";

/// Several clients of `keys` keys at all replicas for `time`; what passed, and what one replica would let pass (at 200/s, burst 40).
fn flood(replicas: &Replicas, keys: usize, time: Duration) -> (u64, u64) {
    let begin = Instant::now();
    let client = |front: SocketAddr, key: usize| {
        std::thread::spawn(move || {
            let mut stream = http::dial(front).unwrap();
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: key{key}\r\n\r\n");
            let mut passed = 0;
            while begin.elapsed() < time {
                let answer = http::exchange(&mut stream, request.as_bytes()).unwrap();
                match answer.status {
                    200 => passed += 1,
                    429 => std::thread::sleep(Duration::from_millis(2)),
                    other => panic!("{other}"),
                }
            }
            passed
        })
    };
    let clients: Vec<_> = replicas
        .fronts
        .iter()
        .flat_map(|front| (0..keys).map(|key| client(*front, key)))
        .collect();
    let passed: u64 = clients.into_iter().map(|one| one.join().unwrap()).sum();
    let each = 40.0 + 200.0 * begin.elapsed().as_secs_f64();
    (passed, (each * keys as f64) as u64)
}

const RULE: &str = "name=key key=header:X-Key rate=200/s burst=40";

fn allow_what_one_would(time: Duration) {
    let replicas = Replicas::start(RULE, "1s", &[SECRET; 3]);
    replicas.connected();
    let (passed, exact) = flood(&replicas, 2, time);
    let share = passed as f64 / exact as f64 * 100.0;
    println!("{passed} passed in {time:?}, {exact} are exact: {share:.2} %");
    assert!(
        passed.abs_diff(exact) * 20 <= exact,
        "{passed} passed, {exact} are exact"
    );
    for module in &replicas.modules {
        let failed = module.metric("podkit_limit_peer_asks_total{result=\"failed\"}");
        assert_eq!(failed, Some(0.0));
    }
}

#[test]
fn three_replicas_allow_what_one_would() {
    allow_what_one_would(Duration::from_secs(4));
}

#[test]
#[ignore = "a minute; --run-ignored only --no-capture"]
fn three_replicas_allow_what_one_would_in_a_minute() {
    allow_what_one_would(Duration::from_secs(60));
}

#[test]
fn a_replica_with_another_secret_is_not_asked_and_counts_alone() {
    let rule = "name=all key=global rate=1/h burst=2";
    let other = "another secret that nobody would keep";
    let replicas = Replicas::start(rule, "1s", &[SECRET, other]);
    until("the other one is lost", || {
        let page = replicas.modules[0].admin("/").text();
        page.contains("<td>lost</td>").then_some(())
    });
    for front in &replicas.fronts {
        let statuses = [(); 3].map(|()| http::get(*front, "/").unwrap().status);
        assert_eq!(statuses, [200, 200, 429]);
    }
}

#[test]
fn what_is_wrong_with_the_peers_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let short = secret(dir.path(), "short", "short\n");
    let refused = |args: &[&str], expected: &str| {
        let mut all = vec![
            "limit",
            "--upstream=:1",
            "--rule=name=a key=ip rate=1/s",
            "--listen=127.0.0.1:0",
        ];
        all.extend(args);
        let finished = podkit_testkit::podkit::podkit(&all);
        assert_eq!(finished.code, Some(2), "{}", finished.err);
        assert!(finished.err.contains(expected), "{}", finished.err);
    };
    refused(&["--peers=127.0.0.1:9"], "is required with --peers");
    let file = format!("--peers-secret-file={}", short.display());
    refused(&[&file], "means nothing without --peers");
    refused(&["--peers=127.0.0.1:9", &file], "has 5 bytes; expected 16");
    refused(
        &["--peers=https://127.0.0.1:9", &file],
        "a protocol of their own",
    );
    refused(
        &["--peers=127.0.0.1:9", &file, "--peers-listen=name:9"],
        "not a name",
    );
}
