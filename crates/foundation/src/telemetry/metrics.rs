//! Metrics: a registry of families, cheap handles to write them, and an encoder for Prometheus text 0.0.4
//! and OpenMetrics 1.0.
//!
//! Counters are written on every request by every worker, so each has a cell per worker (a shared cache line
//! costs more than the rest of the accounting together). Labels are fixed when a handle is made: a hot
//! path never builds a label. Rejected: the prometheus-client crate, which writes OpenMetrics only.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What a family's samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound.
    Histogram,
    /// Names a build or a state; its name ends in `_info`, its value is 1.
    Info,
}

/// The text format asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// Chooses by an Accept header (RFC 9110 section 12.5.1; quality values count).
    pub fn accepted(accept: &str) -> Self {
        let quality = |wanted: &str| {
            let entries = accept.split(',').map(|entry| entry.trim());
            entries
                .filter(|entry| {
                    entry
                        .split(';')
                        .next()
                        .is_some_and(|kind| kind.trim() == wanted)
                })
                .map(|entry| {
                    let q = entry
                        .split(';')
                        .find_map(|part| part.trim().strip_prefix("q="));
                    q.map_or(1.0, |q| q.trim().parse::<f32>().unwrap_or(0.0))
                })
                .fold(0.0, f32::max)
        };
        let open = quality("application/openmetrics-text");
        if open > 0.0 && open >= quality("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The Content-Type of the answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

const CELLS: usize = 8;

#[repr(align(64))]
#[derive(Debug, Default)]
struct Cell(AtomicU64);

/// This thread's cell.
fn cell_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static INDEX: usize = NEXT.fetch_add(1, Ordering::Relaxed) % CELLS);
    INDEX.with(|index| *index)
}

/// A count that only goes up.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<[Cell; CELLS]>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `count` more.
    pub fn add(&self, count: u64) {
        self.0[cell_index()].0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum over all threads.
    pub fn get(&self) -> u64 {
        self.0
            .iter()
            .map(|cell| cell.0.load(Ordering::Relaxed))
            .sum()
    }
}

/// A whole number that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds, or takes away when negative.
    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Observations counted by upper bound, in seconds; kept in microseconds.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<HistogramCells>);

#[derive(Debug)]
struct HistogramCells {
    bounds_seconds: &'static [f64],
    counts: Vec<Counter>,
    sum_micros: Counter,
}

impl Histogram {
    /// Bounds that fit a proxied request: 0.5 ms to 10 s.
    pub const LATENCY: &'static [f64] = &[
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ];

    fn new(bounds_seconds: &'static [f64]) -> Self {
        let counts = (0..=bounds_seconds.len())
            .map(|_| Counter::default())
            .collect();
        Self(Arc::new(HistogramCells {
            bounds_seconds,
            counts,
            sum_micros: Counter::default(),
        }))
    }

    /// Counts one observation.
    pub fn observe(&self, duration: std::time::Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self
            .0
            .bounds_seconds
            .partition_point(|bound| *bound < seconds);
        self.0.counts[bucket].inc();
        self.0
            .sum_micros
            .add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }
}

#[derive(Debug)]
enum Value {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Vec<(String, Value)>,
}

type Collector = Box<dyn Fn(&mut Encoder) + Send + Sync>;

/// All metrics of a process, or of a part of it. Clones share.
#[derive(Clone, Default)]
pub struct Registry(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Of all that is here, rendered.
    labels: String,
    /// Of a part: all of the process.
    whole: Option<Registry>,
    families: Mutex<Vec<Family>>,
    collectors: Mutex<Vec<Collector>>,
    parts: Mutex<Vec<Weak<Shared>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// The metrics of a part that comes and goes: shown with this one's, with `labels` added to each sample, for as long as
    /// what is returned or a clone of it is held.
    pub fn part(&self, labels: &[(&str, &str)]) -> Self {
        let part = Arc::new(Shared {
            labels: join(&self.0.labels, &render_labels(labels)),
            whole: Some(self.whole().clone()),
            ..Shared::default()
        });
        let mut parts = lock(&self.0.parts);
        parts.retain(|part| part.strong_count() > 0);
        parts.push(Arc::downgrade(&part));
        Self(part)
    }

    /// All metrics of the process, where this is a part of them.
    pub fn whole(&self) -> &Self {
        self.0.whole.as_ref().unwrap_or(self)
    }

    /// A counter; `name` ends in `_total`. Asking again for the same name and labels gives the same counter.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
    ) -> Counter {
        debug_assert!(
            name.ends_with("_total"),
            "{name}: a counter's name ends in _total"
        );
        match self.sample(name, help, Kind::Counter, labels, || {
            Value::Counter(Counter::default())
        }) {
            Value::Counter(counter) => counter,
            _ => panic!("{name} is registered as another kind"),
        }
    }

    /// A gauge.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        match self.sample(name, help, Kind::Gauge, labels, || {
            Value::Gauge(Gauge::default())
        }) {
            Value::Gauge(gauge) => gauge,
            _ => panic!("{name} is registered as another kind"),
        }
    }

    /// A histogram of seconds.
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        bounds_seconds: &'static [f64],
        labels: &[(&str, &str)],
    ) -> Histogram {
        let make = || Value::Histogram(Histogram::new(bounds_seconds));
        match self.sample(name, help, Kind::Histogram, labels, make) {
            Value::Histogram(histogram) => histogram,
            _ => panic!("{name} is registered as another kind"),
        }
    }

    /// Families that are known only when someone asks (`/proc`, certificates, processes).
    pub fn collect(&self, collector: impl Fn(&mut Encoder) + Send + Sync + 'static) {
        lock(&self.0.collectors).push(Box::new(collector));
    }

    /// Everything, as text.
    pub fn encode(&self, format: Format) -> String {
        let mut encoder = Encoder {
            format,
            labels: String::new(),
            families: Vec::new(),
            open: 0,
        };
        self.write(&mut encoder);
        let mut text: String = encoder.families.into_iter().map(|(_, text)| text).collect();
        if format == Format::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }

    fn write(&self, encoder: &mut Encoder) {
        encoder.labels.clone_from(&self.0.labels);
        for family in lock(&self.0.families).iter() {
            encoder.family(family.name, family.kind, family.help);
            for (labels, value) in &family.samples {
                encoder.registered(family.name, labels, value);
            }
        }
        for collector in lock(&self.0.collectors).iter() {
            collector(encoder);
        }
        let parts: Vec<Arc<Shared>> = lock(&self.0.parts)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for part in parts {
            Self(part).write(encoder);
        }
    }

    fn sample(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &[(&str, &str)],
        make: impl FnOnce() -> Value,
    ) -> Value {
        let labels = render_labels(labels);
        let mut families = lock(&self.0.families);
        let at = families
            .iter()
            .position(|family| family.name == name)
            .unwrap_or_else(|| {
                families.push(Family {
                    name,
                    help,
                    kind,
                    samples: Vec::new(),
                });
                families.len() - 1
            });
        let samples = &mut families[at].samples;
        let at = samples
            .iter()
            .position(|(known, _)| *known == labels)
            .unwrap_or_else(|| {
                samples.push((labels, make()));
                samples.len() - 1
            });
        match &samples[at].1 {
            Value::Counter(counter) => Value::Counter(counter.clone()),
            Value::Gauge(gauge) => Value::Gauge(gauge.clone()),
            Value::Histogram(histogram) => Value::Histogram(histogram.clone()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes families as text. Samples of a family follow its [`Encoder::family`] line. A family that several parts have is
/// written once, with the samples of all.
#[derive(Debug)]
pub struct Encoder {
    format: Format,
    /// Added to each sample.
    labels: String,
    /// Name and text.
    families: Vec<(String, String)>,
    /// The family last opened.
    open: usize,
}

impl Encoder {
    /// Opens a family: its TYPE and HELP. `name` is the sample's name (`…_total` for a counter).
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        // OpenMetrics names a counter's family without the suffix of its samples.
        let (shown, word) = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => {
                (name.strip_suffix("_total").unwrap_or(name), "counter")
            }
            (Format::OpenMetrics, Kind::Info) => {
                (name.strip_suffix("_info").unwrap_or(name), "info")
            }
            (Format::Prometheus, Kind::Counter) => (name, "counter"),
            (Format::Prometheus, Kind::Info) | (_, Kind::Gauge) => (name, "gauge"),
            (_, Kind::Histogram) => (name, "histogram"),
        };
        if let Some(known) = self.families.iter().position(|(known, _)| known == shown) {
            self.open = known;
            return;
        }
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let head = format!("# HELP {shown} {help}\n# TYPE {shown} {word}\n");
        self.open = self.families.len();
        self.families.push((shown.to_owned(), head));
    }

    /// One sample of the family last opened.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels = render_labels(labels);
        self.line(name, "", &labels, "", value);
    }

    fn registered(&mut self, name: &str, labels: &str, value: &Value) {
        match value {
            Value::Counter(counter) => self.line(name, "", labels, "", as_f64(counter.get())),
            #[expect(
                clippy::cast_precision_loss,
                reason = "a gauge is shown, not computed with"
            )]
            Value::Gauge(gauge) => self.line(name, "", labels, "", gauge.get() as f64),
            Value::Histogram(histogram) => {
                let cells = &histogram.0;
                let mut count = 0;
                for (at, cell) in cells.counts.iter().enumerate() {
                    count += cell.get();
                    let bound = cells.bounds_seconds.get(at);
                    let bound = bound.map_or("+Inf".to_owned(), |bound| format!("{bound:?}"));
                    self.line(
                        name,
                        "_bucket",
                        labels,
                        &format!("le=\"{bound}\""),
                        as_f64(count),
                    );
                }
                self.line(
                    name,
                    "_sum",
                    labels,
                    "",
                    as_f64(cells.sum_micros.get()) / 1e6,
                );
                self.line(name, "_count", labels, "", as_f64(count));
            }
        }
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &str, more: &str, value: f64) {
        let labels = join(&join(&self.labels, labels), more);
        let Some((_, text)) = self.families.get_mut(self.open) else {
            return;
        };
        match labels.is_empty() {
            true => push(text, format_args!("{name}{suffix} {value}\n")),
            false => push(text, format_args!("{name}{suffix}{{{labels}}} {value}\n")),
        }
    }
}

/// Two lists of rendered labels as one.
fn join(first: &str, second: &str) -> String {
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second.to_owned(),
        (_, true) => first.to_owned(),
        _ => format!("{first},{second}"),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the text formats carry floating point"
)]
fn as_f64(count: u64) -> f64 {
    count as f64
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line)
        .expect("writing to a String can't fail");
}

fn render_labels(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (at, (name, value)) in labels.iter().enumerate() {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let comma = if at == 0 { "" } else { "," };
        push(&mut text, format_args!("{comma}{name}=\"{value}\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_a_counter() {
        let registry = Registry::default();
        let counter = registry.counter("podkit_x_total", "Things.\nMany.", &[("kind", "a\"b")]);
        counter.add(3);
        registry
            .counter("podkit_x_total", "Things.\nMany.", &[("kind", "a\"b")])
            .inc();
        let prometheus = "# HELP podkit_x_total Things.\\nMany.\n# TYPE podkit_x_total counter\n\
                          podkit_x_total{kind=\"a\\\"b\"} 4\n";
        assert_eq!(registry.encode(Format::Prometheus), prometheus);
        let open = "# HELP podkit_x Things.\\nMany.\n# TYPE podkit_x counter\n\
                    podkit_x_total{kind=\"a\\\"b\"} 4\n# EOF\n";
        assert_eq!(registry.encode(Format::OpenMetrics), open);
    }

    #[test]
    fn a_histogram_is_cumulative() {
        let registry = Registry::default();
        let histogram = registry.histogram("podkit_d_seconds", "d", &[0.1, 1.0], &[]);
        for millis in [50, 100, 500, 5_000] {
            histogram.observe(std::time::Duration::from_millis(millis));
        }
        let text = registry.encode(Format::Prometheus);
        for line in [
            "podkit_d_seconds_bucket{le=\"0.1\"} 2",
            "podkit_d_seconds_bucket{le=\"1.0\"} 3",
            "podkit_d_seconds_bucket{le=\"+Inf\"} 4",
            "podkit_d_seconds_sum 5.65",
            "podkit_d_seconds_count 4",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn parts_are_shown_with_their_labels_as_long_as_they_are_there() {
        let registry = Registry::default();
        registry.counter("podkit_x_total", "x", &[]).inc();
        let part = registry.part(&[("stage", "a")]);
        part.counter("podkit_x_total", "x", &[("kind", "k")]).add(2);
        part.collect(|encoder| {
            encoder.family("podkit_y", Kind::Gauge, "y");
            encoder.sample("podkit_y", &[], 3.0);
        });
        let other = registry.part(&[("stage", "b")]);
        other.collect(|encoder| {
            encoder.family("podkit_y", Kind::Gauge, "y");
            encoder.sample("podkit_y", &[("up", "1")], 4.0);
        });
        let expected = "# HELP podkit_x_total x\n# TYPE podkit_x_total counter\npodkit_x_total 1\n\
                        podkit_x_total{stage=\"a\",kind=\"k\"} 2\n# HELP podkit_y y\n# TYPE podkit_y gauge\n\
                        podkit_y{stage=\"a\"} 3\npodkit_y{stage=\"b\",up=\"1\"} 4\n";
        assert_eq!(registry.encode(Format::Prometheus), expected);
        drop(part);
        assert!(!registry.encode(Format::Prometheus).contains("stage=\"a\""));
    }

    #[test]
    fn accept_chooses_the_format() {
        let check = |accept, expected| assert_eq!(Format::accepted(accept), expected, "{accept}");
        check("", Format::Prometheus);
        check("*/*", Format::Prometheus);
        check(
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            Format::OpenMetrics,
        );
        check(
            "application/openmetrics-text;q=0.2,text/plain;q=0.5",
            Format::Prometheus,
        );
        check("application/openmetrics-text;q=0", Format::Prometheus);
    }
}
