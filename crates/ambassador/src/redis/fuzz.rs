//! Targets of the fuzzer: what servers and Sentinels say of who is who.

use podkit_dataplane::resp::Value;
use podkit_foundation::fuzz::Target;
use podkit_foundation::params::{Addr, ParamType as _};

use super::cluster::fuzz::TARGET as CLUSTER;
use super::roles::Said;
use super::{held, sentinel};

/// All of the module.
pub(crate) const TARGETS: [Target; 3] = [CLUSTER, ROLES, SENTINEL];

const ROLES: Target = Target {
    name: "redis-roles",
    seeds: &[
        b"$99\r\n# Replication\r\nrole:master\r\nmaster_replid:a\r\nmaster_replid2:b\r\nmaster_repl_offset:18446744073709551615\r\n",
        b"role:slave\r\nmaster_host:::1\r\nmaster_port:1\r\nmaster_link_status:up\r\nslave_repl_offset:-1\r\n",
        b"-READONLY x\r\n",
    ],
    run: |bytes| {
        held::verdict(bytes);
        drop(Said::parse(bytes));
    },
};

const SENTINEL: Target = Target {
    name: "redis-sentinel",
    seeds: &[
        b"*2\r\n$2\r\n::\r\n$4\r\n6379\r\n",
        b"*8\r\n$5\r\nflags\r\n$6\r\nmaster\r\n$2\r\nip\r\n$1\r\nh\r\n$4\r\nport\r\n$1\r\n1\r\n$12\r\nconfig-epoch\r\n$1\r\n7\r\n",
        b"*1\r\n%2\r\n$2\r\nip\r\n$1\r\nh\r\n$4\r\nport\r\n$1\r\n1\r\n",
    ],
    run: |bytes| {
        // Only what is one whole reply comes here.
        if Value::read(bytes).is_none() {
            return;
        }
        let mut all: Vec<Addr> = sentinel::primary(bytes).into_iter().collect();
        all.extend(sentinel::master(bytes).map(|(_, _, addr)| addr));
        all.extend(sentinel::replicas(bytes).unwrap_or_default());
        for addr in all {
            assert_eq!(Addr::parse(&addr.to_string()), Ok(addr));
        }
    },
};
