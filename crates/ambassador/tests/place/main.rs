//! Placement against those who do it for real: nutcracker, with servers behind it that say who they are, and Redis' own slots.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

mod servers;
mod verdicts;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use podkit_ambassador::shard::place::nutcracker::{self, Pool};
use podkit_ambassador::shard::place::{Distribution, HashFunction, Ring, Shard};
use podkit_dataplane::upstream::pick::mix;
use podkit_foundation::params::{Addr, ParamType};
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::launch;
use podkit_testkit::process::Process;
use podkit_testkit::{Need, able, program, until};
use tempfile::TempDir;

const KEYS: u64 = 100_000;

/// A nutcracker in front of servers.
struct Proxy {
    pools: Vec<Pool>,
    process: Process,
    _dir: TempDir,
}

impl Proxy {
    /// With these pools, each the lines that say more than where it listens; `dir` has what the servers need.
    fn start(dir: TempDir, pools: &[String]) -> Self {
        let at = |file: &str| dir.path().join(file).display().to_string();
        let mut text = String::new();
        for (number, lines) in pools.iter().enumerate() {
            let socket = at(&format!("{number}.sock"));
            text += &format!("pool{number}:\n  listen: {socket}\n{lines}");
        }
        let config = at("nutcracker.yml");
        std::fs::write(&config, &text).unwrap();
        let (pools, findings) = nutcracker::parse("nutcracker.yml", &text);
        assert!(!findings.has_errors(), "{findings}\n{text}");
        let mut command = Command::new(program("nutcracker").unwrap());
        command.args(["-c", &config, "-o", &at("log"), "-p", &at("pid")]);
        let stats = free_addr().port().to_string();
        command.args(["-a", "127.0.0.1", "-s", &stats]);
        let (process, log) = (Process::spawn("nutcracker", &mut command), at("log"));
        let proxy = Self {
            pools,
            process,
            _dir: dir,
        };
        until("nutcracker listens", || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(!proxy.process.has_ended(), "{log}\n{text}");
            UnixStream::connect(proxy.path(proxy.pools.len() - 1)).ok()
        });
        proxy
    }

    fn path(&self, pool: usize) -> &Path {
        match &self.pools[pool].listen {
            Addr::Unix(path) => path,
            other => panic!("{other} is no path"),
        }
    }

    /// The servers that have the keys, as their letters, in order.
    fn ask(&self, pool: usize, keys: &[Vec<u8>]) -> Vec<String> {
        let stream = UnixStream::connect(self.path(pool)).unwrap();
        let mut answers = BufReader::new(&stream);
        let is_redis = self.pools[pool].redis;
        let lines = if is_redis { 2 } else { 3 };
        let mut found = Vec::new();
        for some in keys.chunks(1000) {
            let get = |key: &Vec<u8>| match is_redis {
                true => servers::redis_get(key),
                false => servers::memcached_get(key),
            };
            let requests: Vec<u8> = some.iter().flat_map(get).collect();
            (&stream).write_all(&requests).unwrap();
            for _ in some {
                let said: Vec<String> = (0..lines)
                    .map(|_| {
                        let mut line = String::new();
                        answers.read_line(&mut line).unwrap();
                        line
                    })
                    .collect();
                found.push(said[1].trim_end().to_owned());
            }
        }
        found
    }

    /// All keys are where the ring says, on so many servers.
    fn agrees(&self, pool: usize, ring: &Ring, keys: &[Vec<u8>], servers: usize) {
        let found = self.ask(pool, keys);
        let expected = keys.iter().map(|key| letter(ring.place(key)).to_string());
        let differ = found.iter().zip(expected).zip(keys);
        let wrong: Vec<_> = differ.filter(|((one, other), _)| *one != other).collect();
        let said = &self.pools[pool];
        let (count, first) = (wrong.len(), wrong.first());
        assert!(count == 0, "{said:?}: {count} keys, such as {first:?}");
        // Where one server has all keys nothing is proved, but that nutcracker does so too: crc32 has 15 of the ring's 32 bits, so that
        // a second one is rare.
        let used: BTreeSet<&String> = found.iter().collect();
        let expected = match (said.function, said.distribution) {
            (HashFunction::Crc32, Distribution::Ketama) => 1..=2,
            _ => servers..=servers,
        };
        assert!(expected.contains(&used.len()), "{said:?}");
    }
}

/// A server's letter, by its place in the list.
fn letter(at: usize) -> char {
    char::from(b'a' + at as u8)
}

/// Always the same keys: texts with tags and without, any bytes, short and long ones.
fn keys() -> Vec<Vec<u8>> {
    let bytes = |seed: u64, length: u64| -> Vec<u8> {
        (0..length).map(|at| mix(mix(seed) + at) as u8).collect()
    };
    let key = |number: u64| {
        let draw = mix(number);
        match number % 4 {
            0 => bytes(draw, draw % 40 + 1),
            1 => bytes(draw, draw % 300 + 1),
            2 => format!("user:{draw}").into_bytes(),
            _ => format!("user:{{{}}}:$${draw}$", draw % 1_000_000).into_bytes(),
        }
    };
    (0..KEYS).map(key).collect()
}

/// Keys that memcached may have.
fn texts() -> Vec<Vec<u8>> {
    let key = |number: u64| format!("user:{}", mix(number)).into_bytes();
    (0..KEYS).map(key).collect()
}

/// Lines of a pool.
fn pool(hash: &str, distribution: &str, rest: &str, servers: &[String]) -> String {
    let servers: String = servers.iter().map(|one| format!("   - {one}\n")).collect();
    format!("  hash: {hash}\n  distribution: {distribution}\n{rest}  servers:\n{servers}")
}

/// Servers on the loopback, as a pool has them with these weights and names.
fn listed(rest: &[&str]) -> Vec<String> {
    let start = |(at, rest): (usize, &&str)| {
        let port = servers::tcp("127.0.0.1:0", letter(at));
        format!("127.0.0.1:{port}:{rest}")
    };
    rest.iter().enumerate().map(start).collect()
}

/// Two pools for each hash function, of the distributions that depend on it.
fn every_pool(servers: &[String], rest: impl Fn(usize) -> String) -> Vec<String> {
    let functions = HashFunction::CHOICES.iter().enumerate();
    let pools = functions.flat_map(|(number, hash)| {
        let rest = rest(number);
        ["ketama", "modula"].map(|distribution| pool(hash, distribution, &rest, servers))
    });
    pools.collect()
}

fn all_agree(proxy: &Proxy) {
    let keys = keys();
    for (number, pool) in proxy.pools.iter().enumerate() {
        proxy.agrees(number, &pool.ring().unwrap(), &keys, pool.servers.len());
    }
}

#[test]
fn nutcracker_places_keys_so_by_every_function() {
    if !able(&[Need::Program("nutcracker")]) {
        return;
    }
    let servers = listed(&["1"; 5]);
    let mut pools = every_pool(&servers, |_| "  redis: true\n".into());
    // So many servers that rounding takes four points from each.
    pools.push(pool(
        "crc32a",
        "ketama",
        "  redis: true\n",
        &listed(&["1"; 25]),
    ));
    all_agree(&Proxy::start(tempfile::tempdir().unwrap(), &pools));
}

#[test]
fn nutcracker_places_keys_so_with_weights_names_and_tags() {
    if !able(&[Need::Program("nutcracker")]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut servers = listed(&["3 zebra", "1 b", "17 aardvark"]);
    let socket = dir.path().join("server");
    servers::unix(&socket, letter(servers.len()));
    servers.push(format!("{}:2", socket.display()));
    // memcached's own port, on an address of the loopback that nobody else has.
    let id = std::process::id();
    let host = format!("127.{}.{}.7", id >> 8 & 0x7f | 0x80, id & 0xff);
    servers::tcp(&format!("{host}:11211"), letter(servers.len()));
    servers.push(format!("{host}:11211:4"));
    let pools = every_pool(&servers, |number| {
        let tag = ["{}", "$$", ":{"][number % 3];
        format!("  redis: true\n  hash_tag: \"{tag}\"\n")
    });
    all_agree(&Proxy::start(dir, &pools));
}

#[test]
fn nutcracker_places_memcacheds_keys_so() {
    if !able(&[Need::Program("nutcracker")]) {
        return;
    }
    let servers = listed(&["1", "2", "1"]);
    let pools = [pool("fnv1a_64", "ketama", "", &servers)];
    let proxy = Proxy::start(tempfile::tempdir().unwrap(), &pools);
    let ring = proxy.pools[0].ring().unwrap();
    proxy.agrees(0, &ring, &texts(), servers.len());
}

#[test]
fn random_takes_no_notice_of_weights_in_nutcracker_either() {
    if !able(&[Need::Program("nutcracker")]) {
        return;
    }
    let servers = listed(&["1", "20", "3", "1"]);
    let pools = [pool("md5", "random", "", &servers)];
    let proxy = Proxy::start(tempfile::tempdir().unwrap(), &pools);
    let ring = proxy.pools[0].ring().unwrap();
    let keys = texts();
    let theirs = proxy.ask(0, &keys);
    let ours = keys.iter().map(|key| letter(ring.place(key)).to_string());
    for found in [theirs, ours.collect()] {
        for at in 0..servers.len() {
            let letter = letter(at).to_string();
            let count = found.iter().filter(|one| **one == letter).count();
            // Five standard deviations of a fair draw.
            assert!(count.abs_diff(25_000) < 700, "{letter}: {count}");
        }
    }
}

#[test]
fn nutcracker_places_keys_so_without_a_server_that_it_ejected() {
    if !able(&[Need::Program("nutcracker")]) {
        return;
    }
    let mut servers = listed(&["2", "1", "3"]);
    servers.push(format!("{}:2 away", free_addr()));
    let rest = "  redis: true\n  auto_eject_hosts: true\n  server_failure_limit: 1\n  server_retry_timeout: 3600000\n";
    let pools = ["ketama", "modula"].map(|name| pool("murmur", name, rest, &servers));
    let proxy = Proxy::start(tempfile::tempdir().unwrap(), &pools);
    let keys = keys();
    for (number, pool) in proxy.pools.iter().enumerate() {
        let ring = pool.ring().unwrap();
        let lost = keys.iter().find(|key| ring.place(key) == 3).unwrap();
        let mut stream = UnixStream::connect(proxy.path(number)).unwrap();
        stream.write_all(&servers::redis_get(lost)).unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with('-'), "{answer}");
        let mut shards: Vec<Shard> = pool.servers.iter().map(|one| one.shard.clone()).collect();
        shards[3].weight = 0;
        let rest = Ring::new(pool.distribution, Some(pool.function), pool.tag, &shards);
        proxy.agrees(number, &rest.unwrap(), &keys, 3);
    }
}

#[test]
fn redis_gives_keys_these_slots() {
    if !able(&[Need::Program("redis-server")]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (addr, bus) = (free_addr(), free_addr());
    let mut command = Command::new(program("redis-server").unwrap());
    command.arg("--dir").arg(dir.path()).args(["--save", ""]);
    command.args(["--bind", "127.0.0.1", "--cluster-enabled", "yes"]);
    command.args(["--port", &addr.port().to_string()]);
    command.args(["--cluster-port", &bus.port().to_string()]);
    let _server = launch("redis-server", dir, &mut command, addr);
    // As many shards as can be: four slots each.
    let shard = |number: u32| Shard {
        name: number.to_string(),
        weight: 1,
    };
    let shards: Vec<Shard> = (0..4096).map(shard).collect();
    let ring = Ring::new(Distribution::Crc16, None, None, &shards).unwrap();
    let stream = TcpStream::connect(addr).unwrap();
    let mut answers = BufReader::new(&stream);
    for some in keys().chunks(1000) {
        let ask = |key: &Vec<u8>| {
            let head = format!("*3\r\n$7\r\nCLUSTER\r\n$7\r\nKEYSLOT\r\n${}\r\n", key.len());
            [head.as_bytes(), key, b"\r\n"].concat()
        };
        let requests: Vec<u8> = some.iter().flat_map(ask).collect();
        (&stream).write_all(&requests).unwrap();
        for key in some {
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            let slot: usize = line.trim_end().trim_start_matches(':').parse().unwrap();
            assert_eq!(ring.place(key), slot / 4, "{key:?}");
        }
    }
}
