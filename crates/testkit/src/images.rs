//! Images to test with: an archive made by tar and sha256sum, and Debian's docker-registry, which skopeo fills. podkit's own code has no
//! part in it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::net::free_addr;
use crate::process::{Process, run};
use crate::until;

/// The programs that all of this takes.
pub const PROGRAMS: [&str; 4] = ["docker-registry", "skopeo", "tar", "sha256sum"];

/// Makes `dir/archive.tar`, a docker-archive with an image of this name for this machine: each of `layers`, directories below `dir`, is one
/// of its layers, owned by root. `config` is the section of that name of the image's configuration.
pub fn archive(dir: &Path, name: &str, layers: &[&str], config: &Value) -> PathBuf {
    let files: Vec<String> = layers.iter().map(|layer| format!("{layer}.tar")).collect();
    for (layer, file) in layers.iter().zip(&files) {
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "-C"])
            .arg(dir.join(layer));
        run("tar", tar.arg("-cf").arg(dir.join(file)).arg(".")).ok();
    }
    let digest = |file: &String| {
        let said = run("sha256sum", Command::new("sha256sum").arg(dir.join(file))).ok();
        let hex = said.split(' ').next().unwrap_or_default();
        format!("sha256:{hex}")
    };
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let whole = json!({
        "architecture": machine,
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": files.iter().map(digest).collect::<Vec<_>>() },
    });
    let index = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": files }]);
    let write = |name: &str, value: &Value| {
        fs::write(dir.join(name), value.to_string()).expect("the directory is the test's");
    };
    write("config.json", &whole);
    write("manifest.json", &index);
    let archive = dir.join("archive.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(dir).arg("-cf").arg(&archive);
    run(
        "tar",
        tar.args(["manifest.json", "config.json"]).args(&files),
    )
    .ok();
    archive
}

/// docker-registry on a free port of the loopback, until this is dropped.
#[derive(Debug)]
pub struct Registry {
    addr: SocketAddr,
    _process: Process,
}

impl Registry {
    /// Starts one that keeps what it is given below `dir`, and waits until it listens.
    pub fn start(dir: &Path) -> Self {
        let addr = free_addr();
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {addr}}}\n",
            dir.join("registry").display()
        );
        fs::write(&config, text).expect("the directory is the test's");
        let mut command = Command::new("docker-registry");
        let process = Process::spawn("docker-registry", command.arg("serve").arg(config));
        until("docker-registry", || {
            assert!(!process.has_ended(), "{}", process.shown());
            TcpStream::connect(addr).ok()
        });
        Self {
            addr,
            _process: process,
        }
    }

    /// Puts a docker-archive into it, its layers packed by gzip; gives the image's name there.
    pub fn push(&self, archive: &Path) -> String {
        let name = format!("{}/team/app:1", self.addr);
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--dest-tls-verify=false"]);
        skopeo.arg(format!("docker-archive:{}", archive.display()));
        run("skopeo", skopeo.arg(format!("docker://{name}"))).ok();
        name
    }
}
