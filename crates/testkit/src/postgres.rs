//! A real PostgreSQL.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::certs::Pair;
use crate::net::free_addr;
use crate::peers::{Server, directory, launch};
use crate::program;

/// A server on a port of its own, and on a unix socket, whose user is `postgres`.
#[derive(Debug)]
pub struct Postgres {
    /// Where it listens; who comes there proves to know the password.
    pub addr: SocketAddr,
    /// Its unix socket; who comes there is taken at his word.
    pub socket: PathBuf,
    /// Its process.
    pub server: Server,
}

/// Its programs are no commands on Debian, which may have several versions of them.
fn bin(name: &str) -> Option<PathBuf> {
    if let Some(found) = program(name) {
        return std::fs::canonicalize(found).ok();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions
        .flatten()
        .map(|one| one.path().join("bin").join(name));
    found.filter(|path| path.exists()).max()
}

/// As a user without rights, where this is root: it does not run as root.
fn as_user(path: &Path) -> Command {
    match geteuid().is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                .arg(path);
            command
        }
        false => Command::new(path),
    }
}

impl Postgres {
    /// Starts an empty one whose password is `password`, with these settings more.
    pub fn start(password: &str, settings: &[&str]) -> Self {
        Self::start_on(free_addr(), password, settings)
    }

    /// The same at an address.
    pub fn start_on(addr: SocketAddr, password: &str, settings: &[&str]) -> Self {
        let dir = directory(None);
        let file = dir.path().join("password");
        std::fs::write(&file, password).expect("a new file");
        let init = bin("initdb").expect("postgresql is installed");
        let data = dir.path().join("data");
        if geteuid().is_root() {
            let id = std::fs::metadata("/var/lib/postgresql").expect("the package makes it");
            for path in [dir.path(), &file] {
                chown(path, Some(id.uid()), Some(id.gid())).expect("root may");
            }
        }
        let made = as_user(&init)
            .args([
                "-U",
                "postgres",
                "-A",
                "scram-sha-256",
                "--auth-local=trust",
                "--no-sync",
            ])
            .arg(format!("--pwfile={}", file.display()))
            .arg("-D")
            .arg(&data)
            .output()
            .expect("it can be started");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "initdb: {said}");
        let mut command = as_user(&bin("postgres").expect("it comes with initdb"));
        command
            .arg("-D")
            .arg(&data)
            .args(["-p", &addr.port().to_string(), "-k"])
            .arg(dir.path());
        let own = [
            format!("listen_addresses={}", addr.ip()),
            "fsync=off".to_owned(),
            "shared_buffers=16MB".to_owned(),
        ];
        for setting in own
            .iter()
            .map(String::as_str)
            .chain(settings.iter().copied())
        {
            command.args(["-c", setting]);
        }
        let socket = dir.path().join(format!(".s.PGSQL.{}", addr.port()));
        let server = launch("postgres", dir, &mut command, addr);
        let me = Self {
            addr,
            socket,
            server,
        };
        crate::until("postgres", || me.sql("SELECT 1"));
        me
    }

    /// From soon on it speaks TLS too, with this certificate.
    pub fn offer_tls(&self, pair: &Pair) {
        let (cert, key) = pair.write(self.server.dir(), "tls");
        let owner = std::fs::metadata(self.server.dir()).expect("it is there");
        for path in [&cert, &key] {
            std::fs::set_permissions(path, Permissions::from_mode(0o600)).expect("it is ours");
            chown(path, Some(owner.uid()), Some(owner.gid())).expect("root may, and others own it");
        }
        for statement in [
            &*format!("ALTER SYSTEM SET ssl_cert_file = '{}'", cert.display()),
            &*format!("ALTER SYSTEM SET ssl_key_file = '{}'", key.display()),
            "ALTER SYSTEM SET ssl = on",
            "SELECT pg_reload_conf()",
        ] {
            assert!(self.sql(statement).is_some(), "{statement}");
        }
    }

    /// Executes statements as `postgres`; None when it can't.
    pub fn sql(&self, statements: &str) -> Option<String> {
        let output = Command::new(program("psql").expect("it comes with postgresql"))
            .args(["-XAtqU", "postgres", "-v", "ON_ERROR_STOP=1", "-p"])
            .arg(self.addr.port().to_string())
            .arg("-h")
            .arg(self.server.dir())
            .args(["-c", statements])
            .output()
            .expect("it can be started");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(said)
    }

    /// Sends a signal to it and to all of its processes.
    pub fn signal_all(&self, signal: Signal) {
        let pid = self.server.process.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.expect("it runs");
        for one in children
            .split_ascii_whitespace()
            .chain([pid.to_string().as_str()])
        {
            let pid = one
                .parse()
                .ok()
                .and_then(Pid::from_raw)
                .expect("a process id");
            // One may have ended meanwhile.
            kill_process(pid, signal).ok();
        }
    }
}
