//! Where podkit keeps what it must keep: the machine's directories for root, a user's own for everybody else.
//!
//! ```text
//!            root              everybody else                                          --state-dir DIR
//!   run      /run/podkit       $XDG_RUNTIME_DIR, /run/user/UID or /tmp, /podkit(-UID)  DIR/run
//!   lib      /var/lib/podkit   $XDG_DATA_HOME or ~/.local/share, /podkit               DIR/lib
//! ```
//!
//! (XDG Base Directory Specification.) The answer is the same before and after the user namespace is entered, so that the
//! commands that need none find what `run` has made.

use std::fs::{DirBuilder, Permissions, symlink_metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::sandbox::{in_user_namespace, invoker};

/// For as long as a pod runs.
pub(crate) fn run(state_dir: Option<&Path>) -> PathBuf {
    match state_dir {
        Some(dir) => dir.join("run"),
        None if is_machines() => "/run/podkit".into(),
        None => run_of_user(variable("XDG_RUNTIME_DIR"), user(), Path::new("/run/user")),
    }
}

/// For longer.
pub(crate) fn lib(state_dir: Option<&Path>) -> PathBuf {
    match state_dir {
        Some(dir) => dir.join("lib"),
        None if is_machines() => "/var/lib/podkit".into(),
        None => lib_of_user(variable("XDG_DATA_HOME"), variable("HOME")),
    }
}

/// Makes the directory of [`run`] when it is a user's, and makes sure that nobody else has laid it there: `/tmp` is everybody's.
pub(crate) fn secure(run: &Path) -> io::Result<()> {
    let name = run.file_name().and_then(|name| name.to_str());
    if name.is_none_or(|name| !name.starts_with("podkit")) || run == Path::new("/run/podkit") {
        return Ok(());
    }
    match DirBuilder::new().mode(0o700).create(run) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let found = symlink_metadata(run)?;
    let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if ours && found.mode() & 0o022 == 0 {
        return std::fs::set_permissions(run, Permissions::from_mode(0o700));
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "it must be this user's own directory, that nobody else can write to: remove it, or set XDG_RUNTIME_DIR",
    ))
}

/// Whether the machine's directories are ours: for root, and not for a user who is root of a user namespace only. (A container
/// whose root is such a user has a /run of its own.)
fn is_machines() -> bool {
    let run_is_roots = || Path::new("/run").metadata().is_ok_and(|run| run.uid() == 0);
    invoker() == 0 && (!in_user_namespace() || run_is_roots())
}

/// As the machine has it.
fn user() -> u32 {
    match invoker() {
        // Root of a namespace that somebody else has made for us.
        0 => {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            let outside = map.split_ascii_whitespace().nth(1);
            outside.and_then(|id| id.parse().ok()).unwrap_or(0)
        }
        uid => uid,
    }
}

/// An absolute path; a relative one is to be ignored. (XDG Base Directory Specification)
fn variable(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os(name).map(PathBuf::from);
    path.filter(|path| path.is_absolute())
}

fn run_of_user(xdg: Option<PathBuf>, uid: u32, users: &Path) -> PathBuf {
    let own = || {
        let path = users.join(uid.to_string());
        let me = rustix::process::geteuid().as_raw();
        let ours = path.metadata().is_ok_and(|dir| dir.uid() == me);
        ours.then_some(path)
    };
    match xdg.or_else(own) {
        Some(dir) => dir.join("podkit"),
        None => format!("/tmp/podkit-{uid}").into(),
    }
}

fn lib_of_user(xdg: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    let default = || home.unwrap_or_else(|| "/".into()).join(".local/share");
    xdg.unwrap_or_else(default).join("podkit")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_users_own_places() {
        let dir = tempfile::tempdir().unwrap();
        let path = |text: &str| Some(PathBuf::from(text));
        let run = |xdg, uid| run_of_user(xdg, uid, dir.path());
        assert_eq!(run(path("/run/user/7"), 7), Path::new("/run/user/7/podkit"));
        assert_eq!(run(None, 7), Path::new("/tmp/podkit-7"));
        std::fs::create_dir(dir.path().join("7")).unwrap();
        assert_eq!(run(None, 7), dir.path().join("7/podkit"));
        let home = path("/home/joe");
        assert_eq!(
            lib_of_user(None, home.clone()),
            Path::new("/home/joe/.local/share/podkit")
        );
        assert_eq!(lib_of_user(path("/data"), home), Path::new("/data/podkit"));
        assert_eq!(lib_of_user(None, None), Path::new("/.local/share/podkit"));
        let state = Path::new("/s");
        assert_eq!(
            (super::run(Some(state)), lib(Some(state))),
            ("/s/run".into(), "/s/lib".into())
        );
    }

    #[test]
    fn what_somebody_else_has_laid_there_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("podkit-7");
        let chmod = |mode| std::fs::set_permissions(&run, Permissions::from_mode(mode)).unwrap();
        secure(&run).unwrap();
        chmod(0o755);
        secure(&run).unwrap();
        assert_eq!(run.metadata().unwrap().mode() & 0o7777, 0o700);
        chmod(0o770);
        let refused = secure(&run).unwrap_err();
        assert!(refused.to_string().contains("nobody else"), "{refused}");
        let link = dir.path().join("podkit-8");
        symlink(dir.path(), &link).unwrap();
        assert!(secure(&link).is_err());
        // A state directory that was chosen is its chooser's.
        secure(&dir.path().join("run")).unwrap();
        assert!(!dir.path().join("run").exists());
    }
}
