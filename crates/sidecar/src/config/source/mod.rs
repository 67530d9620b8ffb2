//! Where files come from. Each kind can tell all that it has, and wait for a change.

pub(super) mod etcd;
mod file;
pub(super) mod http;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use podkit_foundation::params::ParamType;

use super::set::{Limits, Set};
use crate::publish::{Client, Url};

/// A source, as `--source` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// `file:PATH`: a directory, or one file.
    File(PathBuf),
    /// `http://…` or `https://…`, with `;as=` and `;name=`.
    Http(Url, Form, String),
    /// `etcd://HOST:PORT/PREFIX`, or `etcds://…` by TLS, with `;also=`: the members, and the prefix.
    Etcd(Vec<Url>, String),
}

/// What an HTTP answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One file.
    File,
    /// An archive, plain or gzip.
    Tar,
    /// A JSON object of names and texts.
    Map,
}

impl ParamType for SourceSpec {
    const TYPE_NAME: &'static str = "source";
    const EXPECTED: &'static str = "file:PATH, http(s)://HOST/PATH[;as=file|tar|map][;name=FILE] or etcd(s)://HOST:PORT/PREFIX[;also=HOST:PORT]";

    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("file", "")) => Err("the path is missing".to_owned()),
            Some(("file", path)) => Ok(Self::File(PathBuf::from(path))),
            Some(("http" | "https", _)) => parse_http(text),
            Some(("etcd", rest)) => parse_etcd("http", rest),
            Some(("etcds", rest)) => parse_etcd("https", rest),
            _ => Err(String::new()),
        }
    }
}

impl SourceSpec {
    /// It is reached by TLS.
    pub(super) fn tls(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Http(url, ..) => url.is_tls(),
            Self::Etcd(urls, _) => urls.iter().any(Url::is_tls),
        }
    }
}

fn parse_etcd(scheme: &str, rest: &str) -> Result<SourceSpec, String> {
    let mut parts = rest.split(';');
    let first = Url::parse(&format!("{scheme}:{}", parts.next().unwrap_or_default()))?;
    let prefix = first.target()[1..].to_owned();
    let mut urls = vec![first.with_target("/")];
    for part in parts {
        let also = part
            .strip_prefix("also=")
            .ok_or_else(|| format!("\"{part}\" is not also=HOST:PORT"))?;
        let url = Url::parse(&format!("{scheme}://{also}"))?;
        if url.target() != "/" {
            return Err(format!(
                "also={also} has a path; the prefix is the same for all"
            ));
        }
        urls.push(url);
    }
    Ok(SourceSpec::Etcd(urls, prefix))
}

fn parse_http(text: &str) -> Result<SourceSpec, String> {
    let mut parts = text.split(';');
    let url = Url::parse(parts.next().unwrap_or_default())?;
    let path = url.target().split('?').next().unwrap_or_default();
    let mut form = match [".tar", ".tar.gz", ".tgz"]
        .iter()
        .any(|end| path.ends_with(end))
    {
        true => Form::Tar,
        false => Form::File,
    };
    let mut name = path.rsplit('/').next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('=') {
            Some(("as", "file")) => form = Form::File,
            Some(("as", "tar")) => form = Form::Tar,
            Some(("as", "map")) => form = Form::Map,
            Some(("as", other)) => return Err(format!("as={other} is not file, tar or map")),
            Some(("name", given)) => given.clone_into(&mut name),
            _ => return Err(format!("\"{part}\" is not as=file|tar|map or name=FILE")),
        }
    }
    if form == Form::File {
        super::set::check_name(&name).map_err(|_| {
            "the URL ends in no file name; expected ;name=FILE behind it".to_owned()
        })?;
    }
    Ok(SourceSpec::Http(url, form, name))
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            // What follows the ? may be a secret.
            Self::Http(url, ..) => write!(
                f,
                "{}",
                url.to_string().split('?').next().unwrap_or_default()
            ),
            Self::Etcd(urls, prefix) => {
                let first = urls[0].to_string();
                let rest = first.strip_prefix("http").unwrap_or(&first);
                write!(f, "etcd{rest}{prefix}")
            }
        }
    }
}

/// What all sources are read with.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) limits: Limits,
    pub(super) client: Client,
    pub(super) token_file: Option<PathBuf>,
    /// A user of etcd, and the file with the password.
    pub(super) etcd_login: Option<(String, PathBuf)>,
    /// Between two looks at what tells nothing by itself.
    pub(super) period: Duration,
}

/// A source that is followed.
pub(super) enum Source {
    File(file::FileSource),
    Http(http::HttpSource),
    Etcd(etcd::EtcdSource),
}

impl Source {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(spec: &SourceSpec, reading: &Reading) -> Self {
        match spec {
            SourceSpec::File(path) => Self::File(file::FileSource::new(path, reading)),
            SourceSpec::Http(url, form, name) => {
                Self::Http(http::HttpSource::new(url, *form, name, reading))
            }
            SourceSpec::Etcd(urls, prefix) => {
                Self::Etcd(etcd::EtcdSource::new(urls, prefix, reading))
            }
        }
    }

    /// All that it has; None when that is what it had. With `anew` it is asked as if for the first time. An error is a line.
    pub(super) async fn fetch(&mut self, anew: bool) -> Result<Option<Set>, String> {
        match self {
            Self::File(source) => source.fetch().map(Some),
            Self::Http(source) => source.fetch(anew).await,
            Self::Etcd(source) => source.fetch(anew).await.map(Some),
        }
    }

    /// Returns when `fetch` may have more to tell.
    pub(super) async fn changed(&mut self) {
        match self {
            Self::File(source) => source.changed().await,
            Self::Http(source) => source.changed().await,
            Self::Etcd(source) => source.changed().await,
        }
    }
}

/// `period`, a tenth more or less, so that many who began together don't go on asking together.
pub(super) fn spread(period: Duration) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |since| since.subsec_nanos());
    period.mul_f64(0.9 + 0.2 * f64::from(nanos % 1_000_003) / 1_000_003.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read() {
        let check = |text: &str, form, name: &str| match SourceSpec::parse(text) {
            Ok(SourceSpec::Http(_, found, called)) => {
                assert_eq!((found, called.as_str()), (form, name), "{text}");
            }
            other => panic!("{text}: {other:?}"),
        };
        check("http://h/a/nginx.conf?token=x", Form::File, "nginx.conf");
        check("https://h/a.tar.gz", Form::Tar, "a.tar.gz");
        check("http://h/a;as=map", Form::Map, "a");
        check("http://h/;name=x/y.conf", Form::File, "x/y.conf");
        let shown = |text: &str| SourceSpec::parse(text).unwrap().to_string();
        assert_eq!(shown("http://h/a?token=x"), "http://h:80/a");
        assert_eq!(shown("etcds://h:2379/app/"), "etcds://h:2379/app/");
        assert_eq!(
            shown("etcd://h:1/app/;also=i:2;also=j:3"),
            "etcd://h:1/app/"
        );
        assert_eq!(shown("file:/etc/app"), "file:/etc/app");
        for wrong in [
            "",
            "/etc",
            "file:",
            "http://h/",
            "http://h/a;as=zip",
            "http://h/a;x",
            "http://h/;name=../x",
            "etcd://u:p@h/",
            "etcd://h/a;or=i:2",
            "etcd://h/a;also=i:2/b",
            "etcd://h/a;also=",
            "consul://h/",
        ] {
            assert!(SourceSpec::parse(wrong).is_err(), "{wrong}");
        }
    }
}
