//! `podkit stop`: what `kubectl delete pod` is on a cluster.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgMatches;
use podkit_foundation::error::Failure;
use podkit_foundation::params::ParamSet;
use podkit_pod::control::{Client, ClientError, Found, Life, Machine, Request};
use podkit_pod::runner;

use super::{Choice, PodCommand, failed, many, pods_argument};
use crate::cli;

podkit_foundation::params! {
    /// What `stop` takes.
    pub(crate) struct StopParams {
        /// The pods' namespace.
        namespace: String { default: Some("default"), short: Some('n') },
        /// Pods of all namespaces.
        all_namespaces: bool { default: Some("false"), short: Some('A') },
        /// Pods with these labels.
        selector: Option<String> { short: Some('l') },
        /// All pods of the namespace.
        all: bool { default: Some("false") },
        /// Seconds that the pods have to end, instead of their own terminationGracePeriodSeconds.
        grace_period: Option<u64> { unit: "seconds", bounds: Some((0, 31_536_000)) },
        /// Kill them at once; a supervisor that does not answer too.
        force: bool { default: Some("false") },
        /// How long to wait until they are gone; they go on ending when it is over.
        timeout: Option<Duration> {},
        /// Where the state of pods is, if not in /run/podkit and /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

pub(super) const COMMAND: PodCommand = PodCommand {
    name: "stop",
    about: "Stop pods in order, and take away what is kept of pods that have ended",
    usage: "stop POD...",
    help: "Returns when they are gone. Exit code: 0 when all are, 1 when one could not be stopped.",
    params: StopParams::PARAMS,
    args: pods_argument,
    run,
};

/// How long a supervisor may take to say that it has heard, before `--force` kills it.
const ANSWER: Duration = Duration::from_secs(2);

fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = StopParams::from_values(&cli::values(StopParams::PARAMS, matches))?;
    let names = many(matches, "pods");
    let wide = params.all || params.all_namespaces || params.selector.is_some();
    if names.is_empty() && !wide {
        let why = "which pod? Give names, -l SELECTOR or --all (podkit ps lists them)";
        return Err(Failure::Usage(why.to_owned()));
    }
    if params.all && !names.is_empty() {
        let why = "name cannot be provided when --all is specified";
        return Err(Failure::Usage(why.to_owned()));
    }
    let choice = Choice {
        state_dir: params.state_dir.as_ref(),
        namespace: &params.namespace,
        all_namespaces: params.all_namespaces,
        selector: params.selector.as_deref(),
        names,
    };
    let pods = choice.pods()?;
    if pods.is_empty() {
        eprintln!("No resources found");
    }
    // All at once: each takes its own time.
    let stops: Vec<_> = std::thread::scope(|scope| {
        let stop = |pod| {
            let (params, machine) = (&params, choice.machine());
            scope.spawn(move || stop(params, &machine, pod))
        };
        let all: Vec<_> = pods.iter().map(stop).collect();
        all.into_iter().map(|one| one.join()).collect()
    });
    let mut code = ExitCode::SUCCESS;
    for (pod, stopped) in pods.iter().zip(stops) {
        match stopped {
            Ok(Ok(what)) => {
                cli::print(&format!("pod/{} {what}\n", pod.name))?;
            }
            Ok(Err(failure)) => {
                eprintln!("podkit: {failure}");
                code = ExitCode::FAILURE;
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(code)
}

/// Ends one pod; the word for it.
fn stop(params: &StopParams, machine: &Machine, pod: &Found) -> Result<&'static str, Failure> {
    let state_dir = params.state_dir.as_deref();
    let Life::Lives { pid } = pod.life else {
        if let Some(lock) = machine.lock(&pod.key) {
            // Its supervisor may still be clearing up. What can't be waited for is not there.
            let _gone = Machine::wait_free(&lock);
        }
        runner::remove(state_dir, &pod.key)?;
        return Ok("removed");
    };
    // Opened before it is asked: its file goes with the pod.
    let lock = machine.lock(&pod.key);
    let grace_seconds = match params.force {
        true => Some(0),
        false => params.grace_period,
    };
    let asked = ask(pod, &Request::Stop { grace_seconds }, params.force);
    match asked {
        Ok(()) | Err(ClientError::Gone) => {}
        Err(_) if params.force => machine.kill(&pod.key, pid),
        Err(error) => return Err(failed(&pod.name)(error)),
    }
    if let Some(lock) = lock
        && !wait_gone(lock, params.timeout)
    {
        let timeout = params.timeout.unwrap_or_default();
        return Err(Failure::Runtime(format!(
            "pod {} is still ending after {timeout:?}",
            pod.name
        )));
    }
    // What a killed supervisor left; nothing, when it has ended by itself.
    runner::remove(state_dir, &pod.key)?;
    Ok(match params.force {
        true => "killed",
        false => "stopped",
    })
}

fn ask(pod: &Found, request: &Request, limited: bool) -> Result<(), ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ClientError::Io)?;
    runtime.block_on(async {
        let ask = async {
            let (_client, mut reply) = Client::ask(&pod.run, request).await?;
            reply.done().await.map(drop)
        };
        match limited {
            false => ask.await,
            true => tokio::time::timeout(ANSWER, ask)
                .await
                .unwrap_or_else(|_| Err(ClientError::Io(std::io::ErrorKind::TimedOut.into()))),
        }
    })
}

/// Waits until the supervisor has let go of its lock.
fn wait_gone(lock: File, timeout: Option<Duration>) -> bool {
    let Some(timeout) = timeout else {
        return Machine::wait_free(&lock).is_ok();
    };
    let (told, gone) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Nobody waits any more when the time is over.
        let _late = told.send(Machine::wait_free(&lock).is_ok());
    });
    gone.recv_timeout(timeout).unwrap_or(false)
}
