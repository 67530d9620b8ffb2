//! Rows of text, as a server sent them.

/// What a column's values are, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// `t` or `f`.
    Bool,
    /// `2026-01-31 10:00:00.5`, with or without an offset.
    Time,
    /// Anything else.
    Text,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) class: Class,
}

/// The rows of one statement. All text is in one place: a row costs no allocation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    text: String,
    /// Where each value ends in the text; None where there is none.
    ends: Vec<(usize, bool)>,
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self {
            columns,
            ..Self::default()
        }
    }

    /// The next value, row after row.
    pub(crate) fn push(&mut self, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.text.push_str(&String::from_utf8_lossy(value));
        }
        self.ends.push((self.text.len(), value.is_some()));
    }

    /// Bytes of its values.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + self.ends.len() * size_of::<(usize, bool)>()
    }

    /// The place of a column.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// All rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let width = self.columns.len();
        let count = self.ends.len().checked_div(width).unwrap_or(0);
        (0..count).map(move |row| Row {
            table: self,
            first: row * width,
        })
    }
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    table: &'a Table,
    first: usize,
}

impl<'a> Row<'a> {
    /// The value of a column; None for NULL, and where there is no such column.
    pub(crate) fn get(self, column: usize) -> Option<&'a str> {
        if column >= self.table.columns.len() {
            return None;
        }
        let at = self.first + column;
        let (end, is) = *self.table.ends.get(at)?;
        let start = match at.checked_sub(1) {
            Some(before) => self.table.ends[before].0,
            None => 0,
        };
        is.then(|| &self.table.text[start..end])
    }

    /// The same, `""` for what is not there.
    pub(crate) fn text(self, column: usize) -> &'a str {
        self.get(column).unwrap_or_default()
    }

    /// As a number.
    pub(crate) fn number(self, column: usize) -> Option<f64> {
        self.get(column)?.trim().parse().ok()
    }
}

/// One of text, for tests.
#[cfg(test)]
pub(crate) fn table(columns: &[&str], rows: &[&[&str]]) -> Table {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        class: Class::Text,
    };
    let mut table = Table::new(columns.iter().map(column).collect());
    for value in rows.iter().copied().flatten() {
        table.push(Some(value.as_bytes()));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_where_they_were_put() {
        let column = |name: &str| Column {
            name: name.to_owned(),
            class: Class::Text,
        };
        let mut table = Table::new(vec![column("a"), column("b")]);
        for value in [Some("1"), None, Some(""), Some("é")] {
            table.push(value.map(str::as_bytes));
        }
        let rows: Vec<_> = table.rows().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(rows, [(Some("1"), None), (Some(""), Some("é"))]);
        let first = table.rows().next().unwrap();
        assert_eq!(
            (first.number(0), first.get(2), first.text(1)),
            (Some(1.0), None, "")
        );
        assert_eq!(table.column("b"), Some(1));
        assert_eq!(Table::default().rows().count(), 0);
    }
}
