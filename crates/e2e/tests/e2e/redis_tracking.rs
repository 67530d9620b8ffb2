//! Values that clients keep, over several real servers: CLIENT TRACKING.

use std::collections::{HashMap, VecDeque};

use podkit_testkit::certs;
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::redis::{Client, Redis, Reply, migrate};
use podkit_testkit::{Need, Turn, able, until};

use crate::redis_cluster;
use crate::shard;

const FORGET: &str = "[invalidate nil]";

fn check(client: &mut Client, command: &str, expected: &str) {
    assert_eq!(client.line(command), expected, "{command}");
}

fn next(client: &mut Client) -> String {
    client.reply().expect("something").to_string()
}

/// One who is told.
fn tracks(mut client: Client) -> Client {
    assert!(client.line("hello 3").contains("proto :3"));
    check(&mut client, "client tracking on", "OK");
    client
}

/// Nothing was said before the reply.
fn nothing_more(client: &mut Client, other: &mut Client) {
    check(other, "set other 1", "OK");
    check(client, "get other", "1");
}

fn what_is_read_is_told_of(connect: impl Fn() -> Client) {
    let (mut plain, mut other) = (connect(), connect());
    let refused = plain.line("client tracking on");
    assert!(refused.contains("expected HELLO 3"), "{refused}");
    assert!(plain.line("hello 3").contains("proto :3"));
    for options in ["on bcast", "on optin", "on noloop", "off redirect 1"] {
        let refused = plain.line(&format!("client tracking {options}"));
        assert!(refused.contains("expected ON or OFF alone"), "{refused}");
    }
    assert_eq!(
        plain.line("client tracking maybe"),
        "-ERR syntax error",
        "as Redis says it"
    );
    let mut client = tracks(connect());
    assert!(client.line("client trackinginfo").contains("flags [on]"));
    check(&mut client, "client getredir", ":0");
    let caching = client.line("client caching yes");
    assert!(caching.contains("OPTIN or OPTOUT"), "{caching}");
    let keys: Vec<String> = (0..30).map(|at| format!("k{at}")).collect();
    for key in &keys {
        check(&mut other, &format!("set {key} 1"), "OK");
        check(&mut client, &format!("get {key}"), "1");
    }
    for key in &keys {
        check(&mut other, &format!("set {key} 2"), "OK");
        assert_eq!(next(&mut client), format!("[invalidate [{key}]]"));
        // It has not read it since.
        check(&mut other, &format!("set {key} 3"), "OK");
    }
    nothing_more(&mut client, &mut other);
    check(&mut other, "set other 2", "OK");
    assert_eq!(next(&mut client), "[invalidate [other]]");
    // By a command for several servers, and by a script.
    let all = keys.join(" ");
    assert!(client.line(&format!("mget {all}")).starts_with("[3 3 3 "));
    check(&mut other, &format!("del {all}"), ":30");
    let mut told: Vec<String> = keys.iter().map(|_| next(&mut client)).collect();
    told.sort();
    let mut expected: Vec<String> = keys
        .iter()
        .map(|key| format!("[invalidate [{key}]]"))
        .collect();
    expected.sort();
    assert_eq!(told, expected);
    check(&mut other, "set k1 4", "OK");
    let script = ["EVAL", "return redis.call('get', KEYS[1])", "1", "k1"];
    assert_eq!(client.ask(&script).to_string(), "4");
    check(&mut other, "set k1 5", "OK");
    assert_eq!(next(&mut client), "[invalidate [k1]]");
    // Its own writes too.
    check(&mut client, "get k1", "5");
    client.send(&["SET", "k1", "6"]);
    let mut both = [next(&mut client), next(&mut client)];
    both.sort();
    assert_eq!(both, ["OK", "[invalidate [k1]]"]);
    // What is read in a transaction is not kept for long; what only writes changes nothing.
    check(&mut client, "multi", "OK");
    check(&mut client, "get k1", "QUEUED");
    check(&mut client, "exec", "[6]");
    assert_eq!(next(&mut client), FORGET);
    check(&mut client, "multi", "OK");
    check(&mut client, "incr n", "QUEUED");
    check(&mut client, "exec", "[:1]");
    check(&mut client, "rpush list a", ":1");
    check(&mut client, "blpop list 1", "[list a]");
    // With messages besides; another user is told as well.
    check(&mut client, "get k1", "6");
    check(&mut client, "subscribe news", "[subscribe news :1]");
    check(&mut other, "publish news x", ":1");
    assert_eq!(next(&mut client), "[message news x]");
    check(&mut other, "set k1 7", "OK");
    assert_eq!(next(&mut client), "[invalidate [k1]]");
    check(&mut client, "unsubscribe", "[unsubscribe news :0]");
    check(&mut client, "get k1", "7");
    check(&mut client, "client tracking off", "OK");
    assert!(client.line("client trackinginfo").contains("flags [off]"));
    check(&mut other, "set k1 8", "OK");
    check(&mut client, "get k1", "8");
    check(&mut client, "client tracking on", "OK");
    check(&mut client, "get k1", "8");
    check(&mut client, "reset", "RESET");
    check(&mut other, "set k1 9", "OK");
    check(&mut client, "get k1", "9");
    let mut client = tracks(connect());
    check(&mut client, "get k1", "9");
    client.send(&["FLUSHALL"]);
    until("all is to be forgotten", || {
        (next(&mut client) == FORGET).then_some(())
    });
}

/// A client that keeps what it reads while others write.
struct Keeper {
    client: Client,
    kept: HashMap<String, String>,
    forgotten: usize,
}

impl Keeper {
    fn new(client: Client) -> Self {
        Self {
            client: tracks(client),
            kept: HashMap::new(),
            forgotten: 0,
        }
    }

    /// Asks for all of these at once, and takes what is said until they are answered.
    fn read(&mut self, keys: &[String]) {
        for key in keys {
            self.client.send(&["GET", key]);
        }
        let mut asked: VecDeque<&String> = keys.iter().collect();
        while let Some(first) = asked.front() {
            match self.client.reply().expect("a reply") {
                Reply::Array(said) => match &said[..] {
                    [Reply::Bulk(_), Reply::Array(keys)] => {
                        for key in keys {
                            self.forgotten +=
                                usize::from(self.kept.remove(&key.to_string()).is_some());
                        }
                    }
                    [Reply::Bulk(_), Reply::Nothing] => self.kept.clear(),
                    other => panic!("{other:?}"),
                },
                value => {
                    self.kept.insert((*first).clone(), value.to_string());
                    asked.pop_front();
                }
            }
        }
    }
}

/// Nothing that is kept stays other than it is: `between` happens while others write. Looked at when they rest, again and again: what is
/// stale then is not read anew.
fn nothing_stale_is_kept(connect: impl Fn() -> Client + Sync, between: impl FnOnce()) {
    let mut keepers = [(); 3].map(|()| Keeper::new(connect()));
    let mut other = connect();
    rest_after(&connect, 4000, &mut keepers, between);
    for round in 0..20 {
        for keeper in &mut keepers {
            until("what is kept is so", || {
                keeper.read(&["none".to_owned()]);
                let mut all = keeper.kept.iter();
                all.all(|(key, value)| *value == other.ask(&["GET", key]).to_string())
                    .then_some(())
            });
        }
        rest_after(&connect, 200 + round, &mut keepers, || {});
    }
    assert!(keepers.iter().all(|keeper| keeper.forgotten > 100));
}

/// Two clients write so often each while the others read.
fn rest_after(
    connect: &(impl Fn() -> Client + Sync),
    times: usize,
    keepers: &mut [Keeper],
    between: impl FnOnce(),
) {
    const KEYS: usize = 40;
    let writes = |seed: usize| {
        let mut writer = connect();
        for number in 1..=times {
            let key = format!("w{}", (number * 7919 + seed) % KEYS);
            let done = writer.ask(&["SET", &key, &format!("{times}-{seed}-{number}")]);
            assert_eq!(done.to_string(), "OK");
        }
    };
    std::thread::scope(|scope| {
        let writes = &writes;
        let writers = [0, 1].map(|seed| scope.spawn(move || writes(seed)));
        let mut turn = 0;
        let mut between = Some(between);
        while !writers.iter().all(|writer| writer.is_finished()) {
            for keeper in keepers.iter_mut() {
                turn += 1;
                let keys: Vec<String> = (0..32)
                    .map(|at| format!("w{}", (turn * 31 + at * 17) % KEYS))
                    .collect();
                keeper.read(&keys);
            }
            if turn > 6
                && let Some(between) = between.take()
            {
                between();
            }
        }
        if let Some(between) = between.take() {
            between();
        }
        for writer in writers {
            writer.join().expect("it writes");
        }
    });
}

#[test]
fn over_shards() {
    let Some(ground) = shard::Ground::start(3, &[]) else {
        return;
    };
    what_is_read_is_told_of(|| ground.client());
    nothing_stale_is_kept(|| ground.client(), || {});
    // With its connection what a server knows of it is gone.
    let (mut client, mut other) = (tracks(ground.client()), ground.client());
    check(&mut other, "set k1 1", "OK");
    check(&mut client, "get k1", "1");
    for server in &ground.servers {
        server.client().line("client kill type normal skipme yes");
    }
    assert_eq!(next(&mut client), FORGET);
    // By another connection nothing is told of what was read before.
    let mut client = tracks(ground.client());
    check(&mut client, "get k1", "1");
    check(&mut client, "select 1", "OK");
    assert_eq!(next(&mut client), FORGET);
    check(&mut client, "get k1", "nil");
    check(&mut other, "select 1", "OK");
    check(&mut other, "set k1 2", "OK");
    assert_eq!(next(&mut client), "[invalidate [k1]]");
}

#[test]
fn over_a_cluster_whose_slots_move() {
    let Some(ground) = redis_cluster::Ground::start(0, &[]) else {
        return;
    };
    what_is_read_is_told_of(|| ground.client());
    let nodes = &ground.cluster.nodes;
    nothing_stale_is_kept(
        || ground.client(),
        || {
            // Those of w1 and w2.
            for key in ["w1", "w2"] {
                let slot = ground.client().line(&format!("cluster keyslot {key}"));
                let slot = slot.trim_start_matches(':').parse().expect("a slot");
                let from = ground.cluster.owner(slot);
                let mut others = nodes.iter().filter(|node| node.addr != from.addr);
                let to = others.next().expect("there are three");
                let rest: Vec<&Redis> = others.collect();
                migrate(slot, from, to, &rest, 10);
            }
        },
    );
}

#[test]
fn a_new_list_of_shards_is_news() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let servers = [(); 3].map(|()| Redis::start(&[]));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shards");
    let named = |of: &[usize]| {
        let line = |at: &usize| format!("s{at}={}\n", servers[*at].addr);
        certs::replace(&file, &of.iter().map(line).collect::<String>());
    };
    named(&[0, 1]);
    let (listen, list) = (free_addr(), format!("--shards-file={}", file.display()));
    let _module = Module::start("shard", &[&format!("--listen={listen}"), &list], &[]);
    let mut client = tracks(Client::connect(listen));
    check(&mut client, "get k1", "nil");
    named(&[0, 1, 2]);
    assert_eq!(next(&mut client), FORGET);
}
