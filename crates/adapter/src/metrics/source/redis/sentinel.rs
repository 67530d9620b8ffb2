//! What SENTINEL says of the primaries that a sentinel watches, and of the servers and sentinels around them.

use podkit_dataplane::resp::{Answers, Questions, Value};

use crate::client::redis::refusal;
use crate::metrics::batch::{Batch, Kind};

/// Primaries whose surroundings are asked about at most.
const MOST_MASTERS: usize = 1000;

/// A primary.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Master {
    name: String,
    address: String,
}

/// What is told of each in milliseconds or as a count: the field of SENTINEL MASTERS, the end of the metric's name, what it is divided
/// by, and help.
const SETTINGS: [(&str, &str, f64, &str); 6] = [
    (
        "quorum",
        "setting_ckquorum",
        1.0,
        "Sentinels that must agree that the master is down",
    ),
    (
        "failover-timeout",
        "setting_failover_timeout",
        1.0,
        "The setting failover-timeout of the master",
    ),
    (
        "parallel-syncs",
        "setting_parallel_syncs",
        1.0,
        "The setting parallel-syncs of the master",
    ),
    (
        "down-after-milliseconds",
        "setting_down_after_milliseconds",
        1.0,
        "The setting down-after-milliseconds of the master",
    ),
    (
        "config-epoch",
        "config_epoch",
        1.0,
        "The epoch of the master's configuration, which a failover raises",
    ),
    (
        "last-ok-ping-reply",
        "last_ok_ping_reply_seconds",
        1e3,
        "Time since the master's last good reply to a ping",
    ),
];

/// The reply to SENTINEL MASTERS.
pub(super) fn masters(reply: &Value<'_>, batch: &mut Batch) -> Vec<Master> {
    let known = reply.list().iter().take(MOST_MASTERS);
    known.filter_map(|fields| master(fields, batch)).collect()
}

fn master(fields: &Value<'_>, batch: &mut Batch) -> Option<Master> {
    let text = |key: &str| {
        let text = fields.field(key)?.text()?;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let name = text("name")?;
    let address = format!("{}:{}", text("ip")?, text("port")?);
    let master = Master { name, address };
    for (key, end, per, help) in SETTINGS {
        let value = fields.field(key).and_then(Value::number);
        if let Some(value) = value {
            let name = format!("redis_sentinel_master_{end}");
            let family = batch.family(&name, Kind::Gauge, help);
            family.put(&master.labels(), value / per);
        }
    }
    Some(master)
}

/// What is asked about each.
pub(super) fn ask(masters: &[Master]) -> Questions {
    let mut questions = Questions::default();
    for Master { name, .. } in masters {
        for word in ["CKQUORUM", "SENTINELS", "SLAVES"] {
            questions.put(&["SENTINEL", word, name]);
        }
    }
    questions
}

/// The answers to [`ask`].
pub(super) fn read(masters: &[Master], answers: &Answers, batch: &mut Batch) {
    for (at, master) in masters.iter().enumerate() {
        let answer = |number: usize| answers.get(3 * at + number);
        let quorum = answer(0);
        let (ok, message) = match (refusal(&quorum), quorum.text()) {
            (Some(why), _) => (0.0, why),
            (None, Some(text)) => (1.0, String::from_utf8_lossy(text).into_owned()),
            (None, None) => continue,
        };
        batch
            .family(
                "redis_sentinel_master_ckquorum_status",
                Kind::Gauge,
                "Master ckquorum status",
            )
            .put(
                &[("master_name", master.name.as_str()), ("message", &message)],
                ok,
            );
        let name = "redis_sentinel_master_ok_sentinels";
        let help = "The number of okay sentinels monitoring this master";
        // The one that is asked counts.
        batch
            .family(name, Kind::Gauge, help)
            .put(&master.labels(), 1.0 + well(&answer(1)));
        let name = "redis_sentinel_master_ok_slaves";
        let help = "The number of okay slaves of the master";
        batch
            .family(name, Kind::Gauge, help)
            .put(&master.labels(), well(&answer(2)));
    }
}

/// How many are not taken for down.
fn well(reply: &Value<'_>) -> f64 {
    let up = |fields: &&Value<'_>| {
        let flags = fields.field("flags").and_then(Value::text);
        flags.is_some_and(|flags| {
            let flags = String::from_utf8_lossy(flags);
            !flags.contains("o_down") && !flags.contains("s_down")
        })
    };
    let count = reply.list().iter().filter(up).count();
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

impl Master {
    fn labels(&self) -> [(&str, &str); 2] {
        [
            ("master_name", &self.name),
            ("master_address", &self.address),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::source::shown;

    #[test]
    fn masters_are_read_and_those_who_are_well_counted() {
        let reply = b"*2\r\n*8\r\n+name\r\n+m\r\n+ip\r\n+1.2.3.4\r\n+port\r\n+5\r\n+last-ok-ping-reply\r\n+250\r\n*0\r\n";
        let mut batch = Batch::default();
        let found = masters(&Value::read(reply).unwrap(), &mut batch);
        assert_eq!(found.len(), 1);
        assert_eq!(
            shown(&batch),
            "redis_sentinel_master_last_ok_ping_reply_seconds{master_name=\"m\",master_address=\"1.2.3.4:5\"} gauge 0.25\n"
        );
        assert_eq!(ask(&found).len(), 3);
        let servers = b"*3\r\n*2\r\n+flags\r\n+slave\r\n*2\r\n+flags\r\n+s_down,slave\r\n*0\r\n";
        assert_eq!(well(&Value::read(servers).unwrap()), 1.0);
        assert_eq!(well(&Value::Nothing), 0.0);
    }
}
