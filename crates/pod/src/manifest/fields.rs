//! The one table that decides every field of a manifest: honoured, ignored, or refused.
//!
//! By the API's own type names, so that it reads like the API reference. A field that k8s-openapi knows and this table
//! doesn't fails a test (`tests::every_field_is_decided`): a new Kubernetes version can't slip a field past it.
//! Types that only occur below ignored or refused fields have no rows.

use super::node::{Node, Value};

/// What becomes of a field.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    /// Read, and done.
    Honoured,
    /// No meaning on one machine; the reason.
    Ignored(&'static str),
    /// Set by the API server in what `kubectl get -o yaml` prints: ignored without a look inside.
    ServerSet,
    /// Refused; the reason.
    Refused(&'static str),
    /// Refused for a reason, except for values that ask for what is done anyway.
    RefusedUnless(fn(&Node) -> bool, &'static str),
}

use Verdict::{Honoured, Ignored, Refused, RefusedUnless, ServerSet};

fn is_false(node: &Node) -> bool {
    matches!(node.value, Value::Bool(false, _))
}

fn is_true(node: &Node) -> bool {
    matches!(node.value, Value::Bool(true, _))
}

/// A profile that asks for no confinement, which is what there is.
fn unconfined(node: &Node) -> bool {
    node.get("type").and_then(Node::as_str) == Some("Unconfined")
}

const SCHEDULING: &str = "nothing is scheduled on one machine";
const NO_API: &str = "there is no API server to talk to";
const ALPHA_OWNER: &str = "alpha in Kubernetes; files of such volumes belong to root";
const NOT_ISSUED: &str = "issued by a cluster's signers; there is no API server to ask";
const JOB_RULES: &str = "the pods of a Job are counted by backoffLimit alone in this version";
const ONE_DIRECTORY: &str = "a claim is a directory of this machine, whatever is asked for";
const APPARMOR: &str = "no AppArmor profiles are loaded for containers here";
const SELINUX: &str = "containers get no SELinux labels, as on a node without SELinux";
const OWN_PODS: &str = "a Job runs the pods that it made, and no others";
const CLUSTER_DATA: &str = "nothing here copies a cluster's volumes or snapshots";
const CLUSTER_STORAGE: &str =
    "a cluster's storage; mount it on this machine and use a hostPath volume";

/// What becomes of `field` of `kind`; `None` for types that aren't decided here.
pub(super) fn verdict(kind: &str, field: &str) -> Option<Verdict> {
    let (_, rows) = TYPES.iter().find(|(name, _)| *name == kind)?;
    rows.iter()
        .find(|(name, _)| *name == field)
        .map(|(_, verdict)| *verdict)
}

/// The type that has a field of this name, for fields that were written at the wrong level.
pub(super) fn owner(field: &str) -> Option<&'static str> {
    const LEVELS: [&str; 8] = [
        "Pod",
        "PodSpec",
        "Container",
        "SecurityContext",
        "PodSecurityContext",
        "ObjectMeta",
        "Probe",
        "VolumeMount",
    ];
    LEVELS
        .into_iter()
        .find(|kind| verdict(kind, field).is_some())
}

/// Type name → its fields.
pub(super) const TYPES: &[(&str, &[(&str, Verdict)])] = &[
    (
        "Pod",
        &[
            ("apiVersion", Honoured),
            ("kind", Honoured),
            ("metadata", Honoured),
            ("spec", Honoured),
            ("status", ServerSet),
        ],
    ),
    (
        "ConfigMap",
        &[
            ("apiVersion", Honoured),
            ("kind", Honoured),
            ("metadata", Honoured),
            ("data", Honoured),
            ("binaryData", Honoured),
            ("immutable", Honoured),
        ],
    ),
    (
        "Secret",
        &[
            ("apiVersion", Honoured),
            ("kind", Honoured),
            ("metadata", Honoured),
            ("data", Honoured),
            ("stringData", Honoured),
            ("immutable", Honoured),
            ("type", Honoured),
        ],
    ),
    (
        "ObjectMeta",
        &[
            ("name", Honoured),
            ("namespace", Honoured),
            ("labels", Honoured),
            ("annotations", Honoured),
            ("generateName", Honoured),
            ("creationTimestamp", ServerSet),
            ("deletionGracePeriodSeconds", ServerSet),
            ("deletionTimestamp", ServerSet),
            ("generation", ServerSet),
            ("managedFields", ServerSet),
            ("resourceVersion", ServerSet),
            ("selfLink", ServerSet),
            ("uid", ServerSet),
            (
                "finalizers",
                Ignored("there is no API server that deletes objects"),
            ),
            (
                "ownerReferences",
                Ignored("there is no API server that deletes objects"),
            ),
        ],
    ),
    (
        "PodSpec",
        &[
            ("activeDeadlineSeconds", Honoured),
            ("affinity", Ignored(SCHEDULING)),
            ("automountServiceAccountToken", Ignored(NO_API)),
            ("containers", Honoured),
            ("dnsConfig", Honoured),
            ("dnsPolicy", Honoured),
            (
                "enableServiceLinks",
                Ignored("there are no Services to make variables of"),
            ),
            (
                "ephemeralContainers",
                Refused("the API server takes these for running pods only; use `podkit exec`"),
            ),
            (
                "evictionResponders",
                Ignored("nothing is drained on one machine"),
            ),
            ("hostAliases", Honoured),
            ("hostIPC", Honoured),
            ("hostNetwork", Honoured),
            ("hostPID", Honoured),
            (
                "hostUsers",
                RefusedUnless(
                    is_true,
                    "a pod as root has the machine's users; run podkit as another user for a user namespace",
                ),
            ),
            ("hostname", Honoured),
            ("hostnameOverride", Honoured),
            ("imagePullSecrets", Honoured),
            ("initContainers", Honoured),
            ("nodeName", Ignored("this machine is the node")),
            ("nodeSelector", Ignored(SCHEDULING)),
            ("os", Honoured),
            ("overhead", Ignored(SCHEDULING)),
            ("preemptionPolicy", Ignored(SCHEDULING)),
            ("priority", Ignored(SCHEDULING)),
            ("priorityClassName", Ignored(SCHEDULING)),
            (
                "readinessGates",
                Refused("nothing here sets pod conditions, so the pod would never be ready"),
            ),
            (
                "resourceClaims",
                Refused("devices are handed out by a cluster's drivers"),
            ),
            ("resources", Honoured),
            ("restartPolicy", Honoured),
            (
                "runtimeClassName",
                Refused("asks for another runtime (a stronger isolation, perhaps) than there is"),
            ),
            ("schedulerName", Ignored(SCHEDULING)),
            (
                "schedulingGates",
                Refused("a gated pod doesn't start, and nothing here removes gates"),
            ),
            ("schedulingGroup", Ignored(SCHEDULING)),
            ("securityContext", Honoured),
            ("serviceAccount", Ignored(NO_API)),
            (
                "serviceAccountName",
                Ignored("there is no API server to talk to; only a fieldRef reads it"),
            ),
            ("setHostnameAsFQDN", Honoured),
            ("shareProcessNamespace", Honoured),
            ("subdomain", Honoured),
            ("terminationGracePeriodSeconds", Honoured),
            ("tolerations", Ignored(SCHEDULING)),
            ("topologySpreadConstraints", Ignored(SCHEDULING)),
            ("volumes", Honoured),
        ],
    ),
    (
        "PodSecurityContext",
        &[
            ("appArmorProfile", RefusedUnless(unconfined, APPARMOR)),
            ("fsGroup", Honoured),
            ("fsGroupChangePolicy", Honoured),
            ("runAsGroup", Honoured),
            ("runAsNonRoot", Honoured),
            ("runAsUser", Honoured),
            ("seLinuxChangePolicy", Ignored(SELINUX)),
            ("seLinuxOptions", Ignored(SELINUX)),
            ("seccompProfile", Honoured),
            ("supplementalGroups", Honoured),
            ("supplementalGroupsPolicy", Honoured),
            ("sysctls", Honoured),
            ("windowsOptions", Refused("this machine runs Linux")),
        ],
    ),
    (
        "Container",
        &[
            ("args", Honoured),
            ("command", Honoured),
            ("env", Honoured),
            ("envFrom", Honoured),
            ("image", Honoured),
            ("imagePullPolicy", Honoured),
            ("lifecycle", Honoured),
            ("livenessProbe", Honoured),
            ("name", Honoured),
            ("ports", Honoured),
            ("readinessProbe", Honoured),
            (
                "resizePolicy",
                Ignored("resources are not changed while a container runs"),
            ),
            ("resources", Honoured),
            ("restartPolicy", Honoured),
            ("restartPolicyRules", Honoured),
            ("securityContext", Honoured),
            ("startupProbe", Honoured),
            ("stdin", Honoured),
            ("stdinOnce", Honoured),
            ("terminationMessagePath", Honoured),
            ("terminationMessagePolicy", Honoured),
            ("tty", Honoured),
            ("volumeDevices", Refused(CLUSTER_STORAGE)),
            ("volumeMounts", Honoured),
            ("workingDir", Honoured),
        ],
    ),
    (
        "SecurityContext",
        &[
            ("allowPrivilegeEscalation", Honoured),
            ("appArmorProfile", RefusedUnless(unconfined, APPARMOR)),
            ("capabilities", Honoured),
            ("privileged", Honoured),
            ("procMount", Honoured),
            ("readOnlyRootFilesystem", Honoured),
            ("runAsGroup", Honoured),
            ("runAsNonRoot", Honoured),
            ("runAsUser", Honoured),
            ("seLinuxOptions", Ignored(SELINUX)),
            ("seccompProfile", Honoured),
            ("windowsOptions", Refused("this machine runs Linux")),
        ],
    ),
    ("Capabilities", &[("add", Honoured), ("drop", Honoured)]),
    (
        "SeccompProfile",
        &[("localhostProfile", Honoured), ("type", Honoured)],
    ),
    ("PodOS", &[("name", Honoured)]),
    ("Sysctl", &[("name", Honoured), ("value", Honoured)]),
    ("HostAlias", &[("hostnames", Honoured), ("ip", Honoured)]),
    (
        "PodDNSConfig",
        &[
            ("nameservers", Honoured),
            ("options", Honoured),
            ("searches", Honoured),
        ],
    ),
    (
        "PodDNSConfigOption",
        &[("name", Honoured), ("value", Honoured)],
    ),
    ("LocalObjectReference", &[("name", Honoured)]),
    (
        "ContainerRestartRule",
        &[("action", Honoured), ("exitCodes", Honoured)],
    ),
    (
        "ContainerRestartRuleOnExitCodes",
        &[("operator", Honoured), ("values", Honoured)],
    ),
    (
        "EnvVar",
        &[
            ("name", Honoured),
            ("value", Honoured),
            ("valueFrom", Honoured),
        ],
    ),
    (
        "EnvVarSource",
        &[
            ("configMapKeyRef", Honoured),
            ("fieldRef", Honoured),
            ("fileKeyRef", Honoured),
            ("resourceFieldRef", Honoured),
            ("secretKeyRef", Honoured),
        ],
    ),
    (
        "ConfigMapKeySelector",
        &[
            ("name", Honoured),
            ("key", Honoured),
            ("optional", Honoured),
        ],
    ),
    (
        "SecretKeySelector",
        &[
            ("name", Honoured),
            ("key", Honoured),
            ("optional", Honoured),
        ],
    ),
    (
        "FileKeySelector",
        &[
            ("key", Honoured),
            ("optional", Honoured),
            ("path", Honoured),
            ("volumeName", Honoured),
        ],
    ),
    (
        "ObjectFieldSelector",
        &[("apiVersion", Honoured), ("fieldPath", Honoured)],
    ),
    (
        "ResourceFieldSelector",
        &[
            ("containerName", Honoured),
            ("divisor", Honoured),
            ("resource", Honoured),
        ],
    ),
    (
        "EnvFromSource",
        &[
            ("configMapRef", Honoured),
            ("prefix", Honoured),
            ("secretRef", Honoured),
        ],
    ),
    (
        "ConfigMapEnvSource",
        &[("name", Honoured), ("optional", Honoured)],
    ),
    (
        "SecretEnvSource",
        &[("name", Honoured), ("optional", Honoured)],
    ),
    (
        "ResourceRequirements",
        &[
            (
                "claims",
                Refused("devices are handed out by a cluster's drivers"),
            ),
            ("limits", Honoured),
            ("requests", Honoured),
        ],
    ),
    (
        "ContainerPort",
        &[
            ("containerPort", Honoured),
            ("hostIP", Honoured),
            ("hostPort", Honoured),
            ("name", Honoured),
            ("protocol", Honoured),
        ],
    ),
    (
        "Probe",
        &[
            ("exec", Honoured),
            ("failureThreshold", Honoured),
            ("grpc", Honoured),
            ("httpGet", Honoured),
            ("initialDelaySeconds", Honoured),
            ("periodSeconds", Honoured),
            ("successThreshold", Honoured),
            ("tcpSocket", Honoured),
            ("terminationGracePeriodSeconds", Honoured),
            ("timeoutSeconds", Honoured),
        ],
    ),
    ("ExecAction", &[("command", Honoured)]),
    (
        "HTTPGetAction",
        &[
            ("host", Honoured),
            ("httpHeaders", Honoured),
            ("path", Honoured),
            ("port", Honoured),
            (
                "protocol",
                RefusedUnless(
                    |n| matches!(n.as_str(), Some("HTTP1" | "HTTP/1.1")),
                    "probes speak HTTP/1.1 (the field is alpha in Kubernetes)",
                ),
            ),
            ("scheme", Honoured),
        ],
    ),
    ("HTTPHeader", &[("name", Honoured), ("value", Honoured)]),
    (
        "GRPCAction",
        &[
            ("mode", Honoured),
            ("port", Honoured),
            ("service", Honoured),
        ],
    ),
    ("TCPSocketAction", &[("host", Honoured), ("port", Honoured)]),
    ("SleepAction", &[("seconds", Honoured)]),
    (
        "Lifecycle",
        &[
            ("postStart", Honoured),
            ("preStop", Honoured),
            ("stopSignal", Honoured),
        ],
    ),
    (
        "LifecycleHandler",
        &[
            ("exec", Honoured),
            ("httpGet", Honoured),
            ("sleep", Honoured),
            (
                "tcpSocket",
                Refused("deprecated, and Kubernetes fails such a hook when it runs"),
            ),
        ],
    ),
    (
        "VolumeMount",
        &[
            (
                "bindMountOptions",
                Refused("alpha in Kubernetes; volumes are mounted without noexec"),
            ),
            ("mountPath", Honoured),
            ("mountPropagation", Honoured),
            ("name", Honoured),
            ("readOnly", Honoured),
            ("recursiveReadOnly", Honoured),
            ("subPath", Honoured),
            ("subPathExpr", Honoured),
        ],
    ),
    (
        "Volume",
        &[
            ("name", Honoured),
            ("configMap", Honoured),
            ("downwardAPI", Honoured),
            ("emptyDir", Honoured),
            ("ephemeral", Honoured),
            ("hostPath", Honoured),
            ("image", Honoured),
            ("persistentVolumeClaim", Honoured),
            ("projected", Honoured),
            ("secret", Honoured),
            ("awsElasticBlockStore", Refused(CLUSTER_STORAGE)),
            ("azureDisk", Refused(CLUSTER_STORAGE)),
            ("azureFile", Refused(CLUSTER_STORAGE)),
            ("cephfs", Refused(CLUSTER_STORAGE)),
            ("cinder", Refused(CLUSTER_STORAGE)),
            ("csi", Refused(CLUSTER_STORAGE)),
            ("fc", Refused(CLUSTER_STORAGE)),
            ("flexVolume", Refused(CLUSTER_STORAGE)),
            ("flocker", Refused(CLUSTER_STORAGE)),
            ("gcePersistentDisk", Refused(CLUSTER_STORAGE)),
            (
                "gitRepo",
                Refused("deprecated and unsafe; use a git-sync sidecar with an emptyDir"),
            ),
            ("glusterfs", Refused(CLUSTER_STORAGE)),
            ("iscsi", Refused(CLUSTER_STORAGE)),
            ("nfs", Refused(CLUSTER_STORAGE)),
            ("photonPersistentDisk", Refused(CLUSTER_STORAGE)),
            ("portworxVolume", Refused(CLUSTER_STORAGE)),
            ("quobyte", Refused(CLUSTER_STORAGE)),
            ("rbd", Refused(CLUSTER_STORAGE)),
            ("scaleIO", Refused(CLUSTER_STORAGE)),
            ("storageos", Refused(CLUSTER_STORAGE)),
            ("vsphereVolume", Refused(CLUSTER_STORAGE)),
        ],
    ),
    (
        "ImageVolumeSource",
        &[("pullPolicy", Honoured), ("reference", Honoured)],
    ),
    (
        "ConfigMapVolumeSource",
        &[
            ("defaultMode", Honoured),
            ("defaultUser", Refused(ALPHA_OWNER)),
            ("items", Honoured),
            ("name", Honoured),
            ("optional", Honoured),
        ],
    ),
    (
        "SecretVolumeSource",
        &[
            ("defaultMode", Honoured),
            ("defaultUser", Refused(ALPHA_OWNER)),
            ("items", Honoured),
            ("optional", Honoured),
            ("secretName", Honoured),
        ],
    ),
    (
        "KeyToPath",
        &[
            ("key", Honoured),
            ("mode", Honoured),
            ("path", Honoured),
            ("user", Refused(ALPHA_OWNER)),
        ],
    ),
    (
        "EmptyDirVolumeSource",
        &[
            ("medium", Honoured),
            (
                "mode",
                Refused("alpha in Kubernetes; the directory is open to every user (0777)"),
            ),
            ("sizeLimit", Honoured),
        ],
    ),
    (
        "HostPathVolumeSource",
        &[("path", Honoured), ("type", Honoured)],
    ),
    (
        "ProjectedVolumeSource",
        &[
            ("defaultMode", Honoured),
            ("defaultUser", Refused(ALPHA_OWNER)),
            ("sources", Honoured),
        ],
    ),
    (
        "VolumeProjection",
        &[
            ("clusterTrustBundle", Refused(NOT_ISSUED)),
            ("configMap", Honoured),
            ("downwardAPI", Honoured),
            ("podCertificate", Refused(NOT_ISSUED)),
            ("secret", Honoured),
            (
                "serviceAccountToken",
                Ignored("there is no API server that would take a token: there is no such file"),
            ),
        ],
    ),
    (
        "ConfigMapProjection",
        &[
            ("items", Honoured),
            ("name", Honoured),
            ("optional", Honoured),
        ],
    ),
    (
        "SecretProjection",
        &[
            ("items", Honoured),
            ("name", Honoured),
            ("optional", Honoured),
        ],
    ),
    ("DownwardAPIProjection", &[("items", Honoured)]),
    (
        "DownwardAPIVolumeSource",
        &[
            ("defaultMode", Honoured),
            ("defaultUser", Refused(ALPHA_OWNER)),
            ("items", Honoured),
        ],
    ),
    (
        "DownwardAPIVolumeFile",
        &[
            ("fieldRef", Honoured),
            ("mode", Honoured),
            ("path", Honoured),
            ("resourceFieldRef", Honoured),
            ("user", Refused(ALPHA_OWNER)),
        ],
    ),
    (
        "PersistentVolumeClaimVolumeSource",
        &[("claimName", Honoured), ("readOnly", Honoured)],
    ),
    (
        "EphemeralVolumeSource",
        &[("volumeClaimTemplate", Honoured)],
    ),
    (
        "PersistentVolumeClaimTemplate",
        &[
            (
                "metadata",
                Ignored("the claim is a directory without an object of its own"),
            ),
            ("spec", Honoured),
        ],
    ),
    (
        "PersistentVolumeClaim",
        &[
            ("apiVersion", Honoured),
            ("kind", Honoured),
            ("metadata", Honoured),
            ("spec", Honoured),
            ("status", ServerSet),
        ],
    ),
    (
        "PersistentVolumeClaimSpec",
        &[
            ("accessModes", Honoured),
            ("dataSource", Refused(CLUSTER_DATA)),
            ("dataSourceRef", Refused(CLUSTER_DATA)),
            ("resources", Honoured),
            ("selector", Ignored(ONE_DIRECTORY)),
            ("storageClassName", Ignored(ONE_DIRECTORY)),
            ("volumeAttributesClassName", Ignored(ONE_DIRECTORY)),
            (
                "volumeMode",
                RefusedUnless(
                    |n| n.as_str() == Some("Filesystem"),
                    "a claim is a directory, not a block device",
                ),
            ),
            ("volumeName", Ignored(ONE_DIRECTORY)),
        ],
    ),
    (
        "VolumeResourceRequirements",
        &[
            (
                "limits",
                Ignored("the size of a directory is not limited; an emptyDir's sizeLimit is"),
            ),
            ("requests", Honoured),
        ],
    ),
    (
        "Job",
        &[
            ("apiVersion", Honoured),
            ("kind", Honoured),
            ("metadata", Honoured),
            ("spec", Honoured),
            ("status", ServerSet),
        ],
    ),
    (
        "JobSpec",
        &[
            ("activeDeadlineSeconds", Honoured),
            ("backoffLimit", Honoured),
            ("backoffLimitPerIndex", Refused(JOB_RULES)),
            ("completionMode", Honoured),
            ("completions", Honoured),
            (
                "managedBy",
                RefusedUnless(
                    |n| n.as_str() == Some("kubernetes.io/job-controller"),
                    "no other controller runs Jobs here",
                ),
            ),
            ("manualSelector", Ignored(OWN_PODS)),
            ("maxFailedIndexes", Refused(JOB_RULES)),
            ("parallelism", Honoured),
            ("podFailurePolicy", Refused(JOB_RULES)),
            (
                "podReplacementPolicy",
                Ignored("a pod is replaced when it has ended, as Failed asks for"),
            ),
            ("scheduling", Ignored(SCHEDULING)),
            ("selector", Ignored(OWN_PODS)),
            ("successPolicy", Refused(JOB_RULES)),
            (
                "suspend",
                RefusedUnless(
                    is_false,
                    "a suspended Job starts nothing, and nothing resumes it",
                ),
            ),
            ("template", Honoured),
            (
                "ttlSecondsAfterFinished",
                Ignored("nothing of a Job stays when it has finished"),
            ),
        ],
    ),
    (
        "PodTemplateSpec",
        &[("metadata", Honoured), ("spec", Honoured)],
    ),
];
