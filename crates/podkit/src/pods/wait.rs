//! `podkit wait`: until pods are as one wants them, as `kubectl wait` does.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet};
use podkit_pod::control::{Client, Found, Life, Machine, Request};
use serde_json::Value;

use super::path::JsonPath;
use super::status::list;
use super::{Choice, PodCommand, many, pods_argument, runtime};
use crate::cli;

podkit_foundation::params! {
    /// What `wait` takes.
    pub(crate) struct WaitParams {
        /// What for: condition=NAME[=VALUE], delete, or jsonpath=PATH[=VALUE].
        r#for: String {},
        /// How long; 0s looks once.
        timeout: Duration { default: Some("30s") },
        /// The pods' namespace.
        namespace: String { default: Some("default"), short: Some('n') },
        /// Pods of all namespaces.
        all_namespaces: bool { default: Some("false"), short: Some('A') },
        /// Pods with these labels.
        selector: Option<String> { short: Some('l') },
        /// All pods of the namespace.
        all: bool { default: Some("false") },
        /// Where the state of pods is, if not in /run/podkit and /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

pub(super) const COMMAND: PodCommand = PodCommand {
    name: "wait",
    about: "Wait until pods are ready, gone, or as a path says",
    usage: "wait POD... --for=…",
    help: "\
Such as --for=condition=Ready, --for=condition=Ready=false, --for=delete, --for=jsonpath='{.status.phase}'=Running. Exit code: 0 when \
it is so for all, 1 when the time was over, or when it can't become so because the pod has ended.",
    params: WaitParams::PARAMS,
    args: pods_argument,
    run,
};

/// What is waited for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Condition {
        kind: String,
        status: String,
    },
    Delete,
    Path {
        path: JsonPath,
        value: Option<String>,
    },
}

impl Wish {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected condition=NAME[=VALUE], delete, or jsonpath=PATH[=VALUE]";
        match text.split_once('=') {
            None if text == "delete" => Ok(Self::Delete),
            Some(("condition", rest)) if !rest.is_empty() => {
                let (kind, status) = rest.split_once('=').unwrap_or((rest, "true"));
                Ok(Self::Condition {
                    kind: kind.to_owned(),
                    status: status.to_owned(),
                })
            }
            Some(("jsonpath", rest)) => {
                // A filter has an = of its own, inside the braces.
                let end = rest
                    .rfind('}')
                    .map_or_else(|| rest.find('='), |end| Some(end + 1));
                let (path, value) = rest.split_at(end.unwrap_or(rest.len()));
                let path = JsonPath::parse(path)?;
                let value = match value.strip_prefix('=') {
                    Some("") => return Err(format!("\"{text}\": the value is missing")),
                    Some(value) => Some(value.to_owned()),
                    None if value.is_empty() => None,
                    None => return Err(format!("\"{text}\" is not right; {expected}")),
                };
                Ok(Self::Path { path, value })
            }
            _ => Err(format!("\"{text}\" is not right; {expected}")),
        }
    }

    fn holds(&self, pod: &Value) -> bool {
        match self {
            Self::Delete => false,
            Self::Condition { kind, status } => {
                list(&pod["status"]["conditions"]).iter().any(|one| {
                    let is = |value: &Value, wanted: &str| {
                        value
                            .as_str()
                            .is_some_and(|text| text.eq_ignore_ascii_case(wanted))
                    };
                    is(&one["type"], kind) && is(&one["status"], status)
                })
            }
            Self::Path { path, value } => {
                let found = path.values(pod);
                match value {
                    Some(value) => found.iter().any(|one| one == value),
                    None => !found.is_empty(),
                }
            }
        }
    }
}

fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = WaitParams::from_values(&cli::values(WaitParams::PARAMS, matches))?;
    let wish = Wish::parse(&params.r#for).map_err(|why| ParamError::new("for", why))?;
    let choice = Choice {
        state_dir: params.state_dir.as_ref(),
        namespace: &params.namespace,
        all_namespaces: params.all_namespaces,
        selector: params.selector.as_deref(),
        names: many(matches, "pods"),
    };
    let wide = params.all || params.all_namespaces || params.selector.is_some();
    if choice.names.is_empty() && !wide {
        let why = "which pod? Give names, -l SELECTOR or --all (podkit ps lists them)";
        return Err(Failure::Usage(why.to_owned()));
    }
    let pods = choice.pods()?;
    if pods.is_empty() {
        return Err(Failure::Runtime("no matching resources found".to_owned()));
    }
    let runtime = runtime()?;
    let deadline = Instant::now() + params.timeout;
    let mut code = ExitCode::SUCCESS;
    for pod in &pods {
        let left = deadline.saturating_duration_since(Instant::now());
        let machine = choice.machine();
        let met = runtime.block_on(async {
            // Once in any case: 0s means that.
            let waits = until(&machine, pod, &wish);
            tokio::time::timeout(left.max(Duration::from_millis(50)), waits).await
        });
        match met {
            Ok(Ok(())) => {
                cli::print(&format!("pod/{} condition met\n", pod.name))?;
            }
            Ok(Err(why)) => {
                eprintln!("podkit: pods/{}: {why}", pod.name);
                code = ExitCode::FAILURE;
            }
            Err(_) => {
                eprintln!(
                    "podkit: timed out waiting for the condition on pods/{}",
                    pod.name
                );
                code = ExitCode::FAILURE;
            }
        }
    }
    // A wait for an end that has not come is given up.
    runtime.shutdown_background();
    Ok(code)
}

/// Returns when it is so; an error when it can't become so.
async fn until(machine: &Machine, pod: &Found, wish: &Wish) -> Result<(), String> {
    if *wish == Wish::Delete {
        return gone(machine, pod).await;
    }
    if let Life::Lives { .. } = pod.life
        && let Ok((_client, mut reply)) = Client::ask(&pod.run, &Request::Pod { watch: true }).await
    {
        while let Ok(Some(pod)) = reply.object().await {
            if wish.holds(&pod) {
                return Ok(());
            }
        }
    }
    // What is kept of it, now that it has ended.
    match machine.pod(&pod.namespace, &pod.name) {
        Ok(last) if wish.holds(&last.pod) => Ok(()),
        Ok(last) => {
            let phase = last.pod["status"]["phase"].as_str().unwrap_or("Unknown");
            Err(format!("the pod has ended: its phase is {phase}"))
        }
        Err(_) => Err("the pod is gone".to_owned()),
    }
}

/// Returns when there is nothing of the pod.
async fn gone(machine: &Machine, pod: &Found) -> Result<(), String> {
    if let Some(lock) = machine.lock(&pod.key) {
        let free = tokio::task::spawn_blocking(move || Machine::wait_free(&lock));
        free.await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
    }
    match machine.pod(&pod.namespace, &pod.name) {
        Err(_) => Ok(()),
        Ok(_) => Err("the pod has ended, and is kept until it is stopped".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wishes_of_every_form() {
        let pod = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let check = |text: &str, holds: bool| {
            assert_eq!(Wish::parse(text).unwrap().holds(&pod), holds, "{text}");
        };
        check("condition=Ready", true);
        check("condition=ready=TRUE", true);
        check("condition=Ready=false", false);
        check("condition=Initialized", false);
        check("jsonpath={.status.phase}=Running", true);
        check("jsonpath={.status.phase}", true);
        check("jsonpath=.status.phase=Failed", false);
        check(
            "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True",
            true,
        );
        check("delete", false);
        for bad in [
            "",
            "ready",
            "condition=",
            "jsonpath=",
            "jsonpath={.a}=",
            "jsonpath={.a}x",
        ] {
            assert!(Wish::parse(bad).is_err(), "{bad}");
        }
    }
}
