//! The MBeans of a JVM by Jolokia's HTTP, by jmx_exporter's rules, and the `jvm_…` of its agent.
//!
//! ```text
//!   [{"type": "version"}, {"type": "search", "mbean": "java.lang:*"}, …] ──▶ it is there; names with their properties in order
//!   [{"type": "read", "mbean": "java.lang:*"}, …] ──▶ values by MBean and attribute ──▶ rules
//! ```
//!
//! Two requests a scrape: reading all MBeans of a large application takes seconds, and the first tells a slow one from one that hangs. It
//! has the names too, since rules are about their properties in the order in which the application gave them: `search` promises that,
//! for `read` by a pattern it is up to Jolokia.

mod jvm;
mod names;
mod rules;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::web::Web;
use super::{Ground, Planned, Spec, words};
use crate::metrics::batch::{Batch, put_value};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};
use names::Name;
use rules::{Attribute, Config};

pub(crate) const KEYS: &[&str] = &["rules", "user", "password-file", "token-file"];

pub(crate) const TLS_KEYS: &[&str] = &[
    "rules",
    "user",
    "password-file",
    "token-file",
    "server-name",
];

/// Bytes of an answer at most.
const MOST_BYTES: usize = 32 << 20;

/// Composite values within each other at most.
const MOST_DEPTH: usize = 8;

pub(super) fn plan(spec: &Spec, ground: &Ground) -> Result<Vec<Planned>, String> {
    let is_named = spec.name.is_some();
    let config = match spec.file("rules") {
        Some(path) => words::file("rules", &path, |words| rules::read(words, is_named))?,
        None => Config::default(),
    };
    Ok(vec![Planned::always(Jmx {
        web: Web::new(spec, ground, "/jolokia/")?,
        first: first(&config),
        asked: question(&config),
        config,
        is_named,
    })])
}

struct Jmx {
    web: Web,
    first: Vec<u8>,
    asked: Vec<u8>,
    config: Config,
    /// Its samples get a label `source`.
    is_named: bool,
}

/// Is it there, and which names are there for the rules?
fn first(config: &Config) -> Vec<u8> {
    let mut asked = vec![json!({"type": "version"})];
    asked.extend(config.include.iter().map(
        |name| json!({"type": "search", "mbean": name, "config": {"canonicalNaming": false}}),
    ));
    Value::from(asked).to_string().into_bytes()
}

/// Names by what they are with their properties sorted.
type Names = HashMap<Name, Name>;

/// Those that an answer to [`first`] has, or none when it is not Jolokia's.
fn names(answer: &[u8]) -> Option<Names> {
    let said: Value = serde_json::from_slice(answer).ok()?;
    said[0]["value"]["agent"].as_str()?;
    let lists = said.as_array()?.iter().skip(1);
    let texts = lists.filter_map(|one| one["value"].as_array()).flatten();
    let names = texts.filter_map(|text| Name::parse(text.as_str()?));
    Some(names.map(|name| (name.sorted(), name)).collect())
}

/// What is read: the beans of the rules, and then those of `jvm_…`.
fn question(config: &Config) -> Vec<u8> {
    let names = config.include.iter().map(String::as_str).chain(jvm::BEANS);
    let asked: Vec<Value> = names
        .map(|name| {
            json!({"type": "read", "mbean": name,
                "config": {"ignoreErrors": true, "canonicalNaming": false, "serializeException": false}})
        })
        .collect();
    Value::from(asked).to_string().into_bytes()
}

const FIELDS: [(&str, &str); 1] = [("Content-Type", "application/json")];

impl Collector for Jmx {
    fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a> {
        Box::pin(async {
            let got = self.web.page(&FIELDS, &self.first, MOST_BYTES).await?;
            let names = names(&got.body).ok_or("answered something else than Jolokia")?;
            answered.yes();
            let got = self.web.page(&FIELDS, &self.asked, MOST_BYTES).await?;
            read(&got.body, &names, &self.config, self.is_named)
        })
    }

    fn status(&self, went: &Went) -> Batch {
        let mut batch = Batch::default();
        let help = "Time this JMX scrape took, in seconds.";
        batch.gauge("jmx_scrape_duration_seconds", help, went.took.as_secs_f64());
        let help = "Non-zero if this scrape failed.";
        batch.gauge("jmx_scrape_error", help, 1.0 - went.up());
        batch
    }
}

/// What the answers to [`question`] say.
fn read(answer: &[u8], names: &Names, config: &Config, is_named: bool) -> Result<Batch, String> {
    let answer: Value = serde_json::from_slice(answer)
        .map_err(|error| format!("answered something else than JSON: {error}"))?;
    let parts = answer.as_array().map_or(&[][..], Vec::as_slice);
    if parts.len() != config.include.len() + jvm::BEANS.len() {
        return Err("answered another number of questions than were asked".to_owned());
    }
    let mut batch = Batch::default();
    let (ours, its) = parts.split_at(config.include.len());
    jvm::put(&its.iter().flat_map(beans).collect::<Vec<_>>(), &mut batch);
    let mut seen = HashSet::new();
    for part in ours {
        let status = part["status"].as_u64();
        // 404: there are none of that name.
        if !matches!(status, Some(200 | 404)) {
            let why = part["error"].as_str().unwrap_or("no error is told");
            return Err(format!(
                "refused to read {}: {}",
                part["request"]["mbean"],
                why.lines().next().unwrap_or_default()
            ));
        }
        for (name, attributes) in beans(part) {
            let Some(bean) = Name::parse(name) else {
                continue;
            };
            let bean = names.get(&bean.sorted()).unwrap_or(&bean);
            let excluded = config.exclude.iter().any(|pattern| pattern.covers(bean));
            if excluded || !seen.insert(name) {
                continue;
            }
            let mut add = |path: &[&str], name: &str, value: &Value| {
                let (shown, value) = match value {
                    Value::Bool(value) => (value.to_string(), Some(f64::from(u8::from(*value)))),
                    Value::Number(number) => (number.to_string(), number.as_f64()),
                    Value::String(text) => (text.clone(), float(text)),
                    _ => return,
                };
                let attribute = Attribute {
                    bean,
                    path,
                    name,
                    shown: &shown,
                    value,
                };
                config.put(&attribute, is_named, &mut batch);
            };
            flatten(&mut Vec::new(), attributes, &mut add);
        }
    }
    Ok(batch)
}

/// Numbers that JSON has no word for, as Jolokia writes them.
fn float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// The MBeans of an answer, which has one alone when it was asked for by its name.
fn beans(part: &Value) -> Vec<(&str, &Map<String, Value>)> {
    let Some(value) = part["value"].as_object() else {
        return Vec::new();
    };
    let asked = part["request"]["mbean"].as_str().unwrap_or_default();
    match asked.contains(['*', '?']) {
        true => value
            .iter()
            .filter_map(|(name, attributes)| Some((name.as_str(), attributes.as_object()?)))
            .collect(),
        false => vec![(asked, value)],
    }
}

/// Every value, and the way to it.
fn flatten<'a>(
    path: &mut Vec<&'a str>,
    values: &'a Map<String, Value>,
    add: &mut dyn FnMut(&[&str], &str, &Value),
) {
    for (name, value) in values {
        match value {
            Value::Object(inner) if path.len() < MOST_DEPTH => {
                path.push(name);
                flatten(path, inner, add);
                path.pop();
            }
            value => add(path, name, value),
        }
    }
}

/// For what is put into labels.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            let mut out = String::new();
            put_value(&mut out, number.as_f64().unwrap_or(f64::NAN));
            out
        }
        _ => String::new(),
    }
}

/// No bytes upset it.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz {
    use podkit_foundation::fuzz::Target;

    use super::{Config, names, read};

    pub(crate) const TARGET: Target = Target {
        name: "metrics-jolokia",
        seeds: &[
            br#"[{"request":{"mbean":"*:*"},"status":200,"value":{"a:b=c":{"D":1,"E":{"F":true}}}},{},{},{},{},{},{},{},{},{}]"#,
        ],
        run: |bytes| {
            let names = names(bytes).unwrap_or_default();
            read(bytes, &names, &Config::default(), true).ok();
        },
    };
}

#[cfg(test)]
mod tests;
