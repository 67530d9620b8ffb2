use proptest::prelude::*;

use super::*;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn decode(decoder: &mut Decoder, block: &[u8]) -> Option<Fields> {
    let mut fields = Fields::new();
    let each = |name: &[u8], value: &[u8]| {
        fields.push((name.to_vec(), value.to_vec()));
        true
    };
    decoder.decode(block, each).map(|()| fields)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits
        .chunks(2)
        .map(|two| std::str::from_utf8(two).unwrap());
    pairs
        .map(|two| u8::from_str_radix(two, 16).unwrap())
        .collect()
}

fn text(fields: &[(&str, &str)]) -> Fields {
    let owned =
        |(name, value): &(&str, &str)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    fields.iter().map(owned).collect()
}

/// RFC 7541 appendix C.3 and C.4: the same requests, plain and in Huffman's code.
#[test]
fn the_examples_of_the_standard() {
    for blocks in [
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
    ] {
        let mut decoder = Decoder::new();
        let get = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
        let host = (":authority", "www.example.com");
        let [method, scheme, path] = get;
        let second = [method, scheme, path, host, ("cache-control", "no-cache")];
        let third = [
            method,
            (":scheme", "https"),
            (":path", "/index.html"),
            host,
            ("custom-key", "custom-value"),
        ];
        let wanted = [text(&second[..4]), text(&second), text(&third)];
        for (block, wanted) in blocks.iter().zip(wanted) {
            assert_eq!(decode(&mut decoder, &hex(block)), Some(wanted));
        }
    }
}

/// Rows of RFC 7541 appendix B, the first and the last of a length among them.
#[test]
fn the_codes_of_the_standard() {
    for (byte, code, bits) in [
        (b'0', 0x0, 5),
        (b't', 0x9, 5),
        (b' ', 0x14, 6),
        (b'u', 0x2d, 6),
        (b':', 0x5c, 7),
        (b'z', 0x7b, 7),
        (b'&', 0xf8, 8),
        (b'Z', 0xfd, 8),
        (b'!', 0x3f8, 10),
        (b'|', 0x7fc, 11),
        (b'#', 0xffa, 12),
        (0, 0x1ff8, 13),
        (b'^', 0x3ffc, 14),
        (b'{', 0x7ffe, 15),
        (b'\\', 0x7fff0, 19),
        (0x80, 0xfffe6, 20),
        (0x99, 0x1fffdc, 21),
        (0x81, 0x3fffd2, 22),
        (1, 0x7fffd8, 23),
        (9, 0xffffea, 24),
        (0xff, 0x3ffffee, 26),
        (0xfe, 0x7fffff0, 27),
        (2, 0xfffffe2, 28),
        (0xf9, 0xffffffe, 28),
        (b'\n', 0x3ffffffc, 30),
        (22, 0x3ffffffe, 30),
    ] {
        assert_eq!(huffman::code(byte), (code, bits), "{byte}");
    }
}

/// A few bytes that stand for much are read for as long as they are wanted.
#[test]
fn a_block_that_grows_is_left() {
    let mut decoder = Decoder::new();
    let long = [&[0x40, 0x7f, 0x81, 0x01][..], &[b'a'; 256], &[0]].concat();
    assert!(decode(&mut decoder, &long).is_some());
    let mut seen = 0;
    let block = vec![0xbe; 10_000];
    let read = decoder.decode(&block, |name, _| {
        seen += name.len();
        seen < 10_000
    });
    assert_eq!((read, seen), (None, 40 * 256));
}

#[test]
fn a_long_field_drives_nothing_out() {
    let mut encoder = Encoder::new();
    let long = vec![b'x'; 1100];
    let lens = [(); 4].map(|()| {
        let mut out = Vec::new();
        encoder.field(&mut out, b"server", b"a server");
        let short = out.len();
        encoder.field(&mut out, b"content-security-policy", &long);
        (short, out.len() > 1100)
    });
    assert_eq!(lens.map(|(short, _)| short)[2..], [1, 1]);
    assert!(lens.iter().all(|(_, all)| *all));
}

#[test]
fn what_is_not_right() {
    for block in [
        // Index 0, one that is not there, one without an end.
        "80",
        "be",
        "ff80808080",
        // A string that is cut.
        "400361",
        "4003616263",
        // A table larger than we have, and a size behind a field.
        "3fe21f",
        "8220",
        // Huffman: the end's code, padding of eight bits, padding that is no ones.
        "4084ffffffff0161",
        "4082 07ff 0161",
        "408100 0161",
    ] {
        assert_eq!(decode(&mut Decoder::new(), &hex(block)), None, "{block}");
    }
}

#[test]
fn what_repeats_is_one_byte() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let lens = [(); 4].map(|()| {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        encoder.status(&mut out, b"200");
        encoder.field(&mut out, b"server", b"a server");
        encoder.field(&mut out, b"content-length", b"5");
        assert_eq!(
            decode(&mut decoder, &out).map(|fields| fields.len()),
            Some(3)
        );
        out.len()
    });
    assert_eq!(lens, [16, 15, 6, 6]);
}

proptest! {
    #[test]
    fn huffman_is_read_as_it_is_written(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut out = Vec::new();
        prop_assert_eq!(huffman::decode(&huffman::encode(&text), &mut out), Some(()));
        prop_assert_eq!(out, text);
    }

    /// Few names and values, so that many repeat, and a table that changes its size between blocks.
    #[test]
    fn blocks_are_read_as_they_are_written(
        blocks in proptest::collection::vec(
            (proptest::option::of(0_usize..5000), proptest::collection::vec(
                ("[a-c]{1,2}|date|set-cookie|content-length", "[a-b]{0,2}|[x]{900}"), 0..12)),
            1..12,
        ),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for (size, fields) in blocks {
            if let Some(size) = size {
                encoder.resize(size);
            }
            let mut out = Vec::new();
            encoder.begin(&mut out);
            encoder.status(&mut out, b"418");
            for (name, value) in &fields {
                encoder.field(&mut out, name.as_bytes(), value.as_bytes());
            }
            let mut wanted = text(&[(":status", "418")]);
            wanted.extend(fields.iter().map(|(n, v)| (n.clone().into_bytes(), v.clone().into_bytes())));
            prop_assert_eq!(decode(&mut decoder, &out), Some(wanted));
        }
    }

    /// Any bytes are read without a panic.
    #[test]
    fn any_bytes(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..5)) {
        let mut decoder = Decoder::new();
        for block in blocks {
            decode(&mut decoder, &block);
        }
    }
}
