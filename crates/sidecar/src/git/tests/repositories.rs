//! Real repositories: on this machine, in bundles, behind a server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use podkit_foundation::params::ParamType as _;
use podkit_testkit::git::{Repository, Server, command, git};
use podkit_testkit::process::run;
use tempfile::TempDir;

use crate::git::credentials::{App, Credentials};
use crate::git::http::Client;
use crate::git::location::{Location, RefOf, Url};
use crate::git::params::Submodules;
use crate::git::source::{Source, Wish};
use crate::git::ssh;

/// A place for repositories and trees.
struct Ground {
    dir: TempDir,
    client: Client,
    trees: u32,
}

impl Ground {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            client: Client::new(Arc::default()).unwrap(),
            trees: 0,
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn wish(&self, location: &str, wanted: &str) -> Wish {
        Wish {
            location: Location::parse(location).unwrap(),
            revision: RefOf::parse(wanted).unwrap().wanted,
            depth: 1,
            sparse: None,
            submodules: Submodules::Off,
            signers: None,
            credentials: Credentials::Nobody,
            ssh: ssh::Settings {
                keys: Vec::new(),
                passphrase: None,
                known_hosts: None,
            },
            store: self.path().join("store"),
        }
    }

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    /// One look and what it leads to.
    fn sync(&mut self, source: &mut Source) -> Result<(String, PathBuf), String> {
        let commit = source.look(&mut self.client, Self::deadline())?;
        self.trees += 1;
        let into = self.path().join(format!("tree-{}", self.trees));
        fs::create_dir(&into).unwrap();
        let filled = source.fill(&mut self.client, Self::deadline(), commit, &into);
        filled.map_err(|unfilled| unfilled.why)?;
        Ok((commit.to_string(), into))
    }
}

/// Whether a directory has what `git archive` would give, modes and links included.
fn is_tree_of(repository: &Repository, commit: &str, tree: &Path) {
    let index = repository.bare.join("index-of-the-test");
    let bare = repository.bare.to_string_lossy();
    let with_index = |args: &[&str]| {
        let mut command = command(
            tree,
            &[&["--git-dir", &bare, "--work-tree", "."], args].concat(),
        );
        run("git", command.env("GIT_INDEX_FILE", &index)).ok()
    };
    with_index(&["read-tree", commit]);
    assert_eq!(with_index(&["diff", "--stat", commit]), "");
    let listed = git(&repository.bare, &["ls-tree", "-r", "--name-only", commit]);
    assert_eq!(
        files(tree),
        listed.lines().map(str::to_owned).collect::<Vec<_>>()
    );
}

fn files(tree: &Path) -> Vec<String> {
    fn walk(at: &Path, below: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{below}{}", entry.file_name().to_str().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true => walk(&entry.path(), &format!("{path}/"), found),
                false => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(tree, "", &mut found);
    found.sort();
    found
}

fn repository(ground: &Ground) -> Repository {
    let repository = Repository::new(ground.path(), "app");
    repository.write("index.html", "one\n");
    repository.write("docs/a/b.txt", "deep\n");
    repository.write("run.sh", "#!/bin/sh\n");
    let run = repository.work.join("run.sh");
    fs::set_permissions(run, fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("docs/a/b.txt", repository.work.join("link")).unwrap();
    repository
}

#[test]
fn a_local_repository_is_read_where_it_is() {
    let mut ground = Ground::new();
    let repository = repository(&ground);
    let first = repository.publish("first");
    for place in [&repository.bare, &repository.work] {
        let mut source = Source::new(ground.wish(&place.to_string_lossy(), "main"));
        let (commit, tree) = ground.sync(&mut source).unwrap();
        assert_eq!(commit, first);
        is_tree_of(&repository, &first, &tree);
    }
    assert!(!ground.path().join("store").exists());
    // Packed references, packed objects, a tag of a tag.
    git(&repository.work, &["tag", "-a", "-m", "v1", "v1"]);
    git(&repository.work, &["tag", "-a", "-m", "v2", "v2", "v1"]);
    git(&repository.work, &["push", "-q", "origin", "v2"]);
    git(&repository.bare, &["pack-refs", "--all"]);
    git(&repository.bare, &["repack", "-q", "-a", "-d"]);
    let mut source = Source::new(ground.wish(&repository.bare.to_string_lossy(), "v2"));
    let (commit, tree) = ground.sync(&mut source).unwrap();
    assert_eq!(commit, first);
    is_tree_of(&repository, &first, &tree);
    let mut source = Source::new(ground.wish(&repository.bare.to_string_lossy(), "nowhere"));
    let why = ground.sync(&mut source).unwrap_err();
    assert!(why.contains("no branch or tag nowhere"), "{why}");
}

#[test]
fn a_server_is_asked_once_when_nothing_is_new() {
    let mut ground = Ground::new();
    let repository = repository(&ground);
    let first = repository.publish("first");
    let server = Server::start(ground.path());
    let mut source = Source::new(ground.wish(&server.url("app.git"), "main"));
    let (commit, tree) = ground.sync(&mut source).unwrap();
    assert_eq!(commit, first);
    is_tree_of(&repository, &first, &tree);
    assert_eq!(
        server.requests(),
        [
            "GET /app.git/info/refs?service=git-upload-pack",
            "POST /app.git/git-upload-pack",
            "POST /app.git/git-upload-pack"
        ]
    );
    let looked = source.look(&mut ground.client, Ground::deadline()).unwrap();
    assert_eq!(looked.to_string(), first);
    assert_eq!(server.requests(), ["POST /app.git/git-upload-pack"]);
    // What is new is all that comes.
    let store = ground.path().join("store/objects/pack");
    repository.write("new.txt", "new\n");
    let second = repository.publish("second");
    let (commit, tree) = ground.sync(&mut source).unwrap();
    assert_eq!(commit, second);
    is_tree_of(&repository, &second, &tree);
    let indexes = fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let indexes = indexes.filter(|path| path.extension().is_some_and(|end| end == "idx"));
    let smallest = indexes
        .map(|path| fs::metadata(path).unwrap().len())
        .min()
        .unwrap();
    // A commit, a tree and a blob: 1032 bytes of tables, then 28 for each object, then two checksums.
    assert_eq!(smallest, 1032 + 3 * 28 + 40);
}

#[test]
fn a_branch_that_was_thrown_back_or_away() {
    let mut ground = Ground::new();
    let repository = repository(&ground);
    let first = repository.publish("first");
    repository.write("index.html", "two\n");
    repository.publish("second");
    let server = Server::start(ground.path());
    for depth in [1, 0] {
        repository.push();
        let mut wish = ground.wish(&server.url("app.git"), "main");
        wish.depth = depth;
        let mut source = Source::new(wish);
        ground.sync(&mut source).unwrap();
        // Back, to a commit that was not fetched with --depth 1.
        git(
            &repository.work,
            &["push", "-q", "-f", "origin", &format!("{first}:main")],
        );
        let (commit, tree) = ground.sync(&mut source).unwrap();
        assert_eq!(commit, first);
        is_tree_of(&repository, &first, &tree);
        // To another history.
        git(
            &repository.work,
            &["checkout", "-q", "--orphan", &format!("other-{depth}")],
        );
        repository.write("index.html", format!("other {depth}\n"));
        let other = repository.publish("other");
        let (commit, tree) = ground.sync(&mut source).unwrap();
        assert_eq!(commit, other);
        is_tree_of(&repository, &other, &tree);
        git(&repository.bare, &["update-ref", "-d", "refs/heads/main"]);
        let why = ground.sync(&mut source).unwrap_err();
        assert!(why.contains("has no branch or tag main"), "{why}");
    }
    fs::rename(&repository.bare, ground.path().join("gone")).unwrap();
    let mut source = Source::new(ground.wish(&server.url("app.git"), "main"));
    let why = ground.sync(&mut source).unwrap_err();
    assert!(
        why.contains("404") && why.contains("no such repository"),
        "{why}"
    );
}

#[test]
fn a_store_that_is_no_good_is_made_anew() {
    let mut ground = Ground::new();
    let repository = repository(&ground);
    let mut commit = repository.publish("first");
    let server = Server::start(ground.path());
    let mut source = Source::new(ground.wish(&server.url("app.git"), "main"));
    ground.sync(&mut source).unwrap();
    let store = ground.path().join("store");
    let packs = store.join("objects/pack");
    let change = |end: &str, change: &dyn Fn(&mut Vec<u8>)| {
        for entry in fs::read_dir(&packs).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|found| found == end) {
                let mut bytes = fs::read(&path).unwrap();
                change(&mut bytes);
                fs::write(path, bytes).unwrap();
            }
        }
    };
    let remove = |end: &str| {
        for entry in fs::read_dir(&packs).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|found| found == end) {
                fs::remove_file(path).unwrap();
            }
        }
    };
    let nobody = "1".repeat(40);
    let spoils: [(&str, &dyn Fn()); 14] = [
        ("no pack", &|| remove("pack")),
        ("no index", &|| remove("idx")),
        ("an empty pack", &|| change("pack", &|pack| pack.clear())),
        ("a cut pack", &|| {
            change("pack", &|pack| pack.truncate(pack.len() / 2))
        }),
        ("an empty index", &|| change("idx", &|index| index.clear())),
        ("a cut index", &|| {
            change("idx", &|index| index.truncate(1100))
        }),
        ("a random index", &|| {
            change("idx", &|index| index[8..].fill(0x55))
        }),
        ("a random pack", &|| {
            change("pack", &|pack| pack[12..].fill(0x55))
        }),
        ("a flipped byte", &|| {
            change("pack", &|pack| {
                pack.iter_mut()
                    .skip(20)
                    .step_by(50)
                    .for_each(|byte| *byte ^= 4)
            })
        }),
        ("no list", &|| fs::remove_file(store.join("have")).unwrap()),
        ("a random list", &|| {
            fs::write(store.join("have"), [0xff; 99]).unwrap()
        }),
        ("another list", &|| {
            fs::write(store.join("have"), &nobody).unwrap()
        }),
        ("no directory", &|| fs::remove_dir_all(&packs).unwrap()),
        ("a file in its place", &|| {
            fs::remove_dir_all(&store).unwrap();
            fs::write(&store, "x").unwrap();
        }),
    ];
    for (what, spoil) in spoils {
        spoil();
        server.requests();
        let (found, tree) = ground.sync(&mut source).expect(what);
        assert_eq!(found, commit, "{what}");
        is_tree_of(&repository, &commit, &tree);
        let requests = server.requests().len();
        assert_eq!(requests, 2, "{what}: a look and a fetch");
        // And when there is something new that builds on it.
        spoil();
        repository.write("new", what);
        commit = repository.publish(what);
        let (found, tree) = ground.sync(&mut source).expect(what);
        assert_eq!(found, commit, "{what}");
        is_tree_of(&repository, &commit, &tree);
    }
    let store = packs;
    // What a killed process leaves is swept.
    fs::write(store.join("tmp123"), "x").unwrap();
    fs::write(store.join("pack-1.pack"), "x").unwrap();
    let before = fs::read_dir(&store).unwrap().count() - 2;
    ground.sync(&mut source).unwrap();
    assert_eq!(fs::read_dir(&store).unwrap().count(), before);
}

#[test]
fn bundles_are_repositories_too() {
    let mut ground = Ground::new();
    let repository = repository(&ground);
    let first = repository.publish("first");
    let bundle = ground.path().join("app.bundle");
    let make = |what: &[&str]| {
        let path = bundle.to_string_lossy();
        git(
            &repository.work,
            &[&["bundle", "create", "-q", &path], what].concat(),
        );
    };
    make(&["main"]);
    let mut source = Source::new(ground.wish(&bundle.to_string_lossy(), "main"));
    let (commit, tree) = ground.sync(&mut source).unwrap();
    assert_eq!(commit, first);
    is_tree_of(&repository, &first, &tree);
    // One that builds on the first.
    repository.write("index.html", "two\n");
    let second = repository.publish("second");
    make(&[&format!("{first}..main")]);
    let (commit, tree) = ground.sync(&mut source).unwrap();
    assert_eq!(commit, second);
    is_tree_of(&repository, &second, &tree);
    // And not without it.
    fs::remove_dir_all(ground.path().join("store")).unwrap();
    let why = ground.sync(&mut source).unwrap_err();
    assert!(why.contains(&first) && why.contains("not here"), "{why}");
    fs::write(&bundle, "# v2 git bundle\n").unwrap();
    let why = ground.sync(&mut source).unwrap_err();
    assert!(why.contains("cut short"), "{why}");
}

#[test]
fn passwords_are_read_each_time() {
    let mut ground = Ground::new();
    let repository = repository(&ground);
    repository.publish("first");
    let server = Server::start(ground.path());
    // me:secret
    server.want(Some("Basic bWU6c2VjcmV0"));
    let mut source = Source::new(ground.wish(&server.url("app.git"), "main"));
    let why = ground.sync(&mut source).unwrap_err();
    assert!(
        why.contains("401") && why.contains("--password-file"),
        "{why}"
    );
    let file = ground.path().join("password");
    fs::write(&file, "wrong\n").unwrap();
    let mut wish = ground.wish(&server.url("app.git"), "main");
    wish.credentials = Credentials::Password {
        username: "me".to_owned(),
        file: file.clone(),
    };
    let mut source = Source::new(wish);
    let why = ground.sync(&mut source).unwrap_err();
    assert!(why.contains("not right") && !why.contains("wrong"), "{why}");
    fs::write(&file, "secret\n").unwrap();
    ground.sync(&mut source).unwrap();
}

/// Answers one request for a token of an installation when its proof is signed with the key, then no more.
fn token_server(key: RsaKeyPair) -> (std::net::SocketAddr, std::thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.starts_with("POST /app/installations/7/access_tokens HTTP/1.1\r\n"),
            "{head}"
        );
        let proof = head
            .lines()
            .find_map(|line| line.strip_prefix("authorization: Bearer "))
            .unwrap();
        let (text, signature) = proof.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key())
            .verify(text.as_bytes(), &signature)
            .expect("the app's key signed it");
        let claims = URL_SAFE_NO_PAD
            .decode(text.split_once('.').unwrap().1)
            .unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["iss"], "me");
        let body = r#"{"token": "t0ken"}"#;
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 201 Created\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
    });
    (addr, thread)
}

#[test]
fn an_app_asks_for_its_token_once() {
    let mut ground = Ground::new();
    let repository = repository(&ground);
    repository.publish("first");
    let server = Server::start(ground.path());
    // x-access-token:t0ken
    server.want(Some("Basic eC1hY2Nlc3MtdG9rZW46dDBrZW4="));
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let pem = STANDARD.encode(der.as_ref());
    let key = ground.path().join("app.pem");
    fs::write(
        &key,
        format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n"),
    )
    .unwrap();
    let (addr, thread) = token_server(pair);
    let mut wish = ground.wish(&server.url("app.git"), "main");
    wish.credentials = Credentials::App(App {
        id: "me".to_owned(),
        installation: 7,
        key,
        api: Url::parse(&format!("http://{addr}")).unwrap(),
    });
    let mut source = Source::new(wish);
    ground.sync(&mut source).unwrap();
    thread.join().unwrap();
    // The server of tokens is gone: the token is still good.
    source.look(&mut ground.client, Ground::deadline()).unwrap();
}

#[test]
fn only_what_is_wanted_is_written() {
    let mut ground = Ground::new();
    let repository = repository(&ground);
    repository.write("docs/big.bin", "x");
    repository.publish("first");
    let patterns = ground.path().join("patterns");
    fs::write(&patterns, "/docs/\n!*.bin\n/run.sh\n").unwrap();
    let mut wish = ground.wish(&repository.bare.to_string_lossy(), "main");
    wish.sparse = Some(patterns);
    let (_, tree) = ground.sync(&mut Source::new(wish)).unwrap();
    assert_eq!(files(&tree), ["docs/a/b.txt", "run.sh"]);
}

#[test]
fn submodules_come_when_they_are_wanted() {
    let mut ground = Ground::new();
    let (inner, middle) = (
        Repository::new(ground.path(), "inner"),
        Repository::new(ground.path(), "middle"),
    );
    inner.write("inner.txt", "inner\n");
    inner.publish("inner");
    middle.write("middle.txt", "middle\n");
    git(
        &middle.work,
        &["submodule", "--quiet", "add", "../inner.git", "sub/inner"],
    );
    middle.publish("middle");
    let repository = repository(&ground);
    git(
        &repository.work,
        &["submodule", "--quiet", "add", "../middle.git", "sub"],
    );
    repository.publish("outer");
    let server = Server::start(ground.path());
    let shallow = ["sub/.gitmodules", "sub/middle.txt"];
    let recursive = [
        "sub/.gitmodules",
        "sub/middle.txt",
        "sub/sub/inner/inner.txt",
    ];
    let cases: [(Submodules, &[&str]); 3] = [
        (Submodules::Off, &[]),
        (Submodules::Shallow, &shallow),
        (Submodules::Recursive, &recursive),
    ];
    for place in [
        server.url("app.git"),
        repository.bare.to_string_lossy().into_owned(),
    ] {
        for (submodules, expected) in cases {
            let mut wish = ground.wish(&place, "main");
            wish.submodules = submodules;
            let (_, tree) = ground.sync(&mut Source::new(wish)).unwrap();
            let mut found = files(&tree);
            found.retain(|path| path.starts_with("sub/"));
            assert_eq!(found, expected, "{place} {}", submodules.word());
            assert!(tree.join("sub").is_dir());
        }
    }
}
