//! examples/mysql-health, as its README uses it.

use std::process::Command;
use std::time::{Duration, Instant};

use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::process::Process;
use podkit_testkit::{http, program, repository};
use rustix::process::{Pid, Signal, kill_process};

use crate::ground::{Ground, is_ready, process_of, read};

/// Longer than the four seconds of the README, for a machine that has much else to do.
const SOON: Duration = Duration::from_secs(10);

const APPLES: &str = "UPDATE stock SET count = 0 WHERE item = 'apples'";
const LOCK: &str = "LOCK TABLES stock WRITE; SELECT 'locked'; DO SLEEP(60)";

fn path(path: &str) -> (u16, String) {
    let answer = http::get(loopback(9723), path).unwrap();
    (answer.status, answer.text())
}

/// The shop's client with these statements.
fn shop(statements: &str) -> Process {
    let mut command = Command::new(program("mariadb").unwrap());
    command.args([
        "--no-defaults",
        "-h127.0.0.1",
        "-ushop",
        "-pshop",
        "--unbuffered",
    ]);
    command.args(["-N", "shop", "-e", statements]);
    Process::spawn("mariadb", &mut command)
}

/// Does something, and waits until the pod has this readiness.
fn turns(pod: &Pod, ready: bool, act: impl FnOnce()) {
    let (mark, begun) = (pod.mark(), Instant::now());
    act();
    pod.wait_from(mark, "the other readiness", |said| is_ready(said, ready));
    let took = begun.elapsed();
    assert!(took < SOON, "{took:?}");
}

#[test]
fn the_example_is_as_its_readme_says() {
    let programs = ["mariadbd", "mariadb-install-db", "mariadb"];
    let Some(ground) = Ground::with(&programs) else {
        return;
    };
    let example = repository().join("examples/mysql-health/pod.yaml");
    let mut pod = Pod::run_text(&read(&example), &[]);
    pod.wait_ready();
    assert_eq!(path("/readyz"), (200, "ok".to_owned()));

    // The stock is not as it has to be.
    turns(&pod, false, || {
        shop(APPLES).wait();
    });
    let (status, said) = path("/readyz");
    assert!(
        said.contains("[-]stock failed: gives 0, not 1\n"),
        "{status} {said}"
    );
    turns(&pod, true, || {
        shop(&APPLES.replace("= 0", "= 10")).wait();
    });

    // A lock: unready, and alive.
    let mut lock = shop(LOCK);
    turns(&pod, false, || {
        lock.wait_line("the lock", |line| line == "locked");
    });
    assert!(path("/readyz").1.contains("[-]stock failed: "));
    assert_eq!(path("/livez").0, 200);
    turns(&pod, true, || lock.signal(Signal::KILL));
    lock.wait();

    // A server that hangs.
    let server = process_of(&pod, "mariadbd --no-defaults").unwrap();
    let server = Pid::from_raw(server.cast_signed()).unwrap();
    turns(&pod, false, || kill_process(server, Signal::STOP).unwrap());
    let said = path("/readyz").1;
    assert!(said.contains("no answer within 500 ms (in "), "{said}");
    let why = http::get(loopback(9623), "/why?probe=stock").unwrap();
    assert!(why.text().contains("no answer within 500 ms"));
    turns(&pod, true, || kill_process(server, Signal::CONT).unwrap());

    let restarted = pod.said().iter().any(|said| said["reason"] == "Killing");
    assert!(!restarted, "{}", pod.process.shown());
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}
