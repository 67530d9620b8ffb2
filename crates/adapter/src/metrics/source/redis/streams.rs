//! Streams, their groups and consumers, beside scrapes: what `;check-streams=` names.

use podkit_dataplane::resp::{Questions, Value};

use super::keys::{Key, Pattern, each, expand, select};
use crate::client::redis::Redis;
use crate::metrics::batch::{Batch, Kind};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};

/// Groups of a stream, and consumers of a group, that are shown at most.
const MOST: usize = 1000;

/// A number or an ID of XINFO: its field, the end of the metric's name, what it is divided by, and help.
type Field = (&'static str, &'static str, f64, &'static str);

const STREAM: [Field; 7] = [
    (
        "length",
        "length",
        1.0,
        "The number of elements of the stream",
    ),
    (
        "radix-tree-keys",
        "radix_tree_keys",
        1.0,
        "Radix tree keys count",
    ),
    (
        "radix-tree-nodes",
        "radix_tree_nodes",
        1.0,
        "Radix tree nodes count",
    ),
    (
        "last-generated-id",
        "last_generated_id",
        1.0,
        "The epoch timestamp (ms) of the latest message on the stream",
    ),
    ("groups", "groups", 1.0, "Groups count of stream"),
    (
        "max-deleted-entry-id",
        "max_deleted_entry_id",
        1.0,
        "The epoch timestamp (ms) of last message was deleted from the stream",
    ),
    (
        "entries-added",
        "entries_added_total",
        1.0,
        "The count of all entries added to the stream during its lifetime",
    ),
];

const ENTRIES: [Field; 2] = [
    (
        "first-entry",
        "first_entry_id",
        1.0,
        "The epoch timestamp (ms) of the first message in the stream",
    ),
    (
        "last-entry",
        "last_entry_id",
        1.0,
        "The epoch timestamp (ms) of the last message in the stream",
    ),
];

const GROUP: [Field; 5] = [
    (
        "consumers",
        "consumers",
        1.0,
        "Consumers count of stream group",
    ),
    (
        "pending",
        "messages_pending",
        1.0,
        "Pending number of messages in that stream group",
    ),
    (
        "last-delivered-id",
        "last_delivered_id",
        1.0,
        "The epoch timestamp (ms) of the last delivered message",
    ),
    (
        "entries-read",
        "entries_read",
        1.0,
        "Total number of entries read from the stream group",
    ),
    (
        "lag",
        "lag",
        1.0,
        "The number of messages waiting to be delivered to the stream group's consumers",
    ),
];

const CONSUMER: [Field; 2] = [
    (
        "pending",
        "messages_pending",
        1.0,
        "Pending number of messages for this specific consumer",
    ),
    ("idle", "idle_seconds", 1e3, "Consumer idle time in seconds"),
];

/// What is asked about streams.
pub(super) struct Check {
    redis: Redis,
    patterns: Vec<Pattern>,
}

impl Check {
    pub(super) fn new(redis: Redis, patterns: Vec<Pattern>) -> Self {
        Self { redis, patterns }
    }

    async fn look(&mut self, answered: &Answered) -> Result<Batch, String> {
        let mut batch = Batch::default();
        let redis = &mut self.redis;
        let keys = expand(redis, &self.patterns, answered, &mut batch).await?;
        let all: Vec<&Key> = keys.iter().collect();
        let mut groups = Vec::new();
        let commands: [&[&str]; 2] = [&["XINFO", "STREAM", "KEY"], &["XINFO", "GROUPS", "KEY"]];
        each(redis, &all, &commands, answered, |at, values| {
            // What is no stream answers with an error.
            let key = all[at];
            let shown = key.shown();
            let labels = [("db", key.database.as_str()), ("stream", shown.as_str())];
            stream(&values[0], &labels, &mut batch);
            for fields in values[1].list().iter().take(MOST) {
                let Some(name) = fields.field("name").and_then(Value::text) else {
                    continue;
                };
                let group = String::from_utf8_lossy(name);
                let labels = [labels[0], labels[1], ("group", &*group)];
                put("redis_stream_group_", &GROUP, fields, &labels, &mut batch);
                groups.push((key, name.to_vec()));
            }
        })
        .await?;
        for some in groups.chunks(MOST) {
            let mut questions = Questions::default();
            let mut at = Vec::with_capacity(some.len());
            for (key, group) in some {
                select(key.number, &mut questions);
                let words: [&[u8]; 4] = [b"XINFO", b"CONSUMERS", &key.name, group];
                at.push(questions.put(&words));
            }
            let answers = redis.ask(&questions, || answered.yes()).await?;
            for ((key, group), at) in some.iter().zip(at) {
                consumers(key, group, &answers.get(at), &mut batch);
            }
        }
        Ok(batch)
    }
}

/// The reply to XINFO STREAM.
pub(super) fn stream(reply: &Value<'_>, labels: &[(&str, &str)], batch: &mut Batch) {
    put("redis_stream_", &STREAM, reply, labels, batch);
    if reply.list().is_empty() {
        return;
    }
    for (field, end, _, help) in ENTRIES {
        // Of the entry, which a stream without entries has not.
        let entry = reply.field(field).map(Value::list).unwrap_or_default();
        let name = format!("redis_stream_{end}");
        let id = entry.first().and_then(number).unwrap_or(0.0);
        batch.family(&name, Kind::Gauge, help).put(labels, id);
    }
}

/// The reply to XINFO CONSUMERS.
pub(super) fn consumers(key: &Key, group: &[u8], reply: &Value<'_>, batch: &mut Batch) {
    let (shown, group) = (key.shown(), String::from_utf8_lossy(group));
    for fields in reply.list().iter().take(MOST) {
        let Some(name) = fields.field("name").and_then(Value::text) else {
            continue;
        };
        let labels = [
            ("db", key.database.as_str()),
            ("stream", &shown),
            ("group", &group),
            ("consumer", &String::from_utf8_lossy(name)),
        ];
        put(
            "redis_stream_group_consumer_",
            &CONSUMER,
            fields,
            &labels,
            batch,
        );
    }
}

/// The fields that are there.
fn put(
    begin: &str,
    known: &[Field],
    fields: &Value<'_>,
    labels: &[(&str, &str)],
    batch: &mut Batch,
) {
    for (field, end, per, help) in known {
        if let Some(value) = fields.field(field).and_then(number) {
            let kind = match end.ends_with("_total") {
                true => Kind::Counter,
                false => Kind::Gauge,
            };
            let name = format!("{begin}{end}");
            batch.family(&name, kind, *help).put(labels, value / per);
        }
    }
}

/// A number, or the time in an ID such as `1526919030474-55`.
fn number(value: &Value<'_>) -> Option<f64> {
    if let Some(number) = value.number() {
        return Some(number);
    }
    let text = std::str::from_utf8(value.text()?).ok()?;
    text.split('-').next()?.parse().ok()
}

impl Collector for Check {
    fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a> {
        Box::pin(self.look(answered))
    }

    fn status(&self, _: &Went) -> Batch {
        Batch::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::source::shown;

    #[test]
    fn a_stream_and_its_entries() {
        let reply = b"*8\r\n+length\r\n:2\r\n+last-generated-id\r\n+1526919030474-55\r\n+entries-added\r\n:5\r\n\
                      +first-entry\r\n*2\r\n+7-0\r\n*0\r\n";
        let mut batch = Batch::default();
        let labels = [("db", "db0"), ("stream", "s")];
        stream(&Value::read(reply).unwrap(), &labels, &mut batch);
        let labels = "{db=\"db0\",stream=\"s\"}";
        assert_eq!(
            shown(&batch),
            format!(
                "redis_stream_length{labels} gauge 2\nredis_stream_last_generated_id{labels} gauge 1526919030474\n\
                 redis_stream_entries_added_total{labels} counter 5\nredis_stream_first_entry_id{labels} gauge 7\n\
                 redis_stream_last_entry_id{labels} gauge 0\n"
            )
        );
        let mut none = Batch::default();
        stream(&Value::Error(b"WRONGTYPE"), &[], &mut none);
        assert_eq!(shown(&none), "");
    }
}
