//! The `resources` of a container, or of the pod, written into its groups, field by field, and what is said of those that can't be.

use std::path::Path;

use super::detect::{Layout, Version};
use super::limits;
use super::tree::write;
use crate::plan::Resources;

/// What a container (or the pod) asks for, and what came of it: the fields that were refused, with the reason.
pub(super) struct Wishes<'a> {
    /// None: the pod.
    container: Option<&'a str>,
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
    pub(super) fn new(container: &'a str, resources: &'a Resources, weighed: bool) -> Self {
        Self {
            container: Some(container),
            resources,
            weighed,
            failed: Vec::new(),
            cpu_seen: false,
            memory_seen: false,
        }
    }

    /// Those of the pod itself, for all its containers together.
    pub(super) fn of_pod(resources: &'a Resources) -> Self {
        Self {
            container: None,
            ..Self::new("", resources, resources.cpu_request_milli.is_some())
        }
    }

    pub(super) fn cpu(&self) -> bool {
        self.weighed || self.resources.cpu_limit_milli.is_some()
    }

    pub(super) fn memory(&self) -> bool {
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

    pub(super) fn refused(&mut self, controller: &str, why: &str) {
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

    pub(super) fn set_cpu(&mut self, dir: &Path, version: Version) {
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

    pub(super) fn set_memory(&mut self, dir: &Path, version: Version) {
        self.memory_seen = true;
        // A container is killed as one, limit or not (Kubernetes: singleProcessOOMKill is false on v2); a pod never.
        let group = match version {
            Version::V2 if self.container.is_some() => write(dir, "memory.oom.group", "1"),
            _ => Ok(()),
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
    pub(super) fn unmet(mut self, layout: &Layout) -> Vec<String> {
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
        let whose = match self.container {
            Some(name) => format!("container {name}"),
            None => "the pod".to_owned(),
        };
        self.failed
            .into_iter()
            .map(|(field, why)| format!("{field} of {whose}: not enforced: {why}"))
            .collect()
    }
}

pub(super) fn set_cpu_weight(
    dir: &Path,
    version: Version,
    request_milli: u64,
) -> Result<(), String> {
    let shares = limits::shares(request_milli);
    match version {
        Version::V1 => write(dir, "cpu.shares", &shares.to_string()),
        Version::V2 => write(dir, "cpu.weight", &limits::weight(shares).to_string()),
    }
}
