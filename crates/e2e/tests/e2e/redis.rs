//! `podkit redis` in front of a real primary and its replicas.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::{Module, podkit};
use podkit_testkit::redis::{Client, Redis, Reply};
use podkit_testkit::relay::Relay;
use podkit_testkit::{Need, Turn, able, until};
use rustix::process::Signal;

/// A primary, its replicas, and the module in front.
struct Ground {
    primary: Redis,
    replicas: Vec<Redis>,
    /// By which each replica hears from the primary.
    relays: Vec<Relay>,
    module: Module,
    listen: SocketAddr,
    _turn: Turn,
}

/// A replica of what is at `addr`.
fn replica(addr: SocketAddr) -> Redis {
    let (ip, port) = (addr.ip().to_string(), addr.port().to_string());
    let replica = Redis::start(&["--replicaof", &ip, &port]);
    until("the replica has all", || {
        let role = replica.client().line("role");
        role.contains(" connected ").then_some(())
    });
    replica
}

impl Ground {
    /// None when the machine lacks Redis.
    fn start(count: usize, more: &[&str]) -> Option<Self> {
        if !able(&[Need::Program("redis-server")]) {
            return None;
        }
        let turn = Turn::shared();
        let primary = Redis::start(&["--repl-diskless-sync-delay", "0"]);
        let relay = |_| Relay::start(primary.addr, Duration::ZERO);
        let relays: Vec<Relay> = (0..count).map(relay).collect();
        let replicas: Vec<Redis> = relays.iter().map(|relay| replica(relay.addr)).collect();
        let listen = free_addr();
        let mut args = vec![
            format!("--listen={listen}"),
            "--workers=2".to_owned(),
            format!("--primary={}", primary.addr),
        ];
        let all = replicas.iter();
        args.extend(all.map(|replica| format!("--replica={}", replica.addr)));
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ground = Self {
            module: Module::start("redis", &args, &[]),
            primary,
            replicas,
            relays,
            listen,
            _turn: turn,
        };
        until("the replicas are read from", || {
            ground.client().line("get nothing");
            ground
                .replicas
                .iter()
                .all(|one| ground.reads(one) > 0.0)
                .then_some(())
        });
        Some(ground)
    }

    fn client(&self) -> Client {
        Client::connect(self.listen)
    }

    /// Commands that a replica was sent.
    fn reads(&self, replica: &Redis) -> f64 {
        self.sent(replica, "replica")
    }

    fn sent(&self, server: &Redis, part: &str) -> f64 {
        let addr = server.addr;
        let sample = format!("podkit_redis_commands_total{{server=\"{addr}\",as=\"{part}\"}}");
        self.module.metric(&sample).unwrap_or(0.0)
    }
}

#[test]
fn writes_go_to_the_primary_and_reads_to_replicas() {
    let Some(ground) = Ground::start(2, &[]) else {
        return;
    };
    let mut client = ground.client();
    for at in 0..50 {
        assert_eq!(client.line(&format!("set k{at} v{at}")), "OK");
    }
    assert_eq!(ground.primary.client().line("dbsize"), ":50");
    until("the replicas have all", || {
        let all = ground.replicas.iter();
        all.map(|one| one.client().line("dbsize"))
            .all(|size| size == ":50")
            .then_some(())
    });
    // Their own connections were not asked yet whether they have: the module does that by itself.
    until(
        "both replicas are read from, and no read needs the primary",
        || {
            let reads = || -> Vec<f64> {
                ground
                    .replicas
                    .iter()
                    .map(|one| ground.reads(one))
                    .collect()
            };
            let (primary, before) = (ground.sent(&ground.primary, "primary"), reads());
            for at in 0..50 {
                assert_eq!(client.line(&format!("get k{at}")), format!("v{at}"));
            }
            let grew = reads()
                .iter()
                .zip(&before)
                .all(|(now, then)| now - then > 5.0);
            (grew && ground.sent(&ground.primary, "primary") == primary).then_some(())
        },
    );
    // What is the primary's in any case, and what needs a connection of its own.
    assert_eq!(client.line("eval return(redis.call('incr','n')) 0"), ":1");
    assert_eq!(client.line("get n"), "1");
    assert_eq!(client.line("multi"), "OK");
    assert_eq!(client.line("incr n"), "QUEUED");
    assert_eq!(client.line("exec"), "[:2]");
    assert_eq!(client.line("get n"), "2");
    assert_eq!(client.line("rpush list a"), ":1");
    assert_eq!(client.line("blpop list 1"), "[list a]");
    assert_eq!(client.line("exists list"), ":0");
    assert!(client.line("info replication").contains("role:master"));
    assert_eq!(client.line("select 3"), "OK");
    assert_eq!(client.line("set k0 three"), "OK");
    assert_eq!(client.line("get k0"), "three");
    // A script that only the primary has.
    let sha = client.line("script load return(redis.call('get',KEYS[1]))");
    assert_eq!(client.line(&format!("evalsha_ro {sha} 1 k0")), "three");
    let page = ground.module.admin("/").text();
    assert!(
        page.contains(&format!("replica of {}", ground.relays[0].addr)),
        "{page}"
    );
    assert!(client.line("nosuchcommand").contains("unknown command"));
}

/// It keeps those waiting that Redis would, and reads go where no script runs.
#[test]
fn scripts_that_do_not_end_are_killed_wherever_they_run() {
    let Some(ground) = Ground::start(2, &[]) else {
        return;
    };
    let limit = "config set busy-reply-threshold 100";
    let all = ground.replicas.iter().chain([&ground.primary]);
    all.for_each(|one| assert_eq!(one.client().line(limit), "OK"));
    let (mut client, mut other) = (ground.client(), ground.client());
    assert_eq!(client.line("set a 1"), "OK");
    let reads = || {
        ground
            .replicas
            .iter()
            .map(|one| ground.reads(one))
            .sum::<f64>()
    };
    until("scripts that only read go to replicas", || {
        let before = reads();
        client.ask(&["EVAL_RO", "return 1", "0"]);
        (reads() > before).then_some(())
    });
    let is_busy = |one: &Redis| one.client().line("ping").starts_with("-BUSY");
    client.send(&["EVAL_RO", "while true do end", "0"]);
    until("it runs", || {
        ground.replicas.iter().any(is_busy).then_some(())
    });
    for _ in 0..4 {
        assert_eq!(other.line("get a"), "1");
    }
    assert_eq!(other.line("set a 2"), "OK");
    assert_eq!(other.line("script kill"), "OK");
    let killed = client.reply().unwrap().to_string();
    assert!(killed.contains("killed by user"), "{killed}");
    client.send(&["SET", "b", "1"]);
    client.send(&["EVAL", "while true do end", "0"]);
    client.send(&["GET", "b"]);
    until("others are told", || {
        other.line("set a 3").starts_with("-BUSY").then_some(())
    });
    assert_eq!(other.line("script kill"), "OK");
    assert_eq!(client.reply().unwrap().to_string(), "OK");
    let killed = client.reply().unwrap().to_string();
    assert!(killed.contains("killed by user"), "{killed}");
    assert_eq!(client.reply().unwrap().to_string(), "1");
    // Whoever writes reads it, though a place was never told.
    for at in 0..50 {
        assert_eq!(client.line(&format!("set a {at}")), "OK");
        assert_eq!(other.line("get a"), at.to_string());
    }
}

#[test]
fn who_wrote_reads_what_it_wrote_though_replicas_lag() {
    let Some(ground) = Ground::start(2, &[]) else {
        return;
    };
    ground
        .relays
        .iter()
        .for_each(|relay| relay.set(Duration::from_millis(700)));
    let (mut writes, mut reads) = (ground.client(), ground.client());
    for at in 0..100 {
        assert_eq!(writes.line(&format!("set k{} v{at}", at % 10)), "OK");
        assert_eq!(reads.line(&format!("get k{}", at % 10)), format!("v{at}"));
        assert_eq!(writes.line("incr n"), format!(":{}", at + 1));
        assert_eq!(reads.line("mget n k"), format!("[{} nil]", at + 1));
    }
    // By a transaction, a script, a wait and in a pipeline.
    writes.send_bytes(b"MULTI\r\nSET t 1\r\nEXEC\r\nGET t\r\n");
    let replies: Vec<_> = (0..4)
        .map(|_| writes.reply().unwrap().to_string())
        .collect();
    assert_eq!(replies, ["OK", "QUEUED", "[OK]", "1"]);
    assert_eq!(reads.line("get t"), "1");
    assert_eq!(writes.line("eval redis.call('set','hidden',1) 0"), "nil");
    assert_eq!(reads.line("get hidden"), "1");
    assert_eq!(writes.line("rpush l a"), ":1");
    assert_eq!(writes.line("blpop l 1"), "[l a]");
    assert_eq!(reads.line("llen l"), ":0");
    reads.send_bytes(b"GET t\r\nSET t 2\r\nGET t\r\nSET t 3\r\nGET t\r\n");
    let replies: Vec<_> = (0..5).map(|_| reads.reply().unwrap().to_string()).collect();
    assert_eq!(replies, ["1", "OK", "2", "OK", "3"]);
    assert_eq!(writes.line("flushall"), "OK");
    assert_eq!(reads.line("get k1"), "nil");
    let fenced = ground.module.metric("podkit_redis_fenced_reads_total");
    assert!(fenced > Some(100.0), "{fenced:?}");
    // One that has caught up takes its part again; what nobody wrote to is read from it all the while.
    ground.relays[0].set(Duration::ZERO);
    let before = ground.reads(&ground.replicas[0]);
    until("the replica has caught up", || {
        assert_eq!(reads.line("get k1"), "nil");
        (ground.reads(&ground.replicas[0]) > before).then_some(())
    });
}

#[test]
fn a_replica_that_lags_too_much_is_not_read_from() {
    let Some(ground) = Ground::start(1, &["--max-lag=300ms", "--read-your-writes=false"]) else {
        return;
    };
    ground.relays[0].set(Duration::from_millis(1500));
    let (mut client, mut other) = (ground.client(), ground.primary.client());
    let mut at = 0;
    until("it is too far behind", || {
        at += 1;
        assert_eq!(other.line(&format!("set k v{at}")), "OK");
        (client.line("get k") == format!("v{at}")).then_some(())
    });
    ground.relays[0].set(Duration::ZERO);
    let before = ground.reads(&ground.replicas[0]);
    until("it is near again", || {
        client.line("get k");
        (ground.reads(&ground.replicas[0]) > before).then_some(())
    });
}

#[test]
fn a_restart_of_the_primary_is_waited_for_and_reads_go_on() {
    let Some(mut ground) = Ground::start(1, &["--hold=10s"]) else {
        return;
    };
    let (mut writes, mut reads) = (ground.client(), ground.client());
    assert_eq!(writes.line("set k 1"), "OK");
    until("the replica has it", || {
        (ground.replicas[0].client().line("get k") == "1").then_some(())
    });
    ground.primary.server.process.signal(Signal::KILL);
    until("the primary has ended", || {
        ground.primary.server.process.has_ended().then_some(())
    });
    assert_eq!(reads.line("get k"), "1");
    writes.send(&["SET", "k", "2"]);
    writes.send(&["GET", "k"]);
    until("reads count as stale", || {
        assert_eq!(reads.line("get k"), "1");
        (ground.module.metric("podkit_redis_stale_reads_total") > Some(0.0)).then_some(())
    });
    let addr = ground.primary.addr;
    ground.primary = Redis::start_on(addr, &[], None);
    assert_eq!(writes.reply(), Some(Reply::Simple("OK".to_owned())));
    assert_eq!(writes.reply(), Some(Reply::Bulk("2".to_owned())));
    assert_eq!(reads.line("get k"), "2");
    let replayed = "podkit_redis_held_total{result=\"replayed\"}";
    assert!(ground.module.metric(replayed) >= Some(2.0));
    assert_eq!(
        ground.module.metric("podkit_redis_failovers_total"),
        Some(1.0)
    );
}

#[test]
fn a_replica_that_is_promoted_by_hand_is_written_to() {
    let Some(ground) = Ground::start(2, &["--poll=50ms"]) else {
        return;
    };
    let mut client = ground.client();
    assert_eq!(client.line("set k 1"), "OK");
    let (first, second) = (&ground.replicas[0], &ground.replicas[1]);
    until("the replica has it", || {
        (first.client().line("get k") == "1").then_some(())
    });
    let (ip, port) = (first.addr.ip(), first.addr.port());
    assert_eq!(first.client().line("replicaof no one"), "OK");
    let follow = format!("replicaof {ip} {port}");
    assert_eq!(ground.primary.client().line(&follow), "OK");
    assert_eq!(second.client().line(&follow), "OK");
    // The former primary refuses it: nothing was done, and the new one does it.
    assert_eq!(client.line("set k 2"), "OK");
    assert_eq!(client.line("get k"), "2");
    assert_eq!(first.client().line("get k"), "2");
    assert_eq!(
        ground.module.metric("podkit_redis_uncertain_writes_total"),
        Some(0.0)
    );
}

#[test]
fn what_is_kept_is_bounded() {
    let Some(ground) = Ground::start(1, &["--hold=300ms", "--hold-size=1Ki"]) else {
        return;
    };
    let mut client = ground.client();
    ground.primary.server.process.signal(Signal::KILL);
    until("it is told after --hold", || {
        let line = client.line("set k 1");
        line.contains("kept the command for 300 ms").then_some(())
    });
    let large = "x".repeat(2000);
    let line = client.line(&format!("set k {large}"));
    assert!(
        line.contains("no room to keep the command (--hold-size); it was not done"),
        "{line}"
    );
    assert!(client.line("blpop l 1").starts_with("-ERR "));
    assert_eq!(client.line("get k"), "nil");
}

#[test]
fn a_replica_that_hangs_keeps_nobody_waiting_for_long() {
    let Some(ground) = Ground::start(2, &["--connect-timeout=300ms", "--response-timeout=30s"])
    else {
        return;
    };
    let mut client = ground.client();
    ground.replicas[0].server.process.signal(Signal::STOP);
    let began = Instant::now();
    // Some of them are sent to it before it is known that it hangs.
    for _ in 0..20 {
        assert_eq!(client.line("get k"), "nil");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    ground.replicas[0].server.process.signal(Signal::CONT);
    let before = ground.reads(&ground.replicas[0]);
    until("it is read from again", || {
        assert_eq!(client.line("get k"), "nil");
        (ground.reads(&ground.replicas[0]) > before).then_some(())
    });
}

#[test]
fn servers_of_one_name_say_themselves_what_they_are() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let password = ["--requirepass", "secret", "--masterauth", "secret"];
    let primary = Redis::start(&[&password[..], &["--repl-diskless-sync-delay", "0"]].concat());
    let (ip, port) = (
        primary.addr.ip().to_string(),
        primary.addr.port().to_string(),
    );
    let replica = Redis::start(&[&password[..], &["--replicaof", &ip, &port]].concat());
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let upstream = write("servers", &format!("{}\n{}\n", replica.addr, primary.addr));
    let secret = write("secret", "secret\n");
    let listen = free_addr();
    let args = [
        format!("--listen={listen}"),
        format!("--upstream=file:{upstream}"),
        format!("--password-file={secret}"),
        "--read=nearest".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let module = Module::start("redis", &args, &[]);
    let mut client = Client::connect(listen);
    assert_eq!(client.line("set k 1"), "OK");
    assert_eq!(client.line("get k"), "1");
    let mut direct = primary.client();
    assert_eq!(direct.line("auth secret"), "OK");
    assert_eq!(direct.line("get k"), "1");
    assert!(client.line("auth wrong").starts_with("-WRONGPASS"));
    let page = until("the page shows both", || {
        let page = module.admin("/").text();
        page.contains("replica of").then_some(page)
    });
    assert!(page.contains("primary"), "{page}");
}

#[test]
fn what_can_not_be_is_one_line() {
    let refused = |args: &[&str]| {
        let finished = podkit(args);
        assert_eq!(finished.code, Some(2), "{}", finished.err);
        finished.err
    };
    let check = |args: &[&str], expected: &str| {
        let line = refused(&[&["redis"], args].concat());
        assert!(line.contains(expected), "{line}");
    };
    check(&[], "--primary (PODKIT_PRIMARY)");
    check(
        &["--primary=:1", "--sentinel=:2", "--master-name=m"],
        "another source",
    );
    check(&["--sentinel=:2"], "--master-name (PODKIT_MASTER_NAME)");
    check(&["--primary=:1", "--master-name=m"], "needs --sentinel");
    check(&["--upstream=:1", "--replica=:2"], "needs --primary");
    check(&["--upstream=https://a:1"], "rediss:// for TLS");
    check(
        &["--upstream=:1;weight=2"],
        "weight and priority mean nothing",
    );
    check(&["--primary=:1", "--replica=:1"], "\":1\" is \":1\"");
    check(
        &["--primary=:1", "--upstream-ca=/ca"],
        "needs a server with rediss://",
    );
    check(&["--primary=:1", "--master-tls"], "needs --sentinel");
    let sentinel = ["--sentinel=:1", "--master-name=m"];
    let named = [&sentinel[..], &["--master-server-name=r.example"]].concat();
    check(&named, "needs --master-tls");
    check(
        &["--primary=rediss://:1", "--upstream-ca=/nothing"],
        "/nothing",
    );
    check(
        &["--primary=:1", "--max-lag=far"],
        "a duration such as 500ms",
    );
    check(&["--primary=:1", "--user=u"], "needs --password-file");
    check(
        &["--primary=:1", "--read=primary", "--max-lag=1s"],
        "means nothing with --read primary",
    );
    check(
        &["--primary=:1", "--hold=0s", "--hold-size=1Mi"],
        "means nothing with --hold 0s",
    );
}
