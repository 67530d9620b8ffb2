//! A module is replaced by a new process while clients ask: `--takeover`.

use std::net::SocketAddr;
use std::time::Duration;

use podkit_testkit::http;
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::{Module, command};
use podkit_testkit::process::Process;
use podkit_testkit::tls::Client;
use podkit_testkit::{Need, Turn, able, until};
use rustix::process::Signal;

use crate::balance::{Load, Upstream};

/// Requests that the figure is about.
const REQUESTS: usize = 50_000;

/// A module that is replaced again and again.
struct Rig {
    module: &'static str,
    args: Vec<String>,
    admin: SocketAddr,
    now: Process,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn start(module: &'static str, args: &[String]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut all = args.to_vec();
        all.push(format!("--takeover={}", dir.path().join("t").display()));
        let admin = free_addr();
        let rig = Self {
            module,
            admin,
            now: spawn(module, admin, &all, &[]),
            args: all,
            _dir: dir,
        };
        rig.wait_ready();
        rig
    }

    fn wait_ready(&self) {
        until("/readyz", || {
            assert!(!self.now.has_ended(), "{}", self.now.shown());
            (http::get(self.admin, "/readyz").ok()?.status == 200).then_some(())
        });
    }

    /// Another process, on the same addresses.
    fn successor(&self, more: &[&str]) -> Process {
        spawn(self.module, self.admin, &self.args, more)
    }

    /// Puts another process into the place of this one; the former one must end well.
    fn replace(&mut self, more: &[&str]) {
        let next = self.successor(more);
        let mut former = std::mem::replace(&mut self.now, next);
        let ended = former.wait_for(Duration::from_secs(30));
        assert_eq!(
            ended.code(),
            Some(0),
            "{}{}",
            former.shown(),
            self.now.shown()
        );
        assert!(!self.now.has_ended(), "{}", self.now.shown());
        self.wait_ready();
    }
}

fn spawn(module: &str, admin: SocketAddr, args: &[String], more: &[&str]) -> Process {
    let mut command = command(&[module, "--admin", &admin.to_string()]);
    command.args(args).args(more);
    Process::spawn(&format!("podkit {module}"), &mut command)
}

/// Three nginx, and what balances among them.
fn balanced(more: &[&str]) -> Option<(Vec<Upstream>, SocketAddr, Vec<String>)> {
    able(&[Need::Program("nginx")]).then(|| {
        let upstreams: Vec<Upstream> = ["a", "b", "c"].map(Upstream::new).into();
        let listen = free_addr();
        let mut args = vec![
            format!("--listen={listen}"),
            "--ready-period=100ms".to_owned(),
        ];
        args.extend(
            upstreams
                .iter()
                .map(|one| format!("--upstream={}", one.addr)),
        );
        args.extend(more.iter().map(ToString::to_string));
        (upstreams, listen, args)
    })
}

#[test]
fn no_client_notices_that_podkit_is_replaced() {
    let _turn = Turn::alone();
    let Some((_upstreams, listen, args)) = balanced(&[]) else {
        return;
    };
    let mut rig = Rig::start("balance", &args);
    let kept = Load::start(listen, 64);
    let new = Load::start_new_connections(listen, 8);
    let mut rounds = 0;
    while kept.done() + new.done() < REQUESTS || rounds < 6 {
        kept.wait(500);
        new.wait(200);
        // More and fewer workers than there were.
        rig.replace(&[["--workers=2", "--workers=1", "--workers=3"][rounds % 3]]);
        rounds += 1;
    }
    kept.wait(500);
    new.wait(200);
    let (many, failed, slowest) = kept.end();
    let (more, failed_new, slowest_new) = new.end();
    println!(
        "{many} kept, {more} new connections, {rounds} takeovers, {slowest:?}, {slowest_new:?}"
    );
    assert!(many + more >= REQUESTS);
    assert_eq!(failed, Vec::<String>::new(), "of {many}");
    assert_eq!(failed_new, Vec::<String>::new(), "of {more}");
}

#[test]
fn one_that_fails_before_it_is_ready_leaves_the_other_as_it_was() {
    let _turn = Turn::shared();
    let Some((_upstreams, listen, args)) = balanced(&[]) else {
        return;
    };
    let mut rig = Rig::start("balance", &args);
    let load = Load::start(listen, 4);
    load.wait(50);

    // A parameter is wrong: it ends before it asks for anything, or after.
    for wrong in ["--max-headers=0", "--affinity-secret-file=/nowhere"] {
        let mut failing = rig.successor(&[wrong]);
        assert_eq!(failing.wait().code(), Some(2), "{}", failing.shown());
    }
    // It is killed while it waits for an upstream.
    let away = free_addr();
    let mut waiting = spawn(
        "balance",
        rig.admin,
        &rig.args
            .iter()
            .filter(|arg| !arg.starts_with("--upstream"))
            .cloned()
            .collect::<Vec<_>>(),
        &[&format!("--upstream={away}")],
    );
    waiting.wait_line("it takes over", |line| line.contains("taking over"));
    rig.now.wait_line("the other one knows", |line| {
        line.contains("a process takes over")
    });
    waiting.signal(Signal::KILL);
    waiting.wait();
    rig.now
        .wait_line("it goes on", |line| line.contains("going on"));
    // Another module.
    let mut other = spawn(
        "echo",
        free_addr(),
        &[rig.args.last().expect("--takeover is the last").clone()],
        &[],
    );
    assert_eq!(other.wait().code(), Some(1), "{}", other.shown());
    assert!(
        other.shown().contains("there is podkit balance, not echo"),
        "{}",
        other.shown()
    );

    load.wait(50);
    assert_eq!(http::get(rig.admin, "/readyz").unwrap().status, 200);
    rig.replace(&[]);
    load.wait(50);
    let (done, failed, _) = load.end();
    assert_eq!(failed, Vec::<String>::new(), "of {done}");
}

#[test]
fn every_module_with_a_data_path_can_be_replaced() {
    let _turn = Turn::shared();
    let application = free_addr();
    let at = format!("--listen={application}");
    let _application = Module::start("echo", &[&at], &[]);
    let dir = tempfile::tempdir().unwrap();
    let upstream = format!("--upstream={application}");
    let rule = "--rule=name=all key=ip rate=100000/s".to_owned();
    for (module, more) in [
        ("echo", vec![]),
        ("chain", vec![]),
        ("balance", vec![upstream.clone()]),
        ("limit", vec![upstream.clone(), rule]),
        ("tls", vec![upstream, "--self-signed".to_owned()]),
    ] {
        let listen = free_addr();
        let file = dir.path().join(module);
        let mut args = vec![
            format!("--listen={listen}"),
            format!("--listen=unix:{}", file.display()),
        ];
        args.extend(more);
        if module == "chain" {
            let path = dir.path().join("chain.yaml");
            let text = format!(
                "listen: ['{listen}', 'unix:{}']\nstages: {{web: {{balance: {{upstream: '{application}'}}}}}}\n\
                 routes: [{{stages: web}}]\n",
                file.display()
            );
            std::fs::write(&path, text).unwrap();
            args = vec![format!("--chain-file={}", path.display())];
        }
        let mut rig = Rig::start(module, &args);
        for _ in 0..2 {
            rig.replace(&[]);
            let answer = match module {
                "tls" => Client::trusting().get(listen, "localhost", "/"),
                _ => http::get(listen, "/"),
            };
            assert_eq!(answer.unwrap().status, 200, "{module}");
            assert!(file.exists(), "{module}");
        }
        rig.now.stop();
        assert!(!file.exists(), "{module}");
    }
}
