//! `resources`, of a pod or a container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{ContainerPlan, Resources, Role};
use crate::manifest::Quantity;

/// Limits, and requests that default to them. The quantities were validated.
pub(super) fn resources(given: Option<&ResourceRequirements>) -> Resources {
    let amount = |of: Option<&BTreeMap<String, ApiQuantity>>, name: &str| {
        let text = of?.get(name)?;
        text.0.parse::<Quantity>().ok()
    };
    let milli = |q: Quantity| u64::try_from(q.milli()).ok();
    let bytes = |q: Quantity| u64::try_from(q.value()).ok();
    let limits = given.and_then(|r| r.limits.as_ref());
    let requests = given.and_then(|r| r.requests.as_ref());
    // A limit of 0 is none.
    let cpu_limit_milli = amount(limits, "cpu").and_then(milli).filter(|n| *n > 0);
    let memory_limit_bytes = amount(limits, "memory").and_then(bytes).filter(|n| *n > 0);
    Resources {
        cpu_limit_milli,
        memory_limit_bytes,
        cpu_request_milli: amount(requests, "cpu").and_then(milli).or(cpu_limit_milli),
        memory_request_bytes: amount(requests, "memory")
            .and_then(bytes)
            .or(memory_limit_bytes),
        ephemeral_limit_bytes: amount(limits, "ephemeral-storage")
            .and_then(bytes)
            .filter(|n| *n > 0),
    }
}

/// Those of the pod: a request that is not given is that of its containers together, or else the limit. (Kubernetes:
/// `setDefaultPodRequests`)
pub(super) fn of_pod(
    given: Option<&ResourceRequirements>,
    containers: &[ContainerPlan],
) -> Resources {
    let mut own = resources(given);
    let asks = |name: &str| {
        let requests = given.and_then(|given| given.requests.as_ref());
        requests.is_some_and(|requests| requests.contains_key(name))
    };
    let sum = |of: fn(&Resources) -> Option<u64>| {
        let lasting = containers.iter().filter(|one| one.role != Role::Init);
        let sum: u64 = lasting.filter_map(|one| of(&one.resources)).sum();
        (sum > 0).then_some(sum)
    };
    if !asks("cpu") && own.cpu_limit_milli.is_some() {
        own.cpu_request_milli = sum(|r| r.cpu_request_milli).or(own.cpu_limit_milli);
    }
    if !asks("memory") && own.memory_limit_bytes.is_some() {
        own.memory_request_bytes = sum(|r| r.memory_request_bytes).or(own.memory_limit_bytes);
    }
    own
}
