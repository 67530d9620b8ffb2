//! Which route a request takes: by host, then by path (no I/O).
//!
//! An exact host comes before `*.` and a domain (one label more), which comes before any host; of the paths an exact one comes
//! first, then the longest prefix. A host without a path that fits is as if it were not there. Paths are compared as an
//! application reads them: percent-decoded, slashes as one, dot segments resolved (RFC 3986 section 5.2.4), so that
//! `/a/../admin` takes the way of `/admin`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

/// Whose requests a route takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum HostPattern {
    Any,
    /// Lower case.
    Exact(String),
    /// `*.` and this, lower case.
    Under(String),
}

impl HostPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (name, under) = match lower.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (lower.as_str(), false),
        };
        let label = |label: &str| {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            !label.is_empty() && label.len() <= 63 && label.bytes().all(valid)
        };
        let is_ip = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
        if name.len() > 253 || !(name.split('.').all(label) || (is_ip && !under)) {
            return Err(format!(
                "\"{text}\" is not a host such as shop.example.com or *.example.com (without a port)"
            ));
        }
        Ok(match under {
            true => Self::Under(name.to_owned()),
            false => Self::Exact(name.to_owned()),
        })
    }
}

/// Which paths a route takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathPattern {
    Exact(String),
    /// `/api/*`: `/api` and all below it; empty for everything. Without a slash at its end.
    Under(String),
}

impl PathPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (path, under) = match text.strip_suffix("/*") {
            Some(path) => (path, true),
            None => (text, false),
        };
        let wrong = path.contains(['*', '%', '?', '#']) || path.contains("//");
        let dots = path.split('/').any(|part| part == "." || part == "..");
        if wrong || dots || !(path.starts_with('/') || (under && path.is_empty())) {
            return Err(format!(
                "\"{text}\" is not a path such as /login or /api/* (decoded, one slash at a time, /* at the end only)"
            ));
        }
        Ok(match under {
            true => Self::Under(path.to_owned()),
            false => Self::Exact(path.to_owned()),
        })
    }

    fn takes(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => path == wanted.as_bytes(),
            Self::Under(wanted) => path
                .strip_prefix(wanted.as_bytes())
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'/'))),
        }
    }

    /// Smaller comes first.
    fn rank(&self) -> (bool, std::cmp::Reverse<usize>) {
        match self {
            Self::Exact(path) => (false, std::cmp::Reverse(path.len())),
            Self::Under(path) => (true, std::cmp::Reverse(path.len())),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Exact(name) => f.write_str(name),
            Self::Under(name) => write!(f, "*.{name}"),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Under(path) => write!(f, "{path}/*"),
        }
    }
}

type Paths<T> = Vec<(PathPattern, T)>;

/// What belongs to hosts and paths.
#[derive(Debug, Clone)]
pub(crate) struct Table<T> {
    exact: HashMap<String, Paths<T>>,
    under: HashMap<String, Paths<T>>,
    any: Paths<T>,
}

impl<T> Table<T> {
    /// Of routes in any order.
    pub(crate) fn new(routes: impl IntoIterator<Item = (HostPattern, PathPattern, T)>) -> Self {
        let (mut exact, mut under) = (HashMap::new(), HashMap::new());
        let mut any = Vec::new();
        for (host, path, route) in routes {
            let paths: &mut Paths<T> = match host {
                HostPattern::Any => &mut any,
                HostPattern::Exact(name) => exact.entry(name).or_default(),
                HostPattern::Under(name) => under.entry(name).or_default(),
            };
            paths.push((path, route));
        }
        let lists = exact.values_mut().chain(under.values_mut());
        for paths in lists.chain([&mut any]) {
            paths.sort_by_key(|(path, _)| path.rank());
        }
        Self { exact, under, any }
    }

    /// All requests take one route.
    pub(crate) fn of(route: T) -> Self {
        Self::new([(HostPattern::Any, PathPattern::Under(String::new()), route)])
    }

    /// The same with what `make` makes of each route.
    pub(crate) fn map<U>(&self, mut make: impl FnMut(&T) -> U) -> Table<U> {
        let mut list = |paths: &Paths<T>| -> Paths<U> {
            let one = |(path, route): &(PathPattern, T)| (path.clone(), make(route));
            paths.iter().map(one).collect()
        };
        Table {
            exact: self
                .exact
                .iter()
                .map(|(name, paths)| (name.clone(), list(paths)))
                .collect(),
            under: self
                .under
                .iter()
                .map(|(name, paths)| (name.clone(), list(paths)))
                .collect(),
            any: list(&self.any),
        }
    }

    /// All routes.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &T> {
        let lists = self.exact.values().chain(self.under.values());
        lists.chain([&self.any]).flatten().map(|(_, route)| route)
    }

    /// The route of a request. `host` as it came, with a port perhaps; `path` as it came.
    pub(crate) fn find(&self, host: Option<&[u8]>, path: &[u8]) -> Option<&T> {
        // One route for everything, as every module on its own has it.
        if self.exact.is_empty()
            && self.under.is_empty()
            && let [(PathPattern::Under(prefix), route)] = &self.any[..]
            && prefix.is_empty()
        {
            return Some(route);
        }
        let path = normal(path);
        let fits = |paths: &'_ Paths<T>| paths.iter().position(|(one, _)| one.takes(&path));
        let of = |paths: Option<&'_ Paths<T>>| -> Option<usize> { paths.and_then(fits) };
        let host = host.and_then(name);
        if let Some(host) = host.as_deref() {
            let exact = self.exact.get(host);
            if let (Some(paths), Some(at)) = (exact, of(exact)) {
                return Some(&paths[at].1);
            }
            let under = host
                .split_once('.')
                .and_then(|(_, rest)| self.under.get(rest));
            if let (Some(paths), Some(at)) = (under, of(under)) {
                return Some(&paths[at].1);
            }
        }
        fits(&self.any).map(|at| &self.any[at].1)
    }
}

/// The host in lower case, without port and the dot at its end.
fn name(host: &[u8]) -> Option<Cow<'_, str>> {
    let host = std::str::from_utf8(host).ok()?;
    let host = match host.strip_prefix('[') {
        Some(rest) => &host[..rest.find(']')? + 2],
        None => host.split(':').next().unwrap_or_default(),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Some(host.to_ascii_lowercase().into()),
        false => Some(host.into()),
    }
}

/// The path as an application reads it.
fn normal(path: &[u8]) -> Cow<'_, [u8]> {
    let plain = !path.contains(&b'%')
        && !path.contains(&b'\\')
        && !path.windows(2).any(|two| two == b"//" || two == b"/.");
    if plain {
        return path.into();
    }
    let decoded = decoded(path);
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len());
    let mut parts = decoded
        .split(|byte| matches!(byte, b'/' | b'\\'))
        .peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            b"" | b"." => {}
            b".." => {
                let at = out.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                out.truncate(at);
            }
            part => {
                out.push(b'/');
                out.extend_from_slice(part);
                continue;
            }
        }
        if last {
            out.push(b'/');
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out.into()
}

fn decoded(path: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        let code = match (byte, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match code {
            Some((high, low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                rest = &after[2..];
            }
            None => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, &str, &'static str)]) -> Table<&'static str> {
        Table::new(routes.iter().map(|(host, path, route)| {
            let host = match *host {
                "" => HostPattern::Any,
                host => HostPattern::parse(host).unwrap(),
            };
            (host, PathPattern::parse(path).unwrap(), *route)
        }))
    }

    #[test]
    fn the_most_exact_route_is_taken() {
        let table = table(&[
            ("", "/*", "any"),
            ("", "/login", "login"),
            ("", "/api/*", "api"),
            ("", "/api/v2/*", "v2"),
            ("*.example.com", "/*", "wild"),
            ("shop.example.com", "/api/*", "shop-api"),
        ]);
        let check = |host: &str, path: &str, expected| {
            let found = table.find(Some(host.as_bytes()), path.as_bytes()).copied();
            assert_eq!(found, Some(expected), "{host} {path}");
        };
        check("x", "/", "any");
        check("x", "/login", "login");
        check("x", "/login/", "any");
        check("x", "/api", "api");
        check("x", "/api/", "api");
        check("x", "/apis", "any");
        check("x", "/api/v2/x", "v2");
        check("x", "/api/v2x", "api");
        check("a.example.com", "/login", "wild");
        check("a.b.example.com", "/login", "login");
        check("example.com", "/login", "login");
        check("SHOP.example.com.:8080", "/api/x", "shop-api");
        // Nothing of this host fits: what is less exact is asked.
        check("shop.example.com", "/login", "wild");
        check("[::1]:80", "/login", "login");
        assert_eq!(table.find(None, b"/login"), Some(&"login"));
    }

    #[test]
    fn paths_are_compared_as_applications_read_them() {
        let table = table(&[("", "/admin/*", "admin"), ("", "/a/*", "a")]);
        for path in [
            "/admin",
            "/a/../admin/x",
            "/%61dmin",
            "//admin",
            "/./admin",
            "/a\\..\\admin",
            "/a/%2e%2e/admin",
        ] {
            assert_eq!(table.find(None, path.as_bytes()), Some(&"admin"), "{path}");
        }
        assert_eq!(table.find(None, b"/a/b/.."), Some(&"a"));
        assert_eq!(table.find(None, b"/../../b"), None);
        assert_eq!(table.find(None, b"*"), None);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for wrong in ["", "*", "a b", "a:80", "*.", "a..b", "*.*.a", "/x"] {
            assert!(HostPattern::parse(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "", "x", "*", "/a*", "/a/*/b", "/a//b", "/a/../b", "/%61", "/a?b",
        ] {
            assert!(PathPattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
