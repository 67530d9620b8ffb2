//! What clients of `podkit shard` are to each other: scripts that keep the others waiting, ids, connections of one's own.

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::redis::{Client, Redis, Reply};
use podkit_testkit::{Need, Turn, able, until};

use crate::shard::Ground;

/// They are done as one server would do them, though scripts have a connection of their own.
#[test]
fn pipelines_with_scripts_are_done_in_their_order() {
    let Some(ground) = Ground::start(2, &[]) else {
        return;
    };
    let mut client = ground.client();
    let (mut asked, mut expected) = (String::new(), Vec::new());
    for at in 0..200 {
        asked.push_str(&format!("SET k{} {at}\r\n", at % 7));
        asked.push_str(&format!(
            "EVAL \"return redis.call('get',KEYS[1])\" 1 k{}\r\n",
            at % 7
        ));
        asked.push_str(&format!("GETSET k{} x\r\nMGET k0 k1\r\n", at % 7));
        expected.extend(["OK".to_owned(), at.to_string(), at.to_string()]);
    }
    client.send_bytes(asked.as_bytes());
    let mut replies: Vec<String> = Vec::new();
    for at in 0..800 {
        let reply = client.reply().unwrap().to_string();
        if at % 4 < 3 {
            replies.push(reply);
        }
    }
    assert_eq!(replies, expected);
    // Where it runs is not asked of who kills it.
    let shards = ground.servers.iter();
    shards.for_each(|one| {
        let limit = "config set busy-reply-threshold 100";
        assert_eq!(one.client().line(limit), "OK");
    });
    for key in ["a", "b", "c", "d"] {
        client.send(&["EVAL", "while true do end", "1", key]);
        let mut other = ground.client();
        until("it is killed", || {
            (other.line("script kill") == "OK").then_some(())
        });
        let killed = client.reply().unwrap().to_string();
        assert!(killed.contains("Script killed by user"), "{killed}");
    }
}

/// By the ids that podkit tells them, whichever worker serves them.
#[test]
fn clients_are_known_to_each_other() {
    let Some(ground) = Ground::start(2, &[]) else {
        return;
    };
    let (mut waits, mut other) = (ground.client(), ground.client());
    let id = waits.line("client id").trim_start_matches(':').to_owned();
    assert_eq!(other.line(&format!("client unblock {id}")), ":0");
    for (list, how, expected) in [
        ("a", "", "nil"),
        ("b", " timeout", "nil"),
        (
            "c",
            " error",
            "-UNBLOCKED client unblocked via CLIENT UNBLOCK",
        ),
        ("d", "", "nil"),
    ] {
        waits.send(&["BLPOP", list, "0"]);
        until("it does not wait any more", || {
            let told = other.line(&format!("client unblock {id}{how}"));
            (told == ":1").then_some(())
        });
        assert_eq!(waits.reply().unwrap().to_string(), expected);
    }
    assert!(other.line("client unblock x").contains("not an integer"));
    assert!(
        other
            .line(&format!("client unblock {id} now"))
            .starts_with("-ERR")
    );
    assert_eq!(waits.line("client setname shop"), "OK");
    let line = other.line(&format!("client list id {id}"));
    assert!(
        line.starts_with(&format!("id={id} ")) && line.contains(" name=shop "),
        "{line}"
    );
    assert!(waits.line("client info").contains(" name=shop "));
    let Reply::Map(hello) = waits.ask(&["HELLO", "3"]) else {
        panic!("a map");
    };
    assert!(
        hello
            .iter()
            .any(|part| part.to_string() == format!(":{id}")),
        "{hello:?}"
    );
    // Two that ask each other at once.
    let his = other.line("client id").trim_start_matches(':').to_owned();
    waits.send(&["CLIENT", "UNBLOCK", &his]);
    other.send(&["CLIENT", "UNBLOCK", &id]);
    assert_eq!(waits.reply().unwrap().to_string(), ":0");
    assert_eq!(other.reply().unwrap().to_string(), ":0");
    assert!(
        other
            .line(&format!("client kill type normal id {id}"))
            .starts_with("-ERR of podkit's")
    );
    assert_eq!(other.line(&format!("client kill id {his}")), ":0");
    assert!(
        other
            .line("client pause 1")
            .starts_with("-ERR CLIENT PAUSE")
    );
    waits.send(&["BLPOP", "a", "0"]);
    assert_eq!(other.line(&format!("client kill id {id}")), ":1");
    assert_eq!(waits.reply(), None);
    assert_eq!(other.line(&format!("client kill id {id}")), ":0");
}

/// What one client had for itself is the next one's.
#[test]
fn connections_of_a_clients_own_are_used_again() {
    let Some(ground) = Ground::start(1, &[]) else {
        return;
    };
    let opened = || {
        let stats = ground.servers[0].client().line("info stats");
        let (_, rest) = stats.split_once("total_connections_received:").unwrap();
        rest.split_whitespace()
            .next()
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    let mut client = ground.client();
    let before = opened();
    for at in 1..=50 {
        assert_eq!(client.line("multi"), "OK");
        assert_eq!(client.line("incr n"), "QUEUED");
        assert_eq!(client.line("exec"), format!("[:{at}]"));
        assert_eq!(client.line("blpop list 0.001"), "nil");
    }
    assert!(opened() - before < 10, "{} more", opened() - before);
    // One that the server has closed is not.
    let mut server = ground.servers[0].client();
    server.line("client kill type normal skipme yes");
    until("a transaction is done", || {
        client.send_bytes(b"MULTI\r\nINCR n\r\nEXEC\r\n");
        let replies: Vec<String> = (0..3)
            .map(|_| client.reply().unwrap().to_string())
            .collect();
        (replies[2] == "[:51]").then_some(())
    });
}

/// What changes a server is for all of them, and what they count is added.
#[test]
fn what_is_about_servers_is_about_all_of_them() {
    let Some(ground) = Ground::start(3, &[]) else {
        return;
    };
    let mut client = ground.client();
    assert_eq!(client.line("acl setuser ann on >secret ~* +@all"), "OK");
    let all = || ground.servers.iter();
    assert!(all().all(|one| one.client().line("acl users").contains("ann")));
    assert_eq!(client.line("acl deluser ann"), ":1");
    assert!(all().all(|one| !one.client().line("acl users").contains("ann")));
    for at in 0..20 {
        assert_eq!(client.line(&format!("set k{at} v")), "OK");
    }
    let info = client.line("info keyspace");
    assert!(info.contains("db0:keys=20,expires=0"), "{info}");
    let keys: Vec<String> = (0..100).map(|_| client.line("randomkey")).collect();
    let here = |one: &Redis| {
        keys.iter()
            .any(|key| one.client().line(&format!("exists {key}")) == ":1")
    };
    assert!(all().all(here));
    // How it is wrong is for a server to say.
    let wrong = client.line("lmpop x k left");
    assert!(wrong.contains("numkeys"), "{wrong}");
}

/// A shard says where the keys are of a command that podkit does not know.
#[test]
fn commands_that_podkit_does_not_know_go_where_their_keys_are() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let renamed = [
        "--enable-debug-command",
        "yes",
        "--rename-command",
        "GET",
        "FETCH",
        "--rename-command",
        "BLPOP",
        "AWAIT",
    ];
    let servers = [Redis::start(&renamed), Redis::start(&renamed)];
    let listen = free_addr();
    let mut args = vec![format!("--listen={listen}")];
    args.extend(
        servers
            .iter()
            .enumerate()
            .map(|(at, one)| format!("--shard=s{at}={}", one.addr)),
    );
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let _module = Module::start("shard", &args, &[]);
    let mut client = Client::connect(listen);
    for at in 0..20 {
        assert_eq!(client.line(&format!("set k{at} v{at}")), "OK");
        assert_eq!(client.line(&format!("fetch k{at}")), format!("v{at}"));
    }
    assert_eq!(client.line("debug set-active-expire 1"), "OK");
    for at in 0..20 {
        let object = client.line(&format!("debug object k{at}"));
        assert!(object.starts_with("Value at:"), "{object}");
    }
    assert!(client.line("debug segfault").contains("several shards"));
    assert!(client.line("nosuchcommand a").contains("unknown command"));
    let waits = client.line("await a 0");
    assert!(waits.contains("may keep a connection waiting"), "{waits}");
    assert_eq!(client.line("multi"), "OK");
    assert_eq!(client.line("fetch k1"), "QUEUED");
    assert_eq!(client.line("exec"), "[v1]");
}

/// As Redis does it, whatever the replies are made of.
#[test]
fn who_wants_no_replies_gets_none() {
    let Some(ground) = Ground::start(2, &["--hash-tag={}"]) else {
        return;
    };
    let alone = Redis::start(&[]);
    let said = [
        "client reply skip\r\nset a 1\r\nget a\r\n",
        "client reply skip\r\nclient reply skip\r\nmset a 2 b 3 c 4\r\nmget a b c\r\n",
        "client reply skip\r\nget\r\nclient reply skip\r\nclient reply on\r\nget a\r\n",
        "client reply off\r\nset b 5\r\nmget a b c nothing\r\nnosuch\r\nclient reply skip\r\nping\r\ndel c\r\n",
        "multi\r\nset {b}c 7\r\nexec\r\nclient reply on\r\nmget a b c {b}c\r\n",
        "client reply maybe\r\nclient reply off\r\nping\r\nreset\r\nblpop nothing 0.01\r\nclient reply skip\r\nmulti\r\nget {b}c\r\nexec\r\n",
        "client reply off\r\nunsubscribe none\r\nhello 3\r\nsubscribe news\r\npsubscribe n*\r\npublish news hello\r\nsubscribe\r\n",
        "unsubscribe news\r\npunsubscribe n*\r\nclient reply on\r\nclient reply skip\r\nssubscribe shards\r\nping\r\necho end\r\n",
    ]
    .concat();
    let replies = |mut client: Client| {
        client.send_bytes(said.as_bytes());
        let mut replies = Vec::new();
        while replies.last().is_none_or(|last| last != "end") {
            replies.push(client.reply().unwrap().to_string());
        }
        replies
    };
    let directly = replies(alone.client());
    assert_eq!(directly[0], "1");
    assert_eq!(replies(ground.client()), directly);
    // And it goes on as any other.
    let mut client = ground.client();
    client.send_bytes(b"client reply off\r\n");
    for at in 0..1000 {
        client.send(&["SET", &format!("k{at}"), "v"]);
    }
    assert_eq!(client.line("client reply on"), "OK");
    assert_eq!(client.line("dbsize"), ":1003");
}
