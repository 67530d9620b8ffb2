//! Templates: files that are made of what the sources have.

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use podkit_dataplane::watch::read_file;
use podkit_foundation::params::ParamType;
use serde_json::{Map, Value, json};

use super::set::{File, Set, check_name};

/// `SRC=DST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSpec {
    from: From,
    to: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    /// A file of this container.
    Here(PathBuf),
    /// A file of the sources.
    Source(String),
}

impl ParamType for TemplateSpec {
    const TYPE_NAME: &'static str = "template";
    const EXPECTED: &'static str = "SRC=DST: SRC /a/file of this container or a file of the sources, DST a file of what is published";

    fn parse(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('=').ok_or("the = is missing")?;
        check_name(to)?;
        let from = match from.starts_with('/') {
            true => From::Here(PathBuf::from(from)),
            false => {
                check_name(from)?;
                From::Source(from.to_owned())
            }
        };
        Ok(Self {
            from,
            to: to.to_owned(),
        })
    }
}

impl TemplateSpec {
    /// The template's file in this container, if it is one.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.from {
            From::Here(path) => Some(path),
            From::Source(_) => None,
        }
    }
}

/// Steps that a template may take: one that loops without end is refused.
const FUEL: u64 = 10_000_000;
/// The longest template.
const MOST: u64 = 1 << 20;

/// The templates, filled in with what `sources` has and with `env`. An error is a line.
pub(super) fn render(
    templates: &[TemplateSpec],
    sources: &Set,
    env: &[(String, String)],
) -> Result<Vec<(String, File)>, String> {
    if templates.is_empty() {
        return Ok(Vec::new());
    }
    let mut jinja = Environment::new();
    jinja.set_undefined_behavior(UndefinedBehavior::Strict);
    // Else only a development build says which variable it is.
    jinja.set_debug(true);
    jinja.set_auto_escape_callback(|_| AutoEscape::None);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    jinja.set_syntax(syntax.expect("the usual syntax is one"));
    jinja.set_fuel(Some(FUEL));
    let context = minijinja::Value::from(Serde(context(sources, env)?));
    let mut made = Vec::new();
    for template in templates {
        let (name, text, mode) = match &template.from {
            From::Here(path) => {
                let name = path.display().to_string();
                let bytes = read_file(path, MOST).map_err(|why| format!("{name} {why}"))?;
                (name, bytes, 0o644)
            }
            From::Source(name) => {
                let file = sources.get(name);
                let file = file.ok_or_else(|| format!("no source has the template {name}"))?;
                (name.clone(), file.bytes.clone(), file.mode)
            }
        };
        let text =
            String::from_utf8(text).map_err(|_| format!("the template {name} is not UTF-8"))?;
        let text = jinja
            .render_named_str(&name, &text, context.clone())
            .map_err(|error| format!("the template can't be rendered: {error}"))?;
        let file = File {
            bytes: text.into_bytes(),
            mode,
        };
        made.push((template.to.clone(), file));
    }
    Ok(made)
}

/// The variables: files by the parts of their names, the values of JSON files under their names without `.json`; `files`
/// and `env`.
fn context(sources: &Set, env: &[(String, String)]) -> Result<Value, String> {
    let mut all = Map::new();
    let mut files = Map::new();
    for (name, file) in sources.files() {
        let Ok(text) = std::str::from_utf8(&file.bytes) else {
            continue;
        };
        files.insert(name.to_owned(), text.into());
        match name.strip_suffix(".json") {
            Some(stem) => {
                let value = serde_json::from_str(text)
                    .map_err(|error| format!("{name} is not JSON ({error})"))?;
                put(&mut all, stem, value);
            }
            None => put(&mut all, name, text.trim_end_matches(['\n', '\r']).into()),
        }
    }
    all.insert("files".to_owned(), files.into());
    let env: Map<String, Value> = env
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    all.insert("env".to_owned(), env.into());
    Ok(all.into())
}

fn put(all: &mut Map<String, Value>, name: &str, value: Value) {
    let Some((first, rest)) = name.split_once('/') else {
        match (all.get_mut(name), value) {
            // db.json and db/host together.
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
            (_, value) => {
                all.insert(name.to_owned(), value);
            }
        }
        return;
    };
    let inner = all.entry(first).or_insert_with(|| json!({}));
    if let Value::Object(inner) = inner {
        put(inner, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, expected: Result<&str, &str>) {
        let mut set = Set::default();
        let mut add = |name, text: &str| set.insert(name, File::new(text.as_bytes().to_vec()));
        add("db/host", "h1\n");
        add("db.json", r#"{"port": 5432, "tags": ["a", "b"]}"#);
        add("app.conf", "x\n");
        add("t", template);
        let spec = TemplateSpec::parse("t=out").unwrap();
        let env = [("ZONE".to_owned(), "z1".to_owned())];
        let made = render(&[spec], &set, &env);
        let made = made.map(|made| String::from_utf8(made[0].1.bytes.clone()).unwrap());
        match (made, expected) {
            (Ok(made), Ok(expected)) => assert_eq!(made, expected, "{template}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{template}: {why}"),
            (made, _) => panic!("{template}: {made:?}"),
        }
    }

    #[test]
    fn templates_are_filled_in() {
        check("{{ db.host }}:{{ db.port }}\n", Ok("h1:5432\n"));
        check("{% for tag in db.tags %}{{ tag }};{% endfor %}", Ok("a;b;"));
        check("{{ files['app.conf'] }}", Ok("x\n"));
        check("{{ env.ZONE }} <&\">", Ok("z1 <&\">"));
        check("{{ db.user }}", Err("`db.user` is undefined"));
        check("{{ nothing }}", Err("(in t:1)"));
        check("{{ env.HOME }}", Err("`env.HOME` is undefined"));
        check("\n{% if %}", Err("(in t:2)"));
        check(
            "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
            Err("fuel"),
        );
    }

    #[test]
    fn specs_are_read() {
        assert_eq!(
            TemplateSpec::parse("/a=b").unwrap().path(),
            Some(Path::new("/a"))
        );
        for wrong in ["", "a", "a=", "=b", "a=/b", "a=../b", "../a=b"] {
            assert!(TemplateSpec::parse(wrong).is_err(), "{wrong}");
        }
    }
}
