use podkit_testkit::http::{exchange, get, receive};
use podkit_testkit::tls::Client;

use super::*;

#[test]
fn the_application_is_told_who_asked_and_not_what_the_client_pretends() {
    let app = App::start();
    let tls = Tls::start(app.addr, &[("self-signed", "true")]);
    let mut stream = Client::trusting().connect(tls.addr, "app.example").unwrap();
    let request = "GET /a?b=c HTTP/1.1\r\nHost: app.example\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: http\r\n\
                   X-Forwarded-Client-Cert: Hash=00;Subject=\"CN=admin\"\r\nForwarded: for=6.6.6.6\r\n\r\n";
    let answer = exchange(&mut stream, request.as_bytes()).unwrap();
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{text}");
    let seen = fields(&text);
    let field = |name: &str| seen.get(name).map(String::as_str);
    assert_eq!(field("host"), Some("app.example"));
    assert_eq!(field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field("x-forwarded-proto"), Some("https"));
    assert_eq!(field("x-forwarded-host"), Some("app.example"));
    assert_eq!(
        field("forwarded"),
        Some("for=127.0.0.1;proto=https;host=\"app.example\"")
    );
    assert_eq!(field("x-forwarded-client-cert"), None);
    // The connection is kept.
    let again = exchange(&mut stream, b"GET /2 HTTP/1.1\r\nHost: app.example\r\n\r\n").unwrap();
    assert!(again.text().starts_with("GET /2 "));
    assert_eq!(answer.header("strict-transport-security"), None);
    let sample = "podkit_tls_handshakes_total{version=\"1.3\",resumed=\"false\"}";
    assert!(
        (tls.metric(sample) - 1.0).abs() < f64::EPSILON,
        "{}",
        tls.metrics()
    );
    assert_eq!(tls.alert(), None);
    assert!(tls.checks().iter().all(|(_, check)| check.is_ok()));
}

#[test]
fn hsts_stands_in_place_of_the_applications() {
    let app = App::answering(|_| {
        b"HTTP/1.1 204 No Content\r\nStrict-Transport-Security: max-age=1\r\n\r\n".to_vec()
    });
    let tls = Tls::start(
        app.addr,
        &[("self-signed", "true"), ("hsts", "365d;include-subdomains")],
    );
    let answer = Client::trusting().get(tls.addr, "localhost", "/").unwrap();
    let all: Vec<&str> = answer
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("strict-transport-security"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(all, ["max-age=31536000; includeSubDomains"]);
}

#[test]
fn plain_http_is_sent_to_https() {
    let app = App::start();
    let from = free_addr();
    let flags = [
        ("self-signed", "true"),
        ("redirect-from", &*from.to_string()),
    ];
    let tls = Tls::start(app.addr, &flags);
    let port = tls.addr.port();
    let answer = get(from, "/a/b?c=%20d").unwrap();
    assert_eq!(answer.status, 301);
    let expected = format!("https://127.0.0.1:{port}/a/b?c=%20d");
    assert_eq!(answer.header("location"), Some(expected.as_str()));
    let answer = podkit_testkit::http::send(from, "POST", "/form", "text/plain", b"x=1").unwrap();
    assert_eq!(answer.status, 308);
    drop(tls);

    let other = free_addr();
    let flags = [
        ("self-signed", "true"),
        ("redirect-from", &*other.to_string()),
        ("redirect-port", "443"),
    ];
    let _tls = Tls::start(app.addr, &flags);
    let mut stream = podkit_testkit::http::dial(other).unwrap();
    let answer = exchange(
        &mut stream,
        b"GET / HTTP/1.1\r\nHost: app.example:80\r\n\r\n",
    )
    .unwrap();
    assert_eq!(answer.header("location"), Some("https://app.example/"));
}

#[test]
fn an_application_that_is_away_is_told_from_us() {
    let nobody = free_addr();
    let tls = Tls::start(nobody, &[("self-signed", "true")]);
    let answer = Client::trusting().get(tls.addr, "localhost", "/").unwrap();
    assert_eq!(answer.status, 503);
    assert!(
        tls.checks().iter().all(|(_, check)| check.is_ok()),
        "its readiness is its own"
    );
}

#[test]
fn what_is_no_tls_is_counted_and_harms_nobody() {
    let app = App::start();
    let tls = Tls::start(app.addr, &[("self-signed", "true")]);
    let mut plain = podkit_testkit::http::dial(tls.addr).unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut rest = Vec::new();
    drop(plain.read_to_end(&mut rest));
    tls.metric_becomes(
        "podkit_tls_handshake_failures_total{reason=\"not_tls\"}",
        1.0,
    );
    // Goes away.
    drop(podkit_testkit::http::dial(tls.addr).unwrap());
    tls.metric_becomes(
        "podkit_tls_handshake_failures_total{reason=\"closed\"}",
        1.0,
    );
    assert_eq!(
        Client::trusting()
            .get(tls.addr, "localhost", "/")
            .unwrap()
            .status,
        200
    );
}

#[test]
fn who_says_nothing_is_cut_and_counted() {
    let app = App::start();
    let flags = [("self-signed", "true"), ("head-timeout", "200ms")];
    let tls = Tls::start(app.addr, &flags);
    let _silent = podkit_testkit::http::dial(tls.addr).unwrap();
    tls.metric_becomes(
        "podkit_tls_handshake_failures_total{reason=\"timeout\"}",
        1.0,
    );
}

#[test]
fn what_is_in_flight_is_finished() {
    let drains = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&drains);
    let app = App::answering(move |_| {
        podkit_testkit::until("it drains", || told.load(Ordering::Relaxed).then_some(()));
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".to_vec()
    });
    let tls = Tls::start(app.addr, &[("self-signed", "true")]);
    let mut stream = Client::trusting().connect(tls.addr, "localhost").unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    stream.flush().unwrap();
    tls.metric_becomes("podkit_upstream_connections_total{result=\"opened\"}", 1.0);
    tls.lifecycle.advance(Phase::Draining);
    drains.store(true, Ordering::Relaxed);
    let answer = receive(&mut stream).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    assert_eq!(answer.header("connection"), Some("close"));
    podkit_testkit::until("the end", || (tls.lifecycle.in_flight() == 0).then_some(()));
}
