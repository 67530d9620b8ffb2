//! What nutcracker takes (`nutcracker -t`) is taken, and what it refuses is refused; where not, it is listed here.

use std::process::{Command, Stdio};

use podkit_ambassador::shard::place::nutcracker;
use podkit_testkit::{Need, able, program};

const LISTEN: &str = "  listen: 127.0.0.1:22121\n";

const SERVERS: &str = "  servers:\n   - 127.0.0.1:6379:1\n";

/// Lines of a pool besides where it listens and one server.
const KEYS: [&str; 33] = [
    "hash: md5",
    "hash: md6",
    "hash: MD5",
    "hash:\n   - md5\n   - md5",
    "distribution: maglev",
    "distribution: random",
    "hash_tag: \"{}\"",
    "hash_tag: \"{\"",
    "hash_tag: é",
    "redis: yes",
    "redis: True",
    "redis: \"true\"",
    "redis: false",
    "timeout: -1",
    "timeout: +4",
    "timeout: 1_000",
    "timeout: 0400",
    "timeout: 2147483647",
    "timeout: 2147483648",
    "timeout:",
    "timeout: ~",
    "timeout: 1\n  timeout: 2",
    "backlog: 1.5",
    "client_connections: many",
    "redis_auth: secret",
    "redis: true\n  redis_auth: 123",
    "redis_db: 4",
    "server_connections: 0",
    "server_connections: 2",
    "preconnect: maybe",
    "tcpkeepalive: true",
    "server_failure_limit: 0",
    "hsah: md5",
];

/// Servers; two where one is to be called as the other.
const LISTS: [&str; 20] = [
    "10.0.0.1",
    "10.0.0.1:6379",
    "10.0.0.1:6379:0",
    "10.0.0.1:6379:x",
    "10.0.0.1:6379:-1",
    "10.0.0.1:6379:2147483648",
    "10.0.0.1:6379:1  a",
    "10.0.0.1:06379:01 a",
    "10.0.0.1:0:1",
    "10.0.0.1:+6379:1",
    "10.0.0.1:65536:1",
    "10.0.0.1:1:1 b:2:3",
    "::1:6379:1",
    "/tmp/a:1",
    "/tmp/a:1 a",
    "/tmp/a:b:1",
    "/tmp/a b:1",
    "h:1:1\n   - h:1:2",
    "h:11211:1\n   - h:1:2 h",
    "h:1:1 a\n   - h:1:1 b",
];

const LISTENERS: [&str; 8] = [
    "/tmp/x",
    "/tmp/x 0660",
    "/tmp/x 1777",
    ":22121",
    "127.0.0.1",
    "127.0.0.1:0",
    "::1:22121",
    "0.0.0.0:22121",
];

/// What nobody could dial, and permissions that nutcracker takes for others.
const REFUSED: [&str; 7] = [
    "alpha:\n  listen: 127.0.0.1:1\n  servers:\n   - :6379:1\n",
    "alpha:\n  listen: 127.0.0.1:1\n  servers:\n   - \"[::1]:6379:1\"\n",
    "alpha:\n  listen: 127.0.0.1:1\n  servers:\n   - \"10.0.0.1:6379:1 \"\n",
    "alpha:\n  listen: 127.0.0.1:1\n  servers:\n   - a b c:1:1 x\n",
    "alpha:\n  listen: 127.0.0.1:1\n  servers:\n   - a!:1:1\n",
    "alpha:\n  listen: /tmp/x abc\n  servers:\n   - h:1:1\n",
    "alpha:\n  listen: /tmp/x 0888\n  servers:\n   - h:1:1\n",
];

/// YAML that means the same, and a key of nutcracker's next version.
const TAKEN: [&str; 4] = [
    "---\nalpha:\n  listen: 127.0.0.1:1\n  servers:\n   - h:1:1\n",
    "alpha: {listen: \"127.0.0.1:1\", servers: [\"h:1:1\"]}\n",
    "alpha: &pool\n  listen: 127.0.0.1:1\n  servers:\n   - h:1:1\n",
    "alpha:\n  listen: 127.0.0.1:1\n  reuseport: true\n  servers:\n   - h:1:1\n",
];

#[test]
fn a_file_is_right_when_nutcracker_says_so() {
    if !able(&[Need::Program("nutcracker")]) {
        return;
    }
    let pool = |listen: &str, rest: &str| format!("alpha:\n{listen}{rest}");
    let mut texts: Vec<String> = vec![
        String::new(),
        pool(LISTEN, ""),
        pool("", SERVERS),
        pool(LISTEN, "  servers: 127.0.0.1:6379:1\n"),
        format!("123:\n{LISTEN}{SERVERS}"),
        format!("alpha:\n{LISTEN}{SERVERS}beta:\n{LISTEN}{SERVERS}"),
        format!("alpha:\n{LISTEN}{SERVERS}alpha:\n  listen: 127.0.0.1:2\n{SERVERS}"),
    ];
    texts.extend(KEYS.map(|key| pool(LISTEN, &format!("  {key}\n{SERVERS}"))));
    texts.extend(LISTS.map(|list| pool(LISTEN, &format!("  servers:\n   - {list}\n"))));
    texts.extend(LISTENERS.map(|listen| pool(&format!("  listen: {listen}\n"), SERVERS)));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nutcracker.yml");
    let taken_there = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program("nutcracker").unwrap());
        command.arg("-t").arg("-c").arg(&file).stderr(Stdio::null());
        command.status().unwrap().success()
    };
    let taken_here = |text: &str| !nutcracker::parse("nutcracker.yml", text).1.has_errors();
    let mut counts = [0, 0];
    for text in &texts {
        let taken = taken_there(text);
        assert_eq!(taken_here(text), taken, "{text}");
        counts[usize::from(taken)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
    for text in REFUSED {
        assert!(taken_there(text) && !taken_here(text), "{text}");
    }
    for text in TAKEN {
        assert!(!taken_there(text) && taken_here(text), "{text}");
    }
}
