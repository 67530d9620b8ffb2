//! Columns of text, as kubectl sets them: as wide as their widest cell, three spaces between.

/// Rows below a header.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    header: bool,
}

impl Table {
    pub(super) fn new(header: &[&str], shown: bool) -> Self {
        Self {
            rows: vec![header.iter().map(|&name| name.to_owned()).collect()],
            header: shown,
        }
    }

    /// A row has a cell for each column. What containers and peers have said can't move the cursor.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let harmless = |cell: String| {
            let clean = |c: char| if c.is_control() { ' ' } else { c };
            cell.chars().map(clean).collect()
        };
        self.rows.push(cells.into_iter().map(harmless).collect());
    }

    /// The text; `widths` of an earlier part of the same table are kept, and grow.
    pub(super) fn text_with(&self, widths: &mut Vec<usize>) -> String {
        for row in &self.rows {
            widths.resize(row.len().max(widths.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in self.rows.iter().skip(usize::from(!self.header)) {
            for (column, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if column + 1 < row.len() {
                    let pad = widths[column] + 3 - cell.chars().count();
                    text.extend(std::iter::repeat_n(' ', pad));
                }
            }
            text.push('\n');
        }
        text
    }

    pub(super) fn text(&self) -> String {
        self.text_with(&mut Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "READY"], true);
        table.row(["a-long-name".to_owned(), "1/1".to_owned()]);
        table.row(["b\u{1b}[2J".to_owned(), "0/1".to_owned()]);
        assert_eq!(
            table.text(),
            "NAME          READY\na-long-name   1/1\nb [2J         0/1\n"
        );
    }
}
