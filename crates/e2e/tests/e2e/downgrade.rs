//! Requests of HTTP/2 whose meaning could change when they are written as HTTP/1.1 (RFC 9113 sections 8.1.1 to 8.3, "HTTP/2: The
//! Sequel is Always Worse", Kettle, 2021): each is refused, and the upstream sees no request; or it is forwarded in a form that has one
//! reading, and these are its bytes. The frames are made by hand: a library would not send them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;

type Fields = Vec<(&'static [u8], &'static [u8])>;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// An upstream that answers whole requests, and keeps their bytes.
fn upstream() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || {
                let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    got.extend_from_slice(&buffer[..count]);
                    if is_whole(&got) {
                        kept.lock().unwrap().push(got.escape_ascii().to_string());
                        got.clear();
                        drop(stream.write_all(ANSWER));
                    }
                }
            });
        }
    });
    (addr, requests)
}

/// The head has ended, and so has what it says of a body.
fn is_whole(request: &[u8]) -> bool {
    let text: String = request.iter().copied().map(char::from).collect();
    let Some((head, mut body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    if !head.contains("transfer-encoding:") {
        let length = head.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
        return body.len() >= length.unwrap_or(0);
    }
    while let Some((size, rest)) = body.split_once("\r\n") {
        match usize::from_str_radix(size, 16).unwrap() {
            // Trailers, and an empty line.
            0 => return rest == "\r\n" || rest.ends_with("\r\n\r\n"),
            size => match rest.get(size + 2..) {
                Some(rest) => body = rest,
                None => return false,
            },
        }
    }
    false
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let stream = if kind == 4 { 0 } else { 1 };
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Literal fields that are not indexed, without Huffman (RFC 7541 section 6.2.2).
fn block(fields: &Fields) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(
                u8::try_from(text.len())
                    .ok()
                    .filter(|len| *len < 127)
                    .unwrap(),
            );
            block.extend_from_slice(text);
        }
    }
    block
}

#[derive(Debug, PartialEq)]
enum Outcome {
    /// With 200.
    Answered,
    /// With another status, a reset, or the end of the connection.
    Refused,
}

/// Sends one request on a connection of its own.
fn send(
    to: SocketAddr,
    fields: &Fields,
    data: Option<&[u8]>,
    trailers: Option<&Fields>,
) -> Outcome {
    let (more, ends) = (4, 5);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, b""));
    let last = data.is_none() && trailers.is_none();
    bytes.extend(frame(1, if last { ends } else { more }, &block(fields)));
    if let Some(data) = data {
        bytes.extend(frame(0, u8::from(trailers.is_none()), data));
    }
    if let Some(trailers) = trailers {
        bytes.extend(frame(1, ends, &block(trailers)));
    }
    let mut stream = TcpStream::connect(to).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(&bytes).unwrap();
    loop {
        let mut head = [0; 9];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer"),
            Err(_) => return Outcome::Refused,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).unwrap();
        match head[3] {
            // `:status: 200` of the static table.
            1 if payload[0] == 0x88 => return Outcome::Answered,
            1 | 3 | 7 => return Outcome::Refused,
            _ => {}
        }
    }
}

struct Shape {
    fields: Fields,
    data: Option<&'static [u8]>,
    trailers: Option<Fields>,
}

fn request(
    method: &'static [u8],
    path: &'static [u8],
    more: &[(&'static [u8], &'static [u8])],
) -> Shape {
    let mut fields: Fields = vec![
        (b":method", method),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"h"),
    ];
    fields.extend_from_slice(more);
    Shape {
        fields,
        data: None,
        trailers: None,
    }
}

fn get(more: &[(&'static [u8], &'static [u8])]) -> Shape {
    request(b"GET", b"/", more)
}

fn post(more: &[(&'static [u8], &'static [u8])], data: &'static [u8]) -> Shape {
    Shape {
        data: Some(data),
        ..request(b"POST", b"/", more)
    }
}

/// These fields and no others.
fn only(fields: &[(&'static [u8], &'static [u8])]) -> Shape {
    Shape {
        fields: fields.to_vec(),
        data: None,
        trailers: None,
    }
}

fn trailing(trailers: &[(&'static [u8], &'static [u8])]) -> Shape {
    Shape {
        trailers: Some(trailers.to_vec()),
        ..post(&[], b"abc")
    }
}

fn refused() -> Vec<Shape> {
    let (m, s, p, a): (&[u8], &[u8], &[u8], &[u8]) =
        (b":method", b":scheme", b":path", b":authority");
    vec![
        // Lines that end early.
        get(&[(b"x", b"a\r\ntransfer-encoding: chunked")]),
        get(&[(b"x", b"a\nhost: evil")]),
        get(&[(b"x", b"a\rb")]),
        get(&[(b"x", b"a\0b")]),
        get(&[(b"x\r\nhost: evil", b"a")]),
        get(&[(b"x\n", b"a")]),
        get(&[(b"x\0", b"a")]),
        get(&[(b"x", b"\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h")]),
        // Names that are none.
        get(&[(b"x: y", b"a")]),
        get(&[(b"x y", b"a")]),
        get(&[(b" x", b"a")]),
        get(&[(b"X", b"a")]),
        get(&[(b"Transfer-Encoding", b"chunked")]),
        get(&[(b"", b"a")]),
        get(&[(b":x", b"a")]),
        get(&[(b":status", b"200")]),
        // White space that one reader trims.
        get(&[(b"x", b" a")]),
        get(&[(b"x", b"a\t")]),
        // Framing.
        post(&[(b"transfer-encoding", b"chunked")], b"0\r\n\r\n"),
        post(&[(b"transfer-encoding", b"identity")], b"abc"),
        post(&[(b"content-length", b"2")], b"abc"),
        post(&[(b"content-length", b"9")], b"abc"),
        post(
            &[(b"content-length", b"0")],
            b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        post(&[(b"content-length", b"+3")], b"abc"),
        post(&[(b"content-length", b"3, 3")], b"abc"),
        post(&[(b"content-length", b"0x3")], b"abc"),
        post(
            &[(b"content-length", b"3"), (b"content-length", b"4")],
            b"abc",
        ),
        post(&[(b"content-length", b"99999999999999999999999")], b"abc"),
        get(&[(b"content-length", b"3")]),
        // What is about one connection.
        get(&[(b"connection", b"close")]),
        get(&[(b"connection", b"x-forwarded-for")]),
        get(&[(b"keep-alive", b"1")]),
        get(&[(b"proxy-connection", b"keep-alive")]),
        get(&[(b"upgrade", b"websocket")]),
        get(&[(b"te", b"gzip")]),
        get(&[(b"te", b"trailers, chunked")]),
        // Pseudo-fields.
        only(&[(s, b"http"), (p, b"/"), (a, b"h")]),
        only(&[(m, b"GET"), (p, b"/"), (a, b"h")]),
        only(&[(m, b"GET"), (s, b"http"), (a, b"h")]),
        only(&[(m, b"GET"), (s, b"http"), (p, b""), (a, b"h")]),
        only(&[(m, b"GET"), (s, b"http"), (p, b"/")]),
        only(&[
            (m, b"GET"),
            (m, b"POST"),
            (s, b"http"),
            (p, b"/"),
            (a, b"h"),
        ]),
        only(&[
            (m, b"GET"),
            (s, b"http"),
            (p, b"/"),
            (p, b"/hidden"),
            (a, b"h"),
        ]),
        only(&[
            (m, b"GET"),
            (s, b"http"),
            (p, b"/"),
            (a, b"h"),
            (a, b"evil"),
        ]),
        only(&[
            (m, b"GET"),
            (s, b"http"),
            (p, b"/"),
            (b"x", b"1"),
            (a, b"h"),
        ]),
        only(&[(m, b"GET"), (s, b"file"), (p, b"/"), (a, b"h")]),
        only(&[(m, b"GET"), (s, b"http://evil/"), (p, b"/"), (a, b"h")]),
        only(&[(m, b"GET"), (s, b"http"), (p, b"/"), (a, b"h\r\nx: y")]),
        only(&[(m, b"GET"), (s, b"http"), (p, b"/"), (a, b"user@h")]),
        only(&[(m, b"GET"), (s, b"http"), (p, b"/"), (a, b"h/x")]),
        only(&[
            (m, b"GET"),
            (s, b"http"),
            (p, b"/"),
            (a, b"h"),
            (b"host", b"evil"),
        ]),
        only(&[
            (m, b"GET"),
            (s, b"http"),
            (p, b"/"),
            (b"host", b"h"),
            (b"host", b"evil"),
        ]),
        request(b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n", b"/", &[]),
        request(b"GET /hidden", b"/", &[]),
        request(b"", b"/", &[]),
        request(b"GET", b"/ HTTP/1.1\r\nhost: evil\r\n\r\n", &[]),
        request(b"GET", b"/ HTTP/1.1", &[]),
        request(b"GET", b"/a\tb", &[]),
        // As in HTTP/1.1: one reader cuts a fragment, another keeps it.
        request(b"GET", b"/#f", &[]),
        request(b"GET", b"/a?b#/../hidden", &[]),
        request(b"GET", b"hidden", &[]),
        request(b"GET", b"http://evil/", &[]),
        request(b"GET", b"/\x7f", &[]),
        request(b"GET", b"/\xff", &[]),
        request(b"CONNECT", b"/", &[]),
        only(&[(m, b"CONNECT"), (a, b"h:22")]),
        // Trailers.
        trailing(&[(b"x", b"a\r\n\r\nGET /hidden HTTP/1.1")]),
        trailing(&[(b"X", b"a")]),
        trailing(&[(b"transfer-encoding", b"chunked")]),
        trailing(&[(b"connection", b"close")]),
        trailing(&[(b":path", b"/hidden")]),
        trailing(&[(b"x", b"a"), (b":method", b"GET")]),
        trailing(&[(b":x", b"a")]),
    ]
}

/// With what the upstream must get of it.
fn forwarded() -> Vec<(Shape, &'static [&'static str])> {
    vec![
        (get(&[]), &[r"GET / HTTP/1.1\r\nhost: h\r\n"]),
        (get(&[(b"host", b"h")]), &[r"GET / HTTP/1.1\r\nhost: h\r\n"]),
        (get(&[(b"host", b"H")]), &[r"host: h\r\n"]),
        (get(&[(b"te", b"trailers")]), &[]),
        (
            request(b"GET", b"/<a>`{b}|^?<c>`", &[]),
            &[r"GET /<a>`{b}|^?<c>` HTTP/1.1\r\n"],
        ),
        (
            get(&[(b"cookie", b"a=1"), (b"cookie", b"b=2")]),
            &[r"cookie: a=1; b=2\r\n"],
        ),
        (get(&[(b"x", b"")]), &[r"x: \r\n"]),
        (get(&[(b"x", b"a, b")]), &[r"x: a, b\r\n"]),
        (
            request(b"GET", b"/?q=a%0d%0ab", &[]),
            &[r"GET /?q=a%0d%0ab HTTP/1.1\r\n"],
        ),
        (request(b"OPTIONS", b"*", &[]), &[r"OPTIONS * HTTP/1.1\r\n"]),
        (
            post(&[], b"abc"),
            &[
                r"transfer-encoding: chunked\r\n",
                r"\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ],
        ),
        (
            post(&[(b"content-length", b"3")], b"abc"),
            &[r"content-length: 3\r\n", r"\r\n\r\nabc"],
        ),
        (
            post(&[], b"0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"),
            &[r"\r\n\r\n26\r\n0\r\n\r\nGET /hidden", r"\r\n0\r\n\r\n"],
        ),
        (trailing(&[(b"x", b"a")]), &[r"3\r\nabc\r\n0\r\n"]),
    ]
}

fn shown(shape: &Shape) -> String {
    let all = shape.fields.iter().chain(shape.trailers.iter().flatten());
    all.map(|(name, value)| format!("{}={} ", name.escape_ascii(), value.escape_ascii()))
        .collect()
}

#[test]
fn nothing_of_http2_is_read_as_another_request_of_http1() {
    let (addr, requests) = upstream();
    let listen = free_addr();
    let args = [format!("--listen={listen}"), format!("--upstream={addr}")];
    let mut module = Module::start("balance", &args.each_ref().map(String::as_str), &[]);
    let mut wrong = Vec::new();
    let take = || std::mem::take(&mut *requests.lock().unwrap());
    let run = |shape: &Shape| send(listen, &shape.fields, shape.data, shape.trailers.as_ref());
    for shape in refused() {
        let outcome = run(&shape);
        let got = take();
        if outcome == Outcome::Answered || !got.is_empty() {
            wrong.push(format!(
                "{}: {outcome:?}, upstream got {got:?}",
                shown(&shape)
            ));
        }
    }
    for (shape, expected) in forwarded() {
        let outcome = run(&shape);
        let got = take();
        let right = |got: &String| {
            let head = got.split(r"\r\n\r\n").next().unwrap().to_ascii_lowercase();
            let once = |name: &str| head.matches(&format!(r"\r\n{name}:")).count();
            let framings = once("content-length") + once("transfer-encoding");
            expected.iter().all(|part| got.contains(part)) && once("host") == 1 && framings <= 1
        };
        if outcome == Outcome::Refused || got.len() != 1 || !right(&got[0]) {
            wrong.push(format!(
                "{}: {outcome:?}, upstream got {got:?} and not {expected:?}",
                shown(&shape)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(module.process.stop(), 0);
}
