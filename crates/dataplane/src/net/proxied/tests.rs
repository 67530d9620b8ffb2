use proptest::prelude::*;

use super::*;

/// Reads `bytes` as a connection would give them: never more than was said to be needed. What is left, and the path.
fn read(bytes: &[u8]) -> Result<(Option<Path>, usize), Wrong> {
    let mut have = 0;
    loop {
        match parse(&bytes[..have])? {
            Step::Done(path) => return Ok((path, bytes.len() - have)),
            Step::More(more) => {
                assert!(more > 0, "nothing is asked for");
                have += more;
                if have > bytes.len() {
                    return Err(Wrong("not whole"));
                }
            }
        }
    }
}

fn some(from: &str, to: &str) -> Option<Path> {
    Some(Path {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
    })
}

#[test]
fn lines_of_version_one() {
    let check = |line: &str, path| {
        let with_more = format!("{line}\r\nGET / HTTP/1.1\r\n");
        assert_eq!(read(with_more.as_bytes()), Ok((path, 16)), "{line}");
    };
    check(
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 10",
        some("1.2.3.4:9", "5.6.7.8:10"),
    );
    check(
        "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
        some("255.255.255.255:65535", "255.255.255.255:65535"),
    );
    check(
        "PROXY TCP6 ::1 2001:db8::2 1 443",
        some("[::1]:1", "[2001:db8::2]:443"),
    );
    check("PROXY UNKNOWN", None);
    check("PROXY UNKNOWN ::1 whatever 1 2 3", None);
}

#[test]
fn lines_that_are_not_as_they_must_be() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107));
    for line in [
        "GET / HTTP/1.1\r\n\r\n",
        "proxy TCP4 1.2.3.4 5.6.7.8 9 10\r\n",
        "PROXY  TCP4 1.2.3.4 5.6.7.8 9 10\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 10 11\r\n",
        "PROXY TCP4 ::1 ::2 9 10\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 9 10\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 09 10\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +9 10\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 65536\r\n",
        "PROXY TCP4 01.2.3.4 5.6.7.8 9 10\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 9 10\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 10\n",
        "PROXY\r\n",
        "\x16\x03\x01",
        "",
        &long,
    ] {
        assert!(read(line.as_bytes()).is_err(), "{line:?}");
    }
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.extend([command, family]);
    out.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    out.extend(rest);
    out
}

#[test]
fn headers_of_version_two() {
    let four = [1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10];
    let path = some("1.2.3.4:9", "5.6.7.8:10");
    let check = |bytes: Vec<u8>, path| {
        let mut with_more = bytes;
        with_more.extend(b"\x16\x03\x01");
        assert_eq!(read(&with_more), Ok((path, 3)));
    };
    check(binary(0x21, 0x11, &four), path);
    check(
        binary(
            0x21,
            0x11,
            &[&four[..], &[4, 0, 2, 7, 7, 0xee, 0, 0]].concat(),
        ),
        path,
    );
    check(binary(0x20, 0x11, &four), None);
    check(binary(0x20, 0x00, b""), None);
    check(binary(0x21, 0x00, b"whatever"), None);
    check(binary(0x21, 0x31, &[0; 216]), None);
    for wrong in [
        binary(0x11, 0x11, &four),
        binary(0x22, 0x11, &four),
        binary(0x21, 0x12, &four),
        binary(0x21, 0x11, &four[..11]),
        binary(0x21, 0x21, &four),
        binary(0x21, 0x31, &[0; 215]),
        binary(0x21, 0x11, &[&four[..], &[4, 0, 3, 7, 7]].concat()),
        binary(0x21, 0x11, &[&four[..], &[4, 0]].concat()),
        binary(0x21, 0x11, &[0; 4097]),
    ] {
        assert!(read(&wrong).is_err(), "{wrong:?}");
    }
}

fn addr() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

proptest! {
    #[test]
    fn what_is_written_is_read(from in addr(), to in addr(), known: bool, more in proptest::collection::vec(any::<u8>(), 0..40)) {
        let path = known.then_some(Path { from, to });
        for version in [SendProxy::V1, SendProxy::V2] {
            let mut bytes = put_header(version, path);
            bytes.extend(&more);
            let (read, left) = read(&bytes).unwrap();
            prop_assert_eq!(left, more.len());
            prop_assert_eq!(read.is_some(), known);
            if let Some(read) = read {
                prop_assert_eq!(read.from.ip().to_canonical(), from.ip().to_canonical());
                prop_assert_eq!(read.to.ip().to_canonical(), to.ip().to_canonical());
                prop_assert_eq!((read.from.port(), read.to.port()), (from.port(), to.port()));
            }
        }
    }

    #[test]
    fn whatever_comes_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..28_usize) {
        if let Ok((_, left)) = read(&bytes) {
            prop_assert!(left < bytes.len());
        }
        let mut header = put_header(SendProxy::V2, some("1.2.3.4:9", "5.6.7.8:10"));
        header.truncate(cut);
        header.extend(&bytes);
        if let Ok((_, left)) = read(&header) {
            prop_assert!(left < header.len());
        }
    }
}
