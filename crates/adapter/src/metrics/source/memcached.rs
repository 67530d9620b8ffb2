//! memcached, by the names of prometheus' memcached_exporter.

use std::collections::BTreeMap;

use super::{Ground, Planned, Spec};
use crate::client::memcached::Memcached;
use crate::metrics::batch::{Batch, Kind};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};

/// What is asked, in one write.
const COMMANDS: [&str; 4] = ["stats", "stats settings", "stats slabs", "stats items"];

pub(super) fn plan(spec: &Spec, ground: &Ground) -> Result<Vec<Planned>, String> {
    if !matches!(spec.path.as_str(), "" | "/") {
        return Err(format!("a memcached has no {}", spec.path));
    }
    let client = Memcached::new(ground.pool(spec)?);
    Ok(vec![Planned::always(Source { client })])
}

struct Source {
    client: Memcached,
}

impl Collector for Source {
    fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a> {
        Box::pin(async {
            let answers = self.client.ask(&COMMANDS, || answered.yes()).await?;
            let [stats, settings, slabs, items] = answers.as_slice() else {
                return Err("did not answer everything".to_owned());
            };
            if !stats.starts_with("STAT ") {
                return Err(format!("answered {} to stats", stats.trim()));
            }
            Ok(read(stats, settings, slabs, items))
        })
    }

    fn status(&self, went: &Went) -> Batch {
        let mut batch = Batch::default();
        let help = "Could the memcached server be reached";
        batch.gauge("memcached_up", help, went.up());
        batch
    }
}

/// A stat's metric: the stat, the metric's name without what all begin with, its kind.
type Named = (&'static str, &'static str, Kind);

#[rustfmt::skip]
const STATS: &[Named] = &[
    ("uptime", "uptime_seconds", Kind::Counter),
    ("time", "time_seconds", Kind::Gauge),
    ("rusage_user", "process_user_cpu_seconds_total", Kind::Counter),
    ("rusage_system", "process_system_cpu_seconds_total", Kind::Counter),
    ("bytes_read", "read_bytes_total", Kind::Counter),
    ("bytes_written", "written_bytes_total", Kind::Counter),
    ("curr_connections", "current_connections", Kind::Gauge),
    ("total_connections", "connections_total", Kind::Counter),
    ("rejected_connections", "connections_rejected_total", Kind::Counter),
    ("conn_yields", "connections_yielded_total", Kind::Counter),
    ("listen_disabled_num", "connections_listener_disabled_total", Kind::Counter),
    ("accepting_conns", "accepting_connections", Kind::Gauge),
    ("bytes", "current_bytes", Kind::Gauge),
    ("limit_maxbytes", "limit_bytes", Kind::Gauge),
    ("curr_items", "current_items", Kind::Gauge),
    ("total_items", "items_total", Kind::Counter),
    ("evictions", "items_evicted_total", Kind::Counter),
    ("reclaimed", "items_reclaimed_total", Kind::Counter),
    ("store_too_large", "item_too_large_total", Kind::Counter),
    ("store_no_memory", "item_no_memory_total", Kind::Counter),
    ("direct_reclaims", "direct_reclaims_total", Kind::Counter),
    ("lru_crawler_starts", "lru_crawler_starts_total", Kind::Counter),
    ("crawler_items_checked", "lru_crawler_items_checked_total", Kind::Counter),
    ("crawler_reclaimed", "lru_crawler_reclaimed_total", Kind::Counter),
    ("moves_to_cold", "lru_crawler_moves_to_cold_total", Kind::Counter),
    ("moves_to_warm", "lru_crawler_moves_to_warm_total", Kind::Counter),
    ("moves_within_lru", "lru_crawler_moves_within_lru_total", Kind::Counter),
    // With -o ext_path.
    ("extstore_compact_lost", "extstore_compact_lost_total", Kind::Counter),
    ("extstore_compact_rescues", "extstore_compact_rescued_total", Kind::Counter),
    ("extstore_compact_skipped", "extstore_compact_skipped_total", Kind::Counter),
    ("extstore_page_allocs", "extstore_pages_allocated_total", Kind::Counter),
    ("extstore_page_evictions", "extstore_pages_evicted_total", Kind::Counter),
    ("extstore_page_reclaims", "extstore_pages_reclaimed_total", Kind::Counter),
    ("extstore_pages_free", "extstore_pages_free", Kind::Gauge),
    ("extstore_pages_used", "extstore_pages_used", Kind::Gauge),
    ("extstore_objects_evicted", "extstore_objects_evicted_total", Kind::Counter),
    ("extstore_objects_read", "extstore_objects_read_total", Kind::Counter),
    ("extstore_objects_written", "extstore_objects_written_total", Kind::Counter),
    ("extstore_objects_used", "extstore_objects_used", Kind::Gauge),
    ("extstore_bytes_evicted", "extstore_bytes_evicted_total", Kind::Counter),
    ("extstore_bytes_written", "extstore_bytes_written_total", Kind::Counter),
    ("extstore_bytes_read", "extstore_bytes_read_total", Kind::Counter),
    ("extstore_bytes_used", "extstore_bytes_used", Kind::Gauge),
    ("extstore_bytes_fragmented", "extstore_bytes_fragmented", Kind::Gauge),
    ("extstore_limit_maxbytes", "extstore_bytes_limit", Kind::Gauge),
    ("extstore_io_queue", "extstore_io_queue_depth", Kind::Gauge),
];

/// Of a memcached that is a proxy, which says how many backends it has.
#[rustfmt::skip]
const PROXY: &[Named] = &[
    ("proxy_conn_requests", "proxy_conn_requests_total", Kind::Counter),
    ("proxy_conn_errors", "proxy_conn_errors_total", Kind::Counter),
    ("proxy_conn_oom", "proxy_conn_oom_total", Kind::Counter),
    ("proxy_req_active", "proxy_req_active", Kind::Gauge),
    ("proxy_config_reloads", "proxy_config_reloads_total", Kind::Counter),
    ("proxy_config_reload_fails", "proxy_config_reload_fails_total", Kind::Counter),
    ("proxy_config_cron_runs", "proxy_config_cron_runs_total", Kind::Counter),
    ("proxy_config_cron_fails", "proxy_config_cron_fails_total", Kind::Counter),
    ("proxy_backend_total", "proxy_backend_total", Kind::Gauge),
    ("proxy_backend_marked_bad", "proxy_backend_marked_bad_total", Kind::Counter),
    ("proxy_backend_failed", "proxy_backend_failed", Kind::Gauge),
    ("proxy_request_failed_depth", "proxy_request_failed_depth_total", Kind::Counter),
    ("round_robin_fallback", "round_robin_fallback_total", Kind::Counter),
    ("unexpected_napi_ids", "unexpected_napi_ids_total", Kind::Counter),
];

/// Of the settings, when there is a crawler; `yes` is 1.
const CRAWLER: &[Named] = &[
    ("lru_crawler", "lru_crawler_enabled", Kind::Gauge),
    ("lru_crawler_sleep", "lru_crawler_sleep", Kind::Gauge),
    ("lru_crawler_tocrawl", "lru_crawler_to_crawl", Kind::Gauge),
    (
        "lru_maintainer_thread",
        "lru_crawler_maintainer_thread",
        Kind::Gauge,
    ),
    ("hot_lru_pct", "lru_crawler_hot_percent", Kind::Gauge),
    ("warm_lru_pct", "lru_crawler_warm_percent", Kind::Gauge),
    ("hot_max_factor", "lru_crawler_hot_max_factor", Kind::Gauge),
    (
        "warm_max_factor",
        "lru_crawler_warm_max_factor",
        Kind::Gauge,
    ),
];

/// Of a slab class, in either answer.
#[rustfmt::skip]
const SLAB: &[Named] = &[
    ("number", "slab_current_items", Kind::Gauge),
    ("age", "slab_items_age_seconds", Kind::Gauge),
    ("crawler_reclaimed", "slab_items_crawler_reclaimed_total", Kind::Counter),
    ("evicted", "slab_items_evicted_total", Kind::Counter),
    ("evicted_nonzero", "slab_items_evicted_nonzero_total", Kind::Counter),
    ("evicted_time", "slab_items_evicted_time_seconds", Kind::Gauge),
    ("evicted_unfetched", "slab_items_evicted_unfetched_total", Kind::Counter),
    ("expired_unfetched", "slab_items_expired_unfetched_total", Kind::Counter),
    ("outofmemory", "slab_items_outofmemory_total", Kind::Counter),
    ("reclaimed", "slab_items_reclaimed_total", Kind::Counter),
    ("tailrepairs", "slab_items_tailrepairs_total", Kind::Counter),
    ("moves_to_cold", "slab_items_moves_to_cold", Kind::Counter),
    ("moves_to_warm", "slab_items_moves_to_warm", Kind::Counter),
    ("moves_within_lru", "slab_items_moves_within_lru", Kind::Counter),
    ("number_hot", "slab_hot_items", Kind::Gauge),
    ("number_warm", "slab_warm_items", Kind::Gauge),
    ("number_cold", "slab_cold_items", Kind::Gauge),
    ("number_temp", "slab_temporary_items", Kind::Gauge),
    ("age_hot", "slab_hot_age_seconds", Kind::Gauge),
    ("age_warm", "slab_warm_age_seconds", Kind::Gauge),
    ("chunk_size", "slab_chunk_size_bytes", Kind::Gauge),
    ("chunks_per_page", "slab_chunks_per_page", Kind::Gauge),
    ("total_pages", "slab_current_pages", Kind::Gauge),
    ("total_chunks", "slab_current_chunks", Kind::Gauge),
    ("used_chunks", "slab_chunks_used", Kind::Gauge),
    ("free_chunks", "slab_chunks_free", Kind::Gauge),
    ("free_chunks_end", "slab_chunks_free_end", Kind::Gauge),
    ("mem_requested", "slab_mem_requested_bytes", Kind::Gauge),
];

/// Commands of which hits, and where it is the server's own count, misses are told.
const COUNTED: [&str; 6] = ["get", "delete", "incr", "decr", "cas", "touch"];

/// All that [`read`] and the status can make.
pub(super) fn names() -> Vec<(String, Kind)> {
    let others: &[Named] = &[
        ("", "up", Kind::Gauge),
        ("", "version", Kind::Gauge),
        ("", "malloced_bytes", Kind::Gauge),
        ("", "max_connections", Kind::Gauge),
        ("", "commands_total", Kind::Counter),
        ("", "slab_commands_total", Kind::Counter),
        ("", "slab_lru_hits_total", Kind::Counter),
    ];
    let all = [STATS, PROXY, CRAWLER, SLAB, others].into_iter().flatten();
    all.map(|(_, name, kind)| (format!("memcached_{name}"), *kind))
        .collect()
}

/// Names and values.
type Stats<'a> = BTreeMap<&'a str, &'a str>;

/// `STAT NAME VALUE`.
fn stats(answer: &str) -> impl Iterator<Item = (&str, &str)> {
    answer
        .lines()
        .filter_map(|line| line.strip_prefix("STAT ")?.split_once(' '))
}

/// By slab class: `STAT 1:chunk_size 96`, `STAT items:1:number 1`.
fn by_class(answer: &str) -> BTreeMap<u32, Stats<'_>> {
    let mut classes: BTreeMap<u32, Stats<'_>> = BTreeMap::new();
    for (name, value) in stats(answer) {
        let name = name.strip_prefix("items:").unwrap_or(name);
        let Some((class, name)) = name.split_once(':') else {
            continue;
        };
        if let Ok(class) = class.parse() {
            classes.entry(class).or_default().insert(name, value);
        }
    }
    classes
}

fn number(stats: &Stats<'_>, name: &str) -> Option<f64> {
    match *stats.get(name)? {
        "yes" => Some(1.0),
        "no" => Some(0.0),
        number => number.parse().ok(),
    }
}

fn read(general: &str, settings: &str, slabs: &str, items: &str) -> Batch {
    let mut batch = Batch::default();
    let (mut general, settings) = (
        stats(general).collect::<Stats<'_>>(),
        stats(settings).collect::<Stats<'_>>(),
    );
    let version = general.get("version").copied().unwrap_or_default();
    let help = "The version of this memcached server";
    batch
        .family("memcached_version", Kind::Gauge, help)
        .put(&[("version", version)], 1.0);
    put_all(STATS, &general, &[], &mut batch);
    if general.contains_key("proxy_backend_total") {
        put_all(PROXY, &general, &[], &mut batch);
    }
    general.extend(stats(slabs).filter(|(name, _)| !name.contains(':')));
    let malloced = ("total_malloced", "malloced_bytes", Kind::Gauge);
    put_all(&[malloced], &general, &[], &mut batch);
    let connections = ("maxconns", "max_connections", Kind::Gauge);
    put_all(&[connections], &settings, &[], &mut batch);
    if settings.get("lru_crawler") == Some(&"yes") {
        put_all(CRAWLER, &settings, &[], &mut batch);
    }
    put_commands("memcached_commands_total", &general, None, &mut batch);
    let slabs = by_class(slabs);
    for (class, stats) in &slabs {
        let class = class.to_string();
        let name = "memcached_slab_commands_total";
        put_commands(name, stats, Some(&class), &mut batch);
        put_all(SLAB, stats, &[("slab", &class)], &mut batch);
    }
    for (class, stats) in by_class(items) {
        let class = class.to_string();
        put_all(SLAB, &stats, &[("slab", &class)], &mut batch);
        for (stat, lru) in [
            ("hits_to_hot", "hot"),
            ("hits_to_warm", "warm"),
            ("hits_to_cold", "cold"),
            ("hits_to_temp", "temporary"),
        ] {
            if let Some(hits) = number(&stats, stat) {
                let help = "Hits by the LRU that the item was in";
                batch
                    .family("memcached_slab_lru_hits_total", Kind::Counter, help)
                    .put(&[("slab", &class), ("lru", lru)], hits);
            }
        }
    }
    batch
}

/// Those that are there.
fn put_all(known: &[Named], stats: &Stats<'_>, labels: &[(&str, &str)], batch: &mut Batch) {
    for (stat, name, kind) in known {
        if let Some(value) = number(stats, stat) {
            let name = format!("memcached_{name}");
            let help = format!("stats: {stat}");
            batch.family(&name, *kind, help).put(labels, value);
        }
    }
}

/// Commands and how they went; of a slab class, or of the whole server.
fn put_commands(name: &str, stats: &Stats<'_>, class: Option<&str>, batch: &mut Batch) {
    let help = "Requests by command and status";
    let family = batch.family(name, Kind::Counter, help);
    let mut put = |command: &str, status: &str, value: Option<f64>| {
        let mut labels: Vec<(&str, &str)> = class.iter().map(|class| ("slab", *class)).collect();
        labels.extend([("command", command), ("status", status)]);
        if let Some(value) = value {
            family.put(&labels, value);
        }
    };
    for command in COUNTED {
        put(command, "hit", number(stats, &format!("{command}_hits")));
        put(command, "miss", number(stats, &format!("{command}_misses")));
    }
    put("cas", "badval", number(stats, "cas_badval"));
    put("flush", "hit", number(stats, "cmd_flush"));
    // What cas did is in the count of set too.
    let mut cas = ["cas_hits", "cas_badval"]
        .map(|stat| number(stats, stat))
        .to_vec();
    if class.is_none() {
        cas.push(number(stats, "cas_misses"));
    }
    let set = number(stats, "cmd_set").zip(cas.into_iter().sum::<Option<f64>>());
    put("set", "hit", set.map(|(set, cas)| set - cas));
}

/// No bytes upset it.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) const FUZZ: podkit_foundation::fuzz::Target = podkit_foundation::fuzz::Target {
    name: "metrics-memcached",
    seeds: &[
        b"STAT version 1.6.18\nSTAT uptime 9\nSTAT cmd_get 7\nSTAT get_hits 5\nSTAT proxy_backend_total 1\nSTAT maxbytes 67108864\n",
        b"STAT 1:chunk_size 96\nSTAT 1:get_hits 1\nSTAT active_slabs 1\nSTAT items:1:number 2\nSTAT items:1:age 18446744073709551615\n",
    ],
    run: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        crate::metrics::fuzz::check_page(&read(&text, &text, &text, &text));
    },
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::source::shown;

    #[track_caller]
    fn check(answers: [&str; 4], expected: &[&str], absent: &[&str]) {
        let [general, settings, slabs, items] = answers;
        let text = shown(&read(general, settings, slabs, items));
        for line in expected {
            assert!(text.lines().any(|one| one == *line), "{line}\n{text}");
        }
        for name in absent {
            assert!(!text.contains(name), "{name}\n{text}");
        }
    }

    #[test]
    fn stats_and_settings() {
        check(
            [
                "STAT version 1.6.18\nSTAT uptime 3\nSTAT rusage_user 0.026656\nSTAT cmd_set 10\nSTAT get_hits 2\nSTAT get_misses 1\n\
                 STAT cas_misses 1\nSTAT cas_hits 2\nSTAT cas_badval 3\nSTAT cmd_flush 4\nSTAT round_robin_fallback 0\n",
                "STAT maxconns 1024\nSTAT lru_crawler yes\nSTAT lru_maintainer_thread no\nSTAT hot_max_factor 0.20\n",
                "STAT active_slabs 1\nSTAT total_malloced 67108864\n",
                "",
            ],
            &[
                "memcached_version{version=\"1.6.18\"} gauge 1",
                "memcached_uptime_seconds counter 3",
                "memcached_process_user_cpu_seconds_total counter 0.026656",
                "memcached_commands_total{command=\"get\",status=\"hit\"} counter 2",
                "memcached_commands_total{command=\"get\",status=\"miss\"} counter 1",
                "memcached_commands_total{command=\"cas\",status=\"badval\"} counter 3",
                "memcached_commands_total{command=\"set\",status=\"hit\"} counter 4",
                "memcached_commands_total{command=\"flush\",status=\"hit\"} counter 4",
                "memcached_max_connections gauge 1024",
                "memcached_lru_crawler_enabled gauge 1",
                "memcached_lru_crawler_maintainer_thread gauge 0",
                "memcached_lru_crawler_hot_max_factor gauge 0.2",
                "memcached_malloced_bytes gauge 67108864",
            ],
            &["round_robin", "slab", "touch"],
        );
        check(
            [
                "STAT proxy_backend_total 2\nSTAT round_robin_fallback 1\n",
                "STAT lru_crawler no\nSTAT lru_crawler_sleep 100\n",
                "ERROR\n",
                "ERROR\n",
            ],
            &[
                "memcached_proxy_backend_total gauge 2",
                "memcached_round_robin_fallback_total counter 1",
            ],
            &["lru_crawler"],
        );
    }

    #[test]
    fn slab_classes() {
        check(
            [
                "",
                "",
                "STAT 1:chunk_size 96\nSTAT 1:cmd_set 5\nSTAT 1:cas_hits 1\nSTAT 1:cas_badval 1\nSTAT 1:get_hits 7\n",
                "STAT items:1:number 3\nSTAT items:1:age_warm 9\nSTAT items:1:mem_requested 61\nSTAT items:1:hits_to_temp 4\n",
            ],
            &[
                "memcached_slab_chunk_size_bytes{slab=\"1\"} gauge 96",
                "memcached_slab_commands_total{slab=\"1\",command=\"set\",status=\"hit\"} counter 3",
                "memcached_slab_commands_total{slab=\"1\",command=\"get\",status=\"hit\"} counter 7",
                "memcached_slab_current_items{slab=\"1\"} gauge 3",
                "memcached_slab_warm_age_seconds{slab=\"1\"} gauge 9",
                "memcached_slab_mem_requested_bytes{slab=\"1\"} gauge 61",
                "memcached_slab_lru_hits_total{slab=\"1\",lru=\"temporary\"} counter 4",
            ],
            &["flush", "miss"],
        );
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_is_read(lines in proptest::collection::vec("(STAT )?(items:)?[0-9]{0,3}:?(cmd_set|cas_hits|[a-z_]{0,9}) [ -~]{0,8}", 0..6)) {
            let text = lines.join("\n");
            drop(read(&text, &text, &text, &text));
        }
    }
}
