//! `http://`, `https://`: a request, and what its answer has to be: status, fields, body, values in JSON.

use podkit_dataplane::http::{Ask, Fetched, ask_on};
use podkit_dataplane::tls::Inside;
use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

use super::{Prober, Probing};
use crate::health::link::{Ground, Link};
use crate::health::phases::{Phase, Phases};
use crate::health::spec::{Place, Spec};

/// Bytes of a body at most.
const MOST_BYTES: usize = 1 << 20;

pub(super) struct Http {
    link: Link,
    method: String,
    target: String,
    host: Option<String>,
    send: Vec<(String, String)>,
    wanted: Wanted,
}

/// What the answer has to be.
struct Wanted {
    /// From and to, both included.
    status: Vec<(u16, u16)>,
    fields: Vec<(String, Regex)>,
    body: Option<Regex>,
    /// A JSON pointer (RFC 6901), and what is there.
    json: Vec<(String, Value)>,
}

impl Http {
    pub(super) fn new(spec: &Spec, ground: &Ground) -> Result<Self, String> {
        let Place::Server(_, path) = &spec.place else {
            return Err("it names no server".to_owned());
        };
        let method = spec.option("method").unwrap_or("GET").to_owned();
        if !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(format!(
                "method={method} is not a method such as GET or HEAD"
            ));
        }
        let plain = |text: &str| !text.bytes().any(|byte| byte.is_ascii_control());
        let target = match path.as_str() {
            "" => "/".to_owned(),
            path if plain(path) && !path.contains(' ') => path.to_owned(),
            path => {
                return Err(format!(
                    "\"{path}\" has a space or a control character; expected %20"
                ));
            }
        };
        let send = spec.options("send").map(|text| {
            let field = text
                .split_once(':')
                .filter(|(name, _)| is_token(name) && plain(text));
            let (name, value) = field
                .ok_or_else(|| format!("send={text} is not a field such as Accept: text/plain"))?;
            Ok((name.to_owned(), value.trim().to_owned()))
        });
        let host = spec.option("host").map(str::to_owned);
        if let Some(host) = host
            .as_deref()
            .filter(|host| !plain(host) || host.contains(' '))
        {
            return Err(format!("host={host} is not a host"));
        }
        Ok(Self {
            link: Link::new(spec, ground, Inside::Http1)?,
            send: send.collect::<Result<_, String>>()?,
            method,
            target,
            host,
            wanted: Wanted::new(spec)?,
        })
    }

    async fn ask(&mut self, phases: &Phases) -> Result<String, String> {
        let fields: Vec<(&str, &str)> = self
            .send
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let ask = Ask {
            method: &self.method,
            target: &self.target,
            fields: &fields,
            body: b"",
            most: MOST_BYTES,
        };
        let host = self
            .host
            .as_deref()
            .unwrap_or_else(|| self.link.host())
            .to_owned();
        if let Some(mut line) = self.link.take() {
            phases.enter(Phase::Query);
            // One that was closed meanwhile is no fault.
            if let Ok((fetched, clean)) = ask_on(&mut line.wire, &host, ask).await {
                if clean {
                    self.link.keep(line);
                }
                return self.wanted.look(&fetched);
            }
        }
        let mut line = self.link.open(phases).await?;
        phases.enter(Phase::Query);
        let (fetched, clean) = ask_on(&mut line.wire, &host, ask).await?;
        if clean {
            self.link.keep(line);
        }
        self.wanted.look(&fetched)
    }
}

impl Prober for Http {
    fn probe<'a>(&'a mut self, phases: &'a Phases) -> Probing<'a> {
        Box::pin(self.ask(phases))
    }
}

impl Wanted {
    fn new(spec: &Spec) -> Result<Self, String> {
        let status = spec.option("status").unwrap_or("200-399");
        let status = status.split(',').map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let code = |text: &str| text.parse().ok().filter(|code| (100..600).contains(code));
            let range = code(from).zip(code(to)).filter(|(from, to)| from <= to);
            range.ok_or_else(|| {
                format!(
                    "status={part} is not a status such as 200 or 200-299 (several with commas)"
                )
            })
        });
        let fields = spec.options("header").map(|text| {
            let (name, value) = text
                .split_once(':')
                .filter(|(name, _)| is_token(name))
                .ok_or_else(|| format!("header={text} is not NAME: REGEX"))?;
            Ok((name.to_owned(), regex("header", value.trim())?))
        });
        let json = spec.options("json").map(|text| {
            // A pointer has no `=` of its own in practice; what follows the first is the value.
            let (pointer, value) = text
                .split_once('=')
                .filter(|(pointer, _)| pointer.is_empty() || pointer.starts_with('/'))
                .ok_or_else(|| format!("json={text} is not /POINTER=VALUE (RFC 6901)"))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            Ok((pointer.to_owned(), value))
        });
        Ok(Self {
            status: status.collect::<Result<_, String>>()?,
            fields: fields.collect::<Result<_, String>>()?,
            body: spec
                .option("body")
                .map(|text| regex("body", text))
                .transpose()?,
            json: json.collect::<Result<_, String>>()?,
        })
    }

    fn look(&self, got: &Fetched) -> Result<String, String> {
        let status = got.status;
        if !self
            .status
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&status))
        {
            return Err(format!("answers {status}"));
        }
        for (name, wanted) in &self.fields {
            let those = got.fields.iter();
            let mut those = those
                .filter(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
                .peekable();
            if those.peek().is_none() {
                return Err(format!("answers {status} without the field {name}"));
            }
            if let Some(value) = those.find(|value| !wanted.is_match(value.as_bytes())) {
                return Err(format!(
                    "answers {name}: {value}, which does not match {wanted}"
                ));
            }
        }
        if let Some(wanted) = &self.body
            && !wanted.is_match(&got.body)
        {
            return Err(format!(
                "answers {status} with a body that does not match {wanted}"
            ));
        }
        if !self.json.is_empty() {
            let tree: Value = serde_json::from_slice(&got.body)
                .map_err(|why| format!("answers {status} with a body that is not JSON: {why}"))?;
            for (pointer, wanted) in &self.json {
                match tree.pointer(pointer) {
                    Some(found) if found == wanted => {}
                    Some(found) => return Err(format!("says {found} at {pointer}, not {wanted}")),
                    None => return Err(format!("has nothing at {pointer}; expected {wanted}")),
                }
            }
        }
        Ok(format!("answers {status}"))
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(right)
}

pub(super) fn regex(key: &str, text: &str) -> Result<Regex, String> {
    // Of bytes: without Unicode's tables, which `\d` and `\w` would need.
    RegexBuilder::new(text)
        .unicode(false)
        .build()
        .map_err(|why| {
            // The first lines draw the expression.
            let why = why.to_string();
            let last = why.lines().last().unwrap_or_default();
            format!("{key}: \"{text}\" is not a regular expression: {last}")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use podkit_foundation::params::ParamType as _;

    fn got(status: u16, body: &str) -> Fetched {
        Fetched {
            status,
            content_type: String::new(),
            fields: vec![("X-State".to_owned(), "primary".to_owned())],
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn answers_are_held_against_what_is_wanted() {
        let check = |keys: &str, got: &Fetched, expected: Result<&str, &str>| {
            let spec = Spec::parse(&format!("a=http://h{keys}")).unwrap();
            let found = Wanted::new(&spec).unwrap().look(got);
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found, expected, "{keys}");
        };
        let json = got(200, r#"{"a": {"b": [1, "x"]}, "ok": true}"#);
        check("", &got(204, ""), Ok("answers 204"));
        check("", &got(503, ""), Err("answers 503"));
        check(";status=200,500-599", &got(503, ""), Ok("answers 503"));
        check(";status=200", &got(204, ""), Err("answers 204"));
        check(";header=x-state: ^prim", &json, Ok("answers 200"));
        check(
            ";header=X-State: ^replica$",
            &json,
            Err("answers X-State: primary, which does not match ^replica$"),
        );
        check(
            ";header=X-No: .",
            &json,
            Err("answers 200 without the field X-No"),
        );
        check(";body=\"ok\": *true", &json, Ok("answers 200"));
        check(
            ";body=^no",
            &json,
            Err("answers 200 with a body that does not match ^no"),
        );
        check(r#";body="b": \[\d,"#, &json, Ok("answers 200"));
        check(";json=/ok=true", &json, Ok("answers 200"));
        check(";json=/a/b/1=x;json=/a/b/0=1", &json, Ok("answers 200"));
        check(";json=/ok=false", &json, Err("says true at /ok, not false"));
        check(";json=/c=1", &json, Err("has nothing at /c; expected 1"));
    }

    #[test]
    fn what_can_not_be_wanted_is_named() {
        let check = |keys: &str, why: &str| {
            let spec = Spec::parse(&format!("a=http://h{keys}")).unwrap();
            let ground = Ground {
                tls: None,
                relogin: std::time::Duration::from_secs(1),
            };
            let error = Http::new(&spec, &ground).err().unwrap();
            assert!(error.contains(why), "{keys}: {error}");
        };
        check(";status=20", "status=20 is not a status");
        check(";status=299-200", "status=299-200");
        check(";body=(", "body: \"(\" is not a regular expression");
        check(";json=a", "json=a is not /POINTER=VALUE");
        check(";header=a", "header=a is not NAME: REGEX");
        check(";send=a b: c", "send=a b: c is not a field");
        check(";method=get", "method=get");
        check("/a b", "has a space");
        check(";server-name=x", "server-name= is for https://");
    }
}
