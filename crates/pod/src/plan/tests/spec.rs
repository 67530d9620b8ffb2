//! The fields of a pod and its containers, one by one: what the plan has for each.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{container, errors, good, plan};
use crate::manifest::Severity;
use crate::plan::{
    Action, ContainerPlan, ImageSource, Options, PodPlan, Propagation, PullPolicy, RestartPolicy,
    Role, Seccomp, stop_signal,
};

fn spec(lines: &str) -> PodPlan {
    good(&text(lines))
}

fn text(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    container("args: [echo]", &lines)
}

fn one(lines: &str) -> ContainerPlan {
    let mut plan = good(&container(&format!("args: [echo]\n{lines}"), ""));
    plan.containers.remove(0)
}

fn privileged() -> Options {
    Options {
        allow_privileged: true,
        ..Options::default()
    }
}

#[test]
fn names_and_dns() {
    let plan = spec(
        "hostname: web\nsubdomain: sub\nsetHostnameAsFQDN: true\nhostAliases: [{ip: 10.0.0.1, hostnames: [a, b.c]}]\n\
         dnsPolicy: None\ndnsConfig: {nameservers: [1.1.1.1], searches: [x.y], options: [{name: ndots, value: '2'}, {name: edns0}]}",
    );
    assert_eq!(plan.hostname, "web");
    assert_eq!(plan.subdomain.as_deref(), Some("sub"));
    assert!(plan.hostname_as_fqdn);
    assert_eq!(
        plan.host_aliases,
        [(IpAddr::from([10, 0, 0, 1]), vec!["a".into(), "b.c".into()])]
    );
    assert!(!plan.dns.from_machine);
    assert_eq!(plan.dns.nameservers, [IpAddr::from([1, 1, 1, 1])]);
    assert_eq!(plan.dns.searches, ["x.y"]);
    assert_eq!(
        plan.dns.options,
        [("ndots".into(), Some("2".into())), ("edns0".into(), None)]
    );
    let plan = spec("hostname: web\nsubdomain: sub\nhostnameOverride: other.example");
    assert_eq!(
        (plan.hostname.as_str(), plan.subdomain),
        ("other.example", None)
    );
    let long = format!("subdomain: {}\nsetHostnameAsFQDN: true", "s".repeat(50));
    let found = errors(&text(&long), &Options::default());
    assert!(
        found[0].contains("(64 characters is the max, "),
        "{found:?}"
    );
}

#[test]
fn host_namespaces_want_a_permission() {
    let all = text("hostNetwork: true\nhostPID: true\nhostIPC: true");
    let found = errors(&all, &Options::default());
    assert_eq!(found.len(), 3);
    assert!(
        found[0].starts_with("9:16: spec.hostNetwork: uses this machine's network")
            && found[0].ends_with("; --allow-privileged permits it"),
        "{}",
        found[0]
    );
    let (plans, findings) = plan(&all, &privileged());
    assert_eq!(findings.count(Severity::Risk), 3);
    let host = plans[0].host;
    assert!(host.network && host.pid && host.ipc);
    assert!(!good(&text("hostNetwork: false")).host.network);
}

#[test]
fn security_of_the_pod() {
    let plan = spec(
        "securityContext:\n  fsGroup: 2000\n  fsGroupChangePolicy: OnRootMismatch\n  supplementalGroups: [3000, 4000]\n  supplementalGroupsPolicy: Strict\n  \
         sysctls: [{name: net/ipv4/tcp_syncookies, value: '0'}]",
    );
    let security = &plan.security;
    assert_eq!(security.fs_group, Some(2000));
    assert!(security.fs_group_on_root_mismatch && security.groups_strict);
    assert_eq!(security.supplemental_groups, [3000, 4000]);
    assert_eq!(
        security.sysctls,
        [("net.ipv4.tcp_syncookies".to_owned(), "0".to_owned())]
    );
    let sysctl = |name: &str| {
        text(&format!(
            "securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}"
        ))
    };
    assert_eq!(
        errors(&sysctl("vm.swappiness"), &privileged()),
        [
            "9:38: spec.securityContext.sysctls[0].name: refused: \"vm.swappiness\" is not namespaced: it would change the whole machine"
        ]
    );
    let found = errors(&sysctl("net.core.somaxconn"), &Options::default());
    assert!(found[0].contains("not one of the kubelet's safe sysctls; --allow-privileged"));
    let (plans, findings) = plan_of(&sysctl("net.core.somaxconn"));
    assert_eq!(findings, 1);
    assert_eq!(plans.security.sysctls[0].0, "net.core.somaxconn");
}

/// With `--allow-privileged`: the plan and the number of risks.
fn plan_of(text: &str) -> (PodPlan, usize) {
    let (mut plans, findings) = plan(text, &privileged());
    assert!(!findings.has_errors(), "{findings}");
    (plans.remove(0), findings.count(Severity::Risk))
}

#[test]
fn security_of_a_container() {
    let risky = container(
        "args: [echo]\nsecurityContext: {privileged: true, procMount: Unmasked, seccompProfile: {type: RuntimeDefault}}",
        "",
    );
    assert_eq!(errors(&risky, &Options::default()).len(), 1);
    let (plan, risks) = plan_of(&risky);
    let security = &plan.containers[0].security;
    assert!(security.privileged && security.unmasked_proc);
    // A privileged container has no filter.
    assert_eq!((security.seccomp.clone(), risks), (Seccomp::Unconfined, 1));
    let unmasked = container("args: [echo]\nsecurityContext: {procMount: Unmasked}", "");
    assert_eq!(errors(&unmasked, &Options::default()).len(), 1);
    assert!(plan_of(&unmasked).0.containers[0].security.unmasked_proc);
    let pod = "securityContext: {runAsUser: 7, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}";
    let inherited = spec(pod).containers.remove(0).security;
    assert_eq!(inherited.seccomp, Seccomp::RuntimeDefault);
    assert!(inherited.non_root);
    let own =
        one("securityContext: {seccompProfile: {type: Localhost, localhostProfile: p/a.json}}");
    assert_eq!(
        own.security.seccomp,
        Seccomp::Localhost(PathBuf::from("p/a.json"))
    );
}

#[test]
fn capabilities_in_any_case() {
    let security =
        one("securityContext: {capabilities: {drop: [all], add: [net_bind_service]}}").security;
    assert_eq!(security.drop_capabilities, ["ALL"]);
    assert_eq!(security.add_capabilities, ["NET_BIND_SERVICE"]);
}

#[test]
fn deadlines_and_resources() {
    let plan = spec("activeDeadlineSeconds: 5\nresources: {limits: {cpu: 2, memory: 1Gi}}");
    assert_eq!(plan.active_deadline, Some(Duration::from_secs(5)));
    assert_eq!(plan.resources.cpu_limit_milli, Some(2000));
    assert_eq!(plan.resources.memory_limit_bytes, Some(1 << 30));
    let container = one("resources: {limits: {ephemeral-storage: 1Gi}}");
    assert_eq!(container.resources.ephemeral_limit_bytes, Some(1 << 30));
}

#[test]
fn secrets_for_registries() {
    let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: reg}\ntype: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: '{\"auths\": {}}'}\n";
    let with = |names: &str| format!("{}{secret}", text(&format!("imagePullSecrets: [{names}]")));
    assert_eq!(
        good(&with("{name: reg}")).pull_secrets,
        [b"{\"auths\": {}}".to_vec()]
    );
    let (plans, findings) = plan(&with("{name: other}"), &Options::default());
    assert!(plans[0].pull_secrets.is_empty());
    assert_eq!(findings.count(Severity::Warning), 1);
    assert!(
        findings.to_string().contains(
            "there is no Secret \"other\" in the files; pulling the image may not succeed"
        )
    );
    let (_, findings) = plan(
        &with("{name: reg}").replace("{\"auths\": {}}", "nonsense"),
        &Options::default(),
    );
    assert!(
        findings
            .to_string()
            .contains("is not a Docker configuration")
    );
}

#[test]
fn pull_policies() {
    let pull = |image: &str, policy: &str| {
        let text = container(&format!("command: [x]\n{policy}"), "");
        let text = text.replace("image: podkit", &format!("image: {image}"));
        let options = Options {
            images: vec![("app".into(), "podkit".into())],
            ..Options::default()
        };
        let (plans, findings) = plan(&text, &options);
        assert!(!findings.has_errors(), "{findings}");
        assert_eq!(plans[0].containers[0].source, ImageSource::Itself);
        plans[0].containers[0].pull
    };
    assert_eq!(pull("nginx", ""), PullPolicy::Always);
    assert_eq!(pull("reg:5000/nginx:latest", ""), PullPolicy::Always);
    assert_eq!(pull("nginx:1.27", ""), PullPolicy::IfNotPresent);
    assert_eq!(
        pull("nginx:1.27", "imagePullPolicy: Always"),
        PullPolicy::Always
    );
    assert_eq!(pull("nginx", "imagePullPolicy: Never"), PullPolicy::Never);
}

#[test]
fn terminals_messages_and_signals() {
    let container =
        one("terminationMessagePath: /m\nterminationMessagePolicy: FallbackToLogsOnError");
    assert_eq!(container.message_path, PathBuf::from("/m"));
    assert!(container.message_from_logs);
    let plain = one("");
    assert_eq!(plain.message_path, PathBuf::from("/dev/termination-log"));
    let signal = container_with_os("lifecycle: {stopSignal: SIGUSR1}");
    assert_eq!(signal.stop_signal, stop_signal("SIGUSR1"));
    let probe = one("livenessProbe: {grpc: {port: 9000, service: s}}").liveness;
    assert_eq!(
        probe.map(|probe| probe.action),
        Some(Action::Grpc {
            tls: false,
            port: 9000,
            service: "s".into()
        })
    );
    for (mode, tls) in [("TLS", true), ("Plaintext", false)] {
        let probe = one(&format!(
            "livenessProbe: {{grpc: {{port: 1, mode: {mode}}}}}"
        ))
        .liveness;
        let action = probe.unwrap().action;
        assert!(matches!(action, Action::Grpc { tls: found, .. } if found == tls));
    }
}

fn container_with_os(lines: &str) -> ContainerPlan {
    let text = container(&format!("args: [echo]\n{lines}"), "  os: {name: linux}\n");
    good(&text).containers.remove(0)
}

#[test]
fn mounts() {
    let text = |mount: &str| {
        let lines = format!(
            "args: [echo]\nenv: [{{name: A, value: a/b}}]\nvolumeMounts: [{{name: v, mountPath: /m, {mount}}}]"
        );
        container(&lines, "  volumes: [{name: v}]\n")
    };
    let mount = |mount: &str| good(&text(mount)).containers.remove(0).mounts.remove(0);
    assert_eq!(
        mount("subPathExpr: x/$(A)/$$(A)").sub_path.as_deref(),
        Some("x/a/b/$(A)")
    );
    assert!(mount("readOnly: true, recursiveReadOnly: Enabled").recursive_read_only);
    assert!(!mount("readOnly: true, recursiveReadOnly: Disabled").recursive_read_only);
    assert_eq!(
        mount("mountPropagation: HostToContainer").propagation,
        Propagation::HostToContainer
    );
    let found = errors(&text("subPathExpr: $(B)"), &Options::default());
    assert!(found[0].ends_with(
        "subPathExpr: missing value for \"B\": no variable of the container has this name"
    ));
    let up = text("subPathExpr: $(A)").replace("a/b}", "../b}");
    assert!(errors(&up, &Options::default())[0].ends_with("leads out of the volume"));
}

#[test]
fn restart_rules() {
    let mut container = one(
        "restartPolicy: Never\nrestartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]",
    );
    assert_eq!(container.restart, Some(RestartPolicy::Never));
    let again = |container: &ContainerPlan, code| container.restarts(RestartPolicy::Always, code);
    assert!(again(&container, 42) && !again(&container, 1) && !again(&container, 0));
    container.restart_rules[0].not_in = true;
    assert!(!again(&container, 42) && again(&container, 1));
    container.restart_rules.clear();
    container.restart = None;
    assert!(again(&container, 0));
    assert!(!container.restarts(RestartPolicy::OnFailure, 0));
    container.role = Role::Init;
    assert!(!again(&container, 0) && again(&container, 1));
    assert!(!container.restarts(RestartPolicy::Never, 1));
    container.role = Role::Sidecar;
    assert!(container.restarts(RestartPolicy::Never, 0));
}
