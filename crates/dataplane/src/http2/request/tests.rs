use http::Request;
use proptest::prelude::*;

use super::*;
use crate::http::head::{BodyKind, RequestHead, Scanner};

/// A request for a URI of `:scheme`, `:authority` and `:path`, with these fields.
fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
        request = request.header(*name, value);
    }
    request.body(()).unwrap().into_parts().0
}

/// What is written, and how its body is.
fn put(parts: &Parts, ends: bool) -> Result<(String, Shape), Malformed> {
    let mut out = Buf::small();
    let shape = put_request_head(&mut out, parts, ends)?;
    let text = String::from_utf8_lossy(out.filled()).into_owned();
    Ok((text, shape))
}

#[track_caller]
fn check(parts: &Parts, ends: bool, text: &str, shape: Shape) {
    assert_eq!(put(parts, ends), Ok((text.to_owned(), shape)));
}

#[track_caller]
fn malformed(parts: &Parts, why: &'static str) {
    for ends in [true, false] {
        assert_eq!(put(parts, ends), Err(Malformed(why)), "{parts:?}");
    }
}

fn get(fields: &[(&str, &str)]) -> Parts {
    parts("GET", "https://h/a?b", fields)
}

#[test]
fn heads_and_how_their_bodies_are_framed() {
    let line = "GET /a?b HTTP/1.1\r\nhost: h\r\n";
    let none = get(&[("x-a", "1"), ("x-a", "2"), ("te", "trailers")]);
    let fields = "x-a: 1\r\nx-a: 2\r\nte: trailers\r\n";
    check(&none, true, &format!("{line}{fields}\r\n"), Shape::None);
    check(
        &none,
        false,
        &format!("{line}{fields}transfer-encoding: chunked\r\n\r\n"),
        Shape::Chunked,
    );
    let length = get(&[("content-length", "5")]);
    let text = format!("{line}content-length: 5\r\n\r\n");
    check(&length, false, &text, Shape::Length);
    check(&length, true, &text, Shape::None);
    // An empty value is one.
    check(
        &get(&[("x-empty", "")]),
        true,
        &format!("{line}x-empty: \r\n\r\n"),
        Shape::None,
    );
    // Without a path, as OPTIONS may be.
    check(
        &parts("OPTIONS", "*", &[("host", "h")]),
        true,
        "OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n",
        Shape::None,
    );
}

#[test]
fn the_host_is_the_authority_and_both_agree() {
    let line = "GET /a?b HTTP/1.1\r\n";
    check(
        &get(&[("host", "H")]),
        true,
        &format!("{line}host: h\r\n\r\n"),
        Shape::None,
    );
    // Without :authority; that there is none, or two, is for who reads the head.
    let one = parts("GET", "/a?b", &[("host", "i")]);
    check(&one, true, &format!("{line}host: i\r\n\r\n"), Shape::None);
    let none = parts("GET", "/a?b", &[]);
    check(&none, true, &format!("{line}\r\n"), Shape::None);
    assert_eq!(read(&none), Err(400));
    let two = parts("GET", "/a?b", &[("host", "i"), ("host", "j")]);
    assert_eq!(read(&two), Err(400));
    let why = "Host names another server than :authority";
    malformed(&get(&[("host", "i")]), why);
    malformed(&get(&[("host", "h"), ("host", "i")]), why);
    malformed(&get(&[("host", "h:443")]), why);
}

#[test]
fn cookies_are_put_together() {
    let cookies = get(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")]);
    let text = "GET /a?b HTTP/1.1\r\nhost: h\r\nx: y\r\ncookie: a=1; b=2; c=3\r\n\r\n";
    check(&cookies, true, text, Shape::None);
    let why = "a field's value begins or ends with white space";
    malformed(&get(&[("cookie", "a=1"), ("cookie", " b=2")]), why);
}

#[test]
fn what_only_a_connection_of_http_1_has() {
    let why = "a field that is about a connection of HTTP/1.1";
    for (name, value) in [
        ("connection", "close"),
        ("connection", ""),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
    ] {
        malformed(&get(&[(name, value)]), why);
    }
    let why = "TE other than trailers";
    for value in ["gzip", "trailers, gzip", "Trailers", ""] {
        malformed(&get(&[("te", value)]), why);
    }
}

#[test]
fn values_that_would_be_read_otherwise() {
    // What h2 hands on may be any bytes.
    for (value, why) in [
        (" a", "a field's value begins or ends with white space"),
        ("a ", "a field's value begins or ends with white space"),
        ("\ta", "a field's value begins or ends with white space"),
        ("a\t", "a field's value begins or ends with white space"),
        (" ", "a field's value begins or ends with white space"),
    ] {
        malformed(&get(&[("x", value)]), why);
    }
    for value in [&b"a\rb"[..], b"a\nb", b"a\0b", b"\r\nX: y", b"\n", b"a\r\n"] {
        let mut out = Buf::small();
        let why = "a field's value holds CR, LF or NUL";
        assert_eq!(put_field(&mut out, b"x", value), Err(Malformed(why)));
        assert!(out.is_empty(), "nothing of it is written");
    }
    let bytes = http::HeaderValue::from_bytes(b"\xff\x80 a\tb").unwrap();
    let mut odd = get(&[]);
    odd.headers.insert("x", bytes);
    assert!(put(&odd, true).is_ok(), "other bytes are values");
}

#[test]
fn schemes_and_targets() {
    let why = ":scheme is neither http nor https";
    malformed(&parts("GET", "ftp://h/", &[]), why);
    malformed(&parts("GET", "javascript://h/", &[]), why);
    assert!(put(&parts("GET", "http://h/", &[]), true).is_ok());
    // The http crate takes both as the path of a URI.
    let with_path = |path: &'static str| {
        let mut odd = get(&[]);
        let mut uri = http::uri::Parts::default();
        let path = http::uri::PathAndQuery::from_maybe_shared(Bytes::from(path));
        uri.path_and_query = Some(path.unwrap());
        odd.uri = Uri::from_parts(uri).unwrap();
        odd
    };
    malformed(&with_path("/\u{fc}"), ":path is not valid");
    malformed(&with_path("?a"), ":path does not start with a slash");
}

#[test]
fn connect_is_written_for_who_refuses_it_and_websockets_as_an_upgrade() {
    let connect = parts("CONNECT", "h:443", &[]);
    let text = "CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\n\r\n";
    check(&connect, false, text, Shape::Raw);
    let mut other = parts("CONNECT", "https://h/chat", &[("x", "y")]);
    other
        .extensions
        .insert(h2::ext::Protocol::from_static("connect-udp"));
    let (text, _) = put(&other, false).unwrap();
    assert!(text.starts_with("CONNECT h HTTP/1.1\r\n"), "{text}");

    let key = ("sec-websocket-key", "theirs");
    let mut socket = parts("CONNECT", "https://h/chat?a", &[("x", "y"), key]);
    socket
        .extensions
        .insert(h2::ext::Protocol::from_static("websocket"));
    let (text, shape) = put(&socket, false).unwrap();
    assert_eq!(shape, Shape::Raw);
    let begin = "GET /chat?a HTTP/1.1\r\nhost: h\r\nx: y\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: ";
    let key = text.strip_prefix(begin).expect(&text);
    let key = key.strip_suffix("\r\n\r\n").expect(&text);
    let bytes = base64::engine::general_purpose::STANDARD.decode(key);
    assert_eq!(bytes.unwrap().len(), 16);
    let why = "a field that is about a connection of HTTP/1.1";
    socket
        .headers
        .insert("connection", "upgrade".parse().unwrap());
    malformed(&socket, why);
}

/// Reads it back as the head of a connection of HTTP/1.1, a body of unknown length behind it; the status when it is refused.
fn read(parts: &Parts) -> Result<BodyKind, u16> {
    let (text, _) = put(parts, false).expect("it is not malformed");
    let bytes = text.as_bytes();
    let found = Scanner::default().find(bytes, true);
    let len = found.map_err(|reject| reject.status())?;
    assert_eq!(len, Some(bytes.len()), "one head and nothing behind it");
    let mut head = RequestHead::default();
    head.parse(bytes, 100).map_err(|reject| reject.status())?;
    Ok(head.body())
}

fn token() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,12}"
}

proptest! {
    /// Whatever passes is one head with the same meaning, or is refused as a whole.
    #[test]
    fn what_is_written_is_read_as_one_head(
        path in "/[!-~]{0,20}",
        fields in proptest::collection::vec((token(), proptest::collection::vec(any::<u8>(), 0..20)), 0..8),
        ends: bool,
    ) {
        let Ok(uri) = Uri::try_from(format!("https://h{path}")) else {
            return Ok(());
        };
        let mut parts = get(&[]);
        parts.uri = uri;
        for (name, value) in &fields {
            if let Ok(value) = http::HeaderValue::from_bytes(value) {
                parts.headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
        }
        let mut out = Buf::small();
        let Ok(shape) = put_request_head(&mut out, &parts, ends) else {
            return Ok(());
        };
        let bytes = out.filled();
        let Ok(len) = Scanner::default().find(bytes, true) else {
            return Ok(());
        };
        prop_assert_eq!(len, Some(bytes.len()));
        let mut head = RequestHead::default();
        if head.parse(bytes, 100).is_ok() {
            let kind = head.body();
            match shape {
                Shape::None => prop_assert!(matches!(kind, BodyKind::None)),
                Shape::Chunked => prop_assert!(matches!(kind, BodyKind::Chunked)),
                Shape::Length | Shape::Raw => {}
            }
        }
    }
}
