//! Registries that behave, that want a token or a password, that redirect, break off, and lie.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::image::testing::{Made, Packing, layer};
use crate::image::{
    EnsureError, Event, Location, Platform, Progress, Quiet, ResolvedImage, Store, Wanted,
};
use crate::plan::PullPolicy;

/// A request: its line, and its fields by lower-case name.
#[derive(Debug, Clone)]
struct Asked {
    line: String,
    fields: BTreeMap<String, String>,
}

impl Asked {
    fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// Status line and fields, and a body that may be shorter than it says.
struct Answered {
    head: String,
    body: Vec<u8>,
    length: usize,
}

fn answer(status: &str, fields: &str, body: &[u8]) -> Answered {
    Answered {
        head: format!("HTTP/1.1 {status}\r\n{fields}"),
        length: body.len(),
        body: body.to_vec(),
    }
}

/// A server on a port of its own, for as long as the test runs.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn start(respond: impl Fn(&Asked) -> Answered + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let respond = Arc::new(Mutex::new(respond));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, respond) = (Arc::clone(&log), Arc::clone(&respond));
                std::thread::spawn(move || serve(&stream.unwrap(), &log, &*respond));
            }
        });
        Self { port, asked }
    }

    fn count(&self, part: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.line.contains(part))
            .count()
    }
}

fn serve(
    mut stream: &TcpStream,
    log: &Mutex<Vec<Asked>>,
    respond: &Mutex<impl Fn(&Asked) -> Answered>,
) {
    let mut lines = BufReader::new(stream);
    let mut next = || {
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line).ok()?;
        String::from_utf8(line)
            .ok()
            .map(|line| line.trim_end().to_owned())
    };
    let line = match next() {
        Some(line) if line.starts_with(['G', 'H', 'P']) => line,
        // A TLS hello: as a server does that knows no TLS.
        _ => {
            let _sent = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
            return;
        }
    };
    let mut fields = BTreeMap::new();
    while let Some(field) = next().filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once(':').unwrap();
        fields.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let asked = Asked { line, fields };
    log.lock().unwrap().push(asked.clone());
    let Answered { head, body, length } = respond.lock().unwrap()(&asked);
    let head = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    let _sent = stream.write_all(head.as_bytes());
    if !asked.line.starts_with("HEAD") {
        let _sent = stream.write_all(&body);
    }
}

fn image() -> Made {
    // What does not get smaller.
    let mut state = 1u32;
    let mut noise = vec![0; 200_000];
    for byte in &mut noise {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *byte = state as u8;
    }
    let layers = [layer(&[("base", &noise)]), layer(&[("app", b"program")])];
    Made::image(&layers, Packing::Gzip, &json!({ "Cmd": ["/app"] }))
}

/// What a registry has under `/v2/team/app`.
fn found(made: &Made, path: &str) -> Option<Answered> {
    let manifest = made.descriptor();
    let rest = path.strip_prefix("/v2/team/app/")?;
    let fields = |media_type: &str, digest: &str| {
        format!("Content-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\n")
    };
    if rest == "manifests/1" {
        let digest = manifest.digest.to_string();
        let fields = fields(&manifest.media_type, &digest);
        return Some(answer("200 OK", &fields, &made.blobs[&digest]));
    }
    let digest = rest.strip_prefix("blobs/")?;
    let blob = made.blobs.get(digest)?;
    Some(answer(
        "200 OK",
        &fields("application/octet-stream", digest),
        blob,
    ))
}

fn unknown() -> Answered {
    let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    answer("404 Not Found", "", body)
}

struct World {
    dir: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("store"));
        Self { dir, store }
    }

    fn wanted(&self, server: &Server, auths: &serde_json::Value) -> Wanted {
        let authfile = self.dir.path().join("auth.json");
        std::fs::write(&authfile, auths.to_string()).unwrap();
        let name = format!("127.0.0.1:{}/team/app:1", server.port);
        let location = Location::Registry(name.parse().unwrap());
        Wanted {
            authfile: Some(authfile),
            ..Wanted::new(location, PullPolicy::Always)
        }
    }

    fn pull(&self, server: &Server) -> Result<ResolvedImage, EnsureError> {
        self.store
            .ensure_blocking(&self.wanted(server, &json!({})), &Quiet)
    }
}

#[test]
fn a_plain_registry_on_the_loopback() {
    let made = image();
    let digest = made.descriptor().digest.clone();
    let server = Server::start(move |asked| found(&made, asked.path()).unwrap_or_else(unknown));
    let world = World::new();
    let image = world.pull(&server).unwrap();
    assert_eq!(image.digest, digest);
    assert_eq!(
        std::fs::read(image.layers[0].join("app")).unwrap(),
        b"program"
    );
    assert!(image.pulled.is_some());
    assert_eq!(server.count("/blobs/"), 3);
    // Again: the name is asked for, and nothing is moved.
    world.pull(&server).unwrap();
    assert_eq!(
        (
            server.count("GET /v2/team/app/manifests"),
            server.count("/blobs/")
        ),
        (1, 3)
    );
    assert_eq!(server.count("HEAD"), 1);
    // By its digest it is here.
    let name = format!("127.0.0.1:{}/team/app@{digest}", server.port);
    let here = Wanted::new(
        Location::Registry(name.parse().unwrap()),
        PullPolicy::IfNotPresent,
    );
    assert_eq!(
        world.store.ensure_blocking(&here, &Quiet).unwrap().pulled,
        None
    );
    let missing = format!("127.0.0.1:{}/team/other:1", server.port);
    let missing = Wanted::new(
        Location::Registry(missing.parse().unwrap()),
        PullPolicy::Always,
    );
    let error = world
        .store
        .ensure_blocking(&missing, &Quiet)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/team/other:1: not found: manifest unknown"),
        "{error}"
    );
}

#[test]
fn a_token_for_a_password() {
    let made = image();
    let port = Arc::new(Mutex::new(0));
    let own_port = Arc::clone(&port);
    let server = Server::start(move |asked| {
        if let Some(query) = asked.path().strip_prefix("/token?") {
            assert!(
                query.contains("scope=repository%3Ateam%2Fapp%3Apull"),
                "{query}"
            );
            assert!(query.contains("service=reg"), "{query}");
            let right = format!("Basic {}", BASE64_STANDARD.encode("joe:right"));
            return match asked.field("authorization") == right {
                true => answer("200 OK", "", br#"{"token": "t0k"}"#),
                false => answer("401 Unauthorized", "", b"{}"),
            };
        }
        if asked.field("authorization") != "Bearer t0k" {
            let port = own_port.lock().unwrap();
            let realm = format!(
                "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"reg\",scope=\"repository:team/app:pull\"\r\n"
            );
            return answer("401 Unauthorized", &realm, b"");
        }
        found(&made, asked.path()).unwrap_or_else(unknown)
    });
    *port.lock().unwrap() = server.port;
    let world = World::new();
    let host = format!("127.0.0.1:{}", server.port);
    let auths = |password: &str| {
        let auth = BASE64_STANDARD.encode(format!("joe:{password}"));
        json!({ "auths": { &host: { "auth": auth } } })
    };
    let wrong = world.wanted(&server, &auths("wrong"));
    let error = world
        .store
        .ensure_blocking(&wrong, &Quiet)
        .unwrap_err()
        .to_string();
    assert!(error.contains("gives no token: 401"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
    let right = world.wanted(&server, &auths("right"));
    world.store.ensure_blocking(&right, &Quiet).unwrap();
    // One token for all.
    assert_eq!(server.count("/token"), 2);
    // The same as an imagePullSecret.
    let secret = Wanted {
        pull_secrets: vec![auths("right").to_string().into_bytes()],
        ..world.wanted(&server, &json!({}))
    };
    World::new().store.ensure_blocking(&secret, &Quiet).unwrap();
}

#[test]
fn a_password() {
    let made = image();
    let right = format!("Basic {}", BASE64_STANDARD.encode("joe:right"));
    let server = Server::start(move |asked| {
        if asked.field("authorization") != right {
            return answer(
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"x\"\r\n",
                b"",
            );
        }
        found(&made, asked.path()).unwrap_or_else(unknown)
    });
    let world = World::new();
    let error = world.pull(&server).unwrap_err().to_string();
    assert!(error.contains("pull access denied"), "{error}");
    // The second of two is right.
    let host = format!("127.0.0.1:{}", server.port);
    let auths = json!({ "auths": {
        format!("{host}/team"): { "username": "joe", "password": "wrong" },
        host: { "username": "joe", "password": "right" },
    } });
    world
        .store
        .ensure_blocking(&world.wanted(&server, &auths), &Quiet)
        .unwrap();
}

#[test]
fn what_is_shown_to_one_is_not_shown_to_another() {
    let made = image();
    let blobs = made.clone();
    let storage = Server::start(move |asked| found(&blobs, asked.path()).unwrap_or_else(unknown));
    let place = format!("http://127.0.0.1:{}", storage.port);
    let right = format!("Basic {}", BASE64_STANDARD.encode("joe:right"));
    let server = Server::start(move |asked| {
        if asked.field("authorization") != right {
            return answer(
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"x\"\r\n",
                b"",
            );
        }
        if asked.path().contains("/blobs/") {
            let location = format!("Location: {place}{}\r\n", asked.path());
            return answer("307 Temporary Redirect", &location, b"");
        }
        found(&made, asked.path()).unwrap_or_else(unknown)
    });
    let world = World::new();
    let host = format!("127.0.0.1:{}", server.port);
    let auths = json!({ "auths": { host: { "username": "joe", "password": "right" } } });
    world
        .store
        .ensure_blocking(&world.wanted(&server, &auths), &Quiet)
        .unwrap();
    assert_eq!(storage.count("/blobs/"), 3);
    let asked = storage.asked.lock().unwrap();
    assert!(
        asked
            .iter()
            .all(|asked| asked.field("authorization").is_empty())
    );
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn event(&self, event: Event) {
        if let Event::Retry(line) = event {
            self.0.lock().unwrap().push(line);
        }
    }
}

#[test]
fn what_breaks_off_is_gone_on_with() {
    for ranges in [true, false] {
        let made = image();
        let broken = Mutex::new(0);
        let server = Server::start(move |asked| {
            let mut answer = found(&made, asked.path()).unwrap_or_else(unknown);
            if !asked.path().contains("/blobs/") || answer.body.len() < 100_000 {
                return answer;
            }
            let from = asked.field("range").strip_prefix("bytes=");
            let from: usize = from.map_or(0, |from| from.trim_end_matches('-').parse().unwrap());
            if ranges && from > 0 {
                let all = answer.body.len();
                let range = format!("Content-Range: bytes {from}-{}/{all}\r\n", all - 1);
                answer.head = format!("HTTP/1.1 206 Partial Content\r\n{range}");
                answer.body.drain(..from);
                answer.length = answer.body.len();
            }
            let mut broken = broken.lock().unwrap();
            if *broken < 2 {
                *broken += 1;
                answer.body.truncate(from + 40_000);
            }
            answer
        });
        let world = World::new();
        let told = Told::default();
        let wanted = world.wanted(&server, &json!({}));
        let image = world.store.ensure_blocking(&wanted, &told).unwrap();
        assert_eq!(
            image.layers[1].join("base").metadata().unwrap().len(),
            200_000
        );
        let told = told.0.into_inner().unwrap();
        assert_eq!(told.len(), 2, "{told:?}");
        let asked = server.asked.lock().unwrap();
        assert_eq!(
            asked
                .iter()
                .filter(|asked| !asked.field("range").is_empty())
                .count(),
            2
        );
    }
}

#[test]
fn what_a_registry_may_not_say() {
    let refused = |change: fn(&Asked, Answered) -> Answered, why: &str| {
        let made = image();
        let server = Server::start(move |asked| {
            let answer = found(&made, asked.path()).unwrap_or_else(unknown);
            change(asked, answer)
        });
        let world = World::new();
        let error = world.pull(&server).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(world.store.list(&Platform::host()).unwrap().is_empty());
    };
    refused(
        |asked, mut answer| {
            if asked.path().contains("/blobs/") && answer.body.len() > 100_000 {
                answer.body[70_000] ^= 1;
            }
            answer
        },
        "layer sha256:",
    );
    let schema_1 = |asked: &Asked, answer: Answered| match asked.path().contains("manifests") {
        true => super::tests::answer(
            "200 OK",
            "Content-Type: application/vnd.docker.distribution.manifest.v1+prettyjws\r\n",
            br#"{"schemaVersion": 1, "name": "x"}"#,
        ),
        false => answer,
    };
    refused(schema_1, "version 2, schema 1");
    refused(
        |_, _| {
            answer(
                "307 Temporary Redirect",
                "Location: http://192.0.2.1/x\r\n",
                b"",
            )
        },
        "plain HTTP is for registries on this machine only",
    );
    refused(
        |_, _| answer("302 Found", "Location: /v2/loop\r\n", b""),
        "too many redirections",
    );
    refused(
        |_, _| answer("200 OK", "Content-Type: text/html\r\n", b"<html>"),
        "it can't be read",
    );
}

/// Debian's docker-registry, filled by skopeo: what it gives is what was pushed, and what podkit pushes skopeo reads. Without
/// the programs there is nothing to compare with.
#[test]
fn the_real_thing() {
    use std::process::{Command, Stdio};
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let config = dir.path().join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
        dir.path().join("data").display()
    );
    std::fs::write(&config, text).unwrap();
    let mut registry = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            std::time::Instant::now() < ready,
            "docker-registry does not listen"
        );
        std::thread::yield_now();
    }
    let outcome = std::panic::catch_unwind(|| {
        let made = image();
        let layout = dir.path().join("layout");
        made.write_layout(&layout, "1");
        let skopeo = |args: &[&str]| {
            let output = Command::new("skopeo").args(args).output().unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        };
        let name = format!("127.0.0.1:{port}/team/app:1");
        let (from, to) = (
            format!("oci:{}:1", layout.display()),
            format!("docker://{name}"),
        );
        skopeo(&["copy", "--dest-tls-verify=false", &from, &to]);
        let world = World::new();
        let wanted = Wanted::new(
            Location::Registry(name.parse().unwrap()),
            PullPolicy::Always,
        );
        let pulled = world.store.ensure_blocking(&wanted, &Quiet).unwrap();
        assert_eq!(pulled.digest, made.descriptor().digest);
        // The store is a layout that others read, under the image's name in full.
        let stored = format!("oci:{}:{name}", world.store.root().display());
        assert!(skopeo(&["inspect", &stored]).contains(&pulled.digest.to_string()));
        // podkit's own image, from a binary that is static: this one.
        let recipe = crate::image::Recipe {
            binary: "/proc/self/exe".into(),
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            exposed_ports: ["80/tcp".to_owned()].into(),
        };
        let built = crate::image::Built::new(&recipe).unwrap();
        assert_eq!(
            built.digest(),
            crate::image::Built::new(&recipe).unwrap().digest()
        );
        let own = format!("127.0.0.1:{port}/podkit:9");
        let keyring = crate::image::Keyring::default();
        built.push(&own.parse().unwrap(), &keyring).unwrap();
        let seen = skopeo(&["inspect", "--tls-verify=false", &format!("docker://{own}")]);
        assert!(
            seen.contains(&built.digest().to_string()) && seen.contains("\"a\": \"b\""),
            "{seen}"
        );
    });
    registry.kill().unwrap();
    registry.wait().unwrap();
    outcome.unwrap();
}
