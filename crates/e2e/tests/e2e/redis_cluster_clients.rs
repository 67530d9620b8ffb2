//! What clients of a Redis Cluster may, and ask of each other: users, scripts that don't end, clients that wait.

use podkit_testkit::redis::{Client, Redis, migrate};
use podkit_testkit::until;

use crate::redis_cluster::Ground;

/// A node, and a key that it has.
fn keys(ground: &Ground) -> Vec<(&Redis, String)> {
    let slot = |key: &str| {
        let line = ground.client().line(&format!("cluster keyslot {key}"));
        line[1..].parse().expect("a slot")
    };
    let nodes = ground.cluster.nodes.iter();
    nodes
        .map(|node| {
            let mut all = (0..).map(|at| format!("app:{at}"));
            let has = |key: &String| ground.cluster.owner(slot(key)).addr == node.addr;
            (node, all.find(has).expect("a key"))
        })
        .collect()
}

fn check(client: &mut Client, command: &str, expected: &str) {
    assert_eq!(client.line(command), expected, "{command}");
}

/// A refusal of the user's.
fn refused(client: &mut Client, command: &str) {
    let line = client.line(command);
    assert!(line.starts_with("-NOPERM"), "{command}: {line}");
}

#[test]
fn a_user_may_what_the_nodes_say_and_scripts_are_ended_where_they_run() {
    let Some(ground) = Ground::start(0, &["--workers=1"]) else {
        return;
    };
    let keys = keys(&ground);
    let (mut client, mut ann) = (ground.client(), ground.client());
    let user = "acl setuser ann on >secret ~app:* resetchannels &news +@all -@dangerous -incr -script|kill";
    check(&mut client, user, "OK");
    for (node, _) in &keys {
        assert!(node.client().line("acl list").contains("user ann"));
    }
    assert!(ann.line("auth ann wrong").starts_with("-WRONGPASS"));
    check(&mut ann, "acl whoami", "default");
    check(&mut ann, "auth ann secret", "OK");
    check(&mut ann, "acl whoami", "ann");
    for (_, key) in &keys {
        check(&mut ann, &format!("set {key} 1"), "OK");
        check(&mut ann, &format!("get {key}"), "1");
        refused(&mut ann, &format!("incr {key}"));
        refused(&mut ann, &format!("get x{key}"));
        refused(&mut ann, &format!("blpop x{key} 1"));
        check(&mut ann, "multi", "OK");
        check(&mut ann, &format!("get {key}"), "QUEUED");
        check(&mut ann, "acl whoami", "QUEUED");
        check(&mut ann, "exec", "[1 ann]");
        check(&mut ann, "multi", "OK");
        refused(&mut ann, &format!("incr {key}"));
        assert!(ann.line("exec").starts_with("-EXECABORT"));
        // Others on the same connections are who they were.
        check(&mut client, &format!("incr {key}"), ":2");
    }
    let all: Vec<&str> = keys.iter().map(|(_, key)| key.as_str()).collect();
    check(&mut ann, &format!("mget {}", all.join(" ")), "[2 2 2]");
    refused(&mut ann, &format!("mget {} other", all.join(" ")));
    refused(&mut ann, "flushall");
    let mut hello = ground.client();
    assert!(
        hello
            .line("hello 3 auth ann wrong")
            .starts_with("-WRONGPASS")
    );
    assert!(hello.line("hello 3 auth ann secret").contains("proto :3"));
    refused(&mut hello, &format!("incr {}", all[0]));
    let mut hears = ground.client();
    check(&mut hears, "auth ann secret", "OK");
    refused(&mut hears, "subscribe secrets");

    // A script that does not end, at each node in turn; the others go on.
    check(&mut client, "config set busy-reply-threshold 50", "OK");
    let none = client.line("script kill");
    assert!(none.starts_with("-NOTBUSY"), "{none}");
    for (at, (_, key)) in keys.iter().enumerate() {
        let mut runs = ground.client();
        runs.send(&["EVAL", "while true do end", "1", key]);
        until("the node is busy", || {
            let line = client.line(&format!("get {key}"));
            line.starts_with("-BUSY").then_some(())
        });
        let other = &keys[(at + 1) % keys.len()].1;
        check(&mut ann, &format!("get {other}"), "2");
        // One who may not is not let.
        refused(&mut ann, "script kill");
        check(&mut client, "script kill", "OK");
        let ended = runs.reply().expect("a reply").to_string();
        assert!(ended.contains("Script killed by user"), "{ended}");
        check(&mut client, &format!("get {key}"), "2");
    }
}

#[test]
fn clients_that_wait_are_called_wherever_they_were_sent() {
    let Some(ground) = Ground::start(0, &["--hold=30s"]) else {
        return;
    };
    let tag = "{m}";
    let mut client = ground.client();
    let slot: u16 = client.line(&format!("cluster keyslot {tag}"))[1..]
        .parse()
        .expect("a slot");
    let nodes = &ground.cluster.nodes;
    let from = ground.cluster.owner(slot);
    let others: Vec<&Redis> = nodes.iter().filter(|node| node.addr != from.addr).collect();
    let called = || {
        let mut client = ground.client();
        let id = client.line("client id")[1..].to_owned();
        (client, id)
    };
    let blocked = |node: &Redis, count: usize| {
        until("the client waits there", || {
            let info = node.client().line("info clients");
            info.contains(&format!("blocked_clients:{count}\r"))
                .then_some(())
        });
    };
    let told = |client: &mut Client, expected: &str| {
        let reply = client.reply().map(|reply| reply.to_string());
        assert_eq!(reply.as_deref().unwrap_or("the end"), expected);
    };
    let unblocked = "-UNBLOCKED client unblocked via CLIENT UNBLOCK";

    // Where it was, and where it was sent when the slot went elsewhere.
    let (mut stays, stays_id) = called();
    let (mut goes, goes_id) = called();
    let (mut dies, dies_id) = called();
    for waits in [&mut stays, &mut goes, &mut dies] {
        waits.send(&["BLPOP", &format!("{tag}list"), "30"]);
    }
    blocked(from, 3);
    let unblock = |id: &str, how: &str| format!("client unblock {id} {how}");
    check(&mut client, &unblock(&stays_id, "timeout"), ":1");
    told(&mut stays, "nil");
    migrate(slot, from, others[0], &others[1..], 10);
    blocked(others[0], 2);
    check(&mut client, &unblock(&goes_id, "error"), ":1");
    told(&mut goes, unblocked);
    check(&mut client, &format!("client kill id {dies_id}"), ":1");
    told(&mut dies, "the end");
    blocked(others[0], 0);

    // While the slot is on its way: some of the keys are at either node, so that neither can do it.
    check(&mut client, &format!("rpush {tag}there x"), ":1");
    check(&mut client, &format!("set {tag}n 1"), "OK");
    let set = |node: &Redis, how: &str, of: &Redis| {
        let command = format!("cluster setslot {slot} {how} {}", of.id());
        check(&mut node.client(), &command, "OK");
    };
    set(others[1], "importing", others[0]);
    set(others[0], "migrating", others[1]);
    let tried = || ground.metric("podkit_redis_redirects_total{said=\"tryagain\"}");
    let asked = || ground.metric("podkit_redis_redirects_total{said=\"ask\"}");
    let more = |count: &dyn Fn() -> f64| {
        let before = count();
        until("it is sent again and again", || {
            (count() > before + 2.0).then_some(())
        });
    };
    let wait = |waits: &mut Client| {
        let (no, there) = (format!("{tag}no"), format!("{tag}there"));
        waits.send(&["BLMOVE", &no, &there, "LEFT", "LEFT", "30"]);
        more(&tried);
    };
    for how in ["timeout", "error"] {
        let (mut waits, id) = called();
        wait(&mut waits);
        let list = client.line(&format!("client list id {id}"));
        assert!(list.contains("flags=b"), "{list}");
        check(&mut client, &unblock(&id, how), ":1");
        told(&mut waits, if how == "error" { unblocked } else { "nil" });
        check(&mut waits, "ping", "PONG");
    }
    let (mut waits, id) = called();
    wait(&mut waits);
    check(&mut client, &format!("client kill id {id}"), ":1");
    told(&mut waits, "the end");
    // A transaction whose key is elsewhere waits; it is not blocked, and can be ended.
    let (mut waits, id) = called();
    check(&mut waits, "multi", "OK");
    waits.send(&["INCR", &format!("{tag}new")]);
    more(&asked);
    check(&mut client, &unblock(&id, "timeout"), ":0");
    check(&mut client, &format!("client kill id {id}"), ":1");
    told(&mut waits, "the end");
    check(&mut client, &format!("client kill id {id}"), ":0");
    check(&mut client, &format!("get {tag}n"), "1");
}
