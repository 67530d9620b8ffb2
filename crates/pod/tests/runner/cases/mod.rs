//! The cases. Each leaves the machine as it was; `alone` checks that.

mod attach;
mod bounds;
mod edits;
mod ends;
mod jobs;
mod logs;
mod network;
mod order;
mod supervisor;
mod user;
mod volumes;

pub(crate) use user::prepared;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::rootless::Needs;
use crate::support::{Machine, PATIENCE, Pod, free_port, full, manifest, story};

/// What a case needs that a plain user may lack. They all run without root too, but for those that are named here.
pub(crate) fn needs(name: &str) -> Needs {
    match name {
        "out_of_memory" => Needs::Root("cgroups of its own"),
        "the_network_files" => Needs::Root("a network with an address of the machine's choice"),
        "a_way_out_for_a_plain_user" => Needs::Root("a network of its own to be without root in"),
        "a_plain_user_with_cgroups" => Needs::Root("cgroups to give to a plain user"),
        _ => Needs::Nothing,
    }
}

type Case = fn();

pub(crate) const ALL: &[(&str, Case)] = &[
    ("order_of_start_and_stop", order::order_of_start_and_stop),
    ("restarts_with_back_off", order::restarts_with_back_off),
    (
        "liveness_kills_and_restarts",
        order::liveness_kills_and_restarts,
    ),
    (
        "readiness_and_published_ports",
        network::readiness_and_published_ports,
    ),
    ("exec_probe_and_hooks", order::exec_probe_and_hooks),
    (
        "what_a_probe_wrote_is_told",
        order::what_a_probe_wrote_is_told,
    ),
    ("grace_and_kill", ends::grace_and_kill),
    ("asked_twice_it_is_killed", ends::asked_twice_it_is_killed),
    ("exit_codes", ends::exit_codes),
    ("a_start_that_fails", ends::a_start_that_fails),
    ("termination_messages", ends::termination_messages),
    (
        "the_stop_signal_is_the_containers",
        ends::the_stop_signal_is_the_containers,
    ),
    ("active_for_too_long", ends::active_for_too_long),
    (
        "an_image_that_cannot_be_had",
        ends::an_image_that_cannot_be_had,
    ),
    (
        "a_container_that_cannot_be_made",
        ends::a_container_that_cannot_be_made,
    ),
    ("logs_apart_and_whole", logs::logs_apart_and_whole),
    ("a_flood_holds_nobody_up", logs::a_flood_holds_nobody_up),
    (
        "several_are_attached_and_the_first_closes_the_input",
        attach::several_are_attached_and_the_first_closes_the_input,
    ),
    (
        "a_terminal_is_attached_to",
        attach::a_terminal_is_attached_to,
    ),
    ("out_of_memory", bounds::out_of_memory),
    ("eviction", bounds::eviction),
    (
        "eviction_by_what_a_container_logs",
        bounds::eviction_by_what_a_container_logs,
    ),
    (
        "shared_processes_and_pod_json",
        supervisor::shared_processes_and_pod_json,
    ),
    ("the_network_files", network::the_network_files),
    (
        "what_containers_write_is_closed_to_others",
        bounds::what_containers_write_is_closed_to_others,
    ),
    (
        "killed_it_leaves_nothing_running",
        supervisor::killed_it_leaves_nothing_running,
    ),
    ("one_supervisor_per_pod", supervisor::one_supervisor_per_pod),
    ("a_port_that_is_taken", network::a_port_that_is_taken),
    ("standard_output_goes_away", logs::standard_output_goes_away),
    ("several_pods", supervisor::several_pods),
    (
        "a_way_out_for_a_plain_user",
        user::a_way_out_for_a_plain_user,
    ),
    ("a_plain_user_with_cgroups", user::a_plain_user_with_cgroups),
    ("jobs_complete_and_fail", jobs::jobs_complete_and_fail),
    (
        "a_pod_that_is_stopped_by_hand_has_not_succeeded",
        jobs::a_pod_that_is_stopped_by_hand_has_not_succeeded,
    ),
    (
        "two_namespaces_have_a_pod_of_the_same_name",
        supervisor::two_namespaces_have_a_pod_of_the_same_name,
    ),
    (
        "volumes_follow_their_files",
        edits::volumes_follow_their_files,
    ),
    (
        "only_what_changed_is_restarted",
        edits::only_what_changed_is_restarted,
    ),
    (
        "pods_come_and_go_and_are_restarted_as_a_whole",
        edits::pods_come_and_go_and_are_restarted_as_a_whole,
    ),
    ("variables_out_of_a_file", volumes::variables_out_of_a_file),
    (
        "a_variable_whose_file_comes_late",
        volumes::a_variable_whose_file_comes_late,
    ),
    ("an_image_as_a_volume", volumes::an_image_as_a_volume),
    (
        "an_image_volume_that_comes_late",
        volumes::an_image_volume_that_comes_late,
    ),
    (
        "a_name_that_is_made_up_is_kept_over_an_edit",
        edits::a_name_that_is_made_up_is_kept_over_an_edit,
    ),
    (
        "a_volume_that_can_t_be_had_names_its_pod",
        volumes::a_volume_that_can_t_be_had_names_its_pod,
    ),
    (
        "a_directory_that_an_image_lacks",
        volumes::a_directory_that_an_image_lacks,
    ),
    (
        "many_rounds_leak_nothing",
        supervisor::many_rounds_leak_nothing,
    ),
];

/// Runs a case and looks whether anything is left.
fn alone(case: impl FnOnce()) {
    let before = Machine::look();
    case();
    // A process that was killed may still be on its way out.
    let end = Instant::now() + Duration::from_secs(30);
    while Machine::look() != before {
        assert!(
            Instant::now() < end,
            "before {before:?}\nafter {:?}",
            Machine::look()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// In KiB. This program is not optimised and large: the figure that counts is measured by the benchmark.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}
