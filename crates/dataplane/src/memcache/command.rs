//! Where commands end, and what they are (no I/O). As memcached 1.6 reads them.

use std::ops::Range;

/// Bytes of a key at most.
const MOST_KEY: usize = 250;
/// Bytes of a line at most that does not ask for keys; memcached takes 2048, or more when they come at once.
const MOST_LINE: usize = 8192;
/// Words of a meta command at most.
const MOST_META: usize = 19;
/// The first byte of a request of the binary protocol.
const BINARY: u8 = 0x80;

const ERROR: &[u8] = b"ERROR\r\n";
const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_CHUNK: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
const BAD_EXPTIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";
const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
const TOO_MANY_FLAGS: &[u8] = b"CLIENT_ERROR options flags too long\r\n";
const TOO_LONG: &[u8] = b"CLIENT_ERROR line too long\r\n";
const NOT_BINARY: &[u8] =
    b"CLIENT_ERROR the binary protocol, and SASL with it, is not spoken here: use the text protocol\r\n";

/// What kind of command it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Asks for keys, of which this word is the first.
    Get(usize),
    /// A value of the key that is the second word.
    Store,
    /// About the key that is the second word, and without a value.
    Key,
    /// `mg`, `md`, `ma`, `me`.
    Meta,
    /// `ms`.
    MetaStore,
    /// `mn`.
    Noop,
    /// For all servers: `flush_all`, `verbosity`.
    All,
    Version,
    Stats,
    /// About one server.
    Admin,
    /// Turns the connection into something else, or ends the server.
    Never,
    Quit,
}

impl Kind {
    /// Which of so many words are keys. None: it has none.
    pub(super) fn keys(self, words: usize) -> Option<Range<usize>> {
        match self {
            Self::Get(first) => Some(first..words),
            Self::Store | Self::Key | Self::Meta | Self::MetaStore => Some(1..2),
            _ => None,
        }
    }
}

/// What a command looks like.
struct Form {
    name: &'static str,
    kind: Kind,
    /// Words that it has at least, and at most with `noreply`; others are an ERROR.
    words: (usize, usize),
}

const MANY: usize = usize::MAX;

/// By how common they are.
const FORMS: [Form; 35] = {
    const fn form(name: &'static str, kind: Kind, words: (usize, usize)) -> Form {
        Form { name, kind, words }
    }
    [
        form("get", Kind::Get(1), (2, MANY)),
        form("set", Kind::Store, (5, 6)),
        form("mg", Kind::Meta, (2, MANY)),
        form("ms", Kind::MetaStore, (2, MANY)),
        form("gets", Kind::Get(1), (2, MANY)),
        form("delete", Kind::Key, (2, 4)),
        form("incr", Kind::Key, (3, 4)),
        form("decr", Kind::Key, (3, 4)),
        form("add", Kind::Store, (5, 6)),
        form("cas", Kind::Store, (6, 7)),
        form("touch", Kind::Key, (3, 4)),
        form("mn", Kind::Noop, (1, MANY)),
        form("md", Kind::Meta, (2, MANY)),
        form("ma", Kind::Meta, (2, MANY)),
        form("me", Kind::Meta, (1, MANY)),
        form("gat", Kind::Get(2), (2, MANY)),
        form("gats", Kind::Get(2), (2, MANY)),
        form("replace", Kind::Store, (5, 6)),
        form("append", Kind::Store, (5, 6)),
        form("prepend", Kind::Store, (5, 6)),
        form("flush_all", Kind::All, (1, 3)),
        form("verbosity", Kind::All, (2, MANY)),
        form("version", Kind::Version, (1, MANY)),
        form("stats", Kind::Stats, (1, MANY)),
        form("quit", Kind::Quit, (1, MANY)),
        form("slabs", Kind::Admin, (1, MANY)),
        form("lru", Kind::Admin, (1, MANY)),
        form("lru_crawler", Kind::Admin, (1, MANY)),
        form("cache_memlimit", Kind::Admin, (1, MANY)),
        form("extstore", Kind::Admin, (1, MANY)),
        form("refresh_certs", Kind::Never, (1, MANY)),
        form("watch", Kind::Never, (1, MANY)),
        form("shutdown", Kind::Never, (1, MANY)),
        form("misbehave", Kind::Never, (1, MANY)),
        form("debugtime", Kind::Never, (1, MANY)),
    ]
};

/// A command that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) kind: Kind,
    /// All its bytes.
    pub(super) length: usize,
    /// Where the part of its line ends that is sent: without `noreply`, and what is behind a NUL.
    pub(super) said: usize,
    /// Where its line ends, and its value begins.
    pub(super) head: usize,
    /// With `noreply`: whatever is replied, the client gets nothing of it.
    pub(super) hidden: bool,
    /// A meta command that may get no reply, or one whose reply does not say where it ends.
    pub(super) quiet: bool,
    /// The key is base64.
    pub(super) base64: bool,
}

impl Command {
    /// A server without meta commands would take its value for commands, or not say where its reply ends.
    pub(super) fn needs_meta(&self) -> bool {
        self.kind == Kind::MetaStore || self.kind == Kind::Stats && self.quiet
    }
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// More have to come.
    Nothing,
    Command(Command),
    /// So many that are answered here.
    Answer(usize, &'static [u8]),
    /// So many that mean nothing: a value that was refused.
    Skip(usize),
    /// What follows can't be understood: the connection ends with this.
    End(&'static [u8]),
}

/// Finds the commands of a client. It remembers how far it has looked, so that the bytes of a command may come in any pieces.
#[derive(Debug, Default)]
pub(super) struct Commands {
    words: Vec<Range<usize>>,
    /// No line ends before this.
    looked: usize,
    /// The command whose value has not come yet.
    open: Option<Command>,
    skip: usize,
}

impl Commands {
    /// The words of the command that was found.
    pub(super) fn words(&self) -> &[Range<usize>] {
        &self.words
    }

    /// The command that was found could not be taken: it is found again.
    pub(super) fn reset(&mut self) {
        self.looked = 0;
        self.open = None;
    }

    /// What `bytes` begin with. `most`: bytes of a command at most.
    pub(super) fn next(&mut self, bytes: &[u8], most: usize) -> Found {
        if self.skip > 0 && !bytes.is_empty() {
            let count = self.skip.min(bytes.len());
            self.skip -= count;
            return Found::Skip(count);
        }
        let found = match self.open {
            Some(command) => self.value(command, bytes),
            None => self.line(bytes, most),
        };
        if found != Found::Nothing {
            self.looked = 0;
            self.open = None;
        }
        found
    }

    fn line(&mut self, bytes: &[u8], most: usize) -> Found {
        match bytes.first() {
            Some(&BINARY) => return Found::End(NOT_BINARY),
            Some(_) => {}
            None => return Found::Nothing,
        }
        let end = memchr::memchr(b'\n', &bytes[self.looked..]).map(|at| self.looked + at);
        let length = end.unwrap_or(bytes.len());
        if length > MOST_LINE && (length > most || !asks(bytes)) {
            return Found::End(TOO_LONG);
        }
        let Some(end) = end else {
            self.looked = length;
            return Found::Nothing;
        };
        let head = end + 1;
        let mut said = match end > 1 && bytes[end - 1] == b'\r' {
            true => end - 1,
            false => end,
        };
        // A C string.
        said = memchr::memchr(0, &bytes[..said]).unwrap_or(said);
        split(&bytes[..said], &mut self.words);
        self.understand(bytes, head, said, most)
    }

    fn understand(&mut self, bytes: &[u8], head: usize, said: usize, most: usize) -> Found {
        let word = |range: &Range<usize>| &bytes[range.clone()];
        let answer = |line| Found::Answer(head, line);
        let named = |form: &&Form| {
            let name = self.words.first().map(word);
            name == Some(form.name.as_bytes())
        };
        let Some(form) = FORMS.iter().find(named) else {
            return answer(ERROR);
        };
        let mut command = Command {
            kind: form.kind,
            length: head,
            said,
            head,
            hidden: false,
            quiet: false,
            base64: false,
        };
        let (least, at_most) = form.words;
        if self.words.len() < least || self.words.len() > at_most {
            return answer(ERROR);
        }
        let hides = match form.kind {
            Kind::Store | Kind::All | Kind::Admin => true,
            // `delete noreply` has a key of that name.
            Kind::Key => self.words.len() > 2,
            _ => false,
        };
        if hides && self.words.last().map(word) == Some(b"noreply") {
            command.hidden = true;
            self.words.pop();
            command.said = self.words.last().map_or(0, |last| last.end);
            // It took the place of something else: a mistake, which is hidden too.
            if self.words.len() < least {
                return answer(b"");
            }
        }
        let shown =
            |line: &'static [u8]| Found::Answer(head, if command.hidden { b"" } else { line });
        match form.kind {
            Kind::Get(first) => {
                if first == 2 && number::<i32>(word(&self.words[1])).is_none() {
                    return answer(BAD_EXPTIME);
                }
                let keys = &self.words[first..];
                if keys.iter().any(|key| key.len() > MOST_KEY) {
                    return answer(BAD_FORMAT);
                }
                if keys.is_empty() {
                    return answer(b"END\r\n");
                }
            }
            Kind::Store => {
                let key = &self.words[1];
                let said = |at: usize| self.words.get(at).map(word).unwrap_or_default();
                let cas = least == 5 || number::<u64>(said(5)).is_some();
                let numbers = number::<u32>(said(2)).is_some() && number::<i32>(said(3)).is_some();
                match length(said(4)) {
                    Some(length) if key.len() <= MOST_KEY && cas && numbers => {
                        return self.store(command, length, bytes, most);
                    }
                    _ => return shown(BAD_FORMAT),
                }
            }
            Kind::Meta | Kind::MetaStore => {
                let stores = form.kind == Kind::MetaStore;
                let Some(key) = self.words.get(1) else {
                    return answer(BAD_FORMAT);
                };
                if stores && (key.len() > MOST_KEY || self.words.len() < 3) {
                    return answer(BAD_FORMAT);
                }
                if stores && self.words.len() > MOST_META {
                    return answer(TOO_MANY_FLAGS);
                }
                let flags = self
                    .words
                    .get(2 + usize::from(stores)..)
                    .unwrap_or_default();
                let has = |flag| flags.iter().any(|range| bytes[range.start] == flag);
                command.base64 = has(b'b');
                command.quiet = has(b'q') && form.name != "me";
                if stores {
                    return match length(word(&self.words[2])) {
                        Some(length) => self.store(command, length, bytes, most),
                        None => answer(BAD_FORMAT),
                    };
                }
            }
            // What it says to these does not say where it ends.
            Kind::Stats => {
                let what = self.words.get(1).map(word);
                command.quiet = matches!(what, Some(b"sizes_enable" | b"sizes_disable"));
            }
            _ => {}
        }
        Found::Command(command)
    }

    fn store(&mut self, mut command: Command, value: usize, bytes: &[u8], most: usize) -> Found {
        command.length = command.head + value + 2;
        if command.length > most {
            self.skip = value + 2;
            return Found::Answer(command.head, if command.hidden { b"" } else { TOO_LARGE });
        }
        self.open = Some(command);
        self.value(command, bytes)
    }

    fn value(&self, command: Command, bytes: &[u8]) -> Found {
        let length = command.length;
        if bytes.len() < length {
            return Found::Nothing;
        }
        match &bytes[length - 2..length] {
            b"\r\n" => Found::Command(command),
            _ if command.hidden => Found::Answer(length, b""),
            _ => Found::Answer(length, BAD_CHUNK),
        }
    }
}

/// Asks for keys, of which there may be many.
fn asks(bytes: &[u8]) -> bool {
    let name = bytes.trim_ascii_start();
    let names: [&[u8]; 4] = [b"get ", b"gets ", b"gat ", b"gats "];
    names.iter().any(|one| name.starts_with(one))
}

/// Words are apart by spaces, and nothing else is a space.
fn split(line: &[u8], words: &mut Vec<Range<usize>>) {
    words.clear();
    let mut begin = 0;
    for at in memchr::memchr_iter(b' ', line).chain([line.len()]) {
        if at > begin {
            words.push(begin..at);
        }
        begin = at + 1;
    }
}

fn number<N: std::str::FromStr>(word: &[u8]) -> Option<N> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// Of a value.
fn length(word: &[u8]) -> Option<usize> {
    let length = number::<i32>(word)?;
    (length <= i32::MAX - 2).then(|| usize::try_from(length).ok())?
}
