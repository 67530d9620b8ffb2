//! The PROXY protocol, in and out.

use podkit_testkit::http::exchange;
use podkit_testkit::tls::Client;

use super::*;

#[test]
fn a_trusted_balancer_says_who_the_client_is() {
    let app = App::start();
    let flags = [("self-signed", "true"), ("accept-proxy", "127.0.0.0/8")];
    let tls = Tls::start(app.addr, &flags);
    let asked = |header: &[u8]| -> Option<String> {
        let mut stream = podkit_testkit::http::dial(tls.addr).unwrap();
        stream.write_all(header).unwrap();
        let mut stream = Client::trusting().over(stream, "localhost").ok()?;
        let answer = exchange(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
        fields(&answer.text()).remove("x-forwarded-for")
    };
    assert_eq!(
        asked(b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n").as_deref(),
        Some("192.0.2.7")
    );
    assert_eq!(
        asked(b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n").as_deref(),
        Some("2001:db8::7")
    );
    assert_eq!(asked(b"PROXY UNKNOWN\r\n").as_deref(), Some("127.0.0.1"));
    let binary =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\xc6\x33\x64\x01\x13\x88\x01\xbb";
    assert_eq!(asked(binary).as_deref(), Some("192.0.2.8"));
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert_eq!(asked(local).as_deref(), Some("127.0.0.1"));
    // Without one, or with a wrong one, a balancer is not served.
    assert_eq!(asked(b""), None);
    assert_eq!(
        asked(b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 66666\r\n"),
        None
    );
}

#[test]
fn who_is_not_trusted_can_not_pretend() {
    let app = App::start();
    let flags = [("self-signed", "true"), ("accept-proxy", "192.0.2.0/24")];
    let tls = Tls::start(app.addr, &flags);
    assert_eq!(
        Client::trusting()
            .get(tls.addr, "localhost", "/")
            .unwrap()
            .status,
        200
    );
    let mut stream = podkit_testkit::http::dial(tls.addr).unwrap();
    stream
        .write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n")
        .unwrap();
    assert!(Client::trusting().over(stream, "localhost").is_err());
}

#[test]
fn the_upstream_is_told_where_a_client_came_from() {
    let check = |version: &'static str, wanted: fn(SocketAddr, SocketAddr) -> Vec<u8>| {
        let app = App::speaking(|mut stream| {
            // Back comes what came first, whatever it is.
            let mut got = [0; 200];
            let mut have = 0;
            while !got[..have].ends_with(b"end") {
                match stream.read(&mut got[have..]) {
                    Ok(count @ 1..) => have += count,
                    _ => return,
                }
            }
            stream.write_all(&got[..have]).unwrap();
        });
        let flags = [
            ("self-signed", "true"),
            ("mode", "tcp"),
            ("send-proxy", version),
        ];
        let tls = Tls::start(app.addr, &flags);
        let mut stream = Client::trusting().connect(tls.addr, "localhost").unwrap();
        let from = stream.sock.local_addr().unwrap();
        stream.write_all(b"end").unwrap();
        stream.flush().unwrap();
        let mut all = Vec::new();
        drop(stream.read_to_end(&mut all));
        let mut expected = wanted(from, tls.addr);
        expected.extend(b"end");
        assert_eq!(all, expected, "{version}");
    };
    check("v1", |from, to| {
        format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
            from.port(),
            to.port()
        )
        .into_bytes()
    });
    check("v2", |from, to| {
        let mut out = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
        out.extend(from.port().to_be_bytes());
        out.extend(to.port().to_be_bytes());
        out
    });
}
