//! Which container a process belongs to.
//!
//! A pod whose containers share a PID namespace looks like one heap of processes. Two sources tell them apart:
//!
//! 1. **The runner's pod state** (`pod.json`): the container's name and its first process. Whoever descends from
//!    that process belongs to it; this is remembered, so that an orphan which the pod's first process adopts
//!    stays with its container.
//! 2. **The cgroup path**, where every engine leaves the container's name or id, in a form of its own. Seen from
//!    inside a cgroup namespace the path is relative to our own: `/../app` is a sibling, `/` is us.
//!
//! Asking an engine's socket for names was rejected: it would hand this sidecar the machine.

use serde::Deserialize;

/// What processes of the pod are called that no container claims, such as its pausing first process.
pub(crate) const POD: &str = "(pod)";

/// What the kernel's own threads are called, where topz looks at a whole machine.
pub(crate) const KERNEL: &str = "(kernel)";

/// What our own container is called when nothing says its name.
pub(crate) const OWN: &str = "(this container)";

/// The order in which containers are listed: by name, those that are none last.
pub(crate) fn rank(name: &str) -> (bool, &str) {
    (name.starts_with('('), name)
}

/// The file that the pod's runner keeps: who is in the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PodState {
    /// The pod's name.
    pub(crate) pod: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its containers.
    pub(crate) containers: Vec<ContainerState>,
}

/// One container, as the runner knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerState {
    /// Its name in the pod's file.
    pub(crate) name: String,
    /// Its first process, as the pod's PID namespace numbers it; 0 or absent when none runs.
    pub(crate) pid: u32,
    /// How often it was restarted.
    pub(crate) restarts: u32,
    /// When it was started, RFC 3339.
    pub(crate) started: String,
}

impl PodState {
    /// Reads the file's text. Unknown fields are the future's and pass; an error is one line.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map_err(|error| format!("not the runner's pod state: {error}"))
    }
}

/// The container's name by `/proc/PID/cgroup`, whose lines are `id:controllers:path`, or None when no path
/// names one. `in_namespace`: topz is in a cgroup namespace of its own, so that `/` is where it is itself.
pub(crate) fn by_cgroup(text: &[u8], in_namespace: bool) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    // The kernel marks a cgroup that was removed under a process that lives on.
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut paths = paths.map(|path| path.trim_end_matches(" (deleted)"));
    let bare = in_namespace && paths.clone().count() > 0 && paths.clone().all(|path| path == "/");
    paths
        .find_map(name_in_path)
        .or_else(|| bare.then(|| OWN.to_owned()))
}

/// The container's name in one cgroup path, or None.
fn name_in_path(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    // podkit's runner: …/podkit/POD/CONTAINER[/…].
    if let Some(at) = parts.iter().position(|part| *part == "podkit")
        && let Some(name) = parts.get(at + 2)
    {
        return Some((*name).to_owned());
    }
    // A container may have cgroups of its own below (systemd inside): the outermost id is the container.
    if let Some(id) = parts.iter().find_map(|part| engine_id(part)) {
        return Some(id);
    }
    let above = parts.iter().take_while(|part| **part == "..").count();
    if above > 0 {
        return parts.get(above).map(|name| (*name).to_owned());
    }
    // A machine without containers: systemd's units are what people call things there.
    parts
        .iter()
        .rev()
        .find(|part| part.ends_with(".service"))
        .map(|unit| (*unit).to_owned())
}

/// The short id (12 digits) in one path component that an engine made: `docker-ID.scope`,
/// `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`, or the bare ID.
fn engine_id(part: &str) -> Option<String> {
    let bare = part.strip_suffix(".scope").unwrap_or(part);
    // systemd driver of containerd without a cgroup driver prefix: kubepods-…:cri-containerd:ID.
    let id = bare.rsplit([':', '-']).next()?;
    let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    (is_id && !bare.contains("conmon")).then(|| id[..12].to_owned())
}

/// The names of the containers seen, numbered. Bounded: past the bound they all go by one name, and a number is
/// used again when neither a process nor the history speaks of it any more.
#[derive(Debug)]
pub(crate) struct Names {
    entries: Vec<Entry>,
    limit: usize,
}

/// One container that was seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// How many processes in memory are in it, those that ended included; at 0 the entry may be given away.
    pub(crate) processes: u32,
    /// CPU time its processes have spent, in clock ticks: all that those had spent which were there at the
    /// first look, and all since, children that came and went between two looks included. Never falls.
    pub(crate) ticks: u64,
}

impl Names {
    /// The number of the entry that stands for all containers past the bound.
    const OTHER: u16 = 0;

    pub(crate) fn new(limit: usize) -> Self {
        let other = Entry {
            name: "(other)".to_owned(),
            processes: 1,
            ..Entry::default()
        };
        Self {
            entries: vec![other],
            limit: limit.clamp(2, usize::from(u16::MAX)),
        }
    }

    /// The number that this name goes by, held once more.
    pub(crate) fn hold(&mut self, name: &str) -> u16 {
        let name = super::mask::cut(name.to_owned(), 128);
        let mut places = self.entries.iter();
        let at = match places.position(|entry| entry.processes > 0 && entry.name == name) {
            Some(at) => at,
            None => self.place(name),
        };
        self.entries[at].processes += 1;
        at as u16
    }

    /// A place for a new name: one that nobody holds any more, a fresh one, or at the bound everybody else's.
    fn place(&mut self, name: String) -> usize {
        let fresh = Entry {
            name,
            ..Entry::default()
        };
        if let Some(at) = self.entries.iter().position(|entry| entry.processes == 0) {
            self.entries[at] = fresh;
            return at;
        }
        if self.entries.len() >= self.limit {
            return usize::from(Self::OTHER);
        }
        self.entries.push(fresh);
        self.entries.len() - 1
    }

    /// Holds a number once more that is held already.
    pub(crate) fn hold_again(&mut self, number: u16) -> u16 {
        self.get_mut(number).processes += 1;
        number
    }

    /// Gives a held number back.
    pub(crate) fn release(&mut self, number: u16) {
        let entry = self.get_mut(number);
        entry.processes = entry.processes.saturating_sub(1);
    }

    pub(crate) fn get(&self, number: u16) -> &Entry {
        &self.entries[usize::from(number).min(self.entries.len() - 1)]
    }

    pub(crate) fn get_mut(&mut self, number: u16) -> &mut Entry {
        let last = self.entries.len() - 1;
        &mut self.entries[usize::from(number).min(last)]
    }

    /// The containers in memory with the CPU time that each has spent, in clock ticks.
    pub(crate) fn ticks(&self) -> Vec<(&str, u64)> {
        let held = self.entries.iter().filter(|entry| entry.processes > 0);
        held.map(|entry| (entry.name.as_str(), entry.ticks))
            .collect()
    }
}
