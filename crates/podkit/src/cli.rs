//! The command line: clap reads it, the declarations say what is on it. Errors are one line each.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Param, ParamSet, Values};
use podkit_foundation::surface::{Group, ModuleSpec};

use crate::{explain, pods, registry, run};

/// What the command line asks for.
pub(crate) enum Parsed {
    /// A command with its arguments.
    Command(ArgMatches),
    /// A text to print: help or version.
    Text(String),
}

/// Reads the command line. Has no effects.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Parsed, Failure> {
    match root().try_get_matches_from(args) {
        Ok(matches) => Ok(Parsed::Command(matches)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Parsed::Text(error.to_string()))
            }
            _ => Err(Failure::Usage(one_line(&error))),
        },
    }
}

/// Prints to standard output. Whoever reads may have gone (`podkit explain | head`): that is not a failure.
pub(crate) fn print(text: &str) -> Result<ExitCode, Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::runtime("writing to standard output", error))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// `podkit completions SHELL`.
pub(crate) fn completions(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let shell = *matches
        .get_one::<clap_complete::Shell>("shell")
        .expect("required");
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut root(), "podkit", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// The argument of a module that has a file.
const FILE: &str = "module file";

/// The parameters' texts of a module: flags, its file as an argument, then the environment.
pub(crate) fn module_values(spec: &ModuleSpec, matches: &ArgMatches) -> Values {
    let file = spec.config.as_ref().and_then(|config| {
        let file = matches.get_one::<String>(FILE)?;
        Some((config.param, file))
    });
    let flags = |param: &Param| match file {
        Some((field, file)) if param.field == field => vec![file.clone()],
        _ => given(param, matches),
    };
    let params = spec.all_params();
    Values::gather(params.iter(), &flags, &|name| std::env::var(name).ok())
}

fn given(param: &Param, matches: &ArgMatches) -> Vec<String> {
    let given = matches.get_many::<String>(param.field);
    given.into_iter().flatten().cloned().collect()
}

/// The parameters' texts: flags of this command, then the environment.
pub(crate) fn values(params: &[Param], matches: &ArgMatches) -> Values {
    Values::gather(params.iter(), &|param| given(param, matches), &|name| {
        std::env::var(name).ok()
    })
}

fn root() -> Command {
    let mut root = Command::new("podkit")
        .version(podkit_foundation::VERSION)
        .override_help(root_help())
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommand(
            with_params(Command::new("run"), run::RunParams::PARAMS)
                .about("Start pods on this machine, in the foreground or (-d) detached")
                .after_help(run::RUN_HELP)
                .arg(files()),
        )
        .subcommand(
            with_params(Command::new("check"), run::CheckParams::PARAMS)
                .about("Validate manifests: what runs, what is ignored, refused, or risky")
                .after_help(run::CHECK_HELP)
                .arg(files()),
        )
        .subcommand(crate::image::command())
        .subcommand(crate::install::command())
        .subcommand(crate::agent::command())
        .subcommand(
            with_params(Command::new("explain"), explain::ExplainParams::PARAMS)
                .about("The API surface: parameters, ports, endpoints, signals, needs, labels")
                .arg(
                    Arg::new("what")
                        .value_name("MODULE[.PARAMETER]")
                        .help("All modules when not given"),
                ),
        )
        .subcommand(
            Command::new("completions")
                .about("A completion script for a shell")
                .arg(
                    Arg::new("shell")
                        .value_name("SHELL")
                        .required(true)
                        .value_parser(clap::value_parser!(clap_complete::Shell))
                        .help("bash, elvish, fish, powershell or zsh"),
                ),
        );
    for command in pods::COMMANDS {
        let with_flags = with_params(Command::new(command.name), command.params);
        root = root.subcommand(
            (command.args)(with_flags)
                .about(command.about)
                .after_help(command.help),
        );
    }
    for module in registry::MODULES {
        let spec = module.spec;
        let tail = format!(
            "`podkit explain {}` shows types, bounds, ports, endpoints, signals and metrics.",
            spec.name
        );
        let mut command = with_params(Command::new(spec.name), &spec.all_params())
            .about(spec.summary)
            .after_help(tail);
        if let Some(config) = &spec.config {
            let flag = config.param.replace('_', "-");
            command = command.arg(
                Arg::new(FILE)
                    .value_name("FILE")
                    .conflicts_with(config.param)
                    .help(format!("The same as --{flag}")),
            );
        }
        if spec.name == "shard" {
            command = command
                .subcommand(crate::shard::plan_command())
                .args_conflicts_with_subcommands(true);
        }
        root = root.subcommand(command);
    }
    root
}

fn files() -> Arg {
    Arg::new("files")
        .value_name("FILE")
        .num_args(1..)
        .required(true)
        .help("Manifests (YAML or JSON); - is standard input")
}

/// A flag for every parameter. Values are checked by the declarations, not by clap.
pub(crate) fn with_params(command: Command, params: &[Param]) -> Command {
    params.iter().fold(command, |command, param| {
        let mut help = format!("{} [{}]", param.help(), param.variable());
        if let Some(default) = param.default.filter(|_| !param.switch) {
            write!(help, " [default: {default}]").expect("writing to a String can't fail");
        }
        if !param.choices.is_empty() {
            write!(help, " [{}]", param.choices.join("|")).expect("writing to a String can't fail");
        }
        let mut arg = Arg::new(param.field)
            .long(param.flag())
            .value_name(param.type_name.to_uppercase())
            .action(ArgAction::Append)
            .help(StyledStr::from(help));
        if let Some(short) = param.short {
            arg = arg.short(short);
        }
        if param.switch {
            arg = arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true");
        }
        command.arg(arg)
    })
}

fn root_help() -> String {
    let mut text = String::from(
        "podkit: the distributed-system toolkit as one program\n\n\
         podkit run FILE...       start pods on this machine (foreground; -d to detach)\n\
         podkit check FILE...     validate manifests: what runs, what is ignored, refused, or risky\n\n\
         Running pods, in kubectl's words:\n",
    );
    for command in pods::COMMANDS {
        writeln!(text, "  {:<38} {}", command.usage, command.about)
            .expect("writing to a String can't fail");
    }
    text += "\n\
         podkit image pull | load | ls | inspect | rm | prune | build      the image store; build makes podkit's own image\n\
         podkit install DIR       copy this binary into a shared volume (for init containers)\n\
         podkit agent -- CMD      run an application, and for the sidecars its validations and reloads (first process of its container)\n\
         podkit explain [MODULE[.PARAMETER]]     the API surface (-o text|json|markdown|dockerfile; --diff OLD.json)\n\
         podkit completions SHELL\n\n\
         Modules, each a container: `args: [tls]`, parameters as flags or in `env` as PODKIT_…\n";
    let mut groups: Vec<Group> = registry::specs().iter().map(|spec| spec.group).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        let mut title = group.title();
        for spec in registry::specs().iter().filter(|spec| spec.group == group) {
            writeln!(text, "{title:<12}  {:<11} {}", spec.name, spec.summary)
                .expect("writing to a String can't fail");
            title = "";
        }
    }
    text + "\n`podkit COMMAND --help` shows its flags, `podkit explain MODULE` everything about a module.\n"
}

/// What clap found wrong, in one line: what, and what would be right.
fn one_line(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) if !texts.is_empty() => Some(texts.join(" or ")),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    let suggestion = |kind| {
        context(kind)
            .map(|near| format!("; did you mean {near}?"))
            .unwrap_or_default()
    };
    match error.kind() {
        ErrorKind::UnknownArgument => format!(
            "unknown flag or argument {argument}{}",
            suggestion(ContextKind::SuggestedArg),
        ),
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            if registry::NOT_YET.contains(&word.as_str()) {
                return format!(
                    "{word} is not in version {} yet",
                    podkit_foundation::VERSION
                );
            }
            let near = suggestion(ContextKind::SuggestedSubcommand);
            format!("unknown command {word}{near} (podkit --help lists them)")
        }
        ErrorKind::MissingSubcommand => "which command? (podkit --help lists them)".to_owned(),
        ErrorKind::MissingRequiredArgument => format!("{argument} is missing"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = context(ContextKind::InvalidValue).unwrap_or_default();
            let valid = context(ContextKind::ValidValue).unwrap_or_else(|| "a value".to_owned());
            format!("{argument}: \"{value}\" is not right; expected {valid}")
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            first.trim_start_matches("error: ").to_owned()
        }
    }
}
