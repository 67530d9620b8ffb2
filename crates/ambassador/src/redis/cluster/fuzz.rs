//! What nodes say of the cluster, and of where a slot is.

use podkit_foundation::fuzz::Target;
use podkit_foundation::params::{Addr, ParamType as _};

use super::said::{Turn, host, nodes, turn};
use crate::shard::place::slots::SLOTS;

pub(in crate::redis) const TARGET: Target = Target {
    name: "redis-cluster",
    seeds: &[
        b"$98\r\nid 127.0.0.1:1@2,h,shard-id=x myself,master - 0 0 7 connected 0-99 101 [5-<-id]\nj :0@0 noaddr - 0 0 1 -\r\n",
        b"$48\r\nid ::1:1@2 slave,fail? id 0 0 7 disconnected\r\n",
        b"-MOVED 16383 ::1:7000\r\n",
        b"-ASK 0 :7000\r\n",
        b"-CLUSTERDOWN Hash slot not served\r\n",
    ],
    run: |bytes| {
        let asked = Addr::parse("127.0.0.1:7000").expect("it is an address");
        for node in nodes(bytes, &asked).unwrap_or_default() {
            assert_eq!(Addr::parse(&node.addr.to_string()), Ok(node.addr.clone()));
            host(&node.addr);
            for (first, last) in node.slots {
                assert!(first <= last && usize::from(last) < SLOTS);
            }
        }
        if let Some(Turn::Moved(slot, _)) = turn(bytes, &asked) {
            assert!(usize::from(slot) < SLOTS);
        }
    },
};
