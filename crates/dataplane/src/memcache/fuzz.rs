//! Targets of the fuzzer: what clients and servers send, and what is made of several replies.

use podkit_foundation::fuzz::{Target, pieces};

use super::command::{Command, Commands, Found, Kind};
use super::join::{Same, Values};
use super::reply::{Replies, Until};
use super::stats::{Stats, Version};
use crate::resp::Joins;

/// All of the protocol.
pub(crate) const TARGETS: [Target; 3] = [COMMANDS, REPLIES, JOIN];

/// Bytes of a command at most.
const MOST: usize = 1000;

/// What a client is understood to say: commands with their words, and what is answered.
#[derive(Debug, PartialEq)]
enum Said {
    Command(Command, Vec<Vec<u8>>),
    Answer(usize, &'static [u8]),
    End(&'static [u8]),
    /// Bytes of values that are left out.
    Skipped(usize),
}

fn commands<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Said> {
    let (mut scan, mut input, mut said) = (Commands::default(), Vec::new(), Vec::new());
    let mut skipped = 0;
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let length = match scan.next(&input, MOST) {
                Found::Nothing => break,
                Found::Skip(length) => {
                    skipped += length;
                    length
                }
                Found::Answer(length, line) => {
                    said.push(Said::Answer(length, line));
                    length
                }
                Found::End(line) => {
                    said.push(Said::End(line));
                    return said;
                }
                Found::Command(command) => {
                    let words = scan.words().iter();
                    let words: Vec<_> = words.map(|word| input[word.clone()].to_vec()).collect();
                    assert!(command.said < command.head && command.head <= command.length);
                    let keys = command.kind.keys(words.len());
                    assert!(keys.is_none_or(|keys| keys.end <= words.len() && !keys.is_empty()));
                    said.push(Said::Command(command, words));
                    command.length
                }
            };
            assert!(length > 0, "nothing is taken");
            input.drain(..length);
        }
    }
    said.push(Said::Skipped(skipped));
    said
}

const COMMANDS: Target = Target {
    name: "memcache-commands",
    seeds: &[
        b"\x05get a b\r\nset a 1 0 3\r\nabc\r\nset b 0 0 1 noreply\nx\r\ngat 10 a\r\n",
        b"\x01mg a v k q\r\nms a 2 T0 b\r\nhi\r\nmn\r\nme a\r\nma a N0\r\n",
        b"\xffincr a 1\r\ndelete a noreply\r\nflush_all 0 noreply\r\nstats items\r\nquit\r\n",
        b"\x07set a 0 0 2000\r\nset a 0 0 -1\r\ncas a 0 0 1 7\r\nx\r\nx\0y\r\n",
    ],
    run: |bytes| {
        let whole = commands(std::iter::once(bytes.get(1..).unwrap_or_default()));
        assert_eq!(commands(pieces(bytes)), whole, "the pieces matter");
        for said in &whole {
            // What goes to a server is one command there, and the same one.
            let Said::Command(command, words) = said else {
                continue;
            };
            if matches!(command.kind, Kind::Get(_) | Kind::Key | Kind::Meta) {
                let line = [&words.join(&b' ')[..], b"\r\n"].concat();
                let again = commands(std::iter::once(&line[..]));
                let [Said::Command(again, same), Said::Skipped(0)] = &again[..] else {
                    panic!("{line:?} is {again:?}");
                };
                assert!(again.kind == command.kind && same == words);
            }
        }
    },
};

/// Replies, and whether something is wrong after them.
fn replies<'a>(until: Until, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut scan, mut input, mut found) = (Replies::default(), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match scan.next(&input, until) {
                Ok(None) => break,
                Ok(Some(length)) => found.push(input.drain(..length).collect()),
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

const REPLIES: Target = Target {
    name: "memcache-replies",
    seeds: &[
        b"\x05VALUE a 0 2\r\nhi\r\nVALUE b 0 0 7\r\n\r\nEND\r\nSTORED\r\n",
        b"\x01VA 2 f1\r\nhi\r\nHD\r\nEN\r\nMN\r\nERROR\r\nERROR\r\n",
        b"\xffSTAT a 1\r\nSTAT b 2\r\nEND\r\nVERSION 1.6.18\r\nSERVER_ERROR x\r\n",
    ],
    run: |bytes| {
        for until in [Until::Itself, Until::Noop] {
            let whole = replies(until, std::iter::once(bytes.get(1..).unwrap_or_default()));
            assert_eq!(replies(until, pieces(bytes)), whole, "the pieces matter");
        }
    },
};

const JOIN: Target = Target {
    name: "memcache-join",
    seeds: &[
        b"\0VALUE a 0 2\r\nhi\r\nEND\r\nVALUE b 0 1\r\nx\r\nEND\r\n",
        b"\x01OK\r\nRESET\r\nERROR\r\n",
        b"\x02STAT pid 1\r\nSTAT uptime 9\r\nEND\r\nSTAT pid 2\r\nSTAT rusage_user 1.000001\r\nSTAT n 7\r\nEND\r\n",
        b"\x03VERSION 1.6.18\r\nVERSION 1.6.9\r\n",
    ],
    run: |bytes| {
        let Some((kind, rest)) = bytes.split_first() else {
            return;
        };
        let (parts, _) = replies(Until::Itself, std::iter::once(rest));
        if parts.is_empty() {
            return;
        }
        let joins: Box<dyn Joins> = match kind % 4 {
            0 => {
                let key = |at: usize| (4 + 2 * at..5 + 2 * at, at % parts.len());
                Box::new(Values {
                    line: b"get a b a c\r\n".to_vec(),
                    keys: (0..4).map(key).collect(),
                })
            }
            1 => Box::new(Same { hidden: false }),
            2 => Box::new(Stats),
            _ => Box::new(Version),
        };
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let whole = joins.join(&parts);
        let found = Replies::default().next(&whole, Until::Itself);
        assert_eq!(found, Ok(Some(whole.len())), "no reply: {whole:?}");
    },
};
