//! What is checked: the queries of Grafana dashboards and of Prometheus rules, and where they stand.

use std::path::Path as FilePath;
use std::sync::Arc;

use podkit_foundation::yaml::{self, Findings, Node, Schema, documents_in, read};
use serde_json::Value;

use super::promql;

/// Metrics that something asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Use {
    /// The panel, variable, annotation or rule.
    pub(super) place: String,
    /// `*` stands for any text.
    pub(super) names: Vec<String>,
}

/// What a file asks for, and the names that it makes itself.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) uses: Vec<Use>,
    pub(super) recorded: Vec<String>,
}

/// Of that file. An error says where and what is wrong.
pub(super) fn asked(path: &FilePath) -> Result<Asked, String> {
    let shown = path.display().to_string();
    let bytes = read::file(path).map_err(|why| format!("{shown}: {why}"))?;
    let text = read::text(&bytes)
        .map_err(|(line, column, why)| format!("{shown}:{line}:{column}: {why}"))?;
    parse(&shown, text)
}

pub(super) fn parse(shown: &str, text: &str) -> Result<Asked, String> {
    // A dashboard is read as the JSON that it is: its escapes are not all YAML's.
    if text.trim_start().starts_with('{') {
        let root: Value =
            serde_json::from_str(text).map_err(|error| format!("{shown}: not JSON: {error}"))?;
        let root = root.get("dashboard").unwrap_or(&root);
        let has = |key: &str| {
            root.get(key)
                .or_else(|| root.get("spec")?.get(key))
                .is_some()
        };
        if ["panels", "rows", "elements"].into_iter().any(has) {
            return Ok(dashboard(root));
        }
        if !has("groups") {
            return Err(format!(
                "{shown}: neither a dashboard, which has panels, nor rules, which have groups"
            ));
        }
    }
    rules(shown, text)
}

fn dashboard(root: &Value) -> Asked {
    let title = root
        .get("title")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut asked = Asked::default();
    let above = Above {
        place: format!("dashboard \"{title}\""),
        prometheus: true,
    };
    if let Value::Object(fields) = root {
        for (key, value) in fields {
            below(key, value, &above, &mut asked.uses);
        }
    }
    asked
}

/// What holds for all that is below.
#[derive(Clone)]
struct Above {
    place: String,
    /// The queries are PromQL.
    prometheus: bool,
}

fn below(key: &str, value: &Value, above: &Above, uses: &mut Vec<Use>) {
    match value {
        Value::Object(fields) if key == "templating" || key == "annotations" => {
            let what = if key == "templating" {
                "variable"
            } else {
                "annotation"
            };
            let list = fields.get("list").and_then(Value::as_array);
            for one in list.into_iter().flatten() {
                named(what, one, above, uses);
            }
        }
        Value::Object(_) => walk(value, above, uses),
        Value::Array(items) => items.iter().for_each(|item| below("", item, above, uses)),
        Value::String(query) if key == "expr" && above.prometheus => {
            uses.push(Use {
                place: above.place.clone(),
                names: promql::names(query),
            });
        }
        _ => {}
    }
}

fn walk(value: &Value, above: &Above, uses: &mut Vec<Use>) {
    let mut above = above.clone();
    if let Some(title) = value.get("title").and_then(Value::as_str)
        && !title.is_empty()
    {
        above.place = format!("panel \"{title}\"");
    }
    above.prometheus = speaks(value).unwrap_or(above.prometheus);
    if let Value::Object(fields) = value {
        for (key, value) in fields {
            below(key, value, &above, uses);
        }
    }
}

/// A variable or an annotation.
fn named(what: &str, value: &Value, above: &Above, uses: &mut Vec<Use>) {
    let name = value
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let above = Above {
        place: format!("{what} \"{name}\""),
        prometheus: speaks(value).unwrap_or(above.prometheus),
    };
    let query = value
        .get("query")
        .filter(|_| value.get("type").and_then(Value::as_str) == Some("query"));
    let query = query.and_then(|query| query.as_str().or_else(|| query.get("query")?.as_str()));
    if let Some(query) = query.filter(|_| above.prometheus && what == "variable") {
        uses.push(Use {
            place: above.place.clone(),
            names: promql::variable(query),
        });
    }
    if let Value::Object(fields) = value {
        for (key, value) in fields {
            below(key, value, &above, uses);
        }
    }
}

/// Its data source is a Prometheus, or is none; nothing when that is not said.
fn speaks(value: &Value) -> Option<bool> {
    let source = value.get("datasource")?;
    let kind = match source {
        Value::String(name) => name.as_str(),
        source => source.get("type")?.as_str()?,
    };
    let kind = kind.to_ascii_lowercase();
    let others = [
        "loki",
        "elasticsearch",
        "influxdb",
        "mysql",
        "postgres",
        "tempo",
        "graphite",
        "cloudwatch",
    ];
    if kind.contains("prometheus") {
        return Some(true);
    }
    others
        .iter()
        .any(|other| kind.contains(other))
        .then_some(false)
}

fn rules(shown: &str, text: &str) -> Result<Asked, String> {
    let mut findings = Findings::new();
    let file: Arc<str> = Arc::from(shown);
    let roots = documents_in(Schema::Core, text, &file, &mut findings);
    findings.sort();
    if findings.has_errors() {
        return Err(format!("not YAML:\n{findings}"));
    }
    let mut asked = Asked::default();
    let mut found = false;
    for root in &roots {
        // As a file of Prometheus', or as a PrometheusRule of its operator.
        let groups = root
            .get("groups")
            .or_else(|| root.get("spec")?.get("groups"));
        let Some(groups) = groups.and_then(items) else {
            continue;
        };
        found = true;
        for rule in groups
            .iter()
            .filter_map(|group| items(group.get("rules")?))
            .flatten()
        {
            let name = |key: &str| rule.get(key).and_then(Node::as_str);
            let place = match (name("alert"), name("record")) {
                (Some(alert), _) => format!("alert {alert}"),
                (None, Some(record)) => {
                    asked.recorded.push(record.to_owned());
                    format!("record {record}")
                }
                (None, None) => "a rule without a name".to_owned(),
            };
            let expr = rule
                .get("expr")
                .ok_or_else(|| format!("{shown}: {place} has no expr"))?;
            // One that is a number asks for nothing.
            let names = expr.as_str().map(promql::names).unwrap_or_default();
            asked.uses.push(Use { place, names });
        }
    }
    match found {
        true => Ok(asked),
        false => Err(format!(
            "{shown}: neither a dashboard, which has panels, nor rules, which have groups"
        )),
    }
}

fn items(node: &Node) -> Option<&[Node]> {
    match &node.value {
        yaml::Value::Seq(items) => Some(items),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let asked = parse("f", text).unwrap();
        let line = |one: &Use| format!("{}: {}", one.place, one.names.join(" "));
        asked.uses.iter().map(line).collect()
    }

    #[test]
    fn a_dashboard_is_walked() {
        let text = r#"{"title": "D", "panels": [
            {"type": "row", "title": "R", "panels": [
                {"title": "A \ud83d\ude00", "datasource": {"type": "prometheus", "uid": "x"}, "targets": [{"expr": "rate(a[5m])"}, {"expr": "b"}]}]},
            {"title": "Logs", "datasource": {"type": "loki"}, "targets": [{"expr": "{app=\"x\"} |= \"y\""}]},
            {"title": "Mixed", "datasource": {"type": "datasource", "uid": "-- Mixed --"}, "targets": [
                {"datasource": {"type": "loki"}, "expr": "count_over_time(z[1m])"}, {"datasource": "${DS}", "expr": "c"}]}],
            "templating": {"list": [
                {"name": "v", "type": "query", "query": {"query": "label_values(d, e)", "refId": "x"}},
                {"name": "w", "type": "query", "query": "label_values(f, g)"},
                {"name": "i", "type": "interval", "query": "1m,10m"}]},
            "annotations": {"list": [{"name": "n", "expr": "h", "type": "dashboard"}]}}"#;
        assert_eq!(
            shown(text),
            [
                "annotation \"n\": h",
                "panel \"A 😀\": a",
                "panel \"A 😀\": b",
                "panel \"Mixed\": c",
                "variable \"v\": d",
                "variable \"w\": f",
            ]
        );
        assert_eq!(shown(&format!("{{\"dashboard\": {text}}}")).len(), 6);
        let old = r#"{"rows": [{"panels": [{"title": "P", "targets": [{"expr": "x"}]}]}]}"#;
        assert_eq!(shown(old), ["panel \"P\": x"]);
    }

    #[test]
    fn rules_are_read() {
        let text = "groups:\n- name: g\n  rules:\n  - {record: a:b, expr: sum(b)}\n  - alert: A\n    expr: |\n      a:b > 1 and\n      c\n  - {alert: Number, expr: 1}\n";
        let expected = ["record a:b: b", "alert A: a:b c", "alert Number: "];
        assert_eq!(shown(text), expected);
        assert_eq!(parse("f", text).unwrap().recorded, ["a:b"]);
        let indented = text.replace('\n', "\n  ");
        assert_eq!(
            shown(&format!("kind: PrometheusRule\nspec:\n  {indented}")),
            expected
        );
    }

    #[test]
    fn what_is_neither_is_told() {
        let check = |text: &str, why: &str| {
            let error = parse("f", text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        };
        check("{}", "f: neither a dashboard");
        check("{", "f: not JSON");
        check("a: b\n", "f: neither a dashboard");
        check("a: [\n", "not YAML");
        check(
            "groups:\n- rules:\n  - alert: A\n",
            "f: alert A has no expr",
        );
    }
}
