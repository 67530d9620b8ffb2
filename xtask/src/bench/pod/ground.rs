//! The image that all pods here are made of, in podkit's store and in podman's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use podkit_testkit::images;
use podkit_testkit::process::run as run_command;
use podkit_testkit::program;
use serde_json::json;

use super::podman::Podman;

/// Its name.
pub(super) const IMAGE: &str = "localhost/bench:1";

/// A container's program in a manifest: serves its port until it is asked to stop.
pub(super) fn serves(port: u16) -> String {
    script(&format!(
        "trap 'exit 0' TERM; busybox httpd -p {port} -h /www; while :; do busybox sleep 1000 & wait $!; done"
    ))
}

/// A container's program: a line for busybox's shell.
pub(super) fn script(line: &str) -> String {
    format!(
        "    image: {IMAGE}\n    imagePullPolicy: Never\n    command: [busybox, sh, -c, \"{line}\"]\n"
    )
}

/// The head of a manifest.
pub(super) fn head(pod: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {pod}\nspec:\n")
}

/// Whether a command line is that of a container's own process, not the runner's.
pub(super) fn is_contained(command: &str) -> bool {
    command.starts_with("busybox ")
}

/// What is measured, and where its images are.
pub(super) struct Ground {
    binary: PathBuf,
    dir: tempfile::TempDir,
    pub(super) podman: Podman,
}

impl Ground {
    pub(super) fn new(binary: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let layer = dir.path().join("layer");
        fs::create_dir_all(layer.join("bin"))?;
        fs::create_dir_all(layer.join("www"))?;
        fs::write(layer.join("www/index.html"), "bench\n")?;
        let busybox = program("busybox").context("busybox is missing")?;
        fs::copy(busybox, layer.join("bin/busybox"))?;
        let config = json!({ "Env": ["PATH=/bin"] });
        let archive = images::archive(dir.path(), IMAGE, &["layer"], &config);
        let podman = Podman::with_image(&archive)?;
        let ground = Self {
            binary: binary.to_path_buf(),
            dir,
            podman,
        };
        let mut load = ground.podkit(&["image", "load", "-q"]);
        run_command("podkit image load", load.arg(&archive)).ok();
        Ok(ground)
    }

    /// podkit with state of its own.
    pub(super) fn podkit(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .arg("--state-dir")
            .arg(self.dir.path().join("state"));
        command
    }

    /// A new manifest.
    pub(super) fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}
