//! `podkit chain`: routes, live changes of everything, files that are refused.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use podkit_testkit::browser::Browser;
use podkit_testkit::http::{self, Response};
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::{Module, podkit};
use podkit_testkit::tls::Client;
use podkit_testkit::{Need, Turn, able, until};
use serde_json::Value;

use crate::balance::{Load, Upstream};

/// Two nginx, a chain in front, and its file.
struct Rig {
    chain: Module,
    file: PathBuf,
    socket: PathBuf,
    a: Upstream,
    b: Upstream,
    listen: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Rig {
    /// None when the machine lacks nginx.
    fn new() -> Option<Self> {
        if !able(&[Need::Program("nginx")]) {
            return None;
        }
        let (a, b) = (Upstream::new("a"), Upstream::new("b"));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (file, socket) = (dir.path().join("chain.yaml"), dir.path().join("admin"));
        let listen = free_addr();
        std::fs::write(&file, text(&a, &b, &format!("listen: '{listen}'"), "a")).unwrap();
        let args = [
            file.display().to_string(),
            format!("--admin-socket={}", socket.display()),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let rig = Self {
            chain: Module::start("chain", &args, &[]),
            file,
            socket,
            a,
            b,
            listen,
            _dir: dir,
        };
        until("both clusters are ready", || {
            let states = ["a", "b"].map(|name| rig.upstream(name)["state"] == "ready");
            (states == [true, true]).then_some(())
        });
        Some(rig)
    }

    /// The upstream of a cluster, as `/upstreams` shows it.
    fn upstream(&self, cluster: &str) -> Value {
        let all = self.chain.admin("/upstreams").json();
        all["clusters"][cluster]["upstreams"][0].clone()
    }

    /// Writes the file, and waits until that was taken or refused.
    fn write(&self, text: &str, result: &str) {
        let sample = format!("podkit_chain_reloads_total{{result=\"{result}\"}}");
        let before = self.chain.metric(&sample).unwrap();
        std::fs::write(&self.file, text).unwrap();
        until(result, || {
            (self.chain.metric(&sample).unwrap() > before).then_some(())
        });
    }

    fn text(&self, listeners: &str, end: &str) -> String {
        text(&self.a, &self.b, listeners, end)
    }

    fn get(&self, host: &str, path: &str) -> Response {
        ask(self.listen, host, path)
    }
}

/// A file: `/` leads to the stage `end`.
fn text(a: &Upstream, b: &Upstream, listeners: &str, end: &str) -> String {
    let balance = |at: SocketAddr| format!("balance: {{upstream: '{at}', ready-period: 100ms}}");
    format!(
        "{listeners}\nstages:\n  a:\n    {}\n  b:\n    {}\n  few:\n    limit: {{rule: {{name: few, key: global, rate: 1/h, burst: 3}}}}\n\
         routes:\n- stages: [{end}]\n- path: /b/*\n  stages: b\n- host: b.example.com\n  path: /few\n  stages: [few, b]\n\
         - host: '*.example.com'\n  path: /wild\n  stages: b\n- host: only.example.org\n  path: /x\n  stages: a\n",
        balance(a.addr),
        balance(b.addr)
    )
}

fn ask(addr: SocketAddr, host: &str, path: &str) -> Response {
    let mut stream = http::dial(addr).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    http::exchange(&mut stream, request.as_bytes()).unwrap()
}

#[test]
fn requests_go_by_host_and_path_through_their_stages() {
    let _turn = Turn::shared();
    let Some(rig) = Rig::new() else { return };
    let check =
        |host, path, expected| assert_eq!(rig.get(host, path).text(), expected, "{host}{path}");
    check("x", "/", "a");
    check("x", "/b", "b");
    check("x", "/b/1", "b");
    check("x", "/bb", "a");
    check("x", "/a/%2e%2e/b", "b");
    check("any.example.com:80", "/wild", "b");
    let answers: Vec<u16> = (0..5)
        .map(|_| rig.get("b.example.com", "/few").status)
        .collect();
    assert_eq!(answers, [200, 200, 200, 429, 429]);
    let limited = "podkit_limit_requests_total{stage=\"few\",rule=\"few\",result=\"limited\"}";
    assert_eq!(rig.chain.metric(limited), Some(2.0));
    let usable = format!(
        "podkit_upstream_usable{{stage=\"a\",upstream=\"{}\"}}",
        rig.a.addr
    );
    assert_eq!(rig.chain.metric(&usable), Some(1.0));
    let page = rig.chain.admin("/").text();
    assert!(
        page.contains("*.example.com") && page.contains("few: Rules"),
        "{page}"
    );
    // An upstream of one cluster is drained by name.
    let path = format!("/upstreams/b/{}/drain", rig.b.addr);
    let mut socket = std::os::unix::net::UnixStream::connect(&rig.socket).unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    let drained = http::exchange(&mut socket, request.as_bytes()).unwrap();
    assert_eq!(drained.status, 200, "{}", drained.text());
    assert_eq!(rig.upstream("b")["state"], "draining");
    assert_eq!(rig.upstream("a")["state"], "ready");
}

#[test]
fn everything_changes_while_clients_ask_and_nobody_notices() {
    let _turn = Turn::alone();
    let Some(rig) = Rig::new() else { return };
    let listen = format!("listen: '{}'", rig.listen);
    let kept = Load::start(rig.listen, 16);
    let new = Load::start_new_connections(rig.listen, 4);
    let other = free_addr();
    let answered = |name: &str| rig.upstream(name)["answered"].as_u64().unwrap();
    for round in 0..4 {
        // Another route, on connections that are open.
        let before = answered("a");
        rig.write(&rig.text(&listen, "b"), "changed");
        kept.wait(200);
        assert_eq!(rig.get("x", "/").text(), "b");
        assert!(
            answered("a") >= before,
            "an unchanged cluster keeps its counters"
        );
        // Another setting of the same address, and another address.
        let both = format!(
            "listeners:\n- listen: '{}'\n  idle-timeout: {}s\n- listen: '{other}'\n  tls: {{self-signed: true}}\n  routes: [{{stages: a}}]",
            rig.listen,
            20 + round
        );
        rig.write(&rig.text(&both, "b"), "changed");
        kept.wait(200);
        new.wait(50);
        let by_tls = Client::trusting().get(other, "localhost", "/").unwrap();
        assert_eq!(by_tls.text(), "a");
        // The address goes again.
        rig.write(&rig.text(&listen, "a"), "changed");
        until("the address is free", || {
            std::net::TcpStream::connect(other).is_err().then_some(())
        });
        kept.wait(200);
        new.wait(50);
    }
    let (done, failed, _) = kept.end();
    assert_eq!(failed, Vec::<String>::new(), "of {done}");
    let (done, failed, _) = new.end();
    assert_eq!(failed, Vec::<String>::new(), "of {done}");
}

#[test]
fn a_new_cluster_gets_requests_once_it_takes_them() {
    let _turn = Turn::shared();
    let Some(rig) = Rig::new() else { return };
    let listen = format!("listen: '{}'", rig.listen);
    let load = Load::start(rig.listen, 4);
    // Known by a name that must be asked for first.
    let by_name = format!("dns:localhost:{}", rig.b.addr.port());
    let text = rig.text(&listen, "c");
    let new =
        format!("stages:\n  c:\n    balance: {{upstream: '{by_name}', ready-period: 100ms}}\n");
    rig.write(&text.replacen("stages:\n", &new, 1), "changed");
    until("the new cluster", || {
        (rig.get("x", "/").text() == "b").then_some(())
    });
    load.wait(200);
    let (done, failed, _) = load.end();
    assert_eq!(failed, Vec::<String>::new(), "of {done}");
}

#[test]
fn a_bad_file_is_refused_and_the_old_state_stays() {
    let _turn = Turn::shared();
    let Some(rig) = Rig::new() else { return };
    let listen = format!("listen: '{}'", rig.listen);
    let good = rig.text(&listen, "a");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let occupied = format!(
        "listeners:\n- listen: '{}'\n- listen: '{}'\n- listen: '{taken}'",
        rig.listen,
        free_addr()
    );
    for (text, why) in [
        (
            good.replace("ready-period", "ready-perod"),
            "did you mean ready-period?",
        ),
        (
            good.replace("stages: [a]", "stages: [c]"),
            "there is no stage",
        ),
        (format!("{good}]"), "chain.yaml:"),
        (rig.text(&occupied, "b"), "address in use"),
    ] {
        rig.write(&text, "refused");
        assert_eq!(rig.get("x", "/").text(), "a");
        assert_eq!(rig.chain.metric("podkit_chain_file_in_force"), Some(0.0));
        let page = rig.chain.admin("/").text();
        assert!(page.contains("The file is refused"), "{page}");
        rig.chain
            .process
            .wait_line(why, |line| line.contains(why) && line.contains("refused"));
        assert_eq!(rig.chain.admin("/readyz").status, 200);
    }
    rig.write(&rig.text(&listen, "b"), "changed");
    assert_eq!(rig.get("x", "/").text(), "b");
    assert_eq!(rig.chain.metric("podkit_chain_file_in_force"), Some(1.0));
    // What is wrong at the start is one line; check lists it all.
    std::fs::write(&rig.file, good.replace("ready-period", "ready-perod")).unwrap();
    let file = rig.file.display().to_string();
    let started = podkit(&["chain", &file]);
    assert_eq!(started.code, Some(2));
    assert_eq!(started.err.lines().count(), 1, "{}", started.err);
    assert!(
        started
            .err
            .contains("(and 1 more; podkit check lists them)"),
        "{}",
        started.err
    );
    let checked = podkit(&["check", &file]);
    assert_eq!(checked.code, Some(2), "{}", checked.out);
    assert!(
        checked.out.contains("chain.yaml:4:") && checked.out.contains("2 errors"),
        "{}",
        checked.out
    );
    std::fs::write(&rig.file, &good).unwrap();
    let checked = podkit(&["check", &file]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    assert!(
        checked.out.contains("a file of podkit chain"),
        "{}",
        checked.out
    );
}

#[test]
fn who_is_limited_by_stages_is_shown_and_stages_in_routes_are_named_by_them() {
    let _turn = Turn::shared();
    if !able(&[Need::Program("chromedriver")]) {
        return;
    }
    let (back, listen) = (free_addr(), free_addr());
    let _echo = Module::start("echo", &[&format!("--listen={back}")], &[]);
    let dir = tempfile::tempdir().unwrap();
    let (file, socket) = (dir.path().join("chain.yaml"), dir.path().join("admin"));
    let text = |listen: SocketAddr| {
        format!(
            "listen: '{listen}'\nroutes:\n- path: /a/*\n  stages:\n  - limit: {{rule: {{name: few, key: path, rate: 1/h, burst: 1}}}}\n  \
             - balance: {{upstream: '{back}'}}\n- stages: {{balance: {{upstream: '{back}'}}}}\n"
        )
    };
    std::fs::write(&file, text(listen)).unwrap();
    let (file_arg, socket_arg) = (
        file.display().to_string(),
        format!("--admin-socket={}", socket.display()),
    );
    let chain = Module::start("chain", &[&file_arg, &socket_arg], &[]);
    let statuses = [(); 3].map(|()| ask(listen, "x", "/a/b").status);
    assert_eq!(statuses, [200, 429, 429]);
    assert_eq!(ask(listen, "x", "/c").status, 200);
    let json = chain.admin("/limited?format=json").json();
    let (limited, rule) = (&json["limited"][0], &json["rules"][0]);
    assert_eq!(
        (limited["stage"].as_str(), limited["denied"].as_u64()),
        (Some("/a/* limit"), Some(2))
    );
    assert_eq!(
        (rule["stage"].as_str(), rule["limited"].as_u64()),
        (Some("/a/* limit"), Some(2))
    );
    let browser = Browser::open(1000, 900, false);
    browser.visit(&format!("http://{}/limited", chain.admin));
    let cells = until("the key is shown", || {
        let cells = browser.script("return [...document.querySelectorAll('#limited td')].map((cell) => cell.textContent).slice(0, 4);");
        (cells.as_array()?.len() == 4).then_some(cells)
    });
    assert_eq!(
        cells,
        serde_json::json!(["/a/b", "/a/* limit: few", "0", "2"])
    );
    assert_eq!(browser.script("return document.title;"), "podkit chain");
    assert_eq!(browser.console_errors(), Vec::<String>::new());
    // A name with slashes and spaces.
    let path = format!("/upstreams/%2Fa%2F*%20balance/{back}/drain");
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    let drained = http::exchange(&mut stream, request.as_bytes()).unwrap();
    assert_eq!(drained.status, 200, "{}", drained.text());
    let clusters = chain.admin("/upstreams").json();
    let state = |name: &str| clusters["clusters"][name]["upstreams"][0]["state"].clone();
    assert_eq!(state("/a/* balance"), "draining");
    assert_ne!(state("/* balance"), "draining");
    // What is found by watching counts.
    assert_eq!(chain.metric("podkit_config_generation"), Some(1.0));
    std::fs::write(&file, text(listen).replace("burst: 1", "burst: 2")).unwrap();
    until("the edit counts", || {
        (chain.metric("podkit_config_generation") == Some(2.0)).then_some(())
    });
    let checked = podkit(&["check", &file_arg]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
}

/// Answers one request with a change of protocol, and echoes what comes then.
fn echoing_tunnel() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let count = stream.read(&mut bytes).unwrap();
                    head.extend(&bytes[..count]);
                }
                stream
                    .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
                    .unwrap();
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

#[test]
fn tunnels_of_a_listener_that_is_removed_end_within_the_drain_time() {
    let _turn = Turn::shared();
    let back = echoing_tunnel();
    let [stays, goes] = [free_addr(), free_addr()];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chain.yaml");
    let routes = format!("routes:\n- stages: {{balance: {{upstream: '{back}'}}}}\n");
    std::fs::write(
        &file,
        format!("listeners:\n- listen: '{stays}'\n- listen: '{goes}'\n{routes}"),
    )
    .unwrap();
    let chain = Module::start(
        "chain",
        &[&file.display().to_string(), "--drain-timeout=3s"],
        &[],
    );
    let tunnel = |addr: SocketAddr| {
        let mut stream = http::dial(addr).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            .unwrap();
        assert_eq!(http::receive(&mut stream).unwrap().status, 101);
        stream
    };
    let echoes = |stream: &mut std::net::TcpStream| {
        let mut back = [0; 4];
        stream.write_all(b"ping").is_ok() && stream.read_exact(&mut back).is_ok()
    };
    let (mut kept, mut cut) = (tunnel(stays), tunnel(goes));
    let begun = Instant::now();
    std::fs::write(&file, format!("listen: '{stays}'\n{routes}")).unwrap();
    until("the edit is taken", || {
        (chain.metric("podkit_config_generation") == Some(2.0)).then_some(())
    });
    until("the tunnel is cut", || (!echoes(&mut cut)).then_some(()));
    // It had its time.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(2900), "{took:?}");
    assert!(echoes(&mut kept));
    drop(kept);
}
