use proptest::prelude::*;

use super::*;
use crate::metrics::source::shown;

fn text_of(info: &str, databases: Option<u32>) -> (String, Facts) {
    let mut batch = Batch::default();
    let facts = read(info, 1000.0, databases, &mut batch);
    (shown(&batch), facts)
}

#[track_caller]
fn check(info: &str, expected: &str) {
    let (text, _) = text_of(info, Some(1));
    for line in expected.lines().map(str::trim) {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
}

#[test]
fn fields_are_metrics_by_name() {
    check(
        "# Server\r\nuptime_in_seconds:10\r\nhz:10\r\n# Clients\r\nconnected_clients:3\r\nmaxclients:7\r\n",
        "redis_start_time_seconds gauge 990
         redis_uptime_in_seconds gauge 10
         redis_hz gauge 10
         redis_connected_clients gauge 3
         redis_max_clients gauge 7",
    );
    check(
        "# Persistence\nrdb_last_bgsave_status:ok\naof_last_write_status:err\n# Stats\n\
         total_commands_processed:5\nlatest_fork_usec:250\nmem_fragmentation_ratio:nan\nused_active_time_io_thread_3:0.5\n",
        "redis_rdb_last_bgsave_status gauge 1
         redis_aof_last_write_status gauge 0
         redis_commands_processed_total counter 5
         redis_latest_fork_seconds gauge 0.00025
         redis_mem_fragmentation_ratio gauge NaN
         redis_active_time_io_thread_seconds_total{thread=\"3\"} counter 0.5",
    );
    let (text, facts) = text_of("# Server\nos:x\nunknown:1\nused_memory:much\n", Some(1));
    assert!(
        !text.contains("unknown") && !text.contains("memory_used"),
        "{text}"
    );
    assert_eq!(facts, Facts::default());
}

#[test]
fn commands_errors_and_latencies() {
    check(
        "# Commandstats\ncmdstat_get:calls=21,usec=175,usec_per_call=8.33,rejected_calls=1,failed_calls=2\n\
         cmdstat_config|get:calls=2,usec=4,usec_per_call=2.00\n\
         # Errorstats\nerrorstat_ERR:count=4\n\
         # Latencystats\nlatency_percentiles_usec_get:p50=0.001,p99=1.003,p99.9=4.015\nlatency_percentiles_usec_x:p50=1\n",
        "redis_commands_total{cmd=\"get\"} counter 21
         redis_commands_duration_seconds_total{cmd=\"get\"} counter 0.000175
         redis_commands_rejected_calls_total{cmd=\"get\"} counter 1
         redis_commands_failed_calls_total{cmd=\"get\"} counter 2
         redis_commands_total{cmd=\"config|get\"} counter 2
         redis_errors_total{err=\"ERR\"} counter 4
         redis_latency_percentiles_usec{cmd=\"get\",quantile=\"50\"} summary 0.001
         redis_latency_percentiles_usec{cmd=\"get\",quantile=\"99.9\"} summary 4.015
         redis_latency_percentiles_usec_sum{cmd=\"get\"} summary 175
         redis_latency_percentiles_usec_count{cmd=\"get\"} summary 21",
    );
}

#[test]
fn databases_that_are_empty_are_there() {
    let (text, _) = text_of(
        "# Keyspace\ndb1:keys=3,expires=1,avg_ttl=2500,subexpiry=0\n",
        Some(3),
    );
    for line in [
        "redis_db_keys{db=\"db1\"} gauge 3",
        "redis_db_keys_expiring{db=\"db1\"} gauge 1",
        "redis_db_avg_ttl_seconds{db=\"db1\"} gauge 2.5",
        "redis_db_keys{db=\"db0\"} gauge 0",
        "redis_db_keys{db=\"db2\"} gauge 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    assert!(!text.contains("db3") && !text.contains("cached"), "{text}");
    let count = |databases, info| text_of(info, databases).0.matches("redis_db_keys{").count();
    assert_eq!(count(None, ""), 16);
    assert_eq!(count(Some(4), "# Cluster\ncluster_enabled:1\n"), 1);
}

#[test]
fn replication_of_both_sides() {
    check(
        "# Replication\nrole:master\nconnected_slaves:1\nslave0:ip=10.0.0.2,port=6379,state=online,offset=17,lag=1\n\
         slave_expires_tracked_keys:0\nmaster_repl_offset:20\n",
        "redis_connected_slaves gauge 1
         redis_connected_slave_offset_bytes{slave_ip=\"10.0.0.2\",slave_port=\"6379\",slave_state=\"online\"} gauge 17
         redis_connected_slave_lag_seconds{slave_ip=\"10.0.0.2\",slave_port=\"6379\",slave_state=\"online\"} gauge 1
         redis_slave_expires_tracked_keys gauge 0
         redis_master_repl_offset gauge 20",
    );
    check(
        "# Replication\nrole:slave\nmaster_host:h\nmaster_port:1\nmaster_link_status:up\nmaster_last_io_seconds_ago:2\n\
         master_sync_in_progress:0\nslave_repl_offset:5\nslave_read_only:1\nmaster_1_host:k\nmaster_1_port:2\n\
         master_1_link_status:down\n",
        "redis_master_link_up{master_host=\"h\",master_port=\"1\"} gauge 1
         redis_master_last_io_seconds_ago{master_host=\"h\",master_port=\"1\"} gauge 2
         redis_master_sync_in_progress{master_host=\"h\",master_port=\"1\"} gauge 0
         redis_slave_repl_offset{master_host=\"h\",master_port=\"1\"} gauge 5
         redis_master_link_up{master_host=\"k\",master_port=\"2\"} gauge 0
         redis_slave_info{master_host=\"h\",master_port=\"1\",read_only=\"1\"} gauge 1",
    );
}

#[test]
fn sentinels_and_clusters() {
    check(
        "# Sentinel\nsentinel_masters:1\nsentinel_tilt:0\nmaster0:name=m,status=odown,address=1.2.3.4:5,slaves=2,sentinels=3\n",
        "redis_sentinel_masters gauge 1
         redis_sentinel_tilt gauge 0
         redis_sentinel_master_status{master_name=\"m\",master_address=\"1.2.3.4:5\",master_status=\"odown\"} gauge 0
         redis_sentinel_master_slaves{master_name=\"m\",master_address=\"1.2.3.4:5\"} gauge 2
         redis_sentinel_master_sentinels{master_name=\"m\",master_address=\"1.2.3.4:5\"} gauge 3",
    );
    assert!(text_of("# Sentinel\n", None).1.sentinel);
    let mut batch = Batch::default();
    read_cluster(
        "cluster_state:ok\r\ncluster_slots_fail:2\r\ncluster_stats_messages_sent:9\r\n",
        &mut batch,
    );
    assert_eq!(
        shown(&batch),
        "redis_cluster_state gauge 1\nredis_cluster_slots_fail gauge 2\nredis_cluster_messages_sent_total gauge 9\n"
    );
    for (version, has) in [
        ("8.1.0", true),
        ("9.0", true),
        ("8.0.3", false),
        ("x", false),
    ] {
        assert_eq!(has_commandlog(version), has, "{version}");
    }
}

proptest! {
    #[test]
    fn whatever_a_server_says_is_read(
        section in "(Server|Replication|Commandstats|Latencystats|Errorstats|Keyspace|Sentinel|Stats)",
        field in "(cmdstat_|latency_percentiles_usec_|errorstat_|db|slave|master|master_)?[a-z0-9_]{0,12}",
        value in "([a-z0-9.]{0,6}[=,]?){0,6}|[ -~]{0,20}",
    ) {
        let info = format!("# {section}\r\n{field}:{value}\r\n");
        drop(text_of(&info, Some(2)));
        read_cluster(&info, &mut Batch::default());
    }
}
