//! Where a repository is, as `--repo` names it, and what of it is wanted, as `--ref` names it.

use std::fmt;
use std::path::{Path, PathBuf};

use gix_hash::ObjectId;
use podkit_foundation::params::ParamType;

use super::ssh::SshUrl;
use super::wire::Reference;

/// `[NAME=]URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// What it is called in links, logs and metrics.
    pub name: String,
    /// Where it is.
    pub location: Location,
}

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A server, over HTTP.
    Http(Url),
    /// A server, over ssh.
    Ssh(SshUrl),
    /// A directory with a repository, or a file that is a bundle.
    Path(PathBuf),
}

/// An address of the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `https`.
    pub tls: bool,
    /// Without brackets.
    pub host: String,
    /// 443 or 80 unless it says otherwise.
    pub port: u16,
    /// Begins with `/`, does not end with one.
    pub path: String,
}

impl Url {
    /// Of `http://…` or `https://…`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err("begins neither with https:// nor with http://".to_owned()),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(
                "a user name or password in a URL is seen by everyone who sees processes; use --username and \
                 --password-file"
                    .to_owned(),
            );
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or("its [ has no ]")?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(number) => number
                .parse()
                .map_err(|_| format!("\"{number}\" is no port"))?,
            None => return Err(format!("\"{authority}\" is no host and port")),
        };
        if host.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
            return Err("names no host, or has blanks".to_owned());
        }
        if path.contains(['?', '#']) {
            return Err("has a ? or a #, which no repository has".to_owned());
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// As the Host field has it.
    pub(super) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => url.fmt(f),
            Self::Ssh(url) => url.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl Location {
    /// Of a URL or a path.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file://") {
            return Self::parse(path);
        }
        if text.starts_with('/') {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        match text.split_once("://") {
            Some(("http" | "https", _)) => Url::parse(text).map(Self::Http),
            Some(("ssh", rest)) => SshUrl::parse(rest).map(Self::Ssh),
            Some((scheme, _)) => Err(format!("{scheme}:// is not spoken")),
            None => SshUrl::parse_scp(text)
                .unwrap_or_else(|| Err("a path has to be absolute".to_owned()))
                .map(Self::Ssh),
        }
    }
}

/// A link's or a repository's name: one path component that hides nothing.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match !name.is_empty() && !name.starts_with('.') && name.len() <= 100 && name.chars().all(fine)
    {
        true => Ok(()),
        false => Err(format!(
            "\"{name}\" is no name (letters, digits, . _ -; not . first)"
        )),
    }
}

impl ParamType for Repo {
    const TYPE_NAME: &'static str = "repository";
    const EXPECTED: &'static str = "[NAME=] and https://HOST/PATH, http://HOST/PATH, ssh://[USER@]HOST[:PORT]/PATH, [USER@]HOST:PATH, or /PATH of a repository or a bundle";

    fn parse(text: &str) -> Result<Self, String> {
        let named = text
            .split_once('=')
            .filter(|(name, _)| check_name(name).is_ok());
        let (name, location) = named.map_or((None, text), |(name, rest)| (Some(name), rest));
        let location = Location::parse(location)?;
        let name = match (name, &location) {
            (Some(name), _) => name.to_owned(),
            (None, Location::Http(url)) => base(Path::new(&url.path)),
            (None, Location::Ssh(url)) => base(Path::new(&url.path)),
            (None, Location::Path(path)) => base(path),
        };
        check_name(&name)?;
        Ok(Self { name, location })
    }
}

/// The name that `git clone` would give: the last component without `.git`.
fn base(path: &Path) -> String {
    let path = match path.ends_with(".git") {
        true => path.parent().unwrap_or(path),
        false => path,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".bundle").unwrap_or(&name);
    name.strip_suffix(".git").unwrap_or(name).to_owned()
}

/// `[NAME=]REF`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefOf {
    /// Of that repository; None: of all that have none of their own.
    pub repo: Option<String>,
    /// What is wanted.
    pub wanted: Revision,
}

/// A branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// By its name, short or full, or HEAD.
    Name(String),
    /// By its id.
    Commit(ObjectId),
}

impl Revision {
    fn parse(text: &str) -> Result<Self, String> {
        let hex = text.len() >= 7 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if hex && text.len() == 40 {
            let id = ObjectId::from_hex(text.as_bytes());
            return id.map(Self::Commit).map_err(|error| error.to_string());
        }
        let wrong = text.is_empty()
            || text.starts_with(['-', '/', '.'])
            || text.ends_with(['/', '.'])
            || text.contains("..")
            || text.contains(|c: char| c.is_control() || " ~^:?*[\\".contains(c));
        match wrong {
            true => Err("is no name of a branch or tag".to_owned()),
            false => Ok(Self::Name(text.to_owned())),
        }
    }

    /// The names that a reference may have, first choice first: those of git (gitrevisions(7)).
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Commit(_) => Vec::new(),
            Self::Name(name) if name == "HEAD" || name.starts_with("refs/") => vec![name.clone()],
            Self::Name(name) => vec![format!("refs/tags/{name}"), format!("refs/heads/{name}")],
        }
    }

    /// The commit, among references.
    pub(super) fn choose(&self, references: &[Reference]) -> Option<ObjectId> {
        if let Self::Commit(id) = self {
            return Some(*id);
        }
        let names = self.names();
        let found = names
            .iter()
            .find_map(|name| references.iter().find(|reference| reference.name == *name));
        found.map(|reference| reference.id)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Commit(id) => id.fmt(f),
        }
    }
}

impl ParamType for RefOf {
    const TYPE_NAME: &'static str = "ref";
    const EXPECTED: &'static str =
        "[NAME=] and a branch, a tag, HEAD, refs/…, or a commit's 40 hexadecimal digits";

    fn parse(text: &str) -> Result<Self, String> {
        let (repo, wanted) = match text.split_once('=') {
            Some((repo, wanted)) => (Some(repo.to_owned()), wanted),
            None => (None, text),
        };
        Ok(Self {
            repo,
            wanted: Revision::parse(wanted)?,
        })
    }
}
