//! A profile in JSON: that of the OCI runtime specification (what `localhostProfile` means on a node), and Docker's, which is a
//! superset with conditions on capabilities, architectures and kernels.
//!
//! Keys that neither has are passed over, as on a node: they are comments, there are no others in the wild.

use serde::Deserialize;

use super::profile::{Action, Condition, Op, Profile, Rule};
use super::table::Arch;

/// What conditional rules ask about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    /// The container's bounding set, as bits of `CAP_*`.
    pub(super) capabilities: u64,
    /// Version and patch level of the kernel.
    pub(super) kernel: (u32, u32),
}

/// `6.1.0-13-amd64` → (6, 1).
pub(super) fn kernel(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Syscall>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscall {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Reads a profile. The error says what is wrong and where.
pub(super) fn parse(text: &[u8], machine: Machine) -> Result<Profile, String> {
    let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if file.listener_path.is_some_and(|path| !path.is_empty()) {
        return Err("listenerPath: nobody answers notifications here".to_owned());
    }
    let default = action(&file.default_action, file.default_errno_ret)
        .map_err(|why| format!("defaultAction: {why}"))?;
    let mut rules = Vec::new();
    for (at, syscall) in file.syscalls.into_iter().flatten().enumerate() {
        rule(syscall, machine, &mut rules).map_err(|why| format!("syscalls[{at}]: {why}"))?;
    }
    Ok(Profile {
        default,
        arches: arches(file.architectures, file.arch_map)?,
        flags: flags(file.flags)?,
        rules,
    })
}

fn arches(list: Option<Vec<String>>, map: Option<Vec<ArchMap>>) -> Result<Vec<Arch>, String> {
    let mut names = list.unwrap_or_default();
    for entry in map.into_iter().flatten() {
        if arch(&entry.architecture)? == Some(Arch::NATIVE) {
            names.push(entry.architecture);
            names.extend(entry.sub_architectures.into_iter().flatten());
        }
    }
    let mut arches = vec![Arch::NATIVE];
    for name in names {
        if let Some(arch) = arch(&name)?
            && !arches.contains(&arch)
        {
            arches.push(arch);
        }
    }
    Ok(arches)
}

/// None: another machine's.
fn arch(name: &str) -> Result<Option<Arch>, String> {
    let Some(short) = name.strip_prefix("SCMP_ARCH_") else {
        return Err(format!("{name:?} is no architecture (SCMP_ARCH_…)"));
    };
    Ok(match short {
        "X86_64" => Some(Arch::X86_64),
        "X86" => Some(Arch::X86),
        "X32" => Some(Arch::X32),
        "AARCH64" => Some(Arch::Aarch64),
        "ARM" => Some(Arch::Arm),
        _ => None,
    })
}

fn flags(names: Option<Vec<String>>) -> Result<u32, String> {
    names.into_iter().flatten().try_fold(0, |flags, name| {
        Ok(flags
            | match name.as_str() {
                // The stage has one thread; without a listener nothing waits.
                "SECCOMP_FILTER_FLAG_TSYNC" | "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 0,
                "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG as u32,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
                _ => return Err(format!("flags: {name:?} is not known")),
            })
    })
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, String> {
    // The kernel has 12 bits for it.
    let number = match errno.unwrap_or(libc::EPERM as u32) {
        number @ 0..=4095 => number as u16,
        other => {
            return Err(format!(
                "errnoRet: {other} is no error number (at most 4095)"
            ));
        }
    };
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_ERRNO" => Action::Errno(number),
        "SCMP_ACT_TRACE" => Action::Trace(number),
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_NOTIFY" => return Err("SCMP_ACT_NOTIFY: nobody answers here".to_owned()),
        _ => return Err(format!("{name:?} is no action (SCMP_ACT_…)")),
    })
}

fn rule(syscall: Syscall, machine: Machine, rules: &mut Vec<Rule>) -> Result<(), String> {
    let names: Vec<String> = match (syscall.name, syscall.names) {
        (Some(name), None) => vec![name],
        (None, Some(names)) if !names.is_empty() => names,
        (None, _) => return Err("names: a rule needs one at least".to_owned()),
        (Some(_), Some(_)) => return Err("name and names exclude each other".to_owned()),
    };
    let action =
        action(&syscall.action, syscall.errno_ret).map_err(|why| format!("action: {why}"))?;
    if !applies(syscall.includes, syscall.excludes, machine)? {
        return Ok(());
    }
    let mut conditions = Vec::new();
    for (at, arg) in syscall.args.into_iter().flatten().enumerate() {
        conditions.push(condition(&arg).map_err(|why| format!("args[{at}].{why}"))?);
    }
    // Several conditions on one argument are alternatives, those on several arguments belong together. (runc: `matchCall`)
    let indices: Vec<u8> = conditions.iter().map(|c| c.index).collect();
    let twice = |(at, index): (usize, &u8)| indices[..at].contains(index);
    let new = |conditions| Rule {
        names: names.clone(),
        action,
        conditions,
    };
    if indices.iter().enumerate().any(twice) {
        rules.extend(conditions.into_iter().map(|condition| new(vec![condition])));
    } else {
        rules.push(new(conditions));
    }
    Ok(())
}

fn condition(arg: &Arg) -> Result<Condition, String> {
    let op = match arg.op.as_str() {
        "SCMP_CMP_NE" => Op::Ne,
        "SCMP_CMP_LT" => Op::Lt,
        "SCMP_CMP_LE" => Op::Le,
        "SCMP_CMP_EQ" => Op::Eq,
        "SCMP_CMP_GE" => Op::Ge,
        "SCMP_CMP_GT" => Op::Gt,
        "SCMP_CMP_MASKED_EQ" => Op::MaskedEq,
        other => return Err(format!("op: {other:?} is no comparison (SCMP_CMP_…)")),
    };
    if arg.index > 5 {
        return Err(format!(
            "index: {} (a call has arguments 0 to 5)",
            arg.index
        ));
    }
    Ok(Condition {
        index: arg.index,
        op,
        value: arg.value,
        masked: arg.value_two,
        int: false,
    })
}

/// Whether a rule of Docker's counts here. (moby/profiles, `setupSeccomp`)
fn applies(
    includes: Option<Filter>,
    excludes: Option<Filter>,
    machine: Machine,
) -> Result<bool, String> {
    const ARCH: &str = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let bits = |names: &[String]| {
        let known = names.iter().map(|name| {
            crate::sandbox::capability::bit(name).ok_or_else(|| format!("caps: unknown {name:?}"))
        });
        known.collect::<Result<Vec<u64>, String>>()
    };
    let has = |bit: &u64| machine.capabilities & bit != 0;
    let includes = includes.unwrap_or_default();
    let excludes = excludes.unwrap_or_default();
    let some = |list: Option<Vec<String>>| list.filter(|list| !list.is_empty());
    let mut yes = true;
    if let Some(caps) = some(includes.caps) {
        yes &= bits(&caps)?.iter().all(has);
    }
    if let Some(arches) = some(includes.arches) {
        yes &= arches.iter().any(|arch| arch == ARCH);
    }
    if let Some(least) = includes.min_kernel {
        yes &= machine.kernel >= kernel(&least);
    }
    if let Some(caps) = some(excludes.caps) {
        yes &= !bits(&caps)?.iter().any(has);
    }
    if let Some(arches) = some(excludes.arches) {
        yes &= !arches.iter().any(|arch| arch == ARCH);
    }
    if let Some(least) = excludes.min_kernel {
        yes &= machine.kernel < kernel(&least);
    }
    Ok(yes)
}
