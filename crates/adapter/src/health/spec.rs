//! `--probe`: what is asked, how, and what its verdict counts for.
//!
//! ```text
//!   NAME=SCHEME://WHERE[/PATH][;KEY=VALUE]…       cache=redis://127.0.0.1:6379;role=master;p99=20ms
//! ```

use std::fmt;
use std::time::Duration;

use podkit_foundation::params::{Addr, ParamType, Percent, Size, check_pair, unknown};

use super::check::Rules;
use super::latency::{Budget, MOST};
use crate::client::TlsMode;

/// Keys that every kind takes.
const COMMON: &[&str] = &[
    "period", "timeout", "failure", "success", "p50", "p99", "window", "slow", "for", "liveness",
];

/// Longest name.
const NAME_BYTES: usize = 63;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Tcp,
    Http,
    Redis,
    Exec,
    Dns,
    Disk,
    Memcached,
    Grpc,
    MySql,
    Postgres,
}

/// What follows `://`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// An address and perhaps a path; the port where it names none (0: it has to).
    Server(u16),
    /// A host's name.
    Host,
    /// A path.
    Path,
    /// A program and its arguments, separated by spaces.
    Command,
}

/// A scheme: how it is written, and what may be said after it.
#[derive(Debug)]
pub(crate) struct Scheme {
    pub(crate) word: &'static str,
    pub(crate) kind: Kind,
    pub(crate) tls: bool,
    form: Form,
    keys: &'static [&'static str],
}

const fn scheme(
    word: &'static str,
    kind: Kind,
    tls: bool,
    form: Form,
    keys: &'static [&'static str],
) -> Scheme {
    Scheme {
        word,
        kind,
        tls,
        form,
        keys,
    }
}

const HTTP_KEYS: &[&str] = &[
    "method",
    "status",
    "header",
    "send",
    "body",
    "json",
    "host",
    "server-name",
];
const REDIS_KEYS: &[&str] = &[
    "user",
    "password-file",
    "role",
    "max-lag",
    "canary",
    "server-name",
];

const SQL_KEYS: &[&str] = &[
    "user",
    "password-file",
    "tls",
    "query",
    "rows",
    "value",
    "match",
];

/// All there are.
pub(crate) const SCHEMES: &[Scheme] = &[
    scheme("tcp", Kind::Tcp, false, Form::Server(0), &[]),
    scheme("tls", Kind::Tcp, true, Form::Server(0), &["server-name"]),
    scheme("http", Kind::Http, false, Form::Server(80), HTTP_KEYS),
    scheme("https", Kind::Http, true, Form::Server(443), HTTP_KEYS),
    scheme("redis", Kind::Redis, false, Form::Server(6379), REDIS_KEYS),
    scheme("rediss", Kind::Redis, true, Form::Server(6379), REDIS_KEYS),
    scheme(
        "exec",
        Kind::Exec,
        false,
        Form::Command,
        &["output", "command"],
    ),
    scheme(
        "dns",
        Kind::Dns,
        false,
        Form::Host,
        &["address", "at-least", "server"],
    ),
    scheme("disk", Kind::Disk, false, Form::Path, &["free", "inodes"]),
    scheme(
        "memcached",
        Kind::Memcached,
        false,
        Form::Server(11211),
        &["canary"],
    ),
    scheme("grpc", Kind::Grpc, false, Form::Server(0), &["service"]),
    scheme(
        "grpcs",
        Kind::Grpc,
        true,
        Form::Server(443),
        &["service", "server-name"],
    ),
    scheme("mysql", Kind::MySql, false, Form::Server(3306), SQL_KEYS),
    scheme(
        "postgres",
        Kind::Postgres,
        false,
        Form::Server(5432),
        SQL_KEYS,
    ),
];

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A server, and a path there that begins with `/` or is empty.
    Server(Addr, String),
    Host(String),
    Path(String),
    Command(Vec<String>),
}

/// What a verdict counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountsFor {
    pub(crate) live: bool,
    pub(crate) ready: bool,
    pub(crate) startup: bool,
}

/// A probe as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) scheme: &'static Scheme,
    pub(crate) place: Place,
    pub(crate) counts_for: CountsFor,
    /// Who is slower than its budget is not ready.
    pub(crate) slow_fails: bool,
    options: Vec<(String, String)>,
}

impl PartialEq for Scheme {
    fn eq(&self, other: &Self) -> bool {
        self.word == other.word
    }
}

impl Eq for Scheme {}

/// What is in force where a probe says nothing itself.
#[derive(Debug, Clone)]
pub(crate) struct Usual {
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) failure: u32,
    pub(crate) success: u32,
    pub(crate) window: Duration,
    pub(crate) history: usize,
}

impl Spec {
    /// Of its parts. An error says what is wrong with them, a clause.
    pub(crate) fn new(name: &str, url: &str, options: &[(&str, &str)]) -> Result<Self, String> {
        check_name(name)?;
        let (word, rest) = url.split_once(':').ok_or("there is no ://")?;
        let scheme = SCHEMES.iter().find(|scheme| scheme.word == word);
        let words = SCHEMES.iter().map(|scheme| scheme.word);
        let scheme = scheme.ok_or_else(|| unknown("scheme", word, words))?;
        let place = place(scheme, rest, options)?;
        let keys: Vec<&str> = COMMON.iter().chain(scheme.keys).copied().collect();
        let repeats = |key: &str| matches!(key, "header" | "send" | "json" | "command");
        let mut known: Vec<(&str, &str)> = Vec::new();
        for (key, value) in options {
            check_pair((key, value), &known, &keys)?;
            if !repeats(key) {
                known.push((key, value));
            }
        }
        let mut spec = Self {
            name: name.to_owned(),
            scheme,
            place,
            counts_for: CountsFor {
                live: false,
                ready: true,
                startup: false,
            },
            slow_fails: false,
            options: options
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        spec.slow_fails = spec.word("slow", &["degraded", "unhealthy"])? == Some("unhealthy");
        spec.counts_for = spec.counted()?;
        Ok(spec)
    }

    fn counted(&self) -> Result<CountsFor, String> {
        let Some(text) = self.option("for") else {
            if self.option("liveness").is_some() {
                return Err("liveness= is for a probe with for=live".to_owned());
            }
            return Ok(self.counts_for);
        };
        let words: Vec<&str> = text.split(',').collect();
        if let Some(word) = words
            .iter()
            .find(|word| !["live", "ready", "startup"].contains(word))
        {
            return Err(format!(
                "for={word} is none of live, ready, startup (several with commas)"
            ));
        }
        let counts_for = CountsFor {
            live: words.contains(&"live"),
            ready: words.contains(&"ready"),
            startup: words.contains(&"startup"),
        };
        let forced = self.word("liveness", &["force"])?.is_some();
        if forced && !counts_for.live {
            return Err("liveness= is for a probe with for=live".to_owned());
        }
        if counts_for.live && !forced && !self.is_local() {
            return Err(format!(
                "for=live, and {} is another service: when it fails, restarting this pod mends nothing and takes it away too; expected \
                 for=ready, or ;liveness=force",
                self.place
            ));
        }
        Ok(counts_for)
    }

    /// It has a use for the files of TLS, of which these are given.
    pub(crate) fn uses_tls_files(&self, ca: bool, cert: bool) -> bool {
        match (self.scheme.kind, &self.place) {
            (Kind::MySql | Kind::Postgres, Place::Server(addr, _)) => {
                // What is wrong is said where it is read.
                let mode = TlsMode::of(self.option("tls"), addr, ca);
                mode.is_ok_and(|mode| mode.uses_files(cert))
            }
            _ => self.scheme.tls,
        }
    }

    /// It asks nobody outside of the pod.
    fn is_local(&self) -> bool {
        match &self.place {
            Place::Server(Addr::Port(_) | Addr::Unix(_), _)
            | Place::Path(_)
            | Place::Command(_) => true,
            Place::Server(Addr::Ip(ip, _), _) => ip.to_canonical().is_loopback(),
            Place::Server(Addr::Name(name, _), _) => name == "localhost",
            Place::Host(_) => false,
        }
    }

    /// The value of one of its keys.
    pub(crate) fn option(&self, key: &str) -> Option<&str> {
        let found = self.options.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }

    /// The values of one of its keys that may come several times.
    pub(crate) fn options<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let those = self.options.iter().filter(move |(known, _)| known == key);
        those.map(|(_, value)| value.as_str())
    }

    /// The value of a key that is one of some words.
    pub(crate) fn word(
        &self,
        key: &str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>, String> {
        let Some(value) = self.option(key) else {
            return Ok(None);
        };
        let word = words.iter().find(|word| **word == value);
        let word = word.ok_or_else(|| format!("{key}={value}; expected {}", words.join(" or ")))?;
        Ok(Some(word))
    }

    /// The value of a key that is a time.
    pub(crate) fn time(&self, key: &str) -> Result<Option<Duration>, String> {
        let read = |value: &str| {
            let time = Duration::parse(value).ok().filter(|time| !time.is_zero());
            time.ok_or_else(|| format!("{key}={value} is not a time such as 250ms or 2s"))
        };
        self.option(key).map(read).transpose()
    }

    /// The value of a key that is a number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u32>, String> {
        let read = |value: &str| {
            let number = value.parse().ok().filter(|number| *number > 0);
            number.ok_or_else(|| format!("{key}={value} is not a number of at least 1"))
        };
        self.option(key).map(read).transpose()
    }

    /// The value of a key that is a size or a part.
    pub(crate) fn amount(&self, key: &str) -> Result<Option<Amount>, String> {
        let read = |value: &str| {
            let percent = Percent::parse(value).ok();
            let percent = percent.map(|part| Amount::Percent(part.0.into()));
            let size = || Size::parse(value).ok().map(|size| Amount::Count(size.0));
            percent
                .filter(|part| !matches!(part, Amount::Percent(part) if *part > 100))
                .or_else(size)
                .ok_or_else(|| {
                    format!(
                        "{key}={value} is neither a part such as 10% nor an amount such as 512Mi"
                    )
                })
        };
        self.option(key).map(read).transpose()
    }

    /// What it is judged by.
    pub(crate) fn rules(&self, usual: &Usual) -> Result<Rules, String> {
        let period = self.time("period")?.unwrap_or(usual.period);
        let window = self.time("window")?.unwrap_or(usual.window);
        let budget = Budget {
            p50: self.time("p50")?,
            p99: self.time("p99")?,
            window,
        };
        if budget.p50.is_some() || budget.p99.is_some() {
            let count = window.as_millis() / period.as_millis().max(1);
            if !(5..=MOST as u128).contains(&count) {
                return Err(format!(
                    "a window of {} s has {count} periods of {} ms; latency is judged by 5 to {MOST}: expected another window= or period=",
                    window.as_secs(),
                    period.as_millis()
                ));
            }
        } else if self.slow_fails || self.option("window").is_some() {
            return Err("slow= and window= mean nothing without p50= or p99=".to_owned());
        }
        Ok(Rules {
            period,
            timeout: self.time("timeout")?.unwrap_or(usual.timeout),
            failure: self.number("failure")?.unwrap_or(usual.failure),
            success: self.number("success")?.unwrap_or(usual.success),
            budget,
            history: usual.history,
        })
    }
}

/// How much of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    Percent(u64),
    Count(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(addr, path) => write!(f, "{addr}{path}"),
            Self::Host(text) | Self::Path(text) => f.write_str(text),
            Self::Command(words) => f.write_str(&words.join(" ")),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}://{}", self.name, self.scheme.word, self.place)
    }
}

impl ParamType for Spec {
    const TYPE_NAME: &'static str = "probe";
    const EXPECTED: &'static str =
        "NAME=SCHEME://WHERE[;KEY=VALUE], such as web=http://127.0.0.1:8080/health;status=200";

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(';');
        let whole = parts.next().unwrap_or_default();
        let (name, url) = match whole.split_once('=') {
            Some((name, url)) if !name.contains(':') => (name, url),
            _ => return Err("there is no name in front, such as web=".to_owned()),
        };
        let mut options = Vec::new();
        for part in parts {
            let pair = part.split_once('=');
            options.push(pair.ok_or_else(|| format!("\"{part}\" is not KEY=VALUE"))?);
        }
        Self::new(name, url, &options)
    }
}

/// It is a label's value, and a part of a path.
fn check_name(name: &str) -> Result<(), String> {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !name.is_empty() && name.len() <= NAME_BYTES && name.bytes().all(right) {
        true => Ok(()),
        false => Err(format!(
            "the name \"{name}\" is not 1 to {NAME_BYTES} letters, digits, -, _ or ."
        )),
    }
}

fn place(scheme: &Scheme, rest: &str, options: &[(&str, &str)]) -> Result<Place, String> {
    if scheme.form == Form::Command {
        return command(rest, options).map(Place::Command);
    }
    let rest = rest.strip_prefix("//").ok_or("there is no ://")?;
    match scheme.form {
        Form::Server(port) => {
            if rest.contains('@') {
                return Err(
                    "a user goes to ;user=NAME, a password into a file: ;password-file=FILE"
                        .to_owned(),
                );
            }
            let (addr, path) = split(rest, port)?;
            if addr.port() == Some(0) {
                return Err("port 0 can't be dialled".to_owned());
            }
            match path.as_str() {
                "" | "/" => Ok(Place::Server(addr, path)),
                _ if takes_path(scheme.kind) => Ok(Place::Server(addr, path)),
                _ => Err(format!(
                    "\"{path}\" behind the address means nothing to {}",
                    scheme.word
                )),
            }
        }
        Form::Host => match rest {
            "" => Err("the name that is to be resolved is missing".to_owned()),
            name if name.contains(['/', ':', ' ']) => {
                Err(format!("\"{name}\" is not a host's name"))
            }
            name => Ok(Place::Host(name.to_owned())),
        },
        Form::Path if rest.starts_with('/') => Ok(Place::Path(rest.to_owned())),
        Form::Path | Form::Command => Err(format!(
            "\"{rest}\" is not an absolute path, such as {}:///var/lib/data",
            scheme.word
        )),
    }
}

/// What is behind an address means something.
fn takes_path(kind: Kind) -> bool {
    matches!(kind, Kind::Http | Kind::MySql | Kind::Postgres)
}

/// `exec:PROGRAM ARGUMENT…`, or the words one by one where a file has them so.
fn command(rest: &str, options: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let mut words: Vec<String> = rest.split_ascii_whitespace().map(str::to_owned).collect();
    let more = options.iter().filter(|(key, _)| *key == "command");
    words.extend(more.map(|(_, word)| (*word).to_owned()));
    match words.first() {
        Some(_) => Ok(words),
        None => Err("the program is missing, such as exec:/usr/bin/check --all".to_owned()),
    }
}

/// Where, and the path there. Of a unix socket: `unix:/run/app.sock`, and `unix:/run/app.sock:/path`.
fn split(rest: &str, port: u16) -> Result<(Addr, String), String> {
    if let Some(socket) = rest.strip_prefix("unix:") {
        let (socket, path) = socket.split_once(':').unwrap_or((socket, ""));
        return Ok((Addr::parse(&format!("unix:{socket}"))?, path.to_owned()));
    }
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    let path = match path.starts_with('?') {
        true => format!("/{path}"),
        false => path.to_owned(),
    };
    let named = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    let addr = match named || port == 0 {
        true => Addr::parse(host)?,
        false => Addr::parse(&format!("{host}:{port}"))?,
    };
    Ok((addr, path))
}

#[cfg(test)]
mod tests;
