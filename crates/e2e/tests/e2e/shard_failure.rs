//! `podkit shard` while shards are away: real Redis servers that are killed, held and started again.

use std::path::Path;
use std::time::{Duration, Instant};

use podkit_testkit::certs::Authority;
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::redis::{Client, Redis};
use podkit_testkit::{Need, Turn, able, until};
use rustix::process::Signal;

/// A shard is out at most so long after its end: three probes, the wait before them, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(3);

const QUICK: [&str; 4] = [
    "--probe-period=100ms",
    "--probe-timeout=300ms",
    "--min-out=300ms",
    "--workers=2",
];

fn start(listen: &str, servers: &[Redis], more: &[&str]) -> Module {
    let mut args = vec![listen.to_owned()];
    let shards = servers.iter().enumerate();
    args.extend(shards.map(|(at, server)| format!("--shard=s{at}={}", server.addr)));
    args.extend(
        QUICK
            .iter()
            .chain(more)
            .map(|argument| (*argument).to_owned()),
    );
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Module::start("shard", &args, &[])
}

fn keys() -> impl Iterator<Item = String> {
    (0..200).map(|at| format!("k{at}"))
}

fn set(client: &mut Client, value: &str) -> bool {
    keys().all(|key| client.line(&format!("set {key} {value}")) == "OK")
}

#[test]
fn rehash_gives_a_cache_to_the_others_and_nothing_stale_comes_back() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let servers: Vec<Redis> = (0..3).map(|_| Redis::start(&[])).collect();
    let addr = free_addr();
    let module = start(
        &format!("--listen={addr}"),
        &servers,
        &["--on-failure=rehash"],
    );
    // Of both workers, so that they have to agree.
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(addr)).collect();
    assert!(set(&mut clients[0], "old"));
    // Held, so that what it was sent and has not read yet waits for its return.
    servers[1].server.process.signal(Signal::STOP);
    let mut late: Vec<Client> = (0..2).map(|_| Client::connect(addr)).collect();
    for client in &mut late {
        for key in keys() {
            client.send(&["SET", &key, "late"]);
        }
    }
    let begun = Instant::now();
    until("its keys are served by the others", || {
        (module.metric("podkit_shard_out{shard=\"s1\"}") == Some(1.0)).then_some(())
    });
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    for client in &mut late {
        let refused = keys()
            .filter(|_| client.reply().unwrap().to_string() != "OK")
            .count();
        assert!((20..140).contains(&refused), "{refused}");
    }
    // At once, not when their patience ends.
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(set(&mut clients[1], "new"));
    for client in &mut clients {
        assert!(keys().all(|key| client.line(&format!("get {key}")) == "new"));
        assert_eq!(client.line("dbsize"), ":200");
    }
    let page = module.admin("/").text();
    assert!(page.contains("out: no reply for 300 ms"), "{page}");
    servers[1].server.process.signal(Signal::CONT);
    until("it serves again", || {
        (module.metric("podkit_shard_out{shard=\"s1\"}") == Some(0.0)).then_some(())
    });
    // Its keys are gone: neither what it had nor what came too late.
    let mut gone = 0;
    for client in &mut clients {
        for key in keys() {
            match client.line(&format!("get {key}")).as_str() {
                "nil" => gone += 1,
                "new" => {}
                other => panic!("{key}: {other}"),
            }
        }
    }
    assert!((6 * 20..6 * 140).contains(&gone), "{gone}");
    assert_eq!(servers[1].client().line("dbsize"), ":0");
    // Killed rather than held.
    assert!(set(&mut clients[0], "more"));
    servers[0].server.process.signal(Signal::KILL);
    let begun = Instant::now();
    until("its keys are served by the others", || {
        clients
            .iter_mut()
            .all(|client| set(client, "rest"))
            .then_some(())
    });
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(
        module.metric("podkit_shard_outages_total{shard=\"s0\"}"),
        Some(1.0)
    );
}

#[test]
fn a_spare_takes_a_shards_place_empty() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let servers: Vec<Redis> = (0..2).map(|_| Redis::start(&[])).collect();
    let spare = Redis::start(&[]);
    for key in keys() {
        assert_eq!(spare.client().line(&format!("set {key} stale")), "OK");
    }
    let addr = free_addr();
    let spares = format!("--spare=x={}", spare.addr);
    let module = start(
        &format!("--listen={addr}"),
        &servers,
        &["--on-failure=spare", &spares],
    );
    let mut client = Client::connect(addr);
    assert!(set(&mut client, "v"));
    servers[0].server.process.signal(Signal::STOP);
    until("the spare has its keys", || {
        module.admin("/").text().contains("stands in").then_some(())
    });
    let read: Vec<String> = keys()
        .map(|key| client.line(&format!("get {key}")))
        .collect();
    let missing = read.iter().filter(|value| *value == "nil").count();
    let there = read.iter().filter(|value| *value == "v").count();
    assert!(
        missing > 40 && there > 40 && missing + there == 200,
        "{read:?}"
    );
    assert!(set(&mut client, "w"));
    servers[0].server.process.signal(Signal::CONT);
    until("the shard has them again", || {
        (client
            .line("mget k0 k1 k2 k3 k4 k5 k6 k7 k8 k9")
            .contains('v'))
        .then_some(())
    });
    assert_ne!(spare.client().line("dbsize"), ":200");
}

#[test]
fn shards_by_tls_are_verified_and_probed_so_too() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("shards");
    let servers = [0, 1].map(|_| Redis::start_tls(&authority, dir.path()));
    let (cert, key) = authority.peer(&["podkit"]).write(dir.path(), "podkit");
    let (ca, other) = (dir.path().join("ca.pem"), dir.path().join("other.pem"));
    std::fs::write(&ca, authority.pem()).unwrap();
    std::fs::write(&other, Authority::new("other").pem()).unwrap();
    let start = |ca: &Path| {
        let listen = free_addr();
        let mut args = vec![
            format!("--listen={listen}"),
            "--on-failure=rehash".to_owned(),
            format!("--upstream-ca={}", ca.display()),
            format!("--upstream-cert={}", cert.display()),
            format!("--upstream-key={}", key.display()),
        ];
        args.extend(QUICK.map(str::to_owned));
        let shards = servers.iter().enumerate();
        args.extend(shards.map(|(at, server)| format!("--shard=s{at}=rediss://{}", server.addr)));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        (Module::start("shard", &args, &[]), Client::connect(listen))
    };
    let (module, mut client) = start(&ca);
    assert!(set(&mut client, "v"));
    assert_eq!(client.line("dbsize"), ":200");
    assert_eq!(client.line("multi"), "OK");
    assert_eq!(client.line("incr n"), "QUEUED");
    assert_eq!(client.line("exec"), "[:1]");
    // Probes speak TLS as well: the server sees their PINGs, and the shard stays.
    until("the shard was asked three times", || {
        let stats = client.line("info commandstats");
        let calls = stats.split("cmdstat_ping:calls=").nth(1)?;
        let calls: u32 = calls.split(',').next()?.parse().ok()?;
        (calls >= 3).then_some(())
    });
    assert_eq!(module.metric("podkit_shard_out{shard=\"s0\"}"), Some(0.0));
    let (_module, mut client) = start(&other);
    let line = client.line("get a");
    assert!(
        line.contains("certificate") || line.contains("no shard can be reached"),
        "{line}"
    );
}
