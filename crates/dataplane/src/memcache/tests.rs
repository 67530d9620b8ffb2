use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::command::{Command, Commands, Found, Kind};
use super::join::{Same, Values};
use super::reply::{Replies, Until};
use crate::resp::Joins as _;

const MOST: usize = 1000;

/// Feeds `bytes` in pieces of these lengths, again and again; shows what was found.
fn found(bytes: &[u8], pieces: &[usize]) -> Vec<String> {
    let (mut scan, mut buf, mut shown) = (Commands::default(), Vec::new(), Vec::new());
    let mut skipped = 0;
    let (mut rest, mut pieces) = (bytes, pieces.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
        rest = after;
        buf.extend_from_slice(piece);
        loop {
            let length = match scan.next(&buf, MOST) {
                Found::Nothing => break,
                Found::Skip(length) => {
                    skipped += length;
                    length
                }
                Found::End(line) => {
                    shown.push(format!("end {}", String::from_utf8_lossy(line)));
                    return shown;
                }
                Found::Answer(length, line) => {
                    shown.push(format!("{length} {}", String::from_utf8_lossy(line)));
                    length
                }
                Found::Command(command) => {
                    let words = scan.words().iter();
                    let words: Vec<_> = words
                        .map(|word| String::from_utf8_lossy(&buf[word.clone()]))
                        .collect();
                    shown.push(format!("{command:?} {words:?}"));
                    command.length
                }
            };
            buf.drain(..length);
        }
    }
    shown.push(format!("{skipped} skipped, {} left", buf.len()));
    shown
}

fn one(bytes: &[u8]) -> Result<Command, &'static [u8]> {
    match Commands::default().next(bytes, MOST) {
        Found::Command(command) => Ok(command),
        Found::Answer(_, line) | Found::End(line) => Err(line),
        other => panic!("{other:?}"),
    }
}

#[test]
fn mistakes_are_answered_as_memcached_does() {
    let long = "x".repeat(251);
    let check = |line: &str, expected: &str| {
        let got = one(line.as_bytes()).expect_err(line);
        assert_eq!(String::from_utf8_lossy(got), expected, "{line}");
    };
    let format = "CLIENT_ERROR bad command line format\r\n";
    check("\r\n", "ERROR\r\n");
    check("nonsense\r\n", "ERROR\r\n");
    check("GET k\r\n", "ERROR\r\n");
    check("get\r\n", "ERROR\r\n");
    check(&format!("get a {long}\r\n"), format);
    check("gat 0\r\n", "END\r\n");
    check(
        "gat soon k\r\n",
        "CLIENT_ERROR invalid exptime argument\r\n",
    );
    check("set k 0 0\r\n", "ERROR\r\n");
    check("set k 0 0 1 noreply more\r\n", "ERROR\r\n");
    check("set k 0 0 -1\r\n", format);
    check("set k 0 0 2147483646\r\n", format);
    check("set k x 0 1\r\n", format);
    check("set k x 0 1 noreply\r\n", "");
    check(&format!("set {long} 0 0 1\r\n"), format);
    check("cas k 0 0 1 x\r\n", format);
    check("set k 0 0 1\r\nabc\r\n", "CLIENT_ERROR bad data chunk\r\n");
    check("set k 0 0 1 noreply\r\nabc\r\n", "");
    check("ms k 1 q\r\nabc\r\n", "CLIENT_ERROR bad data chunk\r\n");
    check(
        "set k 0 0 990\r\n",
        "SERVER_ERROR object too large for cache\r\n",
    );
    check("set k 0 0 990 noreply\r\n", "");
    check("incr k noreply\r\n", "");
    check("ms k\r\n", format);
    check("ms k S1\r\n", format);
    check("me\r\n", format);
    check("mg\r\n", "ERROR\r\n");
}

#[test]
fn what_a_command_is_is_known() {
    let check = |line: &str, kind: Kind, (hidden, quiet, base64): (bool, bool, bool)| {
        let command = one(line.as_bytes()).expect(line);
        assert_eq!(command.kind, kind, "{line}");
        let flags = (command.hidden, command.quiet, command.base64);
        assert_eq!(flags, (hidden, quiet, base64), "{line}");
        assert_eq!(command.length, line.len(), "{line}");
    };
    check(" get  a b\n", Kind::Get(1), (false, false, false));
    check("gets noreply\r\n", Kind::Get(1), (false, false, false));
    check("delete noreply\r\n", Kind::Key, (false, false, false));
    check("delete k noreply\r\n", Kind::Key, (true, false, false));
    check("delete k 0 noreply\r\n", Kind::Key, (true, false, false));
    check("flush_all noreply\r\n", Kind::All, (true, false, false));
    check(
        "set k 0 0 2\r\n\r\n\r\n",
        Kind::Store,
        (false, false, false),
    );
    check(
        "set k 0 -1 1 noreply\r\na\r\n",
        Kind::Store,
        (true, false, false),
    );
    check(
        "cas k 0 0 1 5 noreply\r\na\r\n",
        Kind::Store,
        (true, false, false),
    );
    check("mg k v q Oq\r\n", Kind::Meta, (false, true, false));
    check("mg q v Oq\r\n", Kind::Meta, (false, false, false));
    check("mg aw== b k\r\n", Kind::Meta, (false, false, true));
    check(
        "ms k 1 q T0\r\na\r\n",
        Kind::MetaStore,
        (false, true, false),
    );
    check("me k q\r\n", Kind::Meta, (false, false, false));
    let command = one(b"set k 0 0 1 noreply\r\na\r\n").unwrap();
    assert_eq!((command.said, command.head), (11, 21));
    let command = one(b"get k\0 l\r\n").unwrap();
    assert_eq!(command.said, 5);
}

#[test]
fn lines_and_values_are_bounded() {
    let get = format!("get {}", "k ".repeat(5000));
    assert!(
        one(get.as_bytes())
            .unwrap_err()
            .starts_with(b"CLIENT_ERROR line")
    );
    let mut scan = Commands::default();
    assert_eq!(scan.next(get.as_bytes(), 1 << 20), Found::Nothing);
    let odd = "x".repeat(8200);
    let end = scan_all(odd.as_bytes());
    assert!(matches!(end, Found::End(_)), "{end:?}");
    let end = scan_all(format!("{odd}\r\n").as_bytes());
    assert!(matches!(end, Found::End(_)), "{end:?}");
    let binary = scan_all(b"\x80\x01\x00\x03");
    let Found::End(line) = binary else {
        panic!("{binary:?}");
    };
    assert!(String::from_utf8_lossy(line).contains("binary protocol"));
}

fn scan_all(bytes: &[u8]) -> Found {
    Commands::default().next(bytes, 1 << 20)
}

#[test]
fn replies_end_where_they_end() {
    let check = |reply: &str, until: Until| {
        let after = format!("{reply}STORED\r\n");
        let found = Replies::default().next(after.as_bytes(), until);
        assert_eq!(found, Ok(Some(reply.len())), "{reply}");
    };
    check("END\r\n", Until::Itself);
    check("VALUE k 0 5\r\nEND\r\n\r\nEND\r\n", Until::Itself);
    check(
        "VALUE k 0 1 9\r\na\r\nVALUE l 1 0\r\n\r\nEND\r\n",
        Until::Itself,
    );
    check("STAT pid 1\r\nSTAT x y\r\nEND\r\n", Until::Itself);
    check(
        "VALUE k 0 1\r\na\r\nSERVER_ERROR out of memory\r\n",
        Until::Itself,
    );
    check("VA 4 kk\r\nMN\r\n\r\n", Until::Itself);
    check("VA 4 kk\r\nMN\r\n\r\nMN\r\n", Until::Noop);
    check("MN\r\n", Until::Noop);
    check("EN\r\nMN\r\n", Until::Noop);
    check("ERROR\r\nERROR\r\n", Until::Noop);
    check("12\r\n", Until::Itself);
    assert!(
        Replies::default()
            .next(b"VALUE k 0 x\r\n", Until::Itself)
            .is_err()
    );
    let endless = "x".repeat(20_000);
    assert!(
        Replies::default()
            .next(endless.as_bytes(), Until::Itself)
            .is_err()
    );
}

#[test]
fn values_come_in_the_order_of_the_keys() {
    let line = b"get a b c a d".to_vec();
    let keys = [(4, 0), (6, 1), (8, 0), (10, 0), (12, 1)];
    let values = Values {
        line,
        keys: keys.map(|(at, part)| (at..at + 1, part)).to_vec(),
    };
    let first = b"VALUE a 0 1\r\n1\r\nVALUE a 0 1\r\n1\r\nEND\r\n";
    let second = b"VALUE b 0 5\r\nEND\r\n\r\nVALUE d 0 0\r\n\r\nEND\r\n";
    let whole = values.join(&[first, second]);
    assert_eq!(
        String::from_utf8_lossy(&whole),
        "VALUE a 0 1\r\n1\r\nVALUE b 0 5\r\nEND\r\n\r\nVALUE a 0 1\r\n1\r\nVALUE d 0 0\r\n\r\nEND\r\n"
    );
    let error = values.join(&[first, b"SERVER_ERROR no\r\n"]);
    assert_eq!(error, b"SERVER_ERROR no\r\n");
    let same = |parts: &[&[u8]], hidden| Same { hidden }.join(parts);
    assert_eq!(same(&[b"OK\r\n", b"OK\r\n"], false), b"OK\r\n");
    assert_eq!(same(&[b"OK\r\n", b"ERROR\r\n"], false), b"ERROR\r\n");
    assert_eq!(same(&[b"OK\r\n", b"ERROR\r\n"], true), b"");
}

/// A command, right or wrong, whole or not.
fn command() -> impl Strategy<Value = Vec<u8>> {
    let lines = select(vec![
        "get a",
        "gets a b  c",
        "set a 0 0 3",
        "set a 0 0 3 noreply",
        "cas a 0 0 3 9",
        "set a 0 0 1100",
        "delete a noreply",
        "mg a v q",
        "ms a 3 q",
        "ms a 1100 q",
        "mn",
        "incr a 1",
        "nonsense",
        "",
        "get",
        "flush_all",
        "set a 0 0 -3",
        "gat 0 a b",
    ]);
    let values = select(vec!["", "", "abc\r\n", "abc", "\r\n\r\n\r\n"]);
    let ends = select(vec!["\r\n", "\r\n", "\n"]);
    (lines, ends, values, any::<bool>()).prop_map(|(line, end, value, long)| {
        let long = if long && line.contains("1100") {
            "x".repeat(1102)
        } else {
            String::new()
        };
        format!("{line}{end}{value}{long}").into_bytes()
    })
}

proptest! {
    #[test]
    fn commands_are_the_same_in_any_pieces(
        commands in vec(command(), 1..20),
        pieces in vec(1..40_usize, 1..10),
    ) {
        let bytes = commands.concat();
        prop_assert_eq!(found(&bytes, &pieces), found(&bytes, &[bytes.len()]));
    }

    #[test]
    fn any_bytes_are_the_same_in_any_pieces(
        bytes in vec(select(b"get ms0123 \r\n\0k".to_vec()), 1..300),
        pieces in vec(1..40_usize, 1..10),
    ) {
        prop_assert_eq!(found(&bytes, &pieces), found(&bytes, &[bytes.len()]));
    }

    #[test]
    fn replies_are_the_same_in_any_pieces(
        replies in vec((select(vec![
            "END\r\n", "STORED\r\n", "VALUE k 0 5\r\nEND\r\n\r\nEND\r\n", "STAT a b\r\nEND\r\n", "VA 2\r\nab\r\n", "HD\r\n",
        ]), any::<bool>()), 1..20),
        piece in 1..30_usize,
    ) {
        let bytes: Vec<u8> = replies.iter().flat_map(|(reply, quiet)| {
            let end = if *quiet { "MN\r\n" } else { "" };
            format!("{reply}{end}").into_bytes()
        }).collect();
        let (mut scan, mut buf, mut at) = (Replies::default(), Vec::new(), 0);
        for part in bytes.chunks(piece) {
            buf.extend_from_slice(part);
            while let Some((reply, quiet)) = replies.get(at) {
                let until = if *quiet { Until::Noop } else { Until::Itself };
                let Some(length) = scan.next(&buf, until).unwrap() else { break };
                prop_assert_eq!(length, reply.len() + if *quiet { 4 } else { 0 });
                buf.drain(..length);
                at += 1;
            }
        }
        prop_assert_eq!((at, buf.len()), (replies.len(), 0));
    }
}
