//! What a plan needs to know that no manifest says: the machine's facts, and the command line's choices.

use std::net::IpAddr;

use crate::manifest::NameSeed;

/// The machine, as one pod sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `metadata.uid`: made up for each start.
    pub uid: String,
    /// `spec.nodeName`: the machine's host name.
    pub node_name: String,
    /// `status.hostIP` is the first, `status.hostIPs` all.
    pub host_ips: Vec<IpAddr>,
    /// `status.podIP` is the first, `status.podIPs` all.
    pub pod_ips: Vec<IpAddr>,
    /// What the machine has, in thousandths of a core: the `limits.cpu` of a container without one.
    pub cpu_milli: u64,
    /// Its memory in bytes: the `limits.memory` of a container without one.
    pub memory_bytes: u64,
}

impl Facts {
    /// For `check`, where no pod will run: addresses for documentation (RFC 5737), one core, 1 GiB.
    pub fn placeholder() -> Self {
        Self {
            uid: "00000000-0000-0000-0000-000000000000".into(),
            node_name: "localhost".into(),
            host_ips: vec![IpAddr::from([192, 0, 2, 1])],
            pod_ips: vec![IpAddr::from([192, 0, 2, 2])],
            cpu_milli: 1000,
            memory_bytes: 1 << 30,
        }
    }
}

/// Who knows the facts of a pod. Asked once for each.
pub trait FactsFor {
    /// The facts of `namespace/name`.
    fn facts(&self, namespace: &str, name: &str) -> Facts;
}

/// The same for every pod.
impl FactsFor for Facts {
    fn facts(&self, _: &str, _: &str) -> Facts {
        self.clone()
    }
}

impl<F: Fn(&str, &str) -> Facts> FactsFor for F {
    fn facts(&self, namespace: &str, name: &str) -> Facts {
        self(namespace, name)
    }
}

/// What the command line chose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `--image CONTAINER=SOURCE`: container and source (`podkit`, `host`, `rootfs:DIR`, `oci:DIR`, …), the last one wins.
    pub images: Vec<(String, String)>,
    /// `--without CONTAINER`: left out.
    pub without: Vec<String>,
    /// `--allow-privileged`: writable host paths that would own the machine.
    pub allow_privileged: bool,
    /// Pods of the files' Jobs that are to be planned beside the others.
    pub job_pods: Vec<JobPod>,
    /// What the names of objects without one follow from.
    pub name_seed: NameSeed,
}

/// A pod of a Job, by the name that it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPod {
    /// The Job's namespace.
    pub namespace: String,
    /// The Job's name.
    pub job: String,
    /// The pod's: `JOB-SUFFIX`, or `JOB-INDEX-SUFFIX`.
    pub name: String,
    /// Its index in an Indexed Job.
    pub index: Option<u32>,
}

/// Where an option is to blame and no file.
pub(super) const IMAGE_OPTION: &str = "--image";
pub(super) const WITHOUT_OPTION: &str = "--without";
