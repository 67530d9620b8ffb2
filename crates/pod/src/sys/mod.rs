//! The raw system calls of the pod runner: what neither std nor rustix offers as a safe function.
//!
//! The only place of the project with `unsafe`. Each file wraps one family of calls in functions that are safe to
//! call, or says in words what the caller has to keep. Everything else goes through rustix.
#![allow(unsafe_code)]

mod bpf;
mod mounts;
mod pause;
mod process;
mod seccomp;
mod signal;
mod spawn;
mod text;
mod watch;

pub(crate) use bpf::{attach_device_program, load_device_program};
pub(crate) use mounts::{clear_mount_attributes, set_mount_attributes};
pub(crate) use pause::pause_program;
pub(crate) use process::{
    OneThread, close_all_but, close_from, exec, exec_fd, exit_now, fork_child, fork_sibling,
    ignore_child_exits, inherited, leave_session_keyring, mark_all_close_on_exec, one_thread,
    reset_signals, unshare,
};
pub(crate) use seccomp::install_filter;
pub(crate) use signal::{RTMAX, RTMIN, signal_of};
pub(crate) use spawn::spawn;
pub use text::give_back_start;
pub(crate) use watch::{watch_both, watch_readable};

#[cfg(test)]
mod tests;
