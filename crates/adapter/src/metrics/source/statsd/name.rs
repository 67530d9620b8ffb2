//! Names and tags as they were sent to names and labels as Prometheus has them; and numbers in labels as Go writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Which dialects' tags are looked for in a name, and whether DogStatsD's are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialects {
    pub(super) dogstatsd: bool,
    pub(super) influxdb: bool,
    pub(super) librato: bool,
    pub(super) signalfx: bool,
}

impl Dialects {
    pub(super) const ALL: Self = Self {
        dogstatsd: true,
        influxdb: true,
        librato: true,
        signalfx: true,
    };

    /// `dogstatsd,influxdb`; `none`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut some = Self {
            dogstatsd: false,
            influxdb: false,
            librato: false,
            signalfx: false,
        };
        for word in text.split(',').filter(|_| text != "none") {
            match word {
                "dogstatsd" => some.dogstatsd = true,
                "influxdb" => some.influxdb = true,
                "librato" => some.librato = true,
                "signalfx" => some.signalfx = true,
                _ => {
                    return Err(format!(
                        "\"{word}\" is not one of dogstatsd, influxdb, librato, signalfx; none stands alone"
                    ));
                }
            }
        }
        Ok(some)
    }
}

/// Labels by name.
pub(super) type Labels = BTreeMap<String, String>;

/// Tags on their way to labels.
#[derive(Debug, Default)]
pub(super) struct Tags {
    pub(super) labels: Labels,
    /// Those that are none: without a name or a value.
    pub(super) errors: u8,
}

impl Tags {
    /// Takes the tags out of a name.
    pub(super) fn of_name<'a>(
        &mut self,
        name: &'a str,
        dialects: Dialects,
    ) -> std::borrow::Cow<'a, str> {
        if dialects.signalfx {
            match (name.find('['), name.find(']')) {
                (Some(from), Some(to)) if from < to => {
                    self.all(&name[from + 1..to], '=');
                    return format!("{}{}", &name[..from], &name[to + 1..]).into();
                }
                (None, None) => {}
                _ => {
                    self.wrong();
                    return name.into();
                }
            }
        }
        let begins = |one: char| one == '#' && dialects.librato || one == ',' && dialects.influxdb;
        match name.split_once(begins) {
            Some((name, tags)) => {
                self.all(tags, '=');
                name.into()
            }
            None => name.into(),
        }
    }

    /// What follows `|#`.
    pub(super) fn dogstatsd(&mut self, tags: &str) {
        self.all(tags, ':');
    }

    fn all(&mut self, tags: &str, between: char) {
        // A comma at the end ends the last one.
        let tags = tags.strip_suffix(',').unwrap_or(tags);
        for tag in tags.split(',').filter(|_| !tags.is_empty()) {
            let tag = match between {
                ':' => tag.strip_prefix('#').unwrap_or(tag),
                _ => tag,
            };
            match tag.split_once(between) {
                Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                    self.labels.insert(escape(name), value.to_owned());
                }
                _ => self.wrong(),
            }
        }
    }

    fn wrong(&mut self) {
        self.errors = self.errors.saturating_add(1);
    }
}

/// What is neither letter, digit nor `_` becomes `_`, and dashes that follow a dash nothing; a digit does not begin it. So does
/// statsd_exporter.
pub(super) fn escape(name: &str) -> String {
    let mut right = String::with_capacity(name.len() + 1);
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        right.push('_');
    }
    let mut after_dash = false;
    for one in name.chars() {
        match one {
            '-' if after_dash => {}
            '_' | '0'..='9' | 'a'..='z' | 'A'..='Z' => right.push(one),
            _ => right.push('_'),
        }
        after_dash = one == '-';
    }
    right
}

/// A label's name that Prometheus takes: two `_` at its beginning are its own, and so are some names.
pub(super) fn label_name(name: &str, reserved: &[&str]) -> String {
    match name.strip_prefix("__") {
        Some(rest) => format!("_{}", rest.trim_start_matches('_')),
        None if reserved.contains(&name) => format!("exported_{name}"),
        None => name.to_owned(),
    }
}

/// A number as Go's `%v` has it, and so the labels `le` and `quantile` of other exporters: `0.5`, `1e+06`, `2.5e-05`.
pub(super) fn go_number(value: f64) -> String {
    let mut text = String::new();
    let magnitude = value.abs();
    if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let shown = format!("{value:e}");
        let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
        let exponent: i32 = exponent.parse().unwrap_or_default();
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(text, "{digits}e{sign}{:02}", exponent.abs()).ok();
    } else {
        write!(text, "{value}").ok();
    }
    text
}
