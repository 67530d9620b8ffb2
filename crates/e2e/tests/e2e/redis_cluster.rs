//! `podkit redis --cluster` in front of a real Redis Cluster, with clients that know nothing of clusters.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::redis::{Client, Cluster, Redis, Reply, migrate};
use podkit_testkit::{Need, Turn, able, until};
use rustix::process::Signal;

/// A cluster, and the module in front.
pub(super) struct Ground {
    pub(super) cluster: Cluster,
    module: Module,
    listen: SocketAddr,
    _turn: Turn,
}

impl Ground {
    /// Three primaries. None when the machine lacks Redis.
    pub(super) fn start(replicas: usize, more: &[&str]) -> Option<Self> {
        if !able(&[Need::Program("redis-server")]) {
            return None;
        }
        let turn = Turn::shared();
        let cluster = Cluster::start(3, replicas);
        let listen = free_addr();
        let args = [
            format!("--listen={listen}"),
            "--workers=2".to_owned(),
            // The others are learnt from it.
            format!("--cluster={}", cluster.nodes[1].addr),
        ];
        let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
        args.extend(more);
        Some(Self {
            module: Module::start("redis", &args, &[]),
            cluster,
            listen,
            _turn: turn,
        })
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.listen)
    }

    fn page(&self) -> String {
        self.module.admin("/").text()
    }

    pub(super) fn metric(&self, sample: &str) -> f64 {
        self.module.metric(sample).unwrap_or(0.0)
    }

    /// Commands that a node was sent.
    fn sent(&self, node: &Redis, part: &str) -> f64 {
        let addr = node.addr;
        self.metric(&format!(
            "podkit_redis_commands_total{{server=\"{addr}\",as=\"{part}\"}}"
        ))
    }
}

fn array(reply: Reply) -> Vec<String> {
    match reply {
        Reply::Array(all) => all.iter().map(ToString::to_string).collect(),
        other => panic!("no array: {other}"),
    }
}

#[test]
fn a_client_that_knows_nothing_of_clusters_uses_one() {
    let Some(ground) = Ground::start(0, &[]) else {
        return;
    };
    let mut client = ground.client();
    let mut check = |command: &str, expected: &str| {
        assert_eq!(client.line(command), expected, "{command}");
    };
    for at in 0..60 {
        check(&format!("set k{at} v{at}"), "OK");
        check(&format!("get k{at}"), &format!("v{at}"));
    }
    // Each has its part.
    for node in &ground.cluster.nodes {
        assert!(ground.sent(node, "primary") > 20.0);
        assert_ne!(node.client().line("dbsize"), ":0");
    }
    // Keys of many slots, also several of one node's.
    check("mset a 1 b 2 c 3 d 4 e 5", "OK");
    check("mget a nosuch e {a}x d b c", "[1 nil 5 nil 4 2 3]");
    check("exists a b c nosuch a", ":4");
    check("touch a b", ":2");
    check("del a b c", ":3");
    check("unlink d e nosuch", ":2");
    check("dbsize", ":60");
    check("set {t}1 x", "OK");
    check("rename {t}1 {t}2", "OK");
    check("del {t}2", ":1");
    let apart = "-CROSSSLOT Keys in request don't hash to the same slot";
    check("msetnx a 1 b 2", apart);
    check("sunion a b", apart);
    // What a script says it needs.
    check("eval return(redis.call('incr',KEYS[1])) 1 n", ":1");
    check("del n", ":1");
    let sha = client
        .ask(&["SCRIPT", "LOAD", "return KEYS[1]"])
        .to_string();
    let mut check = |command: &str, expected: &str| {
        assert_eq!(client.line(command), expected, "{command}");
    };
    for key in ["a", "b", "c"] {
        check(&format!("evalsha {sha} 1 {key}"), key);
    }
    check(&format!("script exists {sha}"), "[:1]");
    // What is a cluster's.
    assert!(client.line("select 1").starts_with("-ERR"));
    assert!(client.line("cluster info").contains("cluster_state:ok"));
    assert_eq!(client.line("cluster keyslot foo"), ":12182");
    let refused = client.line("cluster failover");
    assert!(refused.contains("does not change a cluster"), "{refused}");
    // Everything, once.
    let mut found = HashSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut reply = client.ask(&["SCAN", &cursor, "COUNT", "7"]);
        let Reply::Array(parts) = &mut reply else {
            panic!("no array: {reply}")
        };
        found.extend(array(parts.pop().expect("keys")));
        cursor = parts.pop().expect("a cursor").to_string();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), 60);
    assert_eq!(array(client.ask(&["KEYS", "k*"])).len(), 60);
    // In one go, in order.
    for at in 0..60 {
        client.send(&["INCR", &format!("k{at}x")]);
        client.send(&["GET", &format!("k{at}x")]);
        client.send(&["MGET", &format!("k{at}"), &format!("k{at}x")]);
    }
    for at in 0..60 {
        let replies: Vec<_> = (0..3)
            .map(|_| client.reply().expect("a reply").to_string())
            .collect();
        assert_eq!(replies, [":1", "1", &format!("[v{at} 1]")]);
    }
    assert_eq!(client.line("flushall"), "OK");
    assert_eq!(client.line("dbsize"), ":0");
    let page = ground.page();
    assert!(page.contains("5461") && page.contains("5462"), "{page}");
    // One that has just joined is learnt of when a slot is moved to it.
    let node = Cluster::node();
    ground.cluster.meet(&node);
    until("the node is known", || {
        let addr = node.addr.to_string();
        ground.page().contains(&addr).then_some(())
    });
}

#[test]
fn what_needs_a_connection_of_its_own_gets_one_to_the_right_node() {
    let Some(ground) = Ground::start(0, &[]) else {
        return;
    };
    let (mut client, mut other) = (ground.client(), ground.client());
    // Each on another node; what has no key waits for the one that has.
    for key in ["a", "b", "c", "d"] {
        for (command, expected) in [
            ("multi", "OK".to_owned()),
            ("ping", "QUEUED".to_owned()),
            (&format!("set {key} 1"), "QUEUED".to_owned()),
            (&format!("incr {key}"), "QUEUED".to_owned()),
            ("exec", "[PONG OK :2]".to_owned()),
        ] {
            assert_eq!(client.line(command), expected, "{command}");
        }
    }
    let apart = "-CROSSSLOT Keys in request don't hash to the same";
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    for (command, expected) in [
        ("multi", "OK"),
        ("echo x", "QUEUED"),
        ("exec", "[x]"),
        ("multi", "OK"),
        ("ping", "QUEUED"),
        ("discard", "OK"),
        ("multi", "OK"),
        ("incr a", "QUEUED"),
        ("incr b", &format!("{apart} shard")),
        ("exec", aborted),
        ("get a", "2"),
        ("watch a b", &format!("{apart} slot")),
        ("watch a", "OK"),
        ("get a", "2"),
        ("multi", "OK"),
        ("incr a", "QUEUED"),
    ] {
        assert_eq!(client.line(command), expected, "{command}");
    }
    assert_eq!(other.line("set a 7"), "OK");
    assert_eq!(client.line("exec"), "nil");
    // What waits, and messages.
    for key in ["la", "lb", "lc", "ld"] {
        client.send(&["BLPOP", key, "10"]);
        assert_eq!(other.line(&format!("rpush {key} v")), ":1");
        assert_eq!(
            client.reply().expect("a reply").to_string(),
            format!("[{key} v]")
        );
    }
    for (subscribe, publish) in [("subscribe", "publish"), ("ssubscribe", "spublish")] {
        let mut listener = ground.client();
        let begun = listener.line(&format!("{subscribe} news"));
        assert_eq!(begun, format!("[{subscribe} news :1]"));
        // Others hear of it by the nodes' own ways.
        until("it is heard", || {
            other.line(&format!("{publish} news hello"));
            Some(
                listener
                    .reply()?
                    .to_string()
                    .ends_with("message news hello]"),
            )
            .filter(|heard| *heard)
        });
    }
}

/// Clients that write and read until they are told to end: how much was acknowledged of each key, and what went wrong.
struct Load {
    /// Of each client's keys, how many increments were acknowledged.
    counts: Vec<i64>,
    acknowledged: usize,
    reads: usize,
    /// Writes that were sent and not answered.
    uncertain: usize,
    /// Times that a client did not read what it had written.
    stale: usize,
    errors: Vec<String>,
}

/// Under one slot all keys: `{tag}`. Without, under many.
fn load(listen: SocketAddr, tag: &str, ends: &AtomicBool, done: &AtomicUsize) -> Load {
    let client = |at: usize| {
        let mut load = Load {
            counts: vec![0; 8],
            acknowledged: 0,
            reads: 0,
            uncertain: 0,
            stale: 0,
            errors: Vec::new(),
        };
        let mut client = Client::connect(listen);
        let (mut turn, mut last) = (0, [0; 8]);
        while !ends.load(Ordering::SeqCst) {
            let key = turn % last.len();
            turn += 1;
            // What was written some time ago: replicas have it by now.
            let old = (turn + 4) % last.len();
            match client.ask(&["GET", &format!("{tag}c{at}k{old}")]) {
                Reply::Bulk(value) => {
                    load.reads += 1;
                    load.stale += usize::from(value != last[old].to_string());
                }
                Reply::Nothing if last[old] == 0 => load.reads += 1,
                other => load.errors.push(format!("get k{old}: {other}")),
            }
            let name = format!("{tag}c{at}k{key}");
            match client.ask(&["INCR", &name]) {
                Reply::Integer(value) => {
                    load.acknowledged += 1;
                    done.fetch_add(1, Ordering::SeqCst);
                    load.counts[key] += 1;
                    last[key] = value;
                }
                Reply::Error(why) if why.contains("may have been done") => {
                    load.uncertain += 1;
                    let there = client.line(&format!("incrby {name} 0"));
                    last[key] = there.trim_start_matches(':').parse().expect("a number");
                    continue;
                }
                other => load.errors.push(format!("incr {name}: {other}")),
            }
            match client.ask(&["GET", &name]) {
                Reply::Bulk(value) => {
                    load.reads += 1;
                    load.stale += usize::from(value != last[key].to_string());
                }
                other => load.errors.push(format!("get {name}: {other}")),
            }
            // In one go: several writes of one key, and a read behind them.
            if turn % 4 == 0 {
                let name = format!("{tag}c{at}p{turn}");
                for value in 0..4 {
                    client.send(&["SET", &name, &value.to_string()]);
                }
                client.send(&["GET", &name]);
                let replies: Vec<_> = (0..5).map(|_| client.reply().expect("a reply")).collect();
                let texts: Vec<String> = replies.iter().map(ToString::to_string).collect();
                match texts.iter().any(|text| text.contains("may have been done")) {
                    true => load.uncertain += 1,
                    false if texts == ["OK", "OK", "OK", "OK", "3"] => load.acknowledged += 4,
                    false => load.errors.push(format!("set {name}: {texts:?}")),
                }
            }
        }
        load
    };
    let loads: Vec<Load> = scope(|scope| {
        let client = &client;
        let all: Vec<_> = (0..4).map(|at| scope.spawn(move || client(at))).collect();
        all.into_iter()
            .map(|one| one.join().expect("a client"))
            .collect()
    });
    loads
        .into_iter()
        .reduce(|mut all, one| {
            all.counts.extend(one.counts);
            all.acknowledged += one.acknowledged;
            all.reads += one.reads;
            all.uncertain += one.uncertain;
            all.stale += one.stale;
            all.errors.extend(one.errors);
            all
        })
        .expect("some clients")
}

/// Increments that are there beyond those that were acknowledged, and those that are missing.
fn beyond(ground: &Ground, tag: &str, load: &Load) -> (i64, i64) {
    let mut client = ground.client();
    let (mut beyond, mut lost) = (0, 0);
    for (at, acknowledged) in load.counts.iter().enumerate() {
        let name = format!("{tag}c{}k{}", at / 8, at % 8);
        let there = client.line(&format!("incrby {name} 0"));
        let there: i64 = there.trim_start_matches(':').parse().expect("a number");
        beyond += (there - acknowledged).max(0);
        lost += (acknowledged - there).max(0);
    }
    (beyond, lost)
}

fn wait_for(more: usize, done: &AtomicUsize) {
    let enough = done.load(Ordering::SeqCst) + more;
    until("writes are acknowledged", || {
        (done.load(Ordering::SeqCst) >= enough).then_some(())
    });
}

/// Transactions, with and without WATCH, until it is told to end: how many were done and not.
fn transactions(listen: SocketAddr, tag: &str, ends: &AtomicBool) -> (i64, i64) {
    let (mut client, mut done, mut changed) = (Client::connect(listen), 0, 0);
    let key = format!("{tag}t");
    while !ends.load(Ordering::SeqCst) {
        let watches = (done + changed) % 2 == 0;
        if watches {
            assert_eq!(client.line(&format!("watch {key}")), "OK");
            client.line(&format!("get {key}"));
        }
        let before = done;
        for command in [
            "multi",
            "ping",
            &format!("incr {key}"),
            &format!("incr {key}"),
            "exec",
        ] {
            let reply = client.line(command);
            match (command, reply.as_str()) {
                ("multi", "OK") | (_, "QUEUED") => {}
                // As if somebody had changed it.
                ("exec", "nil") if watches => changed += 1,
                ("exec", reply) if reply.starts_with("[PONG :") => done += 1,
                _ => panic!("{command}: {reply}"),
            }
        }
        if done > before {
            let there = client.line(&format!("get {key}"));
            assert_eq!(there, (done * 2).to_string(), "done once");
        }
    }
    (done, changed)
}

#[test]
fn a_slot_is_moved_under_load_and_no_client_notices() {
    let Some(ground) = Ground::start(0, &[]) else {
        return;
    };
    let tag = "{m}";
    let slot: u16 = ground.client().line(&format!("cluster keyslot {tag}"))[1..]
        .parse()
        .expect("a slot");
    let (ends, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (load, (transacted, changed), moved) = scope(|scope| {
        let load = scope.spawn(|| load(ground.listen, tag, &ends, &done));
        let transactions = scope.spawn(|| transactions(ground.listen, tag, &ends));
        // It waits for what comes when the slot is elsewhere.
        let mut waits = ground.client();
        waits.send(&["BLPOP", &format!("{tag}list"), "20"]);
        let mut moved = 0;
        // To each of the others in turn, a few keys at a time.
        for round in 0..3 {
            wait_for(100, &done);
            let from = ground.cluster.owner(slot);
            let nodes = ground.cluster.nodes.iter();
            let others: Vec<&Redis> = nodes.filter(|node| node.addr != from.addr).collect();
            moved += migrate(
                slot,
                from,
                others[round % 2],
                &others[1 - round % 2..][..1],
                3,
            );
        }
        let mut client = ground.client();
        assert_eq!(client.line(&format!("rpush {tag}list v")), ":1");
        let popped = waits.reply().expect("a reply").to_string();
        assert_eq!(popped, format!("[{tag}list v]"));
        wait_for(100, &done);
        ends.store(true, Ordering::SeqCst);
        let transacted = transactions.join().expect("the transactions");
        (load.join().expect("the load"), transacted, moved)
    });
    let (asked, sent) = (
        ground.metric("podkit_redis_redirects_total{said=\"ask\"}"),
        ground.metric("podkit_redis_redirects_total{said=\"moved\"}"),
    );
    println!(
        "{} writes, {} reads, {transacted} transactions and {changed} not done, {moved} keys moved; ASK {asked}, MOVED {sent}",
        load.acknowledged, load.reads
    );
    assert_eq!(load.errors, Vec::<String>::new());
    assert_eq!(
        (load.uncertain, load.stale, beyond(&ground, tag, &load)),
        (0, 0, (0, 0))
    );
    assert!(asked > 0.0 && sent > 0.0 && moved > 32);
}

/// Reads until it is told to end: how many there were, and how many failed.
fn reads(listen: SocketAddr, ends: &AtomicBool, done: &AtomicUsize) -> usize {
    let (mut client, mut failed) = (Client::connect(listen), 0);
    while !ends.load(Ordering::SeqCst) {
        let at = done.fetch_add(1, Ordering::SeqCst) % 30;
        let reply = client.line(&format!("get r{at}"));
        if reply != at.to_string() {
            println!("get r{at}: {reply}");
            failed += 1;
        }
    }
    failed
}

/// The first primary gets a signal, and a replica takes its place.
fn a_primary_goes(signal: Signal) {
    let Some(ground) = Ground::start(1, &["--hold=20s"]) else {
        return;
    };
    let replicas = &ground.cluster.nodes[3..];
    let mut client = ground.client();
    for at in 0..30 {
        assert_eq!(client.line(&format!("set r{at} {at}")), "OK");
        assert_eq!(client.line(&format!("get r{at}")), at.to_string());
    }
    until(
        "each replica is read from, and the primaries no more",
        || {
            let primaries = &ground.cluster.nodes[..3];
            let sent = |nodes: &[Redis], part| -> Vec<f64> {
                nodes.iter().map(|one| ground.sent(one, part)).collect()
            };
            let before = (sent(primaries, "primary"), sent(replicas, "replica"));
            for at in 0..30 {
                assert_eq!(client.line(&format!("get r{at}")), at.to_string());
            }
            let after = sent(replicas, "replica");
            let more = before
                .1
                .iter()
                .zip(&after)
                .all(|(before, after)| after > before);
            (more && sent(primaries, "primary") == before.0).then_some(())
        },
    );
    let (ends, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let read = AtomicUsize::new(0);
    // Who hears of all primaries hears that one is gone, and of the new one when it asks again.
    let mut hears = ground.client();
    let begins = "psubscribe __keyevent@0__:*";
    assert!(hears.line(begins).ends_with(":1]"));
    let (load, resumed, failed) = scope(|scope| {
        let load = scope.spawn(|| load(ground.listen, "", &ends, &done));
        let reader = scope.spawn(|| reads(ground.listen, &ends, &read));
        wait_for(300, &done);
        let former = &ground.cluster.nodes[0];
        let before = read.load(Ordering::SeqCst);
        former.server.process.signal(signal);
        let heir = &replicas[0];
        until("the replica is the primary", || {
            let role = heir.client().line("role");
            role.starts_with("[master").then_some(())
        });
        let began = Instant::now();
        // Some of them of its slots: they are read in turn.
        let meanwhile = read.load(Ordering::SeqCst) - before;
        assert!(meanwhile > 100, "{meanwhile} reads while there was none");
        let sent = ground.sent(heir, "primary");
        until("it is written to", || {
            (ground.sent(heir, "primary") > sent).then_some(())
        });
        let resumed = began.elapsed();
        assert!(hears.reply().is_none());
        let mut hears = ground.client();
        assert!(hears.line(begins).ends_with(":1]"));
        let clients = heir.client().line("client list");
        assert!(clients.contains("cmd=psubscribe"), "{clients}");
        wait_for(300, &done);
        if signal == Signal::STOP {
            let sent = ground.sent(former, "primary");
            former.server.process.signal(Signal::CONT);
            until("the former primary is a replica", || {
                let role = former.client().line("role");
                role.starts_with("[slave").then_some(())
            });
            wait_for(300, &done);
            let late = ground.sent(former, "primary") - sent;
            assert_eq!(late, 0.0, "nothing is written to it");
        }
        ends.store(true, Ordering::SeqCst);
        let failed = reader.join().expect("the reader");
        (load.join().expect("the load"), resumed, failed)
    });
    let (beyond, lost) = beyond(&ground, "", &load);
    println!(
        "{signal:?}: {} writes, {} reads, {} uncertain, {beyond} of them done, {lost} lost; resumed after {resumed:?}",
        load.acknowledged, load.reads, load.uncertain
    );
    assert_eq!((failed, load.errors), (0, Vec::<String>::new()));
    assert!(load.uncertain <= 4, "each client one at a time");
    assert!(beyond <= i64::try_from(load.uncertain).expect("few"));
    // Replication is asynchronous: what each client was told last may be gone with the primary.
    assert!(lost <= 4, "{lost} lost");
    assert!(load.stale == 0 || lost > 0, "{} stale", load.stale);
    assert!(resumed < Duration::from_secs(2), "{resumed:?}");
}

#[test]
fn a_primary_is_killed_under_load() {
    a_primary_goes(Signal::KILL);
}

#[test]
fn a_primary_is_stopped_under_load_and_continued() {
    a_primary_goes(Signal::STOP);
}
