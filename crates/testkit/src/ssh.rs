//! A real sshd with a configuration and keys of its own, as whoever runs the test, on a free port.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::net::free_addr;
use crate::process::{Process, Stream, run};
use crate::{Need, program, until};

/// What a test of it needs.
pub const NEEDS: &[Need] = &[Need::Program("sshd"), Need::Program("ssh-keygen")];

/// A server, and a user's key that it lets in.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    dir: PathBuf,
    process: Process,
}

impl Server {
    /// Starts one with its files in `dir`. `more` are lines of its configuration, which come first and so win.
    pub fn start(dir: &Path, more: &[&str]) -> Self {
        Self::start_at(free_addr(), dir, more)
    }

    /// Starts one at an address. The keys are those that `dir` has, if it has some.
    pub fn start_at(addr: SocketAddr, dir: &Path, more: &[&str]) -> Self {
        let dir = dir.join("sshd");
        fs::create_dir_all(&dir).expect("a directory");
        let user = key(&dir.join("user"), &["-t", "ed25519"]);
        for kind in ["ed25519", "ecdsa", "rsa"] {
            key(&dir.join(format!("host_{kind}")), &["-t", kind]);
        }
        let public = fs::read(user.with_extension("pub")).expect("ssh-keygen writes both");
        fs::write(dir.join("authorized_keys"), public).expect("a file");
        // Where sshd, as root, puts those that are not logged in yet.
        if Need::Root.met() {
            fs::create_dir_all("/run/sshd").expect("a directory");
        }
        let at = dir.display();
        let path = std::env::var("PATH").expect("tests have a PATH");
        let trace = dir.join("packets");
        let mut lines: Vec<String> = more.iter().map(|line| (*line).to_owned()).collect();
        lines.extend([
            format!("HostKey {at}/host_ed25519"),
            format!("HostKey {at}/host_ecdsa"),
            format!("HostKey {at}/host_rsa"),
            format!("AuthorizedKeysFile {at}/authorized_keys"),
            // Of git: what it was asked, and the programs' place.
            format!("SetEnv PATH={path} GIT_TRACE_PACKET={}", trace.display()),
            "PasswordAuthentication no".to_owned(),
            "KbdInteractiveAuthentication no".to_owned(),
            "PermitRootLogin yes".to_owned(),
            "StrictModes no".to_owned(),
            "UsePAM no".to_owned(),
            "UseDNS no".to_owned(),
            "PidFile none".to_owned(),
            "LogLevel VERBOSE".to_owned(),
            "MaxStartups 100".to_owned(),
        ]);
        let config = dir.join("config");
        fs::write(&config, lines.join("\n") + "\n").expect("a file");
        // It starts itself anew for each connection, for which it wants its whole path.
        let mut command = Command::new(program("sshd").expect("NEEDS has it"));
        command.args(["-D", "-e", "-f"]).arg(&config);
        command.arg(format!("-oListenAddress={addr}"));
        let process = Process::spawn("sshd", &mut command);
        process.wait_line("sshd", |line| line.starts_with("Server listening on"));
        Self { addr, dir, process }
    }

    /// The URL of a repository: of a path of this machine.
    pub fn url(&self, path: &Path) -> String {
        let user = run("id", Command::new("id").arg("-un")).out;
        format!("ssh://{}@{}{}", user.trim(), self.addr, path.display())
    }

    /// The private key of the user that it lets in.
    pub fn user_key(&self) -> PathBuf {
        self.dir.join("user")
    }

    /// The private key of the host of that kind (ed25519, ecdsa, rsa).
    pub fn host_key(&self, kind: &str) -> PathBuf {
        self.dir.join(format!("host_{kind}"))
    }

    /// Another file with the lines that known_hosts needs for its keys of these kinds.
    pub fn known_hosts(&self, kinds: &[&str]) -> PathBuf {
        let line = |kind: &&str| {
            let key = fs::read_to_string(self.host_key(kind).with_extension("pub"));
            let (ip, port) = (self.addr.ip(), self.addr.port());
            format!("[{ip}]:{port} {}", key.expect("it has such a key"))
        };
        let path = self.dir.join(format!("known_hosts_{}", kinds.join("_")));
        fs::write(&path, kinds.iter().map(line).collect::<String>()).expect("a file");
        path
    }

    /// How many sessions were begun so far.
    pub fn sessions(&self) -> usize {
        let log = self.process.text(Stream::Err);
        log.lines()
            .filter(|line| line.starts_with("Starting session"))
            .count()
    }

    /// What git was asked so far: its packets, one a line.
    pub fn packets(&self) -> String {
        fs::read_to_string(self.dir.join("packets")).unwrap_or_default()
    }

    /// What it logs.
    pub fn log(&self) -> String {
        self.process.text(Stream::Err)
    }

    /// Waits until nobody is connected any more.
    pub fn wait_idle(&self) {
        until("every session to end", || {
            let log = self.log();
            let count = |start: &str| log.lines().filter(|line| line.starts_with(start)).count();
            let begun = count("Connection from ");
            let ended = count("Received disconnect from ") + count("Connection closed by ");
            (begun <= ended).then_some(())
        });
    }
}

/// A private key without a passphrase; the public one is beside it. One that is there stays.
pub fn key(path: &Path, args: &[&str]) -> PathBuf {
    if !path.exists() {
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-N", "", "-C", "", "-f"])
            .arg(path)
            .args(args);
        let done = run("ssh-keygen", &mut command);
        assert_eq!(done.code, Some(0), "ssh-keygen {args:?}: {}", done.err);
    }
    path.to_owned()
}
