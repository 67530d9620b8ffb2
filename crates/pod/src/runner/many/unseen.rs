//! A pod that an edit of the files has added to a detached run: whoever asked for the first ones has gone, so that an error on
//! standard error would be read by nobody.
//!
//! What keeps such a pod from beginning (a port that is taken, an id that can't be had) becomes its status, as the kubelet's
//! refusal of a pod does (Kubernetes: `pkg/kubelet/kubelet.go`, `rejectPod`): `ps` shows it, `describe` and `events` say why,
//! until the pod is stopped or started again. It also goes to `supervisor.log` of the pods that run, beside everything else that
//! the process over the supervisors has to say: that is the only place when another run has a pod of this name.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;

use super::super::layout::{ClaimError, Layout};
use super::super::prepare::fresh_facts;
use super::super::state::PodObject;
use crate::control::EventLog;
use crate::plan::{PodPlan, pod_key};

/// The kubelet's word for what keeps a pod from being admitted and has no word of its own.
const REASON: &str = "UnexpectedAdmissionError";
/// Of what a supervisor says before it ends.
const SAID_MAX: usize = 16 * 1024;

/// Waits until the supervisor has begun its pod, or has ended. Why, in the second case.
pub(super) async fn begun(
    report: OwnedFd,
    errors: OwnedFd,
    end: &AsyncFd<OwnedFd>,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("its supervisor could not be followed: {error}");
    let report = Receiver::from_owned_fd(report).map_err(failed)?;
    let mut report = BufReader::new(report).lines();
    let mut errors = Receiver::from_owned_fd(errors).map_err(failed)?;
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    let (mut reports, mut speaks) = (true, true);
    loop {
        tokio::select! {
            // What was said before the end is read first.
            biased;
            line = report.next_line(), if reports => match line {
                Ok(Some(line)) => {
                    let line: Value = serde_json::from_str(&line).unwrap_or_default();
                    if line["started"].is_string() {
                        return Ok(());
                    }
                }
                Ok(None) | Err(_) => reports = false,
            },
            read = errors.read(&mut buffer), if speaks => match read {
                Ok(0) | Err(_) => speaks = false,
                Ok(count) => {
                    let room = SAID_MAX - said.len();
                    said.extend_from_slice(&buffer[..count.min(room)]);
                }
            },
            _ended = end.readable() => break,
        }
    }
    let said = String::from_utf8_lossy(&said);
    let said = said.trim().trim_start_matches("podkit: ");
    Err(match said {
        "" => "its supervisor ended without a word".to_owned(),
        said => said.to_owned(),
    })
}

/// Keeps why a pod has not begun: as its status, and in the logs of the others' supervisors.
pub(super) fn reject(layout: &Layout, plan: &PodPlan, why: &str, logs: &[PathBuf]) {
    let (namespace, name) = (&plan.namespace, &plan.name);
    log(
        logs,
        &format!("pod {namespace}/{name} has not begun: {why}"),
    );
    let kept = match layout.claim(&pod_key(namespace, name)) {
        Ok(claim) => {
            let (mut plan, now) = (plan.clone(), SystemTime::now());
            plan.facts = fresh_facts();
            let mut events = EventLog::new(&plan);
            events.record(now, true, REASON, None, why);
            let kept = claim.keep(&json!({
                "pod": PodObject::rejected(&plan, now, REASON, why),
                "events": events.after(0),
            }));
            kept.map_err(|error| error.to_string())
        }
        // That is why.
        Err(ClaimError::Runs { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = kept {
        log(
            logs,
            &format!("and that could not be kept as its status: {error}"),
        );
    }
}

/// A line for each `supervisor.log`.
pub(super) fn log(logs: &[PathBuf], message: &str) {
    let ts = humantime::format_rfc3339_millis(SystemTime::now());
    for path in logs {
        // It is there while the pod runs.
        let written = OpenOptions::new()
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(format!("{ts} {message}\n").as_bytes()));
        if let Err(error) = written {
            tracing::debug!(path = %path.display(), %error, "not written");
        }
    }
}
