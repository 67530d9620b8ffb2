//! Where submodules are, by `.gitmodules` (gitmodules(5)).

use super::location::{Location, Url};

/// Where the submodule at `path` is. A server's repository can't name a path of this machine.
pub(super) fn find(text: &str, path: &str, parent: &Location) -> Result<Location, String> {
    let (mut at, mut url) = (None, None);
    for line in text.lines().map(str::trim).chain(["[end]"]) {
        if line.starts_with('[') {
            if at == Some(path) {
                let url: &str =
                    url.ok_or_else(|| format!("submodule {path}: .gitmodules has no url"))?;
                return resolve(url, parent)
                    .map_err(|why| format!("submodule {path}: {url}: {why}"));
            }
            (at, url) = (None, None);
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let value = value.trim().trim_matches('"');
        match key.trim() {
            "path" => at = Some(value),
            "url" => url = Some(value),
            _ => {}
        }
    }
    Err(format!(
        "submodule {path}: .gitmodules does not say where it is"
    ))
}

fn resolve(url: &str, parent: &Location) -> Result<Location, String> {
    let relative = url.starts_with("./") || url.starts_with("../");
    if let (true, Location::Ssh(parent)) = (relative, parent) {
        let path = joined(&parent.path, url)?;
        return Ok(Location::Ssh(parent.with_path(path)));
    }
    let whole = match relative {
        true => {
            let base = parent.to_string();
            let (root, below) = match base.find("://") {
                Some(at) => {
                    let path = base[at + 3..]
                        .find('/')
                        .map_or(base.len(), |slash| at + 3 + slash);
                    base.split_at(path)
                }
                None => ("", base.as_str()),
            };
            format!("{root}{}", joined(below, url)?)
        }
        false => url.to_owned(),
    };
    match (Location::parse(&whole)?, parent) {
        (Location::Path(_), Location::Http(_) | Location::Ssh(_)) => {
            Err("a repository of a server can't name a path of this machine".to_owned())
        }
        (location, _) => Ok(location),
    }
}

/// A path from another one on. Nothing is above the top or somebody's home.
fn joined(base: &str, path: &str) -> Result<String, String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                let left = parts.pop().filter(|part| !part.starts_with('~'));
                left.ok_or("leads above the top")?;
            }
            part => parts.push(part),
        }
    }
    let top = if base.starts_with('/') { "/" } else { "" };
    match parts.is_empty() {
        true => Err("leads to no repository".to_owned()),
        false => Ok(format!("{top}{}", parts.join("/"))),
    }
}

/// Whether both are behind the same door, so that what opens one may be shown to the other.
pub(super) fn is_same_host(one: &Location, other: &Location) -> bool {
    let door = |location: &Location| match location {
        Location::Http(Url {
            tls, host, port, ..
        }) => Some((*tls, host.clone(), *port)),
        // A key stays where it is: what is shown of it is good for that server only.
        Location::Ssh(_) | Location::Path(_) => None,
    };
    door(one).is_some() && door(one) == door(other)
}

/// A directory's name for a submodule's store.
pub(super) fn store_name(path: &str) -> String {
    // Told apart: `a/b` and `a%2fb`.
    path.replace('%', "%25").replace('/', "%2f")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, parent: &str, expected: Result<&str, ()>) {
        let text = format!(
            "[submodule \"x\"]\n\tpath = lib/x\n\turl = {url}\n[submodule \"y\"]\n\tpath = y\n"
        );
        let parent = Location::parse(parent).unwrap();
        let found = find(&text, "lib/x", &parent);
        let found = found.as_ref().map(ToString::to_string).map_err(|_| ());
        assert_eq!(
            found.as_deref(),
            expected.as_ref().map(|url| *url).map_err(|()| &()),
            "{url}"
        );
    }

    #[test]
    fn relative_places_begin_at_the_repository() {
        check(
            "../x.git",
            "https://host/team/app.git",
            Ok("https://host/team/x.git"),
        );
        check("./x", "https://host/app", Ok("https://host/app/x"));
        check("../../../x", "https://host/team/app", Err(()));
        check("../x", "/srv/git/app.git", Ok("/srv/git/x"));
        check("https://other/x", "https://host/app", Ok("https://other/x"));
        check(
            "../x.git",
            "ssh://me@host:2222/team/app.git",
            Ok("ssh://me@host:2222/team/x.git"),
        );
        check("../x", "git@host:team/app", Ok("git@host:team/x"));
        check("../x", "git@host:app", Ok("git@host:x"));
        check("../../x", "git@host:app", Err(()));
        check("../x", "git@host:/srv/app", Ok("ssh://git@host/srv/x"));
        check("../x", "ssh://host/~me/app", Ok("ssh://git@host/~me/x"));
        check("../../x", "ssh://host/~me/app", Err(()));
        check("git@host:x", "https://host/app", Ok("git@host:x"));
        check("https://host/x", "git@host:app", Ok("https://host/x"));
    }

    #[test]
    fn a_server_names_no_path_here() {
        check("/etc", "https://host/app", Err(()));
        check("file:///etc", "https://host/app", Err(()));
        check("/etc", "git@host:app", Err(()));
        check("/srv/x", "/srv/app", Ok("/srv/x"));
    }

    #[test]
    fn one_without_a_place_is_an_error() {
        let parent = Location::parse("https://host/app").unwrap();
        assert!(find("", "x", &parent).is_err());
        assert!(find("[submodule \"y\"]\npath = y\n", "y", &parent).is_err());
    }
}
