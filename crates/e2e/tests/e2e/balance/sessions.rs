//! Sessions that stay where they are.

use std::io::{Read as _, Write as _};

use podkit_testkit::Turn;
use podkit_testkit::http::{self, Response};
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;

use super::Rig;

/// The name and value of the cookie that an answer sets.
fn cookie(answer: &Response) -> Option<String> {
    let line = answer.header("set-cookie")?;
    line.split(';').next().map(str::to_owned)
}

fn with_cookie(rig: &Rig, cookie: &str) -> Response {
    http::get_with(rig.listen, "/", &format!("Cookie: other=1; {cookie}\r\n")).unwrap()
}

#[test]
fn a_session_stays_and_only_those_of_a_lost_upstream_move() {
    let _turn = Turn::shared();
    let Some(mut rig) = Rig::new(&["--affinity=cookie:stay", "--ready-failures=1"]) else {
        return;
    };
    let sessions: Vec<(String, String)> = (0..30)
        .map(|_| {
            let answer = rig.get("/");
            let line = answer.header("set-cookie").expect("a session begins");
            assert!(line.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{line}");
            (cookie(&answer).unwrap(), answer.text())
        })
        .collect();
    // The cookie tells nothing of addresses.
    let port = rig.upstreams[0].addr.port().to_string();
    assert!(sessions.iter().all(|(cookie, _)| {
        cookie.starts_with("stay=") && cookie.len() == 27 && !cookie.contains(&port)
    }));
    let names: std::collections::BTreeSet<&str> =
        sessions.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for (cookie, name) in &sessions {
        let answer = with_cookie(&rig, cookie);
        assert_eq!(answer.text(), *name);
        assert_eq!(answer.header("set-cookie"), None);
    }
    // What nobody issued is no session.
    assert!(cookie(&with_cookie(&rig, "stay=AAAAAAAAAAAAAAAAAAAAAA")).is_some());
    assert!(cookie(&with_cookie(&rig, "stay=127.0.0.1")).is_some());

    rig.upstreams[1].kill();
    for (old, name) in &sessions {
        let answer = with_cookie(&rig, old);
        match name.as_str() {
            "b" => {
                assert_ne!(answer.text(), "b");
                assert!(cookie(&answer).is_some_and(|new| new != *old));
            }
            stays => assert_eq!((answer.text().as_str(), cookie(&answer)), (stays, None)),
        }
    }
    rig.upstreams[1].start();
}

#[test]
fn replicas_with_one_secret_agree() {
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "a secret of thirty-two bytes or more\n").unwrap();
    let secret = format!("--affinity-secret-file={}", file.display());
    let Some(first) = Rig::new(&["--affinity=cookie", "--ready=off", &secret]) else {
        return;
    };
    let named: Vec<String> = first
        .upstreams
        .iter()
        .map(|one| format!("--upstream={}", one.addr))
        .collect();
    let mut args: Vec<&str> = named.iter().map(String::as_str).collect();
    args.extend(["--affinity=cookie", "--ready=off", &secret]);
    let second = Rig::with(Vec::new(), &args);
    for _ in 0..10 {
        let answer = first.get("/");
        let other = with_cookie(&second, &cookie(&answer).unwrap());
        assert_eq!((other.text(), cookie(&other)), (answer.text(), None));
    }
}

#[test]
fn a_key_finds_its_upstream_and_comes_back_to_it() {
    let _turn = Turn::shared();
    for hash in ["maglev", "ketama", "rendezvous"] {
        let hash = format!("--hash={hash}");
        let args = [
            "--policy=hash",
            "--hash-key=header:X-User",
            &hash,
            "--ready-failures=1",
        ];
        let Some(mut rig) = Rig::new(&args) else {
            return;
        };
        let names = |rig: &Rig| -> Vec<String> {
            let ask = |user| http::get_with(rig.listen, "/", &format!("X-User: {user}\r\n"));
            (0..60).map(|user| ask(user).unwrap().text()).collect()
        };
        let before = names(&rig);
        assert_eq!(before, names(&rig));
        for name in ["a", "b", "c"] {
            let count = before.iter().filter(|one| *one == name).count();
            assert!(count >= 5, "{hash} {name}: {count}");
        }
        rig.upstreams[0].stop();
        for (old, new) in before.iter().zip(names(&rig)) {
            match old.as_str() {
                "a" => assert_ne!(new, "a"),
                stays => assert_eq!(new, stays, "{hash}"),
            }
        }
        rig.upstreams[0].start();
        rig.wait_states("it is back", |states| states[0] == "ready");
        assert_eq!(before, names(&rig));
    }
}

#[test]
fn a_drained_upstream_keeps_its_sessions_and_gets_no_others() {
    let _turn = Turn::shared();
    let Some(rig) = Rig::new(&["--affinity=cookie"]) else {
        return;
    };
    let session = loop {
        let answer = rig.get("/");
        if answer.text() == "b" {
            break cookie(&answer).unwrap();
        }
    };
    let name = rig.upstreams[1].addr.to_string();
    assert_eq!(
        rig.post(&format!("/upstreams/{name}/drain")),
        (200, format!("{name} is drained\n"))
    );
    assert_eq!(rig.shown()[1]["state"], "draining");
    assert_eq!(rig.shown()[1]["reason"], "drained by request");
    let shares = rig.shares(30, |_| rig.get("/"));
    assert_eq!(shares[1], 0, "{shares:?}");
    assert_eq!(with_cookie(&rig, &session).text(), "b");
    assert_eq!(rig.post(&format!("/upstreams/{name}/undrain")).0, 200);
    assert!(rig.shares(60, |_| rig.get("/"))[1] > 0);
}

#[test]
fn upstreams_are_not_told_the_cookie_of_a_session() {
    let _turn = Turn::shared();
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("--upstream={}", upstream.local_addr().unwrap());
    let heads = std::thread::spawn(move || {
        let mut heads = Vec::new();
        let (mut stream, _) = upstream.accept().unwrap();
        let mut bytes = [0; 4096];
        while heads.len() < 2 {
            let count = stream.read(&mut bytes).unwrap();
            heads.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
        }
        heads
    });
    let listen = free_addr();
    let balance = Module::start(
        "balance",
        &[
            &at,
            &format!("--listen={listen}"),
            "--affinity=cookie",
            "--ready=off",
            "--ready=off",
            "--workers=1",
        ],
        &[],
    );
    let first = http::get_with(listen, "/", "Cookie: id=7; lang=de\r\n").unwrap();
    let session = cookie(&first).unwrap();
    let fields = format!("Cookie: id=7; {session}; lang=de\r\n");
    let second = http::get_with(listen, "/", &fields).unwrap();
    assert_eq!(cookie(&second), None, "it is known");
    let heads = heads.join().unwrap();
    assert!(
        heads[0].contains("Cookie: id=7; lang=de\r\n"),
        "{}",
        heads[0]
    );
    assert!(
        heads[1].contains("Cookie: id=7; lang=de\r\n"),
        "{}",
        heads[1]
    );
    assert!(!heads[1].contains("podkit="), "{}", heads[1]);
    drop(balance);
}
