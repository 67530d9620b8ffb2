//! Jobs. (Kubernetes: `pkg/apis/batch/validation`)

use k8s_openapi::api::batch::v1::Job;

use super::{Notes, meta, one_of, within};
use crate::manifest::node::Path;

/// An Indexed Job runs no more than that many at a time.
const INDEXED_PARALLELISM_MAX: i32 = 100_000;

/// A Job.
pub(in crate::manifest) fn job(job: &Job, notes: &mut Notes<'_>) {
    // Its pods are named after it.
    meta::started(&job.metadata, notes);
    let at = Path::root().key("spec");
    let Some(spec) = &job.spec else {
        return notes.error(&at, "spec is missing");
    };
    for (field, number) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
    ] {
        within(number, 0, i64::from(i32::MAX), &at.key(field), notes);
    }
    let mode = spec.completion_mode.as_deref();
    one_of(
        mode,
        &["NonIndexed", "Indexed"],
        &at.key("completionMode"),
        notes,
    );
    if mode == Some("Indexed") {
        if spec.completions.is_none() {
            notes.error(
                &at.key("completions"),
                "must be specified when completion mode is Indexed",
            );
        }
        if spec
            .parallelism
            .is_some_and(|n| n > INDEXED_PARALLELISM_MAX)
        {
            notes.error(
                &at.key("parallelism"),
                format!(
                    "must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed"
                ),
            );
        }
    }
    let below = at.key("template");
    let Some(pod) = &spec.template.spec else {
        return notes.error(&below.key("spec"), "spec is missing");
    };
    if let Some(metadata) = &spec.template.metadata {
        let at = below.key("metadata");
        meta::labels(metadata, &at, notes);
        if metadata.generate_name.is_some() {
            let message = "the pods of a Job are named after the Job";
            notes.ignored(&at.key("generateName"), message);
        }
    }
    if !matches!(pod.restart_policy.as_deref(), Some("OnFailure" | "Never")) {
        notes.error(
            &below.key("spec").key("restartPolicy"),
            "the pods of a Job take OnFailure or Never",
        );
    }
    notes.below(&below, |notes| super::spec(pod, notes));
}
