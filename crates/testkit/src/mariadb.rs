//! A real MariaDB.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::geteuid;

use crate::net::free_addr;
use crate::peers::{Server, directory, launch, pinned};
use crate::program;

/// A server on a port of its own, and on a unix socket.
#[derive(Debug)]
pub struct MariaDb {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its unix socket.
    pub socket: PathBuf,
    /// Its process.
    pub server: Server,
}

impl MariaDb {
    /// Starts an empty one with these arguments more, which executes `sql` first, a statement a line. `root` comes over the socket as the
    /// user that it is on the machine.
    pub fn start(sql: &str, args: &[&str]) -> Self {
        Self::start_on(free_addr(), sql, args, None)
    }

    /// The same at an address, on a core.
    pub fn start_on(addr: SocketAddr, sql: &str, args: &[&str], core: Option<usize>) -> Self {
        let found = program("mariadbd").expect("mariadbd is installed");
        let install = program("mariadb-install-db").expect("it comes with mariadbd");
        let dir = directory(None);
        let data = dir.path().join("data");
        let socket = dir.path().join("s");
        let first = dir.path().join("first.sql");
        std::fs::write(&first, sql).expect("a new file");
        let mut made = Command::new(install);
        made.args([
            "--no-defaults",
            "--skip-test-db",
            "--auth-root-authentication-method=socket",
        ])
        .arg(format!("--datadir={}", data.display()));
        let mut command = pinned(core, &found);
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--init-file={}", first.display()))
            .arg(format!("--port={}", addr.port()))
            .arg(format!("--bind-address={}", addr.ip()))
            .args([
                "--innodb-buffer-pool-size=16M",
                "--innodb-flush-log-at-trx-commit=0",
            ])
            .args(args);
        if geteuid().is_root() {
            made.arg("--user=root");
            command.arg("--user=root");
        }
        let made = made.output().expect("it can be started");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "mariadb-install-db: {said}");
        let server = launch("mariadbd", dir, &mut command, addr);
        Self {
            addr,
            socket,
            server,
        }
    }

    /// Executes statements as who has started it.
    pub fn sql(&self, statements: &str) -> String {
        let output = Command::new(program("mariadb").expect("it comes with mariadbd"))
            .args([
                "--no-defaults",
                "--batch",
                "--skip-column-names",
                "-e",
                statements,
            ])
            .arg(format!("--socket={}", self.socket.display()))
            .output()
            .expect("it can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statements}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
