//! The real program, run as people run it, against real servers, with a look at what is left afterwards.
//!
//! One test program, so that there is one thing to link. A test that needs what the machine lacks says so and passes; `cargo xtask test`
//! counts it as skipped. Pods run in a network namespace of their test's own: the ports that examples fix are free there.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test program fail the test"
)]

mod abuse;
mod agent;
mod agent_nginx;
mod balance;
mod chain;
mod chain_example;
mod check;
mod compose_tls;
mod config;
mod config_faults;
mod contract;
mod detached;
mod docker;
mod docs;
mod downgrade;
mod dynamic_config;
mod etcd;
mod faults;
mod git_ssh;
mod git_sync;
mod git_sync_faults;
mod ground;
mod health;
mod host_nginx;
mod images;
mod legacy_web;
mod lifecycle;
mod limit;
mod limit_peers;
mod metrics_memcached;
mod metrics_pages;
mod metrics_redis;
mod metrics_sql;
mod metrics_statsd;
mod metrics_tools;
mod mysql_health_example;
mod node_paas;
mod openmetrics;
mod probes;
mod progress;
mod protection;
mod proxies;
mod push_to_deploy;
mod pushed;
mod raw;
mod redis;
mod redis_access;
mod redis_cluster;
mod redis_cluster_clients;
mod redis_example;
mod redis_failover;
mod redis_messages;
mod redis_metrics_example;
mod redis_tracking;
mod registries;
mod reloads;
mod rootless;
mod runtime;
mod schema;
mod sessions;
mod shard;
mod shard_clients;
mod shard_example;
mod shard_failure;
mod shard_http;
mod shard_memcached;
mod shard_memcached_stats;
mod shard_sleep;
mod statsd_example;
mod takeover;
mod topz;
mod unpacked;
mod watch;
