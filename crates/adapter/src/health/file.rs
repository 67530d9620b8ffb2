//! `--probes-file`: probes as YAML, strictly, with the line and column of everything that is wrong.
//!
//! ```text
//!   probes:
//!     web:
//!       url: http://127.0.0.1:8080/health
//!       period: 2s
//!       header: ["X-A: b", "X-C: d"]
//! ```

use std::path::Path as FilePath;
use std::sync::Arc;

use podkit_foundation::yaml::{Entry, Findings, Node, Place, Schema, Value, documents_in, read};

use super::spec::Spec;

/// Probes at most.
const MOST: usize = 1000;

/// Reads the file. An error is one line: the file, where in it, what is wrong.
pub(crate) fn load(path: &FilePath) -> Result<Vec<Spec>, String> {
    let name = path.display().to_string();
    let bytes = read::file(path).map_err(|why| format!("{name}: {why}"))?;
    let text = read::text(&bytes)
        .map_err(|(line, column, why)| format!("{name}:{line}:{column}: {why}"))?;
    parse(&name, text)
}

pub(super) fn parse(name: &str, text: &str) -> Result<Vec<Spec>, String> {
    let file: Arc<str> = Arc::from(name);
    let mut findings = Findings::new();
    let mut roots = documents_in(Schema::Core, text, &file, &mut findings).into_iter();
    if let Some(finding) = findings.iter().next() {
        return Err(finding.to_string());
    }
    let root = roots.next();
    if roots.next().is_some() {
        return Err(format!("{name}: a second document; expected one"));
    }
    let reader = Reader { file };
    let Some(root) = root else {
        return Err(format!(
            "{name}: says nothing; expected probes: {{NAME: {{url: …}}}}"
        ));
    };
    let mut specs: Vec<Spec> = Vec::new();
    for entry in reader.object(&root)? {
        if entry.key != "probes" {
            return Err(reader.at(entry, "unknown key; there is probes"));
        }
        for probe in reader.object(&entry.node)? {
            if specs.len() == MOST {
                return Err(reader.at(probe, &format!("there are more than {MOST} probes")));
            }
            specs.push(reader.probe(probe)?);
        }
    }
    Ok(specs)
}

struct Reader {
    file: Arc<str>,
}

impl Reader {
    fn at(&self, entry: &Entry, why: &str) -> String {
        let place = Place {
            file: Arc::clone(&self.file),
            line: entry.mark.line,
            column: entry.mark.column,
        };
        format!("{place}: {}: {why}", entry.key)
    }

    fn object<'a>(&self, node: &'a Node) -> Result<&'a [Entry], String> {
        match &node.value {
            Value::Map(entries) => Ok(entries),
            _ => Err(format!(
                "{}:{}:{}: expected an object, found {}",
                self.file,
                node.mark.line,
                node.mark.column,
                node.describe()
            )),
        }
    }

    fn probe(&self, probe: &Entry) -> Result<Spec, String> {
        let mut url = None;
        let mut options: Vec<(&str, &str)> = Vec::new();
        for entry in self.object(&probe.node)? {
            let texts = self.texts(entry)?;
            match (entry.key.as_str(), texts.as_slice()) {
                ("url", [one]) => url = Some(*one),
                ("url", _) => return Err(self.at(entry, "expected one text")),
                (key, texts) => options.extend(texts.iter().map(|text| (key, *text))),
            }
        }
        let url = url.ok_or_else(|| self.at(probe, "url is missing"))?;
        Spec::new(&probe.key, url, &options).map_err(|why| self.at(probe, &why))
    }

    /// A scalar, or a list of them.
    fn texts<'a>(&self, entry: &'a Entry) -> Result<Vec<&'a str>, String> {
        let one = |node: &'a Node| match &node.value {
            Value::Str(text)
            | Value::Bool(_, text)
            | Value::Int(_, text)
            | Value::Float(_, text) => Ok(text.as_str()),
            _ => Err(self.at(
                entry,
                &format!("expected a text, found {}", node.describe()),
            )),
        };
        match &entry.node.value {
            Value::Seq(items) => items.iter().map(one).collect(),
            _ => Ok(vec![one(&entry.node)?]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_file_says_the_same_as_flags() {
        let text = "probes:\n  web:\n    url: http://:80/h\n    status: 200\n    header: ['A: b', 'C: d']\n  run:\n    url: 'exec:'\n    \
                    command: [/bin/sh, -c, 'echo a; echo b']\n";
        let specs = parse("f", text).unwrap();
        assert_eq!(specs[0].to_string(), "web=http://:80/h");
        assert_eq!(specs[0].option("status"), Some("200"));
        assert_eq!(specs[0].options("header").count(), 2);
        assert_eq!(specs[1].to_string(), "run=exec:///bin/sh -c echo a; echo b");
    }

    #[test]
    fn a_probe_may_be_called_by_a_word_of_yaml_1_1() {
        let names = parse(
            "f",
            "probes:\n  on: {url: 'tcp://:1'}\n  n: {url: 'tcp://:2'}\n",
        )
        .unwrap();
        let names: Vec<&str> = names.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["on", "n"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse("f", text).unwrap_err(), expected, "{text}");
        };
        check("", "f: says nothing; expected probes: {NAME: {url: …}}");
        check("a: 1", "f:1:1: a: unknown key; there is probes");
        check(
            "probes:\n  web: 1",
            "f:2:8: expected an object, found the number 1",
        );
        check("probes:\n  web: {}", "f:2:3: web: url is missing");
        check(
            "probes:\n  web:\n    url: tcp://h:1\n    tiemout: 1s",
            "f:2:3: web: there is no key \"tiemout\"; did you mean timeout?",
        );
        check(
            "probes:\n  web:\n    url: tcp://h:1\n    timeout: {}",
            "f:4:5: timeout: expected a text, found an object",
        );
    }
}
