//! What clients hear of several real servers: messages, notifications of keys, MONITOR.

use podkit_testkit::certs;
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::redis::{Client, Redis, migrate};
use podkit_testkit::{Need, Turn, able, until};

use crate::redis_cluster;
use crate::shard;

fn check(client: &mut Client, command: &str, expected: &str) {
    assert_eq!(client.line(command), expected, "{command}");
}

/// So many messages, in order: those of several servers come as they come.
fn heard(client: &mut Client, count: usize) -> Vec<String> {
    let next = |_| client.reply().expect("a message").to_string();
    let mut all: Vec<String> = (0..count).map(next).collect();
    all.sort();
    all
}

/// Has said all that it is going to say: what comes next is the reply.
fn nothing_more(client: &mut Client) {
    check(client, "ping x", "[pong x]");
}

/// What RESP2 and RESP3 have in common; `other` is a client that publishes and writes.
fn hears_of_all(mut client: Client, other: &mut Client, resp3: bool) {
    let keys: Vec<String> = (0..30).map(|at| format!("k{at}")).collect();
    check(
        &mut client,
        "subscribe news __keyevent@0__:del",
        "[subscribe news :1]",
    );
    assert_eq!(heard(&mut client, 1), ["[subscribe __keyevent@0__:del :2]"]);
    check(
        &mut client,
        "psubscribe * __keyspace@0__:k*",
        "[psubscribe * :3]",
    );
    assert_eq!(heard(&mut client, 1), ["[psubscribe __keyspace@0__:k* :4]"]);
    for key in &keys {
        check(other, &format!("set {key} 1"), "OK");
    }
    // By `*` there are two of each write: of the key, and of the event.
    let mut expected = Vec::new();
    for key in &keys {
        expected.push(format!("[pmessage * __keyevent@0__:set {key}]"));
        expected.push(format!("[pmessage * __keyspace@0__:{key} set]"));
        expected.push(format!(
            "[pmessage __keyspace@0__:k* __keyspace@0__:{key} set]"
        ));
    }
    expected.sort();
    assert_eq!(heard(&mut client, expected.len()), expected);
    // What is published comes once, and nothing is lost on the way to fewer.
    other.line("publish news hello");
    let twice = ["[message news hello]", "[pmessage * news hello]"];
    assert_eq!(heard(&mut client, 2), twice);
    check(&mut client, "punsubscribe *", "[punsubscribe * :3]");
    check(&mut client, "unsubscribe nosuch", "[unsubscribe nosuch :3]");
    let all = keys.join(" ");
    check(other, &format!("del {all}"), ":30");
    let mut expected: Vec<String> = keys
        .iter()
        .flat_map(|key| {
            [
                format!("[message __keyevent@0__:del {key}]"),
                format!("[pmessage __keyspace@0__:k* __keyspace@0__:{key} del]"),
            ]
        })
        .collect();
    expected.sort();
    assert_eq!(heard(&mut client, 60), expected);
    match resp3 {
        true => {
            // Commands go on, those that wait too.
            check(&mut client, "set a 1", "OK");
            client.send(&["BLPOP", "list", "10"]);
            other.line("publish news early");
            assert_eq!(heard(&mut client, 1), ["[message news early]"]);
            check(other, "rpush list x", ":1");
            let popped = ["[list x]", "[message __keyevent@0__:del list]"];
            assert_eq!(heard(&mut client, 2), popped);
        }
        false => {
            let refused = client.line("get a");
            let expected = "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
            assert_eq!(refused, expected);
            nothing_more(&mut client);
        }
    }
    client.send(&["UNSUBSCRIBE"]);
    let ended = [
        "[unsubscribe __keyevent@0__:del :2]",
        "[unsubscribe news :1]",
    ];
    assert_eq!(heard(&mut client, 2), ended);
    check(
        &mut client,
        "punsubscribe",
        "[punsubscribe __keyspace@0__:k* :0]",
    );
    check(&mut client, "punsubscribe", "[punsubscribe nil :0]");
    // Once that is said nobody hears.
    for _ in 0..20 {
        client.send(&["SUBSCRIBE", "x", "y"]);
        client.send(&["UNSUBSCRIBE"]);
        heard(&mut client, 4);
        check(other, "publish y late", ":0");
    }
    // It is a client as any other again.
    for key in &keys {
        check(&mut client, &format!("set {key} 2"), "OK");
        check(&mut client, &format!("get {key}"), "2");
    }
    // All that each does; then it can only be left.
    check(&mut client, "monitor", "OK");
    for key in &keys {
        check(other, &format!("set {key} 3"), "OK");
    }
    let mut seen = Vec::new();
    while seen.len() < keys.len() {
        let line = client.reply().expect("a line").to_string();
        seen.extend(line.contains("\"set\"").then_some(line));
    }
    for key in &keys {
        let word = format!("\"{key}\"");
        assert_eq!(seen.iter().filter(|line| line.contains(&word)).count(), 1);
    }
    client.send(&["RESET"]);
    until("it is no monitor any more", || {
        (client.reply()?.to_string() == "RESET").then_some(())
    });
    check(&mut client, "get k1", "3");
    check(other, "dbsize", if resp3 { ":31" } else { ":30" });
    check(other, "flushall", "OK");
}

/// By RESP2 and by RESP3; a client more.
fn hears_by_both(connect: impl Fn() -> Client) -> Client {
    let mut other = connect();
    check(&mut other, "config set notify-keyspace-events KEA", "OK");
    hears_of_all(connect(), &mut other, false);
    let mut client = connect();
    assert!(client.line("hello 3").contains("proto :3"));
    hears_of_all(client, &mut other, true);
    other
}

#[test]
fn shards_say_what_becomes_of_their_keys() {
    let Some(ground) = shard::Ground::start(3, &[]) else {
        return;
    };
    let mut other = hears_by_both(|| ground.client());
    // A user who may not hear of it does not, and goes on as before.
    check(
        &mut other,
        "acl setuser ann on >p ~* +@all resetchannels &news",
        "OK",
    );
    let mut ann = ground.client();
    check(&mut ann, "auth ann p", "OK");
    let refused = ann.line("psubscribe __key*");
    assert!(refused.starts_with("-NOPERM"), "{refused}");
    check(&mut ann, "set a 1", "OK");
    check(&mut ann, "subscribe news", "[subscribe news :1]");
    check(&mut other, "publish news x", ":1");
    assert_eq!(heard(&mut ann, 1), ["[message news x]"]);
    nothing_more(&mut ann);
    check(&mut ann, "reset", "RESET");
    check(&mut ann, "get a", "1");
    // One that refuses is enough; what the others had begun is ended.
    check(
        &mut other,
        "acl setuser bob on >p ~* +@all allchannels",
        "OK",
    );
    let mut of_last = ground.servers[2].client();
    check(&mut of_last, "acl setuser bob resetchannels &news", "OK");
    let mut bob = ground.client();
    check(&mut bob, "auth bob p", "OK");
    check(&mut bob, "subscribe news", "[subscribe news :1]");
    let refused = bob.line("psubscribe __key* n*");
    assert!(refused.starts_with("-NOPERM"), "{refused}");
    for server in &ground.servers {
        check(&mut server.client(), "pubsub numpat", ":0");
    }
    check(&mut other, "publish news y", ":1");
    assert_eq!(heard(&mut bob, 1), ["[message news y]"]);
    check(&mut bob, "unsubscribe", "[unsubscribe news :0]");
    check(&mut bob, "get a", "1");
    // It ends with a server.
    check(&mut ann, "psubscribe __key*", "[psubscribe __key* :1]");
    let page = ground.servers[2].client().line("client kill type pubsub");
    assert_eq!(page, ":1");
    assert!(ann.reply().is_none());
}

#[test]
fn who_reads_late_hears_all() {
    let Some(ground) = shard::Ground::start(2, &[]) else {
        return;
    };
    let (mut client, mut other) = (ground.client(), ground.client());
    check(&mut client, "psubscribe *", "[psubscribe * :1]");
    // More than sockets hold, and less than Redis cuts a subscriber for.
    let long = "x".repeat(64 * 1024);
    for at in 0..250 {
        check(&mut other, &format!("publish n{at} {long}"), ":1");
    }
    for at in 0..250 {
        let message = client.reply().expect("a message").to_string();
        assert!(message.starts_with(&format!("[pmessage * n{at} xxx")));
    }
    nothing_more(&mut client);
}

#[test]
fn shards_that_come_are_heard_too_and_others_no_more() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let servers: Vec<Redis> = (0..3)
        .map(|_| Redis::start(&["--notify-keyspace-events", "KEA"]))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shards");
    let named = |of: &[usize]| {
        let line = |at: &usize| format!("s{at}={}\n", servers[*at].addr);
        certs::replace(&file, &of.iter().map(line).collect::<String>());
    };
    named(&[0, 1]);
    let (listen, list) = (free_addr(), format!("--shards-file={}", file.display()));
    let args = [&format!("--listen={listen}"), &*list, "--workers=1"];
    let module = Module::start("shard", &args, &[]);
    let (mut client, mut sees) = (Client::connect(listen), Client::connect(listen));
    check(
        &mut client,
        "psubscribe __keyevent*",
        "[psubscribe __keyevent* :1]",
    );
    check(&mut sees, "monitor", "OK");
    let says = |at: usize| servers[at].client().line(&format!("set s{at} x"));
    let said = |at: usize| format!("[pmessage __keyevent* __keyevent@0__:set s{at}]");
    assert_eq!((says(0).as_str(), says(1).as_str()), ("OK", "OK"));
    assert_eq!(heard(&mut client, 2), [said(0), said(1)]);
    named(&[0, 1, 2]);
    until("the third is heard", || {
        says(2);
        let info = servers[2].client().line("info clients");
        (info.contains("pubsub_clients:1") || info.contains("connected_clients:3")).then_some(())
    });
    named(&[2, 1]);
    until("the first is heard no more", || {
        let clients = servers[0].client().line("client list");
        (!clients.contains("cmd=psubscribe") && !clients.contains("cmd=monitor")).then_some(())
    });
    assert_eq!(says(0), "OK");
    assert_eq!(says(1), "OK");
    until("the others are", || {
        let message = client.reply()?.to_string();
        assert_ne!(message, said(0));
        (message == said(1)).then_some(())
    });
    until("by MONITOR too", || {
        (says(2) == "OK").then_some(())?;
        let line = sees.reply()?.to_string();
        line.contains("\"set\" \"s2\"").then_some(())
    });
    // What is published meets at the first one of now.
    client.send(&["SUBSCRIBE", "news"]);
    until("it has subscribed", || {
        (client.reply()?.to_string() == "[subscribe news :2]").then_some(())
    });
    check(&mut Client::connect(listen), "publish news x", ":1");
    drop(module);
}

#[test]
fn a_cluster_is_heard_as_one_server() {
    let Some(ground) = redis_cluster::Ground::start(0, &[]) else {
        return;
    };
    let mut other = hears_by_both(|| ground.client());
    // Channels of slots of several nodes; one goes elsewhere, and is heard there.
    let mut client = ground.client();
    check(&mut client, "ssubscribe a b c d", "[ssubscribe a :1]");
    assert_eq!(heard(&mut client, 3).len(), 3);
    for channel in ["a", "b", "c", "d"] {
        check(&mut other, &format!("spublish {channel} x"), ":1");
        assert_eq!(heard(&mut client, 1), [format!("[smessage {channel} x]")]);
    }
    let slot: u16 = other.line("cluster keyslot a")[1..]
        .parse()
        .expect("a slot");
    let from = ground.cluster.owner(slot);
    let nodes = ground.cluster.nodes.iter();
    let others: Vec<&Redis> = nodes.filter(|node| node.addr != from.addr).collect();
    migrate(slot, from, others[0], &others[1..], 10);
    until("it is heard where the slot is now", || {
        (other.line("spublish a there") == ":1").then_some(())
    });
    assert_eq!(heard(&mut client, 1), ["[smessage a there]"]);
    check(&mut client, "sunsubscribe a b c", "[sunsubscribe a :3]");
    assert_eq!(heard(&mut client, 2).len(), 2);
    check(&mut client, "sunsubscribe", "[sunsubscribe d :0]");
    check(&mut client, "set x 1", "OK");
}
