//! Cgroups: what holds a container to its `resources`, tells its processes from the others', and ends them all.
//!
//! A container's group is `podkit/POD/CONTAINER`, in as few hierarchies as its resources need:
//!
//! ```text
//!   v2      /sys/fs/cgroup/OWN/podkit/POD/CONTAINER                          everything
//!   v1      /sys/fs/cgroup/{memory,cpu}/OWN/podkit/POD/CONTAINER             only where the pod sets a limit or request
//!           /sys/fs/cgroup/{pids,devices}/OWN/podkit/POD/CONTAINER           a bound on its tasks; devices without v2 only
//!   hybrid  /sys/fs/cgroup/unified/OWN/podkit/POD/CONTAINER and those of v1  identity, kill, CPU time on the v2 side
//!   none    nothing, and a warning for each field that is thus not enforced
//! ```
//!
//! Each hierarchy that a process joins costs a third of a millisecond, and the first of a batch waits for an RCU grace
//! period (13 ms measured): that is why v1 controllers that nothing asks for are left alone, and why the stage should join
//! them all in one go.
//!
//! No limit that can't be set stops a container from starting: it is reported, by the name of its field.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::plan::{PodPlan, Resources, Role};
use container::Group;
use detect::{Hierarchy, Layout, Version};
use tree::{is_at, kill_dir, lock_dir, make, remove_below, remove_tree, subtree};
use wishes::{Wishes, set_cpu_weight};

pub use container::{ContainerCgroup, Usage};

mod container;
mod detect;
mod devices;
mod limits;
#[cfg(test)]
mod tests;
mod tree;
mod wishes;

/// From the start of a supervisor to its first containers.
const WARM_FOR: Duration = Duration::from_millis(60);
/// Below what the kernel stays ready for.
const WARM_PAUSE: Duration = Duration::from_millis(5);
/// Pods of one name that run at a time, each in a state directory of its own.
const SAME_NAME_MAX: u32 = 8;

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

    /// Makes the kernel ready for processes to join groups: the first join after a quiet time waits for an RCU grace period (6
    /// to 15 ms measured), one within some 10 ms of another takes 0.3 ms. So a thread joins the group that this process is in
    /// already, again and again for the 60 ms in which the pod's volumes and sandbox are made; nobody waits for it.
    pub fn warm_up(&self) {
        let Some(own) = self.layout.own_procs.clone() else {
            return;
        };
        let spawned = std::thread::Builder::new()
            .name("cgroup-warm-up".to_string())
            .stack_size(64 * 1024)
            .spawn(move || {
                let begun = Instant::now();
                // A group that can't be written to is met again, and told, when a container needs it.
                while std::fs::write(&own, "0").is_ok() && begun.elapsed() < WARM_FOR {
                    std::thread::sleep(WARM_PAUSE);
                }
            });
        if let Err(error) = spawned {
            tracing::debug!(%error, "cgroups are not warmed up");
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

    /// The group of a pod, for as long as the value lives. What a dead supervisor of such a pod left is killed and
    /// removed first. While another one runs (a pod of the same name in another state directory) the group is `POD~2`:
    /// a group is held by a lock on its directory, which goes with the process.
    pub async fn pod(&self, plan: &PodPlan) -> PodCgroup {
        let (key, mut own) = (plan.key(), None);
        if let Some(first) = self.layout.usable.first() {
            for number in 1..=SAME_NAME_MAX {
                let relative = match number {
                    1 => Path::new("podkit").join(&key),
                    _ => Path::new("podkit").join(format!("{key}~{number}")),
                };
                if own.is_some() && !first.base.join(&relative).is_dir() {
                    continue;
                }
                match self.take(first, &relative).await {
                    Ok(Some(lock)) if own.is_none() => own = Some((relative, Some(lock))),
                    // It was only cleaned up, and is no more needed.
                    Ok(Some(_)) => drop(std::fs::remove_dir(first.base.join(&relative))),
                    Ok(None) => {}
                    Err(error) => {
                        // Each container says which of its fields are not enforced for that.
                        tracing::warn!(path = %first.base.join(&relative).display(), %error, "no cgroup for the pod");
                        own.get_or_insert((relative, None));
                    }
                }
            }
        }
        let (relative, lock) = own.unwrap_or_else(|| (Path::new("podkit").join(&key), None));
        let lasting = || plan.containers.iter().filter(|c| c.role != Role::Init);
        let request = |c: &crate::plan::ContainerPlan| c.resources.cpu_request_milli.unwrap_or(0);
        let together: u64 = lasting().map(request).sum();
        let cpu_request_milli = plan.containers.iter().map(request).fold(together, u64::max);
        PodCgroup {
            layout: self.layout.clone(),
            relative,
            weighed: cpu_request_milli > 0,
            cpu_request_milli,
            own: plan.resources,
            device_program: OnceLock::new(),
            lock,
        }
    }

    /// Locks the group's directory, made anew, after whatever was in it is gone; none while someone else has it.
    async fn take(&self, first: &Hierarchy, relative: &Path) -> io::Result<Option<OwnedFd>> {
        let dir = first.base.join(relative);
        let Some(lock) = lock_dir(&dir)? else {
            return Ok(None);
        };
        for hierarchy in &self.layout.usable {
            let stale = hierarchy.base.join(relative);
            if !stale.is_dir() {
                continue;
            }
            for group in subtree(&stale) {
                kill_dir(&group, hierarchy.version);
            }
            // The locked directory itself stays.
            let emptied = match stale == dir {
                true => remove_below(&stale).await,
                false => remove_tree(&stale).await,
            };
            if let Err(error) = emptied {
                tracing::warn!(path = %stale.display(), %error, "a stale cgroup could not be removed");
            }
        }
        Ok(Some(lock))
    }
}

/// The group of a pod, inside which its containers' groups are made.
#[derive(Debug)]
pub struct PodCgroup {
    layout: Layout,
    /// `podkit/POD`, or `podkit/POD~2` and so on.
    relative: PathBuf,
    /// Some container of the pod has a CPU request: then all are weighed, those without one as least.
    weighed: bool,
    /// Against other pods, where the pod has no request of its own: the sum of its containers', or its largest init container's.
    cpu_request_milli: u64,
    /// `resources` of the pod.
    own: Resources,
    /// What is attached to the containers' groups of version 2, once it was loaded; or why it can't be.
    device_program: OnceLock<Result<OwnedFd, String>>,
    /// Nobody else uses the group while this is open.
    lock: Option<OwnedFd>,
}

impl PodCgroup {
    /// Makes the group of a container and sets its limits, with a warning for each that could not be set. Called
    /// again for a container that restarts it only sets the limits; the counts go on.
    pub fn container(&self, name: &str, resources: &Resources) -> (ContainerCgroup, Vec<String>) {
        let mut made = ContainerCgroup::default();
        let mut wishes = Wishes::new(name, resources, self.weighed);
        let mut of_pod = Wishes::of_pod(&self.own);
        for hierarchy in &self.layout.usable {
            let wanted = hierarchy.version == Version::V2
                || hierarchy.has("cpu") && (wishes.cpu() || of_pod.cpu())
                || hierarchy.has("memory") && (wishes.memory() || of_pod.memory())
                || hierarchy.has("pids");
            if wanted {
                self.join(hierarchy, name, &mut made, [&mut wishes, &mut of_pod]);
            }
        }
        // One hierarchy at least, so that the container's processes can be told from the others'.
        if made.groups.is_empty() {
            let by_cost = |h: &&Hierarchy| (h.has("memory") || h.has("cpu"), h.controllers.clone());
            if let Some(hierarchy) = self.layout.usable.iter().min_by_key(by_cost) {
                self.join(hierarchy, name, &mut made, [&mut wishes, &mut of_pod]);
            }
        }
        let mut warnings = wishes.unmet(&self.layout);
        warnings.extend(of_pod.unmet(&self.layout));
        (made, warnings)
    }

    fn join(
        &self,
        hierarchy: &Hierarchy,
        name: &str,
        made: &mut ContainerCgroup,
        [wishes, of_pod]: [&mut Wishes<'_>; 2],
    ) {
        let relative = self.relative.join(name);
        let (dir, refused) = match make(hierarchy, &relative) {
            Ok(made) => made,
            Err(error) => {
                let why = format!("{}: {error}", hierarchy.base.join(&relative).display());
                for controller in &hierarchy.controllers {
                    wishes.refused(controller, &why);
                    of_pod.refused(controller, &why);
                }
                return;
            }
        };
        for (controller, why) in &refused {
            wishes.refused(controller, why);
            of_pod.refused(controller, why);
        }
        let pod = dir.parent();
        let has = |c: &str| hierarchy.has(c) && !refused.iter().any(|(r, _)| r == c);
        if has("cpu") {
            if let Some(pod) = pod.filter(|_| of_pod.cpu()) {
                of_pod.set_cpu(pod, hierarchy.version);
            }
            if self.weighed
                && self.own.cpu_request_milli.is_none()
                && let Some(pod) = pod
                && let Err(error) = set_cpu_weight(pod, hierarchy.version, self.cpu_request_milli)
            {
                wishes.refused("cpu", &error);
            }
            wishes.set_cpu(&dir, hierarchy.version);
        }
        if has("memory") {
            if let Some(pod) = pod.filter(|_| of_pod.memory()) {
                of_pod.set_memory(pod, hierarchy.version);
            }
            wishes.set_memory(&dir, hierarchy.version);
        }
        if has("pids") {
            self.bound_tasks(&dir);
        }
        made.groups.push(Group {
            memory: has("memory"),
            cpu_time: hierarchy.version == Version::V2 || has("cpuacct"),
            version: hierarchy.version,
            dir,
        });
    }

    /// Holds all tasks of the pod to half of what the machine can have, so that a fork bomb leaves the other half to those who
    /// end it. (The kubelet's `podPidsLimit` is off by default: there the node's own processes are kept apart.)
    fn bound_tasks(&self, container: &Path) {
        let Some(pod) = container.parent() else {
            return;
        };
        let most = limits::tasks_max(|file| {
            let text = std::fs::read_to_string(Path::new("/proc/sys/kernel").join(file));
            text.ok()?.trim().parse().ok()
        });
        if let Err(error) = tree::write(pod, "pids.max", &(most / 2).to_string()) {
            tracing::debug!(%error, "the pod's tasks are not bounded");
        }
    }

    /// Shuts all devices to a container but those that every one has. To be called before it starts. An error says why that
    /// is not possible here: then its mounts alone (`nodev`) keep it from them.
    pub fn guard_devices(&self, made: &mut ContainerCgroup, name: &str) -> Result<(), String> {
        let mut why = "no cgroup hierarchy can be used".to_owned();
        if let Some(group) = made.groups.iter().find(|g| g.version == Version::V2) {
            let program = || devices::load().map_err(|error| format!("loading a program: {error}"));
            let attached = match self.device_program.get_or_init(program) {
                Ok(program) => devices::guard_v2(&group.dir, program)
                    .map_err(|error| format!("attaching it to {}: {error}", group.dir.display())),
                Err(why) => Err(why.clone()),
            };
            match attached {
                Ok(()) => return Ok(()),
                Err(error) => why = error,
            }
        }
        let Some(hierarchy) = self.layout.usable.iter().find(|h| h.has("devices")) else {
            return Err(why);
        };
        let (dir, _) = make(hierarchy, &self.relative.join(name)).map_err(|e| e.to_string())?;
        devices::guard_v1(&dir)?;
        if !made.groups.iter().any(|group| group.dir == dir) {
            made.groups.push(Group {
                version: hierarchy.version,
                dir,
                memory: false,
                cpu_time: hierarchy.has("cpuacct"),
            });
        }
        Ok(())
    }

    /// Removes the pod's group and, when no other pod is left, podkit's. Processes that are still in it are an error
    /// after two seconds: kill them first.
    pub async fn remove(&self) -> io::Result<()> {
        let mut first = Ok(());
        for hierarchy in &self.layout.usable {
            let dir = hierarchy.base.join(&self.relative);
            if dir.is_dir()
                && let Err(error) = remove_tree(&dir).await
                && first.is_ok()
            {
                first = Err(error);
            }
            // Busy or not empty: another pod runs.
            let _shared = std::fs::remove_dir(hierarchy.base.join("podkit"));
        }
        first
    }
}

impl Drop for PodCgroup {
    /// A pod that was given up before its first container leaves no empty group behind. One that still has processes stays:
    /// it is the next one's to clean up.
    fn drop(&mut self) {
        let first = self.layout.usable.first().zip(self.lock.as_ref());
        if let Some((first, lock)) = first {
            let dir = first.base.join(&self.relative);
            if is_at(lock, &dir) && std::fs::remove_dir(&dir).is_ok() {
                let _shared = std::fs::remove_dir(first.base.join("podkit"));
            }
        }
    }
}
