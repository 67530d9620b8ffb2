//! Which attributes become which metrics: jmx_exporter's configuration, in its words.
//!
//! ```yaml
//! lowercaseOutputName: true
//! includeObjectNames: ["kafka.server:*"]
//! rules:
//! - pattern: 'kafka.server<type=(.+), name=(.+)PerSec\w*><>Count'
//!   name: kafka_server_$1_$2_total
//!   type: COUNTER
//! ```

use podkit_foundation::yaml::Path;
use regex::bytes::{Captures, Regex};

use super::names::Name;
use crate::metrics::batch::{Batch, Kind, metric_name};
use crate::metrics::source::words::Words;

/// Rules of a file at most.
const MOST: usize = 1000;

/// What is asked for, and what comes of it.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<Name>,
    lower_names: bool,
    lower_labels: bool,
    rules: Vec<Rule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            include: vec!["*:*".to_owned()],
            exclude: Vec::new(),
            lower_names: false,
            lower_labels: false,
            rules: vec![Rule::default()],
        }
    }
}

#[derive(Debug, Default)]
struct Rule {
    /// None: every one.
    pattern: Option<Regex>,
    /// None: the usual name, and labels.
    name: Option<String>,
    value: Option<String>,
    factor: Option<f64>,
    labels: Vec<(String, String)>,
    help: Option<String>,
    kind: Option<Kind>,
    snake: bool,
}

/// A value of an MBean.
#[derive(Debug)]
pub(super) struct Attribute<'a> {
    pub(super) bean: &'a Name,
    /// Into composite values.
    pub(super) path: &'a [&'a str],
    pub(super) name: &'a str,
    /// As it is shown to patterns.
    pub(super) shown: &'a str,
    /// None: it is no number.
    pub(super) value: Option<f64>,
}

/// The configuration of a file. `is_named`: samples get a label `source`.
pub(super) fn read(words: &mut Words<'_>, is_named: bool) -> Config {
    const KEYS: [&str; 7] = [
        "lowercaseOutputName",
        "lowercaseOutputLabelNames",
        "whitelistObjectNames",
        "includeObjectNames",
        "blacklistObjectNames",
        "excludeObjectNames",
        "rules",
    ];
    let root = Path::root();
    words.object(&root, &KEYS);
    let mut names = |keys: [&'static str; 2]| -> Vec<String> {
        let mut names = Vec::new();
        for key in keys {
            let path = root.key(key);
            for (at, text) in words.texts(&path, MOST).into_iter().enumerate() {
                if Name::parse(&text).is_none() {
                    words.wrong(
                        &path.index(at),
                        "is no name of MBeans: java.lang:type=Memory,*",
                    );
                }
                names.push(text);
            }
        }
        names
    };
    let include = names(["whitelistObjectNames", "includeObjectNames"]);
    let exclude = names(["blacklistObjectNames", "excludeObjectNames"]);
    let usual = Config::default();
    let rules = root.key("rules");
    Config {
        include: if include.is_empty() {
            usual.include
        } else {
            include
        },
        exclude: exclude
            .iter()
            .filter_map(|text| Name::parse(text))
            .collect(),
        lower_names: words
            .truth(&root.key("lowercaseOutputName"))
            .unwrap_or(false),
        lower_labels: words
            .truth(&root.key("lowercaseOutputLabelNames"))
            .unwrap_or(false),
        rules: match words.has(&rules) {
            false => usual.rules,
            true => {
                let paths = words.list(&rules, MOST);
                paths
                    .iter()
                    .filter_map(|path| rule(words, path, is_named))
                    .collect()
            }
        },
    }
}

fn rule(words: &mut Words<'_>, path: &Path, is_named: bool) -> Option<Rule> {
    const KEYS: [&str; 8] = [
        "pattern",
        "name",
        "value",
        "valueFactor",
        "labels",
        "help",
        "type",
        "attrNameSnakeCase",
    ];
    const KINDS: [(&str, Kind); 3] = [
        ("GAUGE", Kind::Gauge),
        ("COUNTER", Kind::Counter),
        ("UNTYPED", Kind::Untyped),
    ];
    words.object(path, &KEYS);
    let at = |key: &'static str| path.key(key);
    let name = words.text(&at("name"));
    let labels = words.pairs(&at("labels"));
    if name.is_none() && !labels.is_empty() {
        words.wrong(&at("labels"), "want a name beside them");
    }
    if let Some((label, _)) = labels.iter().find(|(name, _)| is_named && name == "source") {
        let why = "is the label that the source's name has";
        words.wrong(&at("labels").key(label.clone()), why);
    }
    let pattern = match words.text(&at("pattern")) {
        Some(text) => Some(words.regex(&at("pattern"), &text, false)?),
        None => None,
    };
    let factor = words.text(&at("valueFactor"));
    let number = factor.as_ref().and_then(|text| text.parse().ok());
    if factor.is_some() && number.is_none() {
        words.wrong(&at("valueFactor"), "is no number");
    }
    Some(Rule {
        pattern,
        name,
        value: words.text(&at("value")),
        factor: number,
        labels,
        help: words.text(&at("help")),
        kind: words.word(&at("type"), &KINDS),
        snake: words.truth(&at("attrNameSnakeCase")).unwrap_or(false),
    })
}

impl Config {
    /// Adds what the first rule that an attribute fits makes of it.
    pub(super) fn put(&self, of: &Attribute<'_>, is_named: bool, batch: &mut Batch) {
        let properties: Vec<String> = of
            .bean
            .properties
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let place = format!(
            "{}<{}><{}>",
            of.bean.domain,
            properties.join(", "),
            of.path.join(", ")
        );
        let plain = format!("{place}{}: {}", of.name, of.shown);
        let snaked = || format!("{place}{}: {}", snake(of.name), of.shown);
        for rule in &self.rules {
            let text = if rule.snake { snaked() } else { plain.clone() };
            let Some(regex) = &rule.pattern else {
                return self.add(rule, None, of, is_named, batch);
            };
            if let Some(captures) = regex.captures(text.as_bytes()) {
                return self.add(rule, Some(&captures), of, is_named, batch);
            }
        }
    }

    fn add(
        &self,
        rule: &Rule,
        captures: Option<&Captures<'_>>,
        of: &Attribute<'_>,
        is_named: bool,
        batch: &mut Batch,
    ) {
        let expand = |text: &str| {
            let mut out = Vec::new();
            match captures {
                Some(captures) => captures.expand(braced(text).as_bytes(), &mut out),
                None => out.extend(text.as_bytes()),
            }
            String::from_utf8_lossy(&out).into_owned()
        };
        let value = match &rule.value {
            Some(text) => expand(text).trim().parse().ok(),
            None => of.value,
        };
        let Some(value) = value else { return };
        let attribute = if rule.snake {
            snake(of.name)
        } else {
            of.name.to_owned()
        };
        let mut labels: Vec<(String, String)> = Vec::new();
        let mut name = match &rule.name {
            Some(name) => {
                let pairs = rule
                    .labels
                    .iter()
                    .map(|(name, value)| (expand(name), expand(value)));
                labels.extend(pairs.filter(|(name, value)| !name.is_empty() && !value.is_empty()));
                let name = expand(name);
                // A name that comes to nothing drops it.
                if name.is_empty() {
                    return;
                }
                name
            }
            None => {
                let mut properties = of.bean.properties.iter();
                let first = properties.next().map(|(_, value)| value.as_str());
                let mut parts = vec![of.bean.domain.as_str()];
                parts.extend(first);
                parts.extend(of.path);
                parts.push(&attribute);
                labels.extend(properties.map(|(key, value)| (key.clone(), unquoted(value))));
                parts.join("_")
            }
        };
        if self.lower_names {
            name = name.to_lowercase();
        }
        for (label, _) in &mut labels {
            *label = safe(label).replace(':', "_");
            if self.lower_labels {
                *label = label.to_lowercase();
            }
            if is_named && label == "source" {
                *label = "exported_source".to_owned();
            }
        }
        // Two that became the same are one.
        let mut seen = Vec::new();
        labels.retain(|(label, _)| {
            let new = !seen.contains(label);
            seen.push(label.clone());
            new
        });
        let labels: Vec<(&str, &str)> = labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let help = rule.help.as_deref().map(&expand).unwrap_or_default();
        batch
            .family(&safe(&name), rule.kind.unwrap_or(Kind::Untyped), help)
            .put(&labels, value * rule.factor.unwrap_or(1.0));
    }
}

/// Java takes `$1_total` for the first group and a text.
fn braced(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at + 1);
        out += before;
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            out += &format!("{{{}}}", &after[..digits]);
        }
        rest = &after[digits..];
    }
    out + rest
}

/// jmx_exporter's safeName: what is no letter, digit, `_` or `:` is one `_`.
fn safe(name: &str) -> String {
    let mut out = String::new();
    for one in metric_name(name).chars() {
        if one != '_' || !out.ends_with('_') {
            out.push(one);
        }
    }
    out
}

/// Without the quotes around it.
pub(super) fn unquoted(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(value).to_owned()
}

/// `HeapMemoryUsage` is `heap_memory_usage`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for one in name.chars() {
        if one.is_ascii_uppercase() && lower {
            out.push('_');
        }
        lower = one.is_ascii_lowercase() || one.is_ascii_digit();
        out.push(one.to_ascii_lowercase());
    }
    out
}
