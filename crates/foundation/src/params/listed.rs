//! Structured parameters in a file: a YAML list whose items have the keys of [`pairs`](super::pairs).
//!
//! ```yaml
//! - name: api
//!   rate: 100/s
//!   method: [GET, POST]      # as in one text: GET,POST
//! ```
//!
//! Nothing else of YAML is there: no anchors, tags, nested maps or further documents.

use granit_parser::{Event, Parser, ScalarStyle};

use super::pairs::check_pair;

/// An item of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Where it begins, from 1.
    pub line: usize,
    /// Its keys and values, in order.
    pub pairs: Vec<(String, String)>,
}

impl Listed {
    /// The pairs as [`pairs`](super::pairs) gives them.
    pub fn as_pairs(&self) -> Vec<(&str, &str)> {
        self.pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    }
}

/// What may come next.
enum Place {
    /// The list itself.
    Start,
    /// An item, or the list's end.
    Item,
    /// A key, or the item's end.
    Key,
    /// The value of a key.
    Value(String),
    /// A part of a value that is a list, or its end.
    Part(String, Vec<String>),
    /// Nothing.
    End,
}

/// The items of `text`, whose keys are some of `keys`. An error begins with the line that is wrong.
pub fn listed(text: &str, keys: &[&str]) -> Result<Vec<Listed>, String> {
    let mut items: Vec<Listed> = Vec::new();
    let mut place = Place::Start;
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) = event.map_err(|error| {
            let line = error.marker().line();
            format!("line {line}: not YAML ({})", error.info())
        })?;
        let line = span.start.line();
        let wrong = |why: String| format!("line {line}: {why}");
        if let Event::Scalar(_, _, anchor, tag)
        | Event::SequenceStart(_, anchor, tag)
        | Event::MappingStart(_, anchor, tag) = &event
            && (*anchor > 0 || tag.is_some())
        {
            return Err(wrong("anchors and tags mean nothing here".to_owned()));
        }
        place = match (place, event) {
            (place, Event::StreamStart | Event::StreamEnd | Event::DocumentEnd) => place,
            (Place::Start, Event::DocumentStart(..)) => Place::Start,
            (Place::Start, Event::SequenceStart(..)) | (Place::Key, Event::MappingEnd) => {
                Place::Item
            }
            (Place::Item, Event::SequenceEnd) => Place::End,
            (Place::Item, Event::MappingStart(..)) => {
                items.push(Listed {
                    line,
                    pairs: Vec::new(),
                });
                Place::Key
            }
            (Place::Key, Event::Scalar(key, ..)) => Place::Value(key.into_owned()),
            (Place::Value(key), Event::Scalar(value, style, ..)) => {
                // What the parser gives for a value that is left out.
                let none = style == ScalarStyle::Plain && value == "~";
                let value = if none {
                    String::new()
                } else {
                    value.into_owned()
                };
                add(&mut items, key, value, keys).map_err(wrong)?;
                Place::Key
            }
            (Place::Value(key), Event::SequenceStart(..)) => Place::Part(key, Vec::new()),
            (Place::Part(key, mut parts), Event::Scalar(part, ..)) => {
                parts.push(part.into_owned());
                Place::Part(key, parts)
            }
            (Place::Part(key, parts), Event::SequenceEnd) => {
                add(&mut items, key, parts.join(","), keys).map_err(wrong)?;
                Place::Key
            }
            (Place::End, _) => return Err(wrong("one list is all that may be there".to_owned())),
            (Place::Start, _) => {
                return Err(wrong("expected a list: \"- name: …\"".to_owned()));
            }
            (Place::Item, _) => return Err(wrong("expected an item with keys".to_owned())),
            (Place::Key, _) => return Err(wrong("expected a key".to_owned())),
            (Place::Value(key) | Place::Part(key, _), _) => {
                return Err(wrong(format!(
                    "{key} takes a text, a number, or a list of them"
                )));
            }
        };
    }
    Ok(items)
}

fn add(items: &mut [Listed], key: String, value: String, keys: &[&str]) -> Result<(), String> {
    let Some(item) = items.last_mut() else {
        return Ok(());
    };
    check_pair((&key, &value), &item.as_pairs(), keys)?;
    item.pairs.push((key, value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_pairs_and_what_is_none() {
        let keys = ["name", "rate", "method"];
        let good = "# rules\n- name: a\n  rate: 100/s\n- {name: b, method: [GET, POST]}\n";
        let items = listed(good, &keys).unwrap();
        let lines: Vec<usize> = items.iter().map(|item| item.line).collect();
        assert_eq!(lines, [2, 4]);
        assert_eq!(items[0].as_pairs(), [("name", "a"), ("rate", "100/s")]);
        assert_eq!(items[1].as_pairs(), [("name", "b"), ("method", "GET,POST")]);
        assert_eq!(listed("", &keys), Ok(vec![]));
        assert_eq!(listed("[]", &keys), Ok(vec![]));
        let check = |text: &str, expected: &str| {
            let why = listed(text, &keys).expect_err(text);
            assert!(why.starts_with(expected), "{text}: {why}");
        };
        check(
            "- name: a\n  rat: 1/s\n",
            "line 2: there is no key \"rat\"; did you mean rate?",
        );
        check("- name: a\n  name: b\n", "line 2: name is given twice");
        check("- name: a\n  rate:\n", "line 2: rate has no value");
        check("- name: {a: b}\n", "line 1: name takes a text");
        check("name: a\n", "line 1: expected a list");
        check("- a\n", "line 1: expected an item with keys");
        check("- name: &x a\n", "line 1: anchors");
        check("- name: a\n---\n- name: b\n", "line 2: one list");
        check("- name: a\n - x\n", "line ");
        check("- name: [a\n", "line ");
    }
}
