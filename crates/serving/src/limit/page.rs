//! The page of who is limited now, `/limited`: for people, and as JSON (no I/O).

use std::sync::LazyLock;

use podkit_dataplane::module::{Answer, Query};
use serde_json::json;

use super::roll::Limited;
use super::set::Counted;

/// The page. Its script is apart, so that the page's policy can allow no other.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("page/limited.html").replace("/*STYLE*/", podkit_dataplane::admin::STYLE)
});

/// JSON is asked for: by `?format=json`, or by Accept.
pub(super) fn wants_json(query: &Query<'_>) -> bool {
    let mut ranges = query
        .accept
        .split(',')
        .filter_map(|it| it.split(';').next());
    query.query.split('&').any(|pair| pair == "format=json")
        || ranges.any(|range| range.trim().eq_ignore_ascii_case("application/json"))
}

pub(super) fn html() -> Answer {
    answer("text/html; charset=utf-8", PAGE.as_bytes())
}

pub(super) fn script() -> Answer {
    let script = include_str!("page/limited.js");
    answer("text/javascript; charset=utf-8", script.as_bytes())
}

/// Who is limited, and what the rules did.
pub(super) fn json(limited: &[Limited], rules: &[Counted], problem: Option<&str>) -> Answer {
    let rules: Vec<_> = rules
        .iter()
        .map(|one| {
            let [allowed, limited, shadow] = one.counts();
            let (name, text) = (&one.rule.name, &one.rule.text);
            json!({"name": name, "allowed": allowed, "limited": limited, "shadow": shadow, "rule": text})
        })
        .collect();
    let body = json!({"limited": limited, "rules": rules, "problem": problem});
    answer("application/json", format!("{body}\n").as_bytes())
}

fn answer(content_type: &'static str, body: &[u8]) -> Answer {
    Answer {
        status: 200,
        content_type,
        body: body.to_vec(),
    }
}
