//! A query whose columns are metrics and labels, as postgres_exporter's queries.yaml has them.

use std::rc::Rc;

use super::value::{array, bound, label, milliseconds, number};
use crate::client::{Row, Table};
use crate::metrics::batch::{Batch, Kind, Line, render};

/// What a column is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Usage {
    Discard,
    Label,
    Counter,
    Gauge,
    /// Words, and what each counts as.
    Words(Vec<(String, f64)>),
    /// A duration as Go writes it; the metric is in milliseconds.
    Duration,
    /// Upper bounds; beside it there are NAME_bucket, NAME_sum and NAME_count.
    Histogram,
}

/// A column that is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) usage: Usage,
    pub(super) help: String,
}

/// All columns of a query.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mapped {
    /// What its metrics' names begin with.
    pub(super) namespace: String,
    pub(super) columns: Vec<Known>,
    /// Labels of all its samples.
    pub(super) fixed: Rc<[(String, String)]>,
}

impl Mapped {
    /// Adds what a table says. A column that is not known is a metric without a type when it is a number; a value that is none is left
    /// out, and the first of them is the error, when all the rest is there.
    pub(super) fn read(&self, table: &Table, batch: &mut Batch) -> Result<(), String> {
        let mut labels = Vec::new();
        for known in self.columns.iter().filter(|one| one.usage == Usage::Label) {
            let at = table.column(&known.name);
            let at = at.ok_or_else(|| format!("no column is the label {}", known.name))?;
            labels.push((known.name.as_str(), at));
        }
        let known: Vec<Option<&Known>> = table
            .columns
            .iter()
            .map(|column| self.columns.iter().find(|known| known.name == column.name))
            .collect();
        let mut wrong = None;
        for row in table.rows() {
            let rendered = self.labels(table, row, &labels);
            for (at, known) in known.iter().enumerate() {
                let result = match known {
                    Some(known) => self.known(table, row, at, known, &rendered, batch),
                    None => {
                        self.unknown(table, row, at, &rendered, batch);
                        Ok(())
                    }
                };
                wrong = wrong.or(result.err());
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    /// A label that its samples have anyway.
    pub(super) fn taken(&self) -> Option<&str> {
        let own = |name: &str| name == "source" || self.fixed.iter().any(|(own, _)| own == name);
        let labels = self.columns.iter().filter(|one| one.usage == Usage::Label);
        let mut names = labels.map(|one| one.name.as_str());
        names.find(|name| own(name))
    }

    fn labels(&self, table: &Table, row: Row<'_>, columns: &[(&str, usize)]) -> String {
        let values: Vec<String> = columns
            .iter()
            .map(|(_, at)| label(row.get(*at), table.columns[*at].class))
            .collect();
        let fixed = self.fixed.iter();
        let fixed = fixed.map(|(name, value)| (name.as_str(), value.as_str()));
        let own = columns.iter().map(|(name, _)| *name);
        let own = own.zip(values.iter().map(String::as_str));
        render(&own.chain(fixed).collect::<Vec<_>>())
    }

    fn known(
        &self,
        table: &Table,
        row: Row<'_>,
        at: usize,
        known: &Known,
        labels: &str,
        batch: &mut Batch,
    ) -> Result<(), String> {
        let name = format!("{}_{}", self.namespace, known.name);
        let value = row.get(at);
        let wrong = || format!("{} is no value of {}", value.unwrap_or("NULL"), known.name);
        let (kind, value) = match &known.usage {
            Usage::Discard | Usage::Label => return Ok(()),
            Usage::Histogram => return self.histogram(table, row, known, labels, batch),
            Usage::Duration => {
                let value = milliseconds(value.unwrap_or_default()).ok_or_else(wrong)?;
                let name = format!("{name}_milliseconds");
                batch
                    .family(&name, Kind::Gauge, known.help.clone())
                    .put_rendered(Line::Plain, labels.into(), value);
                return Ok(());
            }
            Usage::Words(words) => {
                let found = words.iter().find(|(word, _)| Some(word.as_str()) == value);
                (Kind::Gauge, found.ok_or_else(wrong)?.1)
            }
            Usage::Counter | Usage::Gauge => {
                let kind = match known.usage {
                    Usage::Counter => Kind::Counter,
                    _ => Kind::Gauge,
                };
                let number = number(value, table.columns[at].class);
                (kind, number.ok_or_else(wrong)?)
            }
        };
        batch.family(&name, kind, known.help.clone()).put_rendered(
            Line::Plain,
            labels.into(),
            value,
        );
        Ok(())
    }

    fn histogram(
        &self,
        table: &Table,
        row: Row<'_>,
        known: &Known,
        labels: &str,
        batch: &mut Batch,
    ) -> Result<(), String> {
        let value = |suffix: &str| {
            let name = format!("{}{suffix}", known.name);
            let at = table.column(&name);
            let at = at.ok_or_else(|| format!("a histogram needs the column {name}"))?;
            Ok::<_, String>(row.text(at))
        };
        let wrong = || format!("the histogram {} has a value that is none", known.name);
        let bounds = array(value("")?).ok_or_else(wrong)?;
        let counts = array(value("_bucket")?).ok_or_else(wrong)?;
        let sum: f64 = value("_sum")?.parse().map_err(|_| wrong())?;
        let count: f64 = value("_count")?.parse().map_err(|_| wrong())?;
        let name = format!("{}_{}", self.namespace, known.name);
        let family = batch.family(&name, Kind::Histogram, known.help.clone());
        let comma = if labels.is_empty() { "" } else { "," };
        let mut bucket = |le: f64, count: f64| {
            let labels = format!("{labels}{comma}le=\"{}\"", bound(le));
            family.put_rendered(Line::Bucket, labels.into(), count);
        };
        for (le, count) in bounds.iter().zip(&counts) {
            bucket(*le, *count);
        }
        bucket(f64::INFINITY, count);
        family.put_rendered(Line::Sum, labels.into(), sum);
        family.put_rendered(Line::Count, labels.into(), count);
        Ok(())
    }

    /// The columns of a histogram are no metrics of their own.
    fn of_histogram(&self, name: &str) -> bool {
        let ends = ["_bucket", "_sum", "_count"];
        let base = ends.iter().find_map(|end| name.strip_suffix(end));
        base.is_some_and(|base| {
            let mut histograms = self
                .columns
                .iter()
                .filter(|one| one.usage == Usage::Histogram);
            histograms.any(|one| one.name == base)
        })
    }

    fn unknown(&self, table: &Table, row: Row<'_>, at: usize, labels: &str, batch: &mut Batch) {
        let column = &table.columns[at];
        let Some(value) = number(row.get(at), column.class) else {
            return;
        };
        if self.of_histogram(&column.name) {
            return;
        }
        let name = format!("{}_{}", self.namespace, column.name);
        let help = format!("Unknown metric from {}", self.namespace);
        batch
            .family(
                &crate::metrics::batch::metric_name(&name),
                Kind::Untyped,
                help,
            )
            .put_rendered(Line::Plain, labels.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::table;
    use crate::metrics::source::sql::file::parse;

    fn read(columns: &[&str], rows: &[&[&str]]) -> (Batch, Result<(), String>) {
        let text = "shop:\n  query: SELECT 1\n  metrics:\n\
                    - state: {usage: LABEL}\n\
                    - orders: {usage: GAUGE, description: Orders}\n\
                    - age: {usage: DURATION}\n\
                    - mode: {usage: MAPPEDMETRIC, metric_mapping: {open: 1, shut: 0}}\n\
                    - took: {usage: HISTOGRAM}\n\
                    - note: {usage: DISCARD}\n";
        let text = text.replace("\n-", "\n    -");
        let mut mapped = parse(&text, "q.yaml").unwrap().remove(0).mapped;
        mapped.fixed = Rc::new([("server".to_owned(), "s".to_owned())]);
        let mut batch = Batch::default();
        let result = mapped.read(&table(columns, rows), &mut batch);
        (batch, result)
    }

    fn shown(batch: &Batch) -> Vec<String> {
        let families = batch.families().iter().flat_map(|family| {
            let samples = family.samples.iter();
            samples.map(move |one| {
                format!(
                    "{}{}{{{}}} {}",
                    family.name,
                    one.line.suffix(),
                    one.labels,
                    one.value
                )
            })
        });
        families.collect()
    }

    #[test]
    fn columns_become_metrics_and_labels() {
        let columns = ["orders", "state", "age", "mode", "note", "more", "word"];
        let (batch, result) = read(&columns, &[&["3", "paid", "1m2s", "open", "x", "0.5", "y"]]);
        assert_eq!(result, Ok(()));
        let labels = "{state=\"paid\",server=\"s\"}";
        assert_eq!(
            shown(&batch),
            [
                format!("shop_orders{labels} 3"),
                format!("shop_age_milliseconds{labels} 62000"),
                format!("shop_mode{labels} 1"),
                format!("shop_more{labels} 0.5"),
            ]
        );
        assert_eq!(batch.families()[3].kind, Kind::Untyped);
    }

    #[test]
    fn no_label_comes_twice() {
        let text =
            "a:\n  query: q\n  metrics:\n    - server: {usage: LABEL}\n    - x: {usage: GAUGE}\n";
        let mut mapped = parse(text, "q").unwrap().remove(0).mapped;
        assert_eq!(mapped.taken(), None);
        mapped.fixed = Rc::new([("server".to_owned(), "s".to_owned())]);
        assert_eq!(mapped.taken(), Some("server"));
    }

    #[test]
    fn a_histogram_is_four_columns() {
        let columns = ["state", "took", "took_bucket", "took_sum", "took_count"];
        let (batch, result) = read(&columns, &[&["a", "{0.5,1}", "{1,2}", "7.5", "4"]]);
        assert_eq!(result, Ok(()));
        let labels = "state=\"a\",server=\"s\"";
        assert_eq!(
            shown(&batch),
            [
                format!("shop_took_bucket{{{labels},le=\"0.5\"}} 1"),
                format!("shop_took_bucket{{{labels},le=\"1\"}} 2"),
                format!("shop_took_bucket{{{labels},le=\"+Inf\"}} 4"),
                format!("shop_took_sum{{{labels}}} 7.5"),
                format!("shop_took_count{{{labels}}} 4"),
            ]
        );
        let (_, result) = read(&columns[..3], &[&["a", "{1}", "{1}"]]);
        assert_eq!(result.unwrap_err(), "a histogram needs the column took_sum");
    }

    #[test]
    fn what_is_no_value_leaves_the_others() {
        let (batch, result) = read(
            &["state", "mode", "orders"],
            &[&["a", "ajar", "many"], &["b", "shut", "2"]],
        );
        assert_eq!(result.unwrap_err(), "ajar is no value of mode");
        let labels = "{state=\"b\",server=\"s\"}";
        assert_eq!(
            shown(&batch),
            [
                format!("shop_mode{labels} 0"),
                format!("shop_orders{labels} 2")
            ]
        );
        let (_, result) = read(&["orders"], &[&["1"]]);
        assert_eq!(result.unwrap_err(), "no column is the label state");
    }
}
