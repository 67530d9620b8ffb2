//! What a command is to a primary and its replicas: who may answer it, which keys it names, whether it may be done twice.

use podkit_dataplane::resp::{Kind, Request};

use super::fence::{ALL, number};
use crate::known::Said;

/// Reads whose answer is a server's own: where its cursor stands, how it keeps a value, what it has used.
const OWN: [&str; 10] = [
    "dbsize",
    "hscan",
    "lolwut",
    "memory",
    "object",
    "randomkey",
    "scan",
    "sscan",
    "touch",
    "zscan",
];

/// Scripts that change nothing.
const READING_SCRIPTS: [&str; 3] = ["eval_ro", "evalsha_ro", "fcall_ro"];

/// Of what is about the server, what may be done twice.
const ABOUT: [&str; 8] = [
    "command", "echo", "info", "lastsave", "ping", "pubsub", "role", "time",
];

/// Who may do a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A replica, if it is far enough.
    Read,
    /// The primary; nothing is changed, so that it may be done twice.
    Own,
    /// The primary; it may change what is told.
    Write,
    /// The primary; it changes no data, but must not be done twice.
    Other,
}

/// Says what a command is, and what a server said of one that podkit does not know; `numbers` becomes those of its keys.
pub(super) fn class(request: &Request<'_>, said: Option<Said>, numbers: &mut Vec<u16>) -> Class {
    numbers.clear();
    let key = |word: usize| number(request.words.get(word).unwrap_or_default());
    let Some(command) = request.command else {
        let Some(keys) = said.filter(|said| said.reads).and_then(|said| said.keys) else {
            numbers.push(ALL);
            return Class::Write;
        };
        keys.each(&request.words, |word| numbers.push(key(word)));
        return Class::Read;
    };
    let reads = match command.kind {
        Kind::Read | Kind::BlocksRead => true,
        Kind::Script => READING_SCRIPTS.contains(&command.name),
        Kind::Write | Kind::Blocks => false,
        Kind::Subscribe | Kind::Session | Kind::Admin | Kind::Other => {
            let changes = matches!(command.name, "function" | "debug" | "script");
            return match changes {
                true => {
                    numbers.push(ALL);
                    Class::Write
                }
                false if ABOUT.contains(&command.name) => Class::Own,
                false => Class::Other,
            };
        }
    };
    // Whose answer is the primary's is not fenced: it is there.
    if reads && OWN.contains(&command.name) {
        return Class::Own;
    }
    let told = command
        .keys
        .each(&request.words, |word| numbers.push(key(word)));
    if !told || (numbers.is_empty() && !reads) {
        numbers.clear();
        numbers.push(ALL);
    }
    match reads {
        // A syntax error is told by the server whatever has been written.
        true => Class::Read,
        false if command.name == "publish" => {
            numbers.clear();
            Class::Other
        }
        false => Class::Write,
    }
}

#[cfg(test)]
mod tests {
    use podkit_dataplane::resp::{Keys, Words, find};

    use super::*;

    fn check(line: &str, expected: Class, keys: &[&str]) {
        let (mut ranges, mut start) = (Vec::new(), 0);
        for word in line.split(' ') {
            ranges.push(start..start + word.len());
            start += word.len() + 1;
        }
        let words = Words::new(line.as_bytes(), &ranges);
        let request = Request {
            bytes: line.as_bytes(),
            words,
            command: find(words.get(0).unwrap()),
        };
        let said = |reads| Said {
            keys: Some(Keys::Range {
                first: 1,
                last: 1,
                step: 1,
            }),
            reads,
            waits: false,
        };
        let said = match words.get(0).unwrap() {
            b"json.get" => Some(said(true)),
            b"json.set" => Some(said(false)),
            _ => None,
        };
        let mut numbers = vec![1, 2, 3];
        assert_eq!(class(&request, said, &mut numbers), expected, "{line}");
        let keys: Vec<u16> = keys
            .iter()
            .map(|key| {
                if *key == "*" {
                    ALL
                } else {
                    number(key.as_bytes())
                }
            })
            .collect();
        assert_eq!(numbers, keys, "{line}");
    }

    #[test]
    fn commands_go_where_they_may() {
        check("get a", Class::Read, &["a"]);
        check("MGET a b", Class::Read, &["a", "b"]);
        check("keys *", Class::Read, &[]);
        check("set a 1", Class::Write, &["a"]);
        check("sort a", Class::Write, &["a"]);
        check("sunionstore d a b", Class::Write, &["d", "a", "b"]);
        check("flushall", Class::Write, &["*"]);
        check("eval s 1 a", Class::Write, &["a"]);
        check("eval s 0", Class::Write, &["*"]);
        check("eval s x", Class::Write, &["*"]);
        check("eval_ro s 1 a", Class::Read, &["a"]);
        check("fcall_ro f 1 a", Class::Read, &["a"]);
        check("function load x", Class::Write, &["*"]);
        check("publish c m", Class::Other, &[]);
        check("scan 0", Class::Own, &[]);
        check("object encoding a", Class::Own, &[]);
        check("ping", Class::Own, &[]);
        check("config set a b", Class::Other, &[]);
        check("json.get a", Class::Read, &["a"]);
        check("json.set a 1", Class::Write, &["*"]);
        check("nosuch a", Class::Write, &["*"]);
    }
}
