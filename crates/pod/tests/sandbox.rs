//! The sandbox against the kernel. A test program of its own (`harness = false`): it must enter its private mounts before any
//! thread, it is executed again as the stage, and it is the program inside the containers (it is static).
//!
//! Needs root; says so and passes when it is not.
#![expect(clippy::unwrap_used, reason = "a test program")]

#[path = "sandbox/cases.rs"]
mod cases;
#[path = "sandbox/inside.rs"]
mod inside;
#[path = "sandbox/support.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    podkit_pod::sandbox::run_if_stage();
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some("inside") {
        return inside::main(&args[2..]);
    }
    // Reads what libtest would: a filter, --list; other options don't matter here.
    let filter = args
        .iter()
        .skip(1)
        .find(|arg| !arg.starts_with('-'))
        .cloned()
        .unwrap_or_default();
    if args.iter().any(|arg| arg == "--list") {
        for (name, _) in cases::ALL {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        println!("test sandbox ... ignored: namespaces and mounts need root");
        return ExitCode::SUCCESS;
    }
    if args.get(1).map(String::as_str) == Some("creator") {
        return cases::creator(&args[2]);
    }
    let private = podkit_pod::sandbox::enter_private_mounts().expect("enter private mounts");
    let mut failed = Vec::new();
    let mut ran = 0;
    for (name, case) in cases::ALL.iter().filter(|(name, _)| name.contains(&filter)) {
        let outcome = std::panic::catch_unwind(|| case(&private));
        ran += 1;
        println!(
            "test {name} ... {}",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    println!(
        "\ntest result: {ran} ran, {} failed {failed:?}",
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
