//! The way out of an unprivileged user, with a real pasta.

use std::process::{Command, Stdio};

use super::world::{INTERNET, MACHINE, World, who_is_it};
use super::*;
use crate::net::pasta::{Namespaces, Pasta, no_way};

/// Nobody's number on most systems.
const NOBODY: u32 = 65_534;

/// Runs as an unprivileged user, on a thread of its own on the machine.
fn unprivileged<T: Send + 'static>(world: &World, run: impl FnOnce() -> T + Send + 'static) -> T {
    world.on_machine(move || {
        let nobody = rustix::process::Gid::from_raw(NOBODY);
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_gid(nobody).unwrap();
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY)).unwrap();
        run()
    })
}

#[test]
fn pasta_carries_what_a_pod_sends() {
    let Some(world) = World::new() else {
        return;
    };
    for program in ["pasta", "unshare"] {
        if Command::new(program).arg("--help").output().is_err() {
            eprintln!("skipped: there is no {program}");
            return;
        }
    }
    let tun = unprivileged(&world, || {
        let mut open = std::fs::OpenOptions::new();
        open.read(true).write(true).open("/dev/net/tun").is_ok()
    });
    if !tun {
        eprintln!("skipped: only root may open /dev/net/tun here");
        return;
    }
    let far = who_is_it(&world.internet, INTERNET);
    // A user and a network namespace, as long as its standard input is open.
    let mut holder = unprivileged(&world, || {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-c"])
            .arg("echo; read end")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let mut line = [0; 1];
    let made = holder.stdout.as_mut().unwrap().read(&mut line).unwrap();
    if made == 0 {
        holder.wait().unwrap();
        eprintln!("skipped: no user namespaces here");
        return;
    }
    let open = |kind: &str| -> OwnedFd {
        let path = format!("/proc/{}/ns/{kind}", holder.id());
        std::fs::File::open(path).unwrap().into()
    };
    let (network, user) = (open("net"), open("user"));
    let inside_of = network.try_clone().unwrap();
    let start = move || {
        let namespaces = Namespaces {
            network: network.as_fd(),
            user: Some(user.as_fd()),
            processes: None,
        };
        Pasta::start(namespaces, POD)
    };
    let pasta = unprivileged(&world, start).unwrap();
    let seen = inside(&inside_of, move || {
        let mut stream = std::net::TcpStream::connect(far).unwrap();
        let own = stream.local_addr().unwrap().ip();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        (own, text)
    });
    let (own, text) = seen.join().unwrap();
    assert_eq!(own, IpAddr::from(POD));
    assert_eq!(text, MACHINE.to_string());
    // The gateway does not lead to the machine's loopback.
    let loopback = world.on_machine(|| {
        crate::net::link::Route::open()
            .unwrap()
            .up(crate::net::link::LO)
            .unwrap();
        std::net::TcpListener::bind("127.0.0.1:0").unwrap()
    });
    let port = loopback.local_addr().unwrap().port();
    let refused = inside(&inside_of, move || {
        let at = SocketAddr::from((crate::net::veth::GATEWAY, port));
        std::net::TcpStream::connect_timeout(&at, Duration::from_millis(300)).is_err()
    });
    assert!(refused.join().unwrap());
    drop(pasta);
    let left = std::net::TcpStream::connect_timeout;
    let gone = inside(&inside_of, move || {
        left(&far, Duration::from_millis(300)).is_err()
    });
    assert!(gone.join().unwrap());
    drop(holder.stdin.take());
    holder.wait().unwrap();
}

#[test]
fn pasta_s_own_words_are_passed_on() {
    let Some(world) = World::new() else {
        return;
    };
    let network: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let start = move || {
        let namespaces = Namespaces {
            network: network.as_fd(),
            user: None,
            processes: None,
        };
        Pasta::start(namespaces, POD).map(drop)
    };
    let error = unprivileged(&world, start).unwrap_err().to_string();
    let installed = Command::new("pasta").arg("--version").output().is_ok();
    let start = if installed {
        "pasta: "
    } else {
        "install pasta"
    };
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn a_tun_device_that_can_t_be_opened_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("tun");
    std::fs::write(&there, "").unwrap();
    let there = there.to_str().unwrap();
    assert_eq!(no_way("install pasta", there).to_string(), "install pasta");
    let gone = format!("{there}/tun");
    assert_eq!(
        no_way("install pasta", &gone).to_string(),
        format!(
            "install pasta; pasta needs {gone}, which this user can't open: Not a directory (os error 20)"
        )
    );
    let own = format!("pasta: Failed to open() {gone}");
    assert_eq!(no_way(&own, &gone).to_string(), own);
}
