//! The one table that names every module. Pattern crates never know each other; the binary knows them all.

use podkit_dataplane::module::Module;
use podkit_foundation::surface::ModuleSpec;

/// Every module, in the order in which `--help` lists them within a group.
pub(crate) static MODULES: &[&Module] = &[
    &podkit_sidecar::tls::MODULE,
    &podkit_sidecar::config::MODULE,
    &podkit_sidecar::git::MODULE,
    &podkit_sidecar::topz::MODULE,
    &podkit_ambassador::shard::MODULE,
    &podkit_ambassador::redis::MODULE,
    &podkit_adapter::metrics::MODULE,
    &podkit_adapter::health::MODULE,
    &podkit_serving::balance::MODULE,
    &podkit_serving::limit::MODULE,
    &podkit_serving::chain::MODULE,
    &podkit_serving::echo::MODULE,
];

/// The module that people call `name`.
pub(crate) fn find(name: &str) -> Option<&'static Module> {
    MODULES
        .iter()
        .copied()
        .find(|module| module.spec.name == name)
}

/// Every module's surface.
pub(crate) fn specs() -> Vec<&'static ModuleSpec> {
    MODULES.iter().map(|module| module.spec).collect()
}

/// The commands that are not modules.
pub(crate) const COMMANDS: &[&str] = &[
    "run",
    "check",
    "ps",
    "logs",
    "exec",
    "attach",
    "describe",
    "events",
    "wait",
    "port-forward",
    "stop",
    "explain",
    "completions",
    "image",
    "install",
    "agent",
];

/// The words of the command line that a later version will have: refused by name instead of as a typo.
pub(crate) const NOT_YET: &[&str] = &["broker", "split", "collect", "cache"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_to_come_is_not_there_yet() {
        for word in NOT_YET {
            assert!(!COMMANDS.contains(word), "{word} is a command");
            assert!(find(word).is_none(), "{word} is a module");
        }
    }

    /// `check` compares the arguments of containers with it.
    #[test]
    fn every_command_of_a_pod_is_in_the_table() {
        for command in crate::pods::COMMANDS {
            assert!(COMMANDS.contains(&command.name), "{}", command.name);
        }
    }
}
