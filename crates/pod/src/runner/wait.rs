//! `run -d --wait`: until all pods are ready, have succeeded, or one of them can't be any more. Meanwhile it shows what they pull.

use std::sync::Arc;
use std::time::{Duration, Instant};

use podkit_foundation::error::Failure;
use serde_json::Value;
use tokio::task::{JoinSet, LocalSet};

use super::detach::say;
use super::output::Screen;
use super::{RunOptions, pulls};
use crate::control::{Client, Machine, Request};

/// The exit code: 0 when every pod became ready, or ended well.
pub(super) fn until_ready(options: &RunOptions, pods: &[String]) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime("waiting for the pods", error))?;
    let machine = Machine::at(options.state_dir.as_deref());
    LocalSet::new().block_on(&runtime, async {
        let Some(screen) = &options.screen else {
            let say = |pod: &str| say(options.output, "ready", pod);
            return all_ready(options, &machine, pods, say).await;
        };
        let _shown = show_pulls(&machine, pods, screen);
        let say = |pod: &str| {
            let mut said = Ok(());
            screen.aside(&mut || said = say(options.output, "ready", pod));
            said
        };
        let ready = all_ready(options, &machine, pods, say).await;
        for pod in pods {
            screen.show(pod, Vec::new());
        }
        screen.aside(&mut || ());
        ready
    })
}

/// Until the answer is dropped.
fn show_pulls(machine: &Machine, pods: &[String], screen: &Arc<dyn Screen>) -> JoinSet<()> {
    let mut shown = JoinSet::new();
    for pod in pods {
        let (namespace, name) = parts(pod);
        // One that has ended pulls nothing.
        if let Ok(found) = machine.pod(namespace, name) {
            let (pod, screen) = (pod.clone(), Arc::clone(screen));
            shown.spawn_local(async move {
                pulls::show_told(&found.run, &pod, &*screen).await;
            });
        }
    }
    shown
}

fn parts(pod: &str) -> (&str, &str) {
    pod.split_once('/').unwrap_or(("default", pod))
}

async fn all_ready(
    options: &RunOptions,
    machine: &Machine,
    pods: &[String],
    say: impl Fn(&str) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let deadline = Instant::now() + options.wait_timeout;
    for pod in pods {
        let (namespace, name) = parts(pod);
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, ready(machine, namespace, name)).await {
            Ok(Ok(())) => say(pod)?,
            Ok(Err(why)) => return Err(Failure::Runtime(format!("pod/{name}: {why}"))),
            Err(_) => {
                let limit: Duration = options.wait_timeout;
                let why = format!("pod/{name} is not ready after {limit:?}; it goes on");
                return Err(Failure::Runtime(why));
            }
        }
    }
    Ok(0)
}

async fn ready(machine: &Machine, namespace: &str, name: &str) -> Result<(), String> {
    let gone = || "it has ended before it was ready".to_owned();
    let found = machine.pod(namespace, name).map_err(|_| gone())?;
    let asked = Client::ask(&found.run, &Request::Pod { watch: true }).await;
    let mut last = Value::Null;
    if let Ok((_client, mut reply)) = asked {
        while let Ok(Some(pod)) = reply.object().await {
            if is_ready(&pod) {
                return Ok(());
            }
            last = pod;
        }
    }
    let phase = |pod: &Value| pod["status"]["phase"].as_str().map(str::to_owned);
    let kept = || phase(&machine.pod(namespace, name).ok()?.pod);
    match phase(&last).or_else(kept).as_deref() {
        Some("Succeeded") => Ok(()),
        Some("Failed") => Err("it has failed".to_owned()),
        _ => Err(gone()),
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
