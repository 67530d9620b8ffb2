//! Batches as text: Prometheus 0.0.4 or OpenMetrics 1.0.
//!
//! Names stay what the usual exporters call them in both formats, so that a dashboard does not depend on what the scraper asked
//! for. OpenMetrics wants a counter's samples to end in `_total`: what does not is `unknown` there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use podkit_foundation::telemetry::metrics::Format;

use super::batch::{Batch, Family, Kind, Line, put_value};

/// What is written: a batch, and the labels that all its samples get (rendered; empty for none).
pub(crate) type Part<'a> = (&'a str, &'a Batch);

/// How it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) format: Format,
    /// Names are made to keep the rules of `promtool check metrics`.
    pub(crate) strict: bool,
}

/// All families of `parts`, each once, in the order in which they come first; a series that comes twice is written once.
pub(crate) fn expose(parts: &[Part<'_>], style: Style) -> String {
    let mut out = String::new();
    expose_to(&mut out, parts, style, |_| ());
    out
}

/// The same, into `out`; `written` is told after each family, and may take what is there.
pub(crate) fn expose_to(
    out: &mut String,
    parts: &[Part<'_>],
    style: Style,
    mut written: impl FnMut(&mut String),
) {
    let mut order: Vec<Group<'_>> = Vec::new();
    let mut known: HashMap<Cow<'_, str>, usize> = HashMap::new();
    for (labels, batch) in parts {
        for family in batch
            .families()
            .iter()
            .filter(|one| !one.samples.is_empty())
        {
            let (name, kind, per) = named(family, style);
            match known.entry(name) {
                Entry::Occupied(at) => {
                    let group = &mut order[*at.get()];
                    if group.kind != kind {
                        group.mix();
                    }
                    group.families.push((labels, family, per));
                }
                Entry::Vacant(free) => {
                    order.push(Group {
                        name: free.key().clone(),
                        kind,
                        families: vec![(labels, family, per)],
                    });
                    free.insert(order.len() - 1);
                }
            }
        }
    }
    for group in &order {
        group.put(out, style.format);
        written(out);
    }
    if style.format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
}

/// The families of one name.
struct Group<'a> {
    name: Cow<'a, str>,
    kind: Kind,
    /// With the labels that all their samples get, and what their values are divided by.
    families: Vec<(&'a str, &'a Family, f64)>,
}

impl Group<'_> {
    /// Sources do not agree about what it is.
    fn mix(&mut self) {
        self.kind = Kind::Untyped;
    }

    fn put(&self, out: &mut String, format: Format) {
        let (shown, word) = self.head(format);
        if format == Format::OpenMetrics && self.has_percentiles() {
            for line in [Line::Plain, Line::Sum, Line::Count] {
                let shown = format!("{shown}{}", line.suffix());
                self.put_part(out, format, (&shown, "unknown"), Some(line));
            }
            return;
        }
        self.put_part(out, format, (shown, word), None);
    }

    /// It is a summary whose quantiles are not between 0 and 1, as redis_exporter has them: OpenMetrics knows no such summary.
    fn has_percentiles(&self) -> bool {
        let samples = self
            .families
            .iter()
            .flat_map(|(_, family, _)| &family.samples);
        self.kind == Kind::Summary
            && samples
                .filter_map(|sample| sample.labels.split_once("quantile=\""))
                .filter_map(|(_, rest)| rest.split('"').next()?.parse::<f64>().ok())
                .any(|quantile| !(0.0..=1.0).contains(&quantile))
    }

    /// The family, or those lines of it.
    fn put_part(
        &self,
        out: &mut String,
        format: Format,
        (shown, word): (&str, &str),
        only: Option<Line>,
    ) {
        let help = self.families[0].1.help.as_ref();
        if !help.is_empty() {
            out.push_str("# HELP ");
            out.push_str(shown);
            out.push(' ');
            put_help(out, help, format);
            out.push('\n');
        }
        out.push_str("# TYPE ");
        out.push_str(shown);
        out.push(' ');
        out.push_str(word);
        out.push('\n');
        // Only who is not alone can have been written before.
        let alone = self.families.len() == 1 && self.families[0].1.samples.len() == 1;
        let mut seen = std::collections::HashSet::new();
        for (labels, family, per) in &self.families {
            for sample in &family.samples {
                if only.is_some_and(|only| only != sample.line) {
                    continue;
                }
                if !alone && !seen.insert((*labels, sample.line.suffix(), &*sample.labels)) {
                    continue;
                }
                out.push_str(&self.name);
                out.push_str(sample.line.suffix());
                put_labels(out, labels, &sample.labels);
                out.push(' ');
                put_value(out, sample.value / per);
                out.push('\n');
            }
        }
    }

    /// The family's name and type as the format has them.
    fn head(&self, format: Format) -> (&str, &'static str) {
        match (format, self.kind) {
            (Format::OpenMetrics, Kind::Counter) => match self.name.strip_suffix("_total") {
                Some(family) => (family, "counter"),
                None => (&self.name, "unknown"),
            },
            (Format::Prometheus, Kind::Counter) => (&self.name, "counter"),
            (_, Kind::Gauge) => (&self.name, "gauge"),
            (Format::OpenMetrics, Kind::Untyped) => (&self.name, "unknown"),
            (Format::Prometheus, Kind::Untyped) => (&self.name, "untyped"),
            (_, Kind::Histogram) => (&self.name, "histogram"),
            (_, Kind::Summary) => (&self.name, "summary"),
        }
    }
}

fn put_labels(out: &mut String, common: &str, own: &str) {
    if common.is_empty() && own.is_empty() {
        return;
    }
    out.push('{');
    out.push_str(common);
    if !common.is_empty() && !own.is_empty() {
        out.push(',');
    }
    out.push_str(own);
    out.push('}');
}

/// OpenMetrics wants quotes escaped too.
fn put_help(out: &mut String, help: &str, format: Format) {
    for part in help.chars() {
        match part {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if format == Format::OpenMetrics => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

/// The name under which a family is written, its kind there, and what its values are divided by.
fn named(family: &Family, style: Style) -> (Cow<'_, str>, Kind, f64) {
    let plain = family.samples.iter().all(|one| one.line == Line::Plain);
    let kind = match family.kind {
        // What has no buckets, sums or counts is none.
        Kind::Histogram if plain => Kind::Untyped,
        kind => kind,
    };
    match style.strict {
        true => {
            let (name, parts) = strict_name(&family.name, kind);
            (name.into(), kind, parts)
        }
        false => ((&*family.name).into(), kind, 1.0),
    }
}

/// Short words for parts of a second, and how many of them it has.
const TIMES: [(&str, f64); 4] = [("sec", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)];

/// Counters end in `_total` and nothing else does; times are in seconds. What the values are to be divided by comes with it: bounds of
/// buckets are labels, which stay, so of histograms and summaries only the word changes.
fn strict_name(name: &str, kind: Kind) -> (String, f64) {
    let bare = name.strip_suffix("_total").unwrap_or(name);
    let plain = !matches!(kind, Kind::Histogram | Kind::Summary);
    let mut per = 1.0;
    let words: Vec<&str> = bare
        .split('_')
        .map(|word| {
            let time = TIMES.iter().find(|(short, _)| *short == word);
            match time.filter(|(_, parts)| plain || *parts <= 1.0) {
                Some((_, parts)) => {
                    per = *parts;
                    "seconds"
                }
                None => word,
            }
        })
        .collect();
    let bare = words.join("_");
    match kind {
        Kind::Counter => (format!("{bare}_total"), per),
        _ => (bare, per),
    }
}

/// The names of the samples of a family that is called so.
pub(crate) fn served(name: &str, kind: Kind, strict: bool) -> Vec<String> {
    let name = match strict {
        true => strict_name(name, kind).0,
        false => name.to_owned(),
    };
    let ends: &[&str] = match kind {
        Kind::Histogram => &["_bucket", "_sum", "_count"],
        Kind::Summary => &["", "_sum", "_count"],
        _ => &[""],
    };
    ends.iter().map(|end| format!("{name}{end}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(format: Format, strict: bool) -> Style {
        Style { format, strict }
    }

    fn two() -> (Batch, Batch) {
        let mut one = Batch::default();
        one.counter("a_total", "An \"a\".", 1.0);
        one.family("b", Kind::Counter, "").put(&[("x", "y")], 2.0);
        let mut two = Batch::default();
        two.family("b", Kind::Counter, "")
            .put(&[("x", "y")], 3.0)
            .put(&[("x", "y")], 4.0);
        two.gauge("none_total", "g", 0.5);
        (one, two)
    }

    #[test]
    fn a_family_of_two_sources_is_written_once() {
        let (one, two) = two();
        let parts = [("source=\"one\"", &one), ("", &two)];
        assert_eq!(
            expose(&parts, style(Format::Prometheus, false)),
            "# HELP a_total An \"a\".\n# TYPE a_total counter\na_total{source=\"one\"} 1\n\
             # TYPE b counter\nb{source=\"one\",x=\"y\"} 2\nb{x=\"y\"} 3\n\
             # HELP none_total g\n# TYPE none_total gauge\nnone_total 0.5\n"
        );
    }

    #[test]
    fn openmetrics_keeps_the_names() {
        let (one, _) = two();
        assert_eq!(
            expose(&[("", &one)], style(Format::OpenMetrics, false)),
            "# HELP a An \\\"a\\\".\n# TYPE a counter\na_total 1\n# TYPE b unknown\nb{x=\"y\"} 2\n# EOF\n"
        );
    }

    #[test]
    fn strict_names_say_what_is_a_counter() {
        let (one, two) = two();
        let text = expose(&[("", &one), ("", &two)], style(Format::OpenMetrics, true));
        assert!(text.contains("# TYPE b counter\nb_total{x=\"y\"} 2\n# HELP none g\n"));
        assert!(!text.contains("none_total"), "{text}");
        let mut times = Batch::default();
        times.counter("a_time_ms_total", "", 1234.0);
        times.gauge("b_sec", "", 2.0);
        times
            .family("c_ms", Kind::Histogram, "")
            .put_line(Line::Sum, &[], 5.0);
        assert_eq!(
            expose(&[("", &times)], style(Format::Prometheus, true)),
            "# TYPE a_time_seconds_total counter\na_time_seconds_total 1.234\n# TYPE b_seconds gauge\nb_seconds 2\n\
             # TYPE c_ms histogram\nc_ms_sum 5\n"
        );
    }

    #[test]
    fn who_does_not_agree_has_no_type() {
        let (mut one, mut two) = (Batch::default(), Batch::default());
        one.gauge("a", "", 1.0);
        two.counter("a", "", 2.0);
        let text = expose(
            &[("s=\"1\"", &one), ("s=\"2\"", &two)],
            style(Format::Prometheus, false),
        );
        assert_eq!(text, "# TYPE a untyped\na{s=\"1\"} 1\na{s=\"2\"} 2\n");
    }

    #[test]
    fn percentiles_are_no_summary_of_openmetrics() {
        let mut batch = Batch::default();
        let family = batch.family("a", Kind::Summary, "");
        family.put(&[("x", "y"), ("quantile", "99")], 3.0);
        family.put_line(Line::Sum, &[("x", "y")], 5.0);
        family.put_line(Line::Count, &[("x", "y")], 2.0);
        let (samples, sum) = ("a{x=\"y\",quantile=\"99\"} 3\n", "a_sum{x=\"y\"} 5\n");
        let count = "a_count{x=\"y\"} 2\n";
        assert_eq!(
            expose(&[("", &batch)], style(Format::Prometheus, false)),
            format!("# TYPE a summary\n{samples}{sum}{count}")
        );
        assert_eq!(
            expose(&[("", &batch)], style(Format::OpenMetrics, false)),
            format!(
                "# TYPE a unknown\n{samples}# TYPE a_sum unknown\n{sum}# TYPE a_count unknown\n{count}# EOF\n"
            )
        );
    }
}
