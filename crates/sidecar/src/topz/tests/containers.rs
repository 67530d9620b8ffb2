//! Which container a cgroup path or the pod state names.

use crate::topz::container::*;

fn check(text: &str, expected: Option<&str>) {
    assert_eq!(
        by_cgroup(text.as_bytes(), true).as_deref(),
        expected,
        "{text}"
    );
}

const ID: &str = "3f2a9c0d1e4b5a69788766554433221100ffeeddccbbaa998877665544332211";

#[test]
fn every_engines_form() {
    let short = Some(&ID[..12]);
    check("0::/podkit/legacy-web/app\n", Some("app"));
    check(
        "0::/user.slice/user-1000.slice/podkit/web/tls/sub\n",
        Some("tls"),
    );
    check(
        &format!(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234_5.slice/cri-containerd-{ID}.scope\n"
        ),
        short,
    );
    check(
        &format!("0::/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope\n"),
        short,
    );
    check(&format!("0::/kubepods/besteffort/pod0b1e/{ID}\n"), short);
    check(
        &format!("0::/kubelet/kubepods/pod0b1e/{ID}/init.scope\n"),
        short,
    );
    check(&format!("0::/system.slice/docker-{ID}.scope\n"), short);
    check(
        &format!("12:memory:/docker/{ID}\n11:cpu,cpuacct:/docker/{ID}\n0::/\n"),
        short,
    );
    check(
        &format!("0::/machine.slice/libpod-{ID}.scope/container\n"),
        short,
    );
    check(
        &format!(
            "0::/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:{ID}\n"
        ),
        short,
    );
    check(
        &format!("0::/machine.slice/libpod-conmon-{ID}.scope\n"),
        None,
    );
}

#[test]
fn as_seen_from_a_cgroup_namespace() {
    check("0::/../app\n", Some("app"));
    check(
        &format!("0::/../cri-containerd-{ID}.scope\n"),
        Some(&ID[..12]),
    );
    check(&format!("0::/../../pod77/{ID}/sub\n"), Some(&ID[..12]));
    check("0::/\n", Some(OWN));
    check("2:cpu:/\n0::/\n", Some(OWN));
    assert_eq!(by_cgroup(b"0::/\n", false), None);
    assert_eq!(by_cgroup(b"", true), None);
}

#[test]
fn a_machine_without_containers() {
    check("0::/system.slice/nginx.service\n", Some("nginx.service"));
    check("0::/user.slice/user-0.slice/session-1.scope\n", None);
    check(
        "9:name=systemd:/\n8:pids:/\n4:memory:/other/0123abc\n0::/\n",
        None,
    );
    check("nonsense", None);
}

#[test]
fn the_pod_state() {
    let text = br#"{"pod":"legacy-web","namespace":"default","later":1,
        "containers":[{"name":"app","pid":12,"restarts":2,"started":"2026-01-01T00:00:00Z"},{"name":"done"}]}"#;
    let state = PodState::parse(text).unwrap();
    assert_eq!(
        (state.pod.as_str(), state.containers.len()),
        ("legacy-web", 2)
    );
    assert_eq!(
        (
            state.containers[0].pid,
            state.containers[0].restarts,
            state.containers[1].pid
        ),
        (12, 2, 0)
    );
    let error = PodState::parse(b"{\"pod\":").unwrap_err();
    assert!(
        error.starts_with("not the runner's pod state: ") && !error.contains('\n'),
        "{error}"
    );
    assert!(PodState::parse(br#"{"containers":[{"pid":-1}]}"#).is_err());
}

#[test]
fn names_are_bounded_and_used_again() {
    let mut names = Names::new(3);
    let (a, b) = (names.hold("a"), names.hold("b"));
    assert_ne!(a, b);
    assert_eq!(names.hold("a"), a);
    let over = names.hold("c");
    assert_eq!(names.get(over).name, "(other)");
    names.release(over);
    names.release(b);
    let c = names.hold("c");
    assert_eq!((c, names.get(c).name.as_str()), (b, "c"));
    assert_eq!(names.get(a).name, "a");
}
