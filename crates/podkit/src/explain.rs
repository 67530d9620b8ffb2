//! `podkit explain`: the API surface, from the same declarations that the command line is read by.

use std::process::ExitCode;

use clap::ArgMatches;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet};
use podkit_foundation::surface::{ModuleSpec, diff, json, render};
use serde_json::Value;

use crate::{cli, registry};

podkit_foundation::choices! {
    /// The form of the output.
    pub(crate) enum Form {
        /// For the terminal.
        Text = "text",
        /// For programs.
        Json = "json",
        /// A page of the reference.
        Markdown = "markdown",
        /// The lines of a Dockerfile.
        Dockerfile = "dockerfile",
    }
}

podkit_foundation::params! {
    /// What `explain` takes.
    pub(crate) struct ExplainParams {
        /// Form of the output.
        output: Form { default: Some("text"), short: Some('o') },
        /// Compare with a surface saved by `explain -o json`; exit 1 when something breaks.
        diff: Option<std::path::PathBuf> {},
    }
}

/// Not a module: what becomes of each field of a manifest.
const POD_SPEC: &str = "pod-spec";

/// `podkit explain [MODULE[.PARAMETER]|pod-spec] [-o …] [--diff OLD.json]`.
pub(crate) fn explain(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = ExplainParams::from_values(&cli::values(ExplainParams::PARAMS, matches))?;
    if let Some(path) = &params.diff {
        return compare(path);
    }
    let Some(what) = matches.get_one::<String>("what") else {
        return cli::print(&all(params.output));
    };
    if what == POD_SPEC {
        return match params.output {
            Form::Text | Form::Markdown => cli::print(&podkit_pod::manifest::reference()),
            form => {
                let why = format!("{} shows modules, not {POD_SPEC}", form.word());
                Err(ParamError::new("output", why).into())
            }
        };
    }
    let (name, parameter) = match what.split_once('.') {
        Some((name, parameter)) => (name, Some(parameter)),
        None => (what.as_str(), None),
    };
    let spec = registry::find(name)
        .map(|module| module.spec)
        .ok_or_else(|| unknown(name))?;
    match parameter {
        None => cli::print(&one(spec, params.output)),
        Some(parameter) => {
            let flag = parameter.trim_start_matches("--");
            let all = spec.all_params();
            let found = all
                .iter()
                .find(|param| param.flag() == flag || param.variable() == flag);
            let found = found.ok_or_else(|| {
                Failure::Usage(format!(
                    "{name} has no parameter {flag} (podkit explain {name} lists them)"
                ))
            })?;
            match params.output {
                Form::Json => cli::print(&pretty(&json::param(found))),
                Form::Text => cli::print(&render::param_text(found)),
                form => {
                    let why = format!("{} shows a whole module, not one parameter", form.word());
                    Err(ParamError::new("output", why).into())
                }
            }
        }
    }
}

fn all(form: Form) -> String {
    let specs = registry::specs();
    match form {
        Form::Json => pretty(&json::program(&specs)),
        Form::Text => {
            let line = |spec: &&ModuleSpec| format!("{:<12}{}\n", spec.name, spec.summary);
            specs.iter().map(line).collect::<String>()
                + "\n`podkit explain MODULE` shows all of one, `podkit explain MODULE.PARAMETER` one parameter, \
                   `podkit explain pod-spec` what becomes of each field of a manifest.\n"
        }
        form => specs
            .iter()
            .map(|spec| one(spec, form))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

fn one(spec: &ModuleSpec, form: Form) -> String {
    match form {
        Form::Text => render::text(spec),
        Form::Json => pretty(&json::module(spec)),
        Form::Markdown => render::markdown(spec),
        Form::Dockerfile => render::dockerfile(spec),
    }
}

fn compare(path: &std::path::Path) -> Result<ExitCode, Failure> {
    let wrong = |why: String| Failure::from(ParamError::new("diff", why));
    let text =
        std::fs::read_to_string(path).map_err(|e| wrong(format!("{}: {e}", path.display())))?;
    let old: Value = serde_json::from_str(&text).map_err(|e| {
        wrong(format!(
            "{}: not JSON ({e}); expected what explain -o json prints",
            path.display()
        ))
    })?;
    if !old["modules"].is_array() {
        return Err(wrong(format!(
            "{}: expected what `podkit explain -o json` prints",
            path.display()
        )));
    }
    let changes = diff::between(&old, &json::program(&registry::specs()));
    let word = |change: &diff::Change| {
        if change.breaking {
            "breaking"
        } else {
            "addition"
        }
    };
    let lines: String = changes
        .iter()
        .map(|c| format!("{}: {}\n", word(c), c.line))
        .collect();
    cli::print(&lines)?;
    match changes.iter().filter(|change| change.breaking).count() {
        0 => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

fn unknown(name: &str) -> Failure {
    if registry::NOT_YET.contains(&name) {
        return Failure::Usage(format!(
            "{name} is not in version {} yet",
            podkit_foundation::VERSION
        ));
    }
    if registry::COMMANDS.contains(&name) {
        return Failure::Usage(format!(
            "{name} is a command, not a module (podkit {name} --help shows all of it)"
        ));
    }
    let names: Vec<&str> = registry::specs().iter().map(|spec| spec.name).collect();
    Failure::Usage(format!(
        "there is no module {name}; expected one of {}",
        names.join(", ")
    ))
}

fn pretty(value: &Value) -> String {
    let text = serde_json::to_string_pretty(value).expect("a Value always serialises");
    text + "\n"
}
