use proptest::prelude::*;

use super::super::flood::Flood;
use super::*;

const END_STREAM: u8 = 1;

/// A frame of a stream.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Whether stream 1, which was opened before, is malformed after `frames`, in pieces of so many bytes.
fn found(frames: &[u8], piece: usize) -> bool {
    let now = tokio::time::Instant::now();
    let mut flood = Flood::new(0, 100, std::time::Duration::from_secs(1), now);
    let malformed = flood.malformed();
    // Pseudo-fields of a head are right.
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &[0x82, 0x84, 0x86, 0x41, 1, b'h']);
    bytes.extend(frame(0, 0, 1, b"\x82\x82"));
    bytes.extend(frames);
    // And those of another stream.
    bytes.extend(frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        3,
        &[0x82, 0x84, 0x86],
    ));
    for part in bytes.chunks(piece) {
        assert!(flood.take(part, || now));
    }
    assert!(!malformed.take(3));
    let found = malformed.take(1);
    assert!(!malformed.take(1), "it is forgotten");
    found
}

/// Trailers of these fields, in frames of every kind.
#[track_caller]
fn check(fields: &[u8], expected: bool) {
    let last = END_HEADERS | END_STREAM;
    let padded = [&[3][..], fields, &[0x82; 3]].concat();
    let weighed = [&[0x82; 5][..], fields].concat();
    let both = [&[3][..], &[0x82; 5], fields, &[0x82; 3]].concat();
    let mut shapes = vec![
        frame(HEADERS, last, 1, fields),
        frame(HEADERS, last | PADDED, 1, &padded),
        frame(HEADERS, last | PRIORITY, 1, &weighed),
        frame(HEADERS, last | PADDED | PRIORITY, 1, &both),
    ];
    for at in 0..=fields.len() {
        let (first, rest) = fields.split_at(at);
        let mut bytes = frame(HEADERS, END_STREAM, 1, first);
        bytes.extend(frame(CONTINUATION, END_HEADERS, 1, rest));
        shapes.push(bytes);
    }
    for bytes in shapes {
        for piece in [usize::MAX, 1, 7] {
            assert_eq!(found(&bytes, piece), expected, "{}", bytes.escape_ascii());
        }
    }
}

#[test]
fn pseudo_fields_of_every_form() {
    // `:method: GET`, as it is in the static table; the last of them.
    check(&[0x82], true);
    check(&[0x8e], true);
    // By their names in it: indexed, not indexed, never indexed.
    check(b"\x44\x02/x", true);
    check(b"\x04\x02/x", true);
    check(b"\x14\x02/x", true);
    // Their names written out, and by Huffman's code (`:a`).
    check(b"\x40\x05:path\x02/x", true);
    check(b"\x00\x02:a\x01b", true);
    check(b"\x10\x82\xb8\xc7\x01b", true);
    // Behind others, and behind a new size of the table.
    check(b"\x00\x01a\x01b\x40\x01a\x00\x82", true);
    check(b"\x3f\xe1\x1f\x82", true);
}

#[test]
fn fields_that_are_none() {
    check(b"", false);
    check(b"\x00\x01a\x01b", false);
    check(b"\x40\x01a\x02:b", false);
    check(b"\x00\x00\x01b", false);
    // `accept-charset`, the first behind them; a name of the table; one of the dynamic table.
    check(&[0x8f], false);
    check(b"\x5f\x01a", false);
    check(&[0xbe], false);
    // A value that is longer than a byte can say.
    let long = [b"\x00\x01a\x7f\x81\x01".as_slice(), &[0x82; 256]].concat();
    assert!(!found(&frame(HEADERS, END_HEADERS, 1, &long), 7));
    // By Huffman's code: `a`.
    check(b"\x00\x81\x1f\x01b", false);
}

#[test]
fn only_so_many_streams_are_remembered() {
    let malformed = Malformed::default();
    for stream in 0..2000 {
        malformed.add(stream);
    }
    assert!(!malformed.take(0));
    assert!(malformed.take(1999));
    assert!(malformed.take(2000 - Malformed::MOST as u32));
}

proptest! {
    #[test]
    fn whatever_comes_is_borne(bytes in proptest::collection::vec(any::<u8>(), 0..60), flags: u8, piece in 1..20_usize) {
        found(&frame(HEADERS, flags | END_HEADERS, 1, &bytes), piece);
    }
}
