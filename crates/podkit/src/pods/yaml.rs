//! JSON values as YAML, in the form in which kubectl writes them: block style, keys in order, two spaces.
//!
//! Written here because a value needs a page of code, and the libraries that write YAML are unkept or bring a parser along.

use std::fmt::Write as _;

use serde_json::Value;

/// The text of a document.
pub(super) fn text(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => write(value, 0, &mut text),
        Value::Array(items) if !items.is_empty() => write(value, 0, &mut text),
        _ => {
            scalar(value, 0, &mut text);
            text.push('\n');
        }
    }
    text
}

/// A map or list that is not empty, at the beginning of a line.
fn write(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) => {
            for (index, (key, value)) in fields.iter().enumerate() {
                // The first key of an item stands behind its dash.
                if index > 0 || !text.ends_with("- ") {
                    text.extend(std::iter::repeat_n(' ', indent));
                }
                string(key, indent, text);
                text.push(':');
                below(value, indent, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                text.extend(std::iter::repeat_n(' ', indent));
                text.push_str("- ");
                match item {
                    Value::Object(fields) if !fields.is_empty() => write(item, indent + 2, text),
                    Value::Array(items) if !items.is_empty() => {
                        text.pop();
                        text.push('\n');
                        write(item, indent + 2, text);
                    }
                    _ => {
                        scalar(item, indent + 2, text);
                        text.push('\n');
                    }
                }
            }
        }
        _ => scalar(value, indent, text),
    }
}

/// What follows a key.
fn below(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            write(value, indent + 2, text);
        }
        // As kubectl does: the dashes stand below the key.
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            write(value, indent, text);
        }
        _ => {
            text.push(' ');
            scalar(value, indent + 2, text);
            text.push('\n');
        }
    }
}

fn scalar(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::String(value) => string(value, indent, text),
        Value::Object(_) => text.push_str("{}"),
        Value::Array(_) => text.push_str("[]"),
        other => write!(text, "{other}").expect("writing to a String can't fail"),
    }
}

/// Plain where that can mean nothing else, a block for several plain lines, else quoted as JSON, which is YAML.
fn string(value: &str, indent: usize, text: &mut String) {
    if is_plain(value) {
        text.push_str(value);
    } else if is_block(value) {
        text.push_str(if value.ends_with('\n') { "|" } else { "|-" });
        for line in value.strip_suffix('\n').unwrap_or(value).split('\n') {
            text.push('\n');
            if !line.is_empty() {
                text.extend(std::iter::repeat_n(' ', indent));
                text.push_str(line);
            }
        }
    } else {
        text.push_str(&Value::from(value).to_string());
    }
}

fn is_plain(value: &str) -> bool {
    let first = value.bytes().next().unwrap_or(b' ');
    let words = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-./+()%@ ,=:".contains(c);
    (first.is_ascii_alphabetic() || b"/_".contains(&first))
        && value.chars().all(safe)
        && !value.contains(": ")
        && !value.ends_with([' ', ':'])
        && !words.contains(&value.to_ascii_lowercase().as_str())
}

fn is_block(value: &str) -> bool {
    value.trim_end_matches('\n').contains('\n')
        && !value.starts_with([' ', '\n', '\t'])
        && !value.ends_with("\n\n")
        && value.chars().all(|c| c == '\n' || !c.is_control())
        && !value.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_looks_as_kubectl_writes_it() {
        let pod = json!({"apiVersion": "v1", "metadata": {"labels": {}, "name": "web"}, "spec": {"containers": [
            {"args": ["-c", "a\nb\n"], "name": "app", "tty": true},
            {"name": "two", "ports": [{"containerPort": 80}], "x": []}]}, "n": null, "no": "yes", "t": "2026-01-01T00:00:00Z"});
        assert_eq!(
            text(&pod),
            "apiVersion: v1\nmetadata:\n  labels: {}\n  name: web\n\"n\": null\n\"no\": \"yes\"\nspec:\n  containers:\n  - args:\n    - \"-c\"\n    \
             - |\n      a\n      b\n    name: app\n    tty: true\n  - name: two\n    ports:\n    - containerPort: 80\n    x: []\nt: \"2026-01-01T00:00:00Z\"\n"
        );
    }
}
