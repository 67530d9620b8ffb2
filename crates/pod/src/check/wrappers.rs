//! Containers whose first process is podkit around the application, such as `/tools/podkit agent FLAGS -- CMD`: a wrong flag would
//! keep the application from starting.

use podkit_foundation::params::{ParamError, Values};

use super::modules::{Flags, unknown, variables};
use super::{Commands, Subject, Wrapper, command_word};
use crate::manifest::{Notes, Path};
use crate::plan::ContainerPlan;

pub(super) fn check(subject: &Subject<'_>, commands: Commands<'_>, notes: &mut Notes<'_>) {
    for (container, at) in subject.containers() {
        let Some((begin, word)) = wrapping(container) else {
            continue;
        };
        if let Some(wrapper) = commands.wrappers.iter().find(|one| one.name == word) {
            command_line(wrapper, container, begin, at, notes);
        }
    }
}

/// The word that says what of podkit runs, and its position among the words of `command` and `args`.
fn wrapping(container: &ContainerPlan) -> Option<(usize, &str)> {
    if let Some(word) = command_word(container) {
        return Some((0, word));
    }
    let mut words = container.command.iter().chain(&container.args);
    let program = words.next()?.rsplit('/').next();
    let is_podkit = !container.command.is_empty() && program == Some("podkit");
    is_podkit
        .then(|| words.next())?
        .map(|word| (1, word.as_str()))
}

fn command_line(
    wrapper: &Wrapper,
    container: &ContainerPlan,
    begin: usize,
    at: &Path,
    notes: &mut Notes<'_>,
) {
    let name = wrapper.name;
    let words = container.command.iter().chain(&container.args);
    let words: Vec<String> = words.skip(begin + 1).cloned().collect();
    let place = |i: usize| {
        let i = begin + 1 + i;
        match i.checked_sub(container.command.len()) {
            Some(i) => at.key("args").index(i),
            None => at.key("command").index(i),
        }
    };
    let end = words.iter().position(|word| word == "--");
    let args = &words[..end.unwrap_or(words.len())];
    if matches!(args, [help, ..] if matches!(help.as_str(), "--help" | "-h")) {
        return;
    }
    let flags = Flags::read(wrapper.params, args);
    unknown(name, wrapper.params, args, &flags, place, notes);
    variables(name, wrapper.params, container, at, notes);
    if let Some((i, word)) = flags.bare.first() {
        let message = format!("{name} takes no {word:?} here; the application follows --");
        notes.error(&place(*i), message);
    } else if end.is_none_or(|end| end + 1 == words.len()) {
        let message = format!("{name} needs the application and its arguments behind --");
        notes.error(at, message);
    }
    let judged = |flag: Option<(&str, &str)>, variable: Option<&str>| {
        let given = Values::gather(
            wrapper.params.iter(),
            &|param| {
                let one = flag.filter(|(field, _)| *field == param.field);
                one.map(|(_, text)| text.to_owned()).into_iter().collect()
            },
            &|name| {
                let set = container.env.iter().find(|(set, _)| set == name);
                set.filter(|(set, _)| Some(set.as_str()) == variable)
                    .map(|(_, text)| text.clone())
            },
        );
        (wrapper.check)(&given)
    };
    let wrong = |error: &ParamError| format!("--{} of {name}: {}", error.flag(), error.why());
    // Each by itself, so that each that is wrong is told with its line.
    for (i, field, text) in &flags.given {
        let Some(field) = field else { continue };
        if let Err(error) = judged(Some((field, text)), None) {
            notes.error(&place(*i), wrong(&error));
        }
    }
    for param in wrapper.params {
        let is_given = flags.of(param).next().is_some();
        let variable = param.variable();
        match judged(None, Some(&variable)) {
            // A flag beats it.
            Err(error) if !is_given => notes.error(&at.key("env"), wrong(&error)),
            _ => {}
        }
    }
}
