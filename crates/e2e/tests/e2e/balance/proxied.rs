//! Behind a balancer that tells who its client is: headers of the PROXY protocol, real ones of HAProxy among them, and what is refused.

use std::io::{Read, Write};
use std::net::SocketAddr;

use podkit_testkit::net::free_addr;
use podkit_testkit::peers::haproxy;
use podkit_testkit::podkit::Module;
use podkit_testkit::{Need, Turn, able, http};
use serde_json::Value;

const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4444 80\r\n";
/// The same of version 2, with a TLV behind the addresses.
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xcb\0\x71\x07\xc6\x33\x64\x01\x11\x5c\0\x50\x04\0\x02ab";
/// IPv6, of version 2.
const SIX: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x11\x5c\0\x50";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\n\r\n";

/// A balance in front of an echo, which believes the connections of `trusted`.
fn start(trusted: &str, more: &[&str]) -> (Module, Module, SocketAddr) {
    let (listen, plain) = (free_addr(), free_addr());
    let echo = Module::start("echo", &[&format!("--listen={plain}")], &[]);
    let (at, to, trust) = (
        format!("--listen={listen}"),
        format!("--upstream={plain}"),
        format!("--accept-proxy={trusted}"),
    );
    let mut args = vec![at.as_str(), &to, &trust, "--ready=off"];
    args.extend(more);
    (Module::start("balance", &args, &[]), echo, listen)
}

/// Who the application was told that the client is.
fn client(answer: &http::Response) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told: Value = answer.json()["headers"]["x-forwarded-for"].clone();
    told[0].as_str().unwrap().to_owned()
}

#[test]
fn a_header_says_who_the_client_is() {
    let _turn = Turn::shared();
    let (_balance, _echo, listen) = start("127.0.0.0/8", &[]);
    for (header, expected) in [
        (LINE, "203.0.113.7"),
        (BINARY, "203.0.113.7"),
        (SIX, "2001:db8::7"),
        // Nothing is known: who connected is the client.
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "127.0.0.1"),
    ] {
        let shown = header.escape_ascii();
        let bytes = [header, GET].concat();
        for piece in [bytes.len(), 1] {
            let mut stream = http::dial(listen).unwrap();
            for part in bytes.chunks(piece) {
                stream.write_all(part).unwrap();
            }
            let answer = http::receive(&mut stream).unwrap();
            assert_eq!(client(&answer), expected, "{shown}");
            // For all requests of the connection.
            let answer = http::exchange(&mut stream, GET).unwrap();
            assert_eq!(client(&answer), expected, "{shown}");
        }
    }
}

#[test]
fn haproxy_says_who_the_client_is() {
    let _turn = Turn::shared();
    if !able(&[Need::Program("haproxy")]) {
        return;
    }
    let (_balance, _echo, listen) = start("127.0.0.0/8", &[]);
    let (first, second) = (free_addr(), free_addr());
    let front = format!(
        "listen v1\n  bind {first}\n  mode tcp\n  server s {listen} send-proxy\n\
         listen v2\n  bind {second}\n  mode tcp\n  server s {listen} send-proxy-v2\n"
    );
    let _haproxy = haproxy(&front, None, first, None);
    for front in [first, second] {
        // Of another address of the loopback than HAProxy's own.
        let mut stream = from("127.0.0.9", front);
        let answer = http::exchange(&mut stream, GET).unwrap();
        assert_eq!(client(&answer), "127.0.0.9");
    }
}

/// A connection from this address.
fn from(address: &str, to: SocketAddr) -> std::net::TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let own = SocketAddr::new(address.parse().unwrap(), 0);
    bind(&socket, &own).unwrap();
    connect(&socket, &to).unwrap();
    let stream = std::net::TcpStream::from(socket);
    stream
        .set_read_timeout(Some(podkit_testkit::DEADLINE))
        .unwrap();
    stream
}

/// All that comes until the other side closes.
fn rest(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    drop(stream.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn what_is_no_header_is_refused_and_logged_with_the_reason() {
    let _turn = Turn::shared();
    let cases: &[(&[u8], &str)] = &[
        (GET, "no PROXY protocol header"),
        (
            b"PROXY TCP4 203.0.113.7 198.51.100.1 4444 http\r\n",
            "a PROXY line with a port that is none",
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
            "a PROXY header of a version that is not 2",
        ),
        (b"PROXY TCP4 203", "its PROXY header did not come in time"),
    ];
    for (bytes, why) in cases {
        // One each: of many refusals only the first is said for a while.
        let (balance, echo, listen) = start("127.0.0.0/8", &["--head-timeout=300ms"]);
        let mut stream = http::dial(listen).unwrap();
        stream.write_all(bytes).unwrap();
        let peer = stream.local_addr().unwrap();
        assert_eq!(rest(stream), "", "{why}");
        let line = balance
            .process
            .wait_line(why, |line| line.contains(why) && line.contains("warn"));
        let line: Value = serde_json::from_str(&line.text).unwrap();
        assert_eq!(line["level"], "warn");
        assert_eq!(line["peer"], peer.to_string());
        assert_eq!(line["why"], *why);
        // Others are served, and a port that is only looked at is not worth a line.
        drop(http::dial(listen).unwrap());
        let mut stream = http::dial(listen).unwrap();
        let request = [LINE, GET].concat();
        let answer = http::exchange(&mut stream, &request).unwrap();
        assert_eq!(client(&answer), "203.0.113.7");
        let seen = echo.metric("podkit_connections_total{result=\"accepted\"}");
        assert_eq!(seen, Some(1.0), "{why}");
        let lines = balance.process.lines();
        let said = lines
            .iter()
            .filter(|line| line.text.contains("--accept-proxy"));
        assert_eq!(said.count(), 1, "{why}");
    }
}

#[test]
fn who_is_no_balancer_can_not_say_who_it_is() {
    let _turn = Turn::shared();
    let (_balance, _echo, listen) = start("192.0.2.0/24", &[]);
    for header in [LINE, BINARY] {
        let mut stream = http::dial(listen).unwrap();
        stream.write_all(&[header, GET].concat()).unwrap();
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    let mut stream = http::dial(listen).unwrap();
    let answer = http::exchange(&mut stream, GET).unwrap();
    assert_eq!(client(&answer), "127.0.0.1");
}
