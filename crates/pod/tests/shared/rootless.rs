//! A test program once more, as a user who may nothing: with no id but their own, and with the ranges of `/etc/subuid`.
//!
//! When root runs the program, the cases that make sense for a plain user are listed a second and a third time and each is
//! executed by a child with another user id, a home, and (for the ranges) an `/etc/subuid` of its own in private mounts. When
//! a plain user runs it, the cases run as they are, by that user's own means.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The first of the ids that nobody has, on a machine that is not made to break this.
const FIRST_UID: u32 = 61_347;
/// The variable that hands the id down to the programs that one of these starts.
const UID_VARIABLE: &str = "PODKIT_TEST_UID";
/// The ids that they have beside, in the private `/etc/subuid`.
const RANGE: &str = "900000:65536";

/// The user's id: another one for each run of this program, which so knows its processes from those of others.
pub(crate) fn uid() -> u32 {
    match std::env::var(UID_VARIABLE) {
        Ok(given) => given.parse().expect("a number"),
        Err(_) => FIRST_UID + std::process::id() % 1000,
    }
}

/// The ids that a plain user has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Their own alone.
    OneId,
    /// Those of their ranges too.
    Ranges,
}

pub(crate) const WAYS: [Way; 2] = [Way::OneId, Way::Ranges];

impl Way {
    /// What the names of its cases begin with.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::OneId => "rootless::",
            Self::Ranges => "rootless_ranges::",
        }
    }

    /// Whether a case that needs this can be tested so.
    pub(crate) fn can(self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing => true,
            Needs::Ids => self == Self::Ranges,
            Needs::Root(_) => false,
        }
    }

    /// Why it can't be tested on this machine.
    pub(crate) fn lack(self) -> Option<String> {
        let there = |name: &str| {
            ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
                .iter()
                .any(|dir| Path::new(dir).join(name).is_file())
        };
        let programs: &[&str] = match self {
            Self::OneId => &[],
            Self::Ranges => &["newuidmap", "newgidmap", "unshare", "mount", "cp", "sh"],
        };
        let program = programs.iter().find(|name| !there(name));
        if let Some(program) = program {
            return Some(format!("needs the program {program}"));
        }
        None
    }

    /// Runs this program with `args`; whether it ended well. Its output goes where this program's goes.
    pub(crate) fn run(self, args: &[&str]) -> bool {
        self.run_under(&[], args)
    }

    /// The same, started by a command of root's that executes its last arguments.
    pub(crate) fn run_under(self, wrapper: &[&str], args: &[&str]) -> bool {
        let home = tempfile::tempdir().expect("a temporary directory");
        for dir in ["", "run", "tmp"] {
            let dir = home.path().join(dir);
            std::fs::create_dir_all(&dir).expect("a new directory");
            chown(&dir, Some(uid()), Some(uid())).expect("root gives away");
            std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).expect("ours");
        }
        let mut words: Vec<OsString> = wrapper.iter().map(OsString::from).collect();
        if self == Self::Ranges {
            words.extend(ranges(home.path()));
        }
        words.push(
            std::env::current_exe()
                .expect("a program knows its path")
                .into(),
        );
        words.push("as-user".into());
        words.extend(args.iter().map(OsString::from));
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env("HOME", home.path())
            .env("TMPDIR", home.path().join("tmp"))
            .env("XDG_RUNTIME_DIR", home.path().join("run"))
            .env_remove("XDG_DATA_HOME")
            .env(UID_VARIABLE, uid().to_string())
            .env("USER", "podkit-test");
        command.status().expect("the program again").success()
    }
}

/// What leads into private mounts, where the user has a name and ranges.
fn ranges(home: &Path) -> Vec<OsString> {
    let files = home.join("etc");
    for dir in [&files, &home.join("etc.all")] {
        std::fs::create_dir(dir).expect("a new directory");
    }
    let passwd = std::fs::read_to_string("/etc/passwd").expect("checked");
    let uid = uid();
    let account = format!("podkit-test:x:{uid}:{uid}::{}:/bin/sh\n", home.display());
    let range = format!("podkit-test:{RANGE}\n");
    for (name, text) in [
        ("passwd", passwd + &account),
        // By name and by number.
        ("subuid", range),
        ("subgid", format!("{uid}:{RANGE}\n")),
    ] {
        let file = files.join(name);
        std::fs::write(&file, text).expect("a new file");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("ours");
    }
    // A whole directory: a mount on each file would be one that the user can't take off. Without its directories, into which no case
    // looks, and which take their time; cp says that it leaves them out.
    let script = "cp -dp /etc/* \"$0.all\" 2>/dev/null; cp \"$0\"/* \"$0.all\" && mount --bind \"$0.all\" /etc && exec \"$@\"";
    let words = ["unshare", "--mount", "--propagation", "private", "--"];
    let words = words.into_iter().chain(["sh", "-c", script]);
    words.map(OsString::from).chain([files.into()]).collect()
}

/// `as-user ARGS...`: the same as the user.
pub(crate) fn as_user(args: &[String]) -> ExitCode {
    let mut command = Command::new("/proc/self/exe");
    let error = command.args(args).uid(uid()).gid(uid()).exec();
    eprintln!("as the user: {error}");
    ExitCode::FAILURE
}

/// What a case needs beside a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    dead_code,
    reason = "not each of the test programs has a case for each"
)]
pub(crate) enum Needs {
    /// Nothing.
    Nothing,
    /// More ids than one.
    Ids,
    /// Root, for this reason.
    Root(&'static str),
}

impl Needs {
    /// Why a case that needs this can't run as the present user.
    pub(crate) fn lack(self) -> Option<String> {
        match self {
            _ if rustix::process::geteuid().is_root() => None,
            Self::Nothing => None,
            Self::Ids if has_ranges() => None,
            Self::Ids => Some("needs root, or ranges in /etc/subuid and newuidmap".to_owned()),
            Self::Root(why) => Some(format!("needs root: {why}")),
        }
    }
}

/// Whether a child that enters a user namespace as podkit does gets more than one id.
fn has_ranges() -> bool {
    static FOUND: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        let probe = Command::new("/proc/self/exe").arg("count-ids").output();
        probe.is_ok_and(|output| output.stdout.starts_with(b"many"))
    })
}

/// `count-ids`: enters the user namespace and says `one` or `many`.
pub(crate) fn count_ids() -> ExitCode {
    let entered = podkit_pod::sandbox::enter_user_namespace();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let many = entered.is_ok() && map.lines().count() > 1;
    println!("{}", if many { "many" } else { "one" });
    ExitCode::SUCCESS
}
