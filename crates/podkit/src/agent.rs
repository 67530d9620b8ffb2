//! `podkit agent -- CMD`: an application with podkit as its container's first process.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use podkit_foundation::error::Failure;
use podkit_foundation::params::ParamSet as _;
use podkit_pod::check::Wrapper;
use podkit_sidecar::agent::{self, AgentParams};

use crate::cli;

/// As `podkit check` looks at it in a container.
pub(crate) const WRAPPER: Wrapper = Wrapper {
    name: "agent",
    params: AgentParams::PARAMS,
    check: |values| AgentParams::from_values(values).map(drop),
};

pub(crate) fn command() -> Command {
    cli::with_params(Command::new("agent"), AgentParams::PARAMS)
        .about("Run an application, and for the pod's sidecars its validations and reloads")
        .after_help(agent::HELP)
        .arg(
            Arg::new("command")
                .value_name("CMD")
                .last(true)
                .num_args(1..)
                .required(true)
                .value_parser(value_parser!(OsString))
                .help("The application and its arguments"),
        )
}

pub(crate) fn agent(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = AgentParams::from_values(&cli::values(AgentParams::PARAMS, matches))?;
    let command = matches.get_many::<OsString>("command");
    let command: Vec<OsString> = command.into_iter().flatten().cloned().collect();
    agent::run(params, &command, podkit_pod::give_back_start)
}
