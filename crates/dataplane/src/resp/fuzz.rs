//! Targets of the fuzzer: what clients and servers send, and what is made of several replies.

use podkit_foundation::fuzz::{Target, pieces};

use super::commands::Words;
use super::join::{Join, Merge};
use super::names::find;
use super::scan::{Bounds, Commands, Found, Replies, Shape, elements, integer, text};
use super::value::Value;
use crate::net::Buf;

/// All of the protocol.
pub(crate) const TARGETS: [Target; 3] = [COMMANDS, REPLIES, JOIN];

const BOUNDS: Bounds = Bounds {
    command_bytes: 4096,
};

/// Words of commands, or what is wrong after them.
type Said = (Vec<Vec<Vec<u8>>>, Option<&'static str>);

fn commands<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Said {
    let (mut scan, mut input, mut found) = (Commands::default(), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let (length, words) = match scan.next(&input, BOUNDS) {
                Ok(Found::Nothing) => break,
                Ok(Found::Command(length)) => {
                    let words = Words::new(&input, scan.args());
                    let known = words.get(0).and_then(find);
                    if let Some(command) = known.filter(|command| command.takes(words.len())) {
                        let _told: bool = command.keys.each(&words, |word| {
                            assert!(word < words.len(), "{}: no word is there", command.name);
                        });
                    }
                    (length, words.iter().map(<[u8]>::to_vec).collect())
                }
                Ok(Found::Inline(length, words)) => {
                    scan.reset();
                    (length, words)
                }
                Err(why) => return (found, Some(why)),
            };
            assert!(length > 0, "a command of no bytes");
            found.push(words);
            input.drain(..length);
        }
    }
    (found, None)
}

const COMMANDS: Target = Target {
    name: "resp-commands",
    seeds: &[
        b"\x05*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\n\r\n\r\n*1\r\n$4\r\nPING\r\n",
        b"\x01*5\r\n$4\r\nEVAL\r\n$1\r\nx\r\n$1\r\n2\r\n$1\r\na\r\n$1\r\nb\r\n*0\r\n",
        b"\xff*6\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$1\r\n1\r\n$7\r\nSTREAMS\r\n$1\r\ns\r\n$1\r\n0\r\n",
        b"\x07*5\r\n$11\r\nZUNIONSTORE\r\n$1\r\nd\r\n$1\r\n2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"\x03set \"a\\x00\\n\" 'b c'\r\nget a\n\r\n",
    ],
    run: |bytes| {
        let whole = commands(std::iter::once(bytes.get(1..).unwrap_or_default()));
        assert_eq!(commands(pieces(bytes)), whole, "the pieces matter");
    },
};

/// Replies, or what is wrong after them.
type Heard = (Vec<(Vec<u8>, Shape)>, Option<&'static str>);

fn replies<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Heard {
    let (mut scan, mut input, mut found) = (Replies::default(), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match scan.next(&input) {
                Ok(None) => break,
                Ok(Some((length, shape))) => found.push((input.drain(..length).collect(), shape)),
                Err(why) => return (found, Some(why)),
            }
        }
    }
    (found, None)
}

const REPLIES: Target = Target {
    name: "resp-replies",
    seeds: &[
        b"\x04+OK\r\n$-1\r\n*2\r\n:1\r\n*1\r\n$2\r\n\r\n\r\n-ERR x\r\n",
        b"\x01%1\r\n+a\r\n~1\r\n#t\r\n|1\r\n+a\r\n:2\r\n_\r\n>1\r\n,1.5\r\n!3\r\nERR\r\n=5\r\ntxt:x\r\n(12\r\n",
    ],
    run: |bytes| {
        let whole = replies(std::iter::once(bytes.get(1..).unwrap_or_default()));
        assert_eq!(replies(pieces(bytes)), whole, "the pieces matter");
        for (reply, _) in &whole.0 {
            assert!(integer(reply).is_none() || text(reply).is_none());
            if let Some(value) = Value::read(reply) {
                let simple = reply.starts_with(b":") || reply.starts_with(b"#");
                assert_eq!(value.integer().is_some(), simple);
            }
            let parts = elements(reply).unwrap_or_default();
            assert!(parts.windows(2).all(|two| two[0].end == two[1].start));
        }
    },
};

const JOIN: Target = Target {
    name: "resp-join",
    seeds: &[
        b"\0+OK\r\n+OK\r\n",
        b"\x01:1\r\n:2\r\n:9223372036854775807\r\n",
        b"\x02*2\r\n$1\r\na\r\n$-1\r\n*1\r\n_\r\n",
        b"\x03*1\r\n+a\r\n~1\r\n:1\r\n",
        b"\x05$-1\r\n$1\r\na\r\n",
        b"\x06*2\r\n$2\r\n17\r\n*1\r\n$1\r\na\r\n",
        b"\x07*2\r\n:1\r\n:0\r\n*2\r\n:1\r\n:1\r\n",
        b"\x08$32\r\n# Keyspace\r\ndb0:keys=1,expires=0\r\n=22\r\ntxt:used_memory:1\r\nx:y\r\n-ERR x\r\n",
    ],
    run: |bytes| {
        let Some((kind, rest)) = bytes.split_first() else {
            return;
        };
        let parts = replies(std::iter::once(rest)).0;
        if parts.is_empty() {
            return;
        }
        let merge = || match kind % 9 {
            0 => Merge::Ok,
            1 => Merge::Sum,
            2 => Merge::Values(places(&parts)),
            3 => Merge::Append,
            4 => Merge::First,
            5 => Merge::Some,
            6 => Merge::Cursor(1, 3),
            7 => Merge::Least,
            _ => Merge::Info,
        };
        let shown = format!("{:?}", merge());
        // Whether or not it was noted where the parts' values end.
        let joined = |wanted: bool| {
            let mut join = Join::new(merge(), parts.len());
            for (at, (part, _)) in parts.iter().enumerate() {
                let mut early = None;
                assert!(!join.finish(&mut early), "{shown}: parts are missing");
                let mut scan = Replies::default();
                scan.note(wanted);
                assert!(scan.next(part).is_ok(), "it was found before");
                join.part(at as u32, part, scan.ends());
            }
            let mut out = None;
            assert!(join.finish(&mut out), "all parts are there");
            out.as_ref()
                .map_or(Vec::new(), |buf: &Buf| buf.filled().to_vec())
        };
        let whole = &joined(false)[..];
        // Some draws one of several.
        if !matches!(merge(), Merge::Some) {
            assert_eq!(whole, joined(true), "{shown}");
        }
        let found = Replies::default().next(whole);
        let length = found.ok().flatten().map(|(length, _)| length);
        assert_eq!(length, Some(whole.len()), "{shown}: no reply: {whole:?}");
    },
};

/// The part that has each value of an MGET, whose servers answer as many as they were asked for.
fn places(parts: &[(Vec<u8>, Shape)]) -> Vec<u16> {
    let part = |(at, (part, _)): (usize, &(Vec<u8>, Shape))| {
        let count = elements(part).map_or(1, |values| values.len());
        std::iter::repeat_n(at as u16, count)
    };
    parts.iter().enumerate().flat_map(part).collect()
}
