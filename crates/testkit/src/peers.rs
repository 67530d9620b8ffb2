//! Real servers to test and to measure against, each started on what it is given, in a directory of its own, and
//! stopped when dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::certs::Pair;
use crate::process::Process;
use crate::{program, until};

/// A server with its files.
#[derive(Debug)]
pub struct Server {
    /// The process: of nginx the master.
    pub process: Process,
    dir: TempDir,
}

impl Server {
    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Server {
    /// Asks it to end first: nginx's worker outlives a master that was killed.
    fn drop(&mut self) {
        if !self.process.has_ended() {
            self.process.signal(rustix::process::Signal::TERM);
            self.process.ends_within(Duration::from_secs(5));
        }
    }
}

/// A directory with a certificate as `server.crt`, `server.key` and, as HAProxy wants it, `server.pem`.
pub fn directory(pair: Option<&Pair>) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    if let Some(pair) = pair {
        pair.write(dir.path(), "server");
        let both = format!("{}{}", pair.cert, pair.key);
        std::fs::write(dir.path().join("server.pem"), both).expect("a new file");
    }
    dir
}

/// `taskset` in front of a program, when it is to stay on one core. It executes the program in its own place, so
/// that the process id is the program's.
pub fn pinned(core: Option<usize>, program: &Path) -> Command {
    match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", &core.to_string()]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// nginx with one worker. `http` is what stands inside `http { … }`, where `DIR` becomes the server's directory; answers
/// on `ready` when it is up.
pub fn nginx(http: &str, pair: Option<&Pair>, ready: SocketAddr, core: Option<usize>) -> Server {
    let dir = directory(pair);
    let path = dir.path().display().to_string();
    let config = format!(
        "daemon off; worker_processes 1; pid {path}/pid; error_log stderr warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 300s;\n\
         client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;\n\
         uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;\n{}\n}}\n",
        http.replace("DIR", &path)
    );
    if rustix::process::geteuid().is_root() {
        // The worker keeps the user: it reads what the test wrote.
        start("nginx", dir, &format!("user root;\n{config}"), ready, core)
    } else {
        start("nginx", dir, &config, ready, core)
    }
}

/// HAProxy with one thread. `rest` is what follows the global and defaults sections; `DIR` as in [`nginx`].
pub fn haproxy(rest: &str, pair: Option<&Pair>, ready: SocketAddr, core: Option<usize>) -> Server {
    let dir = directory(pair);
    let config = format!(
        "global\n  nbthread 1\n  maxconn 4000\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
         \x20 timeout http-keep-alive 300s\n{}\n",
        rest.replace("DIR", &dir.path().display().to_string())
    );
    start("haproxy", dir, &config, ready, core)
}

fn start(name: &str, dir: TempDir, config: &str, ready: SocketAddr, core: Option<usize>) -> Server {
    let file: PathBuf = dir.path().join("config");
    std::fs::write(&file, config).expect("a new file");
    let found = program(name).unwrap_or_else(|| panic!("{name} is not installed"));
    let mut command = pinned(core, &found);
    match name {
        "nginx" => command
            .arg("-p")
            .arg(dir.path())
            .arg("-e")
            .arg("stderr")
            .arg("-c")
            .arg(&file),
        _ => command.arg("-f").arg(&file),
    };
    launch(name, dir, &mut command, ready)
}

/// Starts a server that is configured by `command` and the files in `dir`, which go when it is dropped; returns when it takes connections on `ready`.
pub fn launch(name: &str, dir: TempDir, command: &mut Command, ready: SocketAddr) -> Server {
    let process = Process::spawn(name, command);
    until(name, || {
        assert!(!process.has_ended(), "{}", process.shown());
        std::net::TcpStream::connect(ready).ok()
    });
    Server { process, dir }
}

/// The first line that a program says of its version.
pub fn version(name: &str, args: &[&str]) -> String {
    match program(name) {
        Some(found) => version_of(&found, args),
        None => "not installed".to_owned(),
    }
}

/// The same of a program by its path; empty lines don't count.
pub fn version_of(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut lines = text.lines().map(str::trim);
    lines
        .find(|line| !line.is_empty())
        .unwrap_or("?")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::Authority;
    use crate::net::free_addr;
    use crate::tls::{Client, Options};
    use crate::{Need, able, http};

    #[test]
    fn nginx_and_haproxy_terminate_tls_in_front_of_nginx() {
        if !able(&[Need::Program("nginx"), Need::Program("haproxy")]) {
            return;
        }
        let authority = Authority::new("testkit");
        let pair = authority.server(&["localhost"]);
        let (plain, ours, theirs) = (free_addr(), free_addr(), free_addr());
        let server = format!(
            "server {{ listen {plain}; location / {{ return 200 fixed; }} }}\n\
             server {{ listen {ours} ssl; ssl_certificate DIR/server.crt; ssl_certificate_key DIR/server.key; ssl_protocols TLSv1.3;\n\
             location / {{ proxy_pass http://{plain}; }} }}"
        );
        let _nginx = nginx(&server, Some(&pair), plain, None);
        let front = format!(
            "frontend f\n  bind {theirs} ssl crt DIR/server.pem curves X25519\n  default_backend b\nbackend b\n  server s {plain}\n"
        );
        let _haproxy = haproxy(&front, Some(&pair), theirs, None);
        assert_eq!(http::get(plain, "/").unwrap().text(), "fixed");
        let client = Client::new(&Options {
            authority: Some(&authority),
            x25519_only: true,
            ..Options::default()
        });
        for addr in [ours, theirs] {
            assert_eq!(client.get(addr, "localhost", "/").unwrap().text(), "fixed");
            client.shake(addr, "localhost").unwrap();
            assert!(client.get(addr, "another.name", "/").is_err());
        }
    }
}
