use proptest::prelude::*;

use crate::probe::response::{Body, Framing, Head, parse_head};
use crate::probe::url::Url;

#[test]
fn urls_are_joined_as_browsers_do() {
    let base = Url::new(false, "10.87.0.2", 8080, "/a/b?q");
    for (location, expected) in [
        ("/x", Some("http://10.87.0.2:8080/x")),
        ("x", Some("http://10.87.0.2:8080/a/x")),
        ("../x/./y", Some("http://10.87.0.2:8080/x/y")),
        ("../../../..", Some("http://10.87.0.2:8080/")),
        ("?z", Some("http://10.87.0.2:8080/a/b?z")),
        ("", Some("http://10.87.0.2:8080/a/b?q")),
        ("#top", Some("http://10.87.0.2:8080/a/b?q")),
        ("https://h/p#f", Some("https://h/p")),
        ("HTTP://h:81?x", Some("http://h:81/?x")),
        ("//h/p", Some("http://h/p")),
        ("http://u:p@h/", Some("http://h/")),
        ("http://[fd00::1]:81/", Some("http://[fd00::1]:81/")),
        ("http:///p", None),
        ("http://h:port/", None),
        ("ftp://h/", None),
        ("mailto:x", None),
        (
            "/a b\r\nX: y",
            Some("http://10.87.0.2:8080/a%20b%0D%0AX:%20y"),
        ),
    ] {
        let joined = base.join(location).map(|url| url.to_string());
        assert_eq!(joined.as_deref(), expected, "{location:?}");
    }
}

fn dechunk(pieces: &[&[u8]]) -> Result<(bool, Vec<u8>), String> {
    let head = Head {
        status: 200,
        location: None,
        framing: Framing::Chunked,
    };
    let mut body = Body::new(&head);
    let mut done = false;
    for piece in pieces {
        done = body.feed(piece)?;
    }
    Ok((done, body.kept))
}

#[test]
fn chunks_that_are_none_are_refused() {
    for (text, expected) in [
        ("5\r\nhello\r\n0\r\n\r\n", Ok((true, "hello"))),
        (
            "5;x=y\r\nhello\r\n0\r\nTrailer: z\r\n\r\n",
            Ok((true, "hello")),
        ),
        ("5\nhello\n0\n\n", Ok((true, "hello"))),
        ("5\r\nhel", Ok((false, "hel"))),
        ("0\r\n", Ok((false, ""))),
        ("\r\n", Err("invalid byte in chunk length")),
        ("g\r\n", Err("invalid byte in chunk length")),
        ("1\r\nab\r\n", Err("malformed chunked encoding")),
        ("fffffffffffffffff\r\n", Err("http chunk length too large")),
    ] {
        let expected = expected
            .map(|(done, kept)| (done, kept.as_bytes().to_vec()))
            .map_err(str::to_string);
        assert_eq!(dechunk(&[text.as_bytes()]), expected, "{text:?}");
    }
}

proptest! {
    /// However a body and its chunks are cut, the same comes out.
    #[test]
    fn chunked_bodies_survive_any_cut(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in prop::collection::vec(0usize..400, 0..12),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            wire.extend(format!("{:x}\r\n", chunk.len()).bytes());
            wire.extend(chunk);
            wire.extend(b"\r\n");
        }
        wire.extend(b"0\r\n\r\n");
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (wire.len() + 1)).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &wire[pair[0]..pair[1]]).collect();
        prop_assert_eq!(dechunk(&pieces), Ok((true, chunks.concat())));
    }

    /// Nothing that a container sends makes the parsers panic, and a head is never longer than what came.
    #[test]
    fn foreign_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), location in ".{0,40}") {
        if let Ok(Some((_, length))) = parse_head(&bytes) {
            prop_assert!(length <= bytes.len());
        }
        let with_start = [b"HTTP/1.1 200 OK\r\n".as_slice(), &bytes].concat();
        let _either_way = parse_head(&with_start);
        let _either_way = dechunk(&[&bytes]);
        if let Some(url) = Url::new(false, "h", 80, "/a/b").join(&location) {
            let path_is_safe = url.path.bytes().all(|b| (0x21..=0x7e).contains(&b));
            prop_assert!(path_is_safe, "{}", url.path);
        }
    }
}
