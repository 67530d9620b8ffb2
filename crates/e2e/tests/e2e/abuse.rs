//! What strangers send: requests that two servers would read differently, and connections that ask for nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::tls::Client;
use podkit_testkit::{Turn, http, until};

/// An upstream that keeps all it is sent, and answers nothing.
fn recorder() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&bytes);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    kept.lock().unwrap().extend_from_slice(&buffer[..count]);
                }
            });
        }
    });
    (addr, bytes)
}

/// Every shape that RFC 9112 calls ambiguous or wrong, and that some server somewhere has taken.
const SHAPES: &[(&str, &str)] = &[
    (
        "both framings",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ),
    (
        "a list of lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello",
    ),
    (
        "a signed length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    ),
    (
        "a length that overflows",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    ),
    (
        "blank before the colon",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    ),
    (
        "a folded header",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
    ),
    ("bare LF", "GET / HTTP/1.1\nHost: a\n\n"),
    ("bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n"),
    ("NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\x002\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (
        "chunked not last",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    ),
    (
        "an unknown coding",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    ),
    (
        "chunked in 1.0",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("not HTTP", "hello\r\n\r\n"),
    ("blank in the target", "GET / x HTTP/1.1\r\nHost: a\r\n\r\n"),
];

#[test]
fn nothing_ambiguous_is_answered_or_forwarded() {
    let _turn = Turn::shared();
    let (upstream, forwarded) = recorder();
    let (listen, plain) = (free_addr(), free_addr());
    let args = [
        format!("--listen={listen}"),
        format!("--upstream={upstream}"),
        "--self-signed".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let _tls = Module::start("tls", &args, &[]);
    let _echo = Module::start("echo", &[&format!("--listen={plain}")], &[]);
    for (what, shape) in SHAPES {
        // A second request behind it must not be taken for one.
        let bytes = format!("{shape}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut secure = Client::trusting().connect(listen, "localhost").unwrap();
        let mut open = http::dial(plain).unwrap();
        for (name, answer) in [
            ("tls", all(&mut secure, &bytes)),
            ("echo", all(&mut open, &bytes)),
        ] {
            assert!(
                answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 501"),
                "{name}, {what}: {answer:?}"
            );
            assert_eq!(
                answer.matches("HTTP/1.1 ").count(),
                1,
                "{name}, {what}: {answer}"
            );
        }
    }
    assert_eq!(String::from_utf8_lossy(&forwarded.lock().unwrap()), "");
    assert_eq!(http::get(plain, "/").unwrap().status, 200);
}

/// Sends and reads until the other side closes.
fn all(stream: &mut (impl Read + Write), bytes: &str) -> String {
    let mut answer = Vec::new();
    // It may be closed before all is sent, and without a close_notify: what counts is what came.
    drop(stream.write_all(bytes.as_bytes()));
    drop(stream.flush());
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// A chunk's size that is no size is found while the body is on its way: the upstream must never see an end of it.
#[test]
fn a_broken_chunk_never_becomes_a_whole_request() {
    let _turn = Turn::shared();
    for chunk in [
        "5x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "fffffffffffffffff\r\n",
    ] {
        let (upstream, forwarded) = recorder();
        let listen = free_addr();
        let args = [
            format!("--listen={listen}"),
            format!("--upstream={upstream}"),
            "--self-signed".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let _tls = Module::start("tls", &args, &[]);
        let mut stream = Client::trusting().connect(listen, "localhost").unwrap();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let answer = all(&mut stream, &request);
        assert!(answer.starts_with("HTTP/1.1 400"), "{chunk:?}: {answer:?}");
        let forwarded = String::from_utf8_lossy(&forwarded.lock().unwrap()).into_owned();
        assert!(
            !forwarded.contains("0\r\n\r\n") && !forwarded.contains("smuggled"),
            "{chunk:?}: {forwarded:?}"
        );
    }
}

#[test]
fn connections_beyond_the_bound_are_refused_and_those_within_go_on() {
    const BOUND: usize = 100;
    let _turn = Turn::shared();
    let listen = free_addr();
    let bound = format!("--max-connections={BOUND}");
    let args = [
        format!("--listen={listen}"),
        bound,
        "--workers=1".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let echo = Module::start("echo", &args, &[]);
    let mut first = http::dial(listen).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(http::exchange(&mut first, request).unwrap().status, 200);
    let crowd: Vec<TcpStream> = (0..BOUND * 3)
        .filter_map(|_| http::dial(listen).ok())
        .collect();
    until("refused connections", || {
        (echo.metric("podkit_connections_total{result=\"refused\"}")? >= 1.0).then_some(())
    });
    assert_eq!(
        http::exchange(&mut first, request).unwrap().status,
        200,
        "one within goes on"
    );
    assert_eq!(echo.admin("/livez").status, 200);
    drop(crowd);
    // And there is room again.
    until("room", || {
        http::get(listen, "/")
            .ok()
            .filter(|answer| answer.status == 200)
    });
}

#[test]
fn a_slow_head_is_cut() {
    let _turn = Turn::shared();
    let listen = free_addr();
    let args = [
        format!("--listen={listen}"),
        "--head-timeout=300ms".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let echo = Module::start("echo", &args, &[]);
    let mut slow = http::dial(listen).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408") || answer.is_empty(),
        "{answer}"
    );
    assert_eq!(http::get(listen, "/").unwrap().status, 200);
    assert_eq!(echo.admin("/livez").status, 200);
}
