//! What another exporter says, passed through: its families, their types and helps, relabelled if that is wanted.
//!
//! It is asked as Prometheus asks, so that its names are those that Prometheus would have stored. Timestamps are dropped, since a
//! value that is shown with its age has no other time, and so are exemplars, whose traces a scrape of a scrape is no place for.

pub(crate) mod relabel;
pub(crate) mod text;

use super::web::Web;
use super::{Ground, Planned, Spec, words};
use crate::metrics::batch::Batch;
use crate::metrics::keeper::{Answered, Collected, Collector, Went};
use relabel::Rule;
use text::Dialect;

pub(crate) const KEYS: &[&str] = &["relabel", "user", "password-file", "token-file"];

pub(crate) const TLS_KEYS: &[&str] = &[
    "relabel",
    "user",
    "password-file",
    "token-file",
    "server-name",
];

/// Bytes of a page at most: 300,000 series.
const MOST_BYTES: usize = 32 << 20;

/// What Prometheus asks for when it does not want native histograms.
const ACCEPT: &str =
    "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

pub(super) fn plan(spec: &Spec, ground: &Ground) -> Result<Vec<Planned>, String> {
    Ok(vec![Planned::always(Exporter {
        web: Web::new(spec, ground, "/metrics")?,
        rules: rules(spec)?,
        is_named: spec.name.is_some(),
    })])
}

/// Those of the file that the source's key `relabel` names.
pub(super) fn rules(spec: &Spec) -> Result<Vec<Rule>, String> {
    match spec.file("relabel") {
        Some(path) => words::file("relabel", &path, relabel::read),
        None => Ok(Vec::new()),
    }
}

struct Exporter {
    web: Web,
    rules: Vec<Rule>,
    /// Its samples get a label `source`.
    is_named: bool,
}

impl Collector for Exporter {
    fn collect<'a>(&'a mut self, _: &'a Answered) -> Collected<'a> {
        Box::pin(async {
            let got = self
                .web
                .page(&[("Accept", ACCEPT)], b"", MOST_BYTES)
                .await?;
            let dialect = Dialect::of(&got.content_type)?;
            let text = std::str::from_utf8(&got.body)
                .map_err(|_| "answered bytes that are not UTF-8".to_owned())?;
            let mut batch = Batch::default();
            add(text, dialect, &self.rules, self.is_named, &mut batch)
                .map_err(|why| format!("answered a page that is not right: {why}"))?;
            Ok(batch)
        })
    }

    fn status(&self, _: &Went) -> Batch {
        Batch::default()
    }
}

/// Adds what a page says, as the rules have it, or says what is wrong with it. What has a label `source` has it as
/// `exported_source` when a source's name takes its place.
pub(super) fn add(
    text: &str,
    dialect: Dialect,
    rules: &[Rule],
    is_named: bool,
    batch: &mut Batch,
) -> Result<(), String> {
    text::read(text, dialect, &mut |mut found| {
        let Some(name) = relabel::apply(rules, &mut found) else {
            return;
        };
        if is_named && let Some(label) = found.labels.iter_mut().find(|one| one.0 == "source") {
            label.0 = "exported_source".into();
        }
        let labels: Vec<(&str, &str)> = found
            .labels
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        batch
            .family(&name, found.kind, found.help.to_owned())
            .put_line(found.line, &labels, found.value);
    })
}
