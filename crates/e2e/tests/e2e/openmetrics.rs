//! A strict reader of the two metrics formats, written from their specifications and not from podkit's encoder: Prometheus text 0.0.4 and
//! OpenMetrics 1.0.

use std::collections::{BTreeMap, BTreeSet};

/// Samples by name with labels, as written.
pub(crate) type Samples = BTreeMap<String, f64>;

/// Reads a page, or says what is wrong with it.
pub(crate) fn parse(text: &str, open: bool) -> Result<Samples, String> {
    let mut reader = Reader {
        open,
        ..Reader::default()
    };
    let Some(body) = text.strip_suffix('\n') else {
        return Err("the last line does not end".to_owned());
    };
    let mut lines: Vec<&str> = body.split('\n').collect();
    if open && lines.pop() != Some("# EOF") {
        return Err("OpenMetrics ends with # EOF".to_owned());
    }
    for line in lines {
        reader.line(line).map_err(|why| format!("{why}: {line}"))?;
    }
    Ok(reader.samples)
}

#[derive(Default)]
struct Reader {
    open: bool,
    family: String,
    kind: String,
    families: BTreeSet<String>,
    helped: BTreeSet<String>,
    samples: Samples,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("# ") {
            return self.meta(rest);
        }
        if line.is_empty() || line.starts_with('#') {
            return Err("neither a sample nor HELP, TYPE or UNIT".to_owned());
        }
        let split = line.find([' ', '{']).ok_or("no value")?;
        let name = &line[..split];
        check_name(name)?;
        let (labels, rest) = match line[split..].strip_prefix('{') {
            Some(labelled) => labels(labelled)?,
            None => (0, &line[split..]),
        };
        let key = &line[..line.len() - rest.len()];
        let mut fields = rest
            .strip_prefix(' ')
            .ok_or("no blank before the value")?
            .split(' ');
        let value = number(fields.next().unwrap_or_default())?;
        if let Some(time) = fields.next() {
            number(time)?;
        }
        if fields.next().is_some() {
            return Err("more than value and time".to_owned());
        }
        self.belongs(name, value)?;
        if labels > 20 {
            return Err("more labels than a person reads".to_owned());
        }
        if self.samples.insert(key.to_owned(), value).is_some() {
            return Err("twice".to_owned());
        }
        Ok(())
    }

    fn meta(&mut self, rest: &str) -> Result<(), String> {
        let mut words = rest.splitn(3, ' ');
        let (word, name) = (
            words.next().unwrap_or_default(),
            words.next().ok_or("no name")?,
        );
        let text = words.next().unwrap_or_default();
        check_name(name)?;
        match word {
            "HELP" if !self.helped.insert(name.to_owned()) => Err("HELP twice".to_owned()),
            "HELP" if text.is_empty() => Err("HELP says nothing".to_owned()),
            "HELP" => Ok(()),
            "TYPE" => {
                let known = [
                    "counter",
                    "gauge",
                    "histogram",
                    "summary",
                    "info",
                    "stateset",
                    "untyped",
                    "unknown",
                ];
                let only_open = ["info", "stateset", "unknown"];
                if !known.contains(&text)
                    || (!self.open && only_open.contains(&text))
                    || (self.open && text == "untyped")
                {
                    return Err("a type that this format does not have".to_owned());
                }
                if self.open && text == "counter" && name.ends_with("_total") {
                    return Err("an OpenMetrics counter's family has no _total".to_owned());
                }
                if !self.families.insert(name.to_owned()) {
                    return Err("TYPE twice: the samples of a family stand together".to_owned());
                }
                (self.family, self.kind) = (name.to_owned(), text.to_owned());
                Ok(())
            }
            "UNIT" if self.open && name.ends_with(&format!("_{text}")) => Ok(()),
            _ => Err("not HELP, TYPE or a fitting UNIT".to_owned()),
        }
    }

    /// A sample stands below the TYPE of its family, and its name is one that the type has.
    fn belongs(&self, name: &str, value: f64) -> Result<(), String> {
        let Some(suffix) = name
            .strip_prefix(self.family.as_str())
            .filter(|_| !self.family.is_empty())
        else {
            return Err(format!(
                "not below the TYPE of its family, but of {}",
                self.family
            ));
        };
        let fits = match (self.kind.as_str(), self.open) {
            ("counter", true) => ["_total", "_created"].contains(&suffix),
            ("histogram", _) => ["_bucket", "_sum", "_count", "_created"].contains(&suffix),
            ("summary", _) => ["", "_sum", "_count", "_created"].contains(&suffix),
            ("info", true) => suffix == "_info",
            _ => suffix.is_empty(),
        };
        if !fits {
            return Err(format!("a {} has no sample of this name", self.kind));
        }
        if self.kind == "counter" && !(value >= 0.0 && value.is_finite()) {
            return Err("a counter below zero".to_owned());
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    match name.chars().next() {
        Some(first) if !first.is_ascii_digit() && name.chars().all(good) => Ok(()),
        _ => Err(format!("\"{name}\" is not a name")),
    }
}

fn number(text: &str) -> Result<f64, String> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        _ => text
            .parse()
            .map_err(|_| format!("\"{text}\" is not a number")),
    }
}

/// Reads labels after their `{`; gives how many, and what follows their `}`.
fn labels(mut rest: &str) -> Result<(usize, &str), String> {
    let mut names = BTreeSet::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((names.len(), after));
        }
        let (name, after) = rest.split_once("=\"").ok_or("a label without a value")?;
        check_name(name)?;
        if !names.insert(name) {
            return Err(format!("label {name} twice"));
        }
        let mut escaped = false;
        let end = after.char_indices().find_map(|(at, c)| {
            let end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            end.then_some(at)
        });
        let end = end.ok_or("a label's value does not end")?;
        rest = &after[end + 1..];
        if let Some(more) = rest.strip_prefix(',') {
            rest = more;
        } else if !rest.starts_with('}') {
            return Err("neither another label nor the end".to_owned());
        }
    }
}

#[test]
fn the_reader_takes_the_specifications_examples_and_refuses_their_opposites() {
    let open = "# TYPE foo counter\n# HELP foo Bar.\nfoo_total{a=\"b\\\"c\",d=\"\"} 17.0 1520879607.789\n# TYPE i info\ni_info{v=\"1\"} 1\n# EOF\n";
    assert_eq!(parse(open, true).unwrap().len(), 2);
    let text = "# HELP foo_total Bar.\n# TYPE foo_total counter\nfoo_total{a=\"b\"} 17\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 2\nh_count 1\n";
    assert_eq!(parse(text, false).unwrap()["h_sum"], 2.0);
    for (bad, open) in [
        ("# TYPE foo counter\nfoo_total 1\n", true),
        ("# TYPE foo_total counter\nfoo_total 1\n# EOF\n", true),
        ("# TYPE foo gauge\nbar 1\n", false),
        ("# TYPE foo gauge\nfoo 1\nfoo 1\n", false),
        ("# TYPE foo gauge\nfoo{a=\"b\" 1\n", false),
        ("# TYPE foo gauge\nfoo x\n", false),
        ("# TYPE foo info\nfoo_info 1\n", false),
        ("# TYPE foo gauge\nfoo 1", false),
    ] {
        assert!(parse(bad, open).is_err(), "{bad}");
    }
}
