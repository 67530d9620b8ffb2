use proptest::prelude::*;

use super::*;

fn request(text: &str) -> Result<(RequestHead, Vec<u8>), Reject> {
    let bytes = text.as_bytes().to_vec();
    let len = Scanner::default()
        .find(&bytes, true)?
        .ok_or(Reject::Bad("incomplete"))?;
    let mut head = RequestHead::default();
    head.parse(&bytes[..len], 100)?;
    Ok((head, bytes))
}

fn status(text: &str) -> u16 {
    request(text).map_or_else(Reject::status, |_| 200)
}

/// What other proxies were fooled by, and what the RFC says to refuse.
#[test]
fn ambiguous_requests_are_refused() {
    let check = |expected, text: &str| assert_eq!(status(text), expected, "{text:?}");
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    // Framing that two readers could see differently.
    check(
        400,
        &with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    );
    check(
        400,
        &with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
    );
    check(400, &with("Content-Length: 5\r\nContent-Length: 6\r\n"));
    check(400, &with("Content-Length: 5\r\nContent-Length: 5\r\n"));
    check(400, &with("Content-Length: 5, 5\r\n"));
    for length in [
        "+5",
        "-5",
        "5 5",
        "0x5",
        "",
        "5.",
        "99999999999999999999",
        "５",
    ] {
        check(400, &with(&format!("Content-Length: {length}\r\n")));
    }
    check(
        400,
        &with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    );
    check(400, &with("Transfer-Encoding: chunked, chunked\r\n"));
    check(400, &with("Transfer-Encoding: chunked, identity\r\n"));
    check(
        400,
        &with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    );
    check(400, &with("Transfer-Encoding:\r\n"));
    check(400, &with("Transfer-Encoding: \u{b}chunked\r\n"));
    check(400, &with("Transfer-Encoding: \"chunked\"\r\n"));
    check(501, &with("Transfer-Encoding: xchunked\r\n"));
    check(501, &with("Transfer-Encoding: gzip, chunked\r\n"));
    check(501, &with("Transfer-Encoding: identity\r\n"));
    check(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    // White space and line ends.
    check(400, &with("Content-Length : 5\r\n"));
    check(400, &with("Transfer-Encoding : chunked\r\n"));
    check(400, &with("X: 1\r\n Transfer-Encoding: chunked\r\n"));
    check(400, &with("X: 1\r\n\tfolded\r\n"));
    check(400, &with(" X: 1\r\n"));
    check(400, &with("X: 1\nY: 2\r\n"));
    check(400, &with("X: 1\rY: 2\r\n"));
    check(400, &with("X: 1\r\r\n"));
    check(400, &with("X: a\0b\r\n"));
    check(400, &with("X\0: a\r\n"));
    check(400, &with(": a\r\n"));
    check(400, &with("no colon\r\n"));
    check(400, &with("X: a\u{7f}\r\n"));
    check(400, "GET / HTTP/1.1\nHost: a\n\n");
    check(400, "\n GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // Request lines.
    check(400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n");
    check(400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "(GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "G\u{e9}T / HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET /\r\n\r\n");
    check(400, "GET / http/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET / XTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n");
    check(400, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    check(400, "\x16\x03\x01\x02");
    check(505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n");
    check(505, "GET / HTTP/0.9\r\nHost: a\r\n\r\n");
    check(505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n");
    check(505, "PRI * HTTP/2.0\r\n\r\n");
    check(501, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    // Hosts.
    check(400, "GET / HTTP/1.1\r\n\r\n");
    check(400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n");
    check(400, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n");
    check(400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n");
    check(400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n");
    check(400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
    // What must be taken.
    check(200, "GET / HTTP/1.0\r\n\r\n");
    check(200, "GET / HTTP/1.1\r\nHost:\r\n\r\n");
    check(200, "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
    check(200, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    check(200, "GET http://a?x HTTP/1.1\r\nHost: b\r\n\r\n");
    check(200, "GET /?q=[1]|\"{}\\^` HTTP/1.1\r\nHost: a\r\n\r\n");
    check(200, &with("X:\r\nY: \u{e9}\t\r\nContent-Length: 5\r\n"));
    check(200, &with("transfer-ENCODING:  Chunked \r\n"));
}

#[test]
fn bounds_of_fields_and_bytes() {
    let many = "X: 1\r\n".repeat(100);
    assert_eq!(status(&format!("GET / HTTP/1.0\r\n{many}\r\n")), 200);
    assert_eq!(
        status(&format!("GET / HTTP/1.0\r\n{many}X: 1\r\n\r\n")),
        431
    );
    let options = "a,".repeat(100);
    assert_eq!(
        status(&format!("GET / HTTP/1.0\r\nConnection: {options}\r\n\r\n")),
        400
    );
}

fn dropped(text: &str) -> Vec<String> {
    let (head, bytes) = request(text).unwrap();
    let dropped = head.fields.iter().filter(|field| field.dropped);
    dropped
        .map(|field| String::from_utf8(field.name.bytes(&bytes).to_vec()).unwrap())
        .collect()
}

#[test]
fn hop_by_hop_fields_and_those_named_are_dropped_but_never_the_framing() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nCookie: c\r\nX-A: 1\r\nConnection: x-a, Host, close\r\n\
                Content-Length: 1\r\nX-B: 1\r\nconnection: X-B,content-length\r\nTE: trailers\r\n\
                Keep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nProxy: http://evil\r\n\
                Content_Length: 7\r\nX_Forwarded_For: 6.6.6.6\r\nX_Other: kept\r\n\r\n";
    let expected = [
        "X-A",
        "Connection",
        "X-B",
        "connection",
        "TE",
        "Keep-Alive",
        "Proxy-Connection",
        "Upgrade",
        "HTTP2-Settings",
        "Proxy",
        "Content_Length",
        "X_Forwarded_For",
    ];
    assert_eq!(dropped(text), expected);
    let (head, _) = request(text).unwrap();
    assert!(!head.keep_alive());
    assert!(head.takes_trailers());
    assert_eq!((head.upgrade(), head.body()), (None, BodyKind::Length(1)));
}

#[test]
fn what_a_request_says() {
    let (head, bytes) = request(
        "PUT http://Example.org:81/p?q HTTP/1.1\r\nHost: other\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .unwrap();
    assert_eq!(head.authority().unwrap().bytes(&bytes), b"Example.org:81");
    let Target::Absolute { path, .. } = head.target() else {
        panic!("{:?}", head.target());
    };
    assert_eq!(path.bytes(&bytes), b"/p?q");
    assert_eq!(head.upgrade().unwrap().bytes(&bytes), b"websocket");
    assert!(head.expects_continue() && head.keep_alive() && head.method().is_idempotent());
    assert_eq!(head.body(), BodyKind::Chunked);
    let keep_alive = |text: &str| request(text).unwrap().0.keep_alive();
    assert!(!keep_alive("GET / HTTP/1.0\r\n\r\n"));
    assert!(keep_alive(
        "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"
    ));
    assert!(!keep_alive(
        "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"
    ));
}

fn response(text: &str, to_head: bool) -> Result<(BodyKind, bool), u16> {
    let mut scanner = Scanner::default();
    let found = scanner.find(text.as_bytes(), false);
    let len = found.map_err(Reject::status)?.expect("a whole head");
    let mut head = ResponseHead::default();
    head.parse(&text.as_bytes()[..len], 100, to_head)
        .map_err(Reject::status)?;
    Ok((head.body(), head.keep_alive()))
}

#[test]
fn responses_are_framed_by_the_rules_of_section_6_3() {
    let check = |text: &str, expected| assert_eq!(response(text, false), Ok(expected), "{text:?}");
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        (BodyKind::Length(3), true),
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        (BodyKind::Chunked, true),
    );
    check("HTTP/1.1 200\r\n\r\n", (BodyKind::UntilClose, true));
    check("HTTP/1.0 200 OK\r\n\r\n", (BodyKind::UntilClose, false));
    check(
        "HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n",
        (BodyKind::None, true),
    );
    check(
        "HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n",
        (BodyKind::None, true),
    );
    check("HTTP/1.1 103 Early\r\n\r\n", (BodyKind::None, true));
    check(
        "HTTP/1.1 200 OK\nServer: old\nContent-Length: 0\n\n",
        (BodyKind::None, true),
    );
    assert_eq!(
        response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true),
        Ok((BodyKind::None, true))
    );
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        assert!(response(text, false).is_err(), "{text:?}");
    }
}

#[test]
fn trailers_that_frame_or_route_are_left_out() {
    let mut out = Vec::new();
    let text =
        b"X-Sum: 1\r\nContent-Length: 9\r\nHost: b\r\nCookie: c\r\nX-Forwarded-For: 1\r\n\r\n";
    parse_trailers(text, 10, &mut out).unwrap();
    assert_eq!(out, b"X-Sum: 1\r\n");
    assert!(parse_trailers(b"X : 1\r\n\r\n", 10, &mut out).is_err());
    assert!(parse_trailers(b"A: 1\r\nB: 1\r\n\r\n", 1, &mut out).is_err());
}

proptest! {
    /// The scanner finds the same end however the bytes come.
    #[test]
    fn the_end_of_a_head_does_not_depend_on_chunking(
        text in "[a\r\n]{0,60}", cuts in proptest::collection::vec(0_usize..60, 0..8),
    ) {
        let bytes = text.as_bytes();
        let whole = Scanner::default().find(bytes, false);
        let mut scanner = Scanner::default();
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < bytes.len()).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut found = Ok(None);
        for cut in cuts {
            found = scanner.find(&bytes[..cut], false);
            if found != Ok(None) {
                break;
            }
        }
        prop_assert_eq!(found, whole);
    }

    /// Whatever comes is parsed or refused; nothing panics, and what is taken has one framing.
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = [b"GET / HTTP/1.1\r\nHost: a\r\n", bytes.as_slice(), b"\r\n\r\n"].concat();
        if let Ok(Some(len)) = Scanner::default().find(&text, true) {
            let mut head = RequestHead::default();
            if head.parse(&text[..len], 100).is_ok() {
                prop_assert_eq!(head.byte_len(), len);
                prop_assert!(!text[..len].contains(&0));
            }
        }
    }
}
