//! Syntax errors in the words of someone who edits a manifest. The parser's own are those of the YAML specification.

use super::reader::MAX_DEPTH;

/// The parser's words, in those of someone who edits a manifest; and the line and column (from 0) to blame.
pub(super) fn explain(info: &str, text: &str, at: (usize, usize)) -> ((usize, usize), String) {
    let mut lines = text.lines().enumerate().skip(at.0.saturating_sub(1));
    let line = lines.next().map_or("", |(_, line)| line);
    let tab = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        line[..indent].find('\t')
    };
    const TAB: &str = "a tab where YAML wants spaces";
    if tab(line).is_some() {
        return (at, TAB.into());
    }
    if info.contains("tab") {
        // The parser reads a text on into the next line before it meets the tab there.
        let next = lines.next().and_then(|(i, line)| Some((i + 1, tab(line)?)));
        return (next.unwrap_or(at), TAB.into());
    }
    (at, words(info, line))
}

fn words(info: &str, line: &str) -> String {
    if line.trim_start().starts_with("{{") || line.contains("{{-") {
        return format!("{info}; a template has to be rendered first");
    }
    match info {
        "simple key expected ':'" => {
            format!("expected `key: value`, found {:?}", clip(line.trim()))
        }
        "while parsing a block mapping, did not find expected key" => {
            "expected a key here: is the indentation that of the keys above?".into()
        }
        "mapping values are not allowed in this context" => {
            "a second `key: value` inside a value: is the indentation right, are quotes missing, or a colon in the line above?"
                .into()
        }
        "while parsing node, found unknown anchor" => {
            "an alias to an anchor that isn't in this document".into()
        }
        "invalid indentation in multiline quoted scalar" => {
            "a text in quotes goes on in a line that is indented no further than its key: indent it further".into()
        }
        "while parsing a quoted scalar, found unknown escape character" => {
            r#"a \ in double quotes that escapes nothing: write \\, or use single quotes"#.into()
        }
        "recursion limit exceeded" => format!("nested deeper than {MAX_DEPTH} levels"),
        info if info.starts_with("unexpected character") => {
            format!("{info}: a value that begins so needs quotes")
        }
        info => info.to_owned(),
    }
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
