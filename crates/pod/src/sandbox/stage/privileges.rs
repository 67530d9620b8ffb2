//! From root with everything to the user of the container with what is left to it.
//!
//! The order is the kernel's: the bounding set needs CAP_SETPCAP, groups need CAP_SETGID, the user goes last, and a filter for
//! system calls needs CAP_SYS_ADMIN unless no_new_privs is set. Another user than root keeps the container's capabilities up to
//! the exec, which takes them (there are no ambient ones), as container runtimes have it: a program in a directory that only root
//! may enter starts all the same. (runc: `finalizeNamespace`)

use rustix::fs::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::Reporter;
use super::accounts::Account;
use crate::sandbox::capability;
use crate::sandbox::error::{Doing, Failed};
use crate::sandbox::wire::Identity;
use crate::sys;

/// Says which of the capabilities that were asked for by name this machine's root lacks.
pub(super) fn warn_of_missing(reporter: &Reporter, identity: &Identity) -> Result<(), Failed> {
    let ours = rustix::thread::capabilities(None).doing(|| "read the capabilities".into())?;
    let missing =
        CapabilitySet::from_bits_retain(identity.wanted & identity.capabilities) - ours.permitted;
    for (number, _) in capability::each(missing) {
        reporter.warn(format!(
            "the capability {} is not there to be given",
            capability::name(number)
        ));
    }
    Ok(())
}

/// Whether the container may change mounts, those that podkit made for it included.
pub(super) fn may_mount(identity: &Identity) -> bool {
    identity.capabilities & CapabilitySet::SYS_ADMIN.bits() != 0
}

/// Becomes the user, with the container's capabilities, and what [`confine`] needs.
pub(super) fn become_user(account: &Account, identity: &Identity) -> Result<(), Failed> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    restrict_bounding_set(identity.capabilities)?;
    let ids = &identity.ids;
    for (there, what, id) in [
        (ids.has_user(account.uid), "user", account.uid),
        (ids.has_group(account.gid), "group", account.gid),
    ] {
        if !there {
            return Err(Failed {
                step: format!("become {what} {id}: {}", ids.why()),
                errno: libc::EINVAL,
            });
        }
    }
    // Those of the file were looked at before the pod was started; the image's are left out where they don't exist.
    let groups: Vec<Gid> = account
        .groups
        .iter()
        .filter(|gid| ids.has_group(**gid))
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    let (user, group) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    if ids.setgroups {
        set_thread_groups(&groups).doing(|| "set the groups".into())?;
    }
    set_thread_res_gid(group, group, group).doing(|| format!("become group {}", account.gid))?;
    rustix::thread::set_keep_capabilities(true).doing(|| "keep the capabilities".into())?;
    set_thread_res_uid(user, user, user).doing(|| format!("become user {}", account.uid))?;
    rustix::thread::set_keep_capabilities(false).doing(|| "keep the capabilities".into())?;
    let needed = match confining_takes_rights(identity) {
        true => CapabilitySet::SYS_ADMIN.bits(),
        false => 0,
    };
    set_capabilities(identity.capabilities | needed)?;
    if identity.no_new_privileges {
        rustix::thread::set_no_new_privs(true).doing(|| "set no_new_privs".into())?;
    }
    Ok(())
}

/// Whether [`confine`] needs CAP_SYS_ADMIN, which the program need not have.
pub(super) fn confining_takes_rights(identity: &Identity) -> bool {
    identity.seccomp.is_some() && !identity.no_new_privileges
}

/// Installs the filter for system calls. The very last: without no_new_privs the profile must still allow capset, for a container
/// that has not CAP_SYS_ADMIN; and execve in any case.
pub(super) fn confine(identity: &Identity) -> Result<(), Failed> {
    let Some(filter) = &identity.seccomp else {
        return Ok(());
    };
    sys::install_filter(&filter.program, filter.flags).doing(|| "install seccomp filter".into())?;
    if confining_takes_rights(identity) && !may_mount(identity) {
        set_capabilities(identity.capabilities)?;
    }
    Ok(())
}

/// Leaves this process and whatever it executes with at most these capabilities, and nothing that could give it others.
pub(super) fn drop_all() -> Result<(), Failed> {
    restrict_bounding_set(0)?;
    set_capabilities(0)?;
    rustix::thread::set_no_new_privs(true).doing(|| "set no_new_privs".into())
}

fn restrict_bounding_set(capabilities: u64) -> Result<(), Failed> {
    use rustix::thread::{capability_is_in_bounding_set, remove_capability_from_bounding_set};
    let others = CapabilitySet::from_bits_retain(!capabilities);
    for (number, capability) in capability::each(others) {
        match capability_is_in_bounding_set(capability) {
            // Numbers above the kernel's last are invalid.
            Err(_) => break,
            Ok(false) => {}
            Ok(true) => remove_capability_from_bounding_set(capability)
                .doing(|| format!("drop the capability {}", capability::name(number)))?,
        }
    }
    Ok(())
}

fn set_capabilities(capabilities: u64) -> Result<(), Failed> {
    let step = || "set the capabilities".to_owned();
    rustix::thread::clear_ambient_capability_set().doing(step)?;
    let ours = rustix::thread::capabilities(None).doing(step)?;
    let kept = ours.permitted & CapabilitySet::from_bits_retain(capabilities);
    // Nothing inheritable (CVE-2022-24769).
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).doing(step)
}
