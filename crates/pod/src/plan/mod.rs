//! A pod, resolved: everything the runner needs and nothing left to look up. Made by `plan::build` from a
//! checked manifest; the runner, the sandbox and the volumes read these types and never see YAML.

mod at_start;
mod build;
mod container;
mod defaults;
mod downward;
mod env;
mod expand;
mod facts;
mod host;
mod images;
mod job;
mod pod;
mod probes;
mod published;
mod resources;
mod security;
mod signals;
mod stored;
mod volumes;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::image::Location;
pub use crate::sandbox::Signal;
pub use at_start::{AtStart, AtStartError, FileKey, ValuePlan};
pub use build::build;
pub(crate) use build::{objects, one};
pub use defaults::{MESSAGE_PATH, of_pod_key, pod_key};
pub use facts::{Facts, FactsFor, JobPod, Options};
pub use job::{JobPlan, jobs, place_of};
pub use pod::CLUSTER_DOMAIN;
pub use signals::{image_stop_signal, stop_signal};

/// One pod to run. (Kubernetes API: v1 Pod.)
#[derive(Debug, Clone, PartialEq)]
pub struct PodPlan {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, `default` when absent.
    pub namespace: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec` as the API server would store it, without what `--without` left out: for those who ask for the Pod as an object.
    pub spec: serde_json::Value,
    /// What was known of the machine when the plan was made: its `uid`, addresses and node.
    pub facts: Facts,
    /// `spec.hostname`, or the pod's name (at most 63 bytes).
    pub hostname: String,
    /// `spec.subdomain`; with it the pod's full name is `hostname.subdomain.namespace.svc.cluster.local`.
    pub subdomain: Option<String>,
    /// `spec.setHostnameAsFQDN`.
    pub hostname_as_fqdn: bool,
    /// `spec.shareProcessNamespace`: one PID namespace for all containers.
    pub share_process_namespace: bool,
    /// `spec.hostNetwork`, `spec.hostPID`, `spec.hostIPC`.
    pub host: HostNamespaces,
    /// `spec.hostAliases`: lines of `/etc/hosts`.
    pub host_aliases: Vec<(IpAddr, Vec<String>)>,
    /// `spec.dnsPolicy` and `spec.dnsConfig`.
    pub dns: DnsPlan,
    /// The pod's `securityContext`, as far as it is not each container's.
    pub security: PodSecurity,
    /// `spec.imagePullSecrets`: the `.dockerconfigjson` (or `.dockercfg`) of each, as JSON text.
    pub pull_secrets: Vec<Vec<u8>>,
    /// `spec.activeDeadlineSeconds`: after that the pod fails with DeadlineExceeded.
    pub active_deadline: Option<Duration>,
    /// `spec.resources`: for all containers together.
    pub resources: Resources,
    /// `spec.restartPolicy`.
    pub restart_policy: RestartPolicy,
    /// `spec.terminationGracePeriodSeconds`, 30 s when absent.
    pub grace: Duration,
    /// `spec.volumes`.
    pub volumes: Vec<VolumePlan>,
    /// `spec.initContainers` (those with `restartPolicy: Always` are sidecars), then `spec.containers`, in the
    /// order of the file: the order in which they start.
    pub containers: Vec<ContainerPlan>,
}

/// Namespaces of the machine that the pod uses in place of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostNamespaces {
    /// `spec.hostNetwork`.
    pub network: bool,
    /// `spec.hostPID`.
    pub pid: bool,
    /// `spec.hostIPC`.
    pub ipc: bool,
}

/// What goes into `/etc/resolv.conf`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsPlan {
    /// `dnsPolicy` is not `None`: the machine's own servers, searches and options come first. (There is no cluster's DNS:
    /// ClusterFirst, ClusterFirstWithHostNet and Default mean the same here.)
    pub from_machine: bool,
    /// `dnsConfig.nameservers`.
    pub nameservers: Vec<IpAddr>,
    /// `dnsConfig.searches`.
    pub searches: Vec<String>,
    /// `dnsConfig.options`.
    pub options: Vec<(String, Option<String>)>,
}

/// `spec.securityContext`: what holds for the pod as a whole. What a container may override is in [`Security`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodSecurity {
    /// `fsGroup`: owns the volumes that support it, and is a supplementary group of every container.
    pub fs_group: Option<u32>,
    /// `fsGroupChangePolicy: OnRootMismatch`.
    pub fs_group_on_root_mismatch: bool,
    /// `supplementalGroups`.
    pub supplemental_groups: Vec<u32>,
    /// `supplementalGroupsPolicy: Strict`: the image's `/etc/group` adds none.
    pub groups_strict: bool,
    /// `sysctls`, namespaced ones only (checked).
    pub sysctls: Vec<(String, String)>,
}

/// `spec.restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// When the exit code is not 0.
    OnFailure,
    /// Never.
    Never,
}

/// What part a container plays in the order of start and stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the others, starts before and stops after them.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

/// One container. (Kubernetes API: v1 Container.)
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerPlan {
    /// `name`.
    pub name: String,
    /// Its part in the order.
    pub role: Role,
    /// `image` as written in the file, for people.
    pub image: String,
    /// Where the root file system comes from.
    pub source: ImageSource,
    /// `imagePullPolicy`; Always when absent and the tag is `latest` or none.
    pub pull: PullPolicy,
    /// `command`, with `$(VAR)` expanded. Empty: the image's entrypoint.
    pub command: Vec<String>,
    /// `args`, with `$(VAR)` expanded. Empty: the image's own when `command` is empty too.
    pub args: Vec<String>,
    /// `workingDir`.
    pub working_dir: Option<PathBuf>,
    /// `env` and `envFrom`, resolved and expanded, later names winning, in order.
    pub env: Vec<(String, String)>,
    /// Some variables are read out of files when it starts: what `command`, `args`, `env` and `mounts` are made of then. Here these
    /// are as they are without those variables.
    pub at_start: Option<Box<AtStart>>,
    /// `volumeMounts`, in order.
    pub mounts: Vec<MountPlan>,
    /// `ports`.
    pub ports: Vec<PortPlan>,
    /// `resources`.
    pub resources: Resources,
    /// `startupProbe`.
    pub startup: Option<ProbePlan>,
    /// `readinessProbe`.
    pub readiness: Option<ProbePlan>,
    /// `livenessProbe`.
    pub liveness: Option<ProbePlan>,
    /// `lifecycle.postStart`.
    pub post_start: Option<Action>,
    /// `lifecycle.preStop`.
    pub pre_stop: Option<Action>,
    /// `lifecycle.stopSignal` (over the image's).
    pub stop_signal: Option<Signal>,
    /// `terminationMessagePath`, `/dev/termination-log` when absent.
    pub message_path: PathBuf,
    /// `terminationMessagePolicy: FallbackToLogsOnError`.
    pub message_from_logs: bool,
    /// `stdin`, `stdinOnce`, `tty`.
    pub stdin: StdinPlan,
    /// `securityContext` of the container over the pod's.
    pub security: Security,
    /// `restartPolicy` of the container where it has its own (a sidecar's Always is its role); none: the pod's.
    pub restart: Option<RestartPolicy>,
    /// `restartPolicyRules`: the first that fits an exit code decides, whatever the policy says.
    pub restart_rules: Vec<RestartRule>,
}

/// One entry of `restartPolicyRules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartRule {
    /// `action` is RestartAllContainers, and not Restart.
    pub all: bool,
    /// `exitCodes.operator` is NotIn, and not In.
    pub not_in: bool,
    /// `exitCodes.values`.
    pub codes: Vec<u8>,
}

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry at every start.
    Always,
    /// Only when it is not in the store.
    IfNotPresent,
    /// It must be in the store.
    Never,
}

/// `stdin`, `stdinOnce` and `tty` of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StdinPlan {
    /// `stdin`: standard input stays open for `attach`.
    pub open: bool,
    /// `stdinOnce`: it closes after the first who attaches (of a terminal there is nothing to close).
    pub once: bool,
    /// `tty`: standard input, output and error are a terminal.
    pub tty: bool,
}

/// Where a container's root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// The running podkit binary, alone in its file system as `/podkit`.
    Itself,
    /// The machine's own programs, read-only.
    Host,
    /// A directory that is a root file system; read-only below a private writable layer.
    Rootfs(PathBuf),
    /// Layers with a configuration, out of the store or pulled into it.
    Image(Location),
}

/// `securityContext`, as far as it is honoured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// `runAsUser`.
    pub uid: Option<u32>,
    /// `runAsGroup`.
    pub gid: Option<u32>,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `allowPrivilegeEscalation: false`: no_new_privs.
    pub no_new_privileges: bool,
    /// `capabilities.add`, without `CAP_`, upper case; `ALL` is every one.
    pub add_capabilities: Vec<String>,
    /// `capabilities.drop`, likewise.
    pub drop_capabilities: Vec<String>,
    /// `runAsNonRoot`: refused at the start when the user turns out to be root.
    pub non_root: bool,
    /// `privileged`.
    pub privileged: bool,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
    /// `seccompProfile`.
    pub seccomp: Seccomp,
}

/// `seccompProfile`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seccomp {
    /// None, as the kubelet does when nothing is said.
    #[default]
    Unconfined,
    /// The container runtimes' default profile.
    RuntimeDefault,
    /// `localhostProfile`: a profile of the OCI runtime specification in JSON, below the seccomp directory of the state.
    Localhost(PathBuf),
}

/// `resources`. `None`: not limited. Requests become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// `limits.cpu` in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// `limits.memory` in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// `requests.cpu` in thousandths of a core (the limit when absent, as the API server defaults it).
    pub cpu_request_milli: Option<u64>,
    /// `requests.memory` in bytes (likewise).
    pub memory_request_bytes: Option<u64>,
    /// `limits.ephemeral-storage` in bytes: what the container may write to its root file system, logs and disk emptyDirs.
    pub ephemeral_limit_bytes: Option<u64>,
}

/// One volume.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumePlan {
    /// `name`.
    pub name: String,
    /// What it holds.
    pub kind: VolumeKind,
}

/// What a volume holds.
#[derive(Debug, Clone, PartialEq)]
pub enum VolumeKind {
    /// `emptyDir` on disk. Over its limit the pod is evicted, as the kubelet does.
    EmptyDir {
        /// `sizeLimit` in bytes.
        limit_bytes: Option<u64>,
    },
    /// `emptyDir` with `medium: Memory`: a tmpfs, whose size is the limit.
    Memory {
        /// `sizeLimit` in bytes.
        limit_bytes: Option<u64>,
    },
    /// `hostPath`.
    HostPath {
        /// `path`.
        path: PathBuf,
        /// `type`.
        expect: HostPathType,
    },
    /// `image`: the file system of an image, read-only. `fsGroup` changes nothing of it.
    Image {
        /// `reference` as written in the file, for people.
        image: String,
        /// Where it comes from.
        location: Location,
        /// `pullPolicy`; Always when absent and the tag is `latest` or none.
        pull: PullPolicy,
    },
    /// `persistentVolumeClaim`: a directory of the machine that outlives the pod, `claims/NAMESPACE/NAME` below the data
    /// directory.
    Claim {
        /// The pod's namespace.
        namespace: String,
        /// `claimName`.
        name: String,
        /// `readOnly`: for every mount.
        read_only: bool,
        /// `resources.requests.storage` of the claim, when it is in the files: what was asked for, not a limit.
        request_bytes: Option<u64>,
    },
    /// `configMap`, `secret`, `downwardAPI` or `projected`: files published behind the kubelet's `..data` link.
    Files {
        /// By relative path below the mount; no `..`, no leading slash (checked). When the file that defines them changes,
        /// [`crate::volume::Volumes::update`] publishes those of the new plan in one step.
        files: BTreeMap<String, FilePlan>,
        /// A secret lives in memory (tmpfs), as the kubelet keeps it.
        secret: bool,
    },
}

/// One file of a published volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlan {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// `items[].mode` or `defaultMode` (0644).
    pub mode: u32,
}

/// `hostPath.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPathType {
    /// `""`: no check.
    Unset,
    /// Made when absent, 0755.
    DirectoryOrCreate,
    /// Must exist.
    Directory,
    /// Made when absent, 0644; its directory must exist.
    FileOrCreate,
    /// Must exist.
    File,
    /// Must exist.
    Socket,
    /// Must exist.
    CharDevice,
    /// Must exist.
    BlockDevice,
}

/// One entry of `volumeMounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// The volume's name; it exists in [`PodPlan::volumes`].
    pub volume: String,
    /// `mountPath`, absolute.
    pub path: PathBuf,
    /// `subPath`, or `subPathExpr` expanded; relative, without `..`; resolved inside the volume so that links can't lead out.
    pub sub_path: Option<String>,
    /// `readOnly`.
    pub read_only: bool,
    /// `recursiveReadOnly`: mounts below it are read-only too, or (IfPossible) when the kernel can.
    pub recursive_read_only: bool,
    /// `mountPropagation`.
    pub propagation: Propagation,
}

/// `mountPropagation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Propagation {
    /// Later mounts are seen on neither side.
    #[default]
    None,
    /// The container sees the machine's later mounts.
    HostToContainer,
    /// And the machine the container's (privileged only).
    Bidirectional,
}

/// One entry of `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortPlan {
    /// `name`.
    pub name: Option<String>,
    /// `containerPort`.
    pub port: u16,
    /// `hostPort`: listens on all addresses (or `host_ip`) and dials the pod's own address.
    pub host_port: Option<u16>,
    /// `hostIP`.
    pub host_ip: Option<IpAddr>,
    /// `protocol`: TCP or UDP.
    pub protocol: Protocol,
}

/// `protocol` of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One probe with all its numbers. (Kubernetes API: v1 Probe.)
#[derive(Debug, Clone, PartialEq)]
pub struct ProbePlan {
    /// What is done.
    pub action: Action,
    /// `initialDelaySeconds`.
    pub initial_delay: Duration,
    /// `periodSeconds`.
    pub period: Duration,
    /// `timeoutSeconds`.
    pub timeout: Duration,
    /// `successThreshold`.
    pub success_threshold: u32,
    /// `failureThreshold`.
    pub failure_threshold: u32,
    /// `terminationGracePeriodSeconds` of the probe.
    pub grace: Option<Duration>,
}

/// What a probe or a hook does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `exec.command`, in the container.
    Exec(Vec<String>),
    /// `httpGet`: 200 to 399 is good.
    Http {
        /// `scheme: HTTPS`: TLS without verification, as the kubelet does.
        tls: bool,
        /// `host`; none: the pod's address.
        host: Option<String>,
        /// `port`, names resolved.
        port: u16,
        /// `path`, `/` when absent.
        path: String,
        /// `httpHeaders`.
        headers: Vec<(String, String)>,
    },
    /// `tcpSocket`: connects.
    Tcp {
        /// `host`; none: the pod's address.
        host: Option<String>,
        /// `port`, names resolved.
        port: u16,
    },
    /// `grpc` (probes only): `grpc.health.v1.Health/Check` on the pod's address.
    Grpc {
        /// `mode`: TLS, with any certificate.
        tls: bool,
        /// `port`, a number.
        port: u16,
        /// `service`; empty: the server as a whole.
        service: String,
    },
    /// `sleep` (hooks only).
    Sleep(Duration),
}
