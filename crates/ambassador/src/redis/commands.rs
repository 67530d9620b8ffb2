//! What a command is to a primary and its replicas: who may answer it, which keys it names, whether it may be done twice.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use podkit_dataplane::resp::scan::{elements, integer, text};
use podkit_dataplane::resp::{Keys, Kind, Request};

use super::fence::{ALL, number};

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

/// Commands of modules that are remembered, at most: clients choose their names.
const MOST_KNOWN: usize = 1024;

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

/// Says what a command is; `numbers` becomes those of its keys.
pub(super) fn class(request: &Request<'_>, known: &Known, numbers: &mut Vec<u16>) -> Class {
    numbers.clear();
    let key = |word: usize| number(request.words.get(word).unwrap_or_default());
    let Some(command) = request.command else {
        let Some(keys) = known.reads(request) else {
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

/// What the servers said of commands that podkit does not know.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<Vec<u8>, Option<Keys>>>);

impl Known {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, Option<Keys>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(request: &Request<'_>) -> Vec<u8> {
        request
            .words
            .get(0)
            .unwrap_or_default()
            .to_ascii_lowercase()
    }

    /// Where the keys are of one that is known to change nothing.
    fn reads(&self, request: &Request<'_>) -> Option<Keys> {
        *self.lock().get(&Self::name(request))?
    }

    /// Its name, when nobody has asked for it yet; from then on somebody has.
    pub(super) fn wants(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        let name = Self::name(request);
        let mut known = self.lock();
        if known.len() >= MOST_KNOWN || known.contains_key(&name) {
            return None;
        }
        known.insert(name.clone(), None);
        Some(name)
    }

    /// The reply to COMMAND INFO for one.
    pub(super) fn learn(&self, name: Vec<u8>, reply: &[u8]) {
        self.lock().insert(name, reads(reply));
    }

    /// Nobody could say: it is asked for again when it comes again.
    pub(super) fn forget(&self, name: &[u8]) {
        self.lock().remove(name);
    }
}

/// Where the keys are, in the reply to COMMAND INFO, when the command is only for reading and its keys stand in a row.
fn reads(reply: &[u8]) -> Option<Keys> {
    let first = elements(reply)?.into_iter().next()?;
    let command = &reply[first];
    let parts = elements(command)?;
    let flags = &command[parts.get(2)?.clone()];
    let mut names = Vec::new();
    for flag in elements(flags)? {
        names.push(text(&flags[flag])?);
    }
    let is = |flag: &str| names.contains(&flag.as_bytes());
    if !is("readonly") || is("movablekeys") || is("blocking") || is("noscript") {
        return None;
    }
    let number = |at: usize| integer(&command[parts.get(at)?.clone()]);
    match (number(3)?, number(4)?, number(5)?) {
        (0, _, _) => Some(Keys::None),
        (first, last, step) => Some(Keys::Range {
            first: usize::try_from(first).ok()?,
            last: isize::try_from(last).ok()?,
            step: usize::try_from(step).ok().filter(|step| *step > 0)?,
        }),
    }
}

#[cfg(test)]
mod tests {
    use podkit_dataplane::resp::{Words, find};

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
        let known = Known::default();
        known.learn(
            b"json.get".to_vec(),
            b"*1\r\n*6\r\n$8\r\njson.get\r\n:-2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n",
        );
        known.learn(
            b"json.set".to_vec(),
            b"*1\r\n*6\r\n$8\r\njson.set\r\n:-2\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n",
        );
        let mut numbers = vec![1, 2, 3];
        assert_eq!(class(&request, &known, &mut numbers), expected, "{line}");
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

    #[test]
    fn a_command_is_asked_for_once() {
        let known = Known::default();
        let words = Words::new(b"X", std::slice::from_ref(&(0..1)));
        let request = Request {
            bytes: b"X",
            words,
            command: None,
        };
        assert_eq!(known.wants(&request), Some(b"x".to_vec()));
        assert_eq!(known.wants(&request), None);
        known.forget(b"x");
        assert!(known.wants(&request).is_some());
        // Redis does not know it.
        known.learn(b"x".to_vec(), b"*1\r\n*-1\r\n");
        assert_eq!(known.reads(&request), None);
    }
}
