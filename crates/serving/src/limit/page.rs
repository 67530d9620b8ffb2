//! The page of who is limited now, `/limited`: for people, and as JSON (no I/O).

use std::rc::Rc;

use podkit_dataplane::module::{Query, Route};
use serde_json::{Value, json};

use super::roll::Limited;
use super::set::Counted;
use crate::page::{self, Page};

const PAGE: Page = Page {
    style: ".num{text-align:right}",
    json: "/limited?format=json",
    plain: "<a href=\"/limited?format=json\">The same as JSON</a>.",
    main: include_str!("page/limited.html"),
    script: "/limited.js",
};

/// The endpoints of `module`; `shown` is what [`shown`] makes.
pub(crate) fn routes(module: &'static str, shown: impl Fn() -> Value + 'static) -> Vec<Route> {
    vec![
        Route {
            path: "/limited",
            answer: Rc::new(move |query| match wants_json(query) {
                true => page::json(&shown()),
                false => PAGE.html(module),
            }),
        },
        Route {
            path: PAGE.script,
            answer: Rc::new(|_| page::script(include_str!("page/limited.js"))),
        },
    ]
}

/// JSON is asked for: by `?format=json`, or by Accept.
fn wants_json(query: &Query<'_>) -> bool {
    let mut ranges = query
        .accept
        .split(',')
        .filter_map(|it| it.split(';').next());
    query.query.split('&').any(|pair| pair == "format=json")
        || ranges.any(|range| range.trim().eq_ignore_ascii_case("application/json"))
}

/// Who is limited, and what the rules did.
pub(super) fn shown(limited: &[Limited], rules: &[Counted], problem: Option<&str>) -> Value {
    let rules: Vec<_> = rules
        .iter()
        .map(|one| {
            let [allowed, limited, shadow] = one.counts();
            let (name, text) = (&one.rule.name, &one.rule.text);
            json!({"name": name, "allowed": allowed, "limited": limited, "shadow": shadow, "rule": text})
        })
        .collect();
    json!({"limited": limited, "rules": rules, "problem": problem})
}

/// The same of several stages, by name.
pub(crate) fn joined<'a>(stages: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let (mut lists, mut problems) = ([Vec::new(), Vec::new()], Vec::new());
    for (name, mut shown) in stages {
        for (list, key) in lists.iter_mut().zip(["limited", "rules"]) {
            if let Value::Array(items) = shown[key].take() {
                list.extend(items.into_iter().map(|mut item| {
                    item["stage"] = name.into();
                    item
                }));
            }
        }
        problems.extend(
            shown["problem"]
                .as_str()
                .map(|why| format!("{name}: {why}")),
        );
    }
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    let [limited, rules] = lists;
    json!({"limited": limited, "rules": rules, "problem": problem})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stages_show_is_joined_with_their_names() {
        let shown = |rule: &str, problem: Option<&str>| json!({"limited": [{"rule": rule}], "rules": [{"name": rule}], "problem": problem});
        let stages = [("a", shown("x", None)), ("b", shown("y", Some("no")))];
        let joined = joined(stages.into_iter());
        let expected = json!({
            "limited": [{"rule": "x", "stage": "a"}, {"rule": "y", "stage": "b"}],
            "rules": [{"name": "x", "stage": "a"}, {"name": "y", "stage": "b"}],
            "problem": "b: no",
        });
        assert_eq!(joined, expected);
    }
}
