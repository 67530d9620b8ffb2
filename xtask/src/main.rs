//! The project's own chores: `cargo xtask test`, `docs`, `fuzz`, `bench`. In Rust, so that a machine with cargo has what it takes.

mod bench;
mod build;
mod docs;
mod fuzz;
mod machine;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask test          everything that must hold: format, lints, tests, the real program against real servers
cargo xtask docs          write docs/reference from what the program says of itself
cargo xtask fuzz NAME     run a target of fuzz/ for a minute, or --seconds N; a name that is none lists them
cargo xtask bench NAME    measure against the peers and write docs/benchmarks/NAME.md
                          NAME: check, git-sync, http, image, pod, redis, sidecars, tls, topz, size, all; --quick for a short look that writes nothing";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test"] => test::run(),
        ["docs"] => docs::run(),
        ["fuzz", name] => fuzz::run(name, 60),
        ["fuzz", name, "--seconds", text] if text.parse::<u64>().is_ok() => {
            fuzz::run(name, text.parse().unwrap_or(60))
        }
        ["bench", name] => bench::run(name, false),
        ["bench", name, "--quick"] | ["bench", "--quick", name] => bench::run(name, true),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
