//! `--source`: what is asked, and how.
//!
//! ```text
//!   [NAME=]SCHEME://WHERE[/PATH][;KEY=VALUE]…       cache=redis://127.0.0.1:6379;password-file=/run/secrets/redis
//! ```

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use podkit_foundation::params::{Addr, ParamType, check_pair};

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
        match self.scheme.word {
            FILE => write!(f, "{FILE}:{}", self.path),
            word => write!(f, "{word}://{}{}", self.addr, self.path),
        }
    }
}

impl ParamType for Spec {
    const TYPE_NAME: &'static str = "source";
    const EXPECTED: &'static str = "[NAME=]SCHEME://HOST:PORT[/PATH][;KEY=VALUE], such as nginx+http://127.0.0.1:8080/stub_status";

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(';');
        let whole = parts.next().unwrap_or_default();
        let (before, rest) = match whole.split_once("://") {
            None => whole
                .split_once(':')
                .filter(|(before, _)| before.rsplit('=').next() == Some(FILE))
                .ok_or("there is no ://")?,
            Some(found) => found,
        };
        let (name, word) = match before.split_once('=') {
            Some((name, word)) => (Some(name), word),
            None => (None, before),
        };
        let scheme = SCHEMES.iter().find(|scheme| scheme.word == word);
        let scheme = scheme.ok_or_else(|| {
            let words: Vec<&str> = SCHEMES.iter().map(|scheme| scheme.word).collect();
            format!("\"{word}\" is not one of {}", words.join(", "))
        })?;
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
        for part in parts {
            let pair = part
                .split_once('=')
                .ok_or_else(|| format!("\"{part}\" is not KEY=VALUE"))?;
            check_pair(pair, &options, &keys)?;
            options.push(pair);
        }
        if let Some((_, value)) = options.iter().find(|(key, _)| *key == "timeout") {
            Duration::parse(value)
                .ok()
                .filter(|time| !time.is_zero())
                .ok_or_else(|| format!("timeout={value} is not a time such as 2s"))?;
        }
        if let Some(name) = name {
            check_name(name)?;
        }
        Ok(Self {
            name: name.map(str::to_owned),
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
            "nginx+http://unix:/run/n/s?a=b",
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
        check("ftp://h:80", "\"ftp\" is not one of ");
        check("nginx+http://u:p@h", ";password-file=FILE");
        check("nginx+http://h:x/", "\"x\" is not a port");
        check("nginx+http://h;x", "\"x\" is not KEY=VALUE");
        check("nginx+http://h;timout=1s", "did you mean timeout?");
        check("nginx+http://h;timeout=1", "timeout=1 is not a time");
        check("a b=nginx+http://h", "the name \"a b\"");
    }
}
