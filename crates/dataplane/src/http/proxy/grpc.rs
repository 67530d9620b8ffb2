//! Answers of our own to calls of gRPC: clients look for a status of gRPC's own, and take a body for messages
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use crate::http::date::put_date;
use crate::http::head::{Method, RequestHead};
use crate::http::stage::Reply;
use crate::net::Buf;

/// Whether a request of HTTP/2 is a call. gRPC-Web has its messages in bodies of another form, and its clients know HTTP's codes.
pub(super) fn is_call(head: &RequestHead, bytes: &[u8]) -> bool {
    let is = |value: &[u8]| {
        let rest = value.strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    };
    head.method() == Method::Post && head.value("content-type", bytes).is_some_and(is)
}

/// The status for an answer's code, as clients make one up for themselves
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
fn status(code: u16) -> u64 {
    match code {
        // INTERNAL, UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED, UNAVAILABLE, UNKNOWN.
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// Writes `reply` as an answer that is trailers alone. `staged`: whole field lines.
pub(super) fn put_reply(out: &mut Buf, reply: &Reply, staged: &[u8]) {
    out.put(b"HTTP/1.1 200 OK\r\n");
    put_date(out);
    out.put(staged);
    out.put(b"Content-Type: application/grpc\r\nContent-Length: 0\r\nGrpc-Status: ");
    out.put_decimal(status(reply.status));
    out.put(b"\r\n");
    if reply.content_type.starts_with("text/plain") {
        out.put(b"Grpc-Message: ");
        put_message(out, reply.body.trim_ascii());
        out.put(b"\r\n");
    }
    out.put(b"\r\n");
}

/// Percent-encodes what is not printable, and the percent sign.
fn put_message(out: &mut Buf, text: &[u8]) {
    for byte in text {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => out.put(&[*byte]),
            _ => out.put(format!("%{byte:02X}").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_method_and_type() {
        let check = |method: &str, kind: &str, expected: bool| {
            let text = format!("{method} /a HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\n\r\n");
            let mut head = RequestHead::default();
            head.parse(text.as_bytes(), 9).unwrap();
            assert_eq!(is_call(&head, text.as_bytes()), expected, "{method} {kind}");
        };
        check("POST", "application/grpc", true);
        check("POST", "application/grpc+proto", true);
        check("POST", "application/grpc;a=b", true);
        check("GET", "application/grpc", false);
        check("POST", "application/grpc-web", false);
        check("POST", "application/grpc-web+proto", false);
        check("POST", "text/plain", false);
    }

    #[test]
    fn an_answer_is_trailers_alone() {
        let check = |status: u16, content_type, body: &'static str, expected: &str| {
            let reply = Reply {
                status,
                content_type,
                body: body.as_bytes().into(),
            };
            let mut out = Buf::small();
            put_reply(&mut out, &reply, b"X: y\r\n");
            let text = String::from_utf8_lossy(out.filled()).into_owned();
            let (_, behind_date) = text.split_once("GMT\r\n").unwrap();
            assert!(text.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{text}");
            let fields = "X: y\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n";
            assert_eq!(behind_date, format!("{fields}{expected}\r\n"));
        };
        let plain = "text/plain; charset=utf-8";
        let told = "Grpc-Status: 14\r\nGrpc-Message: no upstream is there\r\n";
        check(503, plain, "no upstream is there\n", told);
        let told = "Grpc-Status: 13\r\nGrpc-Message: 5 %25%0D%0A%C3%BC~\r\n";
        check(400, plain, "5 %\r\n\u{fc}~\n", told);
        check(429, "application/json", "{}", "Grpc-Status: 14\r\n");
        check(413, "application/json", "{}", "Grpc-Status: 2\r\n");
    }
}
