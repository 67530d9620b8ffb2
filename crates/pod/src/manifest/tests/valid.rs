//! What is right is taken, with the API's meaning.

use super::good;

/// Every field that is honoured, once.
pub(crate) const FULL: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: full
  namespace: shop
  labels: {app: full, app.kubernetes.io/part-of: shop}
  annotations: {example.org/Note: "x y"}
spec:
  hostname: web
  restartPolicy: OnFailure
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 7
  securityContext: {runAsUser: 1000, runAsGroup: 1000, runAsNonRoot: true}
  volumes:
  - name: scratch
  - name: fast
    emptyDir: {medium: Memory, sizeLimit: 64Mi}
  - name: host
    hostPath: {path: /srv/data, type: DirectoryOrCreate}
  - name: config
    configMap: {name: c, defaultMode: 0640, optional: false, items: [{key: a, path: sub/a, mode: 256}]}
  - name: secret
    secret: {secretName: s, defaultMode: 256, optional: true}
  initContainers:
  - name: init
    image: podkit
    command: [/podkit, echo]
  - name: side
    image: podkit
    restartPolicy: Always
    args: [tls]
    startupProbe: {httpGet: {path: /livez, port: admin, scheme: HTTPS, httpHeaders: [{name: A, value: b}]}}
    ports: [{name: admin, containerPort: 9601}]
    lifecycle:
      postStart: {exec: {command: ["true"]}}
      preStop: {sleep: {seconds: 1}}
  containers:
  - name: app
    image: registry.example.org:5000/podkit:latest
    imagePullPolicy: IfNotPresent
    args: [echo, --listen, "$(LISTEN)"]
    workingDir: /tmp
    env:
    - {name: LISTEN, value: ":8080"}
    - {name: A, valueFrom: {configMapKeyRef: {name: c, key: a}}}
    - {name: S, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}
    - {name: NAME, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}}
    - {name: M, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    envFrom:
    - {prefix: C_, configMapRef: {name: c}}
    - secretRef: {name: s, optional: true}
    ports:
    - {name: http, containerPort: 8080, hostPort: 80, hostIP: 127.0.0.1, protocol: TCP}
    - {name: dns, containerPort: 53, protocol: UDP}
    readinessProbe: {tcpSocket: {port: http}, initialDelaySeconds: 1, periodSeconds: 2, timeoutSeconds: 3, successThreshold: 4, failureThreshold: 5}
    livenessProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: 3}
    resources: {limits: {cpu: 500m, memory: 64Mi}, requests: {cpu: 0.1, memory: 1e6}}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
    volumeMounts:
    - {name: scratch, mountPath: /scratch, subPath: a/b}
    - {name: config, mountPath: /etc/config, readOnly: true}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: shop}
immutable: true
data: {a: x}
binaryData: {b: aGk=}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: shop}
type: Opaque
data: {k: aGk=}
stringData: {l: text}
"#;

#[test]
fn everything_that_is_honoured() {
    let documents = good(FULL);
    let counts = (
        documents.pods.len(),
        documents.config_maps.len(),
        documents.secrets.len(),
    );
    assert_eq!(counts, (1, 1, 1));
    let pod = &documents.pods[0];
    let spec = pod.object.spec.as_ref().unwrap();
    assert_eq!(
        spec.containers[0]
            .resources
            .as_ref()
            .unwrap()
            .requests
            .as_ref()
            .unwrap()["cpu"]
            .0,
        "0.1"
    );
    let modes = spec.volumes.as_ref().unwrap()[3]
        .config_map
        .as_ref()
        .unwrap();
    assert_eq!(modes.default_mode, Some(0o640));
    assert_eq!(pod.source.file(), "f");
    assert!(documents.config_map("shop", "c").is_some());
    assert!(documents.config_map("default", "c").is_none());
}

#[test]
fn what_kubectl_prints_is_taken() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  creationTimestamp: null\n  name: p\n  uid: abc\n  managedFields:\n  - whatever: x\n\
                spec:\n  containers:\n  - image: podkit\n    name: p\n    resources: {}\n  dnsPolicy: ClusterFirst\n  restartPolicy: Always\nstatus:\n  phase: {}\n";
    good(text);
}

#[test]
fn the_sandbox_knows_every_capability_that_is_taken() {
    use crate::manifest::names::CAPABILITIES;
    let none = ["ALL".to_owned()];
    let bit = |name: &str| crate::sandbox::effective_set(&[name.to_owned()], &none).unwrap();
    let all: u64 = CAPABILITIES.iter().map(|name| bit(name)).sum();
    assert_eq!(all, crate::sandbox::effective_set(&none, &[]).unwrap());
}

#[test]
fn a_pod_and_a_job_may_leave_the_end_of_their_names_to_podkit() {
    let containers = "containers: [{name: app, image: podkit}]";
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{generateName: web-}}\nspec: {{{containers}}}\n"
    );
    let named = pod.replace("web-}", "x-, name: web}");
    let job = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{generateName: web-}}\nspec:\n  template:\n    metadata: {{generateName: x}}\n    \
         spec: {{restartPolicy: Never, {containers}}}\n"
    );
    let text = [pod.as_str(), &named, &job, &pod].join("---\n");
    let documents = good(&text);
    let names: Vec<_> = documents
        .pods
        .iter()
        .map(|pod| &pod.object.metadata)
        .chain([&documents.jobs[0].object.metadata])
        .map(|metadata| metadata.name.clone().unwrap())
        .collect();
    assert_eq!(names[1], "web");
    let made_up = [&names[0], &names[2], &names[3]];
    for (at, name) in made_up.iter().enumerate() {
        assert_eq!(name.len(), "web-12345".len(), "{names:?}");
        assert!(name.starts_with("web-") && !made_up[..at].contains(name));
    }
    let ignored = super::found(&text, crate::manifest::Severity::Ignored);
    assert_eq!(
        ignored,
        [
            "16:30: ignored: spec.template.metadata.generateName: the pods of a Job are named after the Job"
        ]
    );
}

#[test]
fn what_others_refer_to_may_have_a_made_up_name_and_is_then_not_used() {
    let of = |kind: &str, more: &str| {
        format!("apiVersion: v1\nkind: {kind}\nmetadata: {{generateName: x-}}\n{more}---\n")
    };
    let claim = "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
    let text = [
        of("ConfigMap", ""),
        of("ConfigMap", ""),
        of("Secret", ""),
        of("PersistentVolumeClaim", claim),
    ];
    let text = text.concat();
    good(&text);
    let ignored = super::found(&text, crate::manifest::Severity::Ignored);
    let expected = [3, 7, 11, 15].map(|line| {
        format!(
            "{line}:26: ignored: metadata.generateName: nothing in the files can refer to a name that is made up: this object is not used"
        )
    });
    assert_eq!(ignored, expected);
}
