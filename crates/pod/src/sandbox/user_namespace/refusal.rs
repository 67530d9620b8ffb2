//! Why a machine makes no user namespace, by the name of the setting.

/// One line for people: the setting that refuses, and what to do. `errno` is what the kernel said.
pub(in crate::sandbox) fn refusal(errno: i32) -> String {
    explain(errno, &|path| std::fs::read_to_string(path).ok())
}

pub(super) fn explain(errno: i32, read: &dyn Fn(&str) -> Option<String>) -> String {
    let is = |path: &str, value: &str| read(path).is_some_and(|text| text.trim() == value);
    let setting = |name: &str, value: &str, right: &str| {
        format!("sysctl {name} is {value} (as root: sysctl -w {name}={right})")
    };
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return setting("user.max_user_namespaces", "0", "15000");
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return setting("kernel.unprivileged_userns_clone", "0", "1");
    }
    if is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        return setting("kernel.apparmor_restrict_unprivileged_userns", "1", "0");
    }
    match errno {
        libc::ENOSPC | libc::EUSERS => {
            let limit = read("/proc/sys/user/max_user_namespaces").unwrap_or_default();
            let limit = limit.trim();
            format!(
                "sysctl user.max_user_namespaces ({limit}) is used up, or they are nested too deep"
            )
        }
        libc::EINVAL | libc::ENOSYS => "the kernel is built without them (CONFIG_USER_NS)".into(),
        libc::EPERM | libc::EACCES => {
            "a policy forbids them (a container's seccomp profile, a security module, a chroot)"
                .into()
        }
        errno => super::super::error::reason(errno),
    }
}
