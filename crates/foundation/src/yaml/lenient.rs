//! What Kubernetes' parser (go-yaml, `yaml_parser_scan_flow_scalar`) reads though YAML has no such thing: `\'` in double quotes, which
//! manifests of Kubernetes' own documentation have.
//!
//! The parser here is left as strict as it is. A text with such an escape is written as YAML has it, and with spaces behind it as long
//! as it was, so that what comes after it in the line stands where it stood.

use std::borrow::Cow;

use granit_parser::Parser;

use super::reader::MAX_FILE_BYTES;

/// Texts of a small file that are looked for; of a large one so many that the looking has its bound.
const TEXTS_MAX: usize = 1000;

/// The text without such escapes, as far as they stand before any other syntax error.
pub(super) fn without_quote_escapes(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    if !text.contains("\\'") {
        return text;
    }
    for _ in 0..(MAX_FILE_BYTES / text.len()).clamp(1, TEXTS_MAX) {
        let Some(written) = unknown_escape(&text).and_then(|start| rewritten(&text, start)) else {
            break;
        };
        text = Cow::Owned(written);
    }
    text
}

/// Where the text in double quotes begins at which the parser stops because of an escape.
fn unknown_escape(text: &str) -> Option<usize> {
    let mut parser = Parser::new_from_str(text);
    let error = loop {
        if let Err(error) = parser.next_event()? {
            break error;
        }
    };
    if !error.info().ends_with("found unknown escape character") {
        return None;
    }
    let (line, column) = (error.marker().line(), error.marker().col());
    let mut lines = text.split_inclusive('\n');
    let before: usize = lines
        .by_ref()
        .take(line.checked_sub(1)?)
        .map(str::len)
        .sum();
    let (within, _) = lines.next()?.char_indices().nth(column)?;
    Some(before + within)
}

/// With the text in double quotes that begins at `start` written otherwise; none when it has no such escape.
fn rewritten(text: &str, start: usize) -> Option<String> {
    let inside = text.get(start..)?.strip_prefix('"')?;
    let mut written = text[..=start].to_owned();
    let mut chars = inside.char_indices();
    let (mut dropped, mut dropped_in_line) = (0, 0);
    while let Some((at, char)) = chars.next() {
        match char {
            '"' if dropped == 0 => return None,
            '"' => {
                written.push('"');
                written.extend(std::iter::repeat_n(' ', dropped_in_line));
                written.push_str(&inside[at + 1..]);
                return Some(written);
            }
            '\\' => match chars.next() {
                Some((_, '\'')) => {
                    written.push('\'');
                    dropped += 1;
                    dropped_in_line += 1;
                }
                Some((_, escaped)) => written.extend(['\\', escaped]),
                None => return None,
            },
            char => {
                if char == '\n' {
                    dropped_in_line = 0;
                }
                written.push(char);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(without_quote_escapes(text), expected);
    }

    #[test]
    fn a_quote_needs_no_escape_and_nothing_behind_it_moves() {
        check(r#"a: "it\'s""#, r#"a: "it's" "#);
        check(
            "é: [\"\\'x\\'\", \"\\\\ \\' \\\"\", b] # \"\\'\"\n",
            "é: [\"'x'\"  , \"\\\\ ' \\\"\" , b] # \"\\'\"\n",
        );
        check("a: \"\\'\n  \\'b\"\nc: 1\n", "a: \"'\n  'b\" \nc: 1\n");
    }

    #[test]
    fn all_else_stays() {
        for text in [
            "a: \"b\"\n",
            "a: b\\'c\n",
            "a: 'b\\'\n",
            "a: |\n  \"\\'\"\n",
            "a: \"\\q\"\nb: \"\\'\"\n",
            "a: \"\\'",
        ] {
            check(text, text);
        }
    }

    proptest::proptest! {
        #[test]
        fn lines_and_their_lengths_stay(text in "[a:\"'\\\\ \n\\[,#-]{0,40}") {
            let written = without_quote_escapes(&text);
            let lengths = |text: &str| text.lines().map(str::len).collect::<Vec<_>>();
            let (before, after) = (lengths(&text), lengths(&written));
            assert_eq!(before.len(), after.len());
            assert!(before.iter().zip(&after).all(|(before, after)| after <= before));
        }
    }
}
