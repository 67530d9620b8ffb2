//! balance in front of real nginx: shares, restarts, hangs, sessions, edits, what people see.

mod admin;
mod grpc;
mod h1spec;
mod proxied;
mod restarts;
mod secure;
mod sessions;
mod shares;
mod slow;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use podkit_testkit::http::{self, Response};
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::{Server, nginx};
use podkit_testkit::podkit::Module;
use podkit_testkit::{Need, able, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// An nginx that answers with its name.
pub(crate) struct Upstream {
    name: String,
    pub(crate) addr: SocketAddr,
    server: Option<Server>,
}

impl Upstream {
    pub(crate) fn new(name: &str) -> Self {
        let mut upstream = Self {
            name: name.to_owned(),
            addr: free_addr(),
            server: None,
        };
        upstream.start();
        upstream
    }

    fn start(&mut self) {
        let http = format!(
            "server {{ listen {}; location / {{ add_header X-Trace $http_traceparent; return 200 '{}'; }}
             location /ready {{ return 204; }} location /gone {{ return 503; }} }}",
            self.addr, self.name
        );
        self.server = Some(nginx(&http, None, self.addr, None));
    }

    /// Stops it as an operator would.
    fn stop(&mut self) {
        self.server = None;
    }

    /// Its master and its workers.
    fn pids(&self) -> Vec<Pid> {
        let master = self.server.as_ref().expect("it runs").process.pid();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        let children = children.expect("a process has a list of children");
        let children = children
            .split_whitespace()
            .map(|pid| pid.parse().expect("a pid"));
        let all = std::iter::once(master.cast_signed()).chain(children);
        all.map(|pid: i32| Pid::from_raw(pid).expect("a pid is not 0"))
            .collect()
    }

    fn signal(&self, signal: Signal) {
        for pid in self.pids() {
            kill_process(pid, signal).expect("a child of this test");
        }
    }

    /// As a machine that loses power.
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.server = None;
    }
}

/// Three upstreams, a balance in front of them.
struct Rig {
    upstreams: Vec<Upstream>,
    balance: Module,
    listen: SocketAddr,
    dir: tempfile::TempDir,
}

impl Rig {
    /// None when the machine lacks nginx.
    fn new(args: &[&str]) -> Option<Self> {
        able(&[Need::Program("nginx")]).then(|| {
            let upstreams: Vec<Upstream> = ["a", "b", "c"].map(Upstream::new).into();
            let named: Vec<String> = upstreams
                .iter()
                .map(|one| format!("--upstream={}", one.addr))
                .collect();
            let mut all: Vec<&str> = named.iter().map(String::as_str).collect();
            all.extend(args);
            Self::with(upstreams, &all)
        })
    }

    fn with(upstreams: Vec<Upstream>, args: &[&str]) -> Self {
        let listen = free_addr();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (at, socket) = (
            format!("--listen={listen}"),
            format!("--admin-socket={}", dir.path().join("admin").display()),
        );
        let mut all = vec![at.as_str(), socket.as_str(), "--ready-period=100ms"];
        all.extend(args);
        let balance = Module::start("balance", &all, &[]);
        let rig = Self {
            upstreams,
            balance,
            listen,
            dir,
        };
        rig.wait_states("every upstream is ready", |states| {
            states.iter().all(|state| state == "ready")
        });
        rig
    }

    fn get(&self, path: &str) -> Response {
        http::get(self.listen, path).unwrap()
    }

    /// The upstreams as `/upstreams` shows them.
    fn shown(&self) -> Vec<Value> {
        let json = self.balance.admin("/upstreams").json();
        json["upstreams"].as_array().expect("a list").clone()
    }

    fn wait_states(&self, what: &str, wanted: impl Fn(&[String]) -> bool) {
        until(what, || {
            let states: Vec<String> = self
                .shown()
                .iter()
                .map(|one| one["state"].as_str().unwrap_or_default().to_owned())
                .collect();
            wanted(&states).then_some(())
        });
    }

    /// How often each upstream answers `count` requests made by `ask`.
    fn shares(&self, count: usize, ask: impl Fn(usize) -> Response) -> [usize; 3] {
        let mut shares = [0; 3];
        for at in 0..count {
            let answer = ask(at);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let name = answer.text();
            shares[self
                .upstreams
                .iter()
                .position(|one| one.name == name)
                .unwrap()] += 1;
        }
        shares
    }
}

/// Clients that ask and ask.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    slowest: Arc<Mutex<Duration>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Each on a connection that is kept.
    pub(crate) fn start(addr: SocketAddr, clients: usize) -> Self {
        Self::of(addr, clients, "")
    }

    /// Each on a new connection for each request.
    pub(crate) fn start_new_connections(addr: SocketAddr, clients: usize) -> Self {
        Self::of(addr, clients, "Connection: close\r\n")
    }

    fn of(addr: SocketAddr, clients: usize, fields: &'static str) -> Self {
        let load = Self {
            stop: Arc::default(),
            done: Arc::default(),
            failed: Arc::default(),
            slowest: Arc::default(),
            threads: Vec::new(),
        };
        let threads = (0..clients).map(|_| {
            let (stop, done) = (Arc::clone(&load.stop), Arc::clone(&load.done));
            let (failed, slowest) = (Arc::clone(&load.failed), Arc::clone(&load.slowest));
            std::thread::spawn(move || {
                let request = format!("GET / HTTP/1.1\r\nHost: {addr}\r\n{fields}\r\n");
                let mut stream = None;
                while !stop.load(Ordering::Relaxed) {
                    let kept = stream.take().map_or_else(|| http::dial(addr), Ok);
                    let began = Instant::now();
                    let answer = kept.and_then(|mut kept| {
                        let answer = http::exchange(&mut kept, request.as_bytes())?;
                        if answer.header("connection") != Some("close") {
                            stream = Some(kept);
                        }
                        Ok(answer)
                    });
                    let took = began.elapsed();
                    let mut slowest = slowest.lock().unwrap();
                    *slowest = took.max(*slowest);
                    drop(slowest);
                    let why = match answer {
                        Ok(answer) if answer.status == 200 => None,
                        Ok(answer) => Some(format!("{} {}", answer.status, answer.text())),
                        Err(error) => Some(error.to_string()),
                    };
                    failed.lock().unwrap().extend(why);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self {
            threads: threads.collect(),
            ..load
        }
    }

    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more are done.
    pub(crate) fn wait(&self, more: usize) {
        let goal = self.done() + more;
        until("the load to get on", || (self.done() >= goal).then_some(()));
    }

    fn failures(&self) -> Vec<String> {
        self.failed.lock().unwrap().clone()
    }

    /// Ends it. How many there were, what failed, and how long the slowest took.
    pub(crate) fn end(self) -> (usize, Vec<String>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let slowest = *self.slowest.lock().unwrap();
        (
            self.done.load(Ordering::Relaxed),
            self.failed.lock().unwrap().clone(),
            slowest,
        )
    }
}
