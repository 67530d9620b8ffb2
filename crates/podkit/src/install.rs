//! `podkit install DIR`: this binary into a shared volume, for an init container whose main container then runs
//! `DIR/podkit agent -- …` in an image that has no podkit.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use podkit_foundation::error::Failure;

use crate::cli;

pub(crate) fn command() -> Command {
    Command::new("install")
        .about("Copy this binary into a directory, such as a shared volume")
        .arg(
            Arg::new("dir")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("A directory that is there; the file is DIR/podkit"),
        )
}

/// Readers see the old file or the new one, whole.
pub(crate) fn install(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let dir = matches.get_one::<PathBuf>("dir").expect("required");
    if !dir.is_dir() {
        return Err(Failure::Usage(format!(
            "{}: it is not a directory",
            dir.display()
        )));
    }
    let target = dir.join("podkit");
    copy(Path::new("/proc/self/exe"), &target).map_err(|error| {
        Failure::runtime(format_args!("installing {}", target.display()), error)
    })?;
    cli::print(&format!("{}\n", target.display()))
}

fn copy(program: &Path, target: &Path) -> std::io::Result<()> {
    let temporary = target.with_extension(format!("{}.tmp", std::process::id()));
    let copied = (|| {
        let mut from = File::open(program)?;
        let mut to = File::create_new(&temporary)?;
        std::io::copy(&mut from, &mut to)?;
        to.set_permissions(Permissions::from_mode(0o755))?;
        to.sync_all()?;
        fs::rename(&temporary, target)
    })();
    if copied.is_err() {
        // The first error counts.
        let _gone = fs::remove_file(&temporary);
    }
    copied
}
