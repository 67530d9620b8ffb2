//! `stats WORD` over several real memcached: what one that had all the keys would say.

use std::fmt::Write as _;

use podkit_testkit::memcached::{Client, Memcached};

use crate::shard_memcached::Ground;

/// Values of many sizes, some of which are asked for.
fn fill(client: &mut Client) {
    let mut lines = String::new();
    for at in 0..200 {
        let value = "x".repeat(at * 7);
        write!(lines, "set k:{at} 0 0 {} noreply|{value}|", value.len()).unwrap();
    }
    for at in 0..60 {
        write!(lines, "mg k:{} q|mg no:{at} q|", at % 200).unwrap();
    }
    write!(lines, "get k:1 k:2 k:3 no:1|delete k:9 noreply|version").unwrap();
    assert!(client.lines(&lines).contains("|VERSION "));
}

/// The lines with one of these in them, in order: that of prefixes is nobody's.
fn some(text: &str, names: &[&str]) -> Vec<String> {
    let has = |line: &&str| names.iter().any(|name| line.contains(name));
    let mut lines: Vec<String> = text.split('|').filter(has).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn four_shards_count_what_one_memcached_counts() {
    let Some(ground) = Ground::start(4, &[]) else {
        return;
    };
    let alone = Memcached::start();
    let (mut through, mut direct) = (ground.client(), alone.client());
    // This one does not say where its reply ends: the connection is not stuck.
    for client in [&mut through, &mut direct] {
        let off = client.lines("stats sizes");
        assert_eq!(off, "STAT sizes_status disabled|END");
        let on = client.lines("stats sizes_enable|stats detail on");
        assert_eq!(on, "STAT sizes_status enabled|OK");
        fill(client);
    }
    let mut both = |command: &str| (through.lines(command), direct.lines(command));
    for (command, names) in [
        (
            "stats items",
            &[":number ", ":mem_requested ", ":evicted "][..],
        ),
        (
            "stats slabs",
            &[
                ":chunk_size ",
                ":chunks_per_page ",
                ":used_chunks ",
                ":get_hits ",
                ":cmd_set ",
                "active_slabs ",
            ],
        ),
        ("stats sizes", &["STAT "]),
        ("stats detail dump", &["PREFIX "]),
        (
            "stats settings",
            &[
                "STAT evictions ",
                "STAT item_size_max ",
                "STAT growth_factor ",
                "STAT inter ",
            ],
        ),
    ] {
        let (through, direct) = both(command);
        assert_eq!(some(&through, names), some(&direct, names), "{command}");
        assert!(some(&direct, names).len() > 1, "{direct}");
    }
    let (settings, of_one) = both("stats settings");
    assert!(settings.contains("STAT maxbytes 268435456|"), "{settings}");
    assert!(!settings.contains("tcpport") && of_one.contains("tcpport"));
    // Which are looked at is memcached's own: those that were not asked for lately.
    let (keys, _) = both("stats cachedump 1 0");
    assert!(some(&keys, &["ITEM k:"]).len() > 2, "{keys}");
    let (keys, _) = both("stats cachedump 1 2");
    assert_eq!(some(&keys, &["ITEM "]).len(), 2);
    // What is set is so everywhere; what names something of one server is refused.
    let told = "lru mode flat|lru_crawler sleep 7|slabs automove 0|lru_crawler sleep x";
    let (said, of_one) = both(told);
    assert_eq!(said, of_one);
    for server in &ground.servers {
        let settings = server.client().lines("stats settings");
        for expected in [
            "slab_automove 0|",
            "lru_crawler_sleep 7|",
            "lru_segmented no|",
        ] {
            assert!(settings.contains(expected), "{settings}");
        }
    }
    for command in ["stats conns", "slabs reassign 1 2", "cache_memlimit 64"] {
        let (refused, _) = both(command);
        assert!(refused.contains("is about one server"), "{refused}");
    }
    let (reset, of_one) = both("stats reset|stats detail off|stats sizes_disable|get k:1 no:1");
    assert_eq!(reset, of_one);
    let (slabs, _) = both("stats slabs");
    let hits = some(&slabs, &[":get_hits "]);
    assert_eq!(
        hits.iter().filter(|line| !line.ends_with(" 0")).count(),
        1,
        "{hits:?}"
    );
}

#[test]
fn one_shard_is_not_held_up_by_a_reply_without_an_end() {
    let Some(ground) = Ground::start(1, &[]) else {
        return;
    };
    let said = ground
        .client()
        .lines("stats sizes_enable|stats sizes_disable|get k");
    assert_eq!(
        said,
        "STAT sizes_status enabled|STAT sizes_status disabled|END"
    );
}
