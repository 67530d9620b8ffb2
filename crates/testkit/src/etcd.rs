//! Real etcd servers, alone and as a cluster, with their data in a directory.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::net::free_addr;
use crate::process::{Finished, Process, run};
use crate::until;

/// A member that runs.
#[derive(Debug)]
pub struct Etcd {
    /// Its process.
    pub process: Process,
    /// Where clients reach it.
    pub client: SocketAddr,
    /// `http` or `https`.
    scheme: &'static str,
    /// What `etcdctl` needs besides.
    ctl: Vec<String>,
}

impl Etcd {
    /// One alone, by plain HTTP, with these arguments.
    pub fn start(dir: &Path, client: SocketAddr, args: &[&str]) -> Self {
        let peer = free_addr();
        let cluster = format!("alone=http://{peer}");
        Self::spawn(dir, "alone", "http", (client, peer), &cluster, args)
    }

    /// One alone that speaks TLS with clients whose certificates this authority made. Its own is the pair, which must be
    /// good for a client too: etcd's gateway is one.
    pub fn start_tls(dir: &Path, client: SocketAddr, ca: &Path, pair: &(PathBuf, PathBuf)) -> Self {
        let peer = free_addr();
        let [ca, cert, key] = [ca, &pair.0, &pair.1].map(|path| path.display().to_string());
        let args = [
            "--client-cert-auth",
            "--trusted-ca-file",
            &ca,
            "--cert-file",
            &cert,
            "--key-file",
            &key,
        ];
        let cluster = format!("alone=http://{peer}");
        let mut etcd = Self::spawn(dir, "alone", "https", (client, peer), &cluster, &args);
        etcd.ctl = vec![
            format!("--cert={cert}"),
            format!("--key={key}"),
            "--insecure-skip-tls-verify".to_owned(),
        ];
        etcd
    }

    /// Three members of one cluster, and how each is started again.
    pub fn cluster(dir: &Path) -> Vec<(Self, impl Fn() -> Self)> {
        let addrs: Vec<_> = (0..3).map(|_| (free_addr(), free_addr())).collect();
        let all: Vec<String> = addrs
            .iter()
            .enumerate()
            .map(|(at, (_, peer))| format!("m{at}=http://{peer}"))
            .collect();
        let all = all.join(",");
        let begin = |at: usize| {
            let (dir, all, addrs) = (dir.to_owned(), all.clone(), addrs[at]);
            move || {
                let process = process(&dir, &format!("m{at}"), "http", addrs, &all, &[]);
                Self::new(process, addrs.0, "http")
            }
        };
        // None is ready before most are there.
        let members: Vec<_> = (0..3).map(|at| (begin(at)(), begin(at))).collect();
        for (member, _) in &members {
            member.wait_serving();
        }
        members
    }

    fn spawn(
        dir: &Path,
        name: &str,
        scheme: &'static str,
        addrs: (SocketAddr, SocketAddr),
        cluster: &str,
        args: &[&str],
    ) -> Self {
        let process = process(dir, name, scheme, addrs, cluster, args);
        let etcd = Self::new(process, addrs.0, scheme);
        etcd.wait_serving();
        etcd
    }

    fn new(process: Process, client: SocketAddr, scheme: &'static str) -> Self {
        Self {
            process,
            client,
            scheme,
            ctl: Vec::new(),
        }
    }

    /// Waits until it serves clients.
    pub fn wait_serving(&self) {
        let at = self.client.to_string();
        self.process.wait_line("serving", |line| {
            line.contains("client requests on") && line.contains(&at)
        });
    }

    /// What `etcdctl` does as nobody in particular.
    pub fn ctl(&self, args: &[&str]) -> String {
        self.ctl_as(None, args)
    }

    /// The same as `USER:PASSWORD`.
    pub fn ctl_as(&self, user: Option<&str>, args: &[&str]) -> String {
        self.run_ctl(user, args).ok()
    }

    fn run_ctl(&self, user: Option<&str>, args: &[&str]) -> Finished {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}://{}", self.scheme, self.client))
            .args(&self.ctl)
            .args(user.map(|user| format!("--user={user}")))
            .args(args);
        run("etcdctl", &mut command)
    }

    /// Sets a key.
    pub fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", key, value]);
    }

    /// Sets a key as soon as the members have a leader: one that lost theirs refuses, or keeps its client waiting for longer than
    /// that waits.
    pub fn put_once_led(&self, key: &str, value: &str) {
        until("a leader", || {
            let put = self.run_ctl(None, &["put", key, value]);
            (put.code == Some(0)).then_some(())
        });
    }

    /// Sets a key by the gateway, without the time of a process, where nobody logs in.
    pub fn put_fast(&self, key: &str, value: &str) {
        let body = serde_json::json!({ "key": base64(key), "value": base64(value) }).to_string();
        let head = format!(
            "POST /v3/kv/put HTTP/1.1\r\nHost: e\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut answer = String::new();
        let done = TcpStream::connect(self.client).and_then(|mut stream| {
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.as_bytes())?;
            stream.read_to_string(&mut answer)
        });
        done.unwrap_or_else(|error| panic!("etcd: {error}"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

fn process(
    dir: &Path,
    name: &str,
    scheme: &str,
    (client, peer): (SocketAddr, SocketAddr),
    cluster: &str,
    args: &[&str],
) -> Process {
    let mut command = Command::new("etcd");
    command
        .arg("--data-dir")
        .arg(dir.join(name))
        .args(["--name", name, "--log-outputs=stderr"])
        .args(["--listen-client-urls", &format!("{scheme}://{client}")])
        .args(["--advertise-client-urls", &format!("{scheme}://{client}")])
        .args(["--listen-peer-urls", &format!("http://{peer}")])
        .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
        .args(["--initial-cluster", cluster])
        .args(args)
        .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH);
    Process::spawn("etcd", &mut command)
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.as_bytes().chunks(3).flat_map(|part| {
        let byte = |at: usize| u32::from(part.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digit = move |at: usize| match at > part.len() {
            true => '=',
            false => char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]),
        };
        (0..4).map(digit)
    });
    digits.collect()
}
