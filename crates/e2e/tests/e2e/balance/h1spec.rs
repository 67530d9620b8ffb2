//! The request shapes of h1spec (uNetworking, <https://github.com/uNetworking/h1spec>) at the level of bytes, each whole and byte by
//! byte. Its own runs look at the answer's status; here nothing that is refused reaches the upstream either, the connection ends
//! behind it, and what is not whole yet is waited for and then answered.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::{Turn, http};

/// What must become of a shape.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// It is the begin of [`WHOLE`]: nothing is answered before the rest has come.
    Waits,
    /// 200, and the upstream got what ends so.
    Answered(&'static str),
    /// Refused with a code in this range.
    Refused(u16, u16),
}

use Then::{Answered, Refused, Waits};

const WHOLE: &str = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Its 33 shapes, in its order.
const SHAPES: &[(&str, Then)] = &[
    ("G", Waits),
    ("GET ", Waits),
    ("GET /hello", Waits),
    ("GET /hello ", Waits),
    ("GET /hello HTTP", Waits),
    ("GET /hello HTTP/1.1", Waits),
    ("GET /hello HTTP/1.1\r", Waits),
    ("GET /hello HTTP/1.1\r\n", Waits),
    ("GET /hello HTTP/1.1\r\nHos", Waits),
    ("GET /hello HTTP/1.1\r\nHost:", Waits),
    ("GET /hello HTTP/1.1\r\nHost: ", Waits),
    ("GET /hello HTTP/1.1\r\nHost: localhost", Waits),
    ("GET /hello HTTP/1.1\r\nHost: localhost\r", Waits),
    ("GET /hello HTTP/1.1\r\nHost: localhost\r\n", Waits),
    ("GET /hello HTTP/1.1\r\nHost: localhost\r\n\r", Waits),
    ("GET / \r\n\r\n", Refused(400, 599)),
    (
        "GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
        Answered("\r\n\r\n"),
    ),
    ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", Answered("\r\n\r\n")),
    (
        "GET / HTTP/1.1\r\nhoSt:\th\r\nempty:\r\n\r\n",
        Answered("\r\n\r\n"),
    ),
    (
        "GET / HTTP/1.1\r\nHost: h\r\nX-Wrong[]: 1\r\n\r\n",
        Refused(400, 499),
    ),
    (
        "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        Refused(400, 499),
    ),
    (
        "GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
        Refused(400, 499),
    ),
    (
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -98765432109876543210987654321\r\n\r\n",
        Refused(400, 499),
    ),
    (
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -4321\r\n\r\n",
        Refused(400, 499),
    ),
    (
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: five\r\n\r\n",
        Refused(400, 499),
    ),
    (
        "GET / HTTP/1.1\r\nHost: h\r\nX-Empty: \r\n\r\n",
        Answered("\r\n\r\n"),
    ),
    (
        "GET / HTTP/1.1\r\nHost: h\r\nX-Bell: a\x07\r\n\r\n",
        Refused(400, 499),
    ),
    ("GET / HTTP/9.9\r\nHost: h\r\n\r\n", Refused(400, 599)),
    (
        "More lineGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        Refused(400, 599),
    ),
    (
        "GET / HTTP/1.1\r\nHost: h\r\n\rX-Field: 1\r\n\r\n",
        Refused(400, 499),
    ),
    (
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
        Answered("\r\n\r\nhello"),
    ),
    (
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
        Answered("\r\n\r\nb\r\nhello world\r\n0\r\n\r\n"),
    ),
    (
        "POST / HTTP/1.1\r\nHost: h\r\ncontent-LengtH: 5\r\nTransFer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400, 499),
    ),
];

/// An application that answers each request once all of it is there, and keeps what it got.
fn application() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || answer(stream, &kept));
        }
    });
    (addr, requests)
}

fn answer(mut stream: TcpStream, kept: &Mutex<Vec<String>>) {
    let (mut got, mut buffer) = (String::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        got.push_str(&String::from_utf8_lossy(&buffer[..count]));
        let end = match got.starts_with("POST") {
            true if got.contains("chunked") => got.ends_with("0\r\n\r\n"),
            true => got.ends_with("hello"),
            false => got.ends_with("\r\n\r\n"),
        };
        if end {
            kept.lock().unwrap().push(std::mem::take(&mut got));
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).unwrap();
        }
    }
}

/// Sends `text` in pieces of so many bytes, as far as the other side takes it.
fn send(stream: &mut TcpStream, text: &str, piece: usize) {
    for part in text.as_bytes().chunks(piece) {
        if stream.write_all(part).is_err() {
            return;
        }
    }
}

fn check_all(piece: usize) {
    let _turn = Turn::shared();
    let (upstream, got) = application();
    let listen = free_addr();
    let (at, to) = (
        format!("--listen={listen}"),
        format!("--upstream={upstream}"),
    );
    let _balance = Module::start("balance", &[&at, &to, "--ready=off"], &[]);
    let got = || std::mem::take(&mut *got.lock().unwrap());
    let mut waiting = Vec::new();
    for (shape, then) in SHAPES {
        let shown = shape.escape_default();
        let mut stream = http::dial(listen).unwrap();
        match then {
            Waits => {
                send(&mut stream, shape, piece);
                waiting.push((*shape, stream));
            }
            Answered(end) => {
                send(&mut stream, shape, piece);
                let mut answer = http::receive(&mut stream).unwrap();
                if answer.status == 100 {
                    answer = http::receive(&mut stream).unwrap();
                }
                assert_eq!(answer.status, 200, "{shown}");
                let seen = got();
                assert_eq!(seen.len(), 1, "{shown}: {seen:?}");
                assert!(seen[0].ends_with(end), "{shown}: {seen:?}");
                // It goes on.
                let next = http::exchange(&mut stream, WHOLE.as_bytes()).unwrap();
                assert_eq!(next.status, 200, "{shown}");
                assert_eq!(got().len(), 1, "{shown}");
            }
            Refused(least, most) => {
                send(&mut stream, &format!("{shape}{WHOLE}"), piece);
                let mut answer = Vec::new();
                // It may be closed before all was sent: what counts is what came.
                drop(stream.read_to_end(&mut answer));
                let answer = String::from_utf8_lossy(&answer);
                let status = answer
                    .strip_prefix("HTTP/1.1 ")
                    .and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
                assert!(
                    status.is_some_and(|status| (*least..=*most).contains(&status)),
                    "{shown}: {answer}"
                );
                let heads = answer.lines().filter(|line| line.starts_with("HTTP/1.1 "));
                assert_eq!(heads.count(), 1, "{shown}: {answer}");
                assert_eq!(got(), [""; 0], "{shown}");
            }
        }
    }
    // All that was sent later has been answered; of these nothing was, and nothing was forwarded.
    for (shape, stream) in &mut waiting {
        let shown = shape.escape_default();
        stream.set_nonblocking(true).unwrap();
        let early = stream.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(early, Err(ErrorKind::WouldBlock), "{shown}");
        stream.set_nonblocking(false).unwrap();
        let rest = WHOLE.strip_prefix(*shape).unwrap();
        send(stream, rest, piece);
        let answer = http::receive(stream).unwrap();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "ok"),
            "{shown}"
        );
        let seen = got();
        assert_eq!(seen.len(), 1, "{shown}: {seen:?}");
        assert!(seen[0].starts_with("GET /hello HTTP/1.1\r\n"), "{seen:?}");
    }
    assert_eq!(waiting.len(), 15);
    assert_eq!(SHAPES.len(), 33);
}

#[test]
fn the_shapes_of_h1spec_whole() {
    check_all(usize::MAX);
}

#[test]
fn the_shapes_of_h1spec_byte_by_byte() {
    check_all(1);
}
