//! Documents of JSON, by rules: json_exporter's.

mod path;
mod rules;

use serde_json::Value;

use super::web::Web;
use super::{Ground, Planned, Spec, words};
use crate::metrics::batch::{Batch, Kind};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};
use path::{Template, shown};
use rules::{Metric, Module};

pub(crate) const KEYS: &[&str] = &["rules", "module", "user", "password-file", "token-file"];

pub(crate) const TLS_KEYS: &[&str] = &[
    "rules",
    "module",
    "user",
    "password-file",
    "token-file",
    "server-name",
];

/// Bytes of a document at most.
const MOST_BYTES: usize = 16 << 20;

/// Samples of a rule at most.
const MOST_SAMPLES: usize = 10_000;

pub(super) fn plan(spec: &Spec, ground: &Ground) -> Result<Vec<Planned>, String> {
    let path = spec
        .file("rules")
        .ok_or("rules=FILE says what of the document is wanted")?;
    let is_named = spec.name.is_some();
    let module = words::file("rules", &path, |words| {
        rules::read(words, spec.option("module"), is_named)
    })?;
    Ok(vec![Planned::always(Json {
        web: Web::new(spec, ground, "/")?,
        module,
    })])
}

struct Json {
    web: Web,
    module: Module,
}

impl Collector for Json {
    fn collect<'a>(&'a mut self, _: &'a Answered) -> Collected<'a> {
        Box::pin(async {
            let Module {
                headers,
                body,
                statuses,
                metrics,
            } = &self.module;
            let mut fields: Vec<(&str, &str)> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            if !fields
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("accept"))
            {
                fields.push(("Accept", "application/json"));
            }
            let got = self.web.ask(&fields, body.as_bytes(), MOST_BYTES).await?;
            let right = match statuses.is_empty() {
                true => (200..300).contains(&got.status),
                false => statuses.contains(&got.status),
            };
            if !right {
                return Err(self.web.refused(got.status));
            }
            read(&got.body, metrics)
        })
    }

    fn status(&self, _: &Went) -> Batch {
        Batch::default()
    }
}

/// What the rules find in a document.
fn read(document: &[u8], metrics: &[Metric]) -> Result<Batch, String> {
    let document: Value = serde_json::from_slice(document)
        .map_err(|error| format!("answered something else than JSON: {error}"))?;
    let mut batch = Batch::default();
    for metric in metrics {
        let done = metric.add(&document, &mut batch);
        if let Err(why) = &done {
            tracing::debug!(rule = metric.name, why, "a rule found no value");
        }
        let up = if done.is_ok() { 1.0 } else { 0.0 };
        let help = "The rule found values, and all were numbers";
        batch
            .family("podkit_metrics_rule_up", Kind::Gauge, help)
            .put(&[("rule", &metric.name)], up);
    }
    Ok(batch)
}

impl Metric {
    /// Adds its samples. What is no number has none; the error is the first of those.
    fn add(&self, document: &Value, batch: &mut Batch) -> Result<(), String> {
        let found = self.path.find(document);
        if found.is_empty() {
            return Err("nothing is there".to_owned());
        }
        if self.values.is_empty() {
            let [value] = found[..] else {
                return Err("more than one value is there; type: object is for that".to_owned());
            };
            let number = number(&shown(value))?;
            self.put(&self.name, document, number, batch);
            return Ok(());
        }
        // A list that is found as a whole stands for its items.
        let items = found.into_iter().flat_map(|one| match one {
            Value::Array(items) => items.iter().collect(),
            one => vec![one],
        });
        let mut done = Ok(());
        for (count, item) in items.enumerate() {
            if count == MOST_SAMPLES {
                return Err(format!("more than {MOST_SAMPLES} things are there"));
            }
            for (name, value) in &self.values {
                match number(&value.text(item)) {
                    Ok(number) => self.put(name, item, number, batch),
                    Err(why) => done = done.and(Err(why)),
                }
            }
        }
        done
    }

    fn put(&self, name: &str, item: &Value, number: f64, batch: &mut Batch) {
        let text = |(name, template): &(String, Template)| (name.clone(), template.text(item));
        let labels: Vec<(String, String)> = self.labels.iter().map(text).collect();
        let labels: Vec<(&str, &str)> = labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        batch
            .family(name, self.kind, self.help.clone())
            .put(&labels, number);
    }
}

/// As json_exporter reads one: numbers, also in a text, true and false; null is not a number, and has that as its value.
fn number(text: &str) -> Result<f64, String> {
    match text.trim() {
        "true" => Ok(1.0),
        "false" => Ok(0.0),
        "null" => Ok(f64::NAN),
        text => text.parse().map_err(|_| {
            let start: String = text.chars().take(30).collect();
            format!("{start:?} is no number")
        }),
    }
}

/// No bytes upset it.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz {
    use podkit_foundation::fuzz::Target;

    use super::{path, read, rules};
    use crate::metrics::source::words;

    const RULES: &str = "metrics:\n- {name: a, path: '{.a}', labels: {l: 'x{..b}'}}\n\
        - {name: b, type: object, path: '{.c[?(@.d > 1)]}', values: {e: '{.e}', one: 1}}\n";

    pub(crate) const DOCUMENT: Target = Target {
        name: "metrics-json",
        seeds: &[br#"{"a": 1, "b": null, "c": [{"d": 2, "e": "3"}, {"d": 1e9, "e": true}]}"#],
        run: |bytes| {
            let rules = words::parse("rules", "f", RULES, |words| rules::read(words, None, false));
            read(bytes, &rules.expect("they are right").metrics).ok();
        },
    };

    pub(crate) const PATH: Target = Target {
        name: "metrics-jsonpath",
        seeds: &[
            b"x{ .a[?(@.b == \"c\")]['d','e'][0:-1:2]..f }",
            b"{$.a[0,1].*}",
        ],
        run: |bytes| {
            let document = serde_json::json!({"a": [{"b": "c", "d": [1, 2]}, {"f": 3}]});
            if let Ok(found) = path::Template::parse(&String::from_utf8_lossy(bytes)) {
                found.text(&document);
            }
        },
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::source::shown;

    const DOCUMENT: &str = r#"{"counter": 1234, "timestamp": 1657568506, "location": "mars", "values": [
        {"id": "id-A", "count": 1, "some_boolean": true, "state": "ACTIVE"},
        {"id": "id-B", "count": "2.5", "some_boolean": true, "state": "INACTIVE"},
        {"id": "id-C", "count": null, "some_boolean": false, "state": "ACTIVE"}]}"#;

    /// json_exporter's own example, and what it answers.
    #[test]
    fn the_example_of_json_exporter_has_its_samples() {
        let rules = r#"
modules:
  default:
    headers: {X-Dummy: my-test-header}
    metrics:
    - name: example_global_value
      path: '{ .counter }'
      help: Example of a top-level global value scrape in the json
      labels: {environment: beta, location: 'planet-{.location}'}
    - name: example_timestamped_value
      type: object
      path: '{ .values[?(@.state == "INACTIVE")] }'
      epochTimestamp: '{ .timestamp }'
      valuetype: gauge
      labels: {environment: beta}
      values: {count: '{.count}'}
    - name: example_value
      type: object
      path: '{.values[*]}'
      labels: {environment: beta, id: '{.id}'}
      values: {active: 1, count: '{.count}', boolean: '{.some_boolean}'}
    - {name: gone, path: '{.gone}'}
    - {name: text, path: '{.location}'}
    - {name: many, path: '{.values[*].count}'}
  other:
    metrics: [{name: a, path: '{.b}'}]
"#;
        let module = words::parse("rules", "f", rules, |words| rules::read(words, None, true));
        let batch = read(DOCUMENT.as_bytes(), &module.unwrap().metrics).unwrap();
        assert_eq!(
            shown(&batch),
            r#"example_global_value{environment="beta",location="planet-mars"} untyped 1234
podkit_metrics_rule_up{rule="example_global_value"} gauge 1
podkit_metrics_rule_up{rule="example_timestamped_value"} gauge 1
podkit_metrics_rule_up{rule="example_value"} gauge 1
podkit_metrics_rule_up{rule="gone"} gauge 0
podkit_metrics_rule_up{rule="text"} gauge 0
podkit_metrics_rule_up{rule="many"} gauge 0
example_timestamped_value_count{environment="beta"} gauge 2.5
example_value_active{environment="beta",id="id-A"} untyped 1
example_value_active{environment="beta",id="id-B"} untyped 1
example_value_active{environment="beta",id="id-C"} untyped 1
example_value_count{environment="beta",id="id-A"} untyped 1
example_value_count{environment="beta",id="id-B"} untyped 2.5
example_value_count{environment="beta",id="id-C"} untyped NaN
example_value_boolean{environment="beta",id="id-A"} untyped 1
example_value_boolean{environment="beta",id="id-B"} untyped 1
example_value_boolean{environment="beta",id="id-C"} untyped 0
"#
        );
        assert!(read(b"{", &[]).unwrap_err().contains("EOF"));
    }

    #[test]
    fn what_is_wrong_with_rules_is_told() {
        let check = |text: &str, why: &str| {
            let read = words::parse("rules", "f", text, |words| {
                rules::read(words, Some("m"), true)
            });
            let error = read.unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        };
        check("metrics: []", "has no modules");
        check(
            "modules: {other: {metrics: [{name: a, path: '{.b}'}]}}",
            "there is no module m; there are other",
        );
        let metric =
            |text: &str, why: &str| check(&format!("modules: {{m: {{metrics: [{text}]}}}}"), why);
        metric("{name: a, path: '{.b'}", "a { has no }");
        metric("{name: a, path: b}", "is no path");
        metric("{name: a-b, path: '{.b}'}", "wants a name of letters");
        metric("{name: a}", "has no path");
        metric("{name: a, path: '{.b}', type: object}", "has no values");
        metric(
            "{name: a, path: '{.b}', values: {c: 1}}",
            "are for type: object",
        );
        metric(
            "{name: a, path: '{.b}', labels: {source: c}}",
            "the label that the source's name has",
        );
        metric(
            "{name: a, path: '{.b}', valueType: gauge}",
            "did you mean valuetype?",
        );
        check(
            "modules: {m: {headers: {\"a b\": c}, metrics: []}}",
            "is no field of HTTP",
        );
        check(
            "modules: {m: {http_client_config: {}, metrics: []}}",
            "unknown key",
        );
    }
}
