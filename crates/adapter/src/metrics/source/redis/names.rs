//! The fields of INFO that are metrics as they are: what each is called, and whether it counts.
//!
//! The names are redis_exporter's: 1.45's, and those that newer ones have besides. Sorted by field.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::metrics::batch::Kind;

/// A field's metric.
#[derive(Debug)]
pub(super) struct Named {
    field: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

/// All families of a Redis: those of the fields below, and what the rest of this folder makes; `*` stands for any text.
pub(in crate::metrics::source) fn all() -> Vec<(String, Kind)> {
    let fields = FIELDS
        .iter()
        .map(|named| (named.name.to_owned(), named.kind));
    let others = OTHERS
        .iter()
        .map(|(name, kind)| (format!("redis_{name}"), *kind));
    let own = OWN.iter().map(|name| ((*name).to_owned(), Kind::Gauge));
    fields.chain(others).chain(own).collect()
}

/// The metric of a field.
pub(super) fn find(field: &str) -> Option<&'static Named> {
    static BY_FIELD: LazyLock<HashMap<&str, &Named>> =
        LazyLock::new(|| FIELDS.iter().map(|named| (named.field, named)).collect());
    BY_FIELD.get(field).copied()
}

macro_rules! fields {
    ($($field:ident $kind:ident $name:ident,)*) => {
        &[$(Named {
            field: stringify!($field),
            name: concat!("redis_", stringify!($name)),
            kind: Kind::$kind,
            help: concat!("INFO: ", stringify!($field)),
        }),*]
    };
}

#[rustfmt::skip]
const FIELDS: &[Named] = fields![
    acl_access_denied_auth Counter acl_access_denied_auth_total,
    acl_access_denied_channel Counter acl_access_denied_channel_total,
    acl_access_denied_cmd Counter acl_access_denied_cmd_total,
    acl_access_denied_key Counter acl_access_denied_key_total,
    active_defrag_hits Gauge defrag_hits,
    active_defrag_key_hits Gauge defrag_key_hits,
    active_defrag_key_misses Gauge defrag_key_misses,
    active_defrag_misses Gauge defrag_misses,
    active_defrag_running Gauge active_defrag_running,
    allocator_active Gauge allocator_active_bytes,
    allocator_allocated Gauge allocator_allocated_bytes,
    allocator_frag_bytes Gauge allocator_frag_bytes,
    allocator_frag_ratio Gauge allocator_frag_ratio,
    allocator_muzzy Gauge allocator_muzzy_bytes,
    allocator_resident Gauge allocator_resident_bytes,
    allocator_rss_bytes Gauge allocator_rss_bytes,
    allocator_rss_ratio Gauge allocator_rss_ratio,
    aof_base_size Gauge aof_base_size_bytes,
    aof_buffer_length Gauge aof_buffer_length,
    aof_current_rewrite_time_sec Gauge aof_current_rewrite_duration_sec,
    aof_current_size Gauge aof_current_size_bytes,
    aof_delayed_fsync Gauge aof_delayed_fsync,
    aof_enabled Gauge aof_enabled,
    aof_last_bgrewrite_status Gauge aof_last_bgrewrite_status,
    aof_last_cow_size Gauge aof_last_cow_size_bytes,
    aof_last_rewrite_time_sec Gauge aof_last_rewrite_duration_sec,
    aof_last_write_status Gauge aof_last_write_status,
    aof_pending_bio_fsync Gauge aof_pending_bio_fsync,
    aof_pending_rewrite Gauge aof_pending_rewrite,
    aof_rewrite_buffer_length Gauge aof_rewrite_buffer_length,
    aof_rewrite_in_progress Gauge aof_rewrite_in_progress,
    aof_rewrite_scheduled Gauge aof_rewrite_scheduled,
    async_loading Gauge async_loading,
    blocked_clients Gauge blocked_clients,
    cached_keys Counter cached_keys_total,
    client_biggest_input_buf Gauge client_biggest_input_buf,
    client_longest_output_list Gauge client_longest_output_list,
    client_output_buffer_limit_disconnections Counter client_output_buffer_limit_disconnections_total,
    client_query_buffer_limit_disconnections Counter client_query_buffer_limit_disconnections_total,
    client_recent_max_input_buffer Gauge client_recent_max_input_buffer_bytes,
    client_recent_max_output_buffer Gauge client_recent_max_output_buffer_bytes,
    clients_in_timeout_table Gauge clients_in_timeout_table,
    cluster_stats_messages_received Gauge cluster_messages_received_total,
    cluster_stats_messages_sent Gauge cluster_messages_sent_total,
    configured_hz Gauge configured_hz,
    connected_clients Gauge connected_clients,
    connected_slaves Gauge connected_slaves,
    current_client_thread Gauge current_client_thread,
    current_eviction_exceeded_time Gauge current_eviction_exceeded_time_ms,
    dump_payload_sanitizations Counter dump_payload_sanitizations,
    eventloop_cycles Counter eventloop_cycles_total,
    eventloop_duration_cmd_sum Counter eventloop_duration_cmd_sum_usec_total,
    eventloop_duration_sum Counter eventloop_duration_sum_usec_total,
    evicted_clients Counter evicted_clients_total,
    evicted_keys Counter evicted_keys_total,
    evicted_scripts Counter evicted_scripts_total,
    expire_cycle_cpu_milliseconds Counter expire_cycle_cpu_time_ms_total,
    expired_keys Counter expired_keys_total,
    expired_stale_perc Gauge expired_stale_percentage,
    expired_subkeys Counter expired_subkeys_total,
    expired_time_cap_reached_count Gauge expired_time_cap_reached_total,
    hz Gauge hz,
    instantaneous_eventloop_cycles_per_sec Gauge instantaneous_eventloop_cycles_per_sec,
    instantaneous_eventloop_duration_usec Gauge instantaneous_eventloop_duration_usec,
    io_threaded_reads_processed Counter io_threaded_reads_processed,
    io_threaded_writes_processed Counter io_threaded_writes_processed,
    io_threads_active Gauge io_threads_active,
    keyspace_hits Counter keyspace_hits_total,
    keyspace_misses Counter keyspace_misses_total,
    lazyfree_pending_objects Gauge lazyfree_pending_objects,
    lazyfreed_objects Gauge lazyfreed_objects,
    loading Gauge loading_dump_file,
    long_lock_waits Gauge long_lock_waits_total,
    master_repl_offset Gauge master_repl_offset,
    maxclients Gauge max_clients,
    maxfragmentationmemory_desired_reservation Gauge memory_max_fragmentation_reservation_desired_bytes,
    maxfragmentationmemory_reservation Gauge memory_max_fragmentation_reservation_bytes,
    maxmemory Gauge memory_max_bytes,
    maxmemory_desired_reservation Gauge memory_max_reservation_desired_bytes,
    maxmemory_reservation Gauge memory_max_reservation_bytes,
    mem_aof_buffer Gauge mem_aof_buffer_bytes,
    mem_clients_normal Gauge mem_clients_normal,
    mem_clients_slaves Gauge mem_clients_slaves,
    mem_cluster_links Gauge mem_cluster_links_bytes,
    mem_fragmentation_bytes Gauge mem_fragmentation_bytes,
    mem_fragmentation_ratio Gauge mem_fragmentation_ratio,
    mem_not_counted_for_evict Gauge mem_not_counted_for_eviction_bytes,
    mem_overhead_db_hashtable_rehashing Gauge mem_overhead_db_hashtable_rehashing_bytes,
    mem_replication_backlog Gauge mem_replication_backlog_bytes,
    mem_total_replication_buffers Gauge mem_total_replication_buffers_bytes,
    migrate_cached_sockets Gauge migrate_cached_sockets_total,
    module_fork_in_progress Gauge module_fork_in_progress,
    module_fork_last_cow_size Gauge module_fork_last_cow_size,
    number_of_cached_scripts Gauge number_of_cached_scripts,
    number_of_functions Gauge number_of_functions,
    number_of_libraries Gauge number_of_libraries,
    process_id Gauge process_id,
    pubsub_channels Gauge pubsub_channels,
    pubsub_clients Gauge pubsub_clients,
    pubsub_patterns Gauge pubsub_patterns,
    pubsubshard_channels Gauge pubsubshard_channels,
    rdb_bgsave_in_progress Gauge rdb_bgsave_in_progress,
    rdb_changes_since_last_save Gauge rdb_changes_since_last_save,
    rdb_current_bgsave_time_sec Gauge rdb_current_bgsave_duration_sec,
    rdb_last_bgsave_status Gauge rdb_last_bgsave_status,
    rdb_last_bgsave_time_sec Gauge rdb_last_bgsave_duration_sec,
    rdb_last_cow_size Gauge rdb_last_cow_size_bytes,
    rdb_last_load_keys_expired Gauge rdb_last_load_expired_keys,
    rdb_last_load_keys_loaded Gauge rdb_last_load_loaded_keys,
    rdb_last_save_time Gauge rdb_last_save_timestamp_seconds,
    rdb_saves Gauge rdb_saves_total,
    rejected_connections Counter rejected_connections_total,
    repl_backlog_active Gauge repl_backlog_is_active,
    repl_backlog_first_byte_offset Gauge repl_backlog_first_byte_offset,
    repl_backlog_histlen Gauge repl_backlog_history_bytes,
    repl_backlog_size Gauge replication_backlog_bytes,
    reply_buffer_expands Counter reply_buffer_expands_total,
    reply_buffer_shrinks Counter reply_buffer_shrinks_total,
    second_repl_offset Gauge second_repl_offset,
    server_threads Gauge server_threads_total,
    slave_expires_tracked_keys Gauge slave_expires_tracked_keys,
    slave_priority Gauge slave_priority,
    storage_provider_read_hits Counter storage_provider_read_hits,
    storage_provider_read_misses Counter storage_provider_read_misses,
    sync_full Gauge replica_resyncs_full,
    sync_partial_err Gauge replica_partial_resync_denied,
    sync_partial_ok Gauge replica_partial_resync_accepted,
    total_blocking_keys Gauge total_blocking_keys,
    total_blocking_keys_on_nokey Gauge total_blocking_keys_on_nokey,
    total_commands_processed Counter commands_processed_total,
    total_connections_received Counter connections_received_total,
    total_error_replies Counter total_error_replies,
    total_eviction_exceeded_time Counter eviction_exceeded_time_ms_total,
    total_net_input_bytes Counter net_input_bytes_total,
    total_net_output_bytes Counter net_output_bytes_total,
    total_net_repl_input_bytes Counter net_repl_input_bytes_total,
    total_net_repl_output_bytes Counter net_repl_output_bytes_total,
    total_reads_processed Counter total_reads_processed,
    total_watched_keys Gauge total_watched_keys,
    total_writes_processed Counter total_writes_processed,
    tracking_clients Gauge tracking_clients,
    tracking_total_items Gauge tracking_total_items,
    tracking_total_keys Gauge tracking_total_keys,
    tracking_total_prefixes Gauge tracking_total_prefixes,
    unexpected_error_replies Counter unexpected_error_replies,
    uptime_in_seconds Gauge uptime_in_seconds,
    used_active_time_main_thread Counter active_time_main_thread_seconds_total,
    used_cpu_sys Counter cpu_sys_seconds_total,
    used_cpu_sys_children Counter cpu_sys_children_seconds_total,
    used_cpu_sys_main_thread Counter cpu_sys_main_thread_seconds_total,
    used_cpu_user Counter cpu_user_seconds_total,
    used_cpu_user_children Counter cpu_user_children_seconds_total,
    used_cpu_user_main_thread Counter cpu_user_main_thread_seconds_total,
    used_memory Gauge memory_used_bytes,
    used_memory_dataset Gauge memory_used_dataset_bytes,
    used_memory_functions Gauge memory_used_functions_bytes,
    used_memory_lua Gauge memory_used_lua_bytes,
    used_memory_overhead Gauge memory_used_overhead_bytes,
    used_memory_peak Gauge memory_used_peak_bytes,
    used_memory_rss Gauge memory_used_rss_bytes,
    used_memory_scripts Gauge memory_used_scripts_bytes,
    used_memory_scripts_eval Gauge memory_used_scripts_eval_bytes,
    used_memory_startup Gauge memory_used_startup_bytes,
    used_memory_vm_eval Gauge memory_used_vm_eval_bytes,
    used_memory_vm_functions Gauge memory_used_vm_functions_bytes,
    used_memory_vm_total Gauge memory_used_vm_total,
    watching_clients Gauge watching_clients,
];

/// What no exporter has.
const OWN: [&str; 3] = [
    "podkit_metrics_query_up",
    "podkit_metrics_redis_clients_left_out",
    "podkit_metrics_redis_keys_left_out",
];

#[rustfmt::skip]
const OTHERS: &[(&str, Kind)] = &[
    ("active_time_io_thread_seconds_total", Kind::Counter),
    ("cluster_*", Kind::Gauge),
    ("commandlog_*", Kind::Gauge),
    ("commands_duration_seconds_total", Kind::Counter),
    ("commands_failed_calls_total", Kind::Counter),
    ("commands_latencies_usec", Kind::Histogram),
    ("commands_rejected_calls_total", Kind::Counter),
    ("commands_total", Kind::Counter),
    ("config_*", Kind::Gauge),
    ("connected_client_*", Kind::Gauge),
    ("connected_slave_lag_seconds", Kind::Gauge),
    ("connected_slave_offset_bytes", Kind::Gauge),
    ("db_avg_ttl_seconds", Kind::Gauge),
    ("db_keys", Kind::Gauge),
    ("db_keys_cached", Kind::Gauge),
    ("db_keys_expiring", Kind::Gauge),
    ("errors_total", Kind::Counter),
    ("exporter_last_scrape_connect_time_seconds", Kind::Gauge),
    ("exporter_last_scrape_duration_seconds", Kind::Gauge),
    ("exporter_last_scrape_error", Kind::Gauge),
    ("exporter_scrape_duration_seconds", Kind::Summary),
    ("exporter_scrapes_total", Kind::Counter),
    ("instance_info", Kind::Gauge),
    ("key_memory_usage_bytes", Kind::Gauge),
    ("key_size", Kind::Gauge),
    ("key_value", Kind::Gauge),
    ("key_value_as_string", Kind::Gauge),
    ("keys_count", Kind::Gauge),
    ("last_slow_execution_duration_seconds", Kind::Gauge),
    ("latency_percentiles_usec", Kind::Summary),
    ("latency_spike_duration_seconds", Kind::Gauge),
    ("latency_spike_last", Kind::Gauge),
    ("latest_fork_seconds", Kind::Gauge),
    ("master_last_io_seconds_ago", Kind::Gauge),
    ("master_link_up", Kind::Gauge),
    ("master_sync_in_progress", Kind::Gauge),
    ("sentinel_*", Kind::Gauge),
    ("slave_info", Kind::Gauge),
    ("slave_repl_offset", Kind::Gauge),
    ("slowlog_last_id", Kind::Gauge),
    ("slowlog_length", Kind::Gauge),
    ("start_time_seconds", Kind::Gauge),
    ("stream_*", Kind::Gauge),
    ("up", Kind::Gauge),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_sorted_and_names_are_there_once() {
        assert!(FIELDS.is_sorted_by(|one, other| one.field < other.field));
        let mut names: Vec<&str> = FIELDS.iter().map(|named| named.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
