//! The supervisor against the kernel. A test program of its own (`harness = false`): each case starts it again as `podkit
//! run` would be, it is executed as the stage, and it is the program inside the containers.
//!
//! Run by root it also tests what it is like without root; run by somebody else it says what it left out.

#[path = "runner/app.rs"]
mod app;
#[path = "runner/cases/mod.rs"]
mod cases;
#[path = "shared/harness.rs"]
mod harness;
#[path = "runner/registry.rs"]
mod registry;
#[path = "shared/rootless.rs"]
mod rootless;
#[path = "runner/support.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    podkit_pod::sandbox::run_if_stage();
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("app") => return app::main(&args[2..]),
        Some("run") => return support::run(&args[2..]),
        Some("prepared") => return cases::prepared(&args[2..]),
        Some("as-user") => return rootless::as_user(&args[2..]),
        Some("count-ids") => return rootless::count_ids(),
        _ => {}
    }
    harness::run(&args, cases::ALL, cases::needs, || (), |case, ()| case())
}
