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
    // Reads what libtest would: a filter, --exact, --list; none is ignored. Other options don't matter here.
    let given = |option: &str| args.iter().any(|arg| arg == option);
    let filter = args
        .iter()
        .skip(1)
        .find(|arg| !arg.starts_with('-'))
        .cloned()
        .unwrap_or_default();
    if given("--list") {
        let listed = if given("--ignored") { &[] } else { cases::ALL };
        for (name, _) in listed {
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
    let (mut failed, mut passed) = (Vec::new(), 0);
    let wanted = |name: &str| match given("--exact") {
        true => name == filter,
        false => name.contains(&filter),
    };
    for (name, case) in cases::ALL.iter().filter(|(name, _)| wanted(name)) {
        let outcome = std::panic::catch_unwind(|| case(&private));
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
