//! podman with a store, a run directory and a configuration of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use podkit_testkit::process::run as run_command;
use podkit_testkit::program;

/// podman with a store, a run directory and a configuration of its own.
pub(in crate::bench) struct Podman {
    dir: tempfile::TempDir,
}

impl Podman {
    /// With nothing in its store. What is in it, and the store's own mounts, go when this is dropped.
    pub(in crate::bench) fn new() -> Result<Self> {
        let podman = Self {
            dir: tempfile::tempdir()?,
        };
        // The limits are those that a machine without CAP_SYS_RESOURCE can grant; no systemd is asked for.
        let config = "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=32768:32768\"]\n\
                      [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n";
        std::fs::write(podman.dir.path().join("containers.conf"), config)?;
        Ok(podman)
    }

    /// With the image of a docker-archive in its store.
    pub(in crate::bench) fn with_image(archive: &Path) -> Result<Self> {
        let podman = Self::new()?;
        let mut load = podman.command();
        run_command(
            "podman load",
            load.args(["load", "--quiet", "--input"]).arg(archive),
        )
        .ok();
        Ok(podman)
    }

    /// Where its store is: what carries this path in its arguments is podman's.
    pub(in crate::bench) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(in crate::bench) fn command(&self) -> Command {
        let mut command = Command::new(program("podman").expect("it was asked for"));
        let path = |name: &str| -> PathBuf { self.dir.path().join(name) };
        command.env("CONTAINERS_CONF", path("containers.conf"));
        command
            .arg("--root")
            .arg(path("store"))
            .arg("--runroot")
            .arg(path("run"));
        command
    }

    /// Empties the store.
    pub(in crate::bench) fn forget(&self) -> Result<()> {
        let mut remove = self.command();
        let removed = run_command("podman rmi", remove.args(["rmi", "--all", "--force"]));
        if removed.code != Some(0) {
            bail!("podman rmi: {}", removed.err);
        }
        Ok(())
    }
}

impl Drop for Podman {
    /// Whatever a failed round left. The store's own mounts go too, or its directory can't. `podman system reset` would do it
    /// all, and more than that: it takes networks away that are not this store's.
    fn drop(&mut self) {
        let mut remove = self.command();
        remove.args(["pod", "rm", "--all", "--force"]);
        let finished = run_command("podman pod rm", &mut remove);
        if finished.code != Some(0) {
            eprintln!("podman pod rm: {}", finished.err);
        }
        let store = self.dir.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let below: Vec<&str> = below.filter(|path| path.starts_with(&store)).collect();
        for path in below.into_iter().rev() {
            run_command("umount", Command::new("umount").arg(path));
        }
    }
}
