//! Who gets how much, and what reaches an upstream.

use podkit_testkit::http;
use podkit_testkit::{Turn, until};

use super::{Rig, Upstream};

#[test]
fn shares_are_as_the_weights_and_a_second_priority_waits() {
    let _turn = Turn::shared();
    if !podkit_testkit::able(&[podkit_testkit::Need::Program("nginx")]) {
        return;
    }
    let upstreams: Vec<Upstream> = ["a", "b", "c"].map(Upstream::new).into();
    let options = [";weight=3", ";weight=1", ";priority=1"];
    let named: Vec<String> = upstreams
        .iter()
        .zip(options)
        .map(|(one, option)| format!("--upstream={}{option}", one.addr))
        .collect();
    let mut args: Vec<&str> = named.iter().map(String::as_str).collect();
    args.extend([
        "--policy=round-robin",
        "--workers=1",
        "--ready=/ready",
        "--ready-failures=1",
    ]);
    let mut rig = Rig::with(upstreams, &args);
    assert_eq!(rig.shares(40, |_| rig.get("/")), [30, 10, 0]);
    // Both of the first priority are away: the second one has it all.
    rig.upstreams[0].stop();
    rig.upstreams[1].stop();
    rig.wait_states("two are away", |states| {
        states == ["unready", "unready", "ready"]
    });
    assert_eq!(rig.shares(20, |_| rig.get("/")), [0, 0, 20]);
    rig.upstreams[0].start();
    rig.wait_states("one is back", |states| states[0] == "ready");
    // Half of the first level's four parts and more is there: 3 of 4, so all of the load.
    assert_eq!(rig.shares(20, |_| rig.get("/")), [20, 0, 0]);
}

#[test]
fn a_file_is_followed_and_a_mistake_in_it_changes_nothing() {
    let _turn = Turn::shared();
    if !podkit_testkit::able(&[podkit_testkit::Need::Program("nginx")]) {
        return;
    }
    let upstreams: Vec<Upstream> = ["a", "b", "c"].map(Upstream::new).into();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("upstreams");
    let write = |lines: &[String]| std::fs::write(&file, lines.join("\n")).unwrap();
    let addr = |at: usize| upstreams[at].addr.to_string();
    let both = [addr(0), addr(1)];
    let (first, third) = ([addr(0)], [addr(0), addr(2)]);
    write(&both);
    let upstream = format!("--upstream=file:{}", file.display());
    let rig = Rig::with(
        upstreams,
        &[&upstream, "--policy=round-robin", "--workers=1"],
    );
    assert_eq!(rig.shares(20, |_| rig.get("/")), [10, 10, 0]);

    write(&["nonsense".to_owned()]);
    until("the mistake is told", || {
        let json = rig.balance.admin("/upstreams").json();
        let problem = json["problems"][0].as_str()?;
        assert!(problem.contains("line 1: \"nonsense\""), "{problem}");
        Some(())
    });
    assert_eq!(rig.shares(20, |_| rig.get("/")), [10, 10, 0]);

    write(&third);
    rig.wait_states("the third is there", |states| states == ["ready", "ready"]);
    until("the third is there", || {
        let shown = rig.shown();
        (shown[1]["name"] == third[1].as_str()).then_some(())
    });
    rig.wait_states("it was found ready", |states| states == ["ready", "ready"]);
    assert_eq!(rig.shares(20, |_| rig.get("/")), [10, 0, 10]);
    // The first one stayed: it has its counts.
    until("all is counted", || {
        (rig.shown()[0]["answered"] == 30).then_some(())
    });
    write(&first);
    until("one is left", || (rig.shown().len() == 1).then_some(()));
    assert_eq!(rig.shares(20, |_| rig.get("/")), [20, 0, 0]);
}

#[test]
fn a_websocket_goes_through() {
    use std::io::{Read as _, Write as _};
    let _turn = Turn::shared();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
            .unwrap();
        let mut got = [0; 4];
        stream.read_exact(&mut got).unwrap();
        stream.write_all(&got).unwrap();
        String::from_utf8(head).unwrap()
    });
    let upstream = format!("--upstream={addr}");
    let rig = Rig::with(Vec::new(), &[&upstream, "--ready=off", "--affinity=cookie"]);
    let mut client = http::dial(rig.listen).unwrap();
    client
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .unwrap();
    let mut got = Vec::new();
    let mut bytes = [0; 1024];
    while !got.ends_with(b"hello") {
        let count = client.read(&mut bytes).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&bytes[..count]);
    }
    let head = String::from_utf8_lossy(&got).into_owned();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("Set-Cookie: podkit="), "{head}");
    until("the tunnel counts as in flight", || {
        (rig.shown()[0]["in_flight"] == 1).then_some(())
    });
    client.write_all(b"ping").unwrap();
    client.read_exact(&mut bytes[..4]).unwrap();
    assert_eq!(&bytes[..4], b"ping");
    assert!(server.join().unwrap().contains("Upgrade: websocket"));
}

#[test]
fn traces_are_passed_on_or_made_and_requests_are_logged() {
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let log = format!("--access-log={}", file.display());
    let Some(rig) = Rig::new(&["--traceparent=make", &log]) else {
        return;
    };
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let field = format!("traceparent: {trace}\r\n");
    let passed = http::get_with(rig.listen, "/one?a=\"b\"", &field).unwrap();
    assert_eq!(passed.header("x-trace"), Some(trace));
    let wrong = format!(
        "traceparent: {}\r\ntracestate: a=b\r\n",
        trace.replace("00-", "ff-")
    );
    let made = http::get_with(rig.listen, "/two", &wrong).unwrap();
    let made = made.header("x-trace").unwrap();
    assert!(
        made.starts_with("00-") && made.len() == 55 && made != trace,
        "{made}"
    );
    let lines = until("two lines", || {
        let text = std::fs::read_to_string(&file).ok()?;
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (lines.len() == 2).then_some(lines)
    });
    let mut lines = lines.iter();
    let one = lines
        .clone()
        .find(|line| line["target"] == "/one?a=\"b\"")
        .unwrap();
    assert_eq!(one["trace"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(
        (one["status"].as_u64(), one["method"].as_str()),
        (Some(200), Some("GET"))
    );
    assert_eq!(one["client"], "127.0.0.1");
    assert!(
        rig.upstreams
            .iter()
            .any(|up| one["upstream"] == up.addr.to_string())
    );
    let two = lines.find(|line| line["target"] == "/two").unwrap();
    assert_eq!(two["trace"], made[3..35]);
}
