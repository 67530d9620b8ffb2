//! Targets of the fuzzer.

use podkit_foundation::fuzz::Target;

use crate::client::{mysql, postgres};
use crate::metrics::{self, read_queries};

/// All of this crate.
pub fn targets() -> Vec<Target> {
    let mut targets = metrics::fuzz_targets();
    targets.extend([MYSQL, POSTGRES, QUERIES]);
    targets
}

const MYSQL: Target = Target {
    name: "mysql-server",
    seeds: &[
        b"\x0a5.5.5-10.11.6-MariaDB\0\x01\0\0\0abcdefgh\0\xfe\xf7\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\x0f\0\0\0ijklmnopqrst\0mysql_native_password\0",
        b"\x03def\0\0\0\x04name\0\x0c\x2d\0\xff\0\0\0\xfd\0\0\0\0\0",
        b"\xff\x15\x04#28000Access denied",
        b"\x03abc\xfb\xfc\x01\0d",
    ],
    run: mysql::read_all,
};

const POSTGRES: Target = Target {
    name: "postgres-server",
    seeds: &[
        b"\0\x01name\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
        b"\0\x02\0\0\0\x01a\xff\xff\xff\xff",
        b"SFATAL\0VFATAL\0C28P01\0Mno such user\0\0",
    ],
    run: postgres::read_all,
};

const QUERIES: Target = Target {
    name: "queries-yaml",
    seeds: &[
        b"a:\n  query: SELECT 1\n  cache_seconds: 3\n  runonserver: '>=10 <13 || 9.6'\n  metrics:\n    - x: {usage: GAUGE, description: y}\n",
        b"b:\n  name: c\n  query: q\n  timeout: 2s\n  metrics:\n    - w: {usage: MAPPEDMETRIC, metric_mapping: {a: 1}}\n",
    ],
    run: |bytes| read_queries(&String::from_utf8_lossy(bytes)),
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_upset_a_parser(noise in prop::collection::vec(any::<u8>(), 0..64), at in any::<usize>()) {
            for target in super::targets() {
                target.run_near(&noise, at);
            }
        }
    }
}
