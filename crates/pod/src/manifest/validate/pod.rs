//! What a pod says about itself as a whole: names, DNS, host namespaces, deadlines. (Kubernetes: `ValidatePodSpec`)

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec, ResourceRequirements};

use super::container::amounts;
use super::{Notes, all_containers, one_of};
use crate::manifest::names;
use crate::manifest::node::Path;
use crate::manifest::quantity::Quantity;

/// resolv.conf(5) takes three, and the API no more.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;
/// `hostnameOverride` goes to sethostname(2) as it is.
const HOSTNAME_BYTES_MAX: usize = 64;

pub(super) fn names(spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    match spec.os.as_ref().map(|os| os.name.as_str()) {
        None | Some("linux") => {}
        Some("windows") => notes.error(
            &at.key("os").key("name"),
            "refused: this machine runs Linux",
        ),
        Some(_) => one_of(
            spec.os.as_ref().map(|os| os.name.as_str()),
            &["linux", "windows"],
            &at.key("os").key("name"),
            notes,
        ),
    }
    if let Some(hostname) = &spec.hostname {
        notes.name(&at.key("hostname"), names::dns_label(hostname));
    }
    if let Some(subdomain) = &spec.subdomain {
        notes.name(&at.key("subdomain"), names::dns_label(subdomain));
    }
    if let Some(name) = spec.hostname_override.as_deref().filter(|n| !n.is_empty()) {
        let at = at.key("hostnameOverride");
        notes.name(&at, names::dns_subdomain(name));
        if name.len() > HOSTNAME_BYTES_MAX {
            notes.error(&at, "longer than 64 characters");
        }
        if spec.set_hostname_as_fqdn == Some(true) {
            notes.error(
                &at,
                "setHostnameAsFQDN must be false when hostnameOverride is set",
            );
        }
        if spec.host_network == Some(true) {
            notes.error(
                &at,
                "hostNetwork must be false when hostnameOverride is set",
            );
        }
    }
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let at = at.item("hostAliases", i);
        ip(&alias.ip, &at.key("ip"), notes);
        for (j, name) in alias.hostnames.iter().flatten().enumerate() {
            notes.name(&at.item("hostnames", j), names::dns_subdomain(name));
        }
    }
    for (i, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if secret.name.is_empty() {
            notes.error(
                &at.item("imagePullSecrets", i).key("name"),
                "the Secret's name is missing",
            );
        }
    }
}

fn ip(text: &str, at: &Path, notes: &mut Notes<'_>) {
    if text.parse::<IpAddr>().is_err() {
        notes.error(
            at,
            format!("{text:?} must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        );
    }
}

pub(super) fn dns(spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    one_of(
        spec.dns_policy.as_deref(),
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        &at.key("dnsPolicy"),
        notes,
    );
    let own = spec.dns_policy.as_deref() == Some("None");
    let Some(config) = &spec.dns_config else {
        if own {
            notes.error(
                &at.key("dnsConfig"),
                "must provide dnsConfig when dnsPolicy is None",
            );
        }
        return;
    };
    let at = at.key("dnsConfig");
    if own && config.nameservers.as_deref().unwrap_or_default().is_empty() {
        notes.error(
            &at.key("nameservers"),
            "must provide at least one DNS nameserver when dnsPolicy is None",
        );
    }
    dns_config(config, &at, notes);
}

fn dns_config(config: &PodDNSConfig, at: &Path, notes: &mut Notes<'_>) {
    let nameservers = config.nameservers.as_deref().unwrap_or_default();
    if nameservers.len() > NAMESERVERS_MAX {
        notes.error(
            &at.key("nameservers"),
            format!("must not have more than {NAMESERVERS_MAX} nameservers"),
        );
    }
    for (i, server) in nameservers.iter().enumerate() {
        ip(server, &at.item("nameservers", i), notes);
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > SEARCHES_MAX {
        notes.error(
            &at.key("searches"),
            format!("must not have more than {SEARCHES_MAX} search paths"),
        );
    }
    // Joined by spaces.
    let chars = searches
        .iter()
        .map(|search| search.len() + 1)
        .sum::<usize>();
    if chars > SEARCH_CHARS_MAX + 1 {
        notes.error(
            &at.key("searches"),
            format!(
                "must not have more than {SEARCH_CHARS_MAX} characters (including spaces) in the search list"
            ),
        );
    }
    for (i, search) in searches.iter().enumerate() {
        // The root alone means: no search. Underscores are in real names of zones.
        let name = search.strip_suffix('.').unwrap_or(search);
        if search != "." {
            let wrong = names::dns_subdomain(&name.replace('_', "-"));
            let quoted = wrong.map(|_| format!("{search:?} is not a DNS name"));
            notes.name(&at.item("searches", i), quoted);
        }
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        let at = at.item("options", i);
        let text = |text: &str| text.contains(|c: char| c.is_whitespace() || c.is_control());
        if option.name.as_deref().unwrap_or_default().is_empty() {
            notes.error(&at.key("name"), "must not be empty");
        }
        if option.name.as_deref().is_some_and(text) || option.value.as_deref().is_some_and(text) {
            notes.error(&at, "an option of resolv.conf has no space in it");
        }
    }
}

/// Namespaces of the machine, and what goes with them.
pub(super) fn host(spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        notes.error(
            &at.key("shareProcessNamespace"),
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    if spec.host_network != Some(true) {
        return;
    }
    for (list, i, container) in all_containers(spec) {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let taken = port.host_port.filter(|port| *port != 0);
            if taken.is_some_and(|taken| taken != port.container_port) {
                notes.error(
                    &at.item(list, i).item("ports", j).key("hostPort"),
                    "must match containerPort when hostNetwork is true",
                );
            }
        }
    }
}

pub(super) fn deadlines(spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    if spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        notes.error(
            &at.key("terminationGracePeriodSeconds"),
            "can't be negative",
        );
    }
    super::within(
        spec.active_deadline_seconds,
        1,
        i64::from(i32::MAX),
        &at.key("activeDeadlineSeconds"),
        notes,
    );
}

/// `resources` of the pod, against those of its containers. (Kubernetes: `validatePodResources`)
pub(super) fn resources(spec: &PodSpec, at: &Path, notes: &mut Notes<'_>) {
    let Some(own) = &spec.resources else { return };
    let at = at.key("resources");
    let (limits, requests) = super::container::requirements(own, &at, notes);
    for (list, of_pod) in [("limits", &limits), ("requests", &requests)] {
        for name in of_pod.keys().filter(|name| **name == "ephemeral-storage") {
            notes.error(
                &at.key(list).key((*name).to_owned()),
                "must be a supported resource for pods: cpu, memory",
            );
        }
    }
    // Errors of the containers' own are noted where they are.
    let quiet = |list: fn(&ResourceRequirements) -> Option<&super::container::Amounts>| {
        let mut all: Vec<BTreeMap<&str, Quantity>> = Vec::new();
        for container in &spec.containers {
            let given = container.resources.as_ref().and_then(list);
            all.push(amounts(given));
        }
        all
    };
    for of_container in quiet(|r| r.limits.as_ref()) {
        for (name, amount) in of_container {
            if let Some(most) = limits.get(name).filter(|most| **most < amount) {
                notes.error(
                    &at.key("limits").key(name.to_owned()),
                    format!("{most} is less than a container's limit of {amount}"),
                );
            }
        }
    }
    let mut sum: BTreeMap<&str, i64> = BTreeMap::new();
    for of_container in quiet(|r| r.requests.as_ref().or(r.limits.as_ref())) {
        for (name, amount) in of_container {
            let total = sum.entry(name).or_default();
            *total = total.saturating_add(amount.milli());
        }
    }
    for (name, total) in sum {
        if let Some(given) = requests.get(name).filter(|given| given.milli() < total) {
            notes.error(
                &at.key("requests").key(name.to_owned()),
                format!("{given} must be greater than or equal to aggregate container requests"),
            );
        }
    }
}
