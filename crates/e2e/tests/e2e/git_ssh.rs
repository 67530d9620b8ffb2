//! git-sync over ssh against a real sshd: who is let in, who is believed, and that a look costs one connection.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use podkit_testkit::git::{Repository, git};
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::{self, Module};
use podkit_testkit::process::run;
use podkit_testkit::ssh::{self, Server};
use podkit_testkit::{Turn, able, until};
use tempfile::TempDir;

/// A line of sshd's configuration with which git's protocol is spoken in its version 2.
const VERSION_2: &str = "AcceptEnv GIT_PROTOCOL";

/// A repository behind an sshd, and a place to publish to.
struct Ground {
    dir: TempDir,
    app: Repository,
    server: Server,
    root: PathBuf,
    _turn: Turn,
}

impl Ground {
    fn new(more: &[&str]) -> Option<Self> {
        if !able(ssh::NEEDS) {
            return None;
        }
        let turn = Turn::shared();
        let dir = tempfile::tempdir().unwrap();
        let app = Repository::new(dir.path(), "app");
        let server = Server::start(dir.path(), more);
        let root = dir.path().join("root");
        Some(Self {
            app,
            server,
            root,
            dir,
            _turn: turn,
        })
    }

    /// Arguments with which all is well; what follows is added.
    fn args(&self, more: &[&str]) -> Vec<String> {
        let mut args = vec![
            format!("--repo={}", self.server.url(&self.app.bare)),
            "--ref=main".to_owned(),
        ];
        args.extend(self.places());
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    }

    /// The root, and the files for ssh.
    fn places(&self) -> [String; 3] {
        let known = self.server.known_hosts(&["ed25519"]);
        [
            format!("--root={}", self.root.display()),
            format!("--ssh-key-file={}", self.server.user_key().display()),
            format!("--ssh-known-hosts-file={}", known.display()),
        ]
    }

    fn start(&self, more: &[&str]) -> Module {
        let args = self.args(more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Module::start("git-sync", &args, &[])
    }

    fn seen(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.root.join("app").join(file)).ok()
    }

    /// Waits until a file is as it should be.
    fn wait(&self, file: &str, text: &str) {
        until(&format!("{file} to be {text:?}"), || {
            (self.seen(file)? == text).then_some(())
        });
    }

    /// Publishes once; panics when that fails.
    fn publish(&self, more: &[&str]) {
        let (code, err) = once(&self.args(more), &[]);
        assert_eq!(code, Some(0), "{err}\n{}", self.server.log());
    }

    /// Tries to publish once, which fails for this reason.
    fn refused(&self, args: &[String], reason: &str) {
        let (code, err) = once(args, &[]);
        let last = err.lines().last().unwrap_or_default();
        assert!(
            code == Some(1) && last.contains(reason),
            "{args:?}: {code:?} {err}"
        );
    }
}

fn once(args: &[String], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = podkit::command(&["git-sync", "--once"]);
    command.arg(format!("--admin={}", free_addr()));
    command.args(args).envs(variables.iter().copied());
    let done = run("podkit git-sync", &mut command);
    (done.code, done.err)
}

/// Of several options of one name the last counts here.
fn with(args: Vec<String>, other: String) -> Vec<String> {
    let (name, _) = other.split_once('=').unwrap();
    let mut args: Vec<String> = args
        .into_iter()
        .filter(|arg| !arg.starts_with(&format!("{name}=")))
        .collect();
    args.push(other);
    args
}

fn unchanged(module: &Module) -> f64 {
    let sample = "podkit_git_syncs_total{repo=\"app\",result=\"unchanged\"}";
    module.metric(sample).unwrap_or_default()
}

/// The key's fingerprint as ssh-keygen shows it.
fn fingerprint(key: &Path) -> String {
    let done = run("ssh-keygen", Command::new("ssh-keygen").arg("-lf").arg(key));
    done.out.split(' ').nth(1).unwrap().to_owned()
}

fn pushes_are_seen(more: &[&str], asks: &str) {
    let Some(ground) = Ground::new(more) else {
        return;
    };
    ground.app.write("index.html", "one");
    ground.app.publish("one");
    let module = ground.start(&["--period=200ms"]);
    ground.wait("index.html", "one");
    ground.app.write("index.html", "two");
    ground.app.write("more/a.txt", "a".repeat(1000));
    ground.app.publish("two");
    ground.wait("index.html", "two");
    assert_eq!(ground.seen("more/a.txt").unwrap().len(), 1000);
    // A poll with nothing new is one connection and one question.
    // Looked at between two polls.
    let look = || {
        until("no poll meanwhile", || {
            let sessions = ground.server.sessions();
            let looks = unchanged(&module);
            let asked = ground.server.packets().matches(asks).count();
            (ground.server.sessions() == sessions).then_some((sessions, asked, looks))
        })
    };
    let (before, asked, looks) = look();
    until("five polls", || {
        (unchanged(&module) >= looks + 5.0).then_some(())
    });
    let (sessions, now_asked, now_looks) = look();
    let polls = now_looks - looks;
    let sessions = (sessions - before) as f64;
    assert!(
        (sessions - polls).abs() <= 1.0,
        "{sessions} for {polls} polls"
    );
    let asked = (now_asked - asked) as f64;
    assert!((asked - polls).abs() <= 1.0, "{asked} for {polls} polls");
    // Force-pushed: what is here is not known there, and all the same the tree is right.
    git(&ground.app.work, &["reset", "-q", "--hard", "HEAD~1"]);
    ground.app.write("index.html", "three");
    ground.app.publish("three");
    ground.wait("index.html", "three");
    assert!(ground.seen("more/a.txt").is_none());
    drop(module);
    ground.server.wait_idle();
}

#[test]
fn a_push_is_seen() {
    pushes_are_seen(&[VERSION_2], "command=ls-refs");
}

#[test]
fn a_push_is_seen_where_the_server_speaks_the_old_protocol() {
    // The first line of what it names, as git shows it.
    pushes_are_seen(&[], r"HEAD\0");
}

#[test]
fn a_server_that_comes_back_is_asked_again() {
    let Some(ground) = Ground::new(&[VERSION_2]) else {
        return;
    };
    ground.app.write("index.html", "one");
    ground.app.publish("one");
    let module = ground.start(&["--period=200ms"]);
    ground.wait("index.html", "one");
    let (
        addr,
        Ground {
            app,
            server,
            root,
            dir,
            _turn,
        },
    ) = (ground.server.addr, ground);
    drop(server);
    let trouble = until("trouble", || {
        let page = module.admin("/").text();
        page.contains("Connection refused").then_some(page)
    });
    assert!(
        trouble.contains(&format!("connecting to {addr}")),
        "{trouble}"
    );
    app.write("index.html", "two");
    app.publish("two");
    let server = Server::start_at(addr, dir.path(), &[VERSION_2]);
    let ground = Ground {
        app,
        server,
        root,
        dir,
        _turn,
    };
    ground.wait("index.html", "two");
}

#[test]
fn tags_and_commits_are_had() {
    for more in [&[VERSION_2][..], &[]] {
        let Some(ground) = Ground::new(more) else {
            return;
        };
        ground.app.write("index.html", "one");
        let first = ground.app.publish("one");
        git(&ground.app.work, &["tag", "-a", "-m", "v1", "v1"]);
        git(&ground.app.work, &["push", "-q", "origin", "v1"]);
        ground.app.write("index.html", "two");
        ground.app.publish("two");
        let args = |wanted: &str| with(ground.args(&[]), format!("--ref={wanted}"));
        let (code, err) = once(&args("v1"), &[]);
        assert_eq!(
            (code, ground.seen("index.html").as_deref()),
            (Some(0), Some("one")),
            "{err}"
        );
        ground.publish(&["--depth=0"]);
        assert_eq!(ground.seen("index.html").as_deref(), Some("two"));
        fs::remove_dir_all(&ground.root).unwrap();
        // No name leads to the first one but the tag's.
        let (code, err) = once(&args(&first), &[]);
        assert_eq!(
            (code, ground.seen("index.html").as_deref()),
            (Some(0), Some("one")),
            "{err}"
        );
        git(&ground.app.work, &["push", "-q", "origin", ":v1"]);
        fs::remove_dir_all(&ground.root).unwrap();
        match more.is_empty() {
            false => assert_eq!(once(&args(&first), &[]).0, Some(0)),
            true => ground.refused(
                &args(&first),
                "expected version 2 (in sshd_config: AcceptEnv GIT_PROTOCOL)",
            ),
        }
        ground.refused(&args("nowhere"), "has no branch or tag nowhere");
    }
}

#[test]
fn only_the_known_host_is_believed() {
    let Some(ground) = Ground::new(&[VERSION_2]) else {
        return;
    };
    ground.app.write("index.html", "one");
    ground.app.publish("one");
    let (ip, port) = (ground.server.addr.ip(), ground.server.addr.port());
    let key = fs::read_to_string(ground.server.host_key("ed25519").with_extension("pub")).unwrap();
    let print = fingerprint(&ground.server.host_key("ed25519"));
    let file = ground.dir.path().join("known");
    let args = with(
        ground.args(&[]),
        format!("--ssh-known-hosts-file={}", file.display()),
    );
    // Read each time: the module runs on while the file changes.
    let check = |text: &str, expected: &str| {
        fs::write(&file, text).unwrap();
        ground.refused(&args, expected);
    };
    let host = format!("the host key of {ip} port {port}");
    let at = file.display();
    check(
        "",
        &format!(
            "{host} is not known: ssh-ed25519 {print} is not in {at}; when it is right, ssh-keyscan -p {port} {ip}"
        ),
    );
    check(&format!("[{ip}]:1 {key}"), "is not known");
    let other = ssh::key(&ground.dir.path().join("other"), &["-t", "ed25519"]);
    let other_key = fs::read_to_string(other.with_extension("pub")).unwrap();
    check(
        &format!("# x\n[{ip}]:{port} {other_key}"),
        &format!(
            "{host} has changed: ssh-ed25519 {print} instead of {} in {at} line 2",
            fingerprint(&other)
        ),
    );
    check(
        &format!("[{ip}]:{port} {key}@revoked * {key}"),
        &format!("{host} is revoked: ssh-ed25519 {print} by {at} line 2"),
    );
    assert!(ground.seen("index.html").is_none());
    // As ssh-keygen hashes it; a pattern; any kind of key that the file has, whatever the server would rather show.
    let hashed = ground.dir.path().join("hashed");
    fs::write(&hashed, format!("[{ip}]:{port} {key}")).unwrap();
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-H", "-f"]).arg(&hashed);
    assert_eq!(run("ssh-keygen", &mut keygen).code, Some(0));
    let rsa = ground.server.known_hosts(&["rsa"]);
    let ecdsa = ground.server.known_hosts(&["ecdsa"]);
    for text in [
        fs::read_to_string(&hashed).unwrap(),
        format!("[127.*]:* {key}"),
        fs::read_to_string(rsa).unwrap(),
        fs::read_to_string(ecdsa).unwrap(),
        format!("[{ip}]:{port} {other_key}[{ip}]:{port} {key}"),
    ] {
        fs::write(&file, &text).unwrap();
        let (code, err) = once(&args, &[]);
        assert_eq!(code, Some(0), "{text}: {err}");
    }
    // Asked for, and said.
    let trusting = with(ground.args(&[]), "--ssh-known-hosts=false".to_owned());
    let trusting = with(trusting, "--ssh-known-hosts-file=/nowhere".to_owned());
    let (code, err) = once(&trusting, &[]);
    assert!(
        code == Some(0) && err.contains("whoever answers is believed"),
        "{err}"
    );
    assert!(ground.seen("index.html").is_some());
}

#[test]
fn only_a_key_that_the_server_takes_opens_it() {
    let Some(ground) = Ground::new(&[VERSION_2]) else {
        return;
    };
    ground.app.write("index.html", "one");
    ground.app.publish("one");
    let dir = ground.dir.path();
    let other = ssh::key(&dir.join("other"), &["-t", "ed25519"]);
    let key = |path: &Path| {
        with(
            ground.args(&[]),
            format!("--ssh-key-file={}", path.display()),
        )
    };
    let expected = format!(
        "with the key {} (ssh-ed25519 {})",
        other.display(),
        fingerprint(&other)
    );
    ground.refused(&key(&other), &expected);
    // The next one is tried, in kubernetes/git-sync's way of writing it.
    let both = format!("{}:{}", other.display(), ground.server.user_key().display());
    let args: Vec<String> = ground
        .args(&[])
        .into_iter()
        .filter(|arg| !arg.starts_with("--ssh-"))
        .collect();
    let known = ground.server.known_hosts(&["ed25519"]);
    let variables = [
        ("GITSYNC_SSH_KEY_FILE", both.as_str()),
        ("GITSYNC_SSH_KNOWN_HOSTS_FILE", known.to_str().unwrap()),
        ("GITSYNC_SSH_KNOWN_HOSTS", "true"),
    ];
    let (code, err) = once(&args, &variables);
    assert_eq!(code, Some(0), "{err}");
    // Keys of all kinds and forms.
    let authorized = dir.join("sshd/authorized_keys");
    let passphrase = dir.join("passphrase");
    fs::write(&passphrase, "secret\n").unwrap();
    for (name, args) in [
        ("rsa", &["-t", "rsa", "-b", "2048"][..]),
        ("rsa_pem", &["-t", "rsa", "-b", "3072", "-m", "PEM"]),
        ("p256", &["-t", "ecdsa", "-b", "256"]),
        ("p384", &["-t", "ecdsa", "-b", "384", "-m", "PKCS8"]),
        ("p521", &["-t", "ecdsa", "-b", "521", "-m", "PEM"]),
        ("locked", &["-t", "ed25519"]),
    ] {
        let path = ssh::key(&dir.join(name), args);
        fs::copy(path.with_extension("pub"), &authorized).unwrap();
        let mut args = key(&path);
        if name == "locked" {
            let mut keygen = Command::new("ssh-keygen");
            keygen
                .args(["-q", "-p", "-P", "", "-N", "secret", "-f"])
                .arg(&path);
            assert_eq!(run("ssh-keygen", &mut keygen).code, Some(0));
            let (code, err) = once(&args, &[]);
            assert!(
                code == Some(2)
                    && err.contains(
                        "is encrypted; its passphrase goes into --ssh-key-passphrase-file"
                    ),
                "{err}"
            );
            args.push(format!(
                "--ssh-key-passphrase-file={}",
                passphrase.display()
            ));
        }
        let (code, err) = once(&args, &[]);
        assert_eq!(code, Some(0), "{name}: {err}\n{}", ground.server.log());
    }
}

#[test]
fn sha_1_is_not_believed() {
    let Some(ground) = Ground::new(&["HostKeyAlgorithms ssh-rsa"]) else {
        return;
    };
    ground.app.write("index.html", "one");
    ground.app.publish("one");
    let known = ground.server.known_hosts(&["rsa"]);
    let args = with(
        ground.args(&[]),
        format!("--ssh-known-hosts-file={}", known.display()),
    );
    ground.refused(
        &args,
        "the server has host keys of ssh-rsa only; expected one of ssh-ed25519,",
    );
    ground.refused(
        &with(args, "--ssh-known-hosts=false".to_owned()),
        "signed by SHA-1",
    );
}

#[test]
fn places_are_written_as_with_git() {
    let Some(ground) = Ground::new(&[VERSION_2]) else {
        return;
    };
    ground.app.write("index.html", "one");
    ground.app.publish("one");
    let port = ground.server.addr.port();
    let url = ground.server.url(&ground.app.bare);
    let (user, _) = url["ssh://".len()..].split_once('@').unwrap();
    let path = ground.app.bare.display();
    let check = |place: &str| {
        if ground.root.exists() {
            fs::remove_dir_all(&ground.root).unwrap();
        }
        let args = with(ground.args(&[]), format!("--repo={place}"));
        let (code, err) = once(&args, &[]);
        assert_eq!(code, Some(0), "{place}: {err}");
    };
    check(&format!("{user}@[127.0.0.1:{port}]:{path}"));
    // From the user's home on.
    let home = std::env::var("HOME").unwrap();
    let up = "../".repeat(home.split('/').filter(|part| !part.is_empty()).count());
    check(&format!(
        "{user}@[127.0.0.1:{port}]:{up}{}",
        &path.to_string()[1..]
    ));
    check(&format!(
        "ssh://{user}@127.0.0.1:{port}/~/{up}{}",
        &path.to_string()[1..]
    ));
    let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port));
    let ground = Ground {
        server: Server::start_at(six, ground.dir.path(), &[VERSION_2]),
        ..ground
    };
    assert!(ground.server.url(&ground.app.bare).contains("@[::1]:"));
    ground.publish(&[]);
}

#[test]
fn submodules_are_found_beside_their_repository() {
    let Some(ground) = Ground::new(&[VERSION_2]) else {
        return;
    };
    let lib = Repository::new(ground.dir.path(), "lib");
    lib.write("lib.txt", "lib");
    lib.publish("lib");
    git(
        &ground.app.work,
        &["submodule", "--quiet", "add", "../lib.git", "vendor/lib"],
    );
    ground.app.publish("a submodule");
    ground.publish(&["--submodules=recursive"]);
    assert_eq!(ground.seen("vendor/lib/lib.txt").as_deref(), Some("lib"));
}

#[test]
fn what_the_server_says_is_said() {
    let Some(ground) = Ground::new(&[VERSION_2]) else {
        return;
    };
    let nowhere = ground.server.url(&ground.dir.path().join("it's! nowhere"));
    let mut args = with(ground.args(&[]), format!("--repo=app={nowhere}"));
    ground.refused(
        &args,
        "it's! nowhere' does not appear to be a git repository",
    );
    for (command, said) in [
        ("exit 3", "git-upload-pack ended there with exit code 3"),
        ("kill -9 $PPID", "the server closed the connection"),
    ] {
        let line = format!("ForceCommand {command}");
        let dir = ground.dir.path();
        let server = Server::start(dir, &[&line]);
        let known = server.known_hosts(&["rsa"]);
        let other = with(
            ground.args(&[]),
            format!("--repo={}", server.url(&ground.app.bare)),
        );
        let other = with(other, format!("--ssh-known-hosts-file={}", known.display()));
        ground.refused(&other, said);
    }
    // Whoever listens there speaks something else, or nothing.
    let listener = TcpListener::bind(free_addr()).unwrap();
    let addr = listener.local_addr().unwrap();
    args = with(args, format!("--repo=app=ssh://git@{addr}/x"));
    let silent = with(args.clone(), "--sync-timeout=1s".to_owned());
    let said = format!("ssh://git@{addr}/x: the server does not answer as ssh does in time");
    ground.refused(&silent, &said);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
        }
    });
    ground.refused(&args, &format!("ssh://git@{addr}/x: "));
    let args = ground.args(&[]);
    for (option, expected) in [
        (
            "--ssh-key-file=/nowhere/key",
            "--ssh-key-file (PODKIT_SSH_KEY_FILE): /nowhere/key: No such file",
        ),
        (
            "--ssh-known-hosts-file=/nowhere/known",
            "--ssh-known-hosts-file (PODKIT_SSH_KNOWN_HOSTS_FILE): /nowhere/known: No such file",
        ),
        (
            "--ssh-key-passphrase-file=/nowhere/word",
            "--ssh-key-passphrase-file (PODKIT_SSH_KEY_PASSPHRASE_FILE): file /nowhere/word: No such file",
        ),
    ] {
        let (code, err) = once(&with(args.clone(), option.to_owned()), &[]);
        assert_eq!((code, err.lines().count()), (Some(2), 1), "{option}: {err}");
        assert!(err.contains(expected), "{option}: {err}");
    }
}
