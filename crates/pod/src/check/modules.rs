//! Containers that run podkit's modules: their command lines, and what they need of the pod.

use podkit_foundation::params::{Param, unknown_variables};
use podkit_foundation::surface::{ModuleSpec, NeedKind};

use super::{Commands, Subject, command_word, module};
use crate::manifest::{Notes, Path, nearest};
use crate::plan::{ContainerPlan, ImageSource, PodPlan, Role};
use crate::sandbox::effective_set;

pub(super) fn check(subject: &Subject<'_>, commands: Commands<'_>, notes: &mut Notes<'_>) {
    for (container, at) in subject.containers() {
        let Some(word) = command_word(container) else {
            continue;
        };
        match module(container, commands) {
            Some(module) => {
                command_line(module, container, at, notes);
                needs(module, container, subject.plan, at, notes);
            }
            None if commands.modules.is_empty() || commands.others.contains(&word) => {}
            None => {
                let names = commands.modules.iter().map(|module| module.name);
                let all = names.chain(commands.others.iter().copied());
                let hint = nearest(word, all)
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_default();
                notes.error(
                    &at.key("args").index(0),
                    format!("podkit has no module {word:?}{hint}"),
                );
            }
        }
    }
}

/// The texts given for a parameter, flag over variable over default.
pub(super) fn values(module: &ModuleSpec, field: &str, container: &ContainerPlan) -> Vec<String> {
    let params = module.all_params();
    let Some(param) = params.iter().find(|param| param.field == field) else {
        return Vec::new();
    };
    let flags = Flags::read(&params, container.args.get(1..).unwrap_or_default());
    let mut flag: Vec<&str> = flags.of(param).collect();
    if module.config.is_some_and(|config| config.param == field) {
        flag.extend(flags.bare.first().map(|(_, word)| *word));
    }
    let variable = container
        .env
        .iter()
        .find(|(name, _)| *name == param.variable());
    let texts: Vec<&str> = if !flag.is_empty() {
        flag
    } else if let Some((_, text)) = variable.filter(|(_, text)| !text.is_empty()) {
        vec![text]
    } else {
        param.default.into_iter().collect()
    };
    let split = |text: &&str| -> Vec<String> {
        match param.commas {
            true => text.split(',').map(|part| part.trim().to_owned()).collect(),
            false => vec![(*text).to_owned()],
        }
    };
    texts.iter().flat_map(split).collect()
}

/// The flags of a command line, as the binary reads them: `--flag value`, `--flag=value`, switches without a value.
pub(super) struct Flags<'a> {
    /// Position, parameter's field (none: unknown) and value.
    pub(super) given: Vec<(usize, Option<&'static str>, &'a str)>,
    /// Position of the words that belong to no flag, and they.
    pub(super) bare: Vec<(usize, &'a str)>,
}

impl<'a> Flags<'a> {
    pub(super) fn read(params: &[Param], args: &'a [String]) -> Self {
        let (mut given, mut bare) = (Vec::new(), Vec::new());
        let mut words = args.iter().enumerate();
        while let Some((at, word)) = words.next() {
            let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
                bare.push((at, word.as_str()));
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let known = params.iter().find(|param| match name.strip_prefix('-') {
                Some(long) => param.flag() == long,
                None => param.short.is_some_and(|short| name.chars().eq([short])),
            });
            let value = match (known, value) {
                (_, Some(value)) => value,
                (Some(param), None) if !param.switch => {
                    words.next().map_or("", |(_, word)| word.as_str())
                }
                (Some(_), None) => "true",
                (None, None) => "",
            };
            given.push((at, known.map(|param| param.field), value));
        }
        Self { given, bare }
    }

    pub(super) fn of(&self, param: &Param) -> impl Iterator<Item = &'a str> {
        let field = param.field;
        let given = self
            .given
            .iter()
            .filter(move |(_, of, _)| *of == Some(field));
        given.map(|(_, _, value)| *value)
    }
}

fn command_line(module: &ModuleSpec, container: &ContainerPlan, at: &Path, notes: &mut Notes<'_>) {
    let params = module.all_params();
    let args = container.args.get(1..).unwrap_or_default();
    let flags = Flags::read(&params, args);
    let place = |i: usize| at.key("args").index(i + 1);
    unknown(module.name, &params, args, &flags, place, notes);
    variables(module.name, &params, container, at, notes);
    for param in &params {
        let given = values(module, param.field, container);
        if given.is_empty() && !param.optional && param.default.is_none() && !param.many {
            notes.error(
                at,
                format!(
                    "{} needs --{} or {}",
                    module.name,
                    param.flag(),
                    param.variable()
                ),
            );
        }
        for text in given
            .iter()
            .filter(|text| !param.choices.is_empty() && !param.choices.contains(&text.as_str()))
        {
            notes.error(
                at,
                format!(
                    "--{} of {}: {text:?} is none of {}",
                    param.flag(),
                    module.name,
                    param.choices.join(", ")
                ),
            );
        }
    }
}

/// Flags that the command `name` has not.
pub(super) fn unknown(
    name: &str,
    params: &[Param],
    args: &[String],
    flags: &Flags<'_>,
    place: impl Fn(usize) -> Path,
    notes: &mut Notes<'_>,
) {
    for (i, known, _) in &flags.given {
        if known.is_some() || matches!(args[*i].as_str(), "--help" | "-h") {
            continue;
        }
        let word = args[*i].split('=').next().unwrap_or_default();
        let names: Vec<String> = params
            .iter()
            .map(|param| format!("--{}", param.flag()))
            .collect();
        let hint = nearest(word, names.iter().map(String::as_str))
            .map(|near| format!("; did you mean {near}?"))
            .unwrap_or_default();
        notes.error(&place(*i), format!("{name} has no flag {word}{hint}"));
    }
}

/// Variables of podkit's that the command `name` does not read.
pub(super) fn variables(
    name: &str,
    params: &[Param],
    container: &ContainerPlan,
    at: &Path,
    notes: &mut Notes<'_>,
) {
    let names = container.env.iter().map(|(name, _)| name.clone());
    for (variable, near) in unknown_variables(params.iter(), names) {
        let hint = near
            .map(|near| format!("; did you mean {near}?"))
            .unwrap_or_default();
        notes.warning(
            &at.key("env"),
            format!("{name} has no parameter {variable}{hint}"),
        );
    }
}

/// What a feature needs and the pod doesn't give.
fn needs(
    module: &ModuleSpec,
    container: &ContainerPlan,
    pod: &PodPlan,
    at: &Path,
    notes: &mut Notes<'_>,
) {
    for need in module.needs {
        if !is_used(module, need.feature, container) {
            continue;
        }
        let (met, remedy) = match need.kind {
            NeedKind::SharedPid => (
                pod.share_process_namespace,
                "set shareProcessNamespace: true".to_owned(),
            ),
            NeedKind::Capability(name) => (
                has_capability(container, name),
                format!("add the capability {name}"),
            ),
            NeedKind::SameUserOr(name) => {
                let mut others = pod
                    .containers
                    .iter()
                    .filter(|other| other.role != Role::Init);
                let alike = others.all(|other| other.security.uid == container.security.uid);
                (
                    alike || has_capability(container, name),
                    format!("run as the application's user, or add the capability {name}"),
                )
            }
            NeedKind::Program(name) => (
                container.source != ImageSource::Itself,
                format!("there is no {name} in podkit's own image"),
            ),
            NeedKind::Words => continue,
        };
        if !met {
            notes.warning(
                at,
                format!("{}: {} ({}): {remedy}", module.name, need.feature, need.doc),
            );
        }
    }
}

/// A feature that begins with a flag's name is used when the flag or its variable is given; one that goes on with a form of its
/// values, such as `--reload signal:SIG:PROCESS`, when one of them begins so.
fn is_used(module: &ModuleSpec, feature: &str, container: &ContainerPlan) -> bool {
    let mut words = feature.split_whitespace();
    let Some(flag) = words.next().and_then(|word| word.strip_prefix("--")) else {
        return true;
    };
    let params = module.all_params();
    let Some(param) = params.iter().find(|param| param.flag() == flag) else {
        return true;
    };
    let given = values(module, param.field, container);
    match words.next().and_then(|form| form.split_once(':')) {
        Some((begin, _)) => given.iter().any(|text| {
            text.strip_prefix(begin)
                .is_some_and(|rest| rest.starts_with(':'))
        }),
        None => {
            let default: Vec<&str> = param.default.into_iter().collect();
            given != default
        }
    }
}

/// In effect: a user other than root has none of those that only bound it.
fn has_capability(container: &ContainerPlan, name: &str) -> bool {
    let security = &container.security;
    let wanted = effective_set(&[name.to_owned()], &["ALL".to_owned()]).unwrap_or(0);
    let given = effective_set(&security.add_capabilities, &security.drop_capabilities).unwrap_or(0);
    wanted != 0 && given & wanted == wanted && security.uid.unwrap_or(0) == 0
}
