//! What people and servers write.

use podkit_foundation::params::ParamType as _;
use proptest::prelude::*;

use crate::git::location::{RefOf, Repo};
use crate::git::sparse::Sparse;
use crate::git::ssh::KnownHosts;
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
    check(
        "ssh://host/team/app.git",
        Ok(("app", "ssh://git@host/team/app.git")),
    );
    check("git@host:x.git", Ok(("x", "git@host:x.git")));
    check(
        "site=me@host:~/x.git",
        Ok(("site", "ssh://me@host/~/x.git")),
    );
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
        let found = match wire::read_greeting(bytes) {
            Ok(wire::Greeting::Two) => String::new(),
            Ok(wire::Greeting::Old(_)) => "old protocol".to_owned(),
            Err(error) => error.to_string(),
        };
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
        &[
            service,
            packet(&format!("{} HEAD\n", "0".repeat(40))),
            b"0000".to_vec(),
        ]
        .concat(),
        "old protocol",
    );
    check(
        &[version, packet("object-format=sha256\n"), b"0000".to_vec()].concat(),
        "SHA-256",
    );
    check(&packet("ERR no\n"), "the server says: no");
    check(b"<html>", "no length");
}

#[test]
fn an_old_server_names_all_that_it_has() {
    let id = |digit: char| digit.to_string().repeat(40);
    let line = |text: &str| packet(&format!("{text}\n"));
    let greeting = |lines: &[String]| {
        let mut bytes: Vec<u8> = lines.iter().flat_map(|text| line(text)).collect();
        bytes.extend(b"0000");
        wire::read_greeting(&bytes[..])
    };
    let can = "side-band-64k ofs-delta shallow thin-pack no-progress agent=git/1";
    let found = greeting(&[
        format!("{} HEAD\0{can}", id('a')),
        format!("{} refs/heads/main", id('a')),
        format!("{} refs/tags/v1", id('b')),
        format!("{} refs/tags/v1^{{}}", id('c')),
    ]);
    let Ok(wire::Greeting::Old(old)) = found else {
        panic!("{found:?}");
    };
    let names: Vec<String> = old
        .references
        .iter()
        .map(|reference| format!("{} {}", reference.name, reference.id))
        .collect();
    let expected = [
        ("HEAD", 'a'),
        ("refs/heads/main", 'a'),
        ("refs/tags/v1", 'c'),
    ];
    assert_eq!(
        names,
        expected.map(|(name, digit)| format!("{name} {}", id(digit)))
    );

    let wanted = |digit: char| wire::Wanted {
        want: gix_hash::ObjectId::from_hex(id(digit).as_bytes()).unwrap(),
        have: None,
        shallow: Vec::new(),
        depth: 1,
    };
    // Of an annotated tag its name is asked for, not the commit, which has none.
    let request = wire::fetch_old(&wanted('c'), &old).unwrap();
    let words = "side-band-64k ofs-delta no-progress";
    let expected = [
        line(&format!("want {} {words}", id('b'))),
        line("deepen 1"),
        b"0000".to_vec(),
        line("done"),
    ];
    assert_eq!(
        String::from_utf8(request),
        String::from_utf8(expected.concat())
    );
    let why = wire::fetch_old(&wanted('d'), &old).unwrap_err().to_string();
    assert!(why.contains("AcceptEnv GIT_PROTOCOL"), "{why}");

    let answer = [
        line(&format!("shallow {}", id('c'))),
        b"0000".to_vec(),
        line("NAK"),
        packet("\u{2}progress"),
        packet("\u{1}PACK"),
        b"0000".to_vec(),
    ]
    .concat();
    let (shallow, mut pack) = wire::read_fetch_old(&answer[..], &wanted('c')).unwrap();
    assert_eq!(shallow.shallow, [wanted('c').want]);
    let mut out = String::new();
    std::io::Read::read_to_string(&mut pack, &mut out).unwrap();
    assert_eq!(out, "PACK");

    let empty = greeting(&[format!("{} capabilities^{{}}\0{can}", id('0'))]);
    assert!(matches!(empty, Ok(wire::Greeting::Old(old)) if old.references.is_empty()));
    let foreign = greeting(&[format!("{} HEAD\0object-format=sha256", id('a'))]);
    assert!(foreign.unwrap_err().to_string().contains("SHA-256"));
}

proptest! {
    /// Whatever a server sends, it is an answer or an error.
    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(wire::read_greeting(&bytes[..]));
        drop(wire::read_refs(&bytes[..]));
        if let Ok((_, mut pack)) = wire::read_fetch(&bytes[..]) {
            drop(std::io::copy(&mut pack, &mut std::io::sink()));
        }
        drop(KnownHosts::parse(&String::from_utf8_lossy(&bytes)));
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
