//! The page of a benchmark: what was measured, on what, against what, and whether the goals are met.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use podkit_testkit::{machine, repository, stats};

use super::Effort;

/// A page that is being written.
#[derive(Debug)]
pub(crate) struct Report {
    name: &'static str,
    text: String,
}

/// A goal of the project and what came of it.
#[derive(Debug)]
pub(crate) struct Goal {
    /// In words, with its bound.
    pub(crate) what: String,
    /// What was measured.
    pub(crate) measured: f64,
    /// The bound.
    pub(crate) bound: f64,
    /// Whether the figure must stay below the bound; otherwise it must reach it.
    pub(crate) below: bool,
    /// What bounds it, when it is missed.
    pub(crate) note: &'static str,
}

impl Goal {
    fn met(&self) -> bool {
        if self.below {
            self.measured <= self.bound
        } else {
            self.measured >= self.bound
        }
    }
}

impl Report {
    /// Begins with the title, how to repeat it, and the machine.
    pub(crate) fn new(
        name: &'static str,
        title: &str,
        versions: &[(&str, String)],
        effort: Effort,
    ) -> Self {
        let mut report = Self {
            name,
            text: format!("# {title}\n\nWritten by `cargo xtask bench {name}`; don't edit.\n"),
        };
        let mut rows: Vec<Vec<String>> = machine::facts()
            .into_iter()
            .map(|(what, value)| vec![what, value])
            .collect();
        rows.extend(
            versions
                .iter()
                .map(|(what, value)| vec![(*what).to_owned(), value.clone()]),
        );
        rows.push(vec![
            "rounds".to_owned(),
            format!(
                "{}, interleaved; a figure is the median, ± the farthest round",
                effort.rounds
            ),
        ]);
        report.table("Machine and versions", &["", ""], &rows);
        report
    }

    /// A paragraph.
    pub(crate) fn paragraph(&mut self, text: &str) {
        self.push(&format!("\n{text}\n"));
    }

    /// A heading and a table.
    pub(crate) fn table(&mut self, title: &str, columns: &[&str], rows: &[Vec<String>]) {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> = columns.iter().map(|cell| (*cell).to_owned()).collect();
        let mut text = format!("\n## {title}\n\n{}", line(&head));
        text += &format!("|{}\n", "---|".repeat(columns.len()));
        for row in rows {
            text += &line(row);
        }
        self.push(&text);
    }

    /// The goals, missed ones too.
    pub(crate) fn goals(&mut self, goals: &[Goal]) {
        let rows: Vec<Vec<String>> = goals
            .iter()
            .map(|goal| {
                let verdict = if goal.met() { "met" } else { "**missed**" };
                let note = if goal.met() { "" } else { goal.note };
                vec![
                    goal.what.clone(),
                    figure(goal.measured),
                    format!("{verdict} {note}").trim().to_owned(),
                ]
            })
            .collect();
        self.table("Goals", &["goal", "measured", ""], &rows);
    }

    fn push(&mut self, text: &str) {
        print!("{text}");
        self.text += text;
    }

    /// Writes docs/benchmarks/NAME.md, unless this was a quick look.
    pub(crate) fn finish(self, effort: Effort) -> Result<()> {
        if effort.quick {
            println!("\nquick: nothing is written");
            return Ok(());
        }
        let folder = repository().join("docs/benchmarks");
        let path = folder.join(format!("{}.md", self.name));
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&path, self.text))
            .with_context(|| path.display().to_string())?;
        println!("\nwrote {}", relative(&path));
        Ok(())
    }
}

fn relative(path: &Path) -> String {
    let top = repository();
    path.strip_prefix(&top)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// A number with three digits that say something.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => thousands(value.round()),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The median of the rounds, and how far the farthest lies from it.
pub(crate) fn rounds(samples: &[f64]) -> String {
    format!(
        "{} ± {:.0} %",
        figure(stats::median(samples)),
        stats::spread(samples) * 100.0
    )
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        let left = digits.len() - index;
        if index > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        write!(text, "{digit}").expect("writing to a String can't fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_that_count() {
        assert_eq!(figure(0.853), "0.85");
        assert_eq!(figure(15.24), "15.2");
        assert_eq!(figure(81_250.4), "81,250");
        assert_eq!(figure(123.0), "123");
        assert_eq!(rounds(&[10.0, 11.0, 9.5]), "10.0 ± 10 %");
    }
}
