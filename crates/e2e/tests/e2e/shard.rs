//! `podkit shard` in front of real Redis servers.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use podkit_testkit::certs::replace;
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::{Module, podkit};
use podkit_testkit::redis::{Client, Redis, Reply};
use podkit_testkit::{Need, Turn, able, until};

/// Servers with a shard module in front.
pub(crate) struct Ground {
    pub(crate) servers: Vec<Redis>,
    pub(crate) module: Module,
    listen: SocketAddr,
    _turn: Turn,
}

impl Ground {
    /// None when the machine lacks Redis.
    pub(crate) fn start(count: usize, more: &[&str]) -> Option<Self> {
        if !able(&[Need::Program("redis-server")]) {
            return None;
        }
        let turn = Turn::shared();
        let servers: Vec<Redis> = (0..count).map(|_| Redis::start(&[])).collect();
        let listen = free_addr();
        let mut args = vec![format!("--listen={listen}"), "--workers=1".to_owned()];
        let shards = servers.iter().enumerate();
        args.extend(shards.map(|(at, server)| format!("--shard=s{at}={}", server.addr)));
        let args: Vec<&str> = args
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        Some(Self {
            module: Module::start("shard", &args, &[]),
            servers,
            listen,
            _turn: turn,
        })
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.listen)
    }

    /// How many keys each server has.
    fn sizes(&self) -> Vec<i64> {
        let size = |server: &Redis| match server.client().ask(&["DBSIZE"]) {
            Reply::Integer(size) => size,
            other => panic!("{other}"),
        };
        self.servers.iter().map(size).collect()
    }
}

/// As `printf ... | nc` does: nothing that was asked is left unanswered.
#[test]
fn who_sends_no_more_still_gets_all_replies() {
    let Some(ground) = Ground::start(2, &[]) else {
        return;
    };
    let mut stream = TcpStream::connect(ground.listen).unwrap();
    let asked: String = (0..200)
        .map(|at| format!("SET k{at} {at}\r\nGET k{at}\r\n"))
        .collect();
    stream.write_all(asked.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).unwrap();
    let expected: String = (0..200)
        .map(|at| format!("+OK\r\n${}\r\n{at}\r\n", at.to_string().len()))
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn many_servers_look_like_one() {
    let Some(ground) = Ground::start(4, &[]) else {
        return;
    };
    let mut client = ground.client();
    for at in 0..400 {
        assert_eq!(client.line(&format!("set k{at} v{at}")), "OK");
    }
    let sizes = ground.sizes();
    assert_eq!(sizes.iter().sum::<i64>(), 400);
    assert!(sizes.iter().all(|size| *size > 40), "{sizes:?}");
    for at in 0..400 {
        assert_eq!(client.line(&format!("get k{at}")), format!("v{at}"));
    }
    // Split, and in the order of the keys.
    let keys: Vec<String> = (0..100).map(|at| format!("k{at}")).collect();
    let mut words = vec!["MGET", "missing"];
    words.extend(keys.iter().map(String::as_str));
    let values: Vec<String> = (0..100).map(|at| format!("v{at}")).collect();
    assert_eq!(
        client.ask(&words).to_string(),
        format!("[nil {}]", values.join(" "))
    );
    assert_eq!(client.line("mset a 1 b 2 c 3 d 4 e 5"), "OK");
    assert_eq!(client.line("mget e d c b a"), "[5 4 3 2 1]");
    assert_eq!(client.line("exists a b c d e a nothing"), ":6");
    assert_eq!(client.line("touch a b nothing"), ":2");
    assert_eq!(client.line("unlink a b c"), ":3");
    assert_eq!(client.line("del d e nothing"), ":2");
    assert_eq!(client.line("dbsize"), ":400");
    let Reply::Array(keys) = client.ask(&["KEYS", "k*"]) else {
        panic!("an array");
    };
    assert_eq!(keys.len(), 400);
    assert_ne!(client.line("randomkey"), "nil");
    // SCAN ends, and has each key once.
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    loop {
        let Reply::Array(mut reply) = client.ask(&["SCAN", &cursor, "COUNT", "7"]) else {
            panic!("an array");
        };
        let Some(Reply::Array(keys)) = reply.pop() else {
            panic!("keys");
        };
        found.extend(keys.iter().map(ToString::to_string));
        cursor = reply[0].to_string();
        if cursor == "0" {
            break;
        }
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 400);
    assert_eq!(client.line("flushall"), "OK");
    assert_eq!(ground.sizes(), [0, 0, 0, 0]);
}

#[test]
fn what_spans_shards_is_refused_as_redis_cluster_does() {
    let Some(ground) = Ground::start(3, &["--hash-tag={}"]) else {
        return;
    };
    let mut client = ground.client();
    let crossslot = |line: String| assert!(line.starts_with("-CROSSSLOT "), "{line}");
    crossslot(client.line("rename a e"));
    crossslot(client.line("sunionstore d a b c e f g"));
    crossslot(client.line("eval return(1) 6 a b c d e f"));
    assert_eq!(client.line("set {x}a 1"), "OK");
    assert_eq!(client.line("rename {x}a {x}b"), "OK");
    assert_eq!(client.line("get {x}b"), "1");
    assert!(client.line("replicaof no one").contains("about one server"));
    assert!(client.line("nosuchcommand a").contains("unknown command"));
    assert!(
        client
            .line("get")
            .contains("wrong number of arguments for 'get' command")
    );
    assert_eq!(
        ground.module.metric("podkit_shard_refused_total"),
        Some(4.0)
    );
}

#[test]
fn transactions_belong_to_the_shard_of_their_first_key() {
    let Some(ground) = Ground::start(3, &["--hash-tag={}"]) else {
        return;
    };
    let mut client = ground.client();
    assert_eq!(client.line("multi"), "OK");
    assert_eq!(client.line("incr {t}a"), "QUEUED");
    assert_eq!(client.line("incr {t}b"), "QUEUED");
    assert_eq!(client.line("exec"), "[:1 :1]");
    assert_eq!(client.line("get {t}a"), "1");
    // All in one piece.
    client.send_bytes(b"MULTI\r\nINCR {t}a\r\nEXEC\r\nGET {t}a\r\n");
    let replies: Vec<String> = (0..4)
        .map(|_| client.reply().unwrap().to_string())
        .collect();
    assert_eq!(replies, ["OK", "QUEUED", "[:2]", "2"]);
    assert_eq!(client.line("multi"), "OK");
    assert_eq!(client.line("incr a"), "QUEUED");
    let mut others = ["b", "c", "d", "e", "f", "g"].iter();
    assert!(others.any(|key| {
        client
            .line(&format!("incr {key}"))
            .starts_with("-CROSSSLOT")
    }));
    assert!(client.line("exec").starts_with("-EXECABORT"));
    assert_eq!(client.line("get a"), "nil");
    // Optimistic locking.
    let mut other = ground.client();
    assert_eq!(client.line("watch w"), "OK");
    assert_eq!(other.line("set w 1"), "OK");
    assert_eq!(client.line("multi"), "OK");
    assert_eq!(client.line("set w 2"), "QUEUED");
    assert_eq!(client.line("exec"), "nil");
    assert_eq!(client.line("get w"), "1");
    assert_eq!(client.line("multi"), "OK");
    assert_eq!(client.line("exec"), "[]");
    assert_eq!(client.line("multi"), "OK");
    assert_eq!(client.line("discard"), "OK");
    assert!(client.line("exec").contains("EXEC without MULTI"));
}

#[test]
fn what_waits_keeps_nobody_else_waiting() {
    let Some(ground) = Ground::start(2, &[]) else {
        return;
    };
    let (mut waits, mut client) = (ground.client(), ground.client());
    waits.send(&["BLPOP", "list", "10"]);
    until("it waits", || {
        assert_eq!(client.line("ping"), "PONG");
        let blocked = ground.servers.iter().any(|server| {
            server
                .client()
                .line("info clients")
                .contains("blocked_clients:1")
        });
        blocked.then_some(())
    });
    let begun = Instant::now();
    assert_eq!(client.line("rpush list x"), ":1");
    assert_eq!(waits.reply().unwrap().to_string(), "[list x]");
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(waits.line("llen list"), ":0");
    // One that goes away while it waits leaves nothing behind.
    waits.send(&["BLPOP", "list", "0"]);
    drop(waits);
    until("nobody waits", || {
        let none = |server: &Redis| {
            server
                .client()
                .line("info clients")
                .contains("blocked_clients:0")
        };
        ground.servers.iter().all(none).then_some(())
    });
}

#[test]
fn messages_reach_who_has_subscribed() {
    let Some(ground) = Ground::start(2, &[]) else {
        return;
    };
    let (mut listener, mut client) = (ground.client(), ground.client());
    assert_eq!(listener.line("subscribe news"), "[subscribe news :1]");
    assert_eq!(client.line("publish news hello"), ":1");
    assert_eq!(
        listener.reply().unwrap().to_string(),
        "[message news hello]"
    );
    assert_eq!(listener.line("unsubscribe news"), "[unsubscribe news :0]");
}

#[test]
fn what_keeps_a_connection_busy_keeps_off_the_shared_one() {
    let Some(ground) = Ground::start(1, &[]) else {
        return;
    };
    let (mut watcher, mut client, mut other) = (ground.client(), ground.client(), ground.client());
    assert_eq!(watcher.line("monitor"), "OK");
    assert_eq!(client.line("set a 1"), "OK");
    let seen = watcher.reply().unwrap().to_string();
    assert!(seen.contains("\"set\" \"a\" \"1\""), "{seen}");
    watcher.send_bytes(b"SYNC\r\n");
    assert_eq!(client.line("get a"), "1");
    let limit = "config set busy-reply-threshold 100";
    assert_eq!(ground.servers[0].client().line(limit), "OK");
    // A script that does not end keeps those waiting only that Redis would, and its own client's pipeline stays in order.
    client.send(&["SET", "a", "2"]);
    client.send(&["EVAL", "while true do end", "0"]);
    client.send(&["GET", "a"]);
    until("others are told", || {
        other.line("get a").starts_with("-BUSY").then_some(())
    });
    let also = ground.client().ask(&["EVAL", "return 1", "0"]).to_string();
    assert!(also.starts_with("-BUSY"), "{also}");
    assert_eq!(other.line("script kill"), "OK");
    assert_eq!(client.reply().unwrap().to_string(), "OK");
    let killed = client.reply().unwrap().to_string();
    assert!(killed.contains("Script killed by user"), "{killed}");
    assert_eq!(client.reply().unwrap().to_string(), "2");
    assert_eq!(other.line("get a"), "2");
}

#[test]
fn the_connection_is_the_clients_own() {
    let Some(ground) = Ground::start(1, &[]) else {
        return;
    };
    let (mut one, mut two) = (ground.client(), ground.client());
    assert_eq!(one.line("select 3"), "OK");
    assert_eq!(one.line("set a three"), "OK");
    assert_eq!(two.line("get a"), "nil");
    assert_eq!(two.line("select 3"), "OK");
    assert_eq!(two.line("get a"), "three");
    assert!(
        two.line("select 99")
            .starts_with("-ERR DB index is out of range")
    );
    assert_eq!(two.line("get a"), "three");
    assert_eq!(one.line("client setname me"), "OK");
    assert_eq!(one.line("client getname"), "me");
    assert_eq!(two.line("client getname"), "nil");
    assert_ne!(one.line("client id"), two.line("client id"));
    let Reply::Map(_) = two.ask(&["HELLO", "3"]) else {
        panic!("a map");
    };
    assert_eq!(two.line("hset h f v"), ":1");
    assert_eq!(
        two.ask(&["HGETALL", "h"]),
        Reply::Map(vec![Reply::Bulk("f".into()), Reply::Bulk("v".into())])
    );
    assert_eq!(one.line("hgetall h"), "[f v]");
    assert_eq!(one.line("reset"), "RESET");
    assert_eq!(one.line("get a"), "nil");
    assert_eq!(one.line("quit"), "OK");
    assert_eq!(one.reply(), None);
}

#[test]
fn passwords_are_passed_or_supplied() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let server = Redis::start(&["--requirepass", "secret"]);
    let listen = free_addr();
    let (listening, shard) = (
        format!("--listen={listen}"),
        format!("--shard=a={}", server.addr),
    );
    let module = Module::start("shard", &[&listening, &shard], &[]);
    let mut client = Client::connect(listen);
    assert!(client.line("get a").starts_with("-NOAUTH"));
    assert!(client.line("auth wrong").starts_with("-WRONGPASS"));
    assert!(client.line("get a").starts_with("-NOAUTH"));
    assert_eq!(client.line("auth secret"), "OK");
    assert_eq!(client.line("get a"), "nil");
    assert!(Client::connect(listen).line("get a").starts_with("-NOAUTH"));
    drop(module);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let password = format!("--password-file={}", file.display());
    let module = Module::start("shard", &[&listening, &shard, &password], &[]);
    assert_eq!(Client::connect(listen).line("set a 1"), "OK");
    assert!(!module.admin("/config").text().contains("secret\n"));
}

#[test]
fn a_shard_that_is_away_is_the_trouble_of_its_keys_only() {
    let Some(mut ground) = Ground::start(2, &["--response-timeout=2s"]) else {
        return;
    };
    let mut client = ground.client();
    let keys: Vec<String> = (0..20).map(|at| format!("k{at}")).collect();
    for key in &keys {
        client.line(&format!("set {key} 1"));
    }
    let gone = ground.servers.remove(0);
    let addr = gone.addr;
    drop(gone);
    let mut lines: Vec<String> = keys
        .iter()
        .map(|key| client.line(&format!("get {key}")))
        .collect();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].contains("shard s0") && lines[0].contains("can't be reached"),
        "{lines:?}"
    );
    assert_eq!(lines[1], "1");
    // A part that fails makes the whole an error.
    let words: Vec<&str> = ["MGET"]
        .into_iter()
        .chain(keys.iter().map(String::as_str))
        .collect();
    assert!(matches!(client.ask(&words), Reply::Error(_)));
    ground.servers.insert(0, Redis::start_on(addr, &[], None));
    until("it is used again", || {
        (!client.line("get k0").starts_with('-') && !client.line("get k1").starts_with('-'))
            .then_some(())
    });
    // One that hangs owes its replies no longer than it may.
    ground.servers[0]
        .server
        .process
        .signal(rustix::process::Signal::STOP);
    let begun = Instant::now();
    let lines: Vec<String> = keys[..6]
        .iter()
        .map(|key| client.line(&format!("get {key}")))
        .collect();
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("no reply for 2000 ms")),
        "{lines:?}"
    );
    ground.servers[0]
        .server
        .process
        .signal(rustix::process::Signal::CONT);
}

#[test]
fn the_list_of_shards_may_change() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let servers = [Redis::start(&[]), Redis::start(&[])];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shards");
    replace(&file, &format!("a={}\n", servers[0].addr));
    let listen = free_addr();
    let module = Module::start(
        "shard",
        &[
            &format!("--listen={listen}"),
            &format!("--shards-file={}", file.display()),
            "--workers=1",
        ],
        &[],
    );
    let mut client = Client::connect(listen);
    assert_eq!(client.line("set a 1"), "OK");
    replace(&file, "a:1\n");
    until("the mistake is said", || {
        let text = module.admin("/").text();
        text.contains("Refused, the former shards stay in force")
            .then_some(())
    });
    assert_eq!(client.line("get a"), "1");
    replace(
        &file,
        &format!("a={}\nb={}\n", servers[0].addr, servers[1].addr),
    );
    until("the second is used", || {
        for at in 0..20 {
            assert_eq!(client.line(&format!("set k{at} 1")), "OK");
        }
        (servers[1].client().line("dbsize") != ":0").then_some(())
    });
    assert_eq!(
        module.metric("podkit_shard_reloads_total{result=\"changed\"}"),
        Some(1.0)
    );
}

#[test]
fn the_hottest_keys_are_named() {
    let Some(ground) = Ground::start(2, &["--hot-keys=3"]) else {
        return;
    };
    let mut client = ground.client();
    until("the hot key is named", || {
        let mut bytes = Vec::new();
        for at in 0..2000 {
            bytes.extend_from_slice(
                format!("GET cold{at}\r\nMGET hot\\x01key other{at}\r\n").as_bytes(),
            );
        }
        let quoted = String::from_utf8(bytes)
            .unwrap()
            .replace("hot\\x01key", "\"hot\\x01key\"");
        client.send_bytes(quoted.as_bytes());
        (0..4000).for_each(|_| drop(client.reply().unwrap()));
        ground
            .module
            .admin("/")
            .text()
            .contains(r"hot\x01key")
            .then_some(())
    });
    let metrics = ground.module.admin("/metrics").text();
    let hot: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("podkit_shard_hot_key_rate{"))
        .collect();
    assert!(hot.len() == 1 && hot[0].contains("x01key"), "{hot:?}");
}

#[test]
fn pipelines_come_back_in_order_whatever_the_pieces() {
    let Some(ground) = Ground::start(3, &[]) else {
        return;
    };
    let mut client = ground.client();
    let mut bytes = Vec::new();
    for at in 0..3000 {
        bytes.extend_from_slice(
            format!("*3\r\n$3\r\nSET\r\n$5\r\nk{at:04}\r\n$4\r\n{at:04}\r\n").as_bytes(),
        );
        bytes.extend_from_slice(format!("*2\r\n$3\r\nGET\r\n$5\r\nk{at:04}\r\n").as_bytes());
    }
    for piece in bytes.chunks(1777) {
        client.send_bytes(piece);
    }
    for at in 0..3000 {
        assert_eq!(client.reply().unwrap().to_string(), "OK");
        assert_eq!(client.reply().unwrap().to_string(), format!("{at:04}"));
    }
    // A large value goes through whole.
    let large = "x".repeat(3_000_000);
    assert_eq!(client.ask(&["SET", "large", &large]).to_string(), "OK");
    assert_eq!(client.ask(&["GET", "large"]).to_string(), large);
}

#[test]
fn what_can_not_be_is_one_line() {
    let refused = |args: &[&str]| {
        let finished = podkit(args);
        assert_eq!(finished.code, Some(2), "{}", finished.err);
        finished.err
    };
    let none = refused(&["shard"]);
    assert!(
        none.contains("--shard (PODKIT_SHARD)") && none.contains("NAME=host:port"),
        "{none}"
    );
    let twice = refused(&["shard", "--shard=a=:1", "--shard=a=:2"]);
    assert!(twice.contains("two shards are named"), "{twice}");
    let both = refused(&["shard", "--shard=a=:1", "--twemproxy=nutcracker.yml"]);
    assert!(both.contains("another list"), "{both}");
    let check = |args: &[&str], expected: &str| {
        let line = refused(&[&["shard", "--shard=a=:1"], args].concat());
        assert!(line.contains(expected), "{line}");
    };
    check(&["--upstream-ca=/ca"], "needs a shard with rediss://");
    let memcached = ["--protocol=memcached", "--upstream-ca=/ca"];
    check(&memcached, "means nothing with --protocol memcached");
    check(&["--hash=random", "--hash-tag={}"], "looks at no key");
    check(
        &["--hash=random", "--shard=b=:2;weight=2"],
        "knows no weights",
    );
    check(&["--upstream-http2"], "unknown flag");
}

#[test]
fn a_plan_says_what_would_move() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let old = file("old", "a=:1\nb=:2\nc=:3\n");
    let new = file("new", "a=:1\nb=:2\nc=:3\nd=:4\n");
    let finished = podkit(&["shard", "plan", &old, &new, "-o", "json"]);
    assert_eq!(finished.code, Some(0), "{}", finished.err);
    let plan: serde_json::Value = serde_json::from_str(&finished.out).unwrap();
    let share = plan["share"].as_f64().unwrap();
    assert!((0.23..0.27).contains(&share), "{share}");
    assert_eq!(plan["shards"][3]["leaving"], 0);
    let keys = file("keys", "one\ntwo\n");
    let text = podkit(&["shard", "plan", &old, &old, "--keys", &keys]);
    assert!(
        text.out.starts_with("0 of 2 keys move (0.00 %)"),
        "{}{}",
        text.out,
        text.err
    );
    let pool = "p:\n  listen: 127.0.0.1:22121\n  hash: fnv1a_64\n  distribution: ketama\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1 a\n";
    let yml = file("nutcracker.yml", pool);
    assert_eq!(
        podkit(&["shard", "plan", &yml, &format!("{yml}:p")]).code,
        Some(0)
    );
    let wrong = podkit(&["shard", "plan", &yml, &format!("{yml}:q")]);
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.err.contains("no pool is named \"q\""),
        "{}",
        wrong.err
    );
}
