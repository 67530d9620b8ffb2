//! `sysctls`: kernel parameters of the pod's own namespaces. The kernel looks up `/proc/sys/net` and the parameters of IPC by who
//! opens them, so the stage sets them when it is in the pod's namespaces and still has the machine's `/proc`.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::sandbox::error::{Doing, Failed};
use crate::sandbox::sysctl::path;

/// Sets them, by name, in order; a later one of the same name wins.
pub(super) fn set_all(sysctls: &[(String, String)]) -> Result<(), Failed> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top =
        openat(CWD, "/proc/sys", flags, Mode::empty()).doing(|| "open /proc/sys".to_owned())?;
    for (name, value) in sysctls {
        let step = || format!("set the sysctl {name} to {value:?}");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = openat2(&top, path(name), flags, Mode::empty(), resolve).doing(step)?;
        rustix::io::write(file, value.as_bytes()).doing(step)?;
    }
    Ok(())
}
