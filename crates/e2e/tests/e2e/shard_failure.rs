//! `podkit shard` while shards are away: real servers that are killed, held and started again.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use podkit_testkit::certs::Authority;
use podkit_testkit::memcached::{self, Memcached};
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::redis::{Client, Redis};
use podkit_testkit::{Need, Turn, able, until};
use rustix::process::Signal;

/// Not what ends the waiting for a shard that is out.
const PATIENT: &str = "--response-timeout=60s";

/// A shard is out at most so long after its end: three probes, the wait before them, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(15);

const QUICK: [&str; 4] = [
    "--probe-period=100ms",
    "--probe-timeout=1s",
    "--min-out=300ms",
    "--workers=2",
];

fn start(listen: SocketAddr, servers: &[SocketAddr], more: &[&str]) -> Module {
    let mut args = vec![format!("--listen={listen}")];
    let shards = servers.iter().enumerate();
    args.extend(shards.map(|(at, server)| format!("--shard=s{at}={server}")));
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
    let addrs: Vec<SocketAddr> = servers.iter().map(|server| server.addr).collect();
    let module = start(addr, &addrs, &["--on-failure=rehash", PATIENT]);
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
    assert!(page.contains("out: no reply for 1000 ms"), "{page}");
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
    let addrs: Vec<SocketAddr> = servers.iter().map(|server| server.addr).collect();
    let module = start(addr, &addrs, &["--on-failure=spare", &spares]);
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

/// The values of all keys, `-` for one that is missing.
fn values(client: &mut memcached::Client) -> Vec<String> {
    let asked: Vec<String> = keys().map(|key| format!("get {key}")).collect();
    let said = client.lines(&asked.join("|"));
    let mut lines = said.split('|');
    let mut value = || match lines.next()? {
        "END" => Some("-".to_owned()),
        line if line.starts_with("VALUE ") => {
            let value = lines.next().map(str::to_owned);
            lines.next();
            value
        }
        other => Some(other.to_owned()),
    };
    keys().map_while(|_| value()).collect()
}

/// All keys are stored with a value.
fn stored(client: &mut memcached::Client, value: &str) -> bool {
    let length = value.len();
    let sets: Vec<String> = keys()
        .map(|key| format!("set {key} 0 0 {length}|{value}"))
        .collect();
    let said = client.lines(&sets.join("|"));
    said.split('|').filter(|line| *line == "STORED").count() == 200
}

fn count(values: &[String], value: &str) -> usize {
    values.iter().filter(|one| *one == value).count()
}

#[test]
fn nothing_stale_of_memcached_comes_back() {
    if !able(&[Need::Program("memcached")]) {
        return;
    }
    let _turn = Turn::shared();
    let mut servers: Vec<Memcached> = (0..3).map(|_| Memcached::start()).collect();
    let addrs: Vec<SocketAddr> = servers.iter().map(|server| server.addr).collect();
    let addr = free_addr();
    let module = start(
        addr,
        &addrs,
        &["--protocol=memcached", "--on-failure=rehash", PATIENT],
    );
    // Of both workers.
    let mut clients: Vec<_> = (0..4).map(|_| memcached::Client::connect(addr)).collect();
    assert!(stored(&mut clients[0], "old"));
    servers[1].server.process.signal(Signal::STOP);
    let mut late = TcpStream::connect(addr).unwrap();
    let sets: String = keys()
        .map(|key| format!("set {key} 0 0 4\r\nlate\r\n"))
        .collect();
    late.write_all(format!("{sets}quit\r\n").as_bytes())
        .unwrap();
    let out = |shard: &str| module.metric(&format!("podkit_shard_out{{shard=\"{shard}\"}}"));
    let begun = Instant::now();
    until("its keys are served by the others", || {
        (out("s1") == Some(1.0)).then_some(())
    });
    let mut said = String::new();
    late.read_to_string(&mut said).unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let refused = said
        .lines()
        .filter(|line| line.starts_with("SERVER_ERROR the connection to shard s1"));
    let refused = refused.count();
    assert!((20..140).contains(&refused), "{said}");
    assert!(stored(&mut clients[1], "new"));
    for client in &mut clients {
        assert_eq!(count(&values(client), "new"), 200);
        let stats = client.lines("stats");
        assert!(stats.contains("|STAT threads 2|"), "{stats}");
    }
    let page = module.admin("/").text();
    assert!(page.contains("out: no reply for 1000 ms"), "{page}");
    servers[1].server.process.signal(Signal::CONT);
    until("it serves again", || (out("s1") == Some(0.0)).then_some(()));
    for client in &mut clients {
        let values = values(client);
        let (gone, new) = (count(&values, "-"), count(&values, "new"));
        assert!(
            (20..140).contains(&gone) && gone + new == 200,
            "{gone} {new} {values:?}"
        );
    }
    assert_eq!(count(&values(&mut servers[1].client()), "-"), 200);
    // Killed, and another in its place that holds what it should not.
    assert!(stored(&mut clients[0], "more"));
    drop(servers.remove(2));
    until("its keys are served by the others", || {
        let all = clients.iter_mut().all(|client| stored(client, "rest"));
        all.then_some(())
    });
    let again = Memcached::start_on(addrs[2], None);
    assert!(stored(&mut again.client(), "stale"));
    until("it serves again", || (out("s2") == Some(0.0)).then_some(()));
    for client in &mut clients {
        let values = values(client);
        let (gone, rest) = (count(&values, "-"), count(&values, "rest"));
        assert!(gone > 20 && gone + rest == 200, "{values:?}");
    }
    let outages = module.metric("podkit_shard_outages_total{shard=\"s2\"}");
    assert_eq!(outages, Some(1.0));
}

/// As newer versions of memcached do it: what was stored in the running second stays when all is flushed. Errors until it is `well`.
fn flushes_by_the_second(listener: &TcpListener, well: &AtomicBool) {
    let store = Mutex::new(HashMap::<String, (Instant, String)>::new());
    let serve = |stream: TcpStream| {
        let mut writes = stream.try_clone().unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        while let Some(line) = lines.next() {
            let words: Vec<&str> = line.split(' ').collect();
            let mut store = store.lock().unwrap();
            let reply = match *words.as_slice() {
                ["set", key, ..] => {
                    let value = lines.next().unwrap();
                    store.insert(key.to_owned(), (Instant::now(), value));
                    "STORED".to_owned()
                }
                ["get", key] => match store.get(key) {
                    Some((_, value)) => {
                        format!("VALUE {key} 0 {}\r\n{value}\r\nEND", value.len())
                    }
                    None => "END".to_owned(),
                },
                ["mn"] => "MN".to_owned(),
                ["version"] if well.load(Ordering::Relaxed) => "VERSION 1.6.40".to_owned(),
                ["flush_all"] => {
                    store.retain(|_, (stored, _)| stored.elapsed() < Duration::from_secs(1));
                    "OK".to_owned()
                }
                _ => "ERROR".to_owned(),
            };
            drop(store);
            // The other side may be gone.
            writes.write_all(format!("{reply}\r\n").as_bytes()).ok();
        }
    };
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            scope.spawn(|| serve(stream.unwrap()));
        }
    });
}

#[test]
fn a_memcached_that_flushes_by_the_second_is_emptied_too() {
    let _turn = Turn::shared();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, well) = (
        listener.local_addr().unwrap(),
        Arc::new(AtomicBool::new(true)),
    );
    let is_well = Arc::clone(&well);
    std::thread::spawn(move || flushes_by_the_second(&listener, &is_well));
    let addr = free_addr();
    let module = start(
        addr,
        &[server],
        &["--protocol=memcached", "--on-failure=rehash"],
    );
    let out = || module.metric("podkit_shard_out{shard=\"s0\"}");
    let (mut client, mut direct) = [addr, server].map(memcached::Client::connect).into();
    assert!(stored(&mut client, "old"));
    well.store(false, Ordering::Relaxed);
    until("it is out", || (out() == Some(1.0)).then_some(()));
    let line = client.lines("get k1");
    assert_eq!(line, "SERVER_ERROR no shard can be reached");
    assert!(stored(&mut direct, "stale"));
    well.store(true, Ordering::Relaxed);
    until("it serves again", || (out() == Some(0.0)).then_some(()));
    assert_eq!(count(&values(&mut client), "-"), 200);
}

#[test]
fn a_spare_takes_the_place_of_a_memcached_empty() {
    if !able(&[Need::Program("memcached")]) {
        return;
    }
    let _turn = Turn::shared();
    let servers = [(); 2].map(|()| Memcached::start());
    // The first may not be emptied: it serves nobody.
    let spares = [
        Memcached::start_with(free_addr(), None, &["-F"]),
        Memcached::start(),
    ];
    for spare in &spares {
        assert!(stored(&mut spare.client(), "stale"));
    }
    let addr = free_addr();
    let module = start(
        addr,
        &[servers[0].addr, servers[1].addr],
        &[
            "--protocol=memcached",
            "--on-failure=spare",
            &format!("--spare=x={}", spares[0].addr),
        ],
    );
    let mut client = memcached::Client::connect(addr);
    assert!(stored(&mut client, "v"));
    servers[0].server.process.signal(Signal::STOP);
    until("the page says why none stands in", || {
        let page = module.admin("/").text();
        (page.contains("be emptied: flush_all: CLIENT_ERROR flush_all not allowed")).then_some(())
    });
    assert_eq!(count(&values(&mut client), "stale"), 0);
    drop(module);
    servers[0].server.process.signal(Signal::CONT);
    let module = start(
        addr,
        &[servers[0].addr, servers[1].addr],
        &[
            "--protocol=memcached",
            "--on-failure=spare",
            &format!("--spare=y={}", spares[1].addr),
        ],
    );
    let mut client = memcached::Client::connect(addr);
    servers[0].server.process.signal(Signal::STOP);
    until("the spare has its keys", || {
        module.admin("/").text().contains("stands in").then_some(())
    });
    let read = values(&mut client);
    let (missing, there) = (count(&read, "-"), count(&read, "v"));
    assert!(
        missing > 40 && there > 40 && missing + there == 200,
        "{read:?}"
    );
    servers[0].server.process.signal(Signal::CONT);
    until("the shard has them again", || {
        (count(&values(&mut client), "v") == 200).then_some(())
    });
}
