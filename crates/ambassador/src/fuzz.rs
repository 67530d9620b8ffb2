//! Targets of the fuzzer.

use podkit_foundation::fuzz::Target;

use crate::shard::place::nutcracker;
use crate::{redis, shard};

/// All of this crate.
pub fn targets() -> Vec<Target> {
    let mut all = vec![NUTCRACKER, SHARDS];
    all.extend(redis::fuzz::TARGETS);
    all
}

const SHARDS: Target = Target {
    name: "shards-file",
    seeds: &[
        b"# ours\na=127.0.0.1:1\nb=unix:/s;weight=3 # x\n",
        b"c=rediss://[::1]:2;server-name=h;weight=10000\n",
    ],
    run: |bytes| shard::read_again(&String::from_utf8_lossy(bytes)),
};

const NUTCRACKER: Target = Target {
    name: "nutcracker-yml",
    seeds: &[
        b"a:\n  listen: 127.0.0.1:22121\n  hash: murmur\n  hash_tag: \"{}\"\n  distribution: ketama\n  redis: true\n  redis_db: 1\n  redis_auth: x\n  auto_eject_hosts: true\n  server_failure_limit: 3\n  server_retry_timeout: 2000\n  servers:\n   - 127.0.0.1:6379:1 one\n   - /tmp/s:2\n",
        b"b:\n  listen: /tmp/x 0666\n  hash: crc32a\n  distribution: modula\n  timeout: 400\n  servers:\n   - h:1:10\n",
    ],
    run: |bytes| {
        let (pools, findings) = nutcracker::parse("file", &String::from_utf8_lossy(bytes));
        if findings.has_errors() {
            return;
        }
        for pool in pools {
            let ring = pool.ring().expect("the pool was checked");
            for key in [&b""[..], b"a", b"{b}c", bytes] {
                assert!(ring.place(key) < pool.servers.len());
            }
        }
    },
};

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn no_bytes_upset_a_parser(
            noise in proptest::collection::vec(any::<u8>(), 0..100),
            at: usize,
        ) {
            for target in super::targets() {
                target.run_near(&noise, at);
            }
        }
    }

    #[test]
    fn the_seeds_are_files_that_are_taken() {
        for seed in super::NUTCRACKER.seeds {
            let text = String::from_utf8_lossy(seed);
            let (pools, findings) = crate::shard::place::nutcracker::parse("file", &text);
            assert!(pools.len() == 1 && !findings.has_errors(), "{findings}");
        }
    }
}
