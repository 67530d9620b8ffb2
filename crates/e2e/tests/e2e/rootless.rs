//! The same program as a user who may nothing: cases of this suite, executed again by a child with another user id, once with no
//! id but its own and once with the ranges of an `/etc/subuid` (in private mounts, so that the machine's stays as it is).
//!
//! Root runs these, since continuous integration is root, and gives everything up before the case begins; the network of its own
//! that a case has is made here, so several run side by side, each with a home. Every case that starts a pod has its place in
//! [`CASES`], and a new one must be given one: with one id if it can, with the ranges if it needs more ids than one, with both where
//! the ids make a difference. What needs root says for what.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use podkit_testkit::net::OwnNetwork;
use podkit_testkit::podkit::Pod;
use podkit_testkit::process::run;
use podkit_testkit::{Need, Turn, able, podkit};

use crate::ground::{Ground, is_plain_user, manifest};

/// Nobody's id, on a machine that is not made to break this.
const UID: u32 = 61_348;
/// The ids beside it, in the private `/etc/subuid`.
const RANGE: &str = "1000000:65536";

/// How a plain user runs a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum With {
    OneId,
    /// It looks at the whole machine.
    OneIdAlone,
    /// Other users in the containers, or in the images.
    Ranges,
    /// There is a difference in how podkit does it.
    Both,
    /// Not at all: it needs this.
    Root(&'static str),
}

use With::{Both, OneId, OneIdAlone, Ranges, Root};

/// Modules whose cases start no pod: a module of podkit's, run by itself, is a process like any other.
const WITHOUT_PODS: &[&str] = &[
    "abuse",
    "agent",
    "balance",
    "chain",
    "check",
    "compose_tls",
    "config",
    "config_faults",
    "contract",
    "docs",
    "downgrade",
    "etcd",
    "git_ssh",
    "git_sync",
    "git_sync_faults",
    "health",
    "limit",
    "limit_peers",
    "metrics_memcached",
    "metrics_pages",
    "metrics_redis",
    "metrics_sql",
    "metrics_statsd",
    "metrics_tools",
    "openmetrics",
    "proxies",
    "redis",
    "redis_access",
    "redis_cluster",
    "redis_cluster_clients",
    "redis_failover",
    "redis_messages",
    "redis_tracking",
    "rootless",
    "schema",
    "shard",
    "shard_clients",
    "shard_failure",
    "shard_http",
    "shard_memcached",
    "shard_memcached_stats",
    "shard_sleep",
    "takeover",
    "topz",
];

macro_rules! cases {
    ($($module:ident :: $case:ident => $with:expr,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($case)), $with),)*]
    };
}

/// All others, and [`what_a_plain_user_lacks_is_said_once`].
const CASES: &[(&str, With)] = cases! {
    rootless::what_a_plain_user_lacks_is_said_once => Both,

    agent_nginx::nginx_in_a_pod_is_validated_and_reloaded_by_it => Root("its own hostPath"),

    lifecycle::a_failed_init_container_fails_a_pod_that_never_restarts => OneId,
    lifecycle::a_failed_post_start_hook_kills_its_container => OneId,
    lifecycle::a_hook_that_ends_its_container_has_not_failed => OneId,
    lifecycle::a_second_signal_does_not_wait_for_the_grace_period => OneId,
    lifecycle::exit_code_from_a_container_is_podkits_own => OneId,
    lifecycle::hooks_run_after_the_start_and_before_the_stop => OneId,
    lifecycle::init_containers_run_one_after_the_other_and_sidecars_beside => Both,
    lifecycle::on_failure_restarts_failures_only => OneId,
    lifecycle::restarts_back_off_and_double => OneId,
    lifecycle::the_end_of_one_container_may_be_that_of_all => OneId,
    lifecycle::the_grace_period_ends_with_a_kill => OneId,

    probes::a_failed_liveness_probe_restarts => OneId,
    probes::a_probe_on_a_port_that_nothing_serves_says_so => OneId,
    probes::a_startup_probe_holds_the_others_back_and_kills_when_it_never_passes => OneId,
    probes::http_and_tcp_probes_look_at_the_pods_address => OneId,
    probes::readiness_follows_its_probe_down_and_up => OneId,

    runtime::containers_share_network_host_name_and_shared_memory => OneId,
    runtime::orphans_of_a_shared_pid_namespace_are_reaped => Both,
    runtime::ports_are_published_on_the_loopback_and_host_ports_everywhere => OneId,
    runtime::process_ids_are_apart_unless_they_are_shared => OneId,
    runtime::rights_are_those_of_the_security_context => Ranges,
    runtime::several_pods_of_one_file_run_side_by_side => Both,
    runtime::the_environment_is_resolved_and_what_is_unknown_stays => OneId,
    runtime::too_much_memory_is_told_as_such_and_hurts_nobody_else => Root("cgroups of its own, for the limit"),
    runtime::volumes_hold_what_they_should_and_refuse_the_rest => Both,

    detached::a_command_has_its_own_streams_and_exit_code => Both,
    detached::a_container_is_attached_to_and_read_from_a_pipe => OneId,
    detached::a_detached_pod_holds_nothing_of_its_caller => OneId,
    detached::a_detached_pod_is_listed_read_and_stopped => OneId,
    detached::a_killed_supervisor_is_seen_and_cleaned_up => Both,
    detached::a_pod_that_has_ended_stays_until_it_is_stopped => OneId,
    detached::an_interactive_command_has_a_real_terminal => Both,
    detached::an_older_client_is_understood_and_a_newer_one_told => OneId,
    detached::what_is_wrong_is_said_before_anything_is_left => OneId,
    detached::who_watches_sleeps_until_something_happens => OneId,

    faults::a_full_volume_is_the_business_of_who_filled_it => OneId,
    faults::a_pod_dies_with_its_supervisor_and_the_next_start_is_clean => Both,
    faults::a_second_pod_of_the_same_name_is_refused_while_the_first_runs => OneId,
    faults::a_sidecar_that_crashes_does_not_touch_the_application => OneId,
    faults::a_terminal_that_goes_away_stops_the_pod => OneId,
    faults::a_volume_over_its_limit_evicts_the_pod => OneId,
    faults::two_hundred_rounds_leave_nothing => OneIdAlone,

    watch::a_pod_that_a_detached_run_can_not_begin_later_is_told_of => OneId,
    watch::only_what_an_edit_changed_is_restarted => OneId,
    watch::pods_come_and_go_with_their_file => OneId,

    images::a_loaded_archive_runs_with_podkit_installed_beside_it => Ranges,
    images::an_image_is_listed_inspected_and_kept_while_it_is_used => Ranges,
    images::an_image_of_a_registry_runs_as_its_configuration_says => Ranges,
    images::an_image_that_may_not_be_pulled_is_not => Both,
    images::podkit_makes_its_own_image_when_it_is_static => Ranges,
    images::the_image_of_a_volume_that_nobody_mounts_is_asked_for_again => Ranges,
    images::what_may_not_be_root_waits_when_its_image_says_no_other_user => Both,

    registries::a_clients_certificate_is_shown_where_it_is_put => OneId,
    registries::a_password_comes_from_dockers_configuration_or_its_helper => OneId,
    registries::a_private_authority_is_trusted_where_it_is_put => OneId,
    registries::a_proxy_is_gone_through_where_one_is_set => OneId,

    progress::a_pod_goes_on_when_nobody_waits_for_it_any_more => Ranges,
    progress::an_image_of_several_pods_has_one_bar_and_errors_stay => Ranges,
    progress::bars_are_below_the_lines_and_gone_at_the_end => Ranges,
    progress::bars_of_a_job => Ranges,
    progress::bars_under_watch => Ranges,
    progress::bars_while_a_detached_pod_is_waited_for => Ranges,

    unpacked::an_images_files_are_those_that_podman_unpacks => Root("files of any owner, which it makes to pack them"),

    legacy_web::a_killed_application_is_restarted_and_topz_shows_it => OneId,
    legacy_web::a_mismatched_certificate_is_refused_and_a_good_one_is_live_without_a_failed_request => OneId,
    legacy_web::a_typo_is_named_with_its_line_and_the_nearest_name => OneId,
    legacy_web::it_starts_in_order_answers_over_https_and_stops_in_reverse => OneId,
    legacy_web::the_readmes_name_what_is_there => OneId,
    legacy_web::topz_shows_the_processes_of_all_containers => OneId,
    legacy_web::without_leaves_a_container_out => OneId,

    host_nginx::nginx_is_served_over_https_and_ends_by_its_hook => Ranges,

    chain_example::requests_find_their_application_and_logins_are_limited => Ranges,
    docker::docker_runs_the_image_that_podkit_builds => Root("the Docker Engine that it starts is root's"),
    docker::podkit_runs_what_docker_has => Root("the Docker Engine that it starts is root's"),
    push_to_deploy::what_is_pushed_is_served => Ranges,
    mysql_health_example::the_example_is_as_its_readme_says => Ranges,
    redis_example::the_example_is_as_its_readme_says => Ranges,
    redis_metrics_example::the_example_is_as_its_readme_says => Ranges,
    statsd_example::the_example_is_as_its_readme_says => Ranges,
    shard_example::the_example_is_as_its_readme_says => Ranges,
    node_paas::a_push_runs_and_one_that_breaks_the_program_is_taken_back => Ranges,
    dynamic_config::a_bad_configuration_never_reaches_nginx => Ranges,

    reloads::a_process_is_told_by_its_name => Ranges,
    reloads::the_agent_judges_and_a_signal_or_the_agent_reloads => Ranges,
    reloads::a_killed_application_starts_with_what_is_published => OneId,
    reloads::another_users_process_is_told_by_who_may => Ranges,

    sessions::sessions_stay_and_those_of_a_dead_replica_move => OneId,

    protection::a_sidecar_that_runs_wild_does_not_change_answers_or_latency => Root("cgroups of its own, for the limits"),
};

/// Where the build lies the user may not go.
fn programs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let open = || Permissions::from_mode(0o755);
    std::fs::set_permissions(&dir, open()).unwrap();
    for (from, to) in [
        (podkit::binary(), "podkit"),
        (&std::env::current_exe().unwrap(), "e2e"),
    ] {
        let to = dir.path().join(to);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, open()).unwrap();
    }
    dir
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for dir in ["", "run", "tmp"] {
        let dir = home.path().join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        chown(&dir, Some(UID), Some(UID)).unwrap();
        std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
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

/// Runs those of the cases that are to run so, `beside` of them at a time; a failed one is told with all that it said.
fn again(withs: &[With], beside: usize, prepare: impl Fn(&Path) -> String + Sync) {
    let programs = programs();
    let _turn = Turn::alone();
    let cases = CASES.iter().filter(|(_, with)| withs.contains(with));
    let (cases, failed) = (Mutex::new(cases), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..beside {
            scope.spawn(|| {
                let home = home();
                let before = prepare(home.path());
                loop {
                    let next = cases.lock().unwrap().next();
                    let Some((case, _)) = next else { break };
                    if let Err(said) = as_user(case, programs.path(), home.path(), &before) {
                        println!("{case}:\n{said}");
                        failed.lock().unwrap().push(*case);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "as a plain user: {failed:#?}");
}

/// The case by a child that has given everything up, after the commands `before`. The error is what it said.
fn as_user(case: &str, programs: &Path, home: &Path, before: &str) -> Result<(), String> {
    let script = format!(
        "{before}exec setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps=-all -- \"$@\""
    );
    let _network = OwnNetwork::enter();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--", "sh", "-c"])
        .args([&script, "sh"])
        .arg(programs.join("e2e"))
        .args(["--exact", case, "--nocapture", "--test-threads=1"])
        .env("TESTKIT_PODKIT", programs.join("podkit"))
        .env("TESTKIT_PLAIN_USER", "1")
        .env("HOME", home)
        .env("TMPDIR", home.join("tmp"))
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env_remove("XDG_DATA_HOME")
        .env_remove("TESTKIT_SKIPPED")
        .current_dir("/");
    let ended = run(case, &mut command);
    let ran = ended.out.contains("test result: ok. 1 passed") && !ended.out.contains("SKIPPED");
    match ended.code == Some(0) && ran {
        true => Ok(()),
        false => Err(format!("{}\n{}", ended.out, ended.err)),
    }
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

/// One name for all: a case that is renamed must be renamed in the table, and a new one put there.
#[test]
fn every_case_has_its_place() {
    let mut list = Command::new(std::env::current_exe().unwrap());
    let listed = run("the tests", list.arg("--list")).ok();
    let there: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    assert!(there.len() > CASES.len(), "{listed}");
    let is_placed = |case: &str| {
        let module = case.split("::").next().unwrap_or(case);
        let places = CASES.iter().filter(|(name, _)| *name == case).count();
        places == 1 || places == 0 && WITHOUT_PODS.contains(&module)
    };
    let lost: Vec<_> = there.iter().filter(|case| !is_placed(case)).collect();
    assert!(
        lost.is_empty(),
        "not once in CASES of rootless.rs: {lost:#?}"
    );
    for (case, _) in CASES {
        assert!(there.contains(case), "there is no case {case}");
    }
}

fn able_with(programs: &[&'static str]) -> bool {
    let mut needs = vec![Need::Root, Need::Program("ip"), Need::Program("setpriv")];
    needs.extend(programs.iter().map(|name| Need::Program(name)));
    able(&needs) && user_namespaces()
}

/// As many at a time as run at once: some have to be quick.
fn beside() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn with_one_id() {
    if able_with(&[]) {
        again(&[OneId, Both], beside(), |_| String::new());
    }
}

#[test]
fn two_hundred_rounds_with_one_id() {
    if able_with(&[]) {
        again(&[OneIdAlone], 1, |_| String::new());
    }
}

#[test]
fn with_ranges() {
    if able_with(&["newuidmap", "newgidmap"]) {
        again(&[Ranges, Both], beside(), etc_with_ranges);
    }
}

/// Run by the others: for root there is nothing to say.
#[test]
fn what_a_plain_user_lacks_is_said_once() {
    if !is_plain_user() {
        return;
    }
    let Some(ground) = Ground::new() else { return };
    // The second start has nothing new to say.
    let text = manifest(
        "restartPolicy: OnFailure
volumes:
- name: work
  emptyDir: {}
containers:
- name: app
  image: none
  command: [sh, -c, 'test -e /mnt/again && exit 0; touch /mnt/again; exit 1']
  ports: [{containerPort: 80}]
  resources: {limits: {cpu: 1, memory: 64Mi}}
  securityContext: {capabilities: {add: [SYS_TIME]}}
  volumeMounts: [{name: work, mountPath: /mnt}]
- name: all
  image: none
  command: ['true']
  securityContext: {privileged: true}",
    );
    let mut pod = Pod::run_text(&text, &["--allow-privileged", "--backoff", "100ms"]);
    let code = pod.process.wait().code();
    assert_eq!(code, Some(0), "{}", pod.process.shown());
    let said = pod.said();
    let warnings = said.iter().filter(|said| said["type"] == "warning");
    let warnings: Vec<&str> = warnings
        .filter_map(|said| said["message"].as_str())
        .collect();
    for begin in [
        "not published: port 80 of container app: 127.0.0.1:80 may not be taken by this user",
        "resources.limits.cpu of container app: not enforced",
        "resources.limits.memory of container app: not enforced",
        "securityContext.capabilities.add of container app: without root SYS_TIME has no effect",
        "securityContext.privileged of container all: without root it owns nothing",
        "the pod reaches nothing but itself: ",
    ] {
        let told = warnings.iter().filter(|line| line.starts_with(begin));
        assert_eq!(told.count(), 1, "{begin} in {warnings:#?}");
    }
    ground.assert_clean();
}
