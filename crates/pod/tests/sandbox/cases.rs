//! The cases. Each gets the private mounts and makes pods of its own.

use podkit_pod::sandbox::PrivateMounts;

#[path = "escapes/calls.rs"]
mod calls;
#[path = "escapes/devices.rs"]
mod escaping_devices;
#[path = "filesystem.rs"]
mod filesystem;
#[path = "host.rs"]
mod host;
#[path = "escapes/images.rs"]
mod images;
#[path = "escapes/kernel_files.rs"]
mod kernel_files;
#[path = "lifetime.rs"]
mod lifetime;
#[path = "escapes/neighbours.rs"]
mod neighbours;
#[path = "escapes/privileges.rs"]
mod privileges;
#[path = "process.rs"]
mod process;
#[path = "propagation.rs"]
mod propagation;
#[path = "escapes/races.rs"]
mod races;
#[path = "security.rs"]
mod security;
#[path = "terminal.rs"]
mod terminal;

pub(crate) use lifetime::creator;
pub(crate) use propagation::on_own_machine;

use crate::rootless::Needs;

/// What a case needs that a plain user may lack. They all run without root too, but for those that are named here.
pub(crate) fn needs(name: &str) -> Needs {
    match name {
        "cgroups_are_joined" => Needs::Root("cgroups of its own"),
        "devices_are_shut_by_the_cgroup_too" => Needs::Root("device nodes"),
        "mounts_made_later" => Needs::Root("mounts of the machine"),
        "how_long_a_start_takes" => Needs::Root("its figures are root's"),
        "user_groups_capabilities"
        | "accounts_of_the_image"
        | "exec_joins_the_container"
        | "pipes_belong_to_the_user"
        | "terminal_of_a_container"
        | "layered_image"
        | "masks_stay_on_in_a_user_namespace"
        | "calls_that_own_the_machine"
        | "raw_sockets_need_their_capability"
        | "the_stage_is_closed_to_others"
        | "groups_of_a_container"
        | "programs_give_no_privilege_where_that_is_forbidden"
        | "root_is_refused_where_it_must_not_be"
        | "a_program_where_only_root_may_go"
        | "seccomp_runtime_default"
        | "a_neighbour_with_more_rights_is_closed" => Needs::Ids,
        _ => Needs::Nothing,
    }
}

type Case = fn(&PrivateMounts);

macro_rules! cases {
    ($($module:ident: $($name:ident)*;)*) => { &[$($((stringify!($name), $module::$name as Case),)*)*] };
}

pub(crate) const ALL: &[(&str, Case)] = cases! {
    process: command_environment_directory user_groups_capabilities capabilities_asked_for accounts_of_the_image
        exec_failures exit_codes_and_signals own_pid_namespaces shared_pid_namespace zombies_are_reaped
        exec_joins_the_container limits_are_clamped pipes_belong_to_the_user cgroups_are_joined;
    security: groups_of_a_container root_is_refused_where_it_must_not_be a_program_where_only_root_may_go
        privileged_containers unmasked_proc seccomp_runtime_default seccomp_localhost sysctls_of_the_pod;
    host: namespaces_of_the_machine a_pod_among_the_machine_s_processes;
    propagation: mounts_made_later;
    terminal: terminal_of_a_container terminal_of_a_command;
    filesystem: root_of_podkit_itself binary_can_not_be_written read_only_root devices proc_is_masked_and_read_only
        shared_memory_and_queues_are_shared network_and_hostname volumes volume_that_can_not_be_mounted
        links_do_not_lead_out host_image rootfs_image layered_image working_directory_stays_inside;
    kernel_files: masked_files_are_empty nothing_of_proc_or_sys_can_be_written masks_stay_on
        masks_stay_on_in_a_user_namespace;
    calls: calls_that_own_the_machine raw_sockets_need_their_capability interfaces_can_not_be_changed chroot_leads_nowhere;
    neighbours: others_can_not_be_named a_neighbour_with_more_rights_is_closed the_init_survives_its_pod
        the_stage_of_a_command_has_nothing_to_give
        the_stage_of_a_neighbour_has_nothing_to_give keys_stay_with_their_owner abstract_sockets_stay_outside no_descriptor_leaks;
    escaping_devices: devices_are_shut_by_the_cgroup_too forks_are_bounded;
    images: system_directories_are_no_links volumes_do_not_cover_proc accounts_that_are_no_files endless_environment;
    privileges: programs_give_no_privilege_where_that_is_forbidden who_may_mount_has_a_binary_of_its_own;
    races: places_in_a_shared_volume;
    lifetime: the_death_of_the_supervisor_kills_all destroy_leaves_nothing twenty_rounds_leak_nothing a_thousand_commands_leak_nothing
        forgotten_commands_do_not_hold_a_container the_stage_is_closed_to_others kill_rest_of_a_shared_pod sandbox_gone small_init signals_do_not_break_a_start how_long_a_start_takes;
};
