use proptest::prelude::*;

use super::*;

/// All pools of a right file, and what is ignored in it.
fn right(text: &str) -> (Vec<Pool>, String) {
    let (pools, findings) = parse("nutcracker.yml", text);
    assert!(!findings.has_errors(), "{findings}");
    (pools, findings.to_string())
}

/// A pool with these lines.
fn pool(lines: &str) -> String {
    format!("alpha:\n  listen: 127.0.0.1:22121\n  servers:\n   - 127.0.0.1:6379:1\n{lines}")
}

fn shown(server: &str) -> Result<(String, u32, String), String> {
    let server = super::server(server)?;
    let Shard { name, weight } = server.shard;
    Ok((name, weight, server.addr.to_string()))
}

#[test]
fn a_pool_that_says_everything() {
    let (pools, ignored) = right(
        "beta:
  listen: /run/nutcracker.sock 0660
  hash: murmur
  hash_tag: \"{}\"
  distribution: modula
  timeout: 0400
  backlog: 1024
  client_connections: 100
  redis: true
  redis_auth: 12345
  redis_db: 3
  preconnect: false
  tcpkeepalive: true
  reuseport: true
  auto_eject_hosts: true
  server_connections: 1
  server_retry_timeout: 2000
  server_failure_limit: 3
  servers:
  - 127.0.0.1:6379:1 one
  - ::1:6380:2 two
",
    );
    let expected = Pool {
        name: "beta".into(),
        listen: Addr::Unix("/run/nutcracker.sock".into()),
        listen_mode: Some(0o660),
        function: HashFunction::Murmur,
        tag: Some(HashTag::BRACES),
        distribution: Distribution::Modula,
        timeout: Some(Duration::from_millis(400)),
        redis: true,
        auth: Some(Password("12345".into())),
        db: 3,
        ejection: Some(Ejection {
            failures: 3,
            retry: Duration::from_secs(2),
        }),
        servers: vec![
            server("127.0.0.1:6379:1 one").expect("a server"),
            server("::1:6380:2 two").expect("a server"),
        ],
    };
    assert_eq!(pools, [expected]);
    assert_eq!(
        ignored,
        "nutcracker.yml:7:3: ignored: beta.backlog: means nothing here: the queue of a listener is as long as podkit makes it
nutcracker.yml:8:3: ignored: beta.client_connections: means nothing here: nutcracker doesn't heed it either; --max-connections bounds them
nutcracker.yml:12:3: ignored: beta.preconnect: means nothing here: a connection to a server is opened when it is needed
nutcracker.yml:13:3: ignored: beta.tcpkeepalive: means nothing here: it is always on
nutcracker.yml:14:3: ignored: beta.reuseport: means nothing here: each worker has a listener of its own anyway
nutcracker.yml:16:3: ignored: beta.server_connections: means nothing here: requests share the connections that each worker has
"
    );
    assert!(!format!("{pools:?}").contains("12345"));
}

#[test]
fn a_pool_that_says_little() {
    let (pools, ignored) = right(&pool(""));
    let [pool] = &pools[..] else {
        panic!("one pool");
    };
    assert_eq!(pool.function, HashFunction::Fnv1a64);
    assert_eq!(pool.distribution, Distribution::Ketama);
    assert_eq!(
        (pool.tag, pool.timeout, pool.listen_mode),
        (None, None, None)
    );
    assert!(!pool.redis && pool.ejection.is_none());
    assert_eq!(ignored, "");
}

#[test]
fn when_a_server_is_ejected() {
    #[track_caller]
    fn check(lines: &str, failures: u32, retry: Duration) {
        let (pools, ignored) = right(&pool(&format!("  auto_eject_hosts: true\n{lines}")));
        let expected = Some(Ejection { failures, retry });
        assert_eq!((&pools[0].ejection, ignored.as_str()), (&expected, ""));
    }
    // nutcracker's defaults.
    check("", 2, Duration::from_secs(30));
    check(
        "  server_failure_limit: 0\n  server_retry_timeout: 5\n",
        1,
        Duration::from_millis(5),
    );
}

#[test]
fn keys_without_effect_are_told() {
    let (_, ignored) = right(&pool(
        "  redis_db: 1\n  server_retry_timeout: 1\n  auto_eject_hosts: false\n",
    ));
    assert_eq!(
        ignored,
        "nutcracker.yml:5:3: ignored: alpha.redis_db: means nothing here: memcached has no databases
nutcracker.yml:6:3: ignored: alpha.server_retry_timeout: means nothing here: auto_eject_hosts is not true
"
    );
}

#[test]
fn a_pool_whose_keys_all_meet_is_told() {
    let (_, warned) = right(&pool("  hash: crc32\n"));
    assert_eq!(
        warned,
        "nutcracker.yml:5:9: warning: alpha.hash: one server has nearly all keys, as with nutcracker: crc32 has 15 bits, ketama's ring 32\n"
    );
}

#[test]
fn servers_are_named_as_nutcracker_names_them() {
    #[track_caller]
    fn check(text: &str, name: &str, weight: u32, addr: &str) {
        assert_eq!(shown(text), Ok((name.into(), weight, addr.into())));
    }
    check("10.0.0.1:6379:1", "10.0.0.1:6379", 1, "10.0.0.1:6379");
    check("10.0.0.1:6379:3 a-b", "a-b", 3, "10.0.0.1:6379");
    // Without memcached's own port.
    check("cache-1:11211:1", "cache-1", 1, "cache-1:11211");
    check("cache-1:011211:1", "cache-1", 1, "cache-1:11211");
    check("cache-1:011212:1", "cache-1:011212", 1, "cache-1:11212");
    check("::1:6379:1", "::1:6379", 1, "[::1]:6379");
    // The colon is nutcracker's.
    check("/tmp/a.sock:2", "/tmp/a.sock:", 2, "unix:/tmp/a.sock");
    check("/tmp/a.sock:2 a", "a", 2, "unix:/tmp/a.sock");
}

#[test]
fn wrong_servers() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let error = shown(text).expect_err("a wrong server");
        assert!(error.contains(expected), "{text}: {error}");
    }
    check("10.0.0.1", "expected \"host:port:weight\"");
    check("10.0.0.1:6379", "expected \"host:port:weight\"");
    check("10.0.0.1:6379:0", "the weight can't be 0");
    check("10.0.0.1:6379:x", "the weight: expected a number");
    check("10.0.0.1:6379:-1", "the weight: expected a number");
    check("10.0.0.1:6379:2147483648", "up to 2147483647");
    check("10.0.0.1:6379: a", "the weight: expected a number");
    check("10.0.0.1:6379:1 ", "the name after the space is missing");
    check("10.0.0.1:6379:1  a", "the weight: expected a number");
    check("10.0.0.1:0:1", "expected a port");
    check("10.0.0.1:+6379:1", "expected a port");
    check("10.0.0.1:65536:1", "expected a port");
    check(":6379:1", "the host is missing");
    check("[::1]:6379:1", "is not IPv6");
    check("/tmp/a:b:1", "a path can't have a colon");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    #[track_caller]
    fn check(lines: &str, expected: &str) {
        let (pools, findings) = parse("nutcracker.yml", &pool(lines));
        assert_eq!(findings.to_string(), expected);
        assert!(pools.is_empty());
    }
    check(
        "  hsah: md5\n",
        "nutcracker.yml:5:3: alpha.hsah: nutcracker has no such key; did you mean hash?\n",
    );
    check(
        "  hash: md6\n",
        "nutcracker.yml:5:9: alpha.hash: there is no \"md6\"; did you mean md5?\n",
    );
    check(
        "  distribution: maglev\n",
        "nutcracker.yml:5:17: alpha.distribution: nutcracker has no maglev; it has ketama, modula and random\n",
    );
    check(
        "  hash_tag: \"{\"\n",
        "nutcracker.yml:5:13: alpha.hash_tag: expected two characters, such as \"{}\"\n",
    );
    check(
        "  redis: yes\n",
        "nutcracker.yml:5:10: alpha.redis: expected true or false, found yes\n",
    );
    check(
        "  timeout: -1\n",
        "nutcracker.yml:5:12: alpha.timeout: expected a number up to 2147483647, found -1\n",
    );
    check(
        "  backlog: 1.5\n",
        "nutcracker.yml:5:3: ignored: alpha.backlog: means nothing here: the queue of a listener is as long as podkit makes it
nutcracker.yml:5:12: alpha.backlog: expected a number up to 2147483647, found 1.5\n",
    );
    check(
        "  redis_auth: secret\n",
        "nutcracker.yml:5:15: alpha.redis_auth: goes with redis: true only\n",
    );
    check(
        "  hash: [md5]\n",
        "nutcracker.yml:5:3: alpha.hash: expected a value, found a list\n",
    );
    check(
        "   - 127.0.0.2:6379:1 127.0.0.1:6379\n",
        "nutcracker.yml:5:6: alpha.servers[1]: another server is named \"127.0.0.1:6379\" too\n",
    );
    check(
        "   - 127.0.0.2:6379:2147483647\n   - 127.0.0.3:6379:2147483647\n   - 127.0.0.4:6379:2\n",
        "nutcracker.yml:3:3: alpha.servers: the weights' sum is more than 4294967295\n",
    );
}

#[test]
fn wrong_files() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let (pools, findings) = parse("f", text);
        let first = findings.iter().next().map(ToString::to_string);
        assert_eq!(first.as_deref(), Some(expected));
        assert!(pools.is_empty());
    }
    check("", "f: has no pools");
    check("{}", "f:1:1: expected 1 to 1000 pools");
    check("- a", "f:1:1: expected an object, found a list");
    check("a: b", "f:1:4: a: expected an object, found the text \"b\"");
    check(
        "a:\n  servers: [\"h:1:1\"]\n",
        "f:1:1: a: listen is missing",
    );
    check(
        "a:\n  listen: h:1\n",
        "f:1:1: a.servers: expected a list of servers, each \"host:port:weight\" or \"/path:weight\", and a name after a space",
    );
    check(
        "a: {}\n---\nb: {}\n",
        "f:3:1: a second document; nutcracker takes one",
    );
    check(
        "a:\n  listen: /x 0888\n  servers: [\"h:1:1\"]\n",
        "f:2:11: a.listen: expected \"/path permissions\", these up to 0777; found \"0888\"",
    );
}

#[test]
fn two_pools_can_not_listen_in_one_place() {
    let text =
        "a: {listen: \"h:1\", servers: [\"h:2:1\"]}\nb: {listen: \"h:1\", servers: [\"h:2:1\"]}\n";
    let (_, findings) = parse("f", text);
    assert_eq!(
        findings.to_string(),
        "f:2:13: b.listen: h:1 is where a listens\n"
    );
}

#[test]
fn a_pool_is_chosen_by_name() {
    let text = "alpha: {listen: \"h:1\", servers: [\"h:2:1\"]}\nbeta: {listen: \"h:2\", servers: [\"h:2:1\"]}\n";
    let (pools, _) = right(text);
    let choose = |name| choose(pools.clone(), name).map(|pool| pool.name);
    assert_eq!(choose(Some("beta")), Ok("beta".into()));
    assert_eq!(
        choose(Some("bta")),
        Err("no pool is named \"bta\"; did you mean beta?".into())
    );
    assert_eq!(
        choose(None),
        Err("which pool? There are alpha, beta".into())
    );
    let one = super::choose(pools[..1].to_vec(), None).map(|pool| pool.name);
    assert_eq!(one, Ok("alpha".into()));
}

/// The file that comes with nutcracker is read as it says.
#[test]
fn pools_become_rings() {
    let (pools, _) = right(
        "omega:
  listen: /tmp/gamma
  hash: hsieh
  distribution: ketama
  auto_eject_hosts: false
  servers:
   - 127.0.0.1:11214:100000
   - 127.0.0.1:11215:1
",
    );
    let ring = pools[0].ring().expect("a ring");
    // The second server's share is so small that it has no point at all.
    assert!(super::super::sample().all(|key| ring.place(key.as_bytes()) == 0));
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text in "[ -~\\n]{0,60}", lines in "([a-z_]{0,8}:? ?[-a-z0-9:/\"{} ]{0,20}\n){0,8}") {
        // No panic, whatever it is.
        drop(server(&text));
        drop(listen(&text));
        drop(parse("f", &text));
        drop(parse("f", &pool(&lines)));
    }

    #[test]
    fn what_a_server_says_is_read(
        host in "[a-z][a-z0-9.-]{0,20}", port in 1_u16.., weight in 1..i32::MAX, name in "([a-z0-9:/]{1,10})?",
    ) {
        let place = format!("{host}:{port}");
        let text = format!("{place}:{weight} {name}");
        let server = server(text.trim_end()).expect("a right server");
        prop_assert_eq!(&server.addr.to_string(), &place);
        prop_assert_eq!(server.shard.weight, weight.cast_unsigned());
        let own = if port == 11211 { host } else { place };
        prop_assert_eq!(server.shard.name, if name.is_empty() { own } else { name });
    }
}
