//! The names of metrics in a query.
//!
//! A parser of PromQL's grammar would refuse most of what dashboards say: `rate($metric[$__rate_interval])`, `[[name]]_total`,
//! `label_values(up, job)`. Which word is a metric can be told without the grammar: it is not called, no keyword, and neither in the
//! list of labels behind `by` nor in a selector's braces.

/// Words that are none by themselves: operators, modifiers, numbers; VictoriaMetrics' too.
const WORDS: [&str; 16] = [
    "and",
    "atan2",
    "bool",
    "default",
    "end",
    "if",
    "ifnot",
    "inf",
    "keep_metric_names",
    "limit",
    "nan",
    "offset",
    "or",
    "smoothed",
    "start",
    "unless",
];

/// Words that a list of labels follows.
const LISTS: [&str; 6] = [
    "by",
    "group_left",
    "group_right",
    "ignoring",
    "on",
    "without",
];

/// The names in a query, in order, each once; `*` where a variable of Grafana stands, or `.*` of a regular expression. What is all
/// variable is left out, and so is a regular expression that says more than names and `.*`.
pub(super) fn names(query: &str) -> Vec<String> {
    let mut scanner = Scanner {
        rest: query,
        names: Vec::new(),
    };
    while !scanner.rest.is_empty() {
        scanner.step();
    }
    let mut names: Vec<String> = Vec::new();
    for name in scanner.names {
        if !name.trim_matches('*').is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The same, of the query of a dashboard's variable: `label_values(METRIC, LABEL)`, `query_result(QUERY)`, `metrics(REGEX)`.
pub(super) fn variable(query: &str) -> Vec<String> {
    let query = query.trim();
    let call = query
        .strip_suffix(')')
        .and_then(|text| text.split_once('('));
    match call {
        Some(("label_values", inner)) => match inner.rsplit_once(',') {
            Some((metric, _)) => names(metric),
            None => Vec::new(),
        },
        Some(("query_result", inner)) => names(inner),
        Some(("metrics" | "label_names", _)) => Vec::new(),
        _ => names(query),
    }
}

struct Scanner<'a> {
    rest: &'a str,
    names: Vec<String>,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> u8 {
        self.rest.bytes().next().unwrap_or_default()
    }

    /// Takes what `right` holds of.
    fn take(&mut self, right: impl Fn(char) -> bool) -> &'a str {
        let at = self.rest.find(|c| !right(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(at);
        self.rest = rest;
        taken
    }

    /// Blanks and comments.
    fn blank(&mut self) {
        loop {
            self.take(char::is_whitespace);
            if self.peek() != b'#' {
                return;
            }
            self.take(|c| c != '\n');
        }
    }

    fn step(&mut self) {
        self.blank();
        match self.peek() {
            b'"' | b'\'' | b'`' => drop(self.string()),
            b'0'..=b'9' | b'.' => {
                self.take(|c| c.is_ascii_alphanumeric() || "._".contains(c));
            }
            b'{' => self.selector(),
            b'[' if !is_bracketed(self.rest) => self.range(),
            _ => match self.word() {
                Some(word) => self.told(word),
                // An operator, a comma, a parenthesis.
                None => {
                    let mut chars = self.rest.chars();
                    chars.next();
                    self.rest = chars.as_str();
                }
            },
        }
    }

    /// A word, `*` for each of its variables.
    fn word(&mut self) -> Option<String> {
        let mut word = String::new();
        loop {
            let part = self.take(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
            word.push_str(part);
            match self.variable() {
                true => word.push('*'),
                false => break,
            }
        }
        (!word.is_empty()).then_some(word)
    }

    /// Takes a variable of Grafana: `$x`, `${x:y}`, `[[x]]`.
    fn variable(&mut self) -> bool {
        let rest = self.rest;
        let end = |open: &str, close: &str| {
            let inner = rest.strip_prefix(open)?;
            let at = inner.find(close)?;
            Some(&inner[at + close.len()..])
        };
        let behind = if is_bracketed(rest) {
            end("[[", "]]")
        } else if rest.starts_with("${") {
            end("${", "}")
        } else {
            let name = rest.strip_prefix('$');
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            name.filter(|name| name.starts_with(word))
                .map(|name| name.trim_start_matches(word))
        };
        match behind {
            Some(behind) => {
                self.rest = behind;
                true
            }
            None => false,
        }
    }

    /// What a word is by what follows it.
    fn told(&mut self, word: String) {
        self.blank();
        let lower = word.to_ascii_lowercase();
        if LISTS.contains(&lower.as_str()) {
            if self.peek() == b'(' {
                self.take(|c| c != ')');
            }
            return;
        }
        let mut next = Scanner {
            rest: self.rest,
            names: Vec::new(),
        };
        let next = next.word().unwrap_or_default().to_ascii_lowercase();
        let called = self.peek() == b'(' || ["by", "without"].contains(&next.as_str());
        if !called && !WORDS.contains(&lower.as_str()) {
            self.names.push(word);
        }
    }

    /// `[5m]`, `[$__interval:]`, `[[[interval]]]`.
    fn range(&mut self) {
        let mut depth = 0_u32;
        for (at, c) in self.rest.char_indices() {
            match c {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.rest = &self.rest[at + 1..];
                return;
            }
        }
        self.rest = "";
    }

    /// `{job="x",__name__=~"a|b"}`, `{"a.name"}`.
    fn selector(&mut self) {
        self.rest = &self.rest[1..];
        loop {
            self.blank();
            match self.peek() {
                0 => return,
                b'}' => {
                    self.rest = &self.rest[1..];
                    return;
                }
                _ => {}
            }
            let quoted = matches!(self.peek(), b'"' | b'\'' | b'`');
            let label = match quoted {
                true => Some(self.string()),
                false => self.word(),
            };
            self.blank();
            let operator = self.take(|c| "=!~".contains(c));
            self.blank();
            let value = match (operator, self.peek()) {
                ("", _) => None,
                (_, b'"' | b'\'' | b'`') => Some(self.string()),
                _ => self.word(),
            };
            match (label, operator, value) {
                (Some(name), "", _) if quoted => self.names.push(name),
                (Some(label), "=", Some(value)) if label == "__name__" => self.names.push(value),
                (Some(label), "=~", Some(value)) if label == "__name__" => {
                    self.names.extend(alternatives(&value))
                }
                // A comma, or what is no selector.
                (None, "", None) => {
                    let mut chars = self.rest.chars();
                    chars.next();
                    self.rest = chars.as_str();
                }
                _ => {}
            }
        }
    }

    /// A string's text, with `*` for each of its variables.
    fn string(&mut self) -> String {
        let quote = char::from(self.peek());
        self.rest = &self.rest[1..];
        let mut text = String::new();
        while let Some(c) = self.rest.chars().next() {
            if self.variable() {
                text.push('*');
                continue;
            }
            self.rest = &self.rest[c.len_utf8()..];
            if c == quote {
                break;
            }
            text.push(c);
            if c == '\\' && quote != '`' {
                text.pop();
                let mut chars = self.rest.chars();
                text.extend(chars.next());
                self.rest = chars.as_str();
            }
        }
        text
    }
}

/// A variable in brackets, not a range that is one.
fn is_bracketed(text: &str) -> bool {
    text.starts_with("[[") && !text.starts_with("[[[")
}

/// The names that a regular expression stands for, when it is names, `|` and `.*`.
fn alternatives(regex: &str) -> Vec<String> {
    let inner = regex.strip_prefix('^').unwrap_or(regex);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    let inner = inner
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'))
        .unwrap_or(inner);
    let parts: Vec<String> = inner
        .split('|')
        .map(|part| part.replace(".*", "*").replace(".+", "*"))
        .collect();
    let right = |c: char| c.is_ascii_alphanumeric() || "_:*".contains(c);
    match parts.iter().all(|part| part.chars().all(right)) {
        true => parts,
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(query: &str, expected: &[&str]) {
        assert_eq!(names(query), expected, "{query}");
    }

    #[test]
    fn metrics_are_told_from_the_rest() {
        check("up", &["up"]);
        check("redis_up == 0", &["redis_up"]);
        check(
            "sum by (job, cmd) (rate(a_total{job=\"x\"}[5m]))",
            &["a_total"],
        );
        check("sum(rate(a_total[5m])) without(cmd) / b", &["a_total", "b"]);
        check("SUM BY(a) (b)", &["b"]);
        check("a * on(x) group_left(y, z) b{__a__=\"c\"}", &["a", "b"]);
        check("a and ignoring(x) b unless c or d", &["a", "b", "c", "d"]);
        check(
            "histogram_quantile(0.99, sum by (le) (rate(h_bucket[1h30m:5m] offset 1d)))",
            &["h_bucket"],
        );
        check("a > bool 1e+9 + 0x1F - Inf + NaN", &["a"]);
        check(
            "label_replace(a, \"dst\", \"$1\", \"src\", \"b.*\")",
            &["a"],
        );
        check("a @ start() # b\n + c:rate5m:sum", &["a", "c:rate5m:sum"]);
        check(
            "{__name__=\"a\", x='b'} + {__name__=~\"^(c|d_.+)$\"}",
            &["a", "c", "d_*"],
        );
        check("{__name__=~\"a[0-9]+\"} {__name__!=\"b\"}", &[]);
        check(
            "{\"http.requests\", job=\"x\"} + {\"job\"=\"y\"}",
            &["http.requests"],
        );
        check("a{x=\"}\\\" b\"} + a", &["a"]);
        check(
            "absent(a) + count_values(\"v\", b) + topk(3, c) + time()",
            &["a", "b", "c"],
        );
        check("sum + by", &["sum"]);
    }

    #[test]
    fn variables_stand_for_anything() {
        check("rate(a_total{x=~\"$x\"}[$__rate_interval])", &["a_total"]);
        check(
            "rate(a[[[interval]]]) + rate(b[${__range_s}s:])",
            &["a", "b"],
        );
        check(
            "redis_${kind}_total + [[prefix]]_up + $metric + x_[[y]]_z",
            &["redis_*_total", "*_up", "x_*_z"],
        );
        check("sum by ($label) (a) + $fn(b{$filter})", &["a", "b"]);
        check("{__name__=\"redis_${x:raw}\"}", &["redis_*"]);
    }

    #[test]
    fn variables_of_dashboards_ask_too() {
        assert_eq!(
            variable("label_values(redis_up{job=\"$job\", x=\"y\"}, instance)"),
            ["redis_up"]
        );
        assert_eq!(variable("label_values(instance)"), [""; 0]);
        assert_eq!(variable("query_result(topk(1, a))"), ["a"]);
        assert_eq!(variable("metrics(redis_.*)"), [""; 0]);
        assert_eq!(variable("up{a=\"b\"}"), ["up"]);
    }

    proptest! {
        #[test]
        fn anything_comes_to_an_end(query in "[a\\[\\]{}$\"'\\\\#=~()|.*1é \n]{0,24}|.{0,20}") {
            names(&query);
            variable(&query);
        }
    }
}
