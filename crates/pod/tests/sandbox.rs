//! The sandbox against the kernel. A test program of its own (`harness = false`): it must enter its private mounts before any
//! thread, it is executed again as the stage, and it is the program inside the containers (it is static).
//!
//! Run by root it also tests what it is like without root; run by somebody else it says what it left out.
#![expect(clippy::unwrap_used, reason = "a test program")]

#[path = "sandbox/cases.rs"]
mod cases;
#[path = "shared/harness.rs"]
mod harness;
#[path = "sandbox/inside.rs"]
mod inside;
#[path = "shared/rootless.rs"]
mod rootless;
#[path = "sandbox/support.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    podkit_pod::sandbox::run_if_stage();
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some("inside") {
        return inside::main(&args[2..]);
    }
    match args.get(1).map(String::as_str) {
        Some("creator") => return cases::creator(&args[2]),
        Some("propagation") => return cases::on_own_machine(&args[2]),
        Some("as-user") => return rootless::as_user(&args[2..]),
        Some("count-ids") => return rootless::count_ids(),
        _ => {}
    }
    let enter = || podkit_pod::sandbox::enter_private_mounts().expect("enter private mounts");
    harness::run(&args, cases::ALL, cases::needs, enter, |case, private| {
        case(private)
    })
}
