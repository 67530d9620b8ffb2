//! Shapes that two readers could read differently, at the byte level: each is refused, and nothing of it or of what is hidden
//! behind it reaches the upstream; or it is forwarded in a form that has one reading, and these are its bytes.
//!
//! Taken from RFC 9112 section 11.2, "HTTP Desync Attacks" (Kettle, 2019), "Browser-Powered Desync Attacks" (2022), "HTTP/1.1 must die"
//! (2025), "T-Reqs: HTTP Request Smuggling with Differential Fuzzing" (Jabiyev et al., CCS 2021), and what h1spec asks.

use super::*;

/// What a smuggler wants the upstream to see.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";

/// The answers to `input`, and what the upstream got, connection after connection.
fn send(script: &[&[Do]], input: &[u8]) -> (String, String) {
    let answers = Rc::new(RefCell::new(Vec::new()));
    let (got, _) = Rig::new(script).run(|mut end| {
        let answers = Rc::clone(&answers);
        async move {
            end.put(input).await;
            end.end().await;
            *answers.borrow_mut() = end.get_all().await;
        }
    });
    let text = String::from_utf8_lossy(&answers.borrow()).into_owned();
    (text, got.concat())
}

/// How many answers there are.
fn statuses(answer: &str) -> usize {
    let lines = answer.lines();
    lines.filter(|line| line.starts_with("HTTP/1.")).count()
}

/// All of `shapes` are answered with `status`, once, and the connection is closed.
#[track_caller]
fn refused(status: u16, shapes: &[Vec<u8>]) {
    let mut wrong = Vec::new();
    for shape in shapes {
        let input = [shape.as_slice(), HIDDEN.as_bytes()].concat();
        // An upstream that takes all there is: what is let through is seen.
        let (answer, got) = send(&[&[Write(OK), Do::End], &[Write(OK), Do::End]], &input);
        let right = answer.starts_with(&format!("HTTP/1.1 {status} "))
            && statuses(&answer) == 1
            && answer.contains("\r\nConnection: close\r\n")
            && got.is_empty();
        if !right {
            let shown = shape.escape_ascii().to_string();
            let answer = answer.lines().next().unwrap_or_default().to_owned();
            wrong.push(format!(
                "{shown:.300}\n  answer {answer}\n  upstream {got:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "not refused with {status}:\n{}",
        wrong.join("\n")
    );
}

/// `input` is forwarded as `expected` (where FORWARDED stands for what is told of the client), and answered once.
#[track_caller]
fn forwarded(input: &[u8], expected: &str) {
    let (answer, got) = send(&[&[Write(OK), Do::End]], input);
    let shown = input.escape_ascii();
    assert_eq!(got, expected.replace("FORWARDED", FORWARDED), "{shown}");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n"),
        "{shown}: {answer}"
    );
    assert_eq!(statuses(&answer), 1, "{shown}: {answer}");
}

/// A POST with these field lines, and a body that ends at once for a reader of chunks.
fn posts(fields: &[&[u8]]) -> Vec<Vec<u8>> {
    let post = |fields: &&[u8]| {
        let head = b"POST / HTTP/1.1\r\nHost: h\r\n".as_slice();
        [head, fields, b"\r\n\r\n0\r\n\r\n"].concat()
    };
    fields.iter().map(post).collect()
}

/// Heads that begin so, without a body.
fn heads(lines: &[&[u8]]) -> Vec<Vec<u8>> {
    lines
        .iter()
        .map(|head| [head, b"\r\n\r\n".as_slice()].concat())
        .collect()
}

/// Chunked bodies.
fn bodies(bodies: &[&[u8]]) -> Vec<Vec<u8>> {
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    bodies.iter().map(|body| [head, body].concat()).collect()
}

#[test]
fn two_lengths() {
    refused(
        400,
        &posts(&[
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Content-Length: 0\r\nTransfer-Encoding: chunked",
            b"content-length: 5\r\ntransfer-encoding: CHUNKED",
            b"Content-Length: 5\r\nX: y\r\nTransfer-Encoding:chunked",
            b"Connection: Content-Length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            b"Connection: Transfer-Encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\ntransfer-encoding: chunked",
            b"Content-Length: 5\r\nContent-Length: 5",
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: 0\r\nContent-Length: 5",
            b"content-length: 0\r\nCONTENT-LENGTH: 0",
            b"Content-Length: 5, 5",
            b"Content-Length: 5,6",
            b"Content-Length: 5,",
        ]),
    );
}

#[test]
fn lengths_that_are_no_numbers() {
    refused(
        400,
        &posts(&[
            b"Content-Length: +5",
            b"Content-Length: -5",
            b"Content-Length: -0",
            b"Content-Length: 0x5",
            b"Content-Length: 5 5",
            b"Content-Length: 5;",
            b"Content-Length: 5.0",
            b"Content-Length: 5e0",
            b"Content-Length: 1_0",
            b"Content-Length: \"5\"",
            b"Content-Length:",
            b"Content-Length:  ",
            b"Content-Length: \xd9\xa3",
            b"Content-Length: five",
            b"Content-Length: 18446744073709551615",
            b"Content-Length: 18446744073709551616",
            b"Content-Length: 99999999999999999999999999",
            b"Content-Length: 00000000000000000005",
            b"Content-Length: 5\0",
            b"Content-Length: \x0b5",
            b"Content-Length: 5\x0c",
            b"Content-Length: 5\t5",
        ]),
    );
}

#[test]
fn codings_that_are_not_chunked_alone() {
    refused(
        400,
        &posts(&[
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: chunked, gzip",
            b"Transfer-Encoding: chunked;q=1",
            b"Transfer-Encoding: \"chunked\"",
            b"Transfer-Encoding: chunked,",
            b"Transfer-Encoding: ,chunked",
            b"Transfer-Encoding: \x0bchunked",
            b"Transfer-Encoding: chunked\0",
            b"Transfer-Encoding: chunked\x0c",
            b"Transfer-Encoding: \x7fchunked",
            b"Transfer-Encoding: \xa0chunked",
            b"Transfer-Encoding:",
            b"Transfer-Encoding: chun ked",
            b"Transfer-Encoding: chunked\tx",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        ]),
    );
    refused(
        501,
        &posts(&[
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: identity, chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: gzip",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunkedx",
            b"Transfer-Encoding: chunk",
            b"Transfer-Encoding: 'chunked'",
            b"Transfer-Encoding: identity\r\nContent-Length: 5",
        ]),
    );
}

#[test]
fn names_that_are_none() {
    refused(
        400,
        &posts(&[
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding\t: chunked",
            b" Transfer-Encoding: chunked",
            b"\tTransfer-Encoding: chunked",
            b"Transfer-Encoding\r\n : chunked",
            b"Transfer-Encoding:\r\n chunked",
            b"Transfer-Encoding:\r\n\tchunked",
            b"X: y\r\n Transfer-Encoding: chunked",
            b"Transfer-Encoding\0: chunked",
            b"Transfer-Encoding\xa0: chunked",
            b"Transfer-Encoding\x0b: chunked",
            b"X: y\nTransfer-Encoding: chunked",
            b"X: y\rTransfer-Encoding: chunked",
            b"X: y\r\rTransfer-Encoding: chunked",
            b"X: y\n\rTransfer-Encoding: chunked",
            b"X: y\0\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding;: chunked",
            b"\"Transfer-Encoding\": chunked",
            b"(Transfer-Encoding): chunked",
            b"[Transfer-Encoding]: chunked",
            b"Transfer Encoding: chunked",
            b"Transfer-Encoding= chunked",
            b"Transfer-Encoding",
            b": chunked",
            b"X\xc3\xa9: y",
            b"X\x7f: y",
            b"X@y: z",
            b"X,y: z",
            b"Content-Length : 5",
            b"Content-Length\t: 5",
            b" Content-Length: 5",
            b"Content-Length: 5\n",
            b"Content-Length:\r\n 5",
            b"Content-Length\r: 5",
        ]),
    );
}

#[test]
fn chunks_that_are_none() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(2_000));
    refused(
        400,
        &bodies(&[
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-1\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"\t5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5 5\r\nhello\r\n0\r\n\r\n",
            b"5,\r\nhello\r\n0\r\n\r\n",
            b"5\"\r\nhello\r\n0\r\n\r\n",
            b"5\0\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n0\r\n\r\n",
            b"g\r\nhello\r\n0\r\n\r\n",
            b"\r\n5\r\nhello\r\n0\r\n\r\n",
            b"\r\n",
            b";x\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\r\nhello\r\n0\r\n\r\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5;\0\r\nhello\r\n0\r\n\r\n",
            b"5;\x7f\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"5\r\nhelloXX0\r\n\r\n",
            b"5\r\nhell\r\n0\r\n\r\n",
            b"4\r\nhello\r\n0\r\n\r\n",
            b"10000000000000000\r\nhello\r\n0\r\n\r\n",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            b"8000000000000000\r\nhello\r\n0\r\n\r\n",
            b"00000000000000000\r\n\r\n",
            b"0\n\r\n",
            b"0\r\n\n",
            b"0 \r\n\r\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\n X: y\r\n\r\n",
            b"0\r\n: y\r\n\r\n",
            b"0\r\nX\r\n\r\n",
            b"0\r\nX : y\r\n\r\n",
            b"0\r\nX: \0\r\n\r\n",
            long.as_bytes(),
        ]),
    );
}

#[test]
fn request_lines_that_are_none() {
    let lines: &[&[u8]] = &[
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET /\tHTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET / HTTP/1.1\r",
        b"GET / HTTP/1.1\0",
        b"GET /a b HTTP/1.1",
        b"GET / HTTP/1.1 GET /b HTTP/1.1",
        b"GET /",
        b"GET",
        b"GET / http/1.1",
        b"GET / HTTP/1.1x",
        b"GET / HTTP/01.1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/1,1",
        b"GET / HTTP /1.1",
        b"GET / HTTPS/1.1",
        b"G\0T / HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"G\xe9T / HTTP/1.1",
        b"GET /\0 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET /\x0b HTTP/1.1",
        b"GET /\rX HTTP/1.1",
        b"GET /#f HTTP/1.1",
        b"GET http:// HTTP/1.1",
        b"GET http:///x HTTP/1.1",
        b"GET http://u@h/ HTTP/1.1",
        b"GET http://a,b/ HTTP/1.1",
        b"GET ftp://h/ HTTP/1.1",
        b"GET h/ HTTP/1.1",
        b"GET ? HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET \\ HTTP/1.1",
        b"\r\n\r\nGET / HTTP/1.1",
        b"\nGET / HTTP/1.1",
        b"\rGET / HTTP/1.1",
    ];
    let whole: Vec<Vec<u8>> = lines
        .iter()
        .map(|line| [line, b"\r\nHost: h".as_slice()].concat())
        .collect();
    refused(
        400,
        &heads(&whole.iter().map(Vec::as_slice).collect::<Vec<_>>()),
    );
    refused(
        501,
        &heads(&[
            b"CONNECT h:80 HTTP/1.1\r\nHost: h:80",
            b"CONNECT / HTTP/1.1\r\nHost: h",
        ]),
    );
    refused(
        505,
        &heads(&[
            b"GET / HTTP/1.2\r\nHost: h",
            b"GET / HTTP/2.0\r\nHost: h",
            b"GET / HTTP/0.9\r\nHost: h",
            b"GET / HTTP/3.0\r\nHost: h",
            b"PRI * HTTP/2.0",
        ]),
    );
}

#[test]
fn hosts_that_are_none() {
    refused(
        400,
        &heads(&[
            b"GET / HTTP/1.1",
            b"GET / HTTP/1.1\r\nX: y",
            b"GET / HTTP/1.1\r\nHost: h\r\nHost: h",
            b"GET / HTTP/1.1\r\nHost: h\r\nhOST: i",
            b"GET http://h/ HTTP/1.1\r\nHost: h\r\nHost: i",
            b"GET http://h/ HTTP/1.1",
            b"GET / HTTP/1.1\r\nHost: h, i",
            b"GET / HTTP/1.1\r\nHost: h,i",
            b"GET / HTTP/1.1\r\nHost: h i",
            b"GET / HTTP/1.1\r\nHost: u@h",
            b"GET / HTTP/1.1\r\nHost: h/path",
            b"GET / HTTP/1.1\r\nHost: h?x",
            b"GET / HTTP/1.1\r\nHost: h#x",
            b"GET / HTTP/1.1\r\nHost: h\\i",
            b"GET / HTTP/1.1\r\nHost: \"h\"",
            b"GET / HTTP/1.1\r\nHost: h\0",
            b"GET / HTTP/1.1\r\nHost: \xff",
            b"GET / HTTP/1.1\r\nHost : h",
            b"GET / HTTP/1.1\r\n Host: h",
            b"GET / HTTP/1.1\r\nHost: h\r\n i",
            b"GET / HTTP/1.0\r\nHost: h\r\nHost: i",
        ]),
    );
}

#[test]
fn old_versions_have_no_chunks() {
    let old = |fields: &str| {
        format!("POST / HTTP/1.0\r\nHost: h\r\n{fields}\r\n\r\n0\r\n\r\n").into_bytes()
    };
    refused(
        400,
        &[
            old("Transfer-Encoding: chunked"),
            old("Transfer-Encoding: chunked\r\nConnection: keep-alive"),
            old("Content-Length: 5\r\nTransfer-Encoding: chunked"),
            old("Transfer-Encoding: identity"),
        ],
    );
}

#[test]
fn what_has_one_reading_is_forwarded_in_it() {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
    // What Connection names goes, except for what frames and routes.
    forwarded(
        b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Content-Length, X-A\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nFORWARDED\r\nhello",
    );
    forwarded(
        b"POST / HTTP/1.1\r\nHost: h\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nFORWARDED\r\n0\r\n\r\n",
    );
    forwarded(
        &get("Connection: Host\r\n"),
        "GET / HTTP/1.1\r\nHost: h\r\nFORWARDED\r\n",
    );
    for fields in [
        "Connection: close, X-Secret\r\nX-Secret: 1\r\n",
        "Connection: \"x\", ,,\r\n",
        "Keep-Alive: timeout=5\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "Proxy: http://evil\r\n",
        "TE: gzip, chunked\r\n",
        // An upgrade to what would carry requests past us.
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: H2C\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Upgrade: websocket\r\n",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        // What CGI and WSGI take for the real field.
        "Transfer_Encoding: chunked\r\n",
        "Content_Length: 5\r\n",
        "X_Forwarded_For: 6.6.6.6\r\n",
        "X-Forwarded-For: 6.6.6.6\r\n",
        "Forwarded: for=6.6.6.6\r\n",
        "X-Real-IP: 6.6.6.6\r\n",
        "X-Forwarded-Prefix: /x\r\n",
        "X-Forwarded-Client-Cert: me\r\n",
    ] {
        forwarded(&get(fields), "GET / HTTP/1.1\r\nHost: h\r\nFORWARDED\r\n");
    }
    // The target's host takes the place of the field's.
    forwarded(
        b"GET http://a:8/x?y HTTP/1.1\r\nHost: b\r\n\r\n",
        &format!(
            "GET /x?y HTTP/1.1\r\nHost: a:8\r\n{}\r\n",
            FORWARDED
                .replace("Host: h", "Host: a:8")
                .replace("\"h\"", "\"a:8\"")
        ),
    );
    forwarded(
        b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: h\r\nFORWARDED\r\n",
    );
    forwarded(
        b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: h\r\nFORWARDED\r\n",
    );
    forwarded(
        b"\r\nGET // HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET // HTTP/1.1\r\nHost: h\r\nFORWARDED\r\n",
    );
    // Bodies where few expect them are bodies all the same.
    forwarded(
        format!(
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{HIDDEN}",
            HIDDEN.len()
        )
        .as_bytes(),
        &format!(
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\nFORWARDED\r\n{HIDDEN}",
            HIDDEN.len()
        ),
    );
    forwarded(
        b"DELETE / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\t CHUNKED \r\n\r\n0005;a=\"b\r\nhello\r\n0;x\r\nX: y\r\nHost: i\r\nContent-Length: 9\r\n\r\n",
        "DELETE / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\t CHUNKED \r\nFORWARDED\r\n0005;a=\"b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    );
    forwarded(
        b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 005\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 005\r\nFORWARDED\r\nhello",
    );
}
