//! Whole pods: defaults, ports, volumes, security.

use std::time::Duration;

use super::{DATA, container, errors, good, plan};
use crate::plan::{Action, HostPathType, Options, Protocol, RestartPolicy, Role, VolumeKind};

#[test]
fn defaults() {
    let plan = good(&container(
        "args: [echo]\nlivenessProbe: {httpGet: {port: 80}}",
        "",
    ));
    assert_eq!(
        (
            plan.name.as_str(),
            plan.namespace.as_str(),
            plan.hostname.as_str()
        ),
        ("p", "default", "p")
    );
    assert_eq!(
        (plan.grace, plan.restart_policy),
        (Duration::from_secs(30), RestartPolicy::Always)
    );
    assert!(!plan.share_process_namespace);
    let probe = plan.containers[0].liveness.as_ref().unwrap();
    assert_eq!(
        probe.action,
        Action::Http {
            tls: false,
            host: None,
            port: 80,
            path: "/".into(),
            headers: vec![]
        }
    );
    let seconds = Duration::from_secs;
    assert_eq!(
        (probe.initial_delay, probe.period, probe.timeout),
        (seconds(0), seconds(10), seconds(1))
    );
    assert_eq!(
        (
            probe.success_threshold,
            probe.failure_threshold,
            probe.grace
        ),
        (1, 3, None)
    );
    let security = &plan.containers[0].security;
    assert_eq!((security.uid, security.no_new_privileges), (None, false));
}

#[test]
fn a_long_name_is_cut_for_the_host() {
    let name = format!("{}-{}", "a".repeat(62), "b".repeat(40));
    let plan = good(&container("args: [echo]", "").replace("name: p,", &format!("name: {name},")));
    assert_eq!(plan.hostname, "a".repeat(62));
}

#[test]
fn the_whole_of_a_pod() {
    let text = crate::manifest::FULL_POD;
    let plan = good(text);
    let roles: Vec<_> = plan
        .containers
        .iter()
        .map(|c| (c.name.as_str(), c.role))
        .collect();
    assert_eq!(
        roles,
        [
            ("init", Role::Init),
            ("side", Role::Sidecar),
            ("app", Role::Main)
        ]
    );
    assert_eq!(
        (plan.hostname.as_str(), plan.restart_policy, plan.grace),
        ("web", RestartPolicy::OnFailure, Duration::from_secs(7))
    );
    let app = &plan.containers[2];
    assert_eq!(app.args, ["echo", "--listen", ":8080"]);
    assert_eq!(app.security.uid, Some(1000));
    assert!(app.security.no_new_privileges && app.security.read_only_root);
    assert_eq!(app.resources.cpu_limit_milli, Some(500));
    assert_eq!(app.resources.cpu_request_milli, Some(100));
    assert_eq!(app.resources.memory_request_bytes, Some(1_000_000));
    assert_eq!(app.ports[1].protocol, Protocol::Udp);
    assert_eq!(app.ports[0].host_port, Some(80));
    let readiness = app.readiness.as_ref().unwrap();
    assert_eq!(
        readiness.action,
        Action::Tcp {
            host: None,
            port: 8080
        }
    );
    assert_eq!(
        (readiness.success_threshold, readiness.failure_threshold),
        (4, 5)
    );
    let names: Vec<_> = app.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        names,
        [
            "C_a=x",
            "k=hi",
            "l=text",
            "LISTEN=:8080",
            "A=x",
            "S=hi",
            "NAME=full",
            "M=64"
        ]
        .map(str::to_owned)
    );
    assert_eq!(plan.volumes.len(), 5);
    assert_eq!(
        plan.volumes[0].kind,
        VolumeKind::EmptyDir { limit_bytes: None }
    );
    assert_eq!(
        plan.volumes[1].kind,
        VolumeKind::Memory {
            limit_bytes: Some(64 << 20)
        }
    );
    let VolumeKind::HostPath { expect, .. } = plan.volumes[2].kind else {
        panic!()
    };
    assert_eq!(expect, HostPathType::DirectoryOrCreate);
    let VolumeKind::Files {
        files,
        secret: false,
    } = &plan.volumes[3].kind
    else {
        panic!()
    };
    assert_eq!(
        (
            files["sub/a"].bytes.as_slice(),
            files["sub/a"].mode,
            files.len()
        ),
        (&b"x"[..], 256, 1)
    );
    let VolumeKind::Files {
        files,
        secret: true,
    } = &plan.volumes[4].kind
    else {
        panic!()
    };
    assert_eq!(
        (files["k"].bytes.as_slice(), files["k"].mode, files.len()),
        (&b"hi"[..], 0o400, 2)
    );
}

#[test]
fn named_ports() {
    let text = container(
        "args: [echo]\nports: [{name: http, containerPort: 1}, {name: dns, containerPort: 53, protocol: UDP}]\nreadinessProbe: {tcpSocket: {port: htp}}\nlivenessProbe: {tcpSocket: {port: dns}}",
        "",
    );
    assert_eq!(
        errors(&text, &Options::default()),
        [
            "10:40: spec.containers[0].readinessProbe.tcpSocket.port: the container has no port named \"htp\"; did you mean http?",
            "11:39: spec.containers[0].livenessProbe.tcpSocket.port: the port \"dns\" is not a TCP port",
        ]
    );
}

#[test]
fn run_as_non_root() {
    let only = |lines: &str| {
        errors(
            &container(&format!("args: [echo]\nsecurityContext: {lines}"), ""),
            &Options::default(),
        )
        .join("\n")
    };
    assert_eq!(
        only("{runAsNonRoot: true}"),
        "9:37: spec.containers[0].securityContext.runAsNonRoot: runAsNonRoot is true, but no runAsUser says which user: it would be root"
    );
    assert!(
        only("{runAsNonRoot: true, runAsUser: 0}")
            .ends_with("runAsNonRoot is true, and runAsUser is 0: root")
    );
    assert_eq!(only("{runAsNonRoot: true, runAsUser: 1}"), "");
    let pod = |own: &str| {
        let spec = format!("  securityContext: {{runAsNonRoot: true, runAsUser: 5}}\n{DATA}");
        errors(
            &container(&format!("args: [echo]\nsecurityContext: {own}"), &spec),
            &Options::default(),
        )
        .join("\n")
    };
    assert_eq!(pod("{}"), "");
    assert_eq!(pod("{runAsNonRoot: false, runAsUser: 0}"), "");
    assert!(
        pod("{runAsUser: 0}").starts_with("6:5: spec.containers[0]: runAsNonRoot is true, and")
    );
}

#[test]
fn volumes_of_files() {
    let with = |volume: &str| {
        container(
            "args: [echo]",
            &format!("  volumes: [{{name: v, {volume}}}]\n{DATA}"),
        )
    };
    let files = |volume: &str| match good(&with(volume)).volumes.remove(0).kind {
        VolumeKind::Files { files, .. } => files,
        other => panic!("{other:?}"),
    };
    let all = files("configMap: {name: c}");
    assert_eq!(all.keys().collect::<Vec<_>>(), ["bin", "host", "port"]);
    assert_eq!(
        (all["bin"].bytes.as_slice(), all["bin"].mode),
        (&[0xff, 0][..], 0o644)
    );
    assert!(files("configMap: {name: none, optional: true}").is_empty());
    assert_eq!(files("configMap: {name: c, optional: true, items: [{key: none, path: a}, {key: host, path: ./b//c}]}").keys().collect::<Vec<_>>(), ["b/c"]);
    let only = |volume: &str| {
        errors(&with(volume), &Options::default())
            .join("\n")
            .replace("spec.volumes[0].", "")
    };
    assert!(
        only("configMap: {name: none}")
            .ends_with("configMap.name: there is no ConfigMap \"none\" in the files; give its file too, or say optional: true where it is referred to")
    );
    assert!(
        only("configMap: {name: c, items: [{key: hos, path: a}]}").ends_with(
            "configMap.items[0].key: the ConfigMap \"c\" has no key \"hos\"; did you mean host?"
        )
    );
    assert!(
        only("secret: {secretName: s, items: [{key: none, path: a}]}")
            .contains("the Secret \"s\" has no key \"none\"; it has pass, raw, user")
    );
    assert!(
        only("configMap: {name: c, items: [{key: host, path: a}, {key: port, path: a/b}]}")
            .ends_with("\"a/b\" and \"a\" are in each other's way")
    );
}

#[test]
fn without_leaves_a_container_out_with_what_only_it_wants() {
    let volumes = "  initContainers:\n  - {name: tls, image: nginx, restartPolicy: Always, volumeMounts: [{name: certs, mountPath: /c}]}\n\
                   \x20 volumes: [{name: certs, secret: {secretName: none}}]\n";
    let text = container("args: [echo]", volumes);
    assert_eq!(errors(&text, &Options::default()).len(), 1);
    let options = Options {
        without: vec!["tls".into()],
        ..Options::default()
    };
    let (plans, findings) = plan(&text, &options);
    assert!(!findings.has_errors(), "{findings}");
    assert_eq!(plans[0].containers.len(), 1);
    assert!(plans[0].volumes.is_empty());
}

#[test]
fn files_without_a_pod() {
    assert_eq!(
        errors(DATA.trim_start_matches("---\n"), &Options::default()),
        ["manifest: there is no Pod and no Job in the files: nothing to run"]
    );
}

#[test]
fn a_broken_config_map_is_not_missing() {
    let text = container(
        "envFrom: [{configMapRef: {name: c}}]",
        &DATA.replace("host: db", "host: 3"),
    );
    let (documents, findings) = crate::manifest::parse("f", text.as_bytes());
    assert!(findings.has_errors());
    let (_, findings) = crate::plan::build(&documents, &Options::default(), &super::facts());
    assert_eq!(
        findings.count(crate::manifest::Severity::Error),
        0,
        "{findings}"
    );
}
