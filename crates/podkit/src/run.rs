//! `podkit run` and `podkit check`: their flags, handed to the pod runner.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgMatches;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet, Size};
use podkit_foundation::telemetry::log::{self, LogFormat, LogLevel};
use podkit_foundation::yaml::read;
use podkit_pod::check::{Commands, Report, check as check_files};
use podkit_pod::plan::Options;
use podkit_pod::runner::{self, NameSeed, OutputFormat, RunOptions};

use crate::{agent, cli, progress, registry};

podkit_foundation::choices! {
    /// The form of the output.
    pub(crate) enum Form {
        /// For people.
        Text = "text",
        /// For programs.
        Json = "json",
    }
}

podkit_foundation::params! {
    /// What `run` takes.
    pub(crate) struct RunParams {
        /// Leave this container out (talk to the real thing in development).
        without: Vec<String> {},
        /// Where a container's root file system comes from instead: CONTAINER=podkit, =host, =rootfs:DIR, =oci:DIR, =docker-archive:FILE, =docker-daemon:IMAGE.
        image: Vec<String> {},
        /// Accept what would own the machine, such as a writable mount of a system directory.
        allow_privileged: bool { default: Some("false") },
        /// Don't publish the declared ports on this machine's loopback.
        no_publish: bool { default: Some("false") },
        /// First step of the restart back-off; it doubles, up to 30 times this (5m).
        backoff: Duration { default: Some("10s"), bounds: Some((10, 300_000)) },
        /// Stop the pod when this container ends, and exit with its code.
        exit_code_from: Option<String> {},
        /// Form of the output: for people, or one JSON object a line.
        output: Form { default: Some("text"), short: Some('o') },
        /// Where the profiles of localhostProfile are, instead of /var/lib/podkit/seccomp (on a node: /var/lib/kubelet/seccomp).
        seccomp_dir: Option<PathBuf> {},
        /// Keep the state of pods below this directory instead of /run/podkit and /var/lib/podkit.
        state_dir: Option<PathBuf> {},
        /// Apply the files again after each edit: only the containers that changed are restarted.
        watch: bool { default: Some("false") },
        /// Go on in the background; return when all pods have begun.
        detach: bool { default: Some("false"), short: Some('d') },
        /// With -d, return when all pods are ready, and fail when one can't be.
        wait: bool { default: Some("false") },
        /// How long --wait waits.
        wait_timeout: Duration { default: Some("5m") },
        /// How large a file of a container's log gets before a new one begins.
        log_max_size: Size { default: Some("10Mi"), bounds: Some((65_536, 1_099_511_627_776)) },
        /// How many files are kept of the log of a container's run.
        log_max_files: u32 { default: Some("5"), bounds: Some((2, 1000)) },
        /// Run only this pod of the files.
        only_pod: Option<String> {},
        /// Which pod of which Job that is.
        job_pod: Option<String> {},
        /// Set by -d for the process that goes on in the background.
        detached: bool { default: Some("false") },
        /// What the names of objects with generateName follow from; set for a process that reads the same files again.
        name_seed: Option<u64> {},
    }
}

podkit_foundation::params! {
    /// What `check` takes.
    pub(crate) struct CheckParams {
        /// Check as if this container were left out.
        without: Vec<String> {},
        /// Where a container's root file system comes from instead: CONTAINER=podkit, =host, =rootfs:DIR, =oci:DIR, =docker-archive:FILE, =docker-daemon:IMAGE.
        image: Vec<String> {},
        /// Accept what would own the machine.
        allow_privileged: bool { default: Some("false") },
        /// Form of the output.
        output: Form { default: Some("text"), short: Some('o') },
    }
}

pub(crate) const RUN_HELP: &str = "\
Ctrl-C stops the pod in order within its grace period; a second one at once. Exit code: 0 when all went well, 1 when the \
pod failed or could not start, 2 when something given is wrong. An image whose repository ends in podkit is this very \
binary; others are pulled. --image CONTAINER=SOURCE and the annotation podkit.dev/image.CONTAINER choose another \
source: host (this machine's programs, read-only), rootfs:DIR, oci:DIR, docker-archive:FILE, docker-daemon:IMAGE.

A pod that runs follows its files as one on Kubernetes follows the API server: volumes of edited ConfigMaps and Secrets, and of edited \
labels and annotations, are updated in place in one step; subPath mounts, variables and immutable objects are not. With --watch the \
rest of an edit is applied too: containers that changed (their image pulled first) or whose variables did are restarted, new ones begin, \
those that are gone end, pods come and go; what no running pod can take (init containers, volumes, ports, host name, shared namespaces, \
the pod's securityContext) restarts the whole pod. A bad edit is refused, and everything goes on.";

pub(crate) const CHECK_HELP: &str = "\
Exit code: 0 when the files can run, 2 when not. Every line names file, line, column and path.";

/// `podkit run FILE...`.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = RunParams::from_values(&cli::values(RunParams::PARAMS, matches))?;
    if params.wait && !params.detach {
        let why = "only with -d; in the foreground the output says when a pod is ready";
        return Err(ParamError::new("wait", why).into());
    }
    // One of several has another process over it that shows its pulls, and one in the background whoever waits for it.
    let shows = params.only_pod.is_none() && !params.detached && (!params.detach || params.wait);
    let options = RunOptions {
        files: files(matches),
        without: params.without,
        images: images(&params.image)?,
        allow_privileged: params.allow_privileged,
        publish: !params.no_publish,
        backoff: params.backoff,
        output: match params.output {
            Form::Text => OutputFormat::Text,
            Form::Json => OutputFormat::Json,
        },
        exit_code_from: params.exit_code_from,
        seccomp_dir: params.seccomp_dir,
        state_dir: params.state_dir,
        only_pod: params.only_pod,
        job_pod: params.job_pod,
        watch: params.watch,
        detach: params.detach,
        wait: params.wait,
        wait_timeout: params.wait_timeout,
        log_max_size: params.log_max_size.0,
        log_max_files: params.log_max_files,
        screen: match (params.output, shows) {
            (Form::Text, true) => progress::of_pods(),
            _ => None,
        },
        detached: params.detached,
        name_seed: params
            .name_seed
            .map_or_else(NameSeed::random, NameSeed::given),
    };
    log::init("run", LogLevel::Warn, LogFormat::Text);
    runner::run(&options).map(ExitCode::from)
}

/// `podkit check FILE...`.
pub(crate) fn check(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = CheckParams::from_values(&cli::values(CheckParams::PARAMS, matches))?;
    let options = Options {
        images: images(&params.image)?,
        without: params.without,
        allow_privileged: params.allow_privileged,
        ..Options::default()
    };
    let modules = registry::specs();
    let commands = Commands {
        modules: &modules,
        others: registry::COMMANDS,
        wrappers: &[agent::WRAPPER],
    };
    let (chains, manifests) = chains(files(matches));
    let mut report = match manifests.is_empty() && !chains.is_empty() {
        true => Report::default(),
        false => check_files(&manifests, &options, commands),
    };
    for (path, bytes) in chains {
        let findings = podkit_serving::chain::check(&path.display().to_string(), &bytes);
        report.add_file(&path, "a file of podkit chain", findings);
    }
    cli::print(&match params.output {
        Form::Text => report.to_string(),
        Form::Json => format!("{:#}\n", report.to_json()),
    })?;
    Ok(if report.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}

/// The files of `podkit chain` with what is in them, and the others.
fn chains(files: Vec<PathBuf>) -> (Vec<(PathBuf, Vec<u8>)>, Vec<PathBuf>) {
    let (mut chains, mut others) = (Vec::new(), Vec::new());
    for path in files {
        let bytes = match path.is_file() {
            true => read::file(&path).ok(),
            false => None,
        };
        let is_chain =
            |bytes: &Vec<u8>| read::text(bytes).is_ok_and(podkit_serving::chain::is_chain);
        match bytes.filter(is_chain) {
            Some(bytes) => chains.push((path, bytes)),
            None => others.push(path),
        }
    }
    (chains, others)
}

fn files(matches: &ArgMatches) -> Vec<PathBuf> {
    matches
        .get_many::<String>("files")
        .into_iter()
        .flatten()
        .map(PathBuf::from)
        .collect()
}

fn images(texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some((container, source)) if !container.is_empty() && !source.is_empty() => {
            Ok((container.to_owned(), source.to_owned()))
        }
        _ => {
            let why = format!(
                "\"{text}\" is not CONTAINER=SOURCE; expected such as app=host or app=rootfs:/srv/app"
            );
            Err(ParamError::new("image", why).into())
        }
    };
    texts.iter().map(pair).collect()
}
