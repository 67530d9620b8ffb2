//! What a container is given: its environment, files, limits, rights and company.

use podkit_testkit::http;
use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;

use crate::ground::{Ground, log_of, manifest};

/// Runs a pod that ends by itself and gives what its container `app` wrote.
fn wrote(text: &str) -> Vec<String> {
    let mut pod = Pod::run_text(text, &[]);
    let code = pod.process.wait().code();
    assert_eq!(code, Some(0), "{}", pod.process.shown());
    log_of(&pod, "app")
}

#[test]
fn the_environment_is_resolved_and_what_is_unknown_stays() {
    let Some(ground) = Ground::new() else { return };
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{mode: fast, extra: more}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: keys}}\nstringData: {{token: s3cret}}\n---\n{}",
        manifest(
            "restartPolicy: Never
hostname: legacy
containers:
- name: app
  image: none
  command: [sh, -c, 'echo $MODE $TOKEN $BOTH \"$UNKNOWN\" $ALL_extra $NAME $LIMIT; hostname; pwd; echo $0 $1', $(MODE), $(NOT_THERE)]
  workingDir: /usr
  envFrom:
  - prefix: ALL_
    configMapRef: {name: settings}
  env:
  - {name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}
  - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
  - {name: BOTH, value: $(MODE)-$(TOKEN)}
  - {name: UNKNOWN, value: $(NOT_THERE)}
  - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
  resources: {limits: {memory: 64Mi}}",
        )
    );
    assert_eq!(
        wrote(&text),
        [
            "fast s3cret fast-s3cret $(NOT_THERE) more e2e 64",
            "legacy",
            "/usr",
            "fast $(NOT_THERE)"
        ]
    );
    ground.assert_clean();
}

#[test]
fn volumes_hold_what_they_should_and_refuse_the_rest() {
    let Some(ground) = Ground::new() else { return };
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("from-the-machine"), "here\n").unwrap();
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: files}}\ndata: {{a: one, b: two}}\n---\n{}",
        manifest(&format!(
            "restartPolicy: Never
volumes:
- name: disk
  emptyDir: {{}}
- name: memory
  emptyDir: {{medium: Memory, sizeLimit: 1Mi}}
- name: files
  configMap:
    name: files
    defaultMode: 0440
    items: [{{key: a, path: sub/renamed}}]
- name: machine
  hostPath: {{path: {}, type: Directory}}
initContainers:
- name: first
  image: none
  command: [sh, -c, 'mkdir -p /mnt/below && echo shared > /mnt/below/file']
  volumeMounts: [{{name: disk, mountPath: /mnt}}]
containers:
- name: app
  image: none
  command:
  - sh
  - -c
  - |
    cat /opt/file
    cat /srv/sub/renamed; echo
    stat -L -c %a /srv/sub/renamed
    readlink /srv/sub
    echo x 2>/dev/null >/srv/new || echo read-only
    stat -f -c %T /media
    head -c 2M /dev/zero 2>/dev/null >/media/full || echo full
    cat /mnt/from-the-machine
    echo written > /mnt/from-the-pod
  volumeMounts:
  - {{name: disk, mountPath: /opt, subPath: below}}
  - {{name: files, mountPath: /srv}}
  - {{name: memory, mountPath: /media}}
  - {{name: machine, mountPath: /mnt}}",
            shared.path().display()
        ))
    );
    assert_eq!(
        wrote(&text),
        [
            "shared",
            "one",
            "440",
            "..data/sub",
            "read-only",
            "tmpfs",
            "full",
            "here"
        ]
    );
    assert_eq!(
        std::fs::read_to_string(shared.path().join("from-the-pod")).unwrap(),
        "written\n"
    );
    ground.assert_clean();
}

#[test]
fn rights_are_those_of_the_security_context() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "restartPolicy: Never
containers:
- name: app
  image: none
  command:
  - sh
  - -c
  - |
    id -u; id -g
    grep -E '^(CapEff|CapBnd|NoNewPrivs):' /proc/self/status | tr -d '\\t'
    touch /tmp/x 2>/dev/null || echo read-only
    ls /proc/1/root >/dev/null 2>&1 && echo $$$$
  securityContext:
    runAsUser: 65534
    runAsGroup: 65533
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities: {drop: [ALL]}",
    );
    assert_eq!(
        wrote(&text),
        [
            "65534",
            "65533",
            "CapEff:0000000000000000",
            "CapBnd:0000000000000000",
            "NoNewPrivs:1",
            "read-only",
            "1"
        ]
    );
    ground.assert_clean();
}

#[test]
fn process_ids_are_apart_unless_they_are_shared() {
    let Some(ground) = Ground::new() else { return };
    for (shared, first) in [(false, true), (true, false)] {
        let text = manifest(&format!(
            "restartPolicy: Never
shareProcessNamespace: {shared}
containers:
- name: app
  image: none
  command: [sh, -c, 'echo $$$$; ls /proc | grep -c \"^[0-9]\"']"
        ));
        let lines = wrote(&text);
        assert_eq!(lines[0] == "1", first, "shared: {shared}: {lines:?}");
        let seen: usize = lines[1].parse().unwrap();
        assert!(seen < 10, "the machine's processes are seen: {seen}");
    }
    ground.assert_clean();
}

/// An orphan of a shared PID namespace is reaped by the pause, not kept as a zombie.
#[test]
fn orphans_of_a_shared_pid_namespace_are_reaped() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "restartPolicy: Never
shareProcessNamespace: true
containers:
- name: app
  image: none
  command: [sh, -c, '(sleep 0.05 &) ; while pgrep -x sleep >/dev/null; do :; done; cat /proc/[0-9]*/stat 2>/dev/null | grep -c \" Z \" || true']",
    );
    assert_eq!(wrote(&text), ["0"]);
    ground.assert_clean();
}

#[test]
fn containers_share_network_host_name_and_shared_memory() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "terminationGracePeriodSeconds: 1
containers:
- name: app
  image: none
  command: [sh, -c, 'trap \"exit 0\" TERM; echo memory > /dev/shm/note; hostname; while :; do sleep 0.02; done']
- name: two
  image: none
  command: [sh, -c, 'trap \"exit 0\" TERM; until test -e /dev/shm/note; do sleep 0.02; done; cat /dev/shm/note; hostname; curl -s -o /dev/null -w \"%{http_code}\" --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:8080/; echo; while :; do sleep 0.02; done']
- name: web
  image: podkit
  args: [echo, '--listen=:8080']",
    );
    let mut pod = Pod::run_text(&text, &[]);
    pod.wait("the answer", |said| {
        said["container"] == "two" && said["line"] == "200"
    });
    assert_eq!(log_of(&pod, "two"), ["memory", "e2e", "200"]);
    assert_eq!(log_of(&pod, "app"), ["e2e"]);
    pod.stop();
    ground.assert_clean();
}

#[test]
fn too_much_memory_is_told_as_such_and_hurts_nobody_else() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "restartPolicy: Never
terminationGracePeriodSeconds: 1
containers:
- name: app
  image: none
  command: [tail, /dev/zero]
  resources: {limits: {memory: 24Mi}}
- name: two
  image: none
  command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.02; done']",
    );
    let mut pod = Pod::run_text(&text, &[]);
    let warned = |pod: &Pod| {
        pod.said()
            .iter()
            .any(|said| said["type"] == "warning" && said.to_string().contains("memory"))
    };
    let ended = pod.wait("its end", |said| {
        said["container"] == "app" && said["state"] == "terminated"
            || said["type"] == "warning" && said.to_string().contains("memory")
    });
    if !warned(&pod) {
        assert_eq!(ended["reason"], "OOMKilled", "{ended}");
        assert!(
            !pod.said()
                .iter()
                .any(|said| said["container"] == "two" && said["state"] == "terminated")
        );
    }
    pod.stop();
    ground.assert_clean();
}

#[test]
fn ports_are_published_on_the_loopback_and_host_ports_everywhere() {
    let Some(ground) = Ground::new() else { return };
    let text = manifest(
        "terminationGracePeriodSeconds: 1
containers:
- name: web
  image: podkit
  args: [echo, '--listen=:8080']
  ports:
  - {containerPort: 8080}
  - {containerPort: 8080, hostPort: 8090, name: out}",
    );
    let far = |port| std::net::SocketAddr::new(podkit_testkit::net::OwnNetwork::ADDRESS, port);
    let mut pod = Pod::run_text(&text, &[]);
    pod.wait_ready();
    assert_eq!(
        podkit_testkit::until("8080", || http::get(loopback(8080), "/").ok()).status,
        200
    );
    assert_eq!(http::get(loopback(8090), "/").unwrap().status, 200);
    assert_eq!(http::get(far(8090), "/").unwrap().status, 200);
    assert!(
        std::net::TcpStream::connect(far(8080)).is_err(),
        "published beyond the loopback"
    );
    assert_eq!(pod.stop(), 0);

    let mut pod = Pod::run_text(&text, &["--no-publish"]);
    pod.wait_ready();
    assert!(
        std::net::TcpStream::connect(loopback(8080)).is_err(),
        "published all the same"
    );
    assert_eq!(pod.stop(), 0);

    let _taken = std::net::TcpListener::bind(loopback(8080)).unwrap();
    let mut pod = Pod::run_text(&text, &[]);
    assert_ne!(pod.process.wait().code(), Some(0));
    let said = pod.process.shown();
    assert!(said.contains("8080"), "{said}");
    ground.assert_clean();
}

#[test]
fn several_pods_of_one_file_run_side_by_side() {
    let Some(ground) = Ground::new() else { return };
    let one = manifest(
        "terminationGracePeriodSeconds: 1\ncontainers:\n- name: web\n  image: podkit\n  args: [echo, '--listen=:8080']\n  ports: [{containerPort: 8080}]",
    );
    let two = one
        .replace("name: e2e", "name: other")
        .replace("8080", "8081");
    let mut pod = Pod::run_text(&format!("{one}---\n{two}"), &[]);
    for (name, port) in [("e2e", 8080), ("other", 8081)] {
        pod.wait(name, |said| {
            said["type"] == "pod" && said["pod"] == name && said["ready"] == true
        });
        assert_eq!(
            podkit_testkit::until("an answer", || http::get(loopback(port), "/").ok()).status,
            200
        );
    }
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}
