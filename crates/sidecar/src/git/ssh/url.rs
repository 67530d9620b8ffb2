//! Where a repository is on an ssh server: `ssh://` and what scp writes (git-clone(1), GIT URLS).

use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

const PORT: u16 = 22;
const USER: &str = "git";

/// A repository on an ssh server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshUrl {
    /// `git` unless it says otherwise.
    pub user: String,
    /// Without brackets.
    pub host: String,
    /// 22 unless it says otherwise.
    pub port: u16,
    /// As the server is told: from the top, of somebody's home (`~…`), or of the user's own.
    pub path: String,
}

impl SshUrl {
    /// Of what follows `ssh://`.
    pub(in crate::git) fn parse(rest: &str) -> Result<Self, String> {
        let rest = percent_decode_str(rest).decode_utf8();
        let rest = rest.map_err(|_| "is not UTF-8")?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (&*rest, ""),
        };
        let (user, place) = user_of(authority)?;
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or("its [ has no ]")?,
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => PORT,
            Some("") => PORT,
            Some(number) => self::port(number)?,
            None => return Err(format!("\"{place}\" is no host and port")),
        };
        let path = match path.starts_with("/~") {
            true => &path[1..],
            false => path,
        };
        Self::checked(user, host, port, path)
    }

    /// Of `[USER@]HOST:PATH`; None when it isn't one.
    pub(in crate::git) fn parse_scp(text: &str) -> Option<Result<Self, String>> {
        let colon = match text
            .find('[')
            .filter(|at| *at == 0 || text[..*at].ends_with('@'))
        {
            Some(_) => text.find("]:").map(|at| at + 1)?,
            None => text.find(':')?,
        };
        let (authority, path) = (&text[..colon], &text[colon + 1..]);
        // As git has it: a / before the colon makes it a path.
        if authority.contains('/') {
            return None;
        }
        let parse = || {
            let (user, place) = user_of(authority)?;
            let inner = place
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            let (host, port) = match inner {
                None => (place, PORT),
                Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => (inner, PORT),
                Some(inner) => match inner.split_once(':') {
                    Some((host, number)) => (host, port(number)?),
                    None => (inner, PORT),
                },
            };
            let path = match path.starts_with("/~") {
                true => &path[1..],
                false => path,
            };
            Self::checked(user, host, port, path)
        };
        Some(parse())
    }

    fn checked(user: &str, host: &str, port: u16, path: &str) -> Result<Self, String> {
        let blank = |text: &str| text.chars().any(|c| c.is_control() || c == ' ');
        if host.is_empty() || blank(host) || blank(user) || host.contains(['[', ']', '@']) {
            return Err("names no host, or has blanks".to_owned());
        }
        if path.chars().any(char::is_control) || path.trim_matches('/').is_empty() {
            return Err("names no repository".to_owned());
        }
        // The server's git-upload-pack would take it for an option.
        if path.starts_with('-') {
            return Err(format!("\"{path}\" is no path; expected ./{path}"));
        }
        Ok(Self {
            user: user.to_owned(),
            host: host.to_owned(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// The same place with another path.
    pub(in crate::git) fn with_path(&self, path: String) -> Self {
        Self {
            path,
            ..self.clone()
        }
    }

    /// What the server is asked to run.
    pub(super) fn command(&self) -> String {
        // Quoted as git does for the other side's shell.
        let path = self.path.replace('\'', r"'\''").replace('!', r"'\!'");
        format!("git-upload-pack '{path}'")
    }
}

/// A URL by which the same is found, whichever way it was written, unless it can only be written as scp does.
impl fmt::Display for SshUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user,
            host,
            port,
            path,
        } = self;
        let is_v6 = host.contains(':');
        let host = match is_v6 {
            true => format!("[{host}]"),
            false => host.clone(),
        };
        let whole = path.starts_with(['/', '~']);
        match (whole, *port) {
            (true, PORT) => write!(f, "ssh://{user}@{host}")?,
            (true, port) => write!(f, "ssh://{user}@{host}:{port}")?,
            (false, PORT) => return write!(f, "{user}@{host}:{path}"),
            (false, port) => return write!(f, "{user}@[{}:{port}]:{path}", self.host),
        }
        let slash = if path.starts_with('~') { "/" } else { "" };
        write!(f, "{slash}{}", path.replace('%', "%25"))
    }
}

fn user_of(authority: &str) -> Result<(&str, &str), String> {
    let Some((user, place)) = authority.rsplit_once('@') else {
        return Ok((USER, authority));
    };
    if user.contains(':') {
        return Err(
            "a password in a URL is seen by everyone who sees processes; use --ssh-key-file"
                .to_owned(),
        );
    }
    match user.is_empty() {
        true => Err("names no user before the @".to_owned()),
        false => Ok((user, place)),
    }
}

fn port(number: &str) -> Result<u16, String> {
    let port = number.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("\"{number}\" is no port"))
}

#[cfg(test)]
mod tests {
    use crate::git::location::Location;

    fn check(text: &str, expected: &str, command: &str) {
        let Ok(Location::Ssh(url)) = Location::parse(text) else {
            panic!("{text}: {:?}", Location::parse(text));
        };
        assert_eq!(url.to_string(), expected, "{text}");
        assert_eq!(
            url.command(),
            format!("git-upload-pack {command}"),
            "{text}"
        );
        let again = Location::parse(expected);
        assert_eq!(again, Ok(Location::Ssh(url)), "{text}");
    }

    #[test]
    fn places_are_those_of_git() {
        check(
            "ssh://host/srv/x.git",
            "ssh://git@host/srv/x.git",
            "'/srv/x.git'",
        );
        check("ssh://me@host:2222/x/", "ssh://me@host:2222/x", "'/x'");
        check("ssh://me@[::1]:2222/x", "ssh://me@[::1]:2222/x", "'/x'");
        check("ssh://[::1]/x", "ssh://git@[::1]/x", "'/x'");
        check("ssh://host/~me/x", "ssh://git@host/~me/x", "'~me/x'");
        check("ssh://host/a%20b%25", "ssh://git@host/a b%25", "'/a b%'");
        check("git@host:team/x.git", "git@host:team/x.git", "'team/x.git'");
        check("host:x", "git@host:x", "'x'");
        check("host:/srv/x", "ssh://git@host/srv/x", "'/srv/x'");
        check("host:~/x", "ssh://git@host/~/x", "'~/x'");
        check("me@[host:2222]:x", "me@[host:2222]:x", "'x'");
        check("[::1]:x", "git@[::1]:x", "'x'");
        check("host:it's!", "git@host:it's!", r"'it'\''s'\!''");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        let check = |text: &str, expected: &str| {
            let why = Location::parse(text).unwrap_err();
            assert!(why.contains(expected), "{text}: {why}");
        };
        check("ssh://me:pw@host/x", "--ssh-key-file");
        check("ssh://host", "no repository");
        check("ssh://host/", "no repository");
        check("ssh:///x", "no host");
        check("ssh://@host/x", "no user");
        check("ssh://host:0/x", "no port");
        check("ssh://host:x/x", "no port");
        check("ssh://[::1/x", "no ]");
        check("host:", "no repository");
        check("ssh://host/a%0ab", "no repository");
        check("ssh://host/a%ff", "not UTF-8");
        check("host:--strict", "expected ./--strict");
        check("./a:b", "absolute");
    }
}
