//! The heads that nearly all are, read in one pass over their bytes.
//!
//! httparse finds where a head ends and what its parts are; where each part is, which field it is and how its line ends had to be
//! looked at once more. Here that is one pass, at a third of the cost, for heads of which nothing is unusual: lines that end with
//! CRLF, names that are tokens, values without control characters. Whatever else comes is not taken and not refused here: the
//! scanner and httparse say what it is. So what is taken is what they would have found, which a test holds.

use super::fields::{Field, Known, Seen, Span};
use super::scan::is_token;

/// What [`is_token`] says of each byte.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_token(byte as u8);
        byte += 1;
    }
    table
};

/// 1 in each byte of a word.
const ONES: u64 = u64::MAX / 255;

/// A request's first line.
pub(super) struct RequestLine {
    pub(super) method: Span,
    pub(super) target: Span,
    pub(super) minor: u8,
    /// Its bytes, the line end included.
    pub(super) len: usize,
}

/// The first line of a request. The target is looked at by whoever knows which forms there are.
pub(super) fn request_line(bytes: &[u8]) -> Option<RequestLine> {
    let method = token(bytes, 0)?;
    let start = method + 1;
    let target = bytes[start..].iter().position(|byte| *byte <= b' ')?;
    let end = start + target;
    let minor = match bytes[end..].first_chunk()? {
        b" HTTP/1.1\r\n" => 1,
        b" HTTP/1.0\r\n" => 0,
        _ => return None,
    };
    (method > 0 && bytes[method] == b' ' && target > 0).then(|| RequestLine {
        method: Span::new(0, method),
        target: Span::new(start, target),
        minor,
        len: end + 11,
    })
}

/// A response's first line.
pub(super) struct StatusLine {
    pub(super) status: u16,
    /// Code and reason.
    pub(super) text: Span,
    pub(super) minor: u8,
    /// Its bytes, the line end included.
    pub(super) len: usize,
}

/// The first line of a response.
pub(super) fn status_line(bytes: &[u8]) -> Option<StatusLine> {
    let minor = match bytes.first_chunk()? {
        b"HTTP/1.1 " => 1,
        b"HTTP/1.0 " => 0,
        _ => return None,
    };
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' '] = bytes[9..].first_chunk()?
    else {
        return None;
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let end = line(bytes, 13)?;
    Some(StatusLine {
        status: digit(a) * 100 + digit(b) * 10 + digit(c),
        text: Span::new(9, end - 9),
        minor,
        len: end + 2,
    })
}

/// Reads the field lines that begin at `at`; returns where the empty line behind them ends. None when they are not plain, more than
/// `most`, or not all there.
pub(super) fn fields(
    bytes: &[u8],
    mut at: usize,
    most: usize,
    into: &mut Vec<Field>,
) -> Option<(usize, Seen)> {
    let mut seen = Seen::default();
    into.clear();
    loop {
        if bytes.get(at) == Some(&b'\r') {
            return (bytes.get(at + 1) == Some(&b'\n')).then_some((at + 2, seen));
        }
        let colon = token(bytes, at)?;
        if colon == at || bytes[colon] != b':' || into.len() == most {
            return None;
        }
        let end = line(bytes, colon + 1)?;
        let known = Known::of(&bytes[at..colon]);
        seen.add(known);
        into.push(Field {
            name: Span::new(at, colon - at),
            value: trimmed(bytes, colon + 1, end),
            known,
            dropped: false,
        });
        at = end + 2;
    }
}

/// Where the token that begins at `at` ends.
fn token(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += match bytes.get(at..)?.first_chunk() {
            Some(word) => match others(u64::from_le_bytes(*word)) {
                0 => {
                    at += 8;
                    continue;
                }
                found => found.trailing_zeros() as usize / 8,
            },
            None => bytes[at..]
                .iter()
                .position(|byte| !TOKEN[usize::from(*byte)])?,
        };
        // Digits and the rarer ones.
        if !TOKEN[usize::from(bytes[at])] {
            return Some(at);
        }
        at += 1;
    }
}

/// The part from `start` to `end` without the white space around it; what is empty is nowhere.
fn trimmed(bytes: &[u8], mut start: usize, mut end: usize) -> Span {
    let is_white = |at: usize| matches!(bytes[at], b' ' | b'\t');
    while start < end && is_white(start) {
        start += 1;
    }
    while start < end && is_white(end - 1) {
        end -= 1;
    }
    match start == end {
        true => Span::default(),
        false => Span::new(start, end - start),
    }
}

/// Where the CRLF is that ends the text from `at` on, eight bytes at a time. None when it does not come, or another control
/// character does before.
fn line(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += match bytes.get(at..)?.first_chunk() {
            Some(word) => match controls(u64::from_le_bytes(*word)) {
                0 => {
                    at += 8;
                    continue;
                }
                found => found.trailing_zeros() as usize / 8,
            },
            None => bytes[at..]
                .iter()
                .position(|byte| *byte < b' ' || *byte == 0x7f)?,
        };
        match (bytes[at], bytes.get(at + 1)) {
            (b'\r', Some(b'\n')) => return Some(at),
            (b'\t', _) => at += 1,
            _ => return None,
        }
    }
}

/// The lowest bit that is set belongs to the first byte below 0x20 or equal to 0x7f; 0 when there is none (Anderson, "Bit Twiddling
/// Hacks": a byte that is less than n).
fn controls(word: u64) -> u64 {
    let below = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7f);
    let is_delete = delete.wrapping_sub(ONES) & !delete;
    (below | is_delete) & (ONES * 0x80)
}

/// The lowest bit that is set belongs to the first byte that is neither a letter nor a dash; 0 when there is none.
fn others(word: u64) -> u64 {
    // Seven bits each, so that no sum reaches the next byte.
    let low = word & (ONES * 0x7f);
    let lower = low | (ONES * 0x20);
    let letters = (lower + ONES * 0x1f) & !(lower + ONES * 0x05);
    let dashes = !((low ^ (ONES * 0x2d)) + ONES * 0x7f);
    !((letters | dashes) & !word) & (ONES * 0x80)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{RequestHead, ResponseHead, Scanner};
    use super::*;

    const MOST: usize = 6;

    fn check_request(text: &[u8]) -> bool {
        let mut taken = RequestHead::default();
        let Some(len) = taken.take(text, MOST) else {
            return false;
        };
        assert_eq!(Scanner::default().find(text, true), Ok(Some(len)));
        let mut parsed = RequestHead::default();
        parsed.parse(&text[..len], MOST).unwrap();
        assert_eq!(format!("{taken:?}"), format!("{parsed:?}"));
        true
    }

    fn check_response(text: &[u8]) -> bool {
        let mut taken = ResponseHead::default();
        let Some(len) = taken.take(text, MOST, false) else {
            return false;
        };
        assert_eq!(Scanner::default().find(text, false), Ok(Some(len)));
        let mut parsed = ResponseHead::default();
        parsed.parse(&text[..len], MOST, false).unwrap();
        assert_eq!(format!("{taken:?}"), format!("{parsed:?}"));
        true
    }

    #[test]
    fn what_is_usual_is_taken() {
        let check = |text: &str| assert!(check_request(text.as_bytes()), "{text:?}");
        check("GET / HTTP/1.1\r\nHost: a:1\r\nuser-agent: h2load nghttp2/1.52.0\r\n\r\nbody");
        check("POST /a?b=c HTTP/1.0\r\nContent-Length:3\r\nX:\r\nY: \t a\tb \t\r\n\r\nabc");
        check(
            "OPTIONS * HTTP/1.1\r\nHost: \u{e9}\r\n\r\n"
                .replace('\u{e9}', "e")
                .as_str(),
        );
        let check = |text: &str| assert!(check_response(text.as_bytes()), "{text:?}");
        check("HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Length: 2\r\n\r\nok");
        check("HTTP/1.0 404 Not here\r\n\r\n");
        check("HTTP/1.1 204 \r\nX-Name: caf\u{e9}\r\n\r\n");
    }

    #[test]
    fn what_is_unusual_is_left_to_others() {
        let check = |text: &str| assert!(!check_request(text.as_bytes()), "{text:?}");
        check("GET / HTTP/1.1\r\nHost: a\n\r\n");
        check("GET / HTTP/1.1\nHost: a\r\n\r\n");
        check("GET / HTTP/1.1\r\nHost: a\r\n\n");
        check("GET / HTTP/1.1\r\nHost : a\r\n\r\n");
        check("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n");
        check("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n");
        check("GET / HTTP/1.1\r\nHost: a\r\nX: a\u{7f}b\r\n\r\n");
        check("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n");
        check("GET  / HTTP/1.1\r\nHost: a\r\n\r\n");
        check(" / HTTP/1.1\r\nHost: a\r\n\r\n");
        check("GET / HTTP/2.0\r\nHost: a\r\n\r\n");
        check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        check("GET / HTTP/1.1\r\nHost: a\r\n\r");
        check("GET / HTTP/1.1\r\nHost: a\r\n1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n\r\n");
        let check = |text: &str| assert!(!check_response(text.as_bytes()), "{text:?}");
        check("HTTP/1.1 200 OK\nA: b\n\nGET / HTTP/1.1\r\n\r\n");
        check("HTTP/1.1 200\r\n\r\n");
        check("HTTP/1.1 099 OK\r\n\r\n");
        check("HTTP/1.1  200 OK\r\n\r\n");
    }

    /// Pieces of heads, and what is put between them to confuse.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => prop::sample::select(vec![
                "GET ", "/a?b", " HTTP/1.1\r\n", "HTTP/1.1 ", "200 ", "OK", "Host: a", "Content-Length: 5", "Connection: close",
                "X_Forwarded-For: 1", "x-forwarded-for:2", "Transfer-Encoding: chunked", ": ", "\r\n", "\r\n", "\r\n\r\n",
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::sample::select(vec!["\n", "\r", " ", "\t", "\0", "\u{7f}", "\u{e9}", ":", "_", "#"])
                .prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 1..3),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_httparse_finds(
            before in prop::sample::select(vec!["", "GET / HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n"]),
            rest in pieces(),
            end in prop::sample::select(vec!["", "\r\n\r\n"]),
        ) {
            let text = [before.as_bytes(), &rest, end.as_bytes()].concat();
            check_request(&text);
            check_response(&text);
        }

        #[test]
        fn controls_are_found(bytes in any::<[u8; 8]>()) {
            let expected = bytes.iter().position(|byte| *byte < b' ' || *byte == 0x7f);
            let found = controls(u64::from_le_bytes(bytes));
            prop_assert_eq!((found != 0).then(|| found.trailing_zeros() as usize / 8), expected);
        }

        #[test]
        fn what_is_no_letter_is_found(bytes in any::<[u8; 8]>(), text in "[A-Za-z-]{8}", at in 0..9_usize) {
            let mut bytes = bytes;
            bytes[..at.min(8)].copy_from_slice(&text.as_bytes()[..at.min(8)]);
            let expected = bytes.iter().position(|byte| !byte.is_ascii_alphabetic() && *byte != b'-');
            let found = others(u64::from_le_bytes(bytes));
            prop_assert_eq!((found != 0).then(|| found.trailing_zeros() as usize / 8), expected);
        }
    }
}
