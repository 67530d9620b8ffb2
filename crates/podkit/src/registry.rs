//! The one table that names every module. Pattern crates never know each other; the binary knows them all.

use podkit_dataplane::module::Module;
use podkit_foundation::surface::ModuleSpec;

/// Every module, in the order in which `--help` lists them within a group.
pub(crate) static MODULES: &[&Module] = &[
    &podkit_sidecar::tls::MODULE,
    &podkit_sidecar::topz::MODULE,
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
];

/// The words of the command line that a later version will have: refused by name instead of as a typo.
pub(crate) const NOT_YET: &[&str] = &[
    "logs", "config", "git-sync", "agent", "shard", "redis", "broker", "split", "metrics",
    "collect", "health", "cache",
];
