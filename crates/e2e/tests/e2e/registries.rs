//! Registries that are not open to all: a private authority, clients' certificates, passwords, helpers, a proxy. The registry is
//! Debian's docker-registry; `podkit image pull` is run with a home of the test's.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use podkit_testkit::certs::{Authority, Pair};
use podkit_testkit::images::{Door, PROGRAMS, Registry, archive};
use podkit_testkit::podkit::command;
use podkit_testkit::process::{Finished, run};
use podkit_testkit::{Need, able};
use serde_json::json;

/// `reader` with the password `s3cret`, as htpasswd -B writes it.
const PASSWORD: &str = "reader:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK";
/// A name that nobody but the proxy can resolve.
const NAME: &str = "registry.test";

/// An image in a registry's storage, and a home for who pulls it.
struct World {
    dir: tempfile::TempDir,
    authority: Authority,
    pair: Pair,
}

impl World {
    fn new() -> Option<Self> {
        let needs: Vec<Need> = PROGRAMS.iter().map(|name| Need::Program(name)).collect();
        if !able(&needs) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("files/layer");
        fs::create_dir_all(&layer).unwrap();
        fs::create_dir_all(dir.path().join("home")).unwrap();
        fs::write(layer.join("word"), "here\n").unwrap();
        let config = json!({ "Cmd": ["/word"] });
        let made = archive(&dir.path().join("files"), "app:1", &["layer"], &config);
        Registry::start(dir.path()).push(&made);
        let authority = Authority::new("a registry's own");
        let pair = authority.server(&["127.0.0.1", NAME]);
        Some(Self {
            dir,
            authority,
            pair,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn behind(&self, door: Door<'_>) -> Registry {
        let pair = Some(&self.pair);
        Registry::behind(self.dir.path(), Door { pair, ..door })
    }

    /// Puts a file where certificates for a registry are looked for.
    fn trust(&self, host: &str, name: &str, text: &str) {
        let certs = self.path("home/.config/containers/certs.d").join(host);
        fs::create_dir_all(&certs).unwrap();
        fs::write(certs.join(name), text).unwrap();
    }

    /// Docker's configuration of the one who pulls.
    fn configure(&self, config: &serde_json::Value) {
        let docker = self.path("home/.docker");
        fs::create_dir_all(&docker).unwrap();
        fs::write(docker.join("config.json"), config.to_string()).unwrap();
    }

    /// `podkit image pull HOST/team/app:1` into an empty store.
    fn pull(&self, host: &str, variables: &[(&str, &str)]) -> Finished {
        let state = self.path("state");
        fs::remove_dir_all(&state).ok();
        let mut pull = command(&["image", "pull", "-q"]);
        pull.arg(format!("{host}/team/app:1"));
        pull.arg("--state-dir").arg(&state);
        pull.env_clear().env("HOME", self.path("home"));
        pull.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        run("podkit image pull", pull.envs(variables.iter().copied()))
    }
}

fn good(pulled: &Finished) {
    assert_eq!(pulled.code, Some(0), "{}", pulled.err);
}

/// Refused with one line that has these words.
fn bad(pulled: &Finished, words: &[&str]) {
    assert_eq!(pulled.code, Some(1), "{}", pulled.err);
    assert_eq!(pulled.err.trim().lines().count(), 1, "{}", pulled.err);
    for word in words {
        assert!(pulled.err.contains(word), "{word}: {}", pulled.err);
    }
}

#[test]
fn a_private_authority_is_trusted_where_it_is_put() {
    let Some(world) = World::new() else { return };
    let registry = world.behind(Door::default());
    let host = registry.addr().to_string();
    bad(&world.pull(&host, &[]), &[&host, "certs.d"]);
    let file = world.path("authority.pem");
    fs::write(&file, world.authority.pem()).unwrap();
    good(&world.pull(&host, &[("SSL_CERT_FILE", file.to_str().unwrap())]));
    // Another registry's is not this one's.
    world.trust("127.0.0.1:1", "ca.crt", &world.authority.pem());
    bad(&world.pull(&host, &[]), &["certs.d"]);
    world.trust(&host, "ca.crt", &world.authority.pem());
    good(&world.pull(&host, &[]));
}

#[test]
fn a_clients_certificate_is_shown_where_it_is_put() {
    let Some(world) = World::new() else { return };
    let clients = Authority::new("its clients");
    let registry = world.behind(Door {
        clients: Some(&clients),
        ..Door::default()
    });
    let host = registry.addr().to_string();
    world.trust(&host, "ca.crt", &world.authority.pem());
    bad(&world.pull(&host, &[]), &[&host]);
    let client = clients.client("puller", &[]);
    world.trust(&host, "client.cert", &client.cert);
    // Half of a pair is none.
    bad(&world.pull(&host, &[]), &["client"]);
    world.trust(&host, "client.key", &client.key);
    good(&world.pull(&host, &[]));
}

#[test]
fn a_password_comes_from_dockers_configuration_or_its_helper() {
    let Some(world) = World::new() else { return };
    let registry = world.behind(Door {
        password: Some(PASSWORD),
        ..Door::default()
    });
    let host = registry.addr().to_string();
    world.trust(&host, "ca.crt", &world.authority.pem());
    bad(&world.pull(&host, &[]), &[&host, "authentication required"]);
    // reader:s3cret, reader:wrong
    let auth = |word: &str| json!({ "auths": { &host: { "auth": word } } });
    world.configure(&auth("cmVhZGVyOnMzY3JldA=="));
    good(&world.pull(&host, &[]));
    world.configure(&auth("cmVhZGVyOndyb25n"));
    let refused = world.pull(&host, &[]);
    bad(&refused, &["denied"]);
    assert!(!refused.err.contains("wrong"), "{}", refused.err);

    let (bin, asked) = (world.path("bin"), world.path("asked"));
    fs::create_dir(&bin).unwrap();
    let helper = format!(
        "#!/bin/sh\n[ \"$1\" = get ] || exit 1\ncat >'{}'\necho '{{\"Username\": \"reader\", \"Secret\": \"s3cret\"}}'\n",
        asked.display()
    );
    let program = bin.join("docker-credential-test");
    fs::write(&program, helper).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    for config in [
        json!({ "credHelpers": { &host: "test" } }),
        json!({ "credsStore": "test" }),
    ] {
        world.configure(&config);
        good(&world.pull(&host, &[("PATH", &path)]));
        assert_eq!(fs::read_to_string(&asked).unwrap().trim(), host);
        fs::remove_file(&asked).unwrap();
    }
    // A helper that is not there is said by its name.
    bad(&world.pull(&host, &[]), &["docker-credential-test"]);
}

#[test]
fn a_proxy_is_gone_through_where_one_is_set() {
    let Some(world) = World::new() else { return };
    let registry = world.behind(Door::default());
    let proxy = Proxy::start(registry.addr());
    let host = format!("{NAME}:{}", registry.addr().port());
    world.trust(&host, "ca.crt", &world.authority.pem());
    let through = format!("http://{}", proxy.addr);
    good(&world.pull(&host, &[("HTTPS_PROXY", &through)]));
    let tunnels = proxy.tunnels.load(Ordering::SeqCst);
    assert!(tunnels > 0);
    // Names that are excepted are looked up here, in vain.
    let around = [("HTTPS_PROXY", through.as_str()), ("NO_PROXY", ".test")];
    bad(&world.pull(&host, &around), &[NAME]);
    assert_eq!(proxy.tunnels.load(Ordering::SeqCst), tunnels);
}

/// A proxy that knows CONNECT, and leads to one address whatever it is asked for.
struct Proxy {
    addr: SocketAddr,
    tunnels: Arc<AtomicUsize>,
}

impl Proxy {
    /// Its thread ends with the test's process.
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let tunnels = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tunnels);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || tunnel(&client, to, &counted));
            }
        });
        Self { addr, tunnels }
    }
}

fn tunnel(client: &TcpStream, to: SocketAddr, counted: &AtomicUsize) {
    let mut head = BufReader::new(client.try_clone().unwrap());
    let mut line = String::new();
    head.read_line(&mut line).unwrap();
    let asked = format!("CONNECT {NAME}:{} HTTP/1.1\r\n", to.port());
    assert_eq!(line, asked);
    while line.trim() != "" {
        line.clear();
        head.read_line(&mut line).unwrap();
    }
    counted.fetch_add(1, Ordering::SeqCst);
    (&*client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let server = TcpStream::connect(to).unwrap();
    let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || copy(&back.0, &back.1));
    copy(client, &server);
}

/// Until one side ends.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    to.shutdown(std::net::Shutdown::Write).ok();
}
