//! The supervisor against the kernel. A test program of its own (`harness = false`): each case starts it again as `podkit
//! run` would be, it is executed as the stage, and it is the program inside the containers.
//!
//! Needs root; says so and passes when it is not.

#[path = "runner/app.rs"]
mod app;
#[path = "runner/cases/mod.rs"]
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
    // Reads what libtest would: a filter, --exact, --list; none is ignored. Other options don't matter here.
    let given = |option: &str| args.iter().any(|arg| arg == option);
    let filter = args.iter().skip(1).find(|arg| !arg.starts_with('-'));
    let filter = filter.map(String::as_str).unwrap_or_default();
    if given("--list") {
        let listed = if given("--ignored") { &[] } else { cases::ALL };
        for (name, _) in listed {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        println!("test runner ... ignored: namespaces and mounts need root");
        return ExitCode::SUCCESS;
    }
    let (mut failed, mut passed) = (Vec::new(), 0);
    let wanted = |name: &str| match given("--exact") {
        true => name == filter,
        false => name.contains(filter),
    };
    for (name, case) in cases::ALL.iter().filter(|(name, _)| wanted(name)) {
        let outcome = std::panic::catch_unwind(case);
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word}");
        match outcome {
            Ok(()) => passed += 1,
            Err(_) => failed.push(*name),
        }
    }
    // As libtest says it: `cargo xtask test` counts.
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\nfailures: {failed:?}\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored",
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
