//! `podkit redis` and real sentinels: the primary is killed, or stopped, while clients write and read.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{ScopedJoinHandle, scope};
use std::time::{Duration, Instant};

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::redis::{Client, Redis, Reply, Sentinel};
use podkit_testkit::{Need, Turn, able, until};
use rustix::process::Signal;

/// A round's figures.
#[derive(Debug, Default)]
struct Figures {
    /// Writes that were acknowledged, in all.
    acknowledged: usize,
    /// Of those before the switch: what the new primary does not have. Redis' replication is asynchronous: it may be some.
    lost_by_redis: usize,
    /// Of those after it. None may be.
    lost: usize,
    /// Were sent and not answered, and their client was told so.
    uncertain: usize,
    /// Other errors on writes.
    errors: usize,
    reads: usize,
    read_errors: usize,
    /// Writes that the former primary did beyond those that were acknowledged or uncertain.
    demoted: i64,
    /// From when the new primary said that it is one.
    resumed: Duration,
}

fn rounds() -> usize {
    let said = std::env::var("TESTKIT_FAILOVERS").ok();
    said.and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// Connections of a server that becomes the primary are closed by the sentinels: then it is asked again.
fn is_primary(addr: SocketAddr) -> bool {
    let mut client = Client::connect(addr);
    client.send(&["ROLE"]);
    let role = client.reply().map(|reply| reply.to_string());
    role.is_some_and(|role| role.starts_with("[master"))
}

/// How many SET a server did as the primary; None: it is one no more, or can't be asked just now.
fn sets(addr: SocketAddr) -> Option<i64> {
    let mut client = Client::connect(addr);
    for words in [
        &["MULTI"][..],
        &["ROLE"],
        &["INFO", "commandstats"],
        &["EXEC"],
    ] {
        client.send(words);
    }
    // Both of one moment: as a replica it counts what it repeats.
    let reply = (0..4).map_while(|_| client.reply()).nth(3)?.to_string();
    let stats = reply.strip_prefix("[[master")?;
    let calls = stats.split("cmdstat_set:calls=").nth(1);
    Some(calls.map_or(0, |calls| {
        let number = calls.split(',').next().unwrap_or_default();
        number.parse().expect("a number")
    }))
}

/// When and how each write ended.
type Writes = Vec<(Instant, Result<(), String>)>;

/// Returns when so many writes more were acknowledged.
fn wait_for(more: usize, acknowledged: &AtomicUsize) {
    let enough = acknowledged.load(Ordering::SeqCst) + more;
    until("writes are acknowledged", || {
        (acknowledged.load(Ordering::SeqCst) >= enough).then_some(())
    });
}

fn write(listen: SocketAddr, ends: &AtomicBool, acknowledged: &AtomicUsize) -> Writes {
    let (mut client, mut all) = (Client::connect(listen), Vec::new());
    while !ends.load(Ordering::SeqCst) {
        let reply = client.line(&format!("set w{} x", all.len()));
        let ended = match reply.as_str() {
            "OK" => {
                acknowledged.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            other => Err(other.to_owned()),
        };
        all.push((Instant::now(), ended));
    }
    all
}

/// How many reads there were, and how many of them failed.
fn read(listen: SocketAddr, ends: &AtomicBool) -> (usize, usize) {
    let (mut client, mut count, mut failed) = (Client::connect(listen), 0, 0);
    while !ends.load(Ordering::SeqCst) {
        let reply = client.ask(&["GET", &format!("w{}", count % 50)]);
        count += 1;
        if let Reply::Error(why) = reply {
            println!("a read failed: {why}");
            failed += 1;
        }
    }
    (count, failed)
}

fn round(signal: Signal) -> Figures {
    let primary = Redis::start(&["--repl-diskless-sync-delay", "0"]);
    let (ip, port) = (
        primary.addr.ip().to_string(),
        primary.addr.port().to_string(),
    );
    let replica = |_| Redis::start(&["--replicaof", &ip, &port, "--repl-diskless-sync-delay", "0"]);
    let replicas: Vec<Redis> = (0..2).map(replica).collect();
    for replica in &replicas {
        until("the replica is connected", || {
            replica
                .client()
                .line("role")
                .contains(" connected ")
                .then_some(())
        });
    }
    let down_after = Duration::from_millis(500);
    let sentinel = |_| Sentinel::start(primary.addr, 2, down_after);
    let sentinels: Vec<Sentinel> = (0..3).map(sentinel).collect();
    for sentinel in &sentinels {
        until("the sentinels know each other and the replicas", || {
            let mut client = sentinel.client();
            let (Reply::Array(others), Reply::Array(replicas)) = (
                client.ask(&["SENTINEL", "SENTINELS", "main"]),
                client.ask(&["SENTINEL", "REPLICAS", "main"]),
            ) else {
                return None;
            };
            (others.len() == 2 && replicas.len() == 2).then_some(())
        });
    }
    let listen = free_addr();
    let mut args = vec![
        format!("--listen={listen}"),
        "--master-name=main".to_owned(),
        "--workers=2".to_owned(),
        "--hold=20s".to_owned(),
    ];
    args.extend(
        sentinels
            .iter()
            .map(|one| format!("--sentinel={}", one.addr)),
    );
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let module = Module::start("redis", &args, &[]);
    // SETs that the former primary did, as far as it was seen.
    let mut done = 0;
    let (ends, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (switched, writes, (reads, read_errors)) = scope(|scope| {
        let writes = scope.spawn(|| write(listen, &ends, &acknowledged));
        let reads = scope.spawn(|| read(listen, &ends));
        wait_for(500, &acknowledged);
        primary.server.process.signal(signal);
        until("another is the primary", || {
            let mut all = replicas.iter();
            all.any(|one| is_primary(one.addr)).then_some(())
        });
        let switched = Instant::now();
        wait_for(500, &acknowledged);
        if signal == Signal::STOP {
            primary.server.process.signal(Signal::CONT);
            until("the former primary is a replica", || {
                match sets(primary.addr) {
                    Some(count) => {
                        done = count;
                        None
                    }
                    None => (!is_primary(primary.addr)).then_some(()),
                }
            });
            wait_for(500, &acknowledged);
        }
        ends.store(true, Ordering::SeqCst);
        fn join<T>(handle: ScopedJoinHandle<'_, T>) -> T {
            handle.join().expect("a client's thread")
        }
        (switched, join(writes), join(reads))
    });
    let new = replicas
        .iter()
        .find(|one| is_primary(one.addr))
        .expect("a primary");
    let mut figures = Figures {
        reads,
        read_errors,
        ..Figures::default()
    };
    let resumed = writes
        .iter()
        .find(|(when, ended)| *when > switched && ended.is_ok());
    let resumed =
        resumed.unwrap_or_else(|| panic!("no write after the switch\n{}", module.process.shown()));
    figures.resumed = resumed.0 - switched;
    let mut before = 0;
    let mut client = new.client();
    for (at, (when, ended)) in writes.iter().enumerate() {
        match ended {
            Ok(()) => {
                let there = client.line(&format!("exists w{at}")) == ":1";
                figures.acknowledged += 1;
                before += i64::from(*when < switched);
                match (there, *when < switched) {
                    (true, _) => {}
                    (false, true) => figures.lost_by_redis += 1,
                    (false, false) => figures.lost += 1,
                }
            }
            Err(why) if why.contains("may have been done") => {
                println!("a write is uncertain: {why}");
                figures.uncertain += 1;
            }
            Err(why) => {
                println!("a write failed: {why}");
                figures.errors += 1;
            }
        }
    }
    if figures.uncertain > 1 {
        println!("{}", module.process.shown());
    }
    if signal == Signal::STOP {
        let uncertain = i64::try_from(figures.uncertain).expect("few");
        figures.demoted = (done - before - uncertain).max(0);
    }
    figures
}

/// TESTKIT_FAILOVERS is how many rounds of each there are; their figures are printed.
#[test]
fn a_failover_loses_nothing_that_redis_keeps() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    for at in 0..rounds() {
        for signal in [Signal::KILL, Signal::STOP] {
            let figures = round(signal);
            println!("round {at}, {signal:?}: {figures:?}");
            assert_eq!(
                (
                    figures.lost,
                    figures.errors,
                    figures.read_errors,
                    figures.demoted
                ),
                (0, 0, 0, 0)
            );
            assert!(figures.uncertain <= 1, "one client, one command at a time");
            assert!(figures.acknowledged > 100 && figures.reads > 100);
            assert!(
                figures.resumed < Duration::from_secs(2),
                "{:?}",
                figures.resumed
            );
        }
    }
}
