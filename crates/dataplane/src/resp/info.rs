//! INFO of several servers: what is counted is added, and what is a server's own is the first one's.
//!
//! What is the same number once more (`used_memory_human`) and averages (`avg_ttl`) are left out where they would not be right any more.

use std::collections::BTreeMap;

use super::scan::{put_bulk, text};

/// What is counted (<https://redis.io/docs/latest/commands/info/>), by name.
const COUNTED: [&str; 34] = [
    "acl_access_denied_auth",
    "acl_access_denied_cmd",
    "blocked_clients",
    "clients_in_timeout_table",
    "connected_clients",
    "evicted_clients",
    "evicted_keys",
    "expired_keys",
    "expired_time_cap_reached_count",
    "instantaneous_ops_per_sec",
    "keyspace_hits",
    "keyspace_misses",
    "lazyfree_pending_objects",
    "lazyfreed_objects",
    "maxclients",
    "maxmemory",
    "pubsub_channels",
    "pubsub_clients",
    "pubsub_patterns",
    "pubsubshard_channels",
    "rdb_changes_since_last_save",
    "rejected_connections",
    "total_commands_processed",
    "total_connections_received",
    "total_error_replies",
    "total_net_input_bytes",
    "total_net_output_bytes",
    "total_reads_processed",
    "total_writes_processed",
    "tracking_clients",
    "unexpected_error_replies",
    "used_memory",
    "used_memory_dataset",
    "used_memory_rss",
];

/// What is so (1) when it is so of one.
const FLAGS: [&str; 4] = [
    "aof_rewrite_in_progress",
    "aof_rewrite_scheduled",
    "loading",
    "rdb_bgsave_in_progress",
];

/// Lines of several counts: `db0:keys=1,expires=0`.
const TABLES: [&str; 3] = ["db", "cmdstat_", "errorstat_"];

/// The numbers of a line, by their names; the line itself where it has one only.
type Numbers<'a> = Vec<(&'a str, u64)>;

/// The counts of a line; None: it is a server's own.
fn counts<'a>(name: &str, value: &'a str) -> Option<Numbers<'a>> {
    if FLAGS.contains(&name) || COUNTED.binary_search(&name).is_ok() {
        return Some(vec![("", value.parse().ok()?)]);
    }
    let is_table = TABLES.iter().any(|start| name.starts_with(start));
    if !is_table || !value.contains('=') {
        return None;
    }
    let fields = value.split(',').filter_map(|field| field.split_once('='));
    let whole = fields.filter(|(field, _)| *field != "avg_ttl");
    Some(
        whole
            .filter_map(|(field, number)| Some((field, number.parse().ok()?)))
            .collect(),
    )
}

/// It says a number of these once more.
fn is_shown(name: &str) -> bool {
    let number = name.strip_suffix("_human");
    number.is_some_and(|number| COUNTED.binary_search(&number).is_ok())
}

/// One reply of those of all; who has an error is left out, unless all have. None: one is no text.
pub(super) fn info(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let is_error = |part: &[u8]| matches!(part.first(), Some(b'-' | b'!'));
    if parts.iter().all(|part| is_error(part)) {
        return parts.first().map(|part| part.to_vec());
    }
    let parts = parts.iter().filter(|part| !is_error(part));
    let texts: Option<Vec<&str>> = parts
        .map(|part| std::str::from_utf8(text(part)?).ok())
        .collect();
    let texts = texts?;
    // What all have together, and where each line is to stand: behind the one that was before it.
    let mut sums: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut lines: Vec<&str> = texts.first()?.lines().collect();
    for (at, whole) in texts.iter().enumerate() {
        let mut before = None;
        for line in whole.lines() {
            let Some((name, value)) = line.split_once(':') else {
                before = lines.iter().position(|one| *one == line).or(before);
                continue;
            };
            let Some(numbers) = counts(name, value) else {
                continue;
            };
            let known = lines
                .iter()
                .position(|one| one.split_once(':').is_some_and(|(other, _)| other == name));
            if known.is_none() && at > 0 {
                let place = before.map_or(lines.len(), |before: usize| before + 1);
                lines.insert(place, line);
            }
            before = known.or(before.map(|before| before + 1));
            let sum = sums.entry(name).or_default();
            for (field, number) in numbers {
                let all = sum.entry(field).or_default();
                *all = match FLAGS.contains(&name) {
                    true => number.max(*all),
                    false => all.saturating_add(number),
                };
            }
        }
    }
    let mut out = String::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match sums.get(name) {
            _ if is_shown(name) => continue,
            None => out.push_str(line),
            Some(sum) => {
                // In the order of the line.
                let order = counts(name, value).unwrap_or_default();
                let field = |(field, _): &(&str, u64)| match *field {
                    "" => sum[field].to_string(),
                    field => format!("{field}={}", sum[field]),
                };
                let fields: Vec<String> = order.iter().map(field).collect();
                out.push_str(&format!("{name}:{}", fields.join(",")));
            }
        }
        out.push_str("\r\n");
    }
    let mut reply = Vec::new();
    put_bulk(&mut reply, out.as_bytes());
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &[&str], expected: &str) {
        let replies: Vec<Vec<u8>> = parts
            .iter()
            .map(|part| {
                let mut reply = Vec::new();
                put_bulk(&mut reply, part.replace('\n', "\r\n").as_bytes());
                reply
            })
            .collect();
        let replies: Vec<&[u8]> = replies.iter().map(Vec::as_slice).collect();
        let whole = info(&replies).unwrap();
        let whole = String::from_utf8_lossy(text(&whole).unwrap()).replace("\r\n", "\n");
        assert_eq!(whole, expected);
    }

    #[test]
    fn what_is_counted_is_added() {
        assert!(COUNTED.is_sorted());
        check(
            &[
                "# Server\nrun_id:a\n\n# Clients\nblocked_clients:2\nloading:1\n\n# Memory\nused_memory:10\nused_memory_human:10B\n",
                "# Server\nrun_id:b\n\n# Clients\nblocked_clients:1\nloading:1\n\n# Memory\nused_memory:5\nused_memory_human:5B\n",
            ],
            "# Server\nrun_id:a\n\n# Clients\nblocked_clients:3\nloading:1\n\n# Memory\nused_memory:15\n",
        );
    }

    #[test]
    fn databases_that_one_has_are_everybodys() {
        let nobody = info(&[b"-ERR a\r\n", b"-ERR b\r\n"]).unwrap();
        assert_eq!(nobody, b"-ERR a\r\n");
        let verbatim = b"=19\r\ntxt:keyspace_hits:7\r\n";
        let whole = info(&[b"-ERR gone\r\n", verbatim, verbatim]).unwrap();
        assert_eq!(whole, b"$18\r\nkeyspace_hits:14\r\n\r\n");
        check(
            &[
                "# Keyspace\ndb0:keys=2,expires=1,avg_ttl=77\n",
                "# Keyspace\n",
                "# Keyspace\ndb0:keys=3,expires=0,avg_ttl=0\ndb3:keys=1,expires=0,avg_ttl=0\n",
            ],
            "# Keyspace\ndb0:keys=5,expires=1\ndb3:keys=1,expires=0\n",
        );
        check(
            &[
                "# Keyspace\n",
                "# Keyspace\ndb0:keys=1,expires=0,avg_ttl=0\n",
            ],
            "# Keyspace\ndb0:keys=1,expires=0\n",
        );
        check(
            &[
                "# Commandstats\ncmdstat_get:calls=1,usec=5,usec_per_call=5.00\n",
                "# Commandstats\ncmdstat_get:calls=2,usec=7,usec_per_call=3.50\ncmdstat_set:calls=1,usec=1,usec_per_call=1.00\n",
            ],
            "# Commandstats\ncmdstat_get:calls=3,usec=12\ncmdstat_set:calls=1,usec=1\n",
        );
    }
}
