//! Names as the API server validates them (apimachinery, `pkg/util/validation`). Each function returns what is wrong.

/// DNS-1123 label: containers, volumes, namespaces, host names.
pub(crate) fn dns_label(name: &str) -> Option<String> {
    if !fits_label(name) {
        return Some(format!(
            "{name:?} is not a DNS label: lower-case letters, digits and -, beginning and ending with a letter or digit"
        ));
    }
    (name.len() > 63).then(|| "longer than 63 characters".into())
}

/// DNS-1123 subdomain: pods, ConfigMaps, Secrets.
pub(crate) fn dns_subdomain(name: &str) -> Option<String> {
    if !name.split('.').all(fits_label) {
        return Some(format!(
            "{name:?} is not a DNS name: lower-case letters, digits, - and ., beginning and ending with a letter or digit"
        ));
    }
    (name.len() > 253).then(|| "longer than 253 characters".into())
}

fn fits_label(name: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !name.is_empty()
        && name.bytes().all(|b| inside(b) || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// IANA service name: named ports.
pub(crate) fn port_name(name: &str) -> Option<String> {
    let wrong = if name.is_empty() || name.len() > 15 {
        "has to have 1 to 15 characters"
    } else if !fits_label(name) || name.contains("--") {
        "may have lower-case letters, digits and single - inside"
    } else if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        "has to have a letter: a port's number is written without quotes"
    } else {
        return None;
    };
    Some(format!("the port name {name:?} {wrong}"))
}

/// Environment variable: printable ASCII without `=` (relaxed since Kubernetes 1.34).
pub(crate) fn env_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("a variable needs a name".into());
    }
    (!name
        .bytes()
        .all(|b| (b' '..=b'~').contains(&b) && b != b'='))
    .then(|| format!("{name:?} is not a variable's name: printable ASCII characters other than ="))
}

/// A key of a ConfigMap or Secret.
pub(crate) fn config_key(key: &str) -> Option<String> {
    if key.is_empty() || key.len() > 253 {
        return Some("a key has 1 to 253 characters".into());
    }
    if key == "." || key.starts_with("..") {
        return Some(format!("the key {key:?} would lead out of a volume"));
    }
    (!key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')))
    .then(|| format!("the key {key:?} has characters other than letters, digits, -, _ and ."))
}

/// Qualified name: keys of labels and annotations.
pub(crate) fn qualified(name: &str) -> Option<String> {
    let (prefix, name) = match name.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, name),
    };
    if let Some(prefix) = prefix
        && let Some(wrong) = dns_subdomain(prefix)
    {
        return Some(wrong);
    }
    label_text(name, false)
}

/// The value of a label.
pub(crate) fn label_value(value: &str) -> Option<String> {
    label_text(value, true)
}

fn label_text(text: &str, may_be_empty: bool) -> Option<String> {
    if text.is_empty() {
        return (!may_be_empty).then(|| "a name is missing".into());
    }
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    if text.len() > 63 {
        return Some("longer than 63 characters".into());
    }
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (!(text.bytes().all(inside) && edge(text.bytes().next()) && edge(text.bytes().next_back())))
        .then(|| {
            format!(
                "{text:?} may have letters, digits, -, _ and ., and begins and ends with a letter or digit"
            )
        })
}

/// A relative path that stays where it is: `subPath`, `items[].path`.
pub(crate) fn descending(path: &str) -> Option<String> {
    if path.starts_with('/') {
        return Some(format!("{path:?} has to be relative"));
    }
    path.split('/')
        .any(|part| part == "..")
        .then(|| format!("{path:?} leads out of the volume"))
}

/// The name of an HTTP header (RFC 9110, section 5.6.2).
pub(crate) fn header_name(name: &str) -> Option<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (name.is_empty() || !name.bytes().all(token))
        .then(|| format!("{name:?} is not the name of an HTTP header"))
}

/// A sysctl with dots: the API takes slashes too, and in interfaces' names each stands for the other. (sysctl(8))
pub(crate) fn sysctl(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// A sysctl of the IPC namespace. (Kubernetes: `pkg/kubelet/sysctl/namespace.go`)
pub(crate) fn ipc_sysctl(name: &str) -> bool {
    name == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// The kernel's capabilities (capabilities(7), Linux 5.9), without `CAP_`. A test holds them against the sandbox's numbers.
pub(super) const CAPABILITIES: &[&str] = &[
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// A capability as a Pod names it; the case is of no matter to container runtimes.
pub(crate) fn capability(name: &str) -> Option<String> {
    let bare = name.to_uppercase();
    if bare == "ALL" || CAPABILITIES.contains(&bare.as_str()) {
        return None;
    }
    let bare = bare.strip_prefix("CAP_").unwrap_or(&bare);
    let hint = super::nearest(bare, CAPABILITIES.iter().copied().chain(["ALL"]))
        .map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default();
    Some(format!("there is no capability {name:?}{hint}"))
}
