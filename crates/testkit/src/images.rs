//! Images to test with: an archive made by tar and sha256sum, and Debian's docker-registry, which skopeo fills. podkit's own code has no
//! part in it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::certs::{Authority, Pair};
use crate::net::free_addr;
use crate::process::{Process, run};
use crate::until;

/// The programs that all of this takes.
pub const PROGRAMS: [&str; 4] = ["docker-registry", "skopeo", "tar", "sha256sum"];

/// Makes `dir/archive.tar`, a docker-archive with an image of this name for this machine: each of `layers`, directories below `dir`, is one
/// of its layers, owned by root. `config` is the section of that name of the image's configuration.
pub fn archive(dir: &Path, name: &str, layers: &[&str], config: &Value) -> PathBuf {
    for layer in layers {
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "-C"])
            .arg(dir.join(layer));
        run(
            "tar",
            tar.arg("-cf")
                .arg(dir.join(format!("{layer}.tar")))
                .arg("."),
        )
        .ok();
    }
    archive_of_packed(dir, name, layers, config)
}

/// The same of layers that are packed already, as `dir/LAYER.tar`.
pub fn archive_of_packed(dir: &Path, name: &str, layers: &[&str], config: &Value) -> PathBuf {
    let files: Vec<String> = layers.iter().map(|layer| format!("{layer}.tar")).collect();
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

/// Who may come in.
#[derive(Debug, Default, Clone, Copy)]
pub struct Door<'a> {
    /// TLS with this certificate; plain HTTP without one.
    pub pair: Option<&'a Pair>,
    /// With TLS: only clients with a certificate of this authority.
    pub clients: Option<&'a Authority>,
    /// A line of htpasswd (bcrypt): only who knows that password.
    pub password: Option<&'a str>,
}

impl Registry {
    /// Starts one that keeps what it is given below `dir`, open to all, and waits until it listens.
    pub fn start(dir: &Path) -> Self {
        Self::behind(dir, Door::default())
    }

    /// The same behind a door. What was put into another one with this `dir` is there.
    pub fn behind(dir: &Path, door: Door<'_>) -> Self {
        let addr = free_addr();
        let config = dir.join("registry.yml");
        let mut http = format!("addr: {addr}");
        if let Some(pair) = door.pair {
            let (cert, key) = pair.write(dir, "registry");
            http += &format!(
                ", tls: {{certificate: {}, key: {}",
                cert.display(),
                key.display()
            );
            if let Some(clients) = door.clients {
                let path = dir.join("clients.pem");
                fs::write(&path, clients.pem()).expect("the directory is the test's");
                http += &format!(", clientcas: [{}]", path.display());
            }
            http += "}";
        }
        let mut text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{{http}}}\n",
            dir.join("registry").display()
        );
        if let Some(password) = door.password {
            let path = dir.join("htpasswd");
            fs::write(&path, format!("{password}\n")).expect("the directory is the test's");
            text += &format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                path.display()
            );
        }
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

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
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
