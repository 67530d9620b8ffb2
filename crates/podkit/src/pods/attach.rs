//! `podkit attach`: the first process of a container, joined to this terminal.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;
use podkit_foundation::error::Failure;
use podkit_foundation::params::ParamSet;
use podkit_pod::control::{Attach, Request};
use serde_json::Value;

use super::exec::{container, join, usable_terminal};
use super::status::list;
use super::{Choice, PodCommand, failed, living, one, pod_argument, runtime};
use crate::cli;

podkit_foundation::params! {
    /// What `attach` takes.
    pub(crate) struct AttachParams {
        /// The container; the annotation kubectl.kubernetes.io/default-container, or the first, when not given.
        container: Option<String> { short: Some('c') },
        /// Pass standard input on to the container, which has asked for it (stdin: true).
        stdin: bool { default: Some("false"), short: Some('i') },
        /// Standard input is a terminal; the container has one (tty: true).
        tty: bool { default: Some("false"), short: Some('t') },
        /// Say only what the container says.
        quiet: bool { default: Some("false"), short: Some('q') },
        /// The pod's namespace.
        namespace: String { default: Some("default"), short: Some('n') },
        /// Where the state of pods is, if not in /run/podkit and /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

pub(super) const COMMAND: PodCommand = PodCommand {
    name: "attach",
    about: "Join the first process of a container",
    usage: "attach [-it] POD [-c CONTAINER]",
    help: "Shows what the container writes from now on, until its end. Ctrl-C leaves it running; with -it the key goes to the \
           container.",
    params: AttachParams::PARAMS,
    args: pod_argument,
    run: attach,
};

fn attach(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = AttachParams::from_values(&cli::values(AttachParams::PARAMS, matches))?;
    let choice = Choice {
        state_dir: params.state_dir.as_ref(),
        namespace: &params.namespace,
        all_namespaces: false,
        selector: None,
        names: Vec::new(),
    };
    let found = living(&choice, &one(matches, "pod"))?;
    let container = container(&found, params.container.as_deref(), params.quiet);
    let has_terminal = has_terminal(&found.pod, &container);
    if params.tty && !has_terminal && !params.quiet {
        eprintln!("error: Unable to use a TTY - container {container} did not allocate one");
    }
    // As kubectl: one that has a terminal is always joined as such.
    let raw = has_terminal && params.stdin && usable_terminal(true);
    if !params.quiet && params.stdin {
        eprintln!(
            "All commands and output from this session will be recorded in container logs, including credentials and sensitive \
             information passed through the command prompt."
        );
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    let request = Request::Attach(Attach {
        container: container.clone(),
        stdin: params.stdin,
    });
    let ended = runtime()?.block_on(join(&found, &request, params.stdin, raw));
    ended.map_err(failed(&found.name))?;
    if raw && !params.quiet {
        let (name, namespace) = (&found.name, &found.namespace);
        println!(
            "Session ended, resume using 'podkit attach {name} -c {container} -n {namespace} -i -t' command"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn has_terminal(pod: &Value, container: &str) -> bool {
    let spec = &pod["spec"];
    let all = list(&spec["initContainers"]).iter();
    all.chain(list(&spec["containers"]))
        .any(|one| one["name"] == container && one["tty"] == true)
}
