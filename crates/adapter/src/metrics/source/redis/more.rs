//! What other commands than INFO say: CONFIG, SLOWLOG, LATENCY, COMMANDLOG, CLIENT LIST.

use podkit_dataplane::resp::Value;

use crate::metrics::batch::{Batch, Kind, Line, render};

/// Clients that are shown at most.
pub(super) const MOST_CLIENTS: usize = 10_000;

/// What of CONFIG is asked, besides what COMMANDLOG has.
pub(super) const SETTINGS: [&str; 6] = [
    "databases",
    "io-threads",
    "maxclients",
    "maxmemory",
    "repl-backlog-size",
    "client-output-buffer-limit",
];

/// What of CONFIG is asked of a server with COMMANDLOG.
pub(super) const COMMANDLOG_SETTINGS: [&str; 6] = [
    "commandlog-execution-slower-than",
    "commandlog-slow-execution-max-len",
    "commandlog-request-larger-than",
    "commandlog-large-request-max-len",
    "commandlog-reply-larger-than",
    "commandlog-large-reply-max-len",
];

/// The logs of COMMANDLOG.
pub(super) const COMMANDLOGS: [&str; 3] = ["slow", "large-request", "large-reply"];

/// One setting, of the reply to CONFIG GET: its name and its value.
pub(super) fn config(reply: &Value<'_>, batch: &mut Batch) -> Option<()> {
    let [name, value] = reply.list() else {
        return None;
    };
    let name = std::str::from_utf8(name.text()?).ok()?;
    match name {
        "databases" => {}
        "client-output-buffer-limit" => limits(value, batch)?,
        _ => {
            let mut known = name.replace('-', "_");
            if !known.starts_with("commandlog_") {
                known.insert_str(0, "config_");
            }
            let help = format!("CONFIG: {name}");
            batch.gauge(&format!("redis_{known}"), help, value.number()?);
        }
    }
    Some(())
}

/// How many databases there are, of the reply to CONFIG GET databases.
pub(super) fn databases(reply: &Value<'_>) -> Option<u32> {
    let value = reply.list().get(1)?.text()?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60`.
fn limits(value: &Value<'_>, batch: &mut Batch) -> Option<()> {
    let text = std::str::from_utf8(value.text()?).ok()?;
    let words: Vec<&str> = text.split(' ').collect();
    for of in words.chunks_exact(4) {
        let (class, hard, soft, seconds) = (of[0], of[1], of[2], of[3]);
        let bytes = "redis_config_client_output_buffer_limit_bytes";
        let time = "redis_config_client_output_buffer_limit_overcome_seconds";
        let help = "The configured buffer limits per class";
        let family = batch.family(bytes, Kind::Gauge, help);
        family.put(&[("class", class), ("limit", "hard")], hard.parse().ok()?);
        family.put(&[("class", class), ("limit", "soft")], soft.parse().ok()?);
        let help =
            "How long the soft limit of a class may be exceeded before its client is dropped";
        batch.family(time, Kind::Gauge, help).put(
            &[("class", class), ("limit", "soft")],
            seconds.parse().ok()?,
        );
    }
    Some(())
}

/// The replies to SLOWLOG LEN and SLOWLOG GET 1.
pub(super) fn slow_log(length: &Value<'_>, last: &Value<'_>, batch: &mut Batch) {
    if let Some(length) = length.number() {
        batch.gauge("redis_slowlog_length", "Total slowlog", length);
    }
    let Value::List(entries) = last else {
        return;
    };
    let entry = entries.first().map(Value::list).unwrap_or_default();
    let number = |at: usize| entry.get(at).and_then(Value::number).unwrap_or(0.0);
    batch.gauge("redis_slowlog_last_id", "Last id of slowlog", number(0));
    batch.gauge(
        "redis_last_slow_execution_duration_seconds",
        "The amount of time needed for last slow execution, in seconds",
        number(2) / 1e6,
    );
}

/// The reply to COMMANDLOG LEN of a log.
pub(super) fn command_log(log: &str, length: &Value<'_>, batch: &mut Batch) {
    if let Some(length) = length.number() {
        let name = format!("redis_commandlog_{}_length", log.replace('-', "_"));
        batch.gauge(&name, format!("COMMANDLOG LEN {log}"), length);
    }
}

/// The reply to LATENCY LATEST: events, each with its name, the time and the milliseconds of the last spike, and the most.
pub(super) fn latency_latest(reply: &Value<'_>, batch: &mut Batch) {
    for event in reply.list() {
        let [name, last, millis, ..] = event.list() else {
            continue;
        };
        let (Some(name), Some(last), Some(millis)) = (name.text(), last.number(), millis.number())
        else {
            continue;
        };
        let name = String::from_utf8_lossy(name);
        let labels = [("event_name", &*name)];
        batch
            .family(
                "redis_latency_spike_last",
                Kind::Gauge,
                "When the latency spike last occurred",
            )
            .put(&labels, last);
        batch
            .family(
                "redis_latency_spike_duration_seconds",
                Kind::Gauge,
                "Length of the last latency spike in seconds",
            )
            .put(&labels, millis / 1e3);
    }
}

/// The reply to LATENCY HISTOGRAM: commands, each with `calls` and `histogram_usec`, which has counts by upper bound. `batch` has what
/// INFO said.
pub(super) fn latency_histogram(reply: &Value<'_>, batch: &mut Batch) {
    for pair in reply.list().chunks_exact(2) {
        let (Some(command), Some(calls), Some(buckets)) = (
            pair[0].text(),
            pair[1].field("calls").and_then(Value::number),
            pair[1].field("histogram_usec"),
        ) else {
            continue;
        };
        let command = String::from_utf8_lossy(command);
        let seconds = spent(&command, batch);
        let family = batch.family(
            "redis_commands_latencies_usec",
            Kind::Histogram,
            "A histogram of latencies per command",
        );
        for bucket in buckets.list().chunks_exact(2) {
            if let (Some(bound), Some(count)) = (bucket[0].number(), bucket[1].number()) {
                let labels = [("cmd", &*command), ("le", &bound.to_string())];
                family.put_line(Line::Bucket, &labels, count);
            }
        }
        let labels = [("cmd", &*command)];
        family.put_line(Line::Bucket, &[labels[0], ("le", "+Inf")], calls);
        family.put_line(Line::Sum, &labels, (seconds * 1e6).round());
        family.put_line(Line::Count, &labels, calls);
    }
}

/// Seconds that INFO says were spent in a command, those of its subcommands included.
fn spent(command: &str, batch: &Batch) -> f64 {
    let name = "redis_commands_duration_seconds_total";
    let families = batch.families().iter();
    let Some(family) = families.into_iter().find(|family| &*family.name == name) else {
        return 0.0;
    };
    let whole = render(&[("cmd", command)]);
    let below = format!("{}|", whole.trim_end_matches('"'));
    let of = |labels: &str| labels == whole || labels.starts_with(&below);
    let samples = family.samples.iter().filter(|sample| of(&sample.labels));
    samples.map(|sample| sample.value).sum()
}

/// A number of CLIENT LIST: its key, the metric's name, and its help.
type Count = (&'static str, &'static str, &'static str);

const COUNTS: [Count; 10] = [
    (
        "omem",
        "output_buffer_memory_usage_bytes",
        "Memory that the client's output buffer uses",
    ),
    (
        "tot-mem",
        "total_memory_consumed_bytes",
        "Memory that the client uses",
    ),
    (
        "sub",
        "channel_subscriptions_count",
        "Channels that the client has subscribed to",
    ),
    (
        "psub",
        "pattern_matching_subscriptions_count",
        "Patterns that the client has subscribed to",
    ),
    (
        "qbuf",
        "query_buffer_length_bytes",
        "Bytes in the client's query buffer",
    ),
    (
        "qbuf-free",
        "query_buffer_free_space_bytes",
        "Bytes that are free in the client's query buffer",
    ),
    (
        "obl",
        "output_buffer_length_bytes",
        "Bytes in the client's output buffer",
    ),
    (
        "oll",
        "output_list_length",
        "Replies in the client's output list",
    ),
    (
        "ssub",
        "shard_channel_subscriptions_count",
        "Shard channels that the client has subscribed to",
    ),
    (
        "watch",
        "shard_channel_watched_keys",
        "Keys that the client watches",
    ),
];

/// The reply to CLIENT LIST: a client a line. `now`: seconds since 1970.
pub(super) fn clients(reply: &Value<'_>, now: f64, batch: &mut Batch) {
    let Some(text) = reply.text() else { return };
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().filter(|line| line.starts_with("id="));
    for line in lines.by_ref().take(MOST_CLIENTS) {
        client(line, now, batch);
    }
    let more = lines.count();
    batch.gauge(
        "podkit_metrics_redis_clients_left_out",
        "Clients that are not shown because there are too many",
        u32::try_from(more).map_or(f64::INFINITY, f64::from),
    );
}

/// `id=11 addr=127.0.0.1:63508 fd=8 name= age=6321 idle=6320 flags=N db=0 sub=0 … cmd=setex user=default resp=2`.
fn client(line: &str, now: f64, batch: &mut Batch) {
    let pairs: Vec<(&str, &str)> = line
        .split(' ')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let value = |key: &str| {
        let found = pairs.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| *value)
    };
    let word = |key: &str| value(key).unwrap_or_default();
    let number = |key: &str| value(key)?.parse::<f64>().ok();
    let host = word("addr")
        .rsplit_once(':')
        .map_or(word("addr"), |(host, _)| host);
    let mut labels = vec![
        ("id", word("id")),
        ("name", word("name")),
        ("flags", word("flags")),
        ("db", word("db")),
        ("host", host),
    ];
    for key in ["user", "resp"] {
        labels.extend(
            value(key)
                .filter(|value| !value.is_empty())
                .map(|value| (key, value)),
        );
    }
    let help = "Information about a connected client";
    batch
        .family("redis_connected_client_info", Kind::Gauge, help)
        .put(&labels, 1.0);
    let who = render(&labels[..2]);
    let mut put = |name: &str, help: &'static str, value: f64| {
        let name = format!("redis_connected_client_{name}");
        let family = batch.family(&name, Kind::Gauge, help);
        family.put_rendered(Line::Plain, who.as_str().into(), value);
    };
    for (key, name, help) in COUNTS {
        if let Some(value) = number(key) {
            put(name, help, value);
        }
    }
    for (key, name, help) in [
        ("age", "created_at_timestamp", "When the client connected"),
        (
            "idle",
            "idle_since_timestamp",
            "When the client was last active",
        ),
    ] {
        if let Some(seconds) = number(key) {
            put(name, help, now - seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::source::shown;

    fn after(read: impl FnOnce(&mut Batch)) -> String {
        let mut batch = Batch::default();
        read(&mut batch);
        shown(&batch)
    }

    fn value(reply: &[u8]) -> Value<'_> {
        Value::read(reply).unwrap()
    }

    #[test]
    fn settings() {
        let text = after(|batch| {
            for reply in [
                &b"*2\r\n+databases\r\n+16\r\n"[..],
                b"*2\r\n+io-threads\r\n+4\r\n",
                b"*2\r\n+maxmemory\r\n+100\r\n",
                b"*2\r\n+commandlog-reply-larger-than\r\n+7\r\n",
                b"*2\r\n+client-output-buffer-limit\r\n+normal 0 0 0 slave 9 8 7\r\n",
                b"*0\r\n",
                b"-ERR unknown\r\n",
            ] {
                config(&value(reply), batch);
            }
        });
        assert_eq!(
            text,
            "redis_config_io_threads gauge 4\nredis_config_maxmemory gauge 100\nredis_commandlog_reply_larger_than gauge 7\n\
             redis_config_client_output_buffer_limit_bytes{class=\"normal\",limit=\"hard\"} gauge 0\n\
             redis_config_client_output_buffer_limit_bytes{class=\"normal\",limit=\"soft\"} gauge 0\n\
             redis_config_client_output_buffer_limit_bytes{class=\"slave\",limit=\"hard\"} gauge 9\n\
             redis_config_client_output_buffer_limit_bytes{class=\"slave\",limit=\"soft\"} gauge 8\n\
             redis_config_client_output_buffer_limit_overcome_seconds{class=\"normal\",limit=\"soft\"} gauge 0\n\
             redis_config_client_output_buffer_limit_overcome_seconds{class=\"slave\",limit=\"soft\"} gauge 7\n"
        );
    }

    #[test]
    fn logs_that_are_empty_have_their_metrics() {
        let entry = b"*1\r\n*4\r\n:14\r\n:1309448221\r\n:1500\r\n*1\r\n+ping\r\n";
        let text = after(|batch| slow_log(&value(b":3\r\n"), &value(entry), batch));
        assert_eq!(
            text,
            "redis_slowlog_length gauge 3\nredis_slowlog_last_id gauge 14\nredis_last_slow_execution_duration_seconds gauge 0.0015\n"
        );
        let text = after(|batch| slow_log(&value(b":0\r\n"), &value(b"*0\r\n"), batch));
        assert!(text.ends_with("redis_last_slow_execution_duration_seconds gauge 0\n"));
        let none = value(b"-ERR unknown command\r\n");
        assert_eq!(after(|batch| slow_log(&none, &none, batch)), "");
        let text = after(|batch| command_log("large-reply", &value(b":2\r\n"), batch));
        assert_eq!(text, "redis_commandlog_large_reply_length gauge 2\n");
    }

    #[test]
    fn latencies() {
        let latest = b"*1\r\n*4\r\n+command\r\n:1405067976\r\n:251\r\n:1001\r\n";
        assert_eq!(
            after(|batch| latency_latest(&value(latest), batch)),
            "redis_latency_spike_last{event_name=\"command\"} gauge 1405067976\n\
             redis_latency_spike_duration_seconds{event_name=\"command\"} gauge 0.251\n"
        );
        let histogram =
            b"*2\r\n+config\r\n*4\r\n+calls\r\n:3\r\n+histogram_usec\r\n*4\r\n:1\r\n:2\r\n:4\r\n:3\r\n";
        let text = after(|batch| {
            batch
                .family("redis_commands_duration_seconds_total", Kind::Counter, "")
                .put(&[("cmd", "config|get")], 0.000_003)
                .put(&[("cmd", "config|set")], 0.000_002)
                .put(&[("cmd", "configs")], 1.0);
            latency_histogram(&value(histogram), batch);
        });
        assert!(
            text.ends_with(
                "redis_commands_latencies_usec_bucket{cmd=\"config\",le=\"1\"} histogram 2\n\
                 redis_commands_latencies_usec_bucket{cmd=\"config\",le=\"4\"} histogram 3\n\
                 redis_commands_latencies_usec_bucket{cmd=\"config\",le=\"+Inf\"} histogram 3\n\
                 redis_commands_latencies_usec_sum{cmd=\"config\"} histogram 5\n\
                 redis_commands_latencies_usec_count{cmd=\"config\"} histogram 3\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_client_a_line() {
        let list = "id=11 addr=[::1]:63508 fd=8 name=n age=100 idle=60 flags=N db=2 sub=0 psub=1 qbuf=26 omem=5 cmd=get user=default resp=2\nx\n";
        let reply = format!("${}\r\n{list}\r\n", list.len());
        let text = after(|batch| clients(&value(reply.as_bytes()), 1000.0, batch));
        for line in [
            "redis_connected_client_info{id=\"11\",name=\"n\",flags=\"N\",db=\"2\",host=\"[::1]\",user=\"default\",resp=\"2\"} gauge 1",
            "redis_connected_client_created_at_timestamp{id=\"11\",name=\"n\"} gauge 900",
            "redis_connected_client_idle_since_timestamp{id=\"11\",name=\"n\"} gauge 940",
            "redis_connected_client_pattern_matching_subscriptions_count{id=\"11\",name=\"n\"} gauge 1",
            "redis_connected_client_output_buffer_memory_usage_bytes{id=\"11\",name=\"n\"} gauge 5",
            "podkit_metrics_redis_clients_left_out gauge 0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(!text.contains("total_memory"), "{text}");
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_is_read(parts in proptest::collection::vec("[a-z0-9=: .-]{0,12}", 0..6)) {
            let mut reply = format!("*{}\r\n", parts.len());
            for part in &parts {
                reply += &format!("${}\r\n{part}\r\n", part.len());
            }
            let list = value(reply.as_bytes());
            let text = format!("+id={}\r\n", parts.join(" "));
            let mut batch = Batch::default();
            config(&list, &mut batch);
            slow_log(&list, &list, &mut batch);
            latency_latest(&Value::List(vec![list.clone()]), &mut batch);
            latency_histogram(&list, &mut batch);
            clients(&value(text.as_bytes()), 1.0, &mut batch);
        }
    }
}
