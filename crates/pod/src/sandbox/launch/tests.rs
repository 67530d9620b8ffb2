use std::fs::File;
use std::os::unix::fs::MetadataExt;

use rustix::process::getpid;

use super::*;

/// Hears what this process says, to which the stage is `stage`.
fn hear(stage: Pid, replies: &[(Reply, Option<OwnedFd>)]) -> (Told, Option<OwnedFd>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    set_socket_passcred(&ours, true).unwrap();
    for (reply, fd) in replies {
        wire::send_reply(&theirs, reply, fd.as_ref()).unwrap();
    }
    drop(theirs);
    let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let mut made = Made {
        stages: vec![(stage, pidfd)],
        process: None,
    };
    let mut told = Told::default();
    told.listen(&ours, &mut made).unwrap();
    (told, made.process)
}

#[test]
fn the_stage_alone_says_what_was_started() {
    let pidfd = || Some(pidfd_open(getpid(), PidfdFlags::empty()).unwrap());
    let (_, process) = hear(getpid(), &[(Reply::Started, pidfd())]);
    assert!(process.is_some());
    let replies = [(Reply::Stage, pidfd()), (Reply::Started, pidfd())];
    let (_, process) = hear(Pid::INIT, &replies);
    assert!(process.is_none());
}

#[test]
fn what_the_stage_said_stays() {
    let null = || Some(OwnedFd::from(File::open("/dev/null").unwrap()));
    let zero = || Some(OwnedFd::from(File::open("/dev/zero").unwrap()));
    let (told, _) = hear(
        getpid(),
        &[
            (Reply::MountNamespace, zero()),
            (Reply::Terminal, zero()),
            (Reply::MountNamespace, null()),
            (Reply::Terminal, null()),
        ],
    );
    let expected = std::fs::metadata("/dev/zero").unwrap().rdev();
    for told in [told.mount_namespace, told.terminal] {
        let device = File::from(told.unwrap()).metadata().unwrap().rdev();
        assert_eq!(device, expected);
    }
}
