//! podkit, the one binary: a pod runner, and the modules that run in its pods.
//!
//! What happens: the hidden stage of the sandbox goes first, before anything else of the program has run; then the
//! command line is read, and one command runs to its end.

mod agent;
mod build;
mod cli;
mod explain;
mod image;
mod install;
mod pods;
mod progress;
mod registry;
mod run;
mod shard;

use std::process::ExitCode;

use podkit_foundation::error::Failure;

fn main() -> ExitCode {
    podkit_pod::sandbox::run_if_stage();
    match command() {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("podkit: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn command() -> Result<ExitCode, Failure> {
    let matches = match cli::parse(std::env::args_os())? {
        cli::Parsed::Command(matches) => matches,
        cli::Parsed::Text(text) => return cli::print(&text),
    };
    let (name, matches) = matches.subcommand().expect("the command line requires one");
    match name {
        "run" => run::run(matches),
        "check" => run::check(matches),
        "explain" => explain::explain(matches),
        "completions" => cli::completions(matches),
        "image" => image::image(matches),
        "install" => install::install(matches),
        "agent" => agent::agent(matches),
        "shard" if matches.subcommand_name() == Some("plan") => {
            let (_, matches) = matches.subcommand().expect("it has a name");
            shard::shard_plan(matches)
        }
        name if pods::find(name).is_some() => {
            let command = pods::find(name).expect("it was found");
            (command.run)(matches)
        }
        module => {
            let module = registry::find(module).expect("every other command is a module");
            Ok(podkit_dataplane::module::run(
                module,
                &cli::module_values(module.spec, matches),
                podkit_pod::give_back_start,
            ))
        }
    }
}
