//! Seccomp: which system calls a container may make, as a program that the kernel runs before each of them.
//!
//! ```text
//!   default.rs   RuntimeDefault, from syscalls.txt ─┐
//!                                                   ├─▶ Profile ─▶ compile.rs ─▶ Filter ─▶ the stage installs it
//!   json.rs      Localhost, a file ─────────────────┘   (names)     (numbers)    (BPF)
//! ```
//!
//! The supervisor compiles, the stage installs: what is wrong with a profile is said before anything is started. libseccomp was
//! rejected (a C library, and its filters are chains that a call walks through one by one); the seccompiler crate knows one
//! architecture per filter, while a 64-bit kernel runs 32-bit programs too, past a filter that does not know them.

mod compile;
mod default;
mod json;
mod profile;
mod table;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use serde::{Deserialize, Serialize};

use crate::plan::Seccomp;

/// Larger files are no profiles.
const FILE_MAX: u64 = 1 << 20;

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Filter {
    /// `SECCOMP_FILTER_FLAG_…`.
    pub(super) flags: u32,
    /// Instructions as the kernel has them (`struct sock_filter`), each as one number.
    pub(super) program: Vec<u64>,
}

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The file of `localhostProfile` could not be read.
    #[error("failed to load seccomp profile {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no profile.
    #[error("failed to load seccomp profile {}: {reason}", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place.
        reason: String,
    },
    /// The kernel takes 4096 instructions.
    #[error("the seccomp profile is too large: {0} instructions, and the kernel takes 4096")]
    TooLarge(usize),
}

/// The filter of a container with these capabilities (its bounding set); `Localhost` profiles lie below `dir`.
pub(super) fn filter(
    kind: &Seccomp,
    dir: &Path,
    capabilities: u64,
) -> Result<Option<Filter>, SeccompError> {
    match kind {
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => runtime_default(capabilities).map(Some),
        Seccomp::Localhost(file) => {
            let profile = localhost(dir, file, capabilities)?;
            compile::compile(&profile, &table::Table::new()).map(Some)
        }
    }
}

/// Compiled once for the capabilities that were asked for last: a pod's containers mostly have the same, and half a millisecond is
/// much for a start.
fn runtime_default(capabilities: u64) -> Result<Filter, SeccompError> {
    static LAST: Mutex<Option<(u64, Filter)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, filter)) = &*last
        && *known == capabilities
    {
        return Ok(filter.clone());
    }
    let table = table::Table::new();
    let filter = compile::compile(&default::runtime_default(&table, capabilities), &table)?;
    *last = Some((capabilities, filter.clone()));
    Ok(filter)
}

fn localhost(dir: &Path, file: &Path, capabilities: u64) -> Result<profile::Profile, SeccompError> {
    let path = dir.join(file);
    let text = read(dir, file).map_err(|source| SeccompError::Read {
        path: path.clone(),
        source,
    })?;
    let machine = json::Machine {
        capabilities,
        kernel: json::kernel(&rustix::system::uname().release().to_string_lossy()),
    };
    json::parse(&text, machine).map_err(|reason| SeccompError::Profile { path, reason })
}

/// Reads a regular file below `dir`; no link leads out of it.
fn read(dir: &Path, file: &Path) -> std::io::Result<Vec<u8>> {
    let dir = openat(
        CWD,
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = std::fs::File::from(openat2(dir, file, flags, Mode::empty(), resolve)?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    if metadata.len() > FILE_MAX {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    let mut text = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
