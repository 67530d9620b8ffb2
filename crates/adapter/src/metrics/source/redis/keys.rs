//! Keys that are looked at or counted, beside scrapes: what `;check-keys=` and `;count-keys=` name.

use std::collections::HashSet;

use podkit_dataplane::resp::{Questions, Value};

use crate::client::redis::{Redis, refusal};
use crate::metrics::batch::{Batch, Kind};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};

/// Keys that a pattern of `;check-keys=` and `;check-streams=` stands for at most; how many more there are is told.
const MOST_KEYS: usize = 1000;

/// Keys that a step of SCAN looks at.
const STEP: &str = "1000";

/// Keys that are asked about in one write.
const TOGETHER: usize = 250;

/// Bytes of a value that is shown as a label at most.
const MOST_SHOWN: f64 = 256.0;

/// A key, or a pattern for keys, in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    database: u32,
    text: Vec<u8>,
}

/// A key that was found.
#[derive(Debug)]
pub(super) struct Key {
    /// The label `db`.
    pub(super) database: String,
    pub(super) number: u32,
    pub(super) name: Vec<u8>,
}

impl Key {
    /// The label `key`, or what stands for it.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// `[dbN=]PATTERN|…`, what is special escaped as in a query (`%2C` for a comma), as redis_exporter has it, but for its commas: they part
/// sources. `usual`: the database of what names none.
pub(super) fn patterns(key: &str, text: &str, usual: u32) -> Result<Vec<Pattern>, String> {
    let patterns: Vec<Pattern> = text
        .split('|')
        .filter(|part| !part.trim().is_empty())
        .map(|part| pattern(part.trim(), usual).map_err(|why| format!("{key}: {why}")))
        .collect::<Result<_, _>>()?;
    match patterns.is_empty() {
        true => Err(format!("{key} names no keys; expected db0=PATTERN|…")),
        false => Ok(patterns),
    }
}

fn pattern(text: &str, usual: u32) -> Result<Pattern, String> {
    let (database, name) = match text.split_once('=') {
        None => (usual, text),
        Some((database, name)) => {
            let number = database.strip_prefix("db").unwrap_or(database);
            let number = number
                .parse()
                .map_err(|_| format!("\"{database}\" is not a database such as db0"))?;
            (number, name)
        }
    };
    if name.is_empty() || name.contains('=') {
        return Err(format!(
            "\"{text}\" is not dbN=PATTERN; what is special is written %3D"
        ));
    }
    let text = unescape(name).ok_or_else(|| format!("\"{name}\" has a % without two digits"))?;
    Ok(Pattern { database, text })
}

/// As in a query of a URL.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(digits, 16).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    Some(plain)
}

impl Pattern {
    /// It may stand for several keys.
    fn is_glob(&self) -> bool {
        self.text.iter().any(|byte| b"*?[]^".contains(byte))
    }

    fn database(&self) -> String {
        format!("db{}", self.database)
    }
}

/// A database that the connection is put into, in front of what is asked there.
pub(super) fn select(database: u32, questions: &mut Questions) {
    questions.put(&["SELECT", &database.to_string()]);
}

/// All keys of a pattern, as they come, several at a time; a key may come twice.
async fn scan(
    redis: &mut Redis,
    pattern: &Pattern,
    answered: &Answered,
    mut found: impl FnMut(&[Value<'_>]),
) -> Result<(), String> {
    let mut cursor = b"0".to_vec();
    loop {
        let mut questions = Questions::default();
        select(pattern.database, &mut questions);
        let words: [&[u8]; 6] = [
            b"SCAN",
            &cursor,
            b"MATCH",
            &pattern.text,
            b"COUNT",
            STEP.as_bytes(),
        ];
        questions.put(&words);
        let answers = redis.ask(&questions, || answered.yes()).await?;
        for at in [0, 1] {
            if let Some(why) = refusal(&answers.get(at)) {
                return Err(format!("answered {why}"));
            }
        }
        let reply = answers.get(1);
        let [next, keys] = reply.list() else {
            return Err("answered SCAN with something else than keys".to_owned());
        };
        found(keys.list());
        cursor = next.text().unwrap_or(b"0").to_vec();
        if cursor == b"0" {
            return Ok(());
        }
    }
}

/// The keys of patterns, and, in `batch`, how many of each were too many.
pub(super) async fn expand(
    redis: &mut Redis,
    patterns: &[Pattern],
    answered: &Answered,
    batch: &mut Batch,
) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for pattern in patterns {
        let key = |name: &[u8]| Key {
            database: pattern.database(),
            number: pattern.database,
            name: name.to_vec(),
        };
        if !pattern.is_glob() {
            keys.push(key(&pattern.text));
            continue;
        }
        let (mut names, mut more) = (HashSet::new(), 0u32);
        scan(redis, pattern, answered, |found| {
            for name in found.iter().filter_map(Value::text) {
                if names.contains(name) {
                    continue;
                }
                match names.len() < MOST_KEYS {
                    true => drop(names.insert(name.to_vec())),
                    false => more = more.saturating_add(1),
                }
            }
        })
        .await?;
        let mut names: Vec<Vec<u8>> = names.into_iter().collect();
        names.sort_unstable();
        keys.extend(names.iter().map(|name| key(name)));
        batch
            .family(
                "podkit_metrics_redis_keys_left_out",
                Kind::Gauge,
                "Keys of a pattern that are not looked at because there are too many",
            )
            .put(
                &[
                    ("db", &pattern.database()),
                    ("key", &String::from_utf8_lossy(&pattern.text)),
                ],
                more.into(),
            );
    }
    Ok(keys)
}

/// Asks the same commands about each key, some keys in one write. `read` has the key, and the answers in the order of the commands.
pub(super) async fn each(
    redis: &mut Redis,
    keys: &[&Key],
    commands: &[&[&str]],
    answered: &Answered,
    mut read: impl FnMut(usize, &[Value<'_>]),
) -> Result<(), String> {
    for (chunk, some) in keys.chunks(TOGETHER).enumerate() {
        let mut questions = Questions::default();
        let mut starts = Vec::with_capacity(some.len());
        let mut database = None;
        for key in some {
            if database != Some(key.number) {
                select(key.number, &mut questions);
                database = Some(key.number);
            }
            starts.push(questions.len());
            for command in commands {
                // Where the key goes is written so.
                let words: Vec<&[u8]> = command
                    .iter()
                    .map(|word| match *word {
                        "KEY" => key.name.as_slice(),
                        other => other.as_bytes(),
                    })
                    .collect();
                questions.put(&words);
            }
        }
        let answers = redis.ask(&questions, || answered.yes()).await?;
        for (at, start) in starts.into_iter().enumerate() {
            let values: Vec<Value<'_>> = (start..start + commands.len())
                .map(|number| answers.get(number))
                .collect();
            read(chunk * TOGETHER + at, &values);
        }
    }
    Ok(())
}

/// Size, memory and value of keys.
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
        let mut of_kind: [Vec<&Key>; 6] = Default::default();
        let commands: [&[&str]; 2] = [&["TYPE", "KEY"], &["MEMORY", "USAGE", "KEY"]];
        each(redis, &all, &commands, answered, |at, values| {
            let key = all[at];
            let kind = values[0].text().unwrap_or_default();
            if kind == b"none" {
                put_size(key, 0.0, &mut batch);
            }
            let known = SIZES.iter().position(|(name, _)| name.as_bytes() == kind);
            if let Some(known) = known {
                of_kind[known].push(key);
            }
            if let Some(bytes) = values[1].number() {
                let help = "The memory usage of \"key\" in bytes";
                put(key, "redis_key_memory_usage_bytes", help, bytes, &mut batch);
            }
        })
        .await?;
        for ((kind, command), keys) in SIZES.iter().zip(&of_kind) {
            let value: &[&str] = &["GETRANGE", "KEY", "0", "255"];
            let commands: &[&[&str]] = match *kind {
                "string" => &[&[command, "KEY"], value],
                _ => &[&[command, "KEY"]],
            };
            let mut sketches = Vec::new();
            each(redis, keys, commands, answered, |at, values| {
                let Some(size) = values[0].number() else {
                    return;
                };
                let text = values.get(1).and_then(Value::text);
                match text {
                    // What PFADD makes: its length is not that of its bytes.
                    Some(text) if text.starts_with(b"HYLL") => sketches.push(keys[at]),
                    Some(text) => {
                        put_size(keys[at], size, &mut batch);
                        put_value(keys[at], size, text, &mut batch);
                    }
                    None => put_size(keys[at], size, &mut batch),
                }
            })
            .await?;
            let count: [&[&str]; 1] = [&["PFCOUNT", "KEY"]];
            each(redis, &sketches, &count, answered, |at, values| {
                if let Some(size) = values[0].number() {
                    put_size(sketches[at], size, &mut batch);
                }
            })
            .await?;
        }
        Ok(batch)
    }
}

/// Types, and the commands that tell how large they are.
const SIZES: [(&str, &str); 6] = [
    ("string", "STRLEN"),
    ("list", "LLEN"),
    ("set", "SCARD"),
    ("zset", "ZCARD"),
    ("hash", "HLEN"),
    ("stream", "XLEN"),
];

fn put(key: &Key, name: &str, help: &'static str, value: f64, batch: &mut Batch) {
    let labels = [("db", key.database.as_str()), ("key", &key.shown())];
    batch.family(name, Kind::Gauge, help).put(&labels, value);
}

fn put_size(key: &Key, size: f64, batch: &mut Batch) {
    let help = "The length or size of \"key\"";
    put(key, "redis_key_size", help, size, batch);
}

/// A string: as a number when it is one, else as a label when it is short.
fn put_value(key: &Key, size: f64, text: &[u8], batch: &mut Batch) {
    let text = String::from_utf8_lossy(text);
    if size > MOST_SHOWN {
        return;
    }
    if let Ok(number) = text.parse() {
        let help = "The value of \"key\"";
        return put(key, "redis_key_value", help, number, batch);
    }
    let labels = [
        ("db", key.database.as_str()),
        ("key", &key.shown()),
        ("val", &*text),
    ];
    let help = "The value of \"key\" as a string";
    batch
        .family("redis_key_value_as_string", Kind::Gauge, help)
        .put(&labels, 1.0);
}

impl Collector for Check {
    fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a> {
        Box::pin(self.look(answered))
    }

    fn status(&self, _: &Went) -> Batch {
        Batch::default()
    }
}

/// How many keys patterns stand for.
pub(super) struct Count {
    redis: Redis,
    patterns: Vec<Pattern>,
}

impl Count {
    pub(super) fn new(redis: Redis, patterns: Vec<Pattern>) -> Self {
        Self { redis, patterns }
    }

    async fn count(&mut self, answered: &Answered) -> Result<Batch, String> {
        let mut batch = Batch::default();
        for pattern in &self.patterns {
            let mut count = 0.0;
            scan(&mut self.redis, pattern, answered, |found| {
                count += u32::try_from(found.len()).map_or(0.0, f64::from);
            })
            .await?;
            let name = String::from_utf8_lossy(&pattern.text);
            batch
                .family("redis_keys_count", Kind::Gauge, "Count of keys")
                .put(&[("db", &pattern.database()), ("key", &name)], count);
        }
        Ok(batch)
    }
}

impl Collector for Count {
    fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a> {
        Box::pin(self.count(answered))
    }

    fn status(&self, _: &Went) -> Batch {
        Batch::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_as_redis_exporter_reads_them() {
        let read = |text: &str| {
            let patterns = patterns("check-keys", text, 2)?;
            let shown = patterns.iter().map(|one| {
                let glob = if one.is_glob() { "*" } else { "" };
                let text = String::from_utf8_lossy(&one.text);
                format!("{} {text}{glob}", one.database())
            });
            Ok::<_, String>(shown.collect::<Vec<_>>().join("|"))
        };
        assert_eq!(
            read("db3=user:?|jobs| 0=a%2Cb+%3D|").unwrap(),
            "db3 user:?*|db2 jobs|db0 a,b ="
        );
        for (text, why) in [
            ("|", "check-keys names no keys"),
            ("dbx=a", "check-keys: \"dbx\" is not a database"),
            ("db1=", "check-keys: \"db1=\" is not dbN=PATTERN"),
            ("db1=a=b", "is not dbN=PATTERN"),
            ("a%2", "\"a%2\" has a % without two digits"),
            ("a%zz", "\"a%zz\" has a % without two digits"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_value_is_a_number_or_a_short_text() {
        let key = Key {
            database: "db0".to_owned(),
            number: 0,
            name: b"k".to_vec(),
        };
        let mut batch = Batch::default();
        put_value(&key, 3.0, b"1.5", &mut batch);
        put_value(&key, 2.0, b"no", &mut batch);
        put_value(&key, 300.0, b"lon", &mut batch);
        assert_eq!(
            crate::metrics::source::shown(&batch),
            "redis_key_value{db=\"db0\",key=\"k\"} gauge 1.5\n\
             redis_key_value_as_string{db=\"db0\",key=\"k\",val=\"no\"} gauge 1\n"
        );
    }
}
