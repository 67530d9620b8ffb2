//! The supervisor against the kernel. A test program of its own (`harness = false`): each case starts it again as `podkit
//! run` would be, it is executed as the stage, and it is the program inside the containers.
//!
//! Needs root; says so and passes when it is not.

#[path = "runner/app.rs"]
mod app;
#[path = "runner/cases.rs"]
mod cases;
#[path = "runner/support.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    podkit_pod::sandbox::run_if_stage();
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("app") => return app::main(&args[2..]),
        Some("run") => return support::run(&args[2..]),
        _ => {}
    }
    // Reads what libtest would: a filter, --list; other options don't matter here.
    let filter = args.iter().skip(1).find(|arg| !arg.starts_with('-'));
    let filter = filter.map(String::as_str).unwrap_or_default();
    if args.iter().any(|arg| arg == "--list") {
        for (name, _) in cases::ALL {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        println!("test runner ... ignored: namespaces and mounts need root");
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    let mut ran = 0;
    for (name, case) in cases::ALL.iter().filter(|(name, _)| name.contains(filter)) {
        let outcome = std::panic::catch_unwind(case);
        ran += 1;
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word}");
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
