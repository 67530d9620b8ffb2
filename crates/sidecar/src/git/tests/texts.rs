//! What people and servers write.

use podkit_foundation::params::ParamType as _;
use proptest::prelude::*;

use crate::git::location::{RefOf, Repo};
use crate::git::sparse::Sparse;
use crate::git::wire;

#[test]
fn repositories_have_names() {
    let check =
        |text: &str, expected: Result<(&str, &str), &str>| match (Repo::parse(text), expected) {
            (Ok(repo), Ok((name, location))) => {
                assert_eq!(
                    (repo.name.as_str(), repo.location.to_string().as_str()),
                    (name, location)
                );
            }
            (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
    check(
        "https://host/team/app.git",
        Ok(("app", "https://host/team/app.git")),
    );
    check(
        "site=http://host:8080/x/",
        Ok(("site", "http://host:8080/x")),
    );
    check("https://[::1]:8443/x", Ok(("x", "https://[::1]:8443/x")));
    check("/srv/git/app.git", Ok(("app", "/srv/git/app.git")));
    check("file:///srv/app.bundle", Ok(("app", "/srv/app.bundle")));
    check("/srv/app/.git", Ok(("app", "/srv/app/.git")));
    check("https://me:secret@host/x", Err("--password-file"));
    check("ssh://git@host/x", Err("ssh is not spoken"));
    check("git@host:x.git", Err("ssh is not spoken"));
    check("git://host/x", Err("git:// is not spoken"));
    check("app.git", Err("absolute"));
    check("https:///x", Err("no host"));
    check("https://host:port/x", Err("no port"));
    check("https://host/x?y", Err("?"));
    check("/", Err("no name"));
}

#[test]
fn refs_are_what_git_takes() {
    for text in [
        "main",
        "feature/x",
        "v1.0",
        "HEAD",
        "refs/pull/1/head",
        "app=main",
    ] {
        RefOf::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
    }
    for text in ["", "-x", "a..b", "a b", "a~1", "a^", "a:b", "x/", "app="] {
        assert!(RefOf::parse(text).is_err(), "{text}");
    }
}

#[test]
fn sparse_patterns_are_those_of_git() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("patterns");
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        Sparse::read(&file)
    };
    let check = |patterns: &str, path: &str, expected: bool| {
        let sparse = read(patterns).unwrap();
        assert_eq!(sparse.takes(path), expected, "{patterns:?} {path}");
        let above: Vec<&str> = path.split('/').collect();
        for end in 1..above.len() {
            assert!(
                !expected || sparse.may_hold(&above[..end].join("/")),
                "{patterns:?} {path}"
            );
        }
    };
    check("/*\n!/*/", "README", true);
    check("/*\n!/*/", "docs/a", false);
    check("/*\n!/*/\n/docs/", "docs/a/b", true);
    check("docs", "x/docs/y", true);
    check("docs/", "docs", false);
    check("*.html", "a/b/c.html", true);
    check("/*.html", "a/c.html", false);
    check("a/**/z", "a/b/c/z", true);
    check("a/**/z", "a/z", true);
    check("**/z", "a/b/z/y", true);
    check("/docs/\n!/docs/big", "docs/big/x", false);
    check("# only\n\n/a?c", "abc", true);
    assert!(read("# nothing\n").is_err());
    assert!(read("[ab]\n").is_err());
}

fn packet(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

#[test]
fn what_a_server_can_do_is_read() {
    let check = |bytes: &[u8], expected: &str| {
        let found =
            wire::read_handshake(bytes).map_or_else(|error| error.to_string(), |()| String::new());
        assert!(
            found.contains(expected) && found.is_empty() == expected.is_empty(),
            "{found}"
        );
    };
    let service = [packet("# service=git-upload-pack\n"), b"0000".to_vec()].concat();
    let version = [packet("version 2\n"), packet("fetch=shallow\n")].concat();
    check(
        &[service.clone(), version.clone(), b"0000".to_vec()].concat(),
        "",
    );
    check(&[version.clone(), b"0000".to_vec()].concat(), "");
    check(
        &[service, packet(&format!("{} HEAD\n", "0".repeat(40)))].concat(),
        "old protocol",
    );
    check(
        &[version, packet("object-format=sha256\n"), b"0000".to_vec()].concat(),
        "SHA-256",
    );
    check(&packet("ERR no\n"), "the server says: no");
    check(b"<html>", "no length");
}

proptest! {
    /// Whatever a server sends, it is an answer or an error.
    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(wire::read_handshake(&bytes[..]));
        drop(wire::read_refs(&bytes[..]));
        if let Ok((_, mut pack)) = wire::read_fetch(&bytes[..]) {
            drop(std::io::copy(&mut pack, &mut std::io::sink()));
        }
    }

    /// The pack is the same however it is cut into packets, progress between them.
    #[test]
    fn a_pack_comes_out_of_its_packets(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8)) {
        let mut bytes = packet("packfile\n");
        for part in &parts {
            bytes.extend(packet("\u{2}progress"));
            bytes.extend(format!("{:04x}\u{1}", part.len() + 5).into_bytes());
            bytes.extend(part);
        }
        bytes.extend(b"0000");
        let (_, mut pack) = wire::read_fetch(&bytes[..]).unwrap();
        let mut out = Vec::new();
        std::io::copy(&mut pack, &mut out).unwrap();
        prop_assert_eq!(out, parts.concat());
    }
}
