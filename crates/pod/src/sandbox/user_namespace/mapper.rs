//! Writes the maps of a namespace from outside: by newuidmap and newgidmap, which may give a user the ranges that are theirs,
//! or, for root without CAP_SYS_ADMIN, by itself.
//!
//! A child is forked before the namespace is entered and stays where it is; from inside nobody may map more than their own id.

use std::fmt::Write as _;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::CapabilitySet;

use super::ids;
use crate::sandbox::error::{Doing, Failed};
use crate::sys;

/// More lines are refused by the kernel (`UID_GID_MAP_MAX_EXTENTS`).
const LINES_MAX: usize = 340;

/// How the ids are mapped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    /// Each id to itself.
    Same { users: String, groups: String },
    /// By these programs, which get these lines.
    Ranges {
        newuidmap: PathBuf,
        newgidmap: PathBuf,
        users: Vec<[u32; 3]>,
        groups: Vec<[u32; 3]>,
    },
}

impl Mapping {
    /// What this user can have beside their own id; or why nothing, and what helps.
    pub(super) fn find(uid: u32, gid: u32) -> Result<Self, String> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        if uid == 0 {
            let ours = rustix::thread::capabilities(None).map(|sets| sets.effective);
            let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETFCAP;
            return match ours.is_ok_and(|ours| ours.contains(needed)) {
                true => Ok(Self::Same {
                    users: same(&read("/proc/self/uid_map")),
                    groups: same(&read("/proc/self/gid_map")),
                }),
                false => Err("the capabilities SETUID, SETGID and SETFCAP are missing".into()),
            };
        }
        let mut names = ids::names(&read("/etc/passwd"), uid);
        if names.is_empty() {
            // An account that is not in the file, such as LDAP's; newuidmap looks itself.
            names.extend(std::env::var("USER").ok().filter(|name| !name.is_empty()));
        }
        let owner = names.first().cloned().unwrap_or_else(|| uid.to_string());
        let mut lines = Vec::new();
        for (file, own) in [("/etc/subuid", uid), ("/etc/subgid", gid)] {
            let ranges = ids::ranges(&read(file), &names, uid);
            if ranges.is_empty() {
                return Err(format!(
                    "{owner} has no range in {file} (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {owner})"
                ));
            }
            lines.push(ids::lines(own, &ranges[..ranges.len().min(LINES_MAX - 1)]));
        }
        let program = |name: &str| {
            find_program(name).ok_or_else(|| format!("{name} is missing (package uidmap)"))
        };
        let (newuidmap, newgidmap) = (program("newuidmap")?, program("newgidmap")?);
        let [users, groups] = <[_; 2]>::try_from(lines).unwrap_or_default();
        Ok(Self::Ranges {
            newuidmap,
            newgidmap,
            users,
            groups,
        })
    }

    /// Maps the ids of a process. Runs outside of its namespace.
    fn apply(&self, pid: u32) -> Result<(), String> {
        match self {
            Self::Same { users, groups } => {
                let write = |file: &str, text: &str| {
                    let path = format!("/proc/{pid}/{file}");
                    std::fs::write(&path, text).map_err(|error| format!("{path}: {error}"))
                };
                write("uid_map", users)?;
                write("gid_map", groups)
            }
            Self::Ranges {
                newuidmap,
                newgidmap,
                users,
                groups,
            } => {
                // Side by side: each costs a millisecond or two.
                let users = run(newuidmap, pid, users);
                let groups = run(newgidmap, pid, groups);
                finish(newuidmap, users)?;
                finish(newgidmap, groups)
            }
        }
    }
}

/// Every id of a map to itself.
fn same(map: &str) -> String {
    let mut text = String::new();
    for ids in ids::mapped(map) {
        let count = u64::from(ids.end() - ids.start()) + 1;
        writeln!(text, "{0} {0} {count}", ids.start()).expect("writing to a String can't fail");
    }
    text
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin".into(), "/usr/sbin".into(), "/bin".into()])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

fn run(program: &Path, pid: u32, lines: &[[u32; 3]]) -> io::Result<std::process::Child> {
    Command::new(program)
        .arg(pid.to_string())
        .args(lines.iter().flatten().map(u32::to_string))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

fn finish(program: &Path, child: io::Result<std::process::Child>) -> Result<(), String> {
    let name = program.display();
    let ended = child.and_then(std::process::Child::wait_with_output);
    let ended = ended.map_err(|error| format!("{name}: {error}"))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let said = said.lines().next().map_or_else(
        || format!("{name} failed ({})", ended.status),
        str::to_owned,
    );
    Err(said)
}

/// The child that maps, waiting for the namespace.
pub(super) struct Mapper {
    child: Pid,
    go: PipeWriter,
    answer: PipeReader,
}

impl Mapper {
    /// Forks the child. This process must have one thread.
    pub(super) fn start(mapping: &Mapping) -> Result<Self, Failed> {
        let step = || "start what maps the ids".to_owned();
        let (told, go) = io::pipe().doing(step)?;
        let (answer, mut tell) = io::pipe().doing(step)?;
        let pid = std::process::id();
        if let Some(child) = sys::fork_child().doing(step)? {
            return Ok(Self { child, go, answer });
        }
        // In the child. Its parent may have given up: then there is nothing to be mapped.
        drop((go, answer));
        if (&told).read_exact(&mut [0]).is_ok() {
            let text = mapping.apply(pid).err().unwrap_or_default();
            // A parent that is gone does not listen.
            tell.write_all(text.as_bytes()).ok();
        }
        sys::exit_now(0)
    }

    /// Has the ids of this process mapped, which has entered its namespace. Gives the reason when there are none but its own.
    pub(super) fn map(mut self) -> Result<Option<String>, Failed> {
        let step = || "have the ids mapped".to_owned();
        self.go.write_all(b".").doing(step)?;
        let mut lack = String::new();
        self.answer.read_to_string(&mut lack).doing(step)?;
        rustix::io::retry_on_intr(|| waitpid(Some(self.child), WaitOptions::empty()))
            .doing(step)?;
        Ok((!lack.is_empty()).then_some(lack))
    }
}

/// Maps id 0 inside to this process's own, where nothing is mapped yet.
pub(super) fn map_own(uid: u32, gid: u32) -> Result<(), Failed> {
    let is_empty = |file: &str| {
        let text = std::fs::read_to_string(file).doing(|| format!("read {file}"))?;
        Ok(text.trim().is_empty())
    };
    let write =
        |file: &str, text: &str| std::fs::write(file, text).doing(|| format!("write {file}"));
    if is_empty("/proc/self/uid_map")? {
        write("/proc/self/uid_map", &format!("0 {uid} 1\n"))?;
    }
    if is_empty("/proc/self/gid_map")? {
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/gid_map", &format!("0 {gid} 1\n"))?;
    }
    Ok(())
}
