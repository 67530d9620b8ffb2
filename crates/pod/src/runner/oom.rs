//! Whom the kernel kills first when the machine has no memory left: `oom_score_adj`, as the kubelet sets it by the pod's QoS class.
//! (Kubernetes: pkg/kubelet/qos/policy.go, `GetContainerOOMScoreAdjust`)

use super::state::qos_class;
use crate::plan::{ContainerPlan, PodPlan, Role};

/// Of a pod that was promised all that it may use: the last to go.
const GUARANTEED: i64 = -997;
/// Of one that was promised nothing: the first.
const BEST_EFFORT: i64 = 1000;

/// The adjustment of a container on a machine with so much memory. Below what this process has itself it is a wish, which
/// the machine permits to the mighty only.
pub(super) fn score_adjustment(
    pod: &PodPlan,
    container: &ContainerPlan,
    machine_bytes: u64,
) -> i32 {
    let score = match qos_class(pod) {
        "Guaranteed" => GUARANTEED,
        "BestEffort" => BEST_EFFORT,
        _ => burstable(pod, container, machine_bytes),
    };
    i32::try_from(score).unwrap_or(0)
}

/// The more of the machine a container has asked for, the later it goes: with a tenth, 900. A process of it that uses more than the
/// container has asked for then comes to 1000 in the kernel's count.
fn burstable(pod: &PodPlan, container: &ContainerPlan, machine_bytes: u64) -> i64 {
    let machine = i64::try_from(machine_bytes).unwrap_or(i64::MAX).max(1);
    let of = |container: &ContainerPlan| {
        let bytes = container.resources.memory_request_bytes.unwrap_or(0);
        let bytes = i128::from(bytes) * 1000 / i128::from(machine);
        1000 - i64::try_from(bytes).unwrap_or(1000)
    };
    let mut score = of(container);
    if container.role == Role::Sidecar {
        // A sidecar does not go before the containers that it is for.
        let mains = pod.containers.iter().filter(|c| c.role == Role::Main);
        score = mains.map(of).max().map_or(score, |least| score.min(least));
    }
    // Never beside those that were promised all, or nothing.
    score.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
}

/// The memory of this machine.
pub(super) fn machine_bytes() -> u64 {
    let memory = rustix::system::sysinfo();
    memory.totalram * u64::from(memory.mem_unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Resources;
    use crate::runner::testing;

    const GIB: u64 = 1 << 30;

    fn container(role: Role, resources: Resources) -> ContainerPlan {
        ContainerPlan {
            role,
            resources,
            ..testing::container("app")
        }
    }

    fn asks(memory_request_bytes: u64) -> Resources {
        Resources {
            memory_request_bytes: Some(memory_request_bytes),
            ..Resources::default()
        }
    }

    /// What the containers of a pod get on a machine of 8 GiB.
    fn check(containers: Vec<ContainerPlan>, expected: &[i32]) {
        check_on(8 * GIB, containers, expected);
    }

    fn check_on(machine: u64, containers: Vec<ContainerPlan>, expected: &[i32]) {
        let pod = testing::plan(containers);
        let scores = pod.containers.iter();
        let scores: Vec<i32> = scores
            .map(|container| score_adjustment(&pod, container, machine))
            .collect();
        assert_eq!(scores, expected);
    }

    #[test]
    fn by_the_class_of_the_pod() {
        let none = Resources::default();
        let all = Resources {
            cpu_limit_milli: Some(500),
            cpu_request_milli: Some(500),
            memory_limit_bytes: Some(GIB),
            memory_request_bytes: Some(GIB),
            ..none
        };
        check(vec![container(Role::Main, none)], &[1000]);
        check(vec![container(Role::Main, all)], &[-997]);
        let two = vec![container(Role::Main, all), container(Role::Main, none)];
        check(two, &[875, 999]);
        check(vec![container(Role::Main, asks(4 * GIB))], &[500]);
        // A request that rounds to nothing is still one.
        check(vec![container(Role::Main, asks(1))], &[999]);
        // More than there is.
        check(vec![container(Role::Main, asks(64 * GIB))], &[3]);
    }

    /// Read in /proc/self/oom_score_adj of pods under a kubelet (1.20.2 with containerd 1.6.20).
    #[test]
    fn as_a_kubelet_was_seen_to_do() {
        const MACHINE: u64 = 25_276_502_016;
        check_on(MACHINE, vec![container(Role::Main, asks(32 << 20))], &[999]);
        check_on(MACHINE, vec![container(Role::Main, asks(64 << 20))], &[998]);
        let nothing = container(Role::Main, Resources::default());
        check_on(MACHINE, vec![nothing], &[1000]);
    }

    #[test]
    fn a_sidecar_outlives_what_it_is_for() {
        let small = container(Role::Sidecar, asks(GIB));
        let mains = [asks(4 * GIB), asks(2 * GIB)].map(|of| container(Role::Main, of));
        let [one, two] = mains;
        check(vec![small, one.clone(), two.clone()], &[750, 500, 750]);
        let large = container(Role::Sidecar, asks(6 * GIB));
        check(vec![large, one, two], &[250, 500, 750]);
    }
}
