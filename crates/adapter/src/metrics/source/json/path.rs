//! JSONPath as `kubectl` has it, and json_exporter with it: texts with paths in braces.
//!
//! ```text
//!   planet-{.location}    { .values[?(@.state == "ACTIVE")].id }    {.a['b.c'][0,-1][1:3].*}    {..name}
//! ```
//!
//! Why not RFC 9535 and a crate for it: json_exporter's files are written in this dialect, which has a leading dot instead of `$`,
//! escaped dots in names, and text around; it is small. Of it, `{range}` is left out: what a rule wants of a list it says with its path.

use std::borrow::Cow;

use serde_json::Value;

/// Steps of a path at most.
const MOST_STEPS: usize = 64;

/// Values that a path finds, at most.
const MOST_FOUND: usize = 100_000;

/// Values that are looked at for one path, at most: `..` within `..` sees the same ones again.
const MOST_SEEN: usize = 1_000_000;

/// Text and paths in turn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Root,
    Field(String),
    Every,
    /// All there are below, and itself.
    Below,
    Slice(Option<i64>, Option<i64>, Option<i64>),
    Union(Vec<Step>),
    Filter(Box<Filter>),
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    left: Operand,
    right: Option<(Compare, Operand)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Equal,
    Unequal,
    Less,
    LessEqual,
    More,
    MoreEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Value(Value),
}

impl Template {
    /// Reads one; the error is a clause.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(begin) = rest.find('{') {
            if begin > 0 {
                parts.push(Part::Text(rest[..begin].to_owned()));
            }
            let mut scan = Scan(&rest[begin + 1..]);
            parts.push(scan.action()?);
            rest = scan.0;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// It is one path, and nothing else.
    pub(crate) fn is_path(&self) -> bool {
        matches!(self.0[..], [Part::Path(_)])
    }

    /// What its path finds.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self.0.first() {
            Some(Part::Path(steps)) => walk(steps, value),
            _ => Vec::new(),
        }
    }

    /// Its text, with what is found in the place of paths, a space between two.
    pub(crate) fn text(&self, value: &Value) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out += text,
                Part::Path(steps) => {
                    let found = walk(steps, value);
                    let shown: Vec<_> = found.into_iter().map(shown).collect();
                    out += &shown.join(" ");
                }
            }
        }
        out
    }
}

/// A value as it stands in a label.
pub(crate) fn shown(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Number(number) if number.is_f64() => {
            let mut out = String::new();
            crate::metrics::batch::put_value(&mut out, number.as_f64().unwrap_or(f64::NAN));
            out.into()
        }
        other => other.to_string().into(),
    }
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut left = MOST_SEEN;
    walk_within(steps, value, value, &mut left)
}

fn walk_within<'a>(
    steps: &[Step],
    root: &'a Value,
    value: &'a Value,
    left: &mut usize,
) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            if next.len() >= MOST_FOUND || *left == 0 {
                break;
            }
            step.take(root, value, &mut next, left);
        }
        found = next;
    }
    found.truncate(MOST_FOUND);
    found
}

fn below<'a>(value: &'a Value, out: &mut Vec<&'a Value>, left: &mut usize) {
    if *left == 0 || out.len() >= MOST_FOUND {
        return;
    }
    *left -= 1;
    out.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| below(item, out, left)),
        Value::Object(fields) => fields.values().for_each(|item| below(item, out, left)),
        _ => {}
    }
}

impl Step {
    fn take<'a>(
        &self,
        root: &'a Value,
        value: &'a Value,
        out: &mut Vec<&'a Value>,
        left: &mut usize,
    ) {
        *left = left.saturating_sub(1);
        match (self, value) {
            (Self::Root, _) => out.push(root),
            (Self::Field(name), Value::Object(fields)) => out.extend(fields.get(name)),
            (Self::Every, Value::Array(items)) => out.extend(items),
            (Self::Every, Value::Object(fields)) => out.extend(fields.values()),
            (Self::Below, _) => below(value, out, left),
            (Self::Slice(from, to, by), Value::Array(items)) => {
                slice(items, (*from, *to, *by), out);
            }
            (Self::Union(steps), _) => {
                for step in steps {
                    step.take(root, value, out, left);
                }
            }
            (Self::Filter(filter), Value::Array(items)) => {
                for item in items {
                    if filter.holds(root, item, left) {
                        out.push(item);
                    }
                }
            }
            (Self::Filter(filter), Value::Object(_)) if filter.holds(root, value, left) => {
                out.push(value);
            }
            _ => {}
        }
    }
}

/// As Python's; one place is a slice of one.
fn slice<'a>(
    items: &'a [Value],
    (from, to, by): (Option<i64>, Option<i64>, Option<i64>),
    out: &mut Vec<&'a Value>,
) {
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let place = |at: i64| {
        if at < 0 {
            at.saturating_add(length)
        } else {
            at
        }
    };
    let from = place(from.unwrap_or(0));
    let to = place(to.unwrap_or(length)).min(length);
    let by = usize::try_from(by.unwrap_or(1)).unwrap_or(1).max(1);
    if let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to))
        && from < to
    {
        out.extend(items[from..to].iter().step_by(by));
    }
}

impl Filter {
    fn holds(&self, root: &Value, item: &Value, left: &mut usize) -> bool {
        let one = self.left.first(root, item, left);
        let Some((compare, right)) = &self.right else {
            return one.is_some();
        };
        let (Some(one), Some(two)) = (one, right.first(root, item, left)) else {
            return false;
        };
        let order = match (&one, &two) {
            (Value::Number(one), Value::Number(two)) => one
                .as_f64()
                .zip(two.as_f64())
                .and_then(|(one, two)| one.partial_cmp(&two)),
            (Value::String(one), Value::String(two)) => Some(one.cmp(two)),
            (one, two) if one == two => Some(std::cmp::Ordering::Equal),
            _ => None,
        };
        match compare {
            Compare::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Compare::Unequal => !order.is_some_and(std::cmp::Ordering::is_eq),
            Compare::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Compare::LessEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Compare::More => order.is_some_and(std::cmp::Ordering::is_gt),
            Compare::MoreEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

impl Operand {
    fn first(&self, root: &Value, item: &Value, left: &mut usize) -> Option<Value> {
        match self {
            Self::Value(value) => Some(value.clone()),
            Self::Path(steps) => {
                let root = match steps.first() {
                    Some(Step::Root) => root,
                    _ => item,
                };
                walk_within(steps, root, item, left)
                    .first()
                    .map(|value| (*value).clone())
            }
        }
    }
}

/// What is left of a text.
struct Scan<'a>(&'a str);

impl<'a> Scan<'a> {
    fn eat(&mut self, what: &str) -> bool {
        let after = self.0.strip_prefix(what);
        self.0 = after.unwrap_or(self.0);
        after.is_some()
    }

    fn spaces(&mut self) {
        self.0 = self.0.trim_start();
    }

    /// What stands in braces, the first of which was taken.
    fn action(&mut self) -> Result<Part, String> {
        self.spaces();
        if self.0.starts_with(['"', '\'']) {
            let text = self.quoted()?;
            self.spaces();
            return match self.eat("}") {
                true => Ok(Part::Text(text)),
                false => Err("a text in braces is followed by something".to_owned()),
            };
        }
        let steps = self.steps(&['}'])?;
        match self.eat("}") {
            true => Ok(Part::Path(steps)),
            false => Err("a { has no }".to_owned()),
        }
    }

    /// Steps up to one of `ends`, or the end.
    fn steps(&mut self, ends: &[char]) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        self.spaces();
        if self.eat("$") {
            steps.push(Step::Root);
        } else {
            self.eat("@");
        }
        loop {
            self.spaces();
            if self.0.is_empty() || self.0.starts_with(ends) {
                return Ok(steps);
            }
            if steps.len() >= MOST_STEPS {
                return Err(format!("has more than {MOST_STEPS} steps"));
            }
            if self.eat("..") {
                steps.push(Step::Below);
                if !self.0.starts_with('[') {
                    steps.push(self.field()?);
                }
            } else if self.eat(".") {
                // `.[0]` and a dot alone are taken too.
                let ends_here = self.0.starts_with(ends) || self.0.starts_with(['[', ' ']);
                if !ends_here && !self.0.is_empty() {
                    steps.push(self.field()?);
                }
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else {
                return Err(format!(
                    "expected .name or [, found {:?}",
                    self.0.chars().take(20).collect::<String>()
                ));
            }
        }
    }

    fn field(&mut self) -> Result<Step, String> {
        let mut name = String::new();
        let mut escaped = false;
        let mut end = self.0.len();
        for (at, one) in self.0.char_indices() {
            if escaped {
                name.push(one);
                escaped = false;
            } else if one == '\\' {
                escaped = true;
            } else if one.is_whitespace() || ".,[]$@{}()=!<>\"'".contains(one) {
                end = at;
                break;
            } else {
                name.push(one);
            }
        }
        let star = &self.0[..end] == "*";
        self.0 = &self.0[end..];
        match (star, name.is_empty()) {
            (true, _) => Ok(Step::Every),
            (_, true) => Err("a dot has no name after it".to_owned()),
            _ => Ok(Step::Field(name)),
        }
    }

    /// What stands in brackets, the first of which was taken.
    fn bracket(&mut self) -> Result<Step, String> {
        if self.eat("?(") {
            let filter = self.filter()?;
            self.spaces();
            return match self.eat(")") && self.eat("]") {
                true => Ok(Step::Filter(Box::new(filter))),
                false => Err("a filter does not end with )]".to_owned()),
            };
        }
        let mut union = Vec::new();
        loop {
            self.spaces();
            let step = if self.eat("*") {
                Step::Every
            } else if self.0.starts_with(['"', '\'']) {
                Step::Field(self.quoted()?)
            } else {
                self.places()?
            };
            union.push(step);
            self.spaces();
            if self.eat("]") {
                return Ok(match union.len() {
                    1 => union.remove(0),
                    _ => Step::Union(union),
                });
            }
            if !self.eat(",") || union.len() >= MOST_STEPS {
                return Err("a [ has no ]".to_owned());
            }
        }
    }

    /// `1`, `-1`, `1:3`, `::2`.
    fn places(&mut self) -> Result<Step, String> {
        let end = self.0.find([']', ',']).unwrap_or(self.0.len());
        let (text, rest) = self.0.split_at(end);
        self.0 = rest;
        let wrong = || format!("[{text}] is neither a place, a slice, 'a name', * nor ?(a filter)");
        let numbers: Option<Vec<Option<i64>>> = text
            .split(':')
            .map(str::trim)
            .map(|part| match part {
                "" => Some(None),
                part => part.parse().ok().map(Some),
            })
            .collect();
        match numbers.ok_or_else(wrong)?[..] {
            [Some(at)] => Ok(Step::Slice(
                Some(at),
                (at != -1).then(|| at.saturating_add(1)),
                None,
            )),
            [from, to] => Ok(Step::Slice(from, to, None)),
            [from, to, by] if by.is_none_or(|by| by > 0) => Ok(Step::Slice(from, to, by)),
            _ => Err(wrong()),
        }
    }

    fn filter(&mut self) -> Result<Filter, String> {
        const WORDS: [(&str, Compare); 6] = [
            ("==", Compare::Equal),
            ("!=", Compare::Unequal),
            ("<=", Compare::LessEqual),
            (">=", Compare::MoreEqual),
            ("<", Compare::Less),
            (">", Compare::More),
        ];
        let left = self.operand()?;
        self.spaces();
        let found = WORDS.iter().find(|(word, _)| self.eat(word));
        let right = match found {
            Some((_, compare)) => Some((*compare, self.operand()?)),
            None => None,
        };
        Ok(Filter { left, right })
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.spaces();
        if self.0.starts_with(['"', '\'']) {
            return self.quoted().map(|text| Operand::Value(text.into()));
        }
        if self.0.starts_with(['@', '$', '.']) {
            return self.steps(&[')', '=', '!', '<', '>']).map(Operand::Path);
        }
        let end = self.0.find([')', '=', '!', '<', '>']);
        let (text, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        let value = serde_json::from_str(text.trim()).ok();
        let value = value.filter(|value: &Value| !value.is_array() && !value.is_object());
        value.map(Operand::Value).ok_or_else(|| {
            format!(
                "{:?} in a filter is neither @.path, \"text\" nor a number",
                text.trim()
            )
        })
    }

    /// A text in either quotes.
    fn quoted(&mut self) -> Result<String, String> {
        let mut chars = self.0.char_indices();
        let quote = chars.next().map(|(_, one)| one);
        let mut text = String::new();
        let mut escaped = false;
        for (at, one) in chars {
            match (escaped, one) {
                (true, 'n') => text.push('\n'),
                (true, 't') => text.push('\t'),
                (false, '\\') => {}
                (false, one) if Some(one) == quote => {
                    self.0 = &self.0[at + one.len_utf8()..];
                    return Ok(text);
                }
                (_, one) => text.push(one),
            }
            escaped = one == '\\' && !escaped;
        }
        Err("a quote does not end".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy as _, prop_oneof, proptest};

    const DOCUMENT: &str = r#"{"counter": 1234, "big": 1000000, "f": 1e30, "half": 0.5, "location": "mars", "a.b": {"c": [1, 2, 3, 4]}, "none": null,
        "values": [{"id": "A", "count": 1, "state": "ACTIVE"}, {"id": "B", "count": 2, "state": "INACTIVE"}, {"id": "C", "count": 3, "state": "ACTIVE", "id2": 1}]}"#;

    #[test]
    fn paths_find_what_kubectl_finds() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let check = |text: &str, found: &str| {
            assert_eq!(
                Template::parse(text).unwrap().text(&document),
                found,
                "{text}"
            );
        };
        check("{.counter}", "1234");
        check("{ $.counter }", "1234");
        check("planet-{.location}!", "planet-mars!");
        check("{.location}{\"-\"}{.big}", "mars-1000000");
        check("{.f} {.half} {.none}", "1e30 0.5 null");
        check("{.values[*].id}", "A B C");
        check("{.values[?(@.state == \"ACTIVE\")].id}", "A C");
        check("{.values[?(@.state!='ACTIVE')].id}", "B");
        check("{.values[?(@.count>=2)].id}", "B C");
        check("{.values[?(2 > @.count)].id}", "A");
        check("{.values[?(@.id2)].id}", "C");
        check("{.values[?(@.count < $.counter)].id}", "A B C");
        check("{.values[?(@.id > 1)].id}", "");
        check(
            "{.values[-1].id} {.values[0,1].id} {.values[0:2].id}",
            "C A B A B",
        );
        check(
            "{.a\\.b.c[::2]} {['a.b'].c[-2:]} {['a.b']['c'][1:-1]}",
            "1 3 3 4 2 3",
        );
        check("{..id}", "A B C");
        check("{.values[0].*}", "1 A ACTIVE");
        check("{.nothing.there[3]}", "");
        check("{.values[0]['id','count']}", "A 1");
        check("{.values[9].id}{.values[-9].id}", "");
        check("{.a\\.b}", "{\"c\":[1,2,3,4]}");
        check("plain", "plain");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let check = |text: &str, why: &str| {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        };
        check("{.a", "a { has no }");
        check("{range .a[*]}", "expected .name or [");
        check("{.a[x]}", "[x] is neither a place");
        check("{.a[0}", "is neither a place");
        check("{.a['x]}", "a quote does not end");
        check("{.a[?(@.b == )]}", "in a filter is neither");
        check("{.a[?(@.b == 1]}", "is neither @.path");
        check("{.a..}", "a dot has no name");
        check("{.a[::0]}", "is neither");
        check(&format!("{{{}}}", ".a".repeat(99)), "more than 64 steps");
    }

    proptest! {
        #[test]
        fn no_text_upsets_it(text in proptest::collection::vec(prop_oneof![
            Just("{"), Just("}"), Just("."), Just(".."), Just("["), Just("]"), Just("?("), Just(")"), Just("@"), Just("$"),
            Just("*"), Just("id"), Just("values"), Just("\""), Just("'"), Just("\\"), Just("=="), Just("<"), Just("1"), Just(":"),
            Just("-9223372036854775808"), Just("9223372036854775807"), Just(","), Just(" "), Just("é"),
        ], 0..30).prop_map(|parts| parts.concat())) {
            let document: Value = serde_json::from_str(DOCUMENT).unwrap();
            if let Ok(template) = Template::parse(&format!("{{{text}}}")) {
                template.text(&document);
            }
        }
    }
}
