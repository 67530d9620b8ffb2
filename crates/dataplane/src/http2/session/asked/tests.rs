use proptest::prelude::*;

use super::*;
use crate::http::head::{BodyKind, RequestHead, Scanner};

type Fields<'a> = Vec<(&'a str, &'a [u8])>;

/// What is written, and how its body is.
fn put(fields: &[(&str, &[u8])], ends: bool) -> Result<(String, Shape), Malformed> {
    let mut asked = Asked::default();
    asked.begin(32 * 1024, false);
    for (name, value) in fields {
        asked.field(name.as_bytes(), value);
    }
    let request = asked.request(ends)?;
    let text = String::from_utf8_lossy(request.head.filled()).into_owned();
    Ok((text, request.shape))
}

#[track_caller]
fn check(fields: &[(&str, &[u8])], ends: bool, text: &str, shape: Shape) {
    assert_eq!(put(fields, ends), Ok((text.to_owned(), shape)));
}

#[track_caller]
fn malformed(fields: &[(&str, &[u8])], why: &'static str) {
    for ends in [true, false] {
        assert_eq!(put(fields, ends), Err(Malformed(why)), "{fields:?}");
    }
}

/// A GET with these fields.
fn get<'a>(fields: &[(&'a str, &'a str)]) -> Fields<'a> {
    let mut all: Fields<'_> = vec![
        (":method", b"GET"),
        (":scheme", b"https"),
        (":authority", b"h"),
        (":path", b"/a?b"),
    ];
    all.extend(fields.iter().map(|(name, value)| (*name, value.as_bytes())));
    all
}

/// The same with another value of one of its fields, or without it.
fn but<'a>(mut fields: Fields<'a>, name: &str, value: Option<&'a str>) -> Fields<'a> {
    match value {
        None => fields.retain(|(other, _)| *other != name),
        Some(value) => {
            let field = fields.iter_mut().find(|(other, _)| *other == name);
            field.unwrap().1 = value.as_bytes();
        }
    }
    fields
}

#[test]
fn heads_and_how_their_bodies_are_framed() {
    let line = "GET /a?b HTTP/1.1\r\nhost: h\r\n";
    let none = get(&[("x-a", "1"), ("x-a", "2"), ("te", "trailers")]);
    let fields = "x-a: 1\r\nx-a: 2\r\nte: trailers\r\n";
    check(&none, true, &format!("{line}{fields}\r\n"), Shape::None);
    let chunked = format!("{line}{fields}transfer-encoding: chunked\r\n\r\n");
    check(&none, false, &chunked, Shape::Chunked);
    let length = get(&[("content-length", "5")]);
    let text = format!("{line}content-length: 5\r\n\r\n");
    check(&length, false, &text, Shape::Length);
    let why = "the body is shorter than Content-Length says";
    assert_eq!(put(&length, true), Err(Malformed(why)));
    let text = format!("{line}content-length: 0\r\n\r\n");
    check(&get(&[("content-length", "0")]), true, &text, Shape::None);
    malformed(
        &get(&[("content-length", "+5")]),
        "Content-Length is not a number",
    );
    // An empty value is one.
    let text = format!("{line}x-empty: \r\n\r\n");
    check(&get(&[("x-empty", "")]), true, &text, Shape::None);
}

#[test]
fn pseudo_fields_come_once_and_first() {
    for name in [":method", ":scheme", ":path"] {
        let why = match name {
            ":method" => ":method is missing",
            ":scheme" => ":scheme is missing",
            _ => ":path is missing",
        };
        malformed(&but(get(&[]), name, None), why);
        malformed(&but(get(&[("x", "y")]), name, None), why);
    }
    for (name, value) in [
        (":method", "GET"),
        (":path", "/"),
        (":authority", "h"),
        (":scheme", "http"),
    ] {
        malformed(&get(&[(name, value)]), "a pseudo-field comes twice");
        malformed(
            &get(&[("x", "y"), (name, value)]),
            "a pseudo-field behind other fields",
        );
    }
    for name in [":status", ":host", ":"] {
        malformed(
            &get(&[(name, "200")]),
            "a pseudo-field that requests don't have",
        );
    }
    malformed(
        &get(&[(":protocol", "websocket")]),
        ":protocol without CONNECT",
    );
    for method in ["", "GE T", "GET\r\nX: y", "GET/"] {
        malformed(
            &but(get(&[]), ":method", Some(method)),
            ":method is not valid",
        );
    }
    for authority in ["", "h/x", "h x", "h\r\nx: y", "h?a", "h#a", "h\\"] {
        malformed(
            &but(get(&[]), ":authority", Some(authority)),
            ":authority is not valid",
        );
    }
}

#[test]
fn the_host_is_the_authority_and_both_agree() {
    let line = "GET /a?b HTTP/1.1\r\n";
    let text = format!("{line}host: h\r\n\r\n");
    check(&get(&[("host", "H")]), true, &text, Shape::None);
    // Without :authority; that there is none, or two, is for who reads the head.
    let without = |fields| but(get(fields), ":authority", None);
    let text = format!("{line}host: i\r\n\r\n");
    check(&without(&[("host", "i")]), true, &text, Shape::None);
    check(&without(&[]), true, &format!("{line}\r\n"), Shape::None);
    assert_eq!(read(&without(&[])), Err(400));
    assert_eq!(read(&without(&[("host", "i"), ("host", "j")])), Err(400));
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
    for value in ["gzip", "trailers, gzip", "Trailers", ""] {
        malformed(&get(&[("te", value)]), "TE other than trailers");
    }
}

#[test]
fn names_and_values_that_would_be_read_otherwise() {
    for name in ["", "X", "a b", "a:", "a\r\n", "\u{fc}", "a\0"] {
        malformed(&get(&[(name, "1")]), "a field's name is not valid");
    }
    for value in [" a", "a ", "\ta", "a\t", " "] {
        malformed(
            &get(&[("x", value)]),
            "a field's value begins or ends with white space",
        );
    }
    for value in ["a\rb", "a\nb", "a\0b", "\r\nX: y", "\n", "a\r\n"] {
        malformed(&get(&[("x", value)]), "a field's value holds CR, LF or NUL");
    }
    let mut odd = get(&[]);
    odd.push(("x", b"\xff\x80 a\tb"));
    assert!(put(&odd, true).is_ok(), "other bytes are values");
}

#[test]
fn schemes_and_targets() {
    for scheme in ["ftp", "javascript", ""] {
        let why = ":scheme is neither http nor https";
        malformed(&but(get(&[]), ":scheme", Some(scheme)), why);
    }
    for path in ["/\u{fc}", "", "/a b", "/\r\n", "/a\0"] {
        malformed(&but(get(&[]), ":path", Some(path)), ":path is not valid");
    }
    for path in ["?a", "http://i/", "a"] {
        malformed(
            &but(get(&[]), ":path", Some(path)),
            ":path does not start with a slash",
        );
    }
}

/// A target that a connection of HTTP/1.1 refuses, such as one with a fragment, is refused here, and no other.
#[test]
fn targets_are_what_they_are_in_http_1() {
    for byte in '!'..='~' {
        let path = format!("/a{byte}b?c{byte}d");
        let text = format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n");
        let mut head = RequestHead::default();
        let plain = head.parse(text.as_bytes(), 100);
        let plain = plain.map_err(|reject| reject.status()).is_ok();
        let here = read(&but(get(&[]), ":path", Some(&path)));
        assert_eq!(here.is_ok(), plain, "{path}");
        if byte == '#' {
            assert_eq!(here, Err(400));
        }
    }
}

#[test]
fn connect_is_written_for_who_refuses_it_and_websockets_as_an_upgrade() {
    let connect: Fields<'_> = vec![
        (":method", b"CONNECT"),
        (":authority", b"h:443"),
        ("x", b"y"),
    ];
    let text = "CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\n\r\n";
    check(&connect, false, text, Shape::Raw);
    let protocol = |name: &'static str, fields: &[(&'static str, &'static str)]| {
        let mut all = but(get(&[]), ":method", Some("CONNECT"));
        all.push((":protocol", name.as_bytes()));
        all.extend(fields.iter().map(|(name, value)| (*name, value.as_bytes())));
        all
    };
    let (text, _) = put(&protocol("connect-udp", &[("x", "y")]), false).unwrap();
    assert!(text.starts_with("CONNECT h HTTP/1.1\r\n"), "{text}");
    let key = ("sec-websocket-key", "theirs");
    let (text, shape) = put(&protocol("websocket", &[("x", "y"), key]), false).unwrap();
    assert_eq!(shape, Shape::Raw);
    let begin = "GET /a?b HTTP/1.1\r\nhost: h\r\nx: y\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: ";
    let key = text.strip_prefix(begin).expect(&text);
    let key = key.strip_suffix("\r\n\r\n").expect(&text);
    let bytes = base64::engine::general_purpose::STANDARD.decode(key);
    assert_eq!(bytes.unwrap().len(), 16);
    let why = "a field that is about a connection of HTTP/1.1";
    malformed(&protocol("websocket", &[("connection", "upgrade")]), why);
}

#[test]
fn trailers_are_fields_only() {
    let take = |fields: &[(&str, &str)]| {
        let mut asked = Asked::default();
        asked.begin(100, true);
        for (name, value) in fields {
            asked.field(name.as_bytes(), value.as_bytes());
        }
        asked
            .trailers()
            .map(|lines| String::from_utf8(lines).unwrap())
    };
    assert_eq!(
        take(&[("a", "1"), ("b", "2")]),
        Ok("a: 1\r\nb: 2\r\n".to_owned())
    );
    let pseudo = Malformed("trailers hold a pseudo-field");
    assert_eq!(take(&[("a", "1"), (":path", "/")]), Err(pseudo));
    assert_eq!(take(&[(":status", "200")]), Err(pseudo));
    let large = "x".repeat(70);
    assert_eq!(
        take(&[("a", &large)]),
        Err(Malformed("trailers are too large"))
    );
}

/// Reads it back as the head of a connection of HTTP/1.1, a body of unknown length behind it; the status when it is refused.
fn read(fields: &[(&str, &[u8])]) -> Result<BodyKind, u16> {
    let (text, _) = put(fields, false).expect("it is not malformed");
    let bytes = text.as_bytes();
    let found = Scanner::default().find(bytes, true);
    let len = found.map_err(|reject| reject.status())?;
    assert_eq!(len, Some(bytes.len()), "one head and nothing behind it");
    let mut head = RequestHead::default();
    head.parse(bytes, 100).map_err(|reject| reject.status())?;
    Ok(head.body())
}

#[test]
fn fields_are_bounded() {
    let mut asked = Asked::default();
    asked.begin(1000, false);
    let name = vec![b'a'; 68];
    let taken = (0..100).take_while(|_| asked.field(&name, b"")).count();
    assert!(asked.is_over());
    // Eight times what is taken, a field counting 100 bytes.
    assert_eq!(taken, 80);
    assert!(asked.is_bomb());
    assert!(asked.head.is_none(), "nothing was kept of it");
}

proptest! {
    /// Whatever passes is one head with the same meaning, or is refused as a whole.
    #[test]
    fn what_is_written_is_read_as_one_head(
        path in "/[!-~]{0,20}",
        fields in proptest::collection::vec(
            ("[a-z][a-z0-9-]{0,12}", proptest::collection::vec(any::<u8>(), 0..20)), 0..8),
        ends: bool,
    ) {
        let mut all = but(get(&[]), ":path", Some(&path));
        all.extend(fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
        let mut asked = Asked::default();
        asked.begin(32 * 1024, false);
        for (name, value) in &all {
            asked.field(name.as_bytes(), value);
        }
        let Ok(request) = asked.request(ends) else {
            return Ok(());
        };
        let bytes = request.head.filled();
        let Ok(len) = Scanner::default().find(bytes, true) else {
            return Ok(());
        };
        prop_assert_eq!(len, Some(bytes.len()));
        let mut head = RequestHead::default();
        if head.parse(bytes, 100).is_ok() {
            let kind = head.body();
            match request.shape {
                Shape::None => prop_assert!(matches!(kind, BodyKind::None)),
                Shape::Chunked => prop_assert!(matches!(kind, BodyKind::Chunked)),
                Shape::Length | Shape::Raw => {}
            }
        }
    }
}
