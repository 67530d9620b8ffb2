//! The file: its text to rules. Unknown keys, and what statsd_exporter refuses, are errors, each with its line.

use std::path::Path as FilePath;
use std::sync::Arc;

use podkit_foundation::yaml::Path;

use super::super::window::Age;
use super::time::seconds;
use super::{Mapping, Observer, Pattern, Rule, Sort, Treatment};
use crate::metrics::source::words::{self, MANY, Words, is_label};

/// Rules of a file, at most.
const MOST_RULES: usize = 10_000;
/// Parts of a glob, at most.
const MOST_PARTS: usize = 100;
/// Those of the client library of Prometheus.
const BOUNDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

const KEYS: [&str; 16] = [
    "match",
    "match_type",
    "name",
    "labels",
    "honor_labels",
    "help",
    "action",
    "match_metric_type",
    "observer_type",
    "timer_type",
    "ttl",
    "scale",
    "summary_options",
    "histogram_options",
    "quantiles",
    "buckets",
];

/// How observations are shown, when it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Summary,
    Histogram,
}

const SHOWN: [(&str, Shown); 3] = [
    ("summary", Shown::Summary),
    ("histogram", Shown::Histogram),
    ("", Shown::Summary),
];

/// What `defaults` or a rule says of observations.
#[derive(Debug, Clone, Default)]
struct Options {
    shown: Option<Shown>,
    quantiles: Option<Arc<[f64]>>,
    max_age: Option<f64>,
    parts: Option<u32>,
    bounds: Option<Arc<[f64]>>,
    ttl: Option<u32>,
}

impl Options {
    /// These, and what they don't say from `others`.
    fn or(&self, others: &Self) -> Self {
        Self {
            shown: self.shown.or(others.shown),
            quantiles: self.quantiles.clone().or(others.quantiles.clone()),
            max_age: self.max_age.or(others.max_age),
            parts: self.parts.or(others.parts),
            bounds: self.bounds.clone().or(others.bounds.clone()),
            ttl: self.ttl.filter(|ttl| *ttl > 0).or(others.ttl),
        }
    }

    /// With what is usual for what they don't say.
    fn treatment(&self) -> Treatment {
        let observer = match self.shown {
            Some(Shown::Histogram) => Observer::Histogram {
                bounds: self.bounds.clone().unwrap_or_else(|| BOUNDS.into()),
            },
            _ => Observer::Summary {
                quantiles: self.quantiles.clone().unwrap_or_else(|| QUANTILES.into()),
            },
        };
        let some = |seconds: &f64| *seconds > 0.0;
        Treatment {
            observer,
            age: Age {
                max: self.max_age.filter(some).unwrap_or(Age::USUAL.max),
                parts: self.parts.unwrap_or(Age::USUAL.parts),
            },
            ttl: self.ttl.unwrap_or_default(),
            scale: None,
            help: None,
        }
    }
}

/// What is done with samples when no file says anything.
pub(super) fn usual(ttl: u32) -> Treatment {
    let options = Options {
        ttl: Some(ttl),
        ..Options::default()
    };
    options.treatment()
}

/// The mapping of a text; `ttl`, in seconds, is that of series for which it says none. An empty one has no rules.
#[cfg(any(test, feature = "fuzz"))]
pub(in super::super) fn parse(name: &str, text: &str, ttl: u32) -> Result<Mapping, String> {
    words::parse("mapping", name, text, |words| whole(words, ttl))
}

/// That of a file.
pub(in super::super) fn read(path: &FilePath, ttl: u32) -> Result<Mapping, String> {
    words::file("mapping", path, |words| whole(words, ttl))
}

fn whole(words: &mut Words<'_>, ttl: u32) -> Mapping {
    let top = Path::root();
    words.object(&top, &["defaults", "mappings"]);
    let at = top.key("defaults");
    let known = [
        "observer_type",
        "timer_type",
        "match_type",
        "glob_disable_ordering",
        "ttl",
        "summary_options",
        "histogram_options",
        "quantiles",
        "buckets",
    ];
    words.object(&at, &known);
    let mut defaults = options(words, &at);
    defaults.ttl = defaults.ttl.filter(|ttl| *ttl > 0).or(Some(ttl));
    let is_regex = match_type(words, &at).unwrap_or(false);
    let is_unordered = words.truth(&at.key("glob_disable_ordering"));
    let paths = words.list(&top.key("mappings"), MOST_RULES);
    let mut rules = Vec::new();
    for path in &paths {
        rules.extend(rule(words, path, &defaults, is_regex));
    }
    Mapping::new(rules, defaults.treatment(), !is_unordered.unwrap_or(false))
}

fn match_type(words: &mut Words<'_>, path: &Path) -> Option<bool> {
    let known = [("glob", false), ("regex", true), ("", false)];
    words.word(&path.key("match_type"), &known)
}

fn options(words: &mut Words<'_>, path: &Path) -> Options {
    let shown = words.word(&path.key("observer_type"), &SHOWN);
    // The former names of keys, where there is none of the new ones.
    let shown = shown.or_else(|| words.word(&path.key("timer_type"), &SHOWN));
    let summary = path.key("summary_options");
    let known = ["quantiles", "max_age", "age_buckets", "buf_cap"];
    words.object(&summary, &known);
    let new = quantiles(words, &summary.key("quantiles"));
    let former = quantiles(words, &path.key("quantiles"));
    // Nothing is buffered here.
    words.count(&summary.key("buf_cap"), 0, u32::MAX);
    let histogram = path.key("histogram_options");
    let known = [
        "buckets",
        "native_histogram_bucket_factor",
        "native_histogram_max_buckets",
    ];
    words.object(&histogram, &known);
    // Those are for a format that is not spoken here.
    words.number(&histogram.key(known[1]));
    words.count(&histogram.key(known[2]), 0, u32::MAX);
    let bounds = numbers(words, &histogram.key("buckets"));
    let former_bounds = numbers(words, &path.key("buckets"));
    let ttl = seconds(words, &path.key("ttl"));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 1e9"
    )]
    let ttl = ttl.map(|seconds| seconds.ceil() as u32);
    Options {
        shown,
        quantiles: new.or(former),
        max_age: seconds(words, &summary.key("max_age")),
        parts: words
            .count(&summary.key("age_buckets"), 0, 100)
            .filter(|parts| *parts > 0),
        bounds: bounds.or(former_bounds),
        ttl,
    }
}

fn quantiles(words: &mut Words<'_>, path: &Path) -> Option<Arc<[f64]>> {
    let mut all = Vec::new();
    for path in words.list(path, MANY) {
        if !words.object(&path, &["quantile", "error"]) {
            continue;
        }
        for (key, is_value) in [("quantile", true), ("error", false)] {
            let at = path.key(key);
            let Some(number) = words.number(&at) else {
                continue;
            };
            if !(0.0..=1.0).contains(&number) {
                words.wrong(&at, "is not within 0 and 1");
            } else if is_value {
                all.push(number);
            }
        }
    }
    all.sort_by(f64::total_cmp);
    all.dedup();
    (!all.is_empty()).then(|| all.into())
}

fn rule(words: &mut Words<'_>, path: &Path, defaults: &Options, is_regex: bool) -> Option<Rule> {
    if !words.object(path, &KEYS) {
        words.wrong(path, "expected an object with match and name");
        return None;
    }
    let name_at = path.key("name");
    let name = words.text(&name_at).unwrap_or_default();
    if !is_name(&name) {
        let why = format!(
            "\"{name}\" is not a metric's name, such as http_requests_total or ${{1}}_total"
        );
        words.wrong(&name_at, why);
    }
    let is_regex = match_type(words, path).unwrap_or(is_regex);
    let pattern = pattern(words, &path.key("match"), is_regex);
    let labels = labels(words, &path.key("labels"));
    let own = options(words, path);
    let all = own.or(defaults);
    let summary = path.key("summary_options");
    let histogram = path.key("histogram_options");
    if all.shown == Some(Shown::Histogram) && words.has(&summary) {
        words.wrong(&summary, "can't go with a histogram");
    }
    if all.shown == Some(Shown::Summary) && words.has(&histogram) {
        words.wrong(&histogram, "can't go with a summary");
    }
    let sorts = [
        ("counter", Sort::Counter),
        ("gauge", Sort::Gauge),
        ("observer", Sort::Observer),
        // Its former name.
        ("timer", Sort::Observer),
    ];
    let sort = words.word(&path.key("match_metric_type"), &sorts);
    let actions = [("map", false), ("drop", true), ("", false)];
    let is_drop = words.word(&path.key("action"), &actions).unwrap_or(false);
    let honor_labels = words.truth(&path.key("honor_labels")).unwrap_or(false);
    let mut treatment = all.treatment();
    treatment.scale = words.number(&path.key("scale"));
    treatment.help = words.text(&path.key("help")).map(Arc::from);
    Some(Rule {
        pattern: pattern?,
        sort,
        name,
        labels,
        honor_labels,
        is_drop,
        treatment,
    })
}

fn pattern(words: &mut Words<'_>, path: &Path, is_regex: bool) -> Option<Pattern> {
    let text = words.text(path).unwrap_or_default();
    if text.is_empty() {
        words.wrong(
            path,
            "is missing: what names the rule is for, such as app.*.requests",
        );
        return None;
    }
    if is_regex {
        return words.regex(path, &text, false).map(Pattern::Regex);
    }
    let part = |(at, part): (usize, &str)| {
        let right = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let begins = |first: u8| match at {
            0 => first.is_ascii_alphabetic() || first == b'_',
            _ => first.is_ascii_alphanumeric() || first == b'_',
        };
        part == "*" || part.bytes().next().is_some_and(begins) && part.bytes().all(right)
    };
    if !text.split('.').enumerate().all(part) || text.split('.').count() > MOST_PARTS {
        let why = format!(
            "\"{text}\" is not a glob: at most {MOST_PARTS} parts with dots between, each a * or letters, digits, _ and -"
        );
        words.wrong(path, why);
        return None;
    }
    Some(Pattern::Glob(text))
}

fn labels(words: &mut Words<'_>, path: &Path) -> Vec<(String, String)> {
    let labels = words.pairs(path);
    for (name, _) in labels.iter().filter(|(name, _)| !is_label(name)) {
        let why = "is not a label's name: letters, digits and _";
        words.wrong(&path.key(name.clone()), why);
    }
    labels
}

/// Numbers in ascending order.
fn numbers(words: &mut Words<'_>, path: &Path) -> Option<Arc<[f64]>> {
    let paths = words.list(path, MANY);
    let numbers: Vec<f64> = paths.iter().filter_map(|path| words.number(path)).collect();
    if let Some(at) = numbers.windows(2).position(|two| two[0] >= two[1]) {
        words.wrong(&path.index(at + 1), "is not above the one before it");
    }
    (!numbers.is_empty()).then(|| numbers.into())
}

/// Letters, digits, `_`, and references such as `$1` and `${1}`.
fn is_name(name: &str) -> bool {
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let word = rest.strip_prefix("${").or(rest.strip_prefix('$'));
        rest = match word {
            Some(word) => {
                let end = word
                    .find(|one: char| !one.is_ascii_digit())
                    .unwrap_or(word.len());
                let after = &word[end..];
                if end == 0 {
                    return false;
                }
                after.strip_prefix('}').unwrap_or(after)
            }
            None => {
                let right = first.is_ascii_alphabetic() || first == '_';
                if !right && (rest.len() == name.len() || !first.is_ascii_digit()) {
                    return false;
                }
                &rest[1..]
            }
        };
    }
    !name.is_empty()
}
