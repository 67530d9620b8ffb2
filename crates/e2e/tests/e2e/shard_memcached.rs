//! `podkit shard --protocol memcached` in front of real memcached servers.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use podkit_testkit::certs::replace;
use podkit_testkit::memcached::{Client, Memcached};
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::{directory, launch, pinned};
use podkit_testkit::podkit::{Module, podkit};
use podkit_testkit::{Need, Turn, able, program, until};

/// Servers with a shard module in front.
pub(crate) struct Ground {
    pub(crate) servers: Vec<Memcached>,
    module: Module,
    listen: SocketAddr,
    _turn: Turn,
}

impl Ground {
    /// None when the machine lacks memcached.
    pub(crate) fn start(count: usize, more: &[&str]) -> Option<Self> {
        if !able(&[Need::Program("memcached")]) {
            return None;
        }
        let turn = Turn::shared();
        let servers: Vec<Memcached> = (0..count).map(|_| Memcached::start()).collect();
        let listen = free_addr();
        let mut args = vec!["--protocol=memcached".to_owned(), "--workers=1".to_owned()];
        args.push(format!("--listen={listen}"));
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
}

/// Draws, always the same ones.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn key(&mut self) -> String {
        match self.below(60) {
            0 => "x".repeat(251),
            1 => "y".repeat(250),
            at => format!("key{}", at % 20),
        }
    }

    /// For a get. None is too long: memcached 1.6.18 then forgets its replies to what came before.
    fn keys(&mut self) -> String {
        let count = 1 + self.below(12);
        let mut keys: Vec<String> = (0..count).map(|_| self.key()).collect();
        keys.iter_mut().for_each(|key| key.truncate(250));
        keys.join(" ")
    }

    fn value(&mut self) -> String {
        let length = self.one(&[0, 1, 5, 90, 1500]);
        let text = self.one(&["1", "x", "\r\nEND\r\n", "MN\r\n", "42 "]);
        text.repeat(1 + length / text.len())[..length].to_owned()
    }

    /// `unique`: what depends on how many values a server was given before.
    fn command(&mut self, unique: bool) -> String {
        let (key, value) = (self.key(), self.value());
        let size = value.len();
        let noreply = self.one(&["", "", " noreply"]);
        let quiet = self.one(&["", " q", " q k Oabc", " Oxyz k"]);
        match self.below(if unique { 27 } else { 23 }) {
            0..3 => format!(
                "set {key} {} 0 {size}{noreply}\r\n{value}\r\n",
                self.below(9)
            ),
            3 => {
                let name = self.one(&["add", "replace", "append", "prepend"]);
                format!("{name} {key} 0 1000 {size}{noreply}\r\n{value}\r\n")
            }
            4..7 => format!("get {}\r\n", self.keys()),
            7 => format!("gat {} {}\r\n", self.one(&["0", "1000", "x"]), self.keys()),
            // Numbers that only grow: whether memcached fills one that has become shorter with blanks depends on who reads it.
            8 => {
                let number = self.below(4);
                match self.below(3) {
                    0 => format!("set n{number} 0 0 1\r\n7\r\n"),
                    _ => format!(
                        "incr n{number} {}{noreply}\r\n",
                        self.one(&["1", "70", "x"])
                    ),
                }
            }
            9 => format!("delete {key}{noreply}\r\n"),
            10 => format!("touch {key} {}{noreply}\r\n", self.one(&["0", "100", "x"])),
            11..13 => format!("mg {key} s v{quiet}\r\n"),
            13 => format!("mg {key} f{quiet}\r\n"),
            14 => {
                let mode = self.one(&["", " ME", " MA", " MR", " MX", " T0", " F7"]);
                format!("ms {key} {size}{mode}{quiet}\r\n{value}\r\n")
            }
            15 => format!("md {key}{quiet}\r\n"),
            16 => {
                let mode = self.one(&[" v", " N0 J7 v", " D3 c", ""]);
                let mode = if unique {
                    mode
                } else {
                    mode.trim_end_matches(" c")
                };
                format!("ma n{}{mode}{quiet}\r\n", self.below(6))
            }
            // The same key, as text and in base64.
            17 => {
                self.one(&["mg a2V5Mw== b v k", "mg key3 v k", "md a2V5Mw== b q"])
                    .to_owned()
                    + "\r\n"
            }
            18 => self
                .one(&["mn\r\n", "mn\r\n", "version\r\n", "verbosity 0\r\n"])
                .to_owned(),
            19 => {
                self.one(&[
                    "get",
                    "gets",
                    "set k 0 0",
                    "nonsense k",
                    "",
                    "incr k",
                    "mg",
                    "mz k",
                    "touch k",
                    "get \0",
                    "mg key1 v v",
                    "mg key2 Z q",
                    "ms key1",
                    "ms key1 S1",
                    "delete key1 7",
                    "verbosity",
                    "me nothing",
                    "mg !! b",
                    "incr key1 noreply",
                ])
                .to_owned()
                    + "\r\n"
            }
            // Too short and too long for what was said, and no number.
            20 => format!("set {key} 0 0 3{noreply}\r\nabcdefg\r\n"),
            21 => format!(
                "set {key} 0 0 {}{noreply}\r\n",
                self.one(&["-1", "x", "2147483647"])
            ),
            22 => match self.below(8) {
                0 => format!("flush_all{noreply}\r\n"),
                1 => format!(
                    "set key5 0 0 1100000{noreply}\r\n{}\r\n",
                    "z".repeat(1_100_000)
                ),
                _ => format!("ms {key} 2 q\r\nabcd\r\n"),
            },
            23 => format!("gets {}\r\n", self.keys()),
            24 => format!("gats 0 {}\r\n", self.keys()),
            25 => format!(
                "cas {key} 1 0 {size} {}{noreply}\r\n{value}\r\n",
                self.below(300)
            ),
            _ => format!("mg {key} c v{quiet}\r\n"),
        }
    }
}

/// What a server says to the same commands; in the end all has been said.
fn said(addr: SocketAddr, commands: &str, piece: usize) -> String {
    let end = "set the-end 7 0 3\r\nend\r\nget the-end\r\n";
    let commands = format!("{commands}{end}");
    let end = "VALUE the-end 7 3\r\nend\r\nEND\r\n";
    Client::connect(addr).exchange(commands.as_bytes(), piece, end)
}

fn check_same(shards: usize, unique: bool, seed: u64) {
    let Some(ground) = Ground::start(shards, &[]) else {
        return;
    };
    let direct = Memcached::start();
    let mut draws = Draws(seed);
    // In parts, so that a difference is found near its cause.
    for part in 0..25 {
        let commands: String = (0..200).map(|_| draws.command(unique)).collect();
        let piece = 1 + draws.below(4000) as usize;
        let expected = said(direct.addr, &commands, 100_000);
        let through = said(ground.listen, &commands, piece);
        if expected != through {
            let same = expected.bytes().zip(through.bytes());
            let at = same.take_while(|(one, other)| one == other).count();
            let near = |text: &str| {
                let bytes = text.as_bytes();
                let part =
                    &bytes[at.saturating_sub(200).min(bytes.len())..(at + 200).min(bytes.len())];
                String::from_utf8_lossy(part).into_owned()
            };
            panic!(
                "part {part}, at byte {at}: {:?}, and through podkit {:?}",
                near(&expected),
                near(&through)
            );
        }
    }
}

#[test]
fn one_shard_says_to_the_byte_what_memcached_says() {
    check_same(1, true, 1);
}

#[test]
fn four_shards_say_what_one_memcached_says() {
    check_same(4, false, 2);
}

#[test]
fn many_servers_look_like_one() {
    let Some(ground) = Ground::start(4, &[]) else {
        return;
    };
    let mut client = ground.client();
    let mut sets = String::new();
    for at in 0..400 {
        write!(sets, "set k{at} 0 0 4 noreply|{at:04}|").unwrap();
    }
    assert_eq!(client.lines(&sets), "ERROR");
    let (mut asked, mut values) = ("get missing".to_owned(), String::new());
    for at in (0..400).rev() {
        write!(asked, " k{at}").unwrap();
        write!(values, "VALUE k{at} 0 4|{at:04}|").unwrap();
    }
    assert_eq!(client.lines(&asked), format!("{values}END"));
    let items = |server: &Memcached| {
        let stats = server.client().lines("stats");
        let line = stats
            .split('|')
            .find(|line| line.starts_with("STAT curr_items "));
        line.unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    let counts: Vec<u32> = ground.servers.iter().map(items).collect();
    assert_eq!(counts.iter().sum::<u32>(), 400);
    assert!(counts.iter().all(|count| *count > 40), "{counts:?}");
    // What is for all, and what is about one.
    assert_eq!(client.lines("flush_all"), "OK");
    assert_eq!(client.lines("get k1 k2 k3"), "END");
    assert_eq!(client.lines("stats reset"), "RESET");
    let stats = client.lines("stats");
    let stat = |name: &str| {
        let mut lines = stats.split('|');
        lines.find_map(|line| line.strip_prefix(&format!("STAT {name} ")))
    };
    assert_eq!(stat("threads"), Some("4"));
    assert_eq!(stat("limit_maxbytes"), Some("268435456"));
    assert_eq!(
        stat("version"),
        client.lines("version").strip_prefix("VERSION ")
    );
    assert_eq!(stat("pointer_size"), Some("64"));
    assert!(
        stats.ends_with("|END") && !stats.contains("END|"),
        "{stats}"
    );
    assert_eq!(
        client.lines("cache_memlimit 64 noreply|verbosity|flush_all 9 noreply|me"),
        "ERROR|CLIENT_ERROR bad command line format"
    );
    let refused = client.lines("stats conns|slabs reassign 1 2|watch|shutdown");
    let expected = "SERVER_ERROR 'stats conns' is about one server, and there are several shards|\
                    SERVER_ERROR 'slabs' is about one server, and there are several shards|\
                    SERVER_ERROR 'watch' can't be done on a connection that is shared|\
                    SERVER_ERROR 'shutdown' can't be done on a connection that is shared";
    assert_eq!(refused, expected);
    assert_eq!(
        ground.module.metric("podkit_shard_refused_total"),
        Some(5.0)
    );
    let page = ground.module.admin("/").text();
    assert!(page.contains("memcached"), "{page}");
    // The ends of connections.
    let end = client.exchange(b"set q 0 0 1\r\nq\r\nget q\r\nquit\r\n", 7, "nothing");
    assert_eq!(end, "STORED\r\nVALUE q 0 1\r\nq\r\nEND\r\n");
    // One that sends no more still gets its replies.
    let mut half = TcpStream::connect(ground.listen).unwrap();
    half.write_all(b"get q\r\nget q w\r\n").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let mut end = String::new();
    half.read_to_string(&mut end).unwrap();
    assert_eq!(end, "VALUE q 0 1\r\nq\r\nEND\r\n".repeat(2));
    let mut binary = ground.client();
    let line = binary.exchange(&[0x80, 0x20, 0, 0], 4, "nothing");
    assert!(
        line.starts_with("CLIENT_ERROR the binary protocol"),
        "{line}"
    );
}

#[test]
fn a_shard_that_is_away_is_the_trouble_of_its_keys_only() {
    let Some(mut ground) = Ground::start(2, &["--response-timeout=2s"]) else {
        return;
    };
    let mut client = ground.client();
    let keys: Vec<String> = (0..20).map(|at| format!("k{at}")).collect();
    for key in &keys {
        assert_eq!(client.lines(&format!("set {key} 0 0 1|v")), "STORED");
    }
    let gone = ground.servers.remove(0);
    let addr = gone.addr;
    drop(gone);
    let mut get = |key: &String| client.lines(&format!("get {key}"));
    let lines: Vec<String> = keys.iter().map(&mut get).collect();
    let away = |line: &&String| {
        line.starts_with("SERVER_ERROR shard s0") && line.contains("can't be reached")
    };
    let lost = lines.iter().filter(away).count();
    let there = lines
        .iter()
        .filter(|line| line.starts_with("VALUE"))
        .count();
    assert!(lost > 0 && there > 0 && lost + there == 20, "{lines:?}");
    // A part that fails makes the whole an error; who says noreply hears nothing. Numbers of half the shards would look like all; a version is asked
    // for to learn whether somebody is there.
    assert!(get(&keys[0]).len() > 3 && client.lines("stats").starts_with("SERVER_ERROR shard s0"));
    assert!(client.lines("version").starts_with("VERSION "));
    let mut get = |key: &String| client.lines(&format!("get {key}"));
    assert!(get(&keys.join(" ")).starts_with("SERVER_ERROR shard s0"));
    let sets: Vec<String> = keys
        .iter()
        .map(|key| format!("set {key} 0 0 1 noreply|v"))
        .collect();
    assert_eq!(client.lines(&sets.join("|")), "");
    ground.servers.insert(0, Memcached::start_on(addr, None));
    let get = |client: &mut Client, key: &String| client.lines(&format!("get {key}"));
    until("it is used again", || {
        let used = |key: &String| !get(&mut client, key).starts_with("SERVER_ERROR");
        keys.iter().all(used).then_some(())
    });
    // One that hangs owes its replies no longer than it may.
    let process = &ground.servers[0].server.process;
    process.signal(rustix::process::Signal::STOP);
    let lines: Vec<String> = keys[..6].iter().map(|key| get(&mut client, key)).collect();
    process.signal(rustix::process::Signal::CONT);
    let late = |line: &String| line.contains("no reply for 2000 ms");
    assert!(lines.iter().any(late), "{lines:?}");
    until("it is used again", || {
        let used = |key: &String| !get(&mut client, key).starts_with("SERVER_ERROR");
        keys.iter().all(used).then_some(())
    });
}

#[test]
fn the_list_of_shards_may_change() {
    if !able(&[Need::Program("memcached")]) {
        return;
    }
    let _turn = Turn::shared();
    let servers = [Memcached::start(), Memcached::start()];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shards");
    replace(&file, &format!("a={}\n", servers[0].addr));
    let listen = free_addr();
    let args = [
        "--protocol=memcached",
        &format!("--listen={listen}"),
        &format!("--shards-file={}", file.display()),
    ];
    let module = Module::start("shard", &args, &[]);
    let mut client = Client::connect(listen);
    assert_eq!(client.lines("set a 0 0 1|1"), "STORED");
    let both = format!("a={}\nb={}\n", servers[0].addr, servers[1].addr);
    replace(&file, &both);
    let changed = "podkit_shard_reloads_total{result=\"changed\"}";
    until("the second is used", || {
        for at in 0..20 {
            assert_eq!(client.lines(&format!("set k{at} 0 0 1|1")), "STORED");
        }
        let there = |at| servers[1].client().lines(&format!("get k{at}")) != "END";
        (0..20).any(there).then_some(())
    });
    assert_eq!(module.metric(changed), Some(1.0));
    // Back, while a client is in the middle of a pipeline.
    replace(&file, &format!("a={}\n", servers[0].addr));
    until("the second is not used any more", || {
        let a = client.lines("get b c d a e f g h");
        assert!(matches!(&*a, "VALUE a 0 1|1|END" | "END"), "{a}");
        (module.metric(changed) == Some(2.0)).then_some(())
    });
    assert_eq!(client.lines("get b a"), "VALUE a 0 1|1|END");
}

#[test]
fn keys_are_where_twemproxy_puts_them() {
    if !able(&[Need::Program("memcached"), Need::Program("nutcracker")]) {
        return;
    }
    let _turn = Turn::shared();
    let servers: Vec<Memcached> = (0..4).map(|_| Memcached::start()).collect();
    let listed: String = servers
        .iter()
        .enumerate()
        .map(|(at, server)| format!("   - {}:{} s{at}\n", server.addr, 1 + at % 2))
        .collect();
    let pools = [
        ("fnv1a_64", "ketama", ""),
        ("murmur", "modula", "\n  hash_tag: \"{}\""),
        ("md5", "ketama", ""),
    ];
    let addrs: Vec<SocketAddr> = pools.iter().map(|_| free_addr()).collect();
    let mut config = String::new();
    for (at, (hash, distribution, tag)) in pools.iter().enumerate() {
        let listen = addrs[at];
        writeln!(
            config,
            "p{at}:\n  listen: {listen}\n  hash: {hash}\n  distribution: {distribution}{tag}\n  servers:\n{listed}"
        )
        .unwrap();
    }
    let dir = directory(None);
    let file = dir.path().join("nutcracker.yml");
    std::fs::write(&file, &config).unwrap();
    let stats = free_addr().port().to_string();
    let found = program("nutcracker").unwrap();
    let mut command = pinned(None, &found);
    let file = file.display().to_string();
    let log = dir.path().join("log");
    command
        .args(["-c", &file, "-a", "127.0.0.1", "-s", &stats, "-o"])
        .arg(&log);
    let _nutcracker = launch("nutcracker", dir, &mut command, addrs[0]);
    for (at, theirs) in addrs.iter().enumerate() {
        let key = |number: usize| match at {
            1 => format!("a{number}{{{}}}", number / 3),
            _ => format!("p{at}:{number}"),
        };
        let listen = free_addr();
        let args = [
            format!("--twemproxy={file}"),
            format!("--twemproxy-pool=p{at}"),
            format!("--listen={listen}"),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let _module = Module::start("shard", &args, &[]);
        let sets: String = (0..10_000)
            .map(|number| format!("set {} 0 0 5\r\n{number:05}\r\n", key(number)))
            .collect();
        let stored = "STORED\r\n".repeat(10_000);
        // The end of the last: as many as were sent.
        let mut client = Client::connect(*theirs);
        let mut replies = 0;
        for part in sets.split_inclusive('\n').collect::<Vec<_>>().chunks(200) {
            let end = "STORED\r\n".repeat(100);
            replies += client.exchange(part.concat().as_bytes(), 65536, &end).len();
        }
        assert_eq!(replies, stored.len());
        let mut ours = Client::connect(listen);
        for begin in (0..10_000).step_by(100) {
            let keys: String = (begin..begin + 100)
                .map(|number| format!(" {}", key(number)))
                .collect();
            let value = |number| format!("VALUE {} 0 5|{number:05}|", key(number));
            let values: String = (begin..begin + 100).map(value).collect();
            assert_eq!(
                ours.lines(&format!("get{keys}")),
                format!("{values}END"),
                "p{at}"
            );
        }
    }
}

#[test]
fn quiet_commands_of_many_clients_do_not_mix() {
    let Some(ground) = Ground::start(2, &[]) else {
        return;
    };
    std::thread::scope(|scope| {
        for client in 0..8 {
            let mut connection = ground.client();
            scope.spawn(move || {
                for round in 0..30 {
                    let mut asked = String::new();
                    for at in 0..40 {
                        write!(
                            asked,
                            "ms c{client}k{at} 4 q|{round:04}|mg c{client}x{at} v q|"
                        )
                        .unwrap();
                        write!(
                            asked,
                            "set c{client}n{at} 0 0 1 noreply|a|mg c{client}k{at} v q O{at}|"
                        )
                        .unwrap();
                    }
                    asked.pop();
                    let expected: Vec<String> =
                        (0..40).map(|at| format!("VA 4 O{at}|{round:04}")).collect();
                    assert_eq!(connection.lines(&asked), expected.join("|"));
                }
            });
        }
    });
}

#[test]
fn a_server_without_meta_commands_never_reads_a_value_as_commands() {
    let _turn = Turn::shared();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let shard = format!("--shard=a={}", server.local_addr().unwrap());
    let (sender, seen) = std::sync::mpsc::channel();
    // As memcached 1.5 does with what it does not know.
    std::thread::spawn(move || {
        let (stream, _) = server.accept().unwrap();
        let mut writes = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            sender.send(line).unwrap();
            writes.write_all(b"ERROR\r\n").unwrap();
        }
    });
    let listen = free_addr();
    let args = [
        "--protocol=memcached",
        &format!("--listen={listen}"),
        &shard,
    ];
    let _module = Module::start("shard", &args, &[]);
    let mut client = Client::connect(listen);
    let said = client.lines("ms k 9|get other|ms k 9 q|get other|mg k v q|mg k v");
    assert_eq!(said, "ERROR|ERROR|ERROR|ERROR");
    let seen: Vec<String> = seen.try_iter().collect();
    assert_eq!(seen, ["mn", "mg k v q", "mn", "mg k v"]);
}

#[test]
fn what_can_not_be_is_one_line() {
    let refused = |args: &[&str], expected: &str| {
        let finished = podkit(args);
        assert_eq!(finished.code, Some(2), "{}", finished.err);
        assert!(finished.err.contains(expected), "{}", finished.err);
    };
    let memcached = ["shard", "--protocol=memcached", "--shard=a=:1"];
    let with = |more| [memcached.as_slice(), &[more]].concat();
    refused(
        &with("--database=1"),
        "means nothing with --protocol memcached",
    );
    refused(&with("--key=path"), "whose commands name keys");
    refused(&with("--spare=x=:2"), "needs --on-failure spare");
    refused(
        &[
            "shard",
            "--protocol=http",
            "--shard=a=:1",
            "--key=path",
            "--on-failure=rehash",
        ],
        "means nothing with --protocol http",
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nutcracker.yml");
    let pool = "p:\n  listen: 127.0.0.1:22121\n  hash: fnv1a_64\n  distribution: ketama\n  servers:\n   - 127.0.0.1:11211:1 a\n";
    std::fs::write(&file, pool).unwrap();
    let file = format!("--twemproxy={}", file.display());
    refused(
        &["shard", "--protocol=redis", &file],
        "the pool p of --twemproxy speaks memcached",
    );
}

#[test]
fn the_hottest_keys_are_named() {
    let Some(ground) = Ground::start(2, &["--hot-keys=3"]) else {
        return;
    };
    let mut client = ground.client();
    until("the hot keys are named", || {
        let mut asked = String::new();
        for at in 0..1000 {
            // In base64 it is `meta`.
            write!(asked, "get cold{at}|get hot other{at}|mg bWV0YQ== b v|").unwrap();
        }
        client.lines(asked.trim_end_matches('|'));
        let page = ground.module.admin("/").text();
        (page.contains("hot") && page.contains("meta")).then_some(())
    });
    let metrics = ground.module.admin("/metrics").text();
    let hot = metrics
        .lines()
        .filter(|line| line.starts_with("podkit_shard_hot_key_rate{"));
    let mut hot: Vec<_> = hot.filter_map(|line| line.split('"').nth(1)).collect();
    hot.sort_unstable();
    assert_eq!(hot, ["hot", "meta"]);
}
