//! The same program as a user who may nothing: cases of this suite, executed again by a child with another user id, once with no
//! id but its own and once with the ranges of an `/etc/subuid` (in private mounts, so that the machine's stays as it is).
//!
//! Root runs these, since continuous integration is root, and gives everything up before the case begins; the network of its own
//! that a case has is made here. Not every case comes again: those of modules, documents and benchmarks start no pod, and of those
//! with pods one for each thing that is done otherwise without root is enough. What needs root is named in [`WANT_ROOT`].

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use podkit_testkit::net::OwnNetwork;
use podkit_testkit::process::run;
use podkit_testkit::{Need, Turn, able, podkit};

/// Nobody's id, on a machine that is not made to break this.
const UID: u32 = 61_348;
/// The ids beside it, in the private `/etc/subuid`.
const RANGE: &str = "1000000:65536";

/// With whichever ids: order, ends, probes, hooks, logs, commands, volumes, ports, what is left after a kill.
const ANY_IDS: &[&str] = &[
    "lifecycle::init_containers_run_one_after_the_other_and_sidecars_beside",
    "lifecycle::a_failed_init_container_fails_a_pod_that_never_restarts",
    "lifecycle::exit_code_from_a_container_is_podkits_own",
    "lifecycle::on_failure_restarts_failures_only",
    "lifecycle::a_second_signal_does_not_wait_for_the_grace_period",
    "lifecycle::hooks_run_after_the_start_and_before_the_stop",
    "lifecycle::a_failed_post_start_hook_kills_its_container",
    "probes::readiness_follows_its_probe_down_and_up",
    "runtime::the_environment_is_resolved_and_what_is_unknown_stays",
    "runtime::process_ids_are_apart_unless_they_are_shared",
    "runtime::orphans_of_a_shared_pid_namespace_are_reaped",
    "runtime::containers_share_network_host_name_and_shared_memory",
    "detached::a_command_has_its_own_streams_and_exit_code",
    "detached::an_interactive_command_has_a_real_terminal",
    "faults::a_pod_dies_with_its_supervisor_and_the_next_start_is_clean",
    "faults::a_second_pod_of_the_same_name_is_refused_while_the_first_runs",
    "lifecycle::restarts_back_off_and_double",
    "lifecycle::the_grace_period_ends_with_a_kill",
    "probes::a_failed_liveness_probe_restarts",
    "probes::a_startup_probe_holds_the_others_back_and_kills_when_it_never_passes",
    "probes::http_and_tcp_probes_look_at_the_pods_address",
    "probes::a_probe_on_a_port_that_nothing_serves_says_so",
    "runtime::ports_are_published_on_the_loopback_and_host_ports_everywhere",
    "runtime::several_pods_of_one_file_run_side_by_side",
    "detached::a_detached_pod_holds_nothing_of_its_caller",
    "detached::a_detached_pod_is_listed_read_and_stopped",
    "detached::a_pod_that_has_ended_stays_until_it_is_stopped",
    "detached::a_killed_supervisor_is_seen_and_cleaned_up",
    "detached::an_older_client_is_understood_and_a_newer_one_told",
    "detached::what_is_wrong_is_said_before_anything_is_left",
    "detached::a_container_is_attached_to_and_read_from_a_pipe",
    "faults::a_volume_over_its_limit_evicts_the_pod",
    "faults::a_terminal_that_goes_away_stops_the_pod",
    "faults::a_sidecar_that_crashes_does_not_touch_the_application",
    "watch::only_what_an_edit_changed_is_restarted",
    "watch::pods_come_and_go_with_their_file",
    "watch::a_pod_that_a_detached_run_can_not_begin_later_is_told_of",
];

/// With more ids than one: other users in the containers.
const MORE_IDS: &[&str] = &[
    "runtime::rights_are_those_of_the_security_context",
    "runtime::volumes_hold_what_they_should_and_refuse_the_rest",
    "detached::a_command_has_its_own_streams_and_exit_code",
];

/// What a plain user can't have, with the reason.
const WANT_ROOT: &[(&str, &str)] = &[(
    "runtime::too_much_memory_is_told_as_such_and_hurts_nobody_else",
    "cgroups of its own",
)];

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for dir in ["", "run", "tmp"] {
        let dir = home.path().join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        chown(&dir, Some(UID), Some(UID)).unwrap();
        std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    }
    // Where the build lies the user may not go.
    for (from, to) in [
        (podkit::binary(), "podkit"),
        (&std::env::current_exe().unwrap(), "e2e"),
    ] {
        let to = home.path().join(to);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
    }
    home
}

/// A whole `/etc` for private mounts: with the user and their ranges, by name and by number. The whole directory, since a mount on
/// each file would be one that the user can't take off.
fn etc_with_ranges(home: &Path) -> String {
    let etc = home.join("etc");
    let copied = run("cp", Command::new("cp").args(["-a", "/etc"]).arg(&etc));
    assert_eq!(copied.code, Some(0));
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let account = format!("podkit-e2e:x:{UID}:{UID}::{}:/bin/sh\n", home.display());
    for (name, text) in [
        ("passwd", passwd + &account),
        ("subuid", format!("podkit-e2e:{RANGE}\n")),
        ("subgid", format!("{UID}:{RANGE}\n")),
    ] {
        std::fs::write(etc.join(name), text).unwrap();
    }
    format!("mount --bind '{}' /etc && ", etc.display())
}

/// Runs the cases one by one; a failed one is told with all that it said.
fn again(cases: &[&str], prepare: impl FnOnce(&Path) -> String) {
    // One name for all: a case that is renamed must be renamed here.
    let home = home();
    let program = home.path().join("e2e");
    let listed = run("the tests", Command::new(&program).arg("--list"));
    let there = |case: &str| {
        listed
            .out
            .lines()
            .any(|line| line == format!("{case}: test"))
    };
    for case in cases.iter().chain(WANT_ROOT.iter().map(|(case, _)| case)) {
        assert!(there(case), "there is no case {case}");
    }
    let before = prepare(home.path());
    let _turn = Turn::alone();
    let script = format!(
        "{before}exec setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps=-all -- \"$@\""
    );
    let mut failed = Vec::new();
    for case in cases {
        let _network = OwnNetwork::enter();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "--", "sh", "-c"])
            .args([&script, "sh"])
            .arg(&program)
            .args(["--exact", case, "--nocapture", "--test-threads=1"])
            .env("TESTKIT_PODKIT", home.path().join("podkit"))
            .env("TESTKIT_PLAIN_USER", "1")
            .env("HOME", home.path())
            .env("TMPDIR", home.path().join("tmp"))
            .env("XDG_RUNTIME_DIR", home.path().join("run"))
            .env_remove("XDG_DATA_HOME")
            .env_remove("TESTKIT_SKIPPED")
            .current_dir("/");
        let ended = run(case, &mut command);
        let ran = ended.out.contains("test result: ok. 1 passed") && !ended.out.contains("SKIPPED");
        if ended.code != Some(0) || !ran {
            failed.push(*case);
            println!("{case}:\n{}\n{}", ended.out, ended.err);
        }
    }
    assert!(failed.is_empty(), "as a plain user: {failed:#?}");
}

fn user_namespaces() -> bool {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        &UID.to_string(),
        "--clear-groups",
        "unshare",
        "--user",
        "true",
    ]);
    let can = run("unshare", &mut command).code == Some(0);
    if !can {
        podkit_testkit::skip("user namespaces for plain users");
    }
    can
}

#[test]
fn with_one_id() {
    if able(&[Need::Root, Need::Program("ip"), Need::Program("setpriv")]) && user_namespaces() {
        again(ANY_IDS, |_| String::new());
    }
}

#[test]
fn with_ranges() {
    let needs = [
        Need::Root,
        Need::Program("ip"),
        Need::Program("setpriv"),
        Need::Program("newuidmap"),
        Need::Program("newgidmap"),
    ];
    if able(&needs) && user_namespaces() {
        again(MORE_IDS, etc_with_ranges);
    }
}
