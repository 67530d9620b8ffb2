//! The cases. Each gets the private mounts and makes pods of its own.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use podkit_pod::image::Root;
use podkit_pod::sandbox::{
    ContainerStart, ExecSpec, ExitStatus, Mount, PodSandbox, PrivateMounts, Rlimit, RlimitKind,
    SandboxSpec, Signal, StartError,
};

use crate::support::*;

type Case = fn(&PrivateMounts);

pub(crate) const ALL: &[(&str, Case)] = &[
    (
        "command_environment_directory",
        command_environment_directory,
    ),
    ("user_groups_capabilities", user_groups_capabilities),
];

fn command_environment_directory(private: &PrivateMounts) {
    let pod = pod(private);
    let mut start = inside("args ; env ; cwd ; hostname ; pid ; umask");
    start.env = vec![("A".into(), "1 2".into()), ("HOME".into(), "/h".into())];
    start.cwd = Some("/made/here".into());
    let (status, text) = run(&pod, start);
    assert_eq!(status, ExitStatus::Code(0), "{text}");
    has(&text, r#"args ["/podkit", "inside", "args", ";""#);
    has(
        &text,
        r#"("A", "1 2"), ("HOME", "/h"), ("HOSTNAME", "testpod")]"#,
    );
    has(&text, r#"("PATH", "/usr/local/sbin:"#);
    has(&text, "cwd /made/here\nhostname testpod\npid 1\numask 22");
    pod.destroy(LONG).unwrap();
}

fn user_groups_capabilities(private: &PrivateMounts) {
    let pod = pod(private);
    let (_, text) = run(&pod, inside("cat /proc/self/status"));
    assert_eq!(field(&text, "CapEff:"), "00000000a80425fb");
    pod.destroy(LONG).unwrap();
}

pub(crate) fn creator(_what: &str) -> ExitCode {
    ExitCode::SUCCESS
}
