//! The commands for pods that run, in kubectl's words: what each takes and says is what people know from there.
//!
//! A file for each; `table`, `yaml`, `status` and `select` are what they share. How a pod is reached is `podkit_pod::control`'s.

mod attach;
mod describe;
mod events;
mod exec;
mod forward;
mod logs;
mod path;
mod ps;
mod select;
mod status;
mod stop;
mod table;
mod terminal;
mod wait;
mod yaml;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use podkit_foundation::error::Failure;
use podkit_foundation::params::Param;
use podkit_pod::control::{ClientError, Found, Life, Machine};

/// A command of this folder.
pub(crate) struct PodCommand {
    /// Its word.
    pub(crate) name: &'static str,
    /// One line.
    pub(crate) about: &'static str,
    /// How it is written, for the first page of help.
    pub(crate) usage: &'static str,
    /// What stands below the flags in `--help`.
    pub(crate) help: &'static str,
    /// Its flags.
    pub(crate) params: &'static [Param],
    /// Its other arguments.
    pub(crate) args: fn(Command) -> Command,
    /// What it does.
    pub(crate) run: fn(&ArgMatches) -> Result<ExitCode, Failure>,
}

/// In the order of `--help`.
pub(crate) static COMMANDS: &[PodCommand] = &[
    ps::COMMAND,
    logs::COMMAND,
    exec::EXEC,
    attach::COMMAND,
    describe::COMMAND,
    events::COMMAND,
    wait::COMMAND,
    forward::COMMAND,
    stop::COMMAND,
];

/// The command that is called so.
pub(crate) fn find(name: &str) -> Option<&'static PodCommand> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// Names of pods, any number.
fn pods_argument(command: Command) -> Command {
    command.arg(
        Arg::new("pods")
            .value_name("POD")
            .num_args(0..)
            .help("Names of pods: NAME or pod/NAME"),
    )
}

/// One pod.
fn pod_argument(command: Command) -> Command {
    command.arg(
        Arg::new("pod")
            .value_name("POD")
            .required(true)
            .help("The pod: NAME or pod/NAME"),
    )
}

fn many(matches: &ArgMatches, name: &str) -> Vec<String> {
    let given = matches.get_many::<String>(name).into_iter().flatten();
    given.cloned().collect()
}

fn one(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}

/// The pods that are meant.
#[derive(Debug)]
struct Choice<'a> {
    state_dir: Option<&'a PathBuf>,
    namespace: &'a str,
    all_namespaces: bool,
    selector: Option<&'a str>,
    names: Vec<String>,
}

impl Choice<'_> {
    fn machine(&self) -> Machine {
        Machine::at(self.state_dir.map(PathBuf::as_path))
    }

    /// Those named, or all that the selector takes.
    fn pods(&self) -> Result<Vec<Found>, Failure> {
        let machine = self.machine();
        let selector = self.selector.map(select::Selector::parse).transpose();
        let selector = selector.map_err(|why| {
            Failure::from(podkit_foundation::params::ParamError::new("selector", why))
        })?;
        if !self.names.is_empty() {
            if selector.is_some() {
                let why = "name cannot be provided when a selector is specified";
                return Err(Failure::Usage(why.to_owned()));
            }
            let found = self.names.iter().map(|name| self.pod(&machine, name));
            return found.collect();
        }
        let here = |pod: &Found| self.all_namespaces || pod.namespace == self.namespace;
        let takes = |pod: &Found| selector.as_ref().is_none_or(|s| s.takes(&pod.pod));
        let pods = machine.pods().into_iter();
        Ok(pods.filter(|pod| here(pod) && takes(pod)).collect())
    }

    fn pod(&self, machine: &Machine, name: &str) -> Result<Found, Failure> {
        machine
            .pod(self.namespace, name)
            .map_err(|error| Failure::Runtime(format!("Error (NotFound): {error}")))
    }
}

/// A pod that lives, by its name.
fn living(choice: &Choice<'_>, name: &str) -> Result<Found, Failure> {
    let found = choice.pod(&choice.machine(), name)?;
    match found.life {
        Life::Lives { .. } => Ok(found),
        Life::Ended => {
            let phase = found.pod["status"]["phase"].as_str().unwrap_or("Unknown");
            Err(Failure::Runtime(format!(
                "pod {} has ended: its phase is {phase}",
                found.name
            )))
        }
        Life::Lost => Err(Failure::Runtime(format!(
            "the supervisor of pod {} was killed, and the pod with it",
            found.name
        ))),
    }
}

/// One thread that waits for sockets.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime("starting", error))
}

/// What came of a request to a pod, for people.
fn failed(pod: &str) -> impl Fn(ClientError) -> Failure {
    move |error| {
        Failure::Runtime(match error {
            ClientError::Refused(refusal) => {
                format!("Error ({}): pod {pod}: {}", refusal.reason, refusal.message)
            }
            other => format!("pod {pod}: {other}"),
        })
    }
}
