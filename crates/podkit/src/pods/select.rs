//! Label selectors: `app=web,tier!=db,env in (a, b),!canary`. (Kubernetes: apimachinery, `labels.Parse`)

use serde_json::Value;

/// All requirements must hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Debug, PartialEq, Eq)]
enum Requirement {
    Is(String, Vec<String>),
    IsNot(String, Vec<String>),
    Has(String),
    HasNot(String),
}

impl Selector {
    /// Reads it; an error says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts = split(text)?;
        let requirements = parts.iter().map(|part| requirement(part.trim()));
        requirements.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a pod's labels are as it says.
    pub(super) fn takes(&self, pod: &Value) -> bool {
        let labels = &pod["metadata"]["labels"];
        let is = |key: &str, values: &[String]| {
            let value = labels[key].as_str();
            value.is_some_and(|value| values.iter().any(|wanted| wanted == value))
        };
        self.0.iter().all(|requirement| match requirement {
            Requirement::Is(key, values) => is(key, values),
            Requirement::IsNot(key, values) => !is(key, values),
            Requirement::Has(key) => labels[key].is_string(),
            Requirement::HasNot(key) => !labels[key].is_string(),
        })
    }
}

/// At the commas that are not inside brackets.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut begin, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return Err(format!("\"{text}\": the brackets don't match")),
            ',' if !inside => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(format!("\"{text}\": the brackets don't match"));
    }
    parts.push(&text[begin..]);
    Ok(parts)
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let bad = || {
        format!(
            "\"{text}\" is not a requirement; expected such as app=web, app!=web, app in (a, b), app notin (a), app or !app"
        )
    };
    let key = |text: &str| -> Result<String, String> {
        let text = text.trim();
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if text.is_empty() || !text.chars().all(fine) {
            return Err(bad());
        }
        Ok(text.to_owned())
    };
    if let Some((name, values)) = text.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(bad)?;
        let values = values.split(',').map(|value| value.trim().to_owned());
        let values = values.collect();
        let name = name.trim();
        return if let Some(name) = name.strip_suffix(" notin") {
            Ok(Requirement::IsNot(key(name)?, values))
        } else if let Some(name) = name.strip_suffix(" in") {
            Ok(Requirement::Is(key(name)?, values))
        } else {
            Err(bad())
        };
    }
    let value = |text: &str| vec![text.trim().to_owned()];
    if let Some((name, wanted)) = text.split_once("!=") {
        Ok(Requirement::IsNot(key(name)?, value(wanted)))
    } else if let Some((name, wanted)) = text.split_once("==").or_else(|| text.split_once('=')) {
        Ok(Requirement::Is(key(name)?, value(wanted)))
    } else if let Some(name) = text.strip_prefix('!') {
        Ok(Requirement::HasNot(key(name)?))
    } else {
        Ok(Requirement::Has(key(text)?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requirements_of_every_form() {
        let pod = json!({"metadata": {"labels": {"app": "web", "example.com/tier": "front"}}});
        let takes = |text: &str| Selector::parse(text).unwrap().takes(&pod);
        for yes in [
            "app=web",
            "app==web",
            "app = web , !canary",
            "app!=db",
            "none!=x",
            "app in (db, web)",
            "app notin (db)",
            "example.com/tier",
        ] {
            assert!(takes(yes), "{yes}");
        }
        for no in [
            "app=db",
            "app!=web",
            "!app",
            "canary",
            "app in (db),app",
            "app notin (web)",
        ] {
            assert!(!takes(no), "{no}");
        }
        for bad in [
            "",
            "app in web",
            "app in (web",
            "a b",
            "=x",
            "app in (web))",
            ",",
        ] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }
}
