//! Lines of `NAME:  VALUE`, indented by two spaces a level, the values of a block below each other.

use std::fmt::Write as _;

/// A text that grows block by block.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    block: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    indent: usize,
    name: String,
    value: String,
}

impl Page {
    /// `NAME:  VALUE`; only `NAME:` when the value is empty.
    pub(super) fn put(&mut self, indent: usize, name: &str, value: impl AsRef<str>) {
        self.line(indent, format!("{}:", one_line(name)), value.as_ref());
    }

    /// A value a line, the name before the first.
    pub(super) fn put_all(&mut self, indent: usize, name: &str, values: &[String]) {
        let (first, others) = match values {
            [] => ("<none>", &[][..]),
            [first, others @ ..] => (first.as_str(), others),
        };
        self.put(indent, name, first);
        for value in others {
            self.line(indent, String::new(), value);
        }
    }

    /// Two words, the second where values stand.
    pub(super) fn pair(&mut self, indent: usize, first: &str, second: &str) {
        self.line(indent, one_line(first), second);
    }

    /// A text where names stand.
    pub(super) fn word(&mut self, indent: usize, word: &str) {
        self.line(indent, one_line(word), "");
    }

    fn line(&mut self, indent: usize, name: String, value: &str) {
        self.block.push(Line {
            indent,
            name,
            value: one_line(value),
        });
    }

    /// Ends a block: the next one has its values in another column.
    pub(super) fn end_block(&mut self) {
        let with_value = self.block.iter().filter(|line| !line.value.is_empty());
        let widths = with_value.map(|line| 2 * line.indent + line.name.chars().count());
        let column = widths.max().unwrap_or(0) + 2;
        for line in self.block.drain(..) {
            let mut text = format!("{:1$}{2}", "", 2 * line.indent, line.name);
            if !line.value.is_empty() {
                text = format!("{text:column$}{}", line.value);
            }
            writeln!(self.text, "{}", text.trim_end()).expect("writing to a String can't fail");
        }
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        self.end_block();
        self.text
    }
}

/// What has several lines, or could move the cursor, takes one line and does not.
pub(super) fn one_line(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.trim_end().chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_block_stand_below_each_other() {
        let mut page = Page::default();
        page.put(0, "Name", "web");
        page.put_all(0, "Labels", &["a=b".to_owned(), "c=d".to_owned()]);
        page.end_block();
        page.put(0, "Containers", "");
        page.put(1, "app", "");
        page.put(2, "Args", "");
        page.word(3, "a very long word that moves nothing\u{1b}");
        page.put(2, "Ready", "True");
        assert_eq!(
            page.finish(),
            "Name:    web\nLabels:  a=b\n         c=d\nContainers:\n  app:\n    Args:\n      a very long word that moves nothing\n    Ready:  True\n"
        );
    }
}
