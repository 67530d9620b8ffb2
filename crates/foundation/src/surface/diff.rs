//! What changed between two surfaces: `explain --diff OLD.json`. A change that can break a manifest, a script, a
//! dashboard or an alert is breaking; an addition is not.

use std::collections::BTreeMap;

use serde_json::Value;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// It can break someone.
    pub breaking: bool,
    /// `tls --listen: default :8443 → :443`.
    pub line: String,
}

/// Every change from `old` to `new`, both as [`super::json::program`] makes them; breaking ones first.
pub fn between(old: &Value, new: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    let (old, new) = (
        by_key(&old["modules"], "name"),
        by_key(&new["modules"], "name"),
    );
    for (name, was) in &old {
        match new.get(name) {
            None => changes.push(breaking(format!("{name}: the module is gone"))),
            Some(is) => module(name, was, is, &mut changes),
        }
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        changes.push(addition(format!("{name}: a new module")));
    }
    changes.sort_by_key(|change| !change.breaking);
    changes
}

fn module(name: &str, was: &Value, is: &Value, changes: &mut Vec<Change>) {
    let (old, new) = (
        by_key(&was["parameters"], "name"),
        by_key(&is["parameters"], "name"),
    );
    for (param, was) in &old {
        match new.get(param) {
            None => changes.push(breaking(format!("{name} --{param}: is gone"))),
            Some(is) => parameter(&format!("{name} --{param}"), was, is, changes),
        }
    }
    for (param, is) in new.iter().filter(|(param, _)| !old.contains_key(*param)) {
        let line = format!("{name} --{param}: a new parameter");
        match is["required"].as_bool() {
            Some(true) => changes.push(breaking(format!("{line} that is required"))),
            _ => changes.push(addition(line)),
        }
    }
    for (part, key) in [
        ("ports", "param"),
        ("endpoints", "path"),
        ("metrics", "name"),
    ] {
        let (old, new) = (by_key(&was[part], key), by_key(&is[part], key));
        let one = part.trim_end_matches('s');
        for (what, was) in &old {
            let Some(is) = new.get(what) else {
                changes.push(breaking(format!("{name} {one} {what}: is gone")));
                continue;
            };
            for field in ["port", "protocol", "type", "labels", "open"] {
                if was[field] != is[field] {
                    let line = format!(
                        "{name} {one} {what}: {field} {} → {}",
                        was[field], is[field]
                    );
                    changes.push(breaking(line));
                }
            }
        }
        for what in new.keys().filter(|what| !old.contains_key(*what)) {
            changes.push(addition(format!("{name} {one} {what}: new")));
        }
    }
}

fn parameter(name: &str, was: &Value, is: &Value, changes: &mut Vec<Change>) {
    for field in ["variable", "type", "unit", "default", "repeatable"] {
        if was[field] != is[field] {
            // A list where one value was taken takes that one value still.
            let widened = field == "repeatable" && is[field] == true;
            let line = format!("{name}: {field} {} → {}", was[field], is[field]);
            changes.push(Change {
                breaking: !widened,
                line,
            });
        }
    }
    if was["required"] == false && is["required"] == true {
        changes.push(breaking(format!("{name}: is required now")));
    }
    let bound = |value: &Value, at: usize| value["bounds"][at].as_u64();
    let narrower =
        |was: Option<u64>, is: Option<u64>, tighter: fn(u64, u64) -> bool| match (was, is) {
            (Some(was), Some(is)) => tighter(is, was),
            (None, Some(_)) => true,
            (_, None) => false,
        };
    if narrower(bound(was, 0), bound(is, 0), |is, was| is > was)
        || narrower(bound(was, 1), bound(is, 1), |is, was| is < was)
    {
        let line = format!("{name}: bounds {} → {}", was["bounds"], is["bounds"]);
        changes.push(breaking(line));
    }
    let words =
        |value: &Value| -> Vec<Value> { value["choices"].as_array().cloned().unwrap_or_default() };
    let (old, new) = (words(was), words(is));
    for word in old.iter().filter(|word| !new.contains(word)) {
        changes.push(breaking(format!("{name}: the choice {word} is gone")));
    }
    for word in new.iter().filter(|word| !old.contains(word)) {
        changes.push(addition(format!("{name}: a new choice {word}")));
    }
}

fn by_key<'a>(list: &'a Value, key: &str) -> BTreeMap<&'a str, &'a Value> {
    let entries = list.as_array().into_iter().flatten();
    entries
        .filter_map(|entry| Some((entry[key].as_str()?, entry)))
        .collect()
}

fn breaking(line: String) -> Change {
    Change {
        breaking: true,
        line,
    }
}

fn addition(line: String) -> Change {
    Change {
        breaking: false,
        line,
    }
}
