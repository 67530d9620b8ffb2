//! config with real etcd servers: followed, restarted, compacted, behind logins and certificates, cut off, a member down.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use podkit_testkit::certs::{Authority, replace};
use podkit_testkit::etcd::Etcd;
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::{Module, podkit};
use podkit_testkit::{Need, Turn, able, until};
use rustix::process::Signal;

use super::config::Ground;

const NEEDS: [Need; 2] = [Need::Program("etcd"), Need::Program("etcdctl")];

fn waits(module: &Module, words: &str) {
    module
        .process
        .wait_line("the reason", |line| line.contains(words));
}

#[test]
fn etcd_is_watched() {
    if !able(&NEEDS) {
        return;
    }
    let _turn = Turn::alone();
    let ground = Ground::new(&[]);
    let client = free_addr();
    let mut server = Etcd::start(ground.dir.path(), client, &[]);
    server.put("app/a", "0");
    server.put("app/d/b", "0");
    server.put("apq", "not ours");
    let source = format!("--source=etcd://{client}/app/");
    let module = ground.spawn_from(&[&source], &["--period=200ms"]);
    module.wait_ready();
    assert_eq!(
        (ground.read("a").as_deref(), ground.read("d/b").as_deref()),
        (Some("0"), Some("0"))
    );
    assert_eq!(ground.read("apq"), None);
    ground.assert_quick("etcd to applied", &module, "d/b", |text| {
        server.put_fast("app/d/b", text);
        Instant::now()
    });
    // It goes away and comes back; what is published stays, and is followed again.
    server.process.signal(Signal::KILL);
    server.process.wait();
    waits(&module, "a source can't be read");
    assert_eq!(ground.read("d/b").as_deref(), Some("100"));
    let server = Etcd::start(ground.dir.path(), client, &[]);
    server.put("app/d/b", "back");
    ground.wait("d/b", "back");
}

/// Tokens live for a second here.
#[test]
fn etcd_with_logins() {
    if !able(&NEEDS) {
        return;
    }
    let _turn = Turn::shared();
    let ground = Ground::new(&[]);
    let client = free_addr();
    let server = Etcd::start(ground.dir.path(), client, &["--auth-token-ttl=1"]);
    server.put("app/a", "0");
    for args in [
        &["user", "add", "root:top"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "pod:first"],
        &["role", "add", "reader"],
        &[
            "role",
            "grant-permission",
            "reader",
            "read",
            "--prefix",
            "app/",
        ],
        &["user", "grant-role", "pod", "reader"],
    ] {
        server.ctl(args);
    }
    let root = |args: &[&str]| server.ctl_as(Some("root:top"), args);
    let password = ground.dir.path().join("password");
    replace(&password, "first\n");
    let source = format!("--source=etcd://{client}/app/");
    let file = format!("--etcd-password-file={}", password.display());
    let login = ["--etcd-user=pod", &file];

    // Where nobody need log in, a login is no fault.
    let module = ground.spawn_from(&[&source], &login);
    module.wait_ready();
    root(&["auth", "enable"]);
    root(&["put", "app/a", "1"]);
    ground.wait("a", "1");
    drop(module);

    waits(
        &ground.spawn_from(&[&source], &[]),
        "wants a login; expected --etcd-user and --etcd-password-file",
    );
    let other = format!("--source=etcd://{client}/other/");
    waits(
        &ground.spawn_from(&[&other], &login),
        "lets pod not read \\\"other/\\\"; expected a role with: etcdctl role grant-permission ROLE read --prefix",
    );
    replace(&password, "wrong");
    let module = ground.spawn_from(&[&source], &login);
    waits(
        &module,
        "knows no user pod with the password in --etcd-password-file",
    );
    replace(&password, "first");
    waits(&module, "the source can be read again");

    // The token has run out when the news come; a new password voids it.
    std::thread::sleep(Duration::from_secs(4));
    root(&["put", "app/a", "2"]);
    ground.wait("a", "2");
    root(&["user", "delete", "pod"]);
    root(&["user", "add", "pod:second"]);
    root(&["user", "grant-role", "pod", "reader"]);
    replace(&password, "second");
    root(&["put", "app/a", "3"]);
    ground.wait("a", "3");
    let troubles = module.process.shown();
    let troubles = troubles.matches("knows no user pod").count();
    assert_eq!(troubles, 1, "{}", module.process.shown());
}

#[test]
fn etcd_with_certificates() {
    if !able(&NEEDS) {
        return;
    }
    let _turn = Turn::shared();
    let ground = Ground::new(&[]);
    let dir = ground.dir.path();
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let names = ["127.0.0.1"];
    let authorities = dir.join("ca.crt");
    replace(&authorities, &one.pem());
    let trusted = dir.join("trusted.crt");
    replace(&trusted, &one.pem());
    let pair = one.peer(&names).write(dir, "etcd");
    let (cert, key) = one.client("pod", &[]).write(dir, "pod");
    let client = free_addr();
    let mut server = Etcd::start_tls(dir, client, &trusted, &pair);
    server.put("app/a", "0");

    let source = format!("--source=etcds://{client}/app/");
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let (ca, shown, secret) = (
        flag("ca", &authorities),
        flag("cert", &cert),
        flag("key", &key),
    );
    waits(
        &ground.spawn_from(&[&source], &[&ca]),
        "BadCertificate); it wants a certificate, which --cert names",
    );
    let stranger = dir.join("stranger.crt");
    replace(&stranger, &two.pem());
    waits(
        &ground.spawn_from(&[&source], &[&flag("ca", &stranger), &shown, &secret]),
        "TLS failed (invalid peer certificate: UnknownIssuer",
    );

    let module = ground.spawn_from(&[&source], &[&ca, &shown, &secret]);
    module.wait_ready();
    server.put("app/a", "1");
    ground.wait("a", "1");
    // Half of a renewal: what was in force stays.
    let fresh = two.client("pod", &[]);
    fresh.mismatched().write(dir, "pod");
    server.put("app/a", "2");
    waits(&module, "refused, the former state stays in force: --cert");
    ground.wait("a", "2");
    // From now on only the new authority's clients are let in, of which etcd's own gateway is one.
    fresh.write(dir, "pod");
    replace(&trusted, &two.pem());
    let pair = two.peer(&names).write(dir, "etcd");
    replace(&authorities, &format!("{}{}", one.pem(), two.pem()));
    server.process.signal(Signal::KILL);
    server.process.wait();
    let server = Etcd::start_tls(dir, client, &trusted, &pair);
    server.put("app/a", "3");
    ground.wait("a", "3");

    fresh.mismatched().write(dir, "pod");
    let out = format!("--out={}", ground.out.display());
    let end = podkit(&["config", &out, &source, &ca, &shown, &secret]);
    assert_eq!(end.code, Some(2), "{}", end.err);
    assert!(
        end.err.contains("--cert (PODKIT_CERT): ") && end.err.contains("does not match"),
        "{}",
        end.err
    );
}

/// A network between a client and a server that can be cut: what is open then says nothing any more, and does not end.
struct Network {
    addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Requests that begin a watch are not passed on yet.
    holds: AtomicBool,
    /// New connections are as dead as those that were cut.
    down: AtomicBool,
    watches: AtomicUsize,
    /// Of what is open: whether it is cut.
    open: Mutex<Vec<Arc<AtomicBool>>>,
}

impl Network {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let cut = Arc::new(AtomicBool::new(shared.down.load(Ordering::SeqCst)));
                shared.open.lock().unwrap().push(Arc::clone(&cut));
                let Ok(server) = TcpStream::connect(server) else {
                    continue;
                };
                let (there, back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (state, also) = (Arc::clone(&shared), Arc::clone(&cut));
                std::thread::spawn(move || pass(there, server, &also, Some(&state)));
                std::thread::spawn(move || pass(back, client, &cut, None));
            }
        });
        Self { addr, state }
    }

    fn cut(&self) {
        for one in self.state.open.lock().unwrap().iter() {
            one.store(true, Ordering::SeqCst);
        }
    }

    fn watches(&self) -> usize {
        self.state.watches.load(Ordering::SeqCst)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool, requests: Option<&State>) {
    let mut bytes = [0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if let Some(state) = requests
            && bytes.starts_with(b"POST /v3/watch ")
        {
            until("to be let through", || {
                (!state.holds.load(Ordering::SeqCst)).then_some(())
            });
            state.watches.fetch_add(1, Ordering::SeqCst);
        }
        if !cut.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    if !cut.load(Ordering::SeqCst) {
        to.shutdown(Shutdown::Both).ok();
    }
}

#[test]
fn etcd_compacted_under_a_watch() {
    if !able(&NEEDS) {
        return;
    }
    let _turn = Turn::shared();
    let ground = Ground::new(&[]);
    let server = Etcd::start(ground.dir.path(), free_addr(), &[]);
    server.put("app/a", "0");
    let network = Network::before(server.client);
    network.state.holds.store(true, Ordering::SeqCst);
    let source = format!("--source=etcd://{}/app/", network.addr);
    let module = ground.spawn_from(&[&source], &["--resync=1h", "--period=1h"]);
    module.wait_ready();
    for value in ["1", "2", "3"] {
        server.put("app/a", value);
    }
    // The watch is to follow from a revision that is no more when it begins.
    server.ctl(&["compaction", "4"]);
    network.state.holds.store(false, Ordering::SeqCst);
    ground.wait("a", "3");
    server.put("app/a", "4");
    ground.wait("a", "4");
    assert_eq!(network.watches(), 2);
}

#[test]
fn etcd_behind_a_network_that_is_cut() {
    if !able(&NEEDS) {
        return;
    }
    let _turn = Turn::shared();
    let ground = Ground::new(&[]);
    let server = Etcd::start(ground.dir.path(), free_addr(), &[]);
    server.put("app/a", "0");
    let network = Network::before(server.client);
    let source = format!("--source=etcd://{}/app/", network.addr);
    let module = ground.spawn_from(&[&source], &["--resync=2s"]);
    module.wait_ready();
    until("a watch", || (network.watches() == 1).then_some(()));
    // The watch is dead and nobody says so: the resync finds what changed, and watches anew.
    network.cut();
    server.put("app/a", "1");
    ground.wait("a", "1");
    until("a new watch", || (network.watches() > 1).then_some(()));

    let sample = |name: &str, labels: &str| {
        let source = format!("etcd://{}/app/", network.addr);
        module
            .metric(&format!(
                "podkit_config_{name}{{source=\"{source}\"{labels}}}"
            ))
            .unwrap()
    };
    network.state.down.store(true, Ordering::SeqCst);
    network.cut();
    waits(&module, "gave no answer within 10 s");
    let contact = sample("source_contact_timestamp_seconds", "");
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let age = now.as_secs_f64() - contact;
    assert!(age > 8.0, "the last contact was {age} s ago");
    assert!(sample("source_reads_total", ",result=\"failure\"") >= 1.0);
    assert_eq!(ground.read("a").as_deref(), Some("1"));
    network.state.down.store(false, Ordering::SeqCst);
    server.put("app/a", "2");
    ground.wait("a", "2");
}

#[test]
fn etcd_with_a_member_down() {
    if !able(&NEEDS) {
        return;
    }
    let _turn = Turn::shared();
    let ground = Ground::new(&[]);
    let mut members = Etcd::cluster(ground.dir.path());
    members[2].0.put_once_led("app/a", "0");
    let [one, two, three] = [0, 1, 2].map(|at| members[at].0.client);
    let source = format!("--source=etcd://{one}/app/;also={two};also={three}");
    let module = ground.spawn_from(&[&source], &["--resync=1h", "--period=500ms"]);
    module.wait_ready();
    let kill = |member: &mut Etcd| {
        member.process.signal(Signal::KILL);
        member.process.wait();
    };
    kill(&mut members[0].0);
    members[2].0.put_once_led("app/a", "1");
    ground.wait("a", "1");
    // One of three knows that it does not know; what is published stays.
    kill(&mut members[1].0);
    waits(&module, "a source can't be read");
    assert_eq!(ground.read("a").as_deref(), Some("1"));
    members[1].0 = (members[1].1)();
    members[2].0.put_once_led("app/a", "2");
    ground.wait("a", "2");
}
