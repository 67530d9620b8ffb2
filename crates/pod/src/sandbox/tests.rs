use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(add: &[&str], drop: &[&str], expected: u64) {
    assert_eq!(
        effective_set(&names(add), &names(drop)),
        Ok(expected),
        "+{add:?} -{drop:?}"
    );
}

#[test]
fn capabilities_are_those_of_containerd() {
    check(&[], &[], 0xa804_25fb);
    check(&[], &["ALL"], 0);
    check(&["NET_BIND_SERVICE"], &["ALL"], 1 << 10);
    check(&["CAP_NET_BIND_SERVICE"], &["CAP_ALL"], 1 << 10);
    check(&["ALL"], &[], (1 << 41) - 1);
    check(&["ALL"], &["SYS_ADMIN"], ((1 << 41) - 1) & !(1 << 21));
    check(&["SYS_TIME"], &["CHOWN"], (0xa804_25fb | 1 << 25) & !1);
    let unknown = effective_set(&names(&["FLY"]), &[]).unwrap_err();
    assert_eq!(unknown.to_string(), "unknown capability \"FLY\"");
    assert!(effective_set(&[], &names(&["net_raw"])).is_err());
}

#[test]
fn exit_status_as_containers_have_it() {
    assert_eq!(ExitStatus::Code(3).code(), 3);
    assert_eq!(ExitStatus::Signal(15).code(), 143);
    assert!(ExitStatus::Code(0).success() && !ExitStatus::Signal(0).success());
    assert_eq!(ExitStatus::Signal(9).to_string(), "signal 9");
}

#[test]
fn errors_are_plain_words() {
    let error = StartError::Step {
        step: "mount /data".into(),
        errno: libc::ENOENT,
    };
    assert_eq!(error.to_string(), "mount /data: No such file or directory");
    let error = SandboxError::UserNamespace("the kernel has none".into());
    assert_eq!(
        error.to_string(),
        "without root, pods need user namespaces, which this machine refuses: the kernel has none; or run podkit as root"
    );
}

#[test]
fn replies_arrive_whole_in_order_and_with_their_descriptor() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap().into();
    wire::send_reply(&theirs, &wire::Reply::Warning("first".into()), None).unwrap();
    wire::send_reply(&theirs, &wire::Reply::Started, Some(&file)).unwrap();
    wire::send_reply(&theirs, &wire::Reply::NotFound("x".into()), None).unwrap();
    drop(theirs);
    let next = || {
        let received = wire::receive_reply(&ours).unwrap();
        received.map(|received| (received.reply, received.fd))
    };
    assert!(matches!(next(), Some((wire::Reply::Warning(line), None)) if line == "first"));
    let Some((wire::Reply::Started, Some(fd))) = next() else {
        panic!("no descriptor")
    };
    assert!(
        rustix::io::fcntl_getfd(fd.as_fd())
            .unwrap()
            .contains(rustix::io::FdFlags::CLOEXEC)
    );
    assert!(matches!(next(), Some((wire::Reply::NotFound(name), None)) if name == "x"));
    assert!(next().is_none());
}

#[test]
fn a_cut_or_endless_message_is_an_error() {
    use std::io::Write;
    for bytes in [
        &b"\x10\0"[..],
        &b"\x10\0\0\0{}"[..],
        &b"\xff\xff\xff\xff"[..],
        &b"\x02\0\0\0{]"[..],
    ] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).unwrap();
        drop(theirs);
        assert!(wire::receive_reply(&ours).is_err(), "{bytes:?}");
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).unwrap();
        drop(theirs);
        assert!(wire::receive_job(&ours).is_err(), "{bytes:?}");
    }
}

proptest! {
    /// Whatever the command and the environment hold, and however large they are, the stage gets just that.
    #[test]
    fn jobs_survive_the_way(argv in proptest::collection::vec(".*", 0..20), value in "\\PC*", times in 1..2000_usize) {
        let identity = wire::Identity {
            env: vec![("A".into(), value.repeat(times))],
            ..wire::Identity::of_init()
        };
        let run = wire::Run { argv, stdio: wire::StdioJob::Fds([None, Some(7), None]), identity };
        let job = wire::Job::Exec { container: 3, run };
        let expected = format!("{job:?}");
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sender = std::thread::spawn(move || wire::send_job(&ours, &job));
        let received = wire::receive_job(&theirs).unwrap();
        sender.join().unwrap().unwrap();
        prop_assert_eq!(format!("{received:?}"), expected);
    }
}

#[test]
fn sysctls_by_either_spelling() {
    for (name, path) in [
        ("net.core.somaxconn", "net/core/somaxconn"),
        ("net/core/somaxconn", "net/core/somaxconn"),
        (
            "net.ipv4.conf.eth0/100.rp_filter",
            "net/ipv4/conf/eth0.100/rp_filter",
        ),
        (
            "net/ipv4/conf/eth0.100/rp_filter",
            "net/ipv4/conf/eth0.100/rp_filter",
        ),
        ("net", "net"),
    ] {
        assert_eq!(sysctl::path(name), path);
    }
}

#[test]
fn ids_of_a_pidfd() {
    let info = |text: &str| format!("pos:\t0\nflags:\t02000002\nmnt_id:\t4\nino:\t67\n{text}");
    for (text, expected) in [
        ("Pid:\t29794\nNSpid:\t29794\t7\t3\n", Some((29794, Some(7)))),
        ("Pid:\t29794\nNSpid:\t29794\t7\n", Some((29794, Some(7)))),
        ("Pid:\t29794\nNSpid:\t29794\n", Some((29794, Some(29794)))),
        // A kernel without PID namespaces.
        ("Pid:\t29794\n", Some((29794, None))),
        ("Pid:\t-1\nNSpid:\t-1\n", None),
        ("", None),
    ] {
        assert_eq!(process::pids(&info(text)), expected, "{text:?}");
    }
}
