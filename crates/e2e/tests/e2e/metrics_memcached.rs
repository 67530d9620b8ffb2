//! `podkit metrics` with a real memcached.

use podkit_testkit::memcached::Memcached;
use podkit_testkit::{Need, Turn, able};
use rustix::process::Signal;

use crate::metrics_redis::{QUICK, Scrape, comes_up, metrics, within_a_second};

/// The families that memcached_exporter 0.16 has of a memcached 1.6 with items in it, `memcached_` left out; `c`: it counts.
const FAMILIES: &str = "up uptime_seconds/c time_seconds version process_user_cpu_seconds_total/c process_system_cpu_seconds_total/c \
    read_bytes_total/c written_bytes_total/c current_connections max_connections connections_total/c connections_rejected_total/c \
    connections_yielded_total/c connections_listener_disabled_total/c current_bytes limit_bytes commands_total/c current_items \
    items_total/c items_evicted_total/c items_reclaimed_total/c item_too_large_total/c item_no_memory_total/c \
    lru_crawler_enabled lru_crawler_sleep lru_crawler_to_crawl lru_crawler_maintainer_thread lru_crawler_hot_percent \
    lru_crawler_warm_percent lru_crawler_hot_max_factor lru_crawler_warm_max_factor lru_crawler_starts_total/c \
    lru_crawler_reclaimed_total/c lru_crawler_items_checked_total/c lru_crawler_moves_to_cold_total/c \
    lru_crawler_moves_to_warm_total/c lru_crawler_moves_within_lru_total/c direct_reclaims_total/c malloced_bytes \
    slab_current_items slab_items_age_seconds slab_items_crawler_reclaimed_total/c slab_items_evicted_total/c \
    slab_items_evicted_nonzero_total/c slab_items_evicted_time_seconds slab_items_evicted_unfetched_total/c \
    slab_items_expired_unfetched_total/c slab_items_outofmemory_total/c slab_items_reclaimed_total/c \
    slab_items_tailrepairs_total/c slab_items_moves_to_cold/c slab_items_moves_to_warm/c slab_items_moves_within_lru/c \
    slab_hot_items slab_warm_items slab_cold_items slab_hot_age_seconds slab_warm_age_seconds slab_lru_hits_total/c \
    slab_chunk_size_bytes slab_chunks_per_page slab_current_pages slab_current_chunks slab_chunks_used slab_chunks_free \
    slab_chunks_free_end slab_mem_requested_bytes slab_commands_total/c accepting_connections";

#[test]
fn what_memcached_says_and_one_that_hangs() {
    if !able(&[Need::Program("memcached")]) {
        return;
    }
    let _turn = Turn::shared();
    let server = Memcached::start();
    server.client().lines("set a 0 0 1|1|get a|get b|incr a 1");
    let (_module, ours) = metrics(&[format!("memcached://{}", server.addr)], &[QUICK]);
    let scrape = comes_up(ours, "memcached_up");
    for family in FAMILIES.split_ascii_whitespace() {
        let (name, kind) = match family.strip_suffix("/c") {
            Some(name) => (name, "counter"),
            None => (family, "gauge"),
        };
        let found = scrape.kinds.get(&format!("memcached_{name}"));
        assert_eq!(found.map(String::as_str), Some(kind), "{name}");
    }
    let families = FAMILIES.split_ascii_whitespace().count();
    let of_it = scrape
        .kinds
        .keys()
        .filter(|name| name.starts_with("memcached_"));
    assert_eq!(of_it.count(), families, "{:?}", scrape.kinds);
    for (series, value) in [
        ("memcached_up", 1.0),
        ("memcached_current_items", 1.0),
        (
            "memcached_commands_total{command=\"get\",status=\"hit\"}",
            1.0,
        ),
        (
            "memcached_commands_total{command=\"get\",status=\"miss\"}",
            1.0,
        ),
        (
            "memcached_commands_total{command=\"incr\",status=\"hit\"}",
            1.0,
        ),
        (
            "memcached_commands_total{command=\"set\",status=\"hit\"}",
            1.0,
        ),
        (
            "memcached_slab_commands_total{command=\"get\",slab=\"1\",status=\"hit\"}",
            1.0,
        ),
    ] {
        assert_eq!(scrape.value(series), Some(value), "{series}");
    }
    // The connection is kept.
    let connections = "memcached_connections_total";
    let before = scrape.value(connections);
    assert_eq!(Scrape::of(ours).value(connections), before);

    server.server.process.signal(Signal::STOP);
    let scrape = within_a_second(|| Scrape::of(ours));
    assert_eq!(scrape.value("memcached_up"), Some(0.0));
    assert_eq!(scrape.value("memcached_current_items"), Some(1.0));
    server.server.process.signal(Signal::CONT);
    comes_up(ours, "memcached_up");
}
