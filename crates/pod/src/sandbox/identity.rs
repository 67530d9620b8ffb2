//! Who a container's processes are: from what the caller says to what the stage does.

use std::path::PathBuf;

use rustix::thread::CapabilitySet;

use super::error::StartError;
use super::seccomp;
use super::spec::{ContainerStart, SandboxSpec};
use super::user_namespace::Ids;
use super::wire::Identity;
use crate::plan::Security;

/// Where programs are looked for when nobody says. (containerd: `defaultPathEnv`)
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Identity {
    /// The init does nothing and may nothing.
    pub(super) fn of_init() -> Self {
        Self {
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            uid: None,
            image_user: None,
            gid: None,
            groups: Vec::new(),
            ids: Ids::default(),
            groups_strict: false,
            capabilities: 0,
            wanted: 0,
            no_new_privileges: true,
            seccomp: None,
            traceable: false,
            oom_score_adj: None,
            rlimits: Vec::new(),
            cgroups: Vec::new(),
        }
    }

    /// What holds for a container of this pod, and for the commands in it.
    pub(super) fn of_container(
        start: &ContainerStart,
        pod: &SandboxSpec,
        ids: &Ids,
    ) -> Result<Self, StartError> {
        let security = &start.security;
        verify_non_root(security, start.image_user.as_deref())?;
        let (capabilities, wanted) = capabilities(security)?;
        let seccomp = match security.privileged {
            true => None,
            false => seccomp::filter(&security.seccomp, &pod.seccomp_dir, capabilities)?,
        };
        Ok(Self {
            env: environment(start, pod),
            cwd: start.cwd.clone().unwrap_or_else(|| PathBuf::from("/")),
            uid: security.uid,
            image_user: start.image_user.clone(),
            gid: security.gid,
            groups: start.groups.clone(),
            ids: ids.clone(),
            groups_strict: start.groups_strict,
            capabilities,
            wanted,
            no_new_privileges: security.no_new_privileges && !security.privileged,
            seccomp,
            traceable: pod.share_process_namespace
                || capabilities & CapabilitySet::SYS_PTRACE.bits() != 0,
            oom_score_adj: start.oom_score_adj,
            rlimits: start.rlimits.clone(),
            cgroups: start.cgroups.clone(),
        })
    }
}

/// The capabilities, and those of them that were asked for by name. A privileged container has all, whatever it adds or drops.
fn capabilities(security: &Security) -> Result<(u64, u64), StartError> {
    if security.privileged {
        return Ok((u64::MAX, 0));
    }
    let (add, drop) = (&security.add_capabilities, &security.drop_capabilities);
    let named: Vec<String> = add.iter().filter(|name| *name != "ALL").cloned().collect();
    let wanted = super::effective_set(&named, &["ALL".to_owned()])?;
    Ok((super::effective_set(add, drop)?, wanted))
}

fn environment(start: &ContainerStart, pod: &SandboxSpec) -> Vec<(String, String)> {
    let mut env = start.env.clone();
    let has = |env: &[(String, String)], name: &str| env.iter().any(|(known, _)| known == name);
    if !has(&env, "PATH") {
        env.insert(0, ("PATH".into(), PATH.into()));
    }
    if !has(&env, "HOSTNAME") {
        env.push(("HOSTNAME".into(), pod.hostname.clone()));
    }
    env
}

/// `runAsNonRoot`, as the kubelet decides it (`verifyRunAsNonRoot`): a name of the image's is not trusted to be somebody else than root,
/// although it could be looked up here, so that what starts here starts there.
pub(super) fn verify_non_root(
    security: &Security,
    image_user: Option<&str>,
) -> Result<(), StartError> {
    let config = |why: &str| Err(StartError::Config(why.to_owned()));
    if !security.non_root {
        return Ok(());
    }
    match security.uid {
        Some(0) => return config("container's runAsUser breaks non-root policy"),
        Some(_) => return Ok(()),
        None => {}
    }
    let user = image_user.unwrap_or_default();
    let name = user.split(':').next().unwrap_or_default();
    match name.parse::<u32>() {
        Ok(0) => config("container has runAsNonRoot and image will run as root"),
        Ok(_) => Ok(()),
        Err(_) if name.is_empty() => {
            config("container has runAsNonRoot and image will run as root")
        }
        Err(_) => config(&format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        )),
    }
}
