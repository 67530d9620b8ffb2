//! Targets of the fuzzer: what comes first over a connection.

use podkit_foundation::fuzz::{Target, pieces};

use crate::http::chunked::{Chunks, Step};
use crate::http::head::{RequestHead, ResponseHead, Scanner, parse_trailers};
use crate::http2::fuzz::SESSION;
use crate::memcache;
use crate::net::proxied;
use crate::resp;

/// All of this crate.
pub fn targets() -> Vec<Target> {
    let mut all = vec![REQUEST, RESPONSE, CHUNKED, TRAILERS, PROXY_HEADER, SESSION];
    all.extend(memcache::fuzz::TARGETS);
    all.extend(resp::fuzz::TARGETS);
    all
}

/// The head at the begin of the bytes, and whether the scanner finds it in pieces too. What comes in pieces may be refused before its
/// end is there; then the head must be.
fn head(bytes: &[u8], strict: bool) -> Option<(&[u8], bool)> {
    let text = bytes.get(1..)?;
    let whole = Scanner::default().find(text, strict);
    let (mut scanner, mut have) = (Scanner::default(), 0);
    let mut found = Ok(None);
    for piece in pieces(bytes) {
        have += piece.len();
        found = scanner.find(&text[..have], strict);
        if found != Ok(None) {
            break;
        }
    }
    let refused = found.is_err();
    assert!(refused || found == whole, "{found:?} in pieces, {whole:?}");
    whole.ok()?.map(|len| (&text[..len], !refused))
}

const REQUEST: Target = Target {
    name: "http1-request",
    seeds: &[
        b"\x05GET /a?b HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\xffPOST http://h/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        b"\x01CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 0\r\n\r\n",
    ],
    run: |bytes| {
        let taken = RequestHead::default().take(bytes.get(1..).unwrap_or_default(), 100);
        let Some((text, whole)) = head(bytes, true) else {
            assert_eq!(taken, None, "taken, and not found");
            return;
        };
        let mut head = RequestHead::default();
        let parsed = head.parse(text, 100);
        assert!(taken.is_none() || (taken == Some(text.len()) && parsed.is_ok()));
        if parsed.is_ok() {
            assert!(whole, "refused in pieces");
            assert_eq!(head.byte_len(), text.len());
            assert!(!text.contains(&0));
            head.value("host", text);
        }
    },
};

const RESPONSE: Target = Target {
    name: "http1-response",
    seeds: &[
        b"\x07HTTP/1.1 200 OK\r\nContent-Length: 3\r\nDate: x\r\n\r\nabc",
        b"\x40HTTP/1.0 101 \r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n",
    ],
    run: |bytes| {
        if let Some((text, whole)) = head(bytes, false) {
            for to_head in [false, true] {
                let parsed = ResponseHead::default().parse(text, 100, to_head);
                assert!(whole || parsed.is_err(), "refused in pieces");
            }
        }
    },
};

const CHUNKED: Target = Target {
    name: "http1-chunked",
    seeds: &[
        b"\x032;x=y\r\nab\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
        b"\xff1\r\na\r\n0\r\nT: 1\r\n\r\n",
    ],
    run: |bytes| {
        let body = bytes.get(1..).unwrap_or_default();
        let whole = data(std::iter::once(body));
        let cut = data(pieces(bytes));
        assert_eq!(cut.1, whole.1, "the pieces matter");
        assert_eq!(cut.0, whole.0, "the pieces matter");
    },
};

/// The data of a chunked body, and whether it came to its end; as far as it is one.
fn data<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
    let (mut chunks, mut input, mut data) = (Chunks::default(), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match chunks.step(&input) {
                Ok(Step::Data(len)) => data.extend(input.drain(..len)),
                Ok(Step::Framing(len)) => drop(input.drain(..len)),
                Ok(Step::Last(_)) => return (data, true),
                Ok(Step::More) => break,
                Err(_) => return (data, false),
            }
        }
    }
    (data, false)
}

const TRAILERS: Target = Target {
    name: "http1-trailers",
    seeds: &[b"A: b\r\nC:d\r\n\r\n"],
    run: |bytes| {
        parse_trailers(bytes, 100, &mut Vec::new()).ok();
    },
};

const PROXY_HEADER: Target = Target {
    name: "proxy-header",
    seeds: &[
        b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x09\0\x0a",
    ],
    run: |bytes| {
        // As a connection gives them: never more than was said to be needed.
        let mut have = 0;
        while let Ok(proxied::Step::More(more)) = proxied::parse(&bytes[..have]) {
            assert!(more > 0, "nothing is asked for");
            have += more;
            if have > bytes.len() {
                break;
            }
        }
    },
};

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn no_bytes_upset_a_parser(
            noise in proptest::collection::vec(any::<u8>(), 0..100),
            at: usize,
        ) {
            for target in super::targets() {
                target.run_near(&noise, at);
            }
        }
    }
}
