//! Cgroups: what holds a container to its `resources`, tells its processes from the others', and ends them all.
//!
//! A container's group is `podkit/POD/CONTAINER`, in as few hierarchies as its resources need:
//!
//! ```text
//!   v2      /sys/fs/cgroup/OWN/podkit/POD/CONTAINER                          everything
//!   v1      /sys/fs/cgroup/{memory,cpu}/OWN/podkit/POD/CONTAINER             only where the pod sets a limit or request
//!   hybrid  /sys/fs/cgroup/unified/OWN/podkit/POD/CONTAINER and those of v1  identity, kill, CPU time on the v2 side
//!   none    nothing, and a warning for each field that is thus not enforced
//! ```
//!
//! Each hierarchy that a process joins costs a third of a millisecond, and the first of a batch waits for an RCU grace
//! period (13 ms measured): that is why v1 controllers that nothing asks for are left alone, and why the stage should join
//! them all in one go.
//!
//! No limit that can't be set stops a container from starting: it is reported, by the name of its field.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::plan::{PodPlan, Resources, Role};
use detect::{Hierarchy, Layout, Version, words};

mod detect;
mod limits;
#[cfg(test)]
mod tests;

/// How long the kernel is given to let go of a group whose processes were killed.
const REMOVE_MAX: Duration = Duration::from_secs(2);
const REMOVE_PAUSE: Duration = Duration::from_millis(2);
/// Looks at a v1 group in one [`ContainerCgroup::kill_all`]: a process that forks as fast as it can is met again.
const KILL_ROUNDS_MAX: usize = 64;
/// Depth of groups that a container made below its own, for removal.
const DEPTH_MAX: usize = 64;

/// The hierarchies of this machine that podkit may use.
#[derive(Debug, Clone)]
pub struct Cgroups {
    layout: Layout,
}

impl Cgroups {
    /// Looks at `/proc/self/mountinfo` and `/proc/self/cgroup`. Never fails: a machine without usable cgroups is a
    /// [`Cgroups`] that enforces nothing and says so.
    pub fn detect() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            layout: detect::detect(
                &read("/proc/self/mountinfo"),
                &read("/proc/self/cgroup"),
                Path::new("/"),
            ),
        }
    }

    /// `v1`, `v2`, `hybrid` or `none`: what can be used, for people.
    pub fn kind(&self) -> &'static str {
        let any = |version| self.layout.usable.iter().any(|h| h.version == version);
        match (any(Version::V1), any(Version::V2)) {
            (true, true) => "hybrid",
            (true, false) => "v1",
            (false, true) => "v2",
            (false, false) => "none",
        }
    }

    /// The group of a pod. What a dead supervisor of the same pod left in its place is killed and removed first; the
    /// caller holds the lock that makes sure that it is dead.
    pub async fn pod(&self, plan: &PodPlan) -> PodCgroup {
        let relative = PathBuf::from("podkit").join(&plan.name);
        for hierarchy in &self.layout.usable {
            let stale = hierarchy.base.join(&relative);
            if stale.is_dir() {
                for dir in subtree(&stale) {
                    kill_dir(&dir, hierarchy.version);
                }
                if let Err(error) = remove_tree(&stale).await {
                    tracing::warn!(path = %stale.display(), %error, "a stale cgroup could not be removed");
                }
            }
        }
        let lasting = || plan.containers.iter().filter(|c| c.role != Role::Init);
        let request = |c: &crate::plan::ContainerPlan| c.resources.cpu_request_milli.unwrap_or(0);
        let together: u64 = lasting().map(request).sum();
        let cpu_request_milli = plan.containers.iter().map(request).fold(together, u64::max);
        PodCgroup {
            layout: self.layout.clone(),
            relative,
            weighed: cpu_request_milli > 0,
            cpu_request_milli,
        }
    }
}

/// The group of a pod, inside which its containers' groups are made.
#[derive(Debug)]
pub struct PodCgroup {
    layout: Layout,
    /// `podkit/POD`.
    relative: PathBuf,
    /// Some container of the pod has a CPU request: then all are weighed, those without one as least.
    weighed: bool,
    /// The pod's own request against other pods': the sum of its containers', or its largest init container's.
    cpu_request_milli: u64,
}

impl PodCgroup {
    /// Makes the group of a container and sets its limits, with a warning for each that could not be set. Called
    /// again for a container that restarts it only sets the limits; the counts go on.
    pub fn container(&self, name: &str, resources: &Resources) -> (ContainerCgroup, Vec<String>) {
        let mut made = ContainerCgroup::default();
        let mut wishes = Wishes::new(name, resources, self.weighed);
        for hierarchy in &self.layout.usable {
            let wanted = hierarchy.version == Version::V2
                || hierarchy.has("cpu") && wishes.cpu()
                || hierarchy.has("memory") && wishes.memory();
            if wanted {
                self.join(hierarchy, name, &mut made, &mut wishes);
            }
        }
        // One hierarchy at least, so that the container's processes can be told from the others'.
        if made.groups.is_empty() {
            let by_cost = |h: &&Hierarchy| (h.has("memory") || h.has("cpu"), h.controllers.clone());
            if let Some(hierarchy) = self.layout.usable.iter().min_by_key(by_cost) {
                self.join(hierarchy, name, &mut made, &mut wishes);
            }
        }
        let warnings = wishes.unmet(&self.layout);
        (made, warnings)
    }

    fn join(
        &self,
        hierarchy: &Hierarchy,
        name: &str,
        made: &mut ContainerCgroup,
        wishes: &mut Wishes<'_>,
    ) {
        let relative = self.relative.join(name);
        let (dir, refused) = match make(hierarchy, &relative) {
            Ok(made) => made,
            Err(error) => {
                let why = format!("{}: {error}", hierarchy.base.join(&relative).display());
                for controller in &hierarchy.controllers {
                    wishes.refused(controller, &why);
                }
                return;
            }
        };
        for (controller, why) in &refused {
            wishes.refused(controller, why);
        }
        let has = |c: &str| hierarchy.has(c) && !refused.iter().any(|(r, _)| r == c);
        if has("cpu") {
            if self.weighed
                && let Some(pod) = dir.parent()
                && let Err(error) = set_cpu_weight(pod, hierarchy.version, self.cpu_request_milli)
            {
                wishes.refused("cpu", &error);
            }
            wishes.set_cpu(&dir, hierarchy.version);
        }
        if has("memory") {
            wishes.set_memory(&dir, hierarchy.version);
        }
        made.groups.push(Group {
            memory: has("memory"),
            cpu_time: hierarchy.version == Version::V2 || has("cpuacct"),
            version: hierarchy.version,
            dir,
        });
    }

    /// Removes the pod's group and, when no other pod is left, podkit's. Processes that are still in it are an error
    /// after two seconds: kill them first.
    pub async fn remove(&self) -> io::Result<()> {
        let mut first = Ok(());
        for hierarchy in &self.layout.usable {
            let dir = hierarchy.base.join(&self.relative);
            if !dir.is_dir() {
                continue;
            }
            if let Err(error) = remove_tree(&dir).await
                && first.is_ok()
            {
                first = Err(error);
            }
            if let Some(podkit) = dir.parent() {
                // Busy or not empty: another pod runs.
                let _shared = std::fs::remove_dir(podkit);
            }
        }
        first
    }
}

#[derive(Debug)]
struct Group {
    version: Version,
    dir: PathBuf,
    memory: bool,
    cpu_time: bool,
}

/// What a container has used since its group was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in µs; none when no hierarchy of the container counts it.
    pub cpu_usec: Option<u64>,
    /// Memory in bytes with its page cache; none when the container has no memory group (v1 without a limit).
    pub memory_bytes: Option<u64>,
}

/// The group of one container, in each hierarchy that it needs.
#[derive(Debug, Default)]
pub struct ContainerCgroup {
    groups: Vec<Group>,
}

impl ContainerCgroup {
    /// Files to which a process writes `0` to join, before it drops any privilege. None on a machine without cgroups.
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.groups
            .iter()
            .map(|g| g.dir.join("cgroup.procs"))
            .collect()
    }

    /// Directories of the group, for those who look for its processes.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.groups.iter().map(|g| g.dir.as_path())
    }

    /// Processes that the kernel has killed in this group because it was over its memory limit. It only grows: compare
    /// with the count from before the container started. 0 without a memory group.
    pub fn oom_kills(&self) -> u64 {
        let Some(group) = self.groups.iter().find(|g| g.memory) else {
            return 0;
        };
        let file = match group.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        keyed(&group.dir, file, "oom_kill").unwrap_or(0)
    }

    /// What the container uses.
    pub fn usage(&self) -> Usage {
        let cpu = |g: &Group| match g.version {
            Version::V2 => keyed(&g.dir, "cpu.stat", "usage_usec"),
            Version::V1 => number(&g.dir, "cpuacct.usage").map(|ns| ns / 1000),
        };
        let memory = |g: &Group| match g.version {
            Version::V2 => number(&g.dir, "memory.current"),
            Version::V1 => number(&g.dir, "memory.usage_in_bytes"),
        };
        let first = |which: fn(&Group) -> bool, read: &dyn Fn(&Group) -> Option<u64>| {
            self.groups.iter().filter(|g| which(g)).find_map(read)
        };
        Usage {
            cpu_usec: first(|g| g.cpu_time, &cpu),
            memory_bytes: first(|g| g.memory, &memory),
        }
    }

    /// SIGKILL to every process of the container, those it forks meanwhile included. It does not wait for their end.
    pub fn kill_all(&self) {
        // Any one hierarchy holds them all; on v2 the kernel does it in one step.
        let Some(group) = self.groups.first() else {
            return;
        };
        for dir in subtree(&group.dir) {
            if kill_dir(&dir, group.version) {
                break;
            }
        }
    }

    /// Whether a process is left. False without cgroups.
    pub fn populated(&self) -> bool {
        self.groups.first().is_some_and(|group| {
            subtree(&group.dir)
                .iter()
                .any(|dir| !words(dir, "cgroup.procs").is_empty())
        })
    }

    /// Removes the group; the kernel gets two seconds to let go of processes that were killed.
    pub async fn remove(&self) -> io::Result<()> {
        let mut first = Ok(());
        for group in &self.groups {
            if let Err(error) = remove_tree(&group.dir).await
                && first.is_ok()
            {
                first = Err(error);
            }
        }
        first
    }
}

/// What a container asks for, and what came of it: the fields that were refused, with the reason.
struct Wishes<'a> {
    container: &'a str,
    resources: &'a Resources,
    weighed: bool,
    /// Field, then why not.
    failed: Vec<(&'static str, String)>,
    /// By controller: it has been set, or an attempt has failed and is in `failed`.
    cpu_seen: bool,
    memory_seen: bool,
}

const LIMIT_CPU: &str = "resources.limits.cpu";
const REQUEST_CPU: &str = "resources.requests.cpu";
const LIMIT_MEMORY: &str = "resources.limits.memory";

impl<'a> Wishes<'a> {
    fn new(container: &'a str, resources: &'a Resources, weighed: bool) -> Self {
        Self {
            container,
            resources,
            weighed,
            failed: Vec::new(),
            cpu_seen: false,
            memory_seen: false,
        }
    }

    fn cpu(&self) -> bool {
        self.weighed || self.resources.cpu_limit_milli.is_some()
    }

    fn memory(&self) -> bool {
        // A memory request sets nothing: neither does the kubelet without its MemoryQoS feature.
        self.resources.memory_limit_bytes.is_some()
    }

    /// The fields of this container that a controller would enforce.
    fn fields(&self, controller: &str) -> Vec<&'static str> {
        let r = self.resources;
        match controller {
            "cpu" => {
                let limit = r.cpu_limit_milli.map(|_| LIMIT_CPU);
                // A request that only repeats the limit was most likely not written.
                let request = r
                    .cpu_request_milli
                    .filter(|_| r.cpu_request_milli != r.cpu_limit_milli)
                    .map(|_| REQUEST_CPU);
                limit.into_iter().chain(request).collect()
            }
            "memory" => r
                .memory_limit_bytes
                .map(|_| LIMIT_MEMORY)
                .into_iter()
                .collect(),
            _ => Vec::new(),
        }
    }

    fn refused(&mut self, controller: &str, why: &str) {
        match controller {
            "cpu" => self.cpu_seen = true,
            "memory" => self.memory_seen = true,
            _ => return,
        }
        for field in self.fields(controller) {
            self.fail(field, why.to_string());
        }
    }

    fn fail(&mut self, field: &'static str, why: String) {
        if !self.failed.iter().any(|(f, _)| *f == field) {
            self.failed.push((field, why));
        }
    }

    fn set_cpu(&mut self, dir: &Path, version: Version) {
        self.cpu_seen = true;
        if let Some(milli) = self.resources.cpu_limit_milli {
            let quota = limits::quota_us(milli);
            let set = match version {
                Version::V1 => write(dir, "cpu.cfs_period_us", &limits::PERIOD_US.to_string())
                    .and_then(|()| write(dir, "cpu.cfs_quota_us", &quota.to_string())),
                Version::V2 => write(dir, "cpu.max", &format!("{quota} {}", limits::PERIOD_US)),
            };
            if let Err(why) = set {
                self.fail(LIMIT_CPU, why);
            }
        }
        if self.weighed {
            let request = self.resources.cpu_request_milli.unwrap_or(0);
            if let Err(why) = set_cpu_weight(dir, version, request) {
                self.fail(REQUEST_CPU, why);
            }
        }
    }

    fn set_memory(&mut self, dir: &Path, version: Version) {
        self.memory_seen = true;
        // A container is killed as one, limit or not (Kubernetes: singleProcessOOMKill is false on v2).
        let group = match version {
            Version::V1 => Ok(()),
            Version::V2 => write(dir, "memory.oom.group", "1"),
        };
        let Some(bytes) = self.resources.memory_limit_bytes else {
            return;
        };
        let bytes = bytes.to_string();
        let (limit, swap, swap_value) = match version {
            // The sum of memory and swap is held to the limit: no swap (Kubernetes: NoSwap, the default).
            Version::V1 => (
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                bytes.as_str(),
            ),
            Version::V2 => ("memory.max", "memory.swap.max", "0"),
        };
        let mut set = write(dir, limit, &bytes);
        // A higher limit than the last start's: the sum may never be below the memory, so it goes first.
        if set.is_err() && version == Version::V1 && dir.join(swap).exists() {
            set = write(dir, swap, &bytes).and_then(|()| write(dir, limit, &bytes));
        }
        if let Err(why) = set {
            self.fail(LIMIT_MEMORY, why);
            return;
        }
        // Kernels without swap accounting have no such file, and then nothing to hold.
        if dir.join(swap).exists()
            && let Err(why) = write(dir, swap, swap_value)
        {
            self.fail(LIMIT_MEMORY, format!("swap is not limited: {why}"));
        }
        if let Err(why) = group {
            self.fail(LIMIT_MEMORY, format!("not killed as a unit: {why}"));
        }
    }

    /// One line for each field that is not enforced.
    fn unmet(mut self, layout: &Layout) -> Vec<String> {
        for (controller, seen) in [("cpu", self.cpu_seen), ("memory", self.memory_seen)] {
            if !seen {
                let why = layout
                    .obstacles
                    .iter()
                    .find(|(c, _)| c == controller)
                    .map(|(_, why)| why.clone())
                    .unwrap_or_else(|| match layout.mounted {
                        true => format!("this machine has no cgroup controller for {controller}"),
                        false => "no cgroup hierarchy is mounted".to_string(),
                    });
                self.refused(controller, &why);
            }
        }
        let container = self.container;
        self.failed
            .into_iter()
            .map(|(field, why)| format!("{field} of container {container}: not enforced: {why}"))
            .collect()
    }
}

fn set_cpu_weight(dir: &Path, version: Version, request_milli: u64) -> Result<(), String> {
    let shares = limits::shares(request_milli);
    match version {
        Version::V1 => write(dir, "cpu.shares", &shares.to_string()),
        Version::V2 => write(dir, "cpu.weight", &limits::weight(shares).to_string()),
    }
}

/// Makes `base/relative`, on v2 with the controllers handed down; those that could not be are returned with the reason.
/// Another supervisor may remove the shared parent at the same time, so a missing one is made again.
fn make(hierarchy: &Hierarchy, relative: &Path) -> io::Result<(PathBuf, Vec<(String, String)>)> {
    let mut tries = 0;
    loop {
        match try_make(hierarchy, relative) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 8 => tries += 1,
            other => return other,
        }
    }
}

fn try_make(
    hierarchy: &Hierarchy,
    relative: &Path,
) -> io::Result<(PathBuf, Vec<(String, String)>)> {
    let mut refused: Vec<(String, String)> = Vec::new();
    let mut dir = hierarchy.base.clone();
    for part in relative {
        if hierarchy.version == Version::V2 {
            let enabled = words(&dir, "cgroup.subtree_control");
            for controller in &hierarchy.controllers {
                let known = refused.iter().any(|(c, _)| c == controller);
                if known || enabled.contains(controller) {
                    continue;
                }
                // One at a time: one that is refused must not take the others with it.
                if let Err(why) = write(&dir, "cgroup.subtree_control", &format!("+{controller}")) {
                    refused.push((controller.clone(), why));
                }
            }
        }
        dir.push(part);
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok((dir, refused))
}

fn write(dir: &Path, file: &str, value: &str) -> Result<(), String> {
    let path = dir.join(file);
    std::fs::write(&path, value).map_err(|error| {
        if path.exists() {
            format!("writing {value} to {}: {error}", path.display())
        } else {
            format!("this kernel has no {file}")
        }
    })
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(dir.join(file))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The number after a key in a flat keyed file.
fn keyed(dir: &Path, file: &str, key: &str) -> Option<u64> {
    std::fs::read_to_string(dir.join(file))
        .ok()?
        .lines()
        .find_map(|line| {
            line.strip_prefix(key)?
                .strip_prefix(' ')?
                .trim()
                .parse()
                .ok()
        })
}

/// A group and those below it, which a container may have made; outermost first.
fn subtree(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![(dir.to_path_buf(), 0)];
    let mut next = 0;
    while next < found.len() {
        let (at, depth) = found[next].clone();
        next += 1;
        if depth >= DEPTH_MAX {
            continue;
        }
        for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.push((entry.path(), depth + 1));
            }
        }
    }
    found.into_iter().map(|(dir, _)| dir).collect()
}

/// Kills what is in one group; true when the kernel has taken those below it too.
fn kill_dir(dir: &Path, version: Version) -> bool {
    if version == Version::V2 && std::fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return true;
    }
    let mut killed: HashSet<i32> = HashSet::new();
    let members = || {
        words(dir, "cgroup.procs")
            .into_iter()
            .filter_map(|pid| pid.parse::<i32>().ok())
    };
    for _ in 0..KILL_ROUNDS_MAX {
        // Between the list and the signal a number may pass to a stranger: the descriptors are taken first, then only
        // those are used whose number is still in the group.
        let held: Vec<(i32, OwnedFd)> = members()
            .filter(|pid| !killed.contains(pid))
            .filter_map(|pid| {
                Some((
                    pid,
                    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?,
                ))
            })
            .collect();
        if held.is_empty() {
            break;
        }
        let still: HashSet<i32> = members().collect();
        for (pid, process) in held {
            if still.contains(&pid) {
                // One that is gone already is as good.
                let _gone = pidfd_send_signal(&process, Signal::KILL);
            }
            killed.insert(pid);
        }
    }
    false
}

/// Removes a group and those below it. EBUSY while processes are being reaped is waited out.
async fn remove_tree(dir: &Path) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + REMOVE_MAX;
    loop {
        let mut busy = None;
        for group in subtree(dir).iter().rev() {
            match std::fs::remove_dir(group) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => busy = Some((group.clone(), error)),
            }
        }
        let Some((group, error)) = busy else {
            return Ok(());
        };
        let waits = error.raw_os_error() == Some(Errno::BUSY.raw_os_error());
        if !waits || tokio::time::Instant::now() >= deadline {
            return Err(io::Error::new(
                error.kind(),
                format!("removing {}: {error}", group.display()),
            ));
        }
        tokio::time::sleep(REMOVE_PAUSE).await;
    }
}
