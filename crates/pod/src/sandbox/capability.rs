//! Capabilities by name, and the set that a container starts with.

use rustix::thread::CapabilitySet;

/// In the order of their numbers (linux/capability.h), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd gives a container that asks for nothing (`oci.defaultUnixCaps`).
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A name that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct CapabilityError(pub String);

fn number(name: &str) -> Option<usize> {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES.iter().position(|known| *known == name)
}

fn one(name: &str) -> Result<CapabilitySet, CapabilityError> {
    number(name)
        .map(|number| CapabilitySet::from_bits_retain(1 << number))
        .ok_or_else(|| CapabilityError(name.to_owned()))
}

/// Its bit; none when Linux has no such capability.
pub(super) fn bit(name: &str) -> Option<u64> {
    number(name).map(|number| 1 << number)
}

/// Every capability of `set` on its own, with its number.
pub(super) fn each(set: CapabilitySet) -> impl Iterator<Item = (usize, CapabilitySet)> {
    (0..64)
        .map(|number| (number, CapabilitySet::from_bits_retain(1 << number)))
        .filter(move |(_, capability)| set.contains(*capability))
}

/// Its name, or its number when it is newer than this table.
pub(super) fn name(number: usize) -> String {
    NAMES
        .get(number)
        .map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

/// The capabilities that a container may have: the default ones, with those of `add`, without those of `drop`, where `ALL`
/// means every one and a name given one by one beats an `ALL` on the other side. (Kubernetes API: v1 Capabilities.)
///
/// The bits are those of `CAP_*`. For a user other than root they only bound what a program with file capabilities can get.
pub fn effective_set(add: &[String], drop: &[String]) -> Result<u64, CapabilityError> {
    let all = |names: &[String]| names.iter().any(|name| name == "ALL" || name == "CAP_ALL");
    let named = |names: &[String]| {
        names
            .iter()
            .filter(|name| *name != "ALL" && *name != "CAP_ALL")
            .try_fold(CapabilitySet::empty(), |set, name| Ok(set | one(name)?))
    };
    let (added, dropped) = (named(add)?, named(drop)?);
    let mut set = CapabilitySet::empty();
    if all(add) {
        set = CapabilitySet::from_bits_retain((1 << NAMES.len()) - 1);
    } else if !all(drop) {
        for name in DEFAULT {
            set |= one(name)?;
        }
    }
    Ok(((set | added) - dropped).bits())
}
