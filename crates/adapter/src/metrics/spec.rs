//! `--source`: what is asked, and how.
//!
//! ```text
//!   [NAME=]SCHEME://WHERE[/PATH][;KEY=VALUE]…       cache=redis://127.0.0.1:6379;password-file=/run/secrets/redis
//! ```

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use podkit_foundation::params::{Addr, ParamType, check_pair, unknown};

use super::source::{jmx, json, prometheus, redis, sql, statsd, text_file};

/// What kind of server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Jmx,
    Json,
    Memcached,
    Nginx,
    Prometheus,
    Redis,
    MySql,
    Postgres,
    Statsd,
    TextFile,
}

/// A scheme: how it is written, and what may be said after it.
#[derive(Debug)]
pub(crate) struct Scheme {
    pub(crate) word: &'static str,
    pub(crate) kind: Kind,
    pub(crate) tls: bool,
    /// Used where WHERE names none; 0 when it has to.
    port: u16,
    /// The keys that it takes besides `timeout`.
    keys: &'static [&'static str],
}

impl Scheme {
    /// The keys that it takes besides `timeout`.
    pub(crate) fn keys(&self) -> &'static [&'static str] {
        self.keys
    }
}

/// All there are.
pub(crate) const SCHEMES: &[Scheme] = &[
    Scheme {
        word: "nginx+http",
        kind: Kind::Nginx,
        tls: false,
        port: 80,
        keys: &[],
    },
    Scheme {
        word: "nginx+https",
        kind: Kind::Nginx,
        tls: true,
        port: 443,
        keys: &[],
    },
    Scheme {
        word: "memcached",
        kind: Kind::Memcached,
        tls: false,
        port: 11211,
        keys: &[],
    },
    Scheme {
        word: "redis",
        kind: Kind::Redis,
        tls: false,
        port: 6379,
        keys: redis::KEYS,
    },
    Scheme {
        word: "rediss",
        kind: Kind::Redis,
        tls: true,
        port: 6379,
        keys: redis::TLS_KEYS,
    },
    Scheme {
        word: "mysql",
        kind: Kind::MySql,
        tls: false,
        port: 3306,
        keys: sql::KEYS,
    },
    Scheme {
        word: "postgres",
        kind: Kind::Postgres,
        tls: false,
        port: 5432,
        keys: sql::KEYS,
    },
    Scheme {
        word: "statsd",
        kind: Kind::Statsd,
        tls: false,
        port: 9125,
        keys: statsd::KEYS,
    },
    Scheme {
        word: "prometheus+http",
        kind: Kind::Prometheus,
        tls: false,
        port: 80,
        keys: prometheus::KEYS,
    },
    Scheme {
        word: "prometheus+https",
        kind: Kind::Prometheus,
        tls: true,
        port: 443,
        keys: prometheus::TLS_KEYS,
    },
    Scheme {
        word: "json+http",
        kind: Kind::Json,
        tls: false,
        port: 80,
        keys: json::KEYS,
    },
    Scheme {
        word: "json+https",
        kind: Kind::Json,
        tls: true,
        port: 443,
        keys: json::TLS_KEYS,
    },
    Scheme {
        word: FILE,
        kind: Kind::TextFile,
        tls: false,
        port: 0,
        keys: text_file::KEYS,
    },
    Scheme {
        word: "jmx+http",
        kind: Kind::Jmx,
        tls: false,
        port: 8778,
        keys: jmx::KEYS,
    },
    Scheme {
        word: "jmx+https",
        kind: Kind::Jmx,
        tls: true,
        port: 8778,
        keys: jmx::TLS_KEYS,
    },
];

/// A scheme that has no server: a path follows its colon.
const FILE: &str = "text+file";

/// A source as it was given.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Its samples' label `source`.
    pub(crate) name: Option<String>,
    pub(crate) scheme: &'static Scheme,
    /// What follows `://`, up to the path. Of a file it says nothing.
    pub(crate) addr: Addr,
    /// Begins with `/`, or is empty.
    pub(crate) path: String,
    options: Vec<(String, String)>,
}

impl Spec {
    /// The value of one of its keys.
    pub(crate) fn option(&self, key: &str) -> Option<&str> {
        let found = self.options.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }

    /// The value of one of its keys that names a file.
    pub(crate) fn file(&self, key: &str) -> Option<PathBuf> {
        self.option(key).map(PathBuf::from)
    }

    /// `timeout=`: how long its first answer may take.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        // It was read when the source was.
        self.option("timeout")
            .and_then(|text| Duration::parse(text).ok())
    }

    /// Its name, or what stands for it.
    pub(crate) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.scheme.word)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        if self.scheme.word == FILE {
            return write!(f, "{FILE}:{}", self.path);
        }
        write!(f, "{}://{}", self.scheme.word, self.addr)?;
        if matches!(self.addr, Addr::Unix(_)) && !self.path.is_empty() {
            f.write_str(":")?;
        }
        f.write_str(&self.path)
    }
}

impl ParamType for Spec {
    const TYPE_NAME: &'static str = "source";
    const EXPECTED: &'static str = "[NAME=]SCHEME://HOST:PORT[/PATH][;KEY=VALUE], such as nginx+http://127.0.0.1:8080/stub_status";

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(';');
        let whole = parts.next().unwrap_or_default();
        let (name, whole) = match split_scheme(whole) {
            Some((before, _)) => match before.split_once('=') {
                Some((name, _)) => (Some(name), &whole[name.len() + 1..]),
                None => (None, whole),
            },
            None => (None, whole),
        };
        let pairs: Result<Vec<_>, _> = parts
            .map(|part| {
                part.split_once('=')
                    .ok_or_else(|| format!("\"{part}\" is not KEY=VALUE"))
            })
            .collect();
        let mut spec = Self::of(whole, &pairs?)?;
        if let Some(name) = name {
            check_name(name)?;
            spec.name = Some(name.to_owned());
        }
        Ok(spec)
    }
}

/// What stands before `://`, and after it; of a file the one colon parts them.
fn split_scheme(whole: &str) -> Option<(&str, &str)> {
    whole.split_once("://").or_else(|| {
        let (before, rest) = whole.split_once(':')?;
        (before.rsplit('=').next() == Some(FILE)).then_some((before, rest))
    })
}

impl Spec {
    /// Of `SCHEME://WHERE[/PATH]`, and its keys.
    pub(crate) fn of(whole: &str, pairs: &[(&str, &str)]) -> Result<Self, String> {
        let (word, rest) = split_scheme(whole).ok_or("there is no ://")?;
        let scheme = scheme(word)?;
        let is_file = scheme.word == FILE;
        if rest.contains('@') && !is_file {
            return Err(
                "a user goes to ;user=NAME, a password into a file: ;password-file=FILE".to_owned(),
            );
        }
        let (addr, path) = match is_file {
            true => (Addr::parse(":1")?, rest.to_owned()),
            false => split(rest, scheme.port)?,
        };
        let mut keys = scheme.keys.to_vec();
        keys.push("timeout");
        let mut options: Vec<(&str, &str)> = Vec::new();
        for pair in pairs {
            check_pair(*pair, &options, &keys)?;
            options.push(*pair);
        }
        if let Some((_, value)) = options.iter().find(|(key, _)| *key == "timeout") {
            Duration::parse(value)
                .ok()
                .filter(|time| !time.is_zero())
                .ok_or_else(|| format!("timeout={value} is not a time such as 2s"))?;
        }
        Ok(Self {
            name: None,
            scheme,
            addr,
            path,
            options: options
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        })
    }
}

/// The scheme of that word.
fn scheme(word: &str) -> Result<&'static Scheme, String> {
    let found = SCHEMES.iter().find(|scheme| scheme.word == word);
    found.ok_or_else(|| unknown("scheme", word, SCHEMES.iter().map(|scheme| scheme.word)))
}

/// Where sources may be: `SCHEME://WHERE[/PATH]` with `*` for any text without `/`.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// Which scheme it is has to be said, so that the keys beside it can be checked.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (word, rest) = split_scheme(text).ok_or("there is no ://")?;
        let scheme = scheme(word)?;
        match scheme.kind {
            Kind::Statsd => {
                return Err("a statsd listens, and can't be asked; it is a --source".to_owned());
            }
            Kind::TextFile => {
                return Err(
                    "files are this machine's, and no targets; they are a --source".to_owned(),
                );
            }
            _ => {}
        }
        let port = scheme.port;
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        let whole = match rest.starts_with("unix:") || port == 0 || names_port(host) {
            true => text.to_owned(),
            false => format!("{word}://{host}:{port}{path}"),
        };
        let pattern = Self(whole.trim_end_matches('/').to_owned());
        // It must be able to be one.
        Spec::of(&pattern.sample(), &[])?;
        Ok(pattern)
    }

    /// Something that it matches.
    pub(crate) fn sample(&self) -> String {
        self.0.replace('*', "1")
    }

    /// It is such a one.
    pub(crate) fn matches(&self, spec: &Spec) -> bool {
        let shown = spec.to_string();
        let (mut ours, mut theirs) = (self.0.split('/'), shown.trim_end_matches('/').split('/'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(pattern), Some(text)) if glob(pattern, text) => {}
                _ => return false,
            }
        }
    }
}

/// `*` stands for any text.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A name is a label's value, and stands before `=`.
fn check_name(name: &str) -> Result<(), String> {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !name.is_empty() && name.len() <= 63 && name.bytes().all(right) {
        true => Ok(()),
        false => Err(format!(
            "the name \"{name}\" is not 1 to 63 letters, digits, -, _ or ."
        )),
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
    let addr = match names_port(host) || port == 0 {
        true => Addr::parse(host)?,
        false => Addr::parse(&format!("{host}:{port}"))?,
    };
    Ok((addr, path))
}

fn names_port(host: &str) -> bool {
    host.rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_shown_without_what_is_secret() {
        let check = |text: &str, shown: &str| {
            assert_eq!(Spec::parse(text).unwrap().to_string(), shown);
        };
        check(
            "nginx+http://h/stub_status",
            "nginx+http://h:80/stub_status",
        );
        check(
            "web=nginx+https://[::1]/x;timeout=2s",
            "web=nginx+https://[::1]:443/x",
        );
        check(
            "nginx+http://unix:/run/n:/s?a=b",
            "nginx+http://unix:/run/n:/s?a=b",
        );
        check("nginx+http://:8080", "nginx+http://:8080");
        check("a=text+file:/x@y/*.prom", "a=text+file:/x@y/*.prom");
        check("text+file:///x", "text+file:/x");
        let spec = Spec::parse("nginx+http://h:1/;timeout=250ms").unwrap();
        assert_eq!(spec.timeout(), Some(Duration::from_millis(250)));
        assert_eq!(spec.label(), "nginx+http");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, why: &str| {
            let error = Spec::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        };
        check("h:80", "there is no ://");
        check("ftp://h:80", "there is no scheme \"ftp\"; there are ");
        check("nginx+http://u:p@h", ";password-file=FILE");
        check("nginx+http://h:x/", "\"x\" is not a port");
        check("nginx+http://h;x", "\"x\" is not KEY=VALUE");
        check("nginx+http://h;timout=1s", "did you mean timeout?");
        check("nginx+http://h;timeout=1", "timeout=1 is not a time");
        check("a b=nginx+http://h", "the name \"a b\"");
    }

    #[test]
    fn a_star_is_any_text_without_a_slash() {
        let check = |pattern: &str, source: &str, expected: bool| {
            let pattern = Pattern::parse(pattern).unwrap();
            let spec = Spec::parse(source).unwrap();
            assert_eq!(pattern.matches(&spec), expected, "{pattern:?} {source}");
        };
        check("redis://*.cache:6379", "redis://a.cache", true);
        check("redis://*.cache", "redis://a.b.cache:6379/", true);
        check("redis://*.cache", "redis://a.cache:6380", false);
        check("redis://*.cache", "rediss://a.cache", false);
        check("redis://*.cache", "redis://a.cache/1", false);
        check("redis://*.cache/*", "redis://a.cache/1", true);
        check("redis://*.cache", "redis://evil/x.cache:6379", false);
        check("redis://*", "redis://[::1]", true);
        check("redis://*:*", "redis://h:7", true);
        check("redis://a*b*c", "redis://abbc", true);
        check("redis://a*b*c", "redis://ac", false);
        check("redis://a*a", "redis://a", false);
        check("redis://unix:/run/*.sock", "redis://unix:/run/a.sock", true);
        check(
            "redis://unix:/run/*.sock",
            "redis://unix:/run/../a.sock",
            false,
        );
        check(
            "nginx+http://*:8080/stub_status",
            "nginx+http://h:8080/stub_status",
            true,
        );
        check(
            "nginx+http://*:8080/stub_status",
            "nginx+http://h:8080/stub_status?a",
            false,
        );
        check(
            "nginx+http://*:8080/stub_status",
            "nginx+http://h:8080/admin",
            false,
        );
        for (none, why) in [
            ("*://h", "there is no scheme \"*\"; there are "),
            ("h", "there is no ://"),
            ("redis://*@h", "a user goes to"),
            ("redis://h:x*", "is not a port"),
        ] {
            let error = Pattern::parse(none).unwrap_err();
            assert!(error.contains(why), "{none}: {error}");
        }
    }
}
