//! The paths of `wait --for=jsonpath=…`: fields, indexes and one filter, as kubectl's JSONPath has them.

use serde_json::Value;

/// `{.status.containerStatuses[?(@.name=="app")].ready}`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Where { field: String, value: String },
}

impl JsonPath {
    /// Reads it; an error says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let inner = text.trim();
        let inner = match inner.strip_prefix('{') {
            Some(rest) => rest
                .strip_suffix('}')
                .ok_or_else(|| format!("\"{text}\": the closing brace is missing"))?,
            None => inner,
        };
        let mut steps = Vec::new();
        let mut rest = inner.strip_prefix('$').unwrap_or(inner);
        while !rest.is_empty() {
            if let Some(bracket) = rest.strip_prefix('[') {
                let end = closing(bracket).ok_or_else(|| format!("\"{text}\": ] is missing"))?;
                steps.push(
                    bracketed(&bracket[..end]).ok_or_else(|| unknown(text, &bracket[..end]))?,
                );
                rest = &bracket[end + 1..];
                continue;
            }
            let field = match rest.strip_prefix('.') {
                Some(field) => field,
                None if steps.is_empty() => rest,
                None => return Err(unknown(text, rest)),
            };
            let mut name = String::new();
            let mut chars = field.char_indices();
            let mut end = field.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    // A dot in a name, such as a label's.
                    '\\' => name.extend(chars.next().map(|(_, c)| c)),
                    '.' | '[' => {
                        end = at;
                        break;
                    }
                    c => name.push(c),
                }
            }
            if name.is_empty() {
                return Err(unknown(text, rest));
            }
            steps.push(match name.as_str() {
                "*" => Step::All,
                _ => Step::Field(name),
            });
            rest = &field[end..];
        }
        match steps.is_empty() {
            true => Err(format!(
                "\"{text}\" is empty; expected such as {{.status.phase}}"
            )),
            false => Ok(Self(steps)),
        }
    }

    /// What it leads to, as text.
    pub(super) fn values(&self, object: &Value) -> Vec<String> {
        let mut found = vec![object];
        for step in &self.0 {
            found = found
                .into_iter()
                .flat_map(|value| take(step, value))
                .collect();
        }
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        found.into_iter().map(text).collect()
    }
}

fn unknown(text: &str, part: &str) -> String {
    format!(
        "\"{text}\": {part:?} is not understood; expected such as {{.status.phase}}, {{.spec.containers[0].name}} or \
         {{.status.conditions[?(@.type==\"Ready\")].status}}"
    )
}

/// The bracket's end, outside quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    text.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ']') => return Some(at),
            _ => {}
        }
        None
    })
}

fn bracketed(text: &str) -> Option<Step> {
    let text = text.trim();
    let quoted = |text: &str| -> Option<String> {
        let inner = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
        inner('"').or_else(|| inner('\'')).map(str::to_owned)
    };
    if text == "*" {
        return Some(Step::All);
    }
    if let Ok(index) = text.parse() {
        return Some(Step::Index(index));
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Field(name));
    }
    let filter = text.strip_prefix("?(")?.strip_suffix(')')?;
    let (field, value) = filter.split_once("==")?;
    let value = value.trim();
    Some(Step::Where {
        field: field.trim().strip_prefix("@.")?.to_owned(),
        value: quoted(value).unwrap_or_else(|| value.to_owned()),
    })
}

fn take<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    let is = |item: &Value, field: &str, wanted: &str| match &item[field] {
        Value::String(text) => text == wanted,
        Value::Null => false,
        other => {
            let text = other.to_string();
            text == wanted
        }
    };
    match (step, value) {
        (Step::Field(name), Value::Object(fields)) => fields.get(name).into_iter().collect(),
        (Step::All, Value::Object(fields)) => fields.values().collect(),
        (Step::All, Value::Array(items)) => items.iter().collect(),
        (Step::Index(index), Value::Array(items)) => {
            let index = match *index {
                from_end if from_end < 0 => items.len().checked_add_signed(from_end as isize),
                index => usize::try_from(index).ok(),
            };
            index
                .and_then(|index| items.get(index))
                .into_iter()
                .collect()
        }
        (Step::Where { field, value }, Value::Array(items)) => {
            items.iter().filter(|item| is(item, field, value)).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_as_kubectl_has_them() {
        let pod = json!({"status": {"phase": "Running", "n": 3, "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
            "metadata": {"labels": {"example.com/x": "y"}}});
        let check = |path: &str, expected: &[&str]| {
            assert_eq!(
                JsonPath::parse(path).unwrap().values(&pod),
                expected,
                "{path}"
            );
        };
        check("{.status.phase}", &["Running"]);
        check(".status.phase", &["Running"]);
        check("status.n", &["3"]);
        check("{.status.conditions[0].type}", &["Ready"]);
        check("{.status.conditions[-1].type}", &["Other"]);
        check("{.status.conditions[*].type}", &["Ready", "Other"]);
        check(
            "{.status.conditions[?(@.type==\"Ready\")].status}",
            &["True"],
        );
        check("{.status.conditions[?(@.type=='No]ne')].status}", &[]);
        check("{.metadata.labels.example\\.com/x}", &["y"]);
        check("{.metadata.labels['example.com/x']}", &["y"]);
        check("{.nothing.here}", &[]);
        for bad in [
            "",
            "{}",
            "{.a",
            "{.a[}",
            "{.a[x]}",
            "{..a}",
            "{.a[?(@.b>1)]}",
        ] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
