//! What the API server says about a pod as a whole, and about its security.

use super::{container, errors, good, spec};

/// The errors of a spec, without `spec.`.
fn of_spec(lines: &str) -> String {
    errors(&spec(lines)).join("\n").replace("spec.", "")
}

fn of_container(lines: &str) -> String {
    errors(&container(lines))
        .join("\n")
        .replace("spec.containers[0].", "")
}

#[test]
fn names() {
    assert_eq!(
        of_spec("subdomain: a.b"),
        "6:14: subdomain: \"a.b\" is not a DNS label: lower-case letters, digits and -, beginning and ending with a letter or digit"
    );
    assert_eq!(
        of_spec("hostnameOverride: a.b\nsetHostnameAsFQDN: true"),
        "6:21: hostnameOverride: setHostnameAsFQDN must be false when hostnameOverride is set"
    );
    assert!(of_spec(&format!("hostnameOverride: {}", "a".repeat(65))).contains("64 characters"));
    assert!(
        of_spec("hostnameOverride: a\nhostNetwork: true")
            .ends_with("hostNetwork must be false when hostnameOverride is set")
    );
    assert_eq!(
        of_spec("hostAliases: [{ip: 1.2.3, hostnames: [A]}]"),
        "6:22: hostAliases[0].ip: \"1.2.3\" must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)\n\
         6:41: hostAliases[0].hostnames[0]: \"A\" is not a DNS name: lower-case letters, digits, - and ., beginning and ending with a letter or digit"
    );
    assert!(of_spec("imagePullSecrets: [{}]").ends_with("the Secret's name is missing"));
    good(&spec(
        "hostname: h\nsubdomain: s\nsetHostnameAsFQDN: true\nhostAliases: [{ip: 'fd00::1', hostnames: [a.b, c]}]\nimagePullSecrets: [{name: r}]",
    ));
}

#[test]
fn dns() {
    good(&spec(
        "dnsPolicy: None\ndnsConfig: {nameservers: [1.2.3.4, '::1'], searches: [a.b, x_y.z., .], options: [{name: ndots, value: '2'}, {name: edns0}]}",
    ));
    assert!(
        of_spec("dnsPolicy: None")
            .ends_with("dnsConfig: must provide dnsConfig when dnsPolicy is None")
    );
    assert_eq!(
        of_spec("dnsPolicy: None\ndnsConfig: {searches: [a]}"),
        "7:3: dnsConfig.nameservers: must provide at least one DNS nameserver when dnsPolicy is None"
    );
    assert!(of_spec("dnsPolicy: Cluster").contains("is none of ClusterFirst"));
    assert!(
        of_spec("dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}")
            .ends_with("must not have more than 3 nameservers")
    );
    assert!(
        of_spec("dnsConfig: {nameservers: [dns.example]}").contains("must be a valid IP address")
    );
    assert!(of_spec("dnsConfig: {searches: ['a b']}").ends_with("\"a b\" is not a DNS name"));
    let many: Vec<String> = (0..33).map(|i| format!("d{i}")).collect();
    assert!(
        of_spec(&format!("dnsConfig: {{searches: [{}]}}", many.join(", ")))
            .ends_with("must not have more than 32 search paths")
    );
    let long = vec![format!("{}.example", "a".repeat(63)); 31].join(", ");
    assert!(of_spec(&format!("dnsConfig: {{searches: [{long}]}}")).contains("2048 characters"));
    assert!(of_spec("dnsConfig: {options: [{value: x}]}").ends_with("name: must not be empty"));
}

#[test]
fn host_namespaces() {
    assert_eq!(
        of_spec("hostPID: true\nshareProcessNamespace: true"),
        "7:26: shareProcessNamespace: ShareProcessNamespace and HostPID cannot both be enabled"
    );
    let ports = "ports: [{containerPort: 80, hostPort: 8080}]";
    let text = format!("{}  hostNetwork: true\n", container(ports));
    assert_eq!(
        errors(&text),
        [
            "8:43: spec.containers[0].ports[0].hostPort: must match containerPort when hostNetwork is true"
        ]
    );
    good(&text.replace("8080", "80"));
    assert!(of_spec("activeDeadlineSeconds: 0").ends_with("0 is not within 1 to 2147483647"));
}

#[test]
fn security() {
    let context = |fields: &str| of_spec(&format!("securityContext: {{{fields}}}"));
    assert!(context("fsGroup: -1").ends_with("-1 is not within 0 to 2147483647"));
    assert!(context("supplementalGroups: [1, -2]").contains("supplementalGroups[1]: -2"));
    assert!(context("fsGroupChangePolicy: OnRoot").contains("is none of Always, OnRootMismatch"));
    assert!(context("supplementalGroupsPolicy: strict").contains("did you mean Strict?"));
    assert!(
        context("seccompProfile: {type: Localhost}")
            .ends_with("localhostProfile: must be set when seccomp type is Localhost")
    );
    assert!(
        context("seccompProfile: {type: RuntimeDefault, localhostProfile: a}")
            .ends_with("can only be set when seccomp type is Localhost")
    );
    assert!(
        context("seccompProfile: {type: Localhost, localhostProfile: ../a}")
            .ends_with("leads out of the volume")
    );
    assert!(context("seccompProfile: {type: runtime/default}").contains("is none of Localhost"));
    assert!(
        of_container("securityContext: {procMount: unmasked}").contains("did you mean Unmasked?")
    );
    assert!(
        of_container("securityContext: {privileged: true, allowPrivilegeEscalation: false}")
            .ends_with("cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
    );
}

#[test]
fn sysctls() {
    let sysctl = |sysctl: &str, more: &str| {
        of_spec(&format!("securityContext: {{sysctls: [{sysctl}]}}\n{more}"))
            .replace("securityContext.sysctls", "")
    };
    assert_eq!(
        sysctl(
            "{name: net.ipv4.tcp_syncookies, value: '0'}, {name: kernel/sem, value: '1 2'}",
            ""
        ),
        ""
    );
    assert!(sysctl("{name: net..x, value: '1'}", "").contains("is not the name of a sysctl"));
    assert!(sysctl("{name: '', value: '1'}", "").ends_with("a sysctl needs a name"));
    assert!(
        sysctl(
            "{name: kernel.sem, value: a}, {name: kernel/sem, value: b}",
            ""
        )
        .ends_with("[1].name: \"kernel.sem\" is given twice")
    );
    assert!(
        sysctl(
            "{name: net.core.somaxconn, value: '9'}",
            "hostNetwork: true"
        )
        .ends_with("may not be set when hostNetwork is true: it is the machine's")
    );
    assert!(
        sysctl("{name: fs.mqueue.queues_max, value: '9'}", "hostIPC: true").contains("hostIPC")
    );
}

#[test]
fn stop_signals_and_messages() {
    let signal = |signal: &str| {
        let text = container(&format!("lifecycle: {{stopSignal: {signal}}}"));
        errors(&format!("{text}  os: {{name: linux}}\n")).join("\n")
    };
    assert_eq!(signal("SIGRTMIN+3"), "");
    assert!(signal("sigterm").ends_with("\"sigterm\" is not a signal; did you mean SIGTERM?"));
    assert!(signal("SIGFOO").ends_with("SIGTERM, SIGRTMIN+3, and the like are"));
    assert_eq!(
        of_container("lifecycle: {stopSignal: SIGTERM}"),
        "8:29: lifecycle.stopSignal: may not be set for containers with empty `spec.os.name`: add os: {name: linux} to the spec"
    );
    assert!(
        of_container("terminationMessagePolicy: Logs")
            .contains("is none of File, FallbackToLogsOnError")
    );
    assert!(of_container("terminationMessagePath: x").ends_with("\"x\" has to be absolute"));
    assert!(
        of_container("terminationMessagePath: /a/../b").ends_with("may not have .. or a NUL byte")
    );
    assert!(
        of_container("livenessProbe: {grpc: {port: 0}}")
            .ends_with("grpc.port: 0 is not within 1 to 65535")
    );
    assert_eq!(
        of_container("livenessProbe: {grpc: {port: 1, mode: tls}}"),
        "8:43: livenessProbe.grpc.mode: \"tls\" is none of Plaintext, TLS; did you mean TLS?"
    );
}

#[test]
fn resources_of_the_pod() {
    let with = |own: &str, pod: &str| {
        let text = container(&format!("resources: {{{own}}}"));
        errors(&format!("{text}  resources: {{{pod}}}\n")).join("\n")
    };
    assert_eq!(
        with(
            "requests: {cpu: 1}",
            "limits: {cpu: 2, memory: 1Gi}, requests: {cpu: 1}"
        ),
        ""
    );
    assert_eq!(
        with("requests: {cpu: 1500m}", "requests: {cpu: 1}"),
        "9:36: spec.resources.requests.cpu: 1 must be greater than or equal to aggregate container requests"
            .replace("36", "31")
    );
    assert!(
        with("limits: {memory: 2Gi}", "limits: {memory: 1Gi}")
            .ends_with("spec.resources.limits.memory: 1073741824 is less than a container's limit of 2147483648")
    );
    assert!(
        with("", "limits: {ephemeral-storage: 1Gi}")
            .ends_with("must be a supported resource for pods: cpu, memory")
    );
    assert!(
        with("", "limits: {cpu: 1}, requests: {cpu: 2}")
            .contains("asks for 2, more than the limit of 1")
    );
}
