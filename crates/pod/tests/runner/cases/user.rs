//! A plain user in a world that root has made for this: a network with a server in it, cgroups of the user's own. The case is in
//! two parts: root prepares, and executes this program as the user with `prepared WHAT`.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::*;
use crate::rootless::{WAYS, Way, uid};

/// `prepared WHAT`: the user's part.
pub(crate) fn prepared(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["way-out"] => way_out(),
        ["cgroups", "given"] => limits_hold(),
        ["cgroups", "not-given"] => limits_are_told(),
        _ => panic!("what is {args:?}?"),
    }
    ExitCode::SUCCESS
}

/// Of the network that the machine seems to have. (RFC 5737)
const MACHINE: &str = "198.51.100.1";

/// As root: an interface with a default route, which is what pasta looks for, and no way to anybody; and a tun device for everybody,
/// as most machines have it.
const WORLD: &str = "ip link set lo up && ip link add out0 type veth peer name out1 && ip link set out1 up && ip address add 198.51.100.1/24 dev out0 && \
                     ip link set out0 up && ip route add default via 198.51.100.2 && mount -t tmpfs none /dev/net && \
                     mknod -m 666 /dev/net/tun c 10 200 && exec \"$@\"";

pub(super) fn a_way_out_for_a_plain_user() {
    for program in ["pasta", "ip", "unshare", "mount", "mknod"] {
        if Command::new(program).arg("--help").output().is_err() {
            println!("  (there is no {program})");
            return;
        }
    }
    if std::fs::File::open("/dev/net/tun").is_err() {
        println!("  (this machine has no tun device)");
        return;
    }
    for way in WAYS.into_iter().filter(able) {
        let mut wrapper = vec!["unshare", "--net", "--mount", "--propagation", "private"];
        wrapper.extend(["--", "sh", "-c", WORLD, "sh"]);
        assert!(way.run_under(&wrapper, &["prepared", "way-out"]), "{way:?}");
        let end = Instant::now() + PATIENCE;
        while !processes_of_user().is_empty() {
            assert!(Instant::now() < end, "left: {:?}", processes_of_user());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The names of those that still run. One that has ended and is not collected yet has no memory.
fn processes_of_user() -> Vec<String> {
    let status = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("status"));
    let all = std::fs::read_dir("/proc").expect("proc").flatten();
    all.filter_map(|entry| status(entry).ok())
        .filter(|status| {
            let is = |line: &str| line.starts_with(&format!("Uid:\t{}\t", uid()));
            status.lines().any(is) && status.contains("\nVmRSS:")
        })
        .filter_map(|status| Some(status.lines().next()?.to_owned()))
        .collect()
}

fn able(way: &Way) -> bool {
    let lack = way.lack();
    if let Some(lack) = &lack {
        println!("  ({way:?} {lack})");
    }
    lack.is_none()
}

fn way_out() {
    let greet = |address: &str, greeting: &'static str| {
        let listener = TcpListener::bind((address, 0)).expect("an address of the machine");
        let port = listener.local_addr().expect("its address").port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _said = stream.write_all(greeting.as_bytes());
            }
        });
        port
    };
    let (served, hidden) = (greet(MACHINE, "hello"), greet("127.0.0.1", "private"));
    alone(|| {
        let spec = format!(
            "  restartPolicy: Never\n  containers:\n  - {{name: app, image: podkit, args: [app, ask, '{MACHINE}:{served}', '10', \
             '10.87.0.1:{hidden}', '1']}}\n"
        );
        let (code, lines, said) = Pod::start(&manifest("out", &spec), &[]).end();
        assert_eq!((code, said.as_str()), (Some(0), ""), "{lines:#?}");
        let log: Vec<&str> = lines
            .iter()
            .filter_map(|line| line["line"].as_str())
            .collect();
        // The gateway is not the machine's loopback.
        let expected = [
            format!("{MACHINE}:{served}: hello"),
            format!("10.87.0.1:{hidden}: "),
        ];
        assert_eq!(log, expected, "{lines:#?}");
    });
    // Killed, it takes pasta with it: the user can't see that, root looks.
    let spec = "  containers:\n  - {name: app, image: podkit, args: [app, sleep]}\n";
    let mut pod = Pod::start(&manifest("killed", spec), &[]);
    pod.log("app", "sleeping");
    drop(pod);
}

const LIMITED: &str = r#"
  restartPolicy: Never
  containers:
  - {name: app, image: podkit, args: [app, hog, "200"], resources: {limits: {memory: 48Mi}}}
"#;

/// A group of version 1 below this process's own, given to the user. Dropping it removes it, if nothing is left in it.
struct Given(PathBuf);

impl Given {
    fn new(controller: &str) -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").expect("proc");
        let own = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers
                .split(',')
                .any(|one| one == controller)
                .then_some(path)
        })?;
        let mount = Path::new("/sys/fs/cgroup").join(controller);
        let own = mount.join(own.trim_start_matches('/'));
        let base = if own.is_dir() { own } else { mount };
        let dir = base.join(format!("podkit-user-{}", std::process::id()));
        std::fs::create_dir(&dir).ok()?;
        for path in [&dir, &dir.join("cgroup.procs")] {
            chown(path, Some(uid()), Some(uid())).expect("root gives away");
        }
        Some(Self(dir))
    }

    fn remove(self) {
        // Groups that podkit shares between its pods stay, as on a machine.
        let _none = std::fs::remove_dir(self.0.join("podkit"));
        std::fs::remove_dir(&self.0).expect("nothing is left in it");
    }
}

pub(super) fn a_plain_user_with_cgroups() {
    assert!(Way::OneId.run(&["prepared", "cgroups", "not-given"]));
    let Some(given) = Given::new("memory") else {
        println!("  (no memory controller of cgroup v1 here)");
        return;
    };
    let join = "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"";
    let dir = given.0.to_str().expect("UTF-8").to_owned();
    let ways: Vec<Way> = WAYS.into_iter().filter(able).collect();
    let good = ways.iter().map(|way| {
        let wrapper = ["sh", "-c", join, &dir];
        (
            way,
            way.run_under(&wrapper, &["prepared", "cgroups", "given"]),
        )
    });
    let bad: Vec<_> = good.filter(|(_, good)| !good).collect();
    given.remove();
    assert!(bad.is_empty(), "{bad:?}");
}

fn limits_hold() {
    alone(|| {
        let (code, lines, said) = Pod::start(&manifest("held", LIMITED), &[]).end();
        assert_eq!(code, Some(1), "{lines:#?}\n{said}");
        let end = lines.iter().find(|line| line["state"] == "terminated");
        let end = end.expect("an end");
        assert_eq!(
            (&end["exitCode"], &end["reason"]),
            (&137.into(), &"OOMKilled".into())
        );
        let told = lines.iter().filter_map(|line| line["message"].as_str());
        let told: Vec<_> = told.filter(|text| text.contains("not enforced")).collect();
        assert!(told.is_empty(), "{told:?}");
    });
}

fn limits_are_told() {
    alone(|| {
        // Started again and again, which makes nothing new to tell.
        let spec = r#"
  containers:
  - {name: app, image: podkit, args: [app, exit, "0"], resources: {limits: {memory: 48Mi}}}
"#;
        let mut pod = Pod::start(&manifest("told", spec), &[]);
        for _start in 0..3 {
            pod.event("app", "Started");
        }
        let (_, lines, said) = pod.stop();
        let told: Vec<&str> = lines
            .iter()
            .filter(|line| line["type"] == "warning")
            .filter_map(|line| line["message"].as_str())
            .filter(|message| message.contains("resources.limits.memory of container app"))
            .collect();
        assert_eq!(told.len(), 1, "{told:#?}\n{said}");
        assert!(told[0].contains(": not enforced: "), "{told:?}");
    });
}
