//! What of a document becomes which metric: json_exporter's modules, in its words.
//!
//! ```yaml
//! modules:
//!   default:
//!     headers: {X-Token: abc}
//!     metrics:
//!     - name: example_value
//!       path: '{ .counter }'
//!       labels: {environment: beta, location: 'planet-{.location}'}
//!     - name: example_item
//!       type: object                       # a sample for each thing found, for each of `values`: example_item_count
//!       path: '{ .values[?(@.state == "ACTIVE")] }'
//!       labels: {id: '{.id}'}
//!       values: {active: 1, count: '{.count}'}
//! ```

use podkit_foundation::yaml::Path;

use super::path::Template;
use crate::metrics::batch::Kind;
use crate::metrics::source::words::{Words, is_label, is_metric};

/// Metrics of a module at most.
const MOST: usize = 1000;

const METRIC: [&str; 8] = [
    "name",
    "path",
    "type",
    "help",
    "labels",
    "values",
    "valuetype",
    "epochTimestamp",
];

const MODULE: [&str; 4] = ["metrics", "headers", "body", "valid_status_codes"];

/// How one asks, and what the answer means.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    /// Empty: 200 to 299.
    pub(super) statuses: Vec<u16>,
    pub(super) metrics: Vec<Metric>,
}

#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) help: String,
    pub(super) kind: Kind,
    pub(super) path: Template,
    pub(super) labels: Vec<(String, Template)>,
    /// Of `type: object`: metrics' names, and where in a thing found their values are. Else empty.
    pub(super) values: Vec<(String, Template)>,
}

/// A module of a file, which has `modules`, or is one itself. `is_named`: its samples get a label `source`.
pub(super) fn read(words: &mut Words<'_>, name: Option<&str>, is_named: bool) -> Module {
    let root = Path::root();
    let modules = root.key("modules");
    if !words.has(&modules) {
        if name.is_some() {
            words.wrong(&root, "has no modules");
        }
        return module(words, &root, is_named);
    }
    words.object(&root, &["modules"]);
    let wanted = name.unwrap_or("default");
    let mut found = None;
    let names = words.keys(&modules);
    for key in &names {
        let read = module(words, &modules.key(key.clone()), is_named);
        if key == wanted {
            found = Some(read);
        }
    }
    found.unwrap_or_else(|| {
        let why = format!(
            "there is no module {wanted}; there are {}",
            names.join(", ")
        );
        words.wrong(&modules, why);
        Module::default()
    })
}

fn module(words: &mut Words<'_>, path: &Path, is_named: bool) -> Module {
    words.object(path, &MODULE);
    let metrics = words.list(&path.key("metrics"), MOST);
    if metrics.is_empty() {
        words.wrong(path, "has no metrics");
    }
    let headers = words.pairs(&path.key("headers"));
    for (name, value) in &headers {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let field = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if !name.bytes().all(token) || name.is_empty() || !value.bytes().all(field) {
            words.wrong(
                &path.key("headers").key(name.clone()),
                "is no field of HTTP",
            );
        }
    }
    let body = path.key("body");
    words.object(&body, &["content"]);
    let statuses = path.key("valid_status_codes");
    let texts = words.texts(&statuses, 100);
    let codes: Vec<u16> = texts.iter().filter_map(|one| one.parse().ok()).collect();
    if codes.len() < texts.len() {
        words.wrong(&statuses, "expected numbers: [200, 404]");
    }
    Module {
        headers,
        body: words.text(&body.key("content")).unwrap_or_default(),
        statuses: codes,
        metrics: metrics
            .iter()
            .filter_map(|path| metric(words, path, is_named))
            .collect(),
    }
}

fn metric(words: &mut Words<'_>, path: &Path, is_named: bool) -> Option<Metric> {
    words.object(path, &METRIC);
    let at = |key: &'static str| path.key(key);
    let name = words.text(&at("name")).unwrap_or_default();
    if !is_metric(&name) {
        let why = "wants a name of letters, digits, _ and :, no digit first";
        words.wrong(&at("name"), why);
    }
    let is_object = words
        .word(&at("type"), &[("value", false), ("object", true)])
        .unwrap_or(false);
    let kinds = [
        ("gauge", Kind::Gauge),
        ("counter", Kind::Counter),
        ("untyped", Kind::Untyped),
    ];
    let kind = words
        .word(&at("valuetype"), &kinds)
        .unwrap_or(Kind::Untyped);
    if !words.has(&at("path")) {
        words.wrong(path, "has no path");
    }
    // Times are not passed on, whatever they are; a path that is wrong is wrong all the same.
    if words.has(&at("epochTimestamp")) {
        template(words, &at("epochTimestamp"));
    }
    let templates = |words: &mut Words<'_>, path: &Path| -> Vec<(String, Template)> {
        let keys = words.keys(path);
        let one = |key: String| {
            let found = template(words, &path.key(key.clone()))?;
            Some((key, found))
        };
        keys.into_iter().filter_map(one).collect()
    };
    let labels = templates(words, &at("labels"));
    for (label, _) in &labels {
        if !is_label(label) || label.starts_with("__") {
            words.wrong(&at("labels").key(label.clone()), "is no name for a label");
        } else if is_named && label == "source" {
            let why = "is the label that the source's name has";
            words.wrong(&at("labels").key(label.clone()), why);
        }
    }
    let mut values = templates(words, &at("values"));
    for (value, _) in &mut values {
        let full = format!("{name}_{value}");
        if !is_metric(&full) {
            words.wrong(
                &at("values").key(value.clone()),
                "is no part of a metric's name",
            );
        }
        *value = full;
    }
    if is_object && values.is_empty() {
        words.wrong(path, "is an object, and has no values");
    } else if !is_object && words.has(&at("values")) {
        words.wrong(&at("values"), "are for type: object");
    }
    let found = template(words, &at("path"))?;
    if !found.is_path() {
        words.wrong(&at("path"), "is no path: {.counter}");
    }
    Some(Metric {
        help: words.text(&at("help")).unwrap_or_default(),
        name,
        kind,
        path: found,
        labels,
        values,
    })
}

fn template(words: &mut Words<'_>, path: &Path) -> Option<Template> {
    let text = words.text(path)?;
    match Template::parse(&text) {
        Ok(found) => Some(found),
        Err(why) => {
            words.wrong(path, why);
            None
        }
    }
}
