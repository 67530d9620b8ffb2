//! The surface of a module: everything that people type at it or read from it, declared in one place. `explain`, the
//! reference pages, the image labels, `check` and the contract test derive from it.

pub mod common;
pub mod diff;
pub mod json;
pub mod labels;
pub mod render;

#[cfg(test)]
mod tests;

use crate::params::Param;

/// The groups of `podkit --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Beside an application, to add to it.
    Sidecars,
    /// Between an application and the world it calls.
    Ambassadors,
    /// In front of an application's interfaces, to make them alike.
    Adapters,
    /// In front of applications.
    Serving,
    /// To put things around.
    TryingOut,
}

impl Group {
    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sidecars => "Sidecars",
            Self::Ambassadors => "Ambassadors",
            Self::Adapters => "Adapters",
            Self::Serving => "Serving",
            Self::TryingOut => "Trying out",
        }
    }
}

/// A module, as documented.
#[derive(Debug, Clone, Copy)]
pub struct ModuleSpec {
    /// What people type: `tls`.
    pub name: &'static str,
    /// Where `--help` lists it.
    pub group: Group,
    /// One line for `--help`.
    pub summary: &'static str,
    /// A paragraph or a few (Markdown) for the reference.
    pub about: &'static str,
    /// The port of `--admin` by default.
    pub admin_port: u16,
    /// Has a data path, and so `--workers`.
    pub data_path: bool,
    /// A file that says what it does, when there is one.
    pub config: Option<ConfigFile>,
    /// Its own parameters, in sets (a set may be shared with other modules).
    pub params: &'static [&'static [Param]],
    /// What it listens on besides `--admin`.
    pub ports: &'static [Port],
    /// What it answers besides the contract's endpoints.
    pub endpoints: &'static [Endpoint],
    /// Files it reads or writes.
    pub files: &'static [FileUse],
    /// What a feature needs of its surroundings.
    pub needs: &'static [Need],
    /// Its own metrics.
    pub metrics: &'static [Metric],
}

/// A file that says what a module does.
#[derive(Debug, Clone, Copy)]
pub struct ConfigFile {
    /// The parameter that names it; on the command line it may be given without its flag.
    pub param: &'static str,
    /// Its form, as JSON Schema.
    pub schema: fn() -> serde_json::Value,
}

/// A port a module listens on.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    /// The parameter that sets it: `listen`.
    pub param: &'static str,
    /// The default port, for EXPOSE.
    pub port: Option<u16>,
    /// What is spoken there: `HTTPS`.
    pub protocol: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

/// An endpoint of the admin server.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// Its path.
    pub path: &'static str,
    /// What it answers.
    pub doc: &'static str,
    /// Answers on the pod's own address too, not only on its loopback.
    pub open: bool,
}

/// A file a module reads or writes.
#[derive(Debug, Clone, Copy)]
pub struct FileUse {
    /// The parameter or path that names it.
    pub name: &'static str,
    /// What it is, and when it is read again.
    pub doc: &'static str,
}

/// What a feature needs of its surroundings.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// The feature.
    pub feature: &'static str,
    /// What it needs, in words.
    pub doc: &'static str,
    /// The same, for `check` to look at.
    pub kind: NeedKind,
}

/// What `check` can look for in a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedKind {
    /// `shareProcessNamespace: true`.
    SharedPid,
    /// The application's user id, or a capability (without `CAP_`).
    SameUserOr(&'static str),
    /// A capability (without `CAP_`).
    Capability(&'static str),
    /// A program beside it.
    Program(&'static str),
    /// Nothing that a manifest tells.
    Words,
}

/// A metric of a module's own.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, as the Prometheus format shows it.
    pub name: &'static str,
    /// counter, gauge, histogram or info.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub doc: &'static str,
}

/// How many rows there are in all sets.
pub const fn count<T>(sets: &[&[T]]) -> usize {
    let (mut sum, mut at) = (0, 0);
    while at < sets.len() {
        sum += sets[at].len();
        at += 1;
    }
    sum
}

/// One table of the rows of all sets, such as metrics or files; `N` is their [`count`].
pub const fn join<T: Copy, const N: usize>(sets: &[&[T]]) -> [T; N] {
    let mut all = [sets[0][0]; N];
    let (mut to, mut set) = (0, 0);
    while set < sets.len() {
        let mut at = 0;
        while at < sets[set].len() {
            all[to] = sets[set][at];
            at += 1;
            to += 1;
        }
        set += 1;
    }
    all
}
