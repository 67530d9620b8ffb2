//! The metrics, by repository.

use std::time::{SystemTime, UNIX_EPOCH};

use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Encoder, Kind};

use super::worker::Seen;
use crate::publish::Step;

const REPO: &[&str] = &["repo"];

/// The metrics, as documented.
pub(super) const METRICS: &[Metric] = &[
    metric(SYNCS, "counter", &["repo", "result"], SYNCS_DOC),
    metric(REFUSED, "counter", &["repo", "step"], REFUSED_DOC),
    metric(ROLLED_BACK, "counter", REPO, ROLLED_BACK_DOC),
    metric(SUCCESS, "gauge", REPO, SUCCESS_DOC),
    metric(AGE, "gauge", REPO, AGE_DOC),
    metric(PUBLISHED, "gauge", REPO, PUBLISHED_DOC),
    metric(COMMIT, "info", &["repo", "commit"], COMMIT_DOC),
    metric(SECONDS, "gauge", REPO, SECONDS_DOC),
    metric(WEBHOOKS, "counter", &["result"], WEBHOOKS_DOC),
];

const SYNCS: &str = "podkit_git_syncs_total";
const SYNCS_DOC: &str = "Looks at a repository: published, unchanged, failed (the repository could not be read) or refused \
                         (its tree was not to be published).";
const REFUSED: &str = "podkit_git_refused_total";
const REFUSED_DOC: &str =
    "Commits refused, each once: by guard, validate, write, reload or confirm.";
const ROLLED_BACK: &str = "podkit_git_rolled_back_total";
const ROLLED_BACK_DOC: &str = "Commits that were published and taken back.";
const SUCCESS: &str = "podkit_git_last_success_timestamp_seconds";
const SUCCESS_DOC: &str =
    "Unix time of the last look after which what is published was what is wanted.";
const AGE: &str = "podkit_git_age_seconds";
const AGE_DOC: &str = "Time since that look.";
const PUBLISHED: &str = "podkit_git_last_publish_timestamp_seconds";
const PUBLISHED_DOC: &str = "Unix time of the last publish since the start.";
const COMMIT: &str = "podkit_git_commit_info";
const COMMIT_DOC: &str = "The commit that is published.";
const SECONDS: &str = "podkit_git_sync_seconds";
const SECONDS_DOC: &str = "Duration of the latest look, with all that it fetched and published.";
pub(super) const WEBHOOKS: &str = "podkit_git_webhooks_total";
pub(super) const WEBHOOKS_DOC: &str = "Webhooks: taken, or refused for their signature.";

const fn metric(
    name: &'static str,
    kind: &'static str,
    labels: &'static [&'static str],
    doc: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        doc,
    }
}

/// A figure of a repository, where it has one.
type Value = fn(&Seen) -> Option<f64>;

/// Seconds since 1970.
fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// Writes the families of all repositories.
pub(super) fn encode(encoder: &mut Encoder, all: &[(String, Seen)]) {
    encoder.family(SYNCS, Kind::Counter, SYNCS_DOC);
    for (repo, seen) in all {
        let results = [
            ("published", seen.published),
            ("unchanged", seen.unchanged),
            ("failed", seen.failed),
            ("refused", seen.refused),
        ];
        for (result, count) in results {
            encoder.sample(SYNCS, &[("repo", repo), ("result", result)], count as f64);
        }
    }
    encoder.family(REFUSED, Kind::Counter, REFUSED_DOC);
    for (repo, seen) in all {
        for step in Step::ALL {
            let count = seen.steps.get(&step).copied().unwrap_or(0);
            encoder.sample(
                REFUSED,
                &[("repo", repo), ("step", step.word())],
                count as f64,
            );
        }
    }
    encoder.family(ROLLED_BACK, Kind::Counter, ROLLED_BACK_DOC);
    for (repo, seen) in all {
        encoder.sample(ROLLED_BACK, &[("repo", repo)], seen.rolled_back as f64);
    }
    let gauges: [(&str, &str, Value); 4] = [
        (SUCCESS, SUCCESS_DOC, |seen| seen.success_at.map(unix)),
        (AGE, AGE_DOC, |seen| {
            Some(seen.fresh?.elapsed().as_secs_f64())
        }),
        (PUBLISHED, PUBLISHED_DOC, |seen| seen.published_at.map(unix)),
        (SECONDS, SECONDS_DOC, |seen| Some(seen.seconds)),
    ];
    for (name, doc, value) in gauges {
        let samples = all
            .iter()
            .filter_map(|(repo, seen)| Some((repo, value(seen)?)));
        let samples: Vec<_> = samples.collect();
        if samples.is_empty() {
            continue;
        }
        encoder.family(name, Kind::Gauge, doc);
        for (repo, value) in samples {
            encoder.sample(name, &[("repo", repo)], value);
        }
    }
    let commits: Vec<_> = all
        .iter()
        .filter_map(|(repo, seen)| Some((repo, seen.commit.as_ref()?)))
        .collect();
    if !commits.is_empty() {
        encoder.family(COMMIT, Kind::Info, COMMIT_DOC);
        for (repo, commit) in commits {
            encoder.sample(COMMIT, &[("repo", repo), ("commit", commit)], 1.0);
        }
    }
}
