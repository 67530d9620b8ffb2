//! TLS towards the upstream.

use podkit_testkit::certs::{Authority, Pair, replace};
use podkit_testkit::http::get;
use podkit_testkit::peers;
use podkit_testkit::tls::Client;

use super::*;

/// What TLS servers and those who ask them need.
struct Ground {
    authority: Authority,
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let ground = Self {
            authority: Authority::new("CA"),
            dir: tempfile::tempdir().unwrap(),
        };
        replace(&ground.dir.path().join("ca.pem"), &ground.authority.pem());
        ground
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// nginx that shows who asked.
    fn nginx(&self, pair: &Pair, more: &str) -> (peers::Server, SocketAddr) {
        let (addr, ready) = (free_addr(), free_addr());
        let config = format!(
            "server {{ listen {ready}; }}\n\
             server {{ listen {addr} ssl http2; ssl_certificate DIR/server.crt; ssl_certificate_key DIR/server.key; {more}\n\
             location / {{ default_type text/plain;\n\
             return 200 '$server_protocol $ssl_session_reused $ssl_client_s_dn $http_x_forwarded_proto'; }} }}"
        );
        (peers::nginx(&config, Some(pair), ready, None), addr)
    }

    fn originate(&self, upstream: &str, flags: &[(&str, &str)]) -> Tls {
        let ca = self.path("ca.pem");
        let mut all = vec![("originate", "true"), ("upstream-ca", ca.as_str())];
        all.extend(flags);
        Tls::start_at(upstream, &all)
    }
}

fn asked(tls: &Tls) -> (u16, String) {
    let answer = get(tls.addr, "/").unwrap();
    (answer.status, answer.text())
}

#[test]
fn a_server_is_spoken_to_by_tls_and_its_sessions_are_resumed() {
    let ground = Ground::new();
    let (_nginx, addr) = ground.nginx(
        &ground.authority.server(&["localhost"]),
        "keepalive_requests 1;",
    );
    let tls = ground.originate(&format!("https://localhost:{}", addr.port()), &[]);
    assert_eq!(asked(&tls), (200, "HTTP/1.1 .  http".to_owned()));
    let resumed = podkit_testkit::until("a session is resumed", || {
        let (status, text) = asked(&tls);
        assert_eq!(status, 200, "{text}");
        text.contains(" r ").then_some(text)
    });
    assert_eq!(resumed, "HTTP/1.1 r  http");
}

#[test]
fn http_2_is_agreed_on_where_it_is_offered() {
    let ground = Ground::new();
    let (_nginx, addr) = ground.nginx(&ground.authority.server(&["localhost"]), "");
    let upstream = format!("https://localhost:{}", addr.port());
    let tls = ground.originate(&upstream, &[("upstream-http2", "true")]);
    for _ in 0..3 {
        let (status, text) = asked(&tls);
        // The second worker resumes the session of the first.
        assert!(
            status == 200 && text.starts_with("HTTP/2.0 "),
            "{status} {text}"
        );
    }
}

#[test]
fn a_certificate_for_another_name_or_of_another_authority_is_not_taken() {
    let ground = Ground::new();
    let check = |pair: &Pair, suffix: &str, expected: u16| {
        let (_nginx, addr) = ground.nginx(pair, "");
        let tls = ground.originate(&format!("https://{addr}{suffix}"), &[]);
        let (status, text) = asked(&tls);
        assert_eq!(status, expected, "{suffix}: {text}");
    };
    check(&ground.authority.server(&["127.0.0.1"]), "", 200);
    check(&ground.authority.server(&["localhost"]), "", 502);
    check(
        &ground.authority.server(&["a.example"]),
        ";server-name=a.example",
        200,
    );
    check(
        &ground.authority.server(&["a.example"]),
        ";server-name=b.example",
        502,
    );
    check(&ground.authority.expired(&["127.0.0.1"]), "", 502);
    check(&Authority::new("another").server(&["127.0.0.1"]), "", 502);
}

#[test]
fn a_certificate_is_shown_and_its_renewal_too() {
    let ground = Ground::new();
    let first = ground.authority.client("first", &["first"]);
    let (cert, key) = first.write(ground.dir.path(), "client");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let more = format!(
        "ssl_client_certificate {}; ssl_verify_client on;",
        ground.path("ca.pem")
    );
    let (_nginx, addr) = ground.nginx(&ground.authority.server(&["127.0.0.1"]), &more);
    let upstream = format!("https://{addr}");
    let without = ground.originate(&upstream, &[]);
    assert_eq!(asked(&without).0, 400);
    let flags = [
        ("upstream-cert", cert.as_str()),
        ("upstream-key", key.as_str()),
        ("upstream-idle", "0"),
    ];
    let tls = ground.originate(&upstream, &flags);
    assert!(asked(&tls).1.contains("CN=first"));
    ground
        .authority
        .client("second", &["second"])
        .write(ground.dir.path(), "client");
    tls.reload().unwrap();
    assert!(asked(&tls).1.contains("CN=second"), "{}", asked(&tls).1);
    // What is no good changes nothing, and is told.
    first.mismatched().write(ground.dir.path(), "client");
    let why = tls.reload().unwrap_err();
    assert!(why.starts_with("--upstream-cert "), "{why}");
    assert!(
        tls.alert()
            .is_some_and(|alert| alert.contains("--upstream-cert "))
    );
    assert!(asked(&tls).1.contains("CN=second"));
}

#[test]
fn bytes_of_any_protocol_go_by_tls_as_well() {
    let ground = Ground::new();
    let app = App::speaking(|mut stream| {
        let mut got = [0; 5];
        stream.write_all(b"220 hello\r\n").unwrap();
        stream.read_exact(&mut got).unwrap();
        stream.write_all(&got).unwrap();
    });
    // TLS is served by another podkit.
    let (cert, key) = ground
        .authority
        .server(&["a.example"])
        .write(ground.dir.path(), "server");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let far = Tls::start(app.addr, &[("cert", &cert), ("key", &key), ("mode", "tcp")]);
    let near = ground.originate(
        &format!("https://{};server-name=a.example", far.addr),
        &[("mode", "tcp")],
    );
    let mut stream = podkit_testkit::http::dial(near.addr).unwrap();
    let mut text = [0; 11];
    stream.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"220 hello\r\n");
    stream.write_all(b"12345").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"12345");
}

#[test]
fn both_sides_can_speak_tls() {
    let ground = Ground::new();
    let (_nginx, addr) = ground.nginx(&ground.authority.server(&["localhost"]), "");
    let ca = ground.path("ca.pem");
    let upstream = format!("https://localhost:{}", addr.port());
    let tls = Tls::start_at(&upstream, &[("self-signed", "true"), ("upstream-ca", &ca)]);
    let answer = Client::trusting().get(tls.addr, "localhost", "/").unwrap();
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "HTTP/1.1 .  https")
    );
}
