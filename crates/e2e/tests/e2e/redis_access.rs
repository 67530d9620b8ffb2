//! `podkit redis` and servers that want to know who comes: TLS, passwords, users, sentinels with all of these, and names.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use podkit_testkit::certs::{self, Authority};
use podkit_testkit::dns::NameServer;
use podkit_testkit::net::{OwnNetwork, free_addr};
use podkit_testkit::podkit::{Module, binary};
use podkit_testkit::process::Process;
use podkit_testkit::redis::{Client, Redis, Sentinel, TlsFiles};
use podkit_testkit::{Need, Turn, able, until};
use rustix::process::Signal;

/// Users of the servers: podkit's own, two of clients, that of replicas and that of sentinels (as Redis' documentation has it).
const USERS: [&str; 5] = [
    "podkit on >p ~* &* +@all -@dangerous +info +role +acl|whoami",
    "reader on >r ~app:* resetchannels &news +@read +@connection +@transaction +@pubsub +acl|whoami",
    "writer on >w ~app:* resetchannels &news +@read +@write +@connection +@transaction +@pubsub",
    "replica on >c +psync +replconf +ping",
    "sentinel on >s allchannels +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info \
     +client|setname +client|kill +script|kill",
];

/// A server by TLS that knows these users only; `plain` is for the test. Gives it with where it is by TLS.
fn guarded(files: &TlsFiles, primary: Option<SocketAddr>) -> (Redis, SocketAddr) {
    let mut args = vec!["--repl-diskless-sync-delay", "0"];
    args.extend(["--masteruser", "replica", "--masterauth", "c"]);
    args.extend(["--user", "default", "off"]);
    for user in USERS {
        args.push("--user");
        args.extend(user.split_whitespace());
    }
    let primary = primary.map(|addr| (addr.ip().to_string(), addr.port().to_string()));
    if let Some((ip, port)) = &primary {
        args.extend(["--replicaof", ip, port]);
    }
    let addr = free_addr();
    (files.start(addr.port(), free_addr(), &args), addr)
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    certs::replace(&path, text);
    path.display().to_string()
}

#[test]
fn sentinels_and_servers_by_tls_with_users_are_followed_through_a_failover() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("redis");
    let files = TlsFiles::new(&authority, &["127.0.0.1"], dir.path());
    let (primary, primary_addr) = guarded(&files, None);
    let (replica, replica_addr) = guarded(&files, Some(primary_addr));
    let at = free_addr();
    let more = format!(
        "port 0\n{}requirepass d\nsentinel auth-user main sentinel\nsentinel auth-pass main s\n",
        files.lines(at.port())
    );
    let down_after = Duration::from_secs(3);
    let _sentinel = Sentinel::start_on(at, primary_addr, 1, down_after, &more);

    let (cert, key) = authority.peer(&["podkit"]).write(dir.path(), "podkit");
    let ca = write(dir.path(), "ca.pem", &authority.pem());
    let listen = free_addr();
    let start = |listen: SocketAddr, ca: &str| {
        let args = [
            format!("--listen={listen}"),
            format!("--sentinel=rediss://{at}"),
            "--master-name=main".to_owned(),
            format!("--sentinel-password-file={}", write(dir.path(), "d", "d\n")),
            "--user=podkit".to_owned(),
            format!("--password-file={}", write(dir.path(), "p", "p\n")),
            format!("--upstream-ca={ca}"),
            format!("--upstream-cert={}", cert.display()),
            format!("--upstream-key={}", key.display()),
            "--hold=20s".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Module::start("redis", &args, &[])
    };
    let module = start(listen, &ca);
    let reads = |addr: SocketAddr| {
        let sample = format!("podkit_redis_commands_total{{server=\"{addr}\",as=\"replica\"}}");
        module.metric(&sample).unwrap_or(0.0)
    };
    let mut client = Client::connect(listen);
    assert_eq!(client.line("set app:1 a"), "OK");
    assert_eq!(client.line("set other a"), "OK");
    assert_eq!(client.line("acl whoami"), "podkit");
    until("the replica is read from", || {
        assert_eq!(client.line("get app:1"), "a");
        (reads(replica_addr) > 0.0).then_some(())
    });

    // A client's own user: on the shared connections, on its own, and while it waits. None of them is podkit's.
    let mut reader = Client::connect(listen);
    assert!(reader.line("auth reader wrong").starts_with("-WRONGPASS"));
    assert_eq!(reader.line("acl whoami"), "podkit");
    assert_eq!(reader.line("auth reader r"), "OK");
    until("it reads at the replica too", || {
        let before = reads(replica_addr);
        assert_eq!(reader.line("get app:1"), "a");
        (reads(replica_addr) > before).then_some(())
    });
    let refused = |client: &mut Client, command: &str| {
        let line = client.line(command);
        assert!(line.starts_with("-NOPERM"), "{command}: {line}");
    };
    for command in ["get other", "set app:1 b", "blpop app:l 1", "info", "role"] {
        refused(&mut reader, command);
    }
    assert_eq!(reader.line("multi"), "OK");
    assert_eq!(reader.line("acl whoami"), "QUEUED");
    assert_eq!(reader.line("get app:1"), "QUEUED");
    assert_eq!(reader.line("exec"), "[reader a]");
    assert_eq!(reader.line("multi"), "OK");
    refused(&mut reader, "set app:1 b");
    assert!(reader.line("exec").starts_with("-EXECABORT"));
    refused(&mut reader, "watch other");
    assert_eq!(reader.line("watch app:1"), "OK");
    assert_eq!(reader.line("unwatch"), "OK");
    let mut hears = Client::connect(listen);
    assert_eq!(hears.line("auth reader r"), "OK");
    refused(&mut hears, "subscribe secrets");
    let mut hears = Client::connect(listen);
    assert_eq!(hears.line("auth reader r"), "OK");
    assert_eq!(hears.line("subscribe news"), "[subscribe news :1]");
    assert_eq!(client.line("publish news x"), ":1");
    assert_eq!(hears.reply().unwrap().to_string(), "[message news x]");

    // One that may neither ROLE nor INFO reads what it wrote all the same.
    let mut writer = Client::connect(listen);
    assert!(writer.line("hello 3 auth writer w").contains("proto :3"));
    for at in 0..50 {
        assert_eq!(writer.line(&format!("set app:1 {at}")), "OK");
        assert_eq!(writer.line("get app:1"), at.to_string());
    }
    assert_eq!(writer.line("rpush app:l x"), ":1");
    assert_eq!(writer.line("blpop app:l 1"), "[app:l x]");
    refused(&mut writer, "set other b");
    refused(&mut writer, "info");
    until("replicas are read from again", || {
        let before = reads(replica_addr);
        assert_eq!(client.line("get app:1"), "49");
        (reads(replica_addr) > before).then_some(())
    });

    // By TLS, and with its password, the sentinel is heard when it has found another primary.
    primary.server.process.signal(Signal::KILL);
    until("it is written to", || {
        // The first may have been on its way when the former one went.
        (writer.line("set app:2 later") == "OK").then_some(())
    });
    assert_eq!(reader.line("get app:2"), "later");
    refused(&mut reader, "set app:2 b");
    let mut direct = replica.client();
    assert_eq!(direct.line("auth podkit p"), "OK");
    assert_eq!(direct.line("get app:2"), "later");
    assert_eq!(reader.line("reset"), "RESET");
    assert_eq!(reader.line("acl whoami"), "podkit");

    // The files are read again, and what is no good is refused.
    let reloads = |result: &str| {
        let sample = format!("podkit_upstream_tls_reloads_total{{result=\"{result}\"}}");
        module.metric(&sample).unwrap_or(0.0)
    };
    write(dir.path(), "ca.pem", "nothing");
    module.process.signal(Signal::HUP);
    until("it is refused", || (reloads("refused") > 0.0).then_some(()));
    assert!(
        module.admin("/").text().contains("--upstream-ca"),
        "the page says so"
    );
    let both = authority.pem() + &Authority::new("next").pem();
    write(dir.path(), "ca.pem", &both);
    module.process.signal(Signal::HUP);
    until("it is in force", || {
        (reloads("changed") > 0.0).then_some(())
    });
    assert_eq!(client.line("set app:3 x"), "OK");

    // Whose certificate is not of the authority is not told the password.
    let other = write(dir.path(), "other.pem", &Authority::new("other").pem());
    let module = start(free_addr(), &other);
    module.process.wait_line("the reason", |line| {
        line.contains("a sentinel says nothing") && line.contains("certificate")
    });
}

#[test]
fn a_password_is_changed_and_no_connection_is_lost() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().unwrap();
    for (module, named) in [("redis", "--primary"), ("shard", "--shard=a")] {
        let server = Redis::start(&["--requirepass", "one"]);
        let mut direct = server.client();
        assert_eq!(direct.line("auth one"), "OK");
        let file = write(dir.path(), module, "one\n");
        let listen = free_addr();
        let args = [
            format!("--listen={listen}"),
            format!("{named}={}", server.addr),
            format!("--password-file={file}"),
            "--workers=1".to_owned(),
            "--hold=0s".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let args = if module == "shard" { &args[..4] } else { &args };
        let module = Module::start(module, args, &[]);
        let mut client = Client::connect(listen);
        // Nothing is kept until it is known what the server is.
        until("it is served", || {
            (client.line("set k 1") == "OK").then_some(())
        });
        let mut check = |command: &str, expected: &str| {
            let line = client.line(command);
            assert!(line.starts_with(expected), "{command}: {line}");
        };
        // The one that is open goes on; a new one can't be had before the new password is in the file, and then it is.
        assert_eq!(direct.line("config set requirepass two"), "OK");
        check("get k", "1");
        check("subscribe news", "-ERR");
        write(dir.path(), &file, "two\n");
        check("watch k", "OK");
        check("unwatch", "OK");
        check("get k", "1");
        // All of them anew, those by which podkit asks too.
        let killed = direct.line("client kill type normal skipme yes");
        assert!(killed.starts_with(':') && killed != ":0", "{killed}");
        until("it is served again", || {
            (client.line("set k 2") == "OK").then_some(())
        });

        // On SIGHUP, while the server takes both.
        assert_eq!(direct.line("acl setuser default >three"), "OK");
        write(dir.path(), &file, "three\n");
        let before = module.metric("podkit_config_generation");
        module.process.signal(Signal::HUP);
        until("it is in force", || {
            (module.metric("podkit_config_generation") > before).then_some(())
        });
        std::fs::remove_file(&file).unwrap();
        assert_eq!(direct.line("acl setuser default <two"), "OK");
        direct.line("client kill type normal skipme yes");
        until("it is served again", || {
            (client.line("set k 3") == "OK").then_some(())
        });
        // What can't be read is said, and the former one stays.
        module.process.signal(Signal::HUP);
        until("it is refused", || {
            let page = module.admin("/").text();
            (page.contains("--password-file") && page.contains("can&#39;t be read")).then_some(())
        });
        assert_eq!(client.line("get k"), "3");
    }
}

/// `podkit redis` with a name server of its own, in a mount namespace that goes with it.
fn resolving(resolv: &Path, args: &[&str]) -> Module {
    let admin = free_addr();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec"])
        .arg("mount --bind \"$1\" /etc/resolv.conf; shift; exec \"$@\"")
        .arg("-")
        .arg(resolv)
        .arg(binary())
        .args(["redis", "--admin", &admin.to_string()])
        .args(args);
    let process = Process::spawn("podkit redis", &mut command);
    let module = Module { process, admin };
    module.wait_ready();
    module
}

#[test]
fn the_addresses_of_a_name_change_and_so_do_their_roles() {
    let programs = ["redis-server", "unshare", "ip"].map(Need::Program);
    if !able(&[&[Need::Root], &programs[..]].concat()) {
        return;
    }
    let _turn = Turn::shared();
    let _network = OwnNetwork::enter();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("redis");
    // For the name, not for the addresses.
    let files = TlsFiles::new(&authority, &["redis.test"], dir.path());
    let [a, b, c] = [2, 3, 4].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let (plain, port) = (7000, 7001);
    let start = |ip: Ipv4Addr, args: &[&str]| {
        let args = [&["--repl-diskless-sync-delay", "0"], args].concat();
        files.start(port, (ip, plain).into(), &args)
    };
    let tls_port = port.to_string();
    let of = |ip: Ipv4Addr| ["--replicaof".to_owned(), ip.to_string(), tls_port.clone()];
    let first = start(a, &[]);
    let follows = of(a);
    let second = start(b, &follows.each_ref().map(String::as_str));
    let names = NameServer::start(([127, 0, 0, 1], 53).into(), "redis.test", &[a, b]);
    let resolv = dir.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.1\n").unwrap();
    let (cert, key) = authority.peer(&["podkit"]).write(dir.path(), "podkit");
    let listen = free_addr();
    let args = [
        format!("--listen={listen}"),
        format!("--upstream=rediss://dns:redis.test:{port}"),
        format!("--upstream-ca={}", files.ca.display()),
        format!("--upstream-cert={}", cert.display()),
        format!("--upstream-key={}", key.display()),
        "--hold=20s".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let module = resolving(&resolv, &args);
    let reads = |ip: Ipv4Addr| {
        let sample =
            format!("podkit_redis_commands_total{{server=\"{ip}:{port}\",as=\"replica\"}}");
        module.metric(&sample).unwrap_or(0.0)
    };
    let mut client = Client::connect(listen);
    assert_eq!(client.line("set k 1"), "OK");
    assert_eq!(first.client().line("get k"), "1");
    until("the replica is read from", || {
        assert_eq!(client.line("get k"), "1");
        (reads(b) > 0.0).then_some(())
    });

    // They change their roles.
    assert_eq!(second.client().line("replicaof no one"), "OK");
    let command = format!("replicaof {b} {port}");
    assert_eq!(first.client().line(&command), "OK");
    until("the other is written to", || {
        client.line("set k 2");
        (second.client().line("get k") == "2").then_some(())
    });
    until("the former primary is read from", || {
        assert_eq!(client.line("get k"), "2");
        (reads(a) > 0.0).then_some(())
    });

    // The name has another address instead.
    let follows = of(b);
    let third = start(c, &follows.each_ref().map(String::as_str));
    names.set(&[b, c]);
    until("the new one is read from", || {
        assert_eq!(client.line("get k"), "2");
        (reads(c) > 0.0).then_some(())
    });
    let page = module.admin("/").text();
    assert!(!page.contains(&format!("{a}:{port}")), "{page}");
    assert_eq!(client.line("set k 3"), "OK");
    drop(first);
    assert_eq!(client.line("get k"), "3");
    drop(third);
}

#[test]
fn the_nodes_that_a_cluster_names_are_spoken_to_by_tls_too() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("redis");
    // For none of their addresses.
    let files = TlsFiles::new(&authority, &["redis.example"], dir.path());
    let nodes: Vec<(Redis, SocketAddr, String)> = (0..2)
        .map(|at| {
            let (addr, bus) = (free_addr(), free_addr().port().to_string());
            let args = ["--cluster-enabled", "yes", "--tls-cluster", "yes"];
            let args = [&args[..], &["--cluster-port", &bus]].concat();
            let node = files.start(addr.port(), free_addr(), &args);
            let mut client = node.client();
            let (first, last) = (at * 8192, at * 8192 + 8191);
            for command in [
                format!("cluster set-config-epoch {}", at + 1),
                format!("cluster addslotsrange {first} {last}"),
            ] {
                assert_eq!(client.line(&command), "OK", "{command}");
            }
            (node, addr, bus)
        })
        .collect();
    let (_, addr, bus) = &nodes[1];
    let met = format!("cluster meet {} {} {bus}", addr.ip(), addr.port());
    assert_eq!(nodes[0].0.client().line(&met), "OK");
    for (node, ..) in &nodes {
        until("the cluster is ready", || {
            let info = node.client().line("cluster info");
            let is_ready = info.contains("cluster_state:ok") && info.contains("known_nodes:2");
            is_ready.then_some(())
        });
    }

    let (cert, key) = authority.peer(&["podkit"]).write(dir.path(), "podkit");
    let listen = free_addr();
    let args = [
        format!("--listen={listen}"),
        format!(
            "--cluster=rediss://{};server-name=redis.example",
            nodes[0].1
        ),
        format!("--upstream-ca={}", files.ca.display()),
        format!("--upstream-cert={}", cert.display()),
        format!("--upstream-key={}", key.display()),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let module = Module::start("redis", &args, &[]);
    let mut client = Client::connect(listen);
    for at in 0..20 {
        assert_eq!(client.line(&format!("set k{at} {at}")), "OK");
        assert_eq!(client.line(&format!("get k{at}")), at.to_string());
        // On a connection of its own.
        assert_eq!(client.line("multi"), "OK");
        assert_eq!(client.line(&format!("incr k{at}")), "QUEUED");
        assert_eq!(client.line("exec"), format!("[:{}]", at + 1));
    }
    for (_, addr, _) in &nodes {
        let sample = format!("podkit_redis_commands_total{{server=\"{addr}\",as=\"primary\"}}");
        assert!(module.metric(&sample).unwrap_or(0.0) > 0.0, "{addr}");
    }
}
