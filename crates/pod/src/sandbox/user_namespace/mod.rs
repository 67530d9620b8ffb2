//! A user namespace for those who are not root: inside they are, and everything that a pod is made of belongs to them.
//!
//! ```text
//!   uid 1000, no privilege ──▶ unshare(CLONE_NEWUSER) ──▶ uid 0 inside, every capability over what is made from here on
//!                                   ▲ the maps
//!     ranges of /etc/subuid, /etc/subgid ── newuidmap, newgidmap, by a child that stays outside
//!     else 0 ◀▶ 1000 alone ──────────────── by this process; setgroups(2) is given up for that (user_namespaces(7))
//! ```
//!
//! The process goes on inside; nothing is executed anew. Its network namespace stays the machine's, so that it can listen there
//! as its user can. A threaded process can't enter a user namespace: this comes before any thread.
//!
//! Root without CAP_SYS_ADMIN (in a container) goes the same way, with every id of its own when it may map them.

mod ids;
mod mapper;
mod refusal;

use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use rustix::thread::{CapabilitySet, UnshareFlags};

use super::error::{Doing, Failed, SandboxError};
use crate::sys;
use mapper::{Mapper, Mapping};

pub(crate) use ids::Ids;
pub(super) use refusal::refusal;

/// The inode of the machine's own user namespace. (linux/proc_ns.h, `PROC_USER_INIT_INO`)
const INITIAL: u64 = 0xEFFF_FFFD;

/// What was so before this process entered its namespace.
#[derive(Debug)]
struct Before {
    uid: u32,
    /// Why there is one id only.
    lack: Option<String>,
}

static BEFORE: OnceLock<Before> = OnceLock::new();

/// Makes this process root of a user namespace of its own, when it is not root with CAP_SYS_ADMIN already. To be called before
/// any thread is started; files whose owners matter (layers of images) are to be touched after it.
pub fn enter_user_namespace() -> Result<(), SandboxError> {
    if BEFORE.get().is_some() || has_rights()? {
        return Ok(());
    }
    if super::private::has_threads() {
        return Err(SandboxError::Threads);
    }
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let (mapper, mut lack) = match Mapping::find(uid, gid) {
        Ok(mapping) => (Some(Mapper::start(&mapping)?), None),
        Err(lack) => (None, Some(lack)),
    };
    let refused = |errno: Failed| SandboxError::UserNamespace(refusal(errno.errno));
    sys::unshare(UnshareFlags::NEWUSER)
        .doing(|| "make a user namespace".into())
        .map_err(refused)?;
    if let Some(mapper) = mapper {
        lack = mapper.map()?;
    }
    // What nobody else has mapped.
    mapper::map_own(uid, gid).map_err(refused)?;
    BEFORE.get_or_init(|| Before { uid, lack });
    Ok(())
}

/// Whether this process can make namespaces and mounts as it is.
fn has_rights() -> Result<bool, Failed> {
    let ours = rustix::thread::capabilities(None).doing(|| "read the capabilities".into())?;
    let admin = ours.effective.contains(CapabilitySet::SYS_ADMIN);
    Ok(rustix::process::geteuid().is_root() && admin)
}

/// Whether this process is in a user namespace that is not the machine's: there are no `trusted.*` attributes then, no device
/// nodes can be made, and not every id exists.
pub fn in_user_namespace() -> bool {
    std::fs::metadata("/proc/self/ns/user").is_ok_and(|link| link.ino() != INITIAL)
}

/// The user id of whoever started this process, also after [`enter_user_namespace`].
pub fn invoker() -> u32 {
    match BEFORE.get() {
        Some(before) => before.uid,
        None => rustix::process::geteuid().as_raw(),
    }
}

/// The ids that this process, and so its pods, can have.
pub(super) fn ids() -> Ids {
    Ids::now(BEFORE.get().and_then(|before| before.lack.as_deref()))
}

#[cfg(test)]
mod tests;
